"""mig_meow's WorkflowRunner: seconds from the first file to the last job scheduled. `run_mig_meow.py EXPERIMENT N`.

Its workers are not started: with today's papermill they do not run its jobs. Runs in `.peers/meow`.
"""

import contextlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
import time

import mig_meow
from mig_meow.localrunner import WorkflowRunner

NOTEBOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}


def pattern(name, path, sweep=None):
    made = mig_meow.Pattern(name)
    made.add_single_input("infile", path)
    made.add_recipe("recipe")
    if sweep:
        made.add_param_sweep("point", {"increment": 1, "start": 0, "stop": sweep - 1})
    return made


def patterns_of(experiment, count):
    if experiment == "MPSF":
        return [pattern(f"p{n}", "start/a.txt") for n in range(count)]
    if experiment == "MPMF":
        return [pattern(f"p{n}", f"start/f{n}.txt") for n in range(count)]
    return [pattern("p", "start/*.txt", count if experiment == "SPSFP" else None)]


def files_of(experiment, count):
    return ["a.txt"] if experiment in ("MPSF", "SPSFP") else [f"f{n}.txt" for n in range(count)]


def main(experiment, count):
    os.chdir(tempfile.mkdtemp(prefix="mig-meow-"))
    os.makedirs("vgrid/start")
    recipe = mig_meow.create_recipe_dict(NOTEBOOK, "recipe", "recipe.ipynb")
    WorkflowRunner(
        "vgrid", 1, patterns={made.name: made for made in patterns_of(experiment, count)},
        recipes={"recipe": recipe}, start_workers=False, daemon=True, print_logging=False, retro_active_jobs=False,
    )  # fmt: skip
    time.sleep(2)  # until it watches
    begin = time.time()
    for name in files_of(experiment, count):
        with open(os.path.join("vgrid/start", name), "w") as file:
            file.write("x")
    seen, changed = 0, begin
    while seen < count and time.time() < changed + 30:
        found = len(os.listdir(".workflow_processing")) if os.path.isdir(".workflow_processing") else 0
        if found != seen:
            seen, changed = found, time.time()
        time.sleep(0.002)
    return {"seconds": changed - begin, "jobs": seen}


if __name__ == "__main__":
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        result = main(sys.argv[1], int(sys.argv[2]))
    for process in multiprocessing.active_children():
        process.kill()
    print(json.dumps(result), flush=True)
    os._exit(0)
