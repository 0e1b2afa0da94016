"""meow_base's runner: seconds from the first file to the last job finished. `run_meow_base.py EXPERIMENT N`.

Runs in `.peers/meow`.
"""

import io
import json
import os
import sys
import tempfile
import time

from meow_base.conductors.local_python_conductor import LocalPythonConductor
from meow_base.core.runner import MeowRunner
from meow_base.patterns.file_event_pattern import FileEventPattern, WatchdogMonitor
from meow_base.recipes.python_recipe import PythonHandler, PythonRecipe

NEXT = [
    "import os",
    "infile = 'i'",
    "limit = 0",
    "base = ''",
    "number = int(os.path.basename(infile)[1:-4])",
    "if number + 1 < limit:",
    "    with open(os.path.join(base, 'start', 'f%d.txt' % (number + 1)), 'w') as file:",
    "        file.write('x')",
]


def pattern(name, path, **more):
    return FileEventPattern(name, path, "recipe", "infile", **more)


def patterns_of(experiment, count, base):
    if experiment == "MPSF":
        return [pattern(f"p{n}", "start/a.txt") for n in range(count)]
    if experiment == "MPMF":
        return [pattern(f"p{n}", f"start/f{n}.txt") for n in range(count)]
    if experiment == "SPSFP":
        return [pattern("p", "start/*.txt", sweep={"point": {"start": 0, "stop": count - 1, "jump": 1}})]
    if experiment == "SPSFS":
        return [pattern("p", "start/*.txt", parameters={"limit": count, "base": base})]
    return [pattern("p", "start/*.txt")]


def main(experiment, count):
    os.chdir(tempfile.mkdtemp(prefix="meow-base-"))
    base, queue, output = "base", "queue", "output"
    for directory in (os.path.join(base, "start"), queue, output):
        os.makedirs(directory)
    recipe = PythonRecipe("recipe", NEXT if experiment == "SPSFS" else ["x = 1"])
    made = {each.name: each for each in patterns_of(experiment, count, os.path.abspath(base))}
    runner = MeowRunner(
        WatchdogMonitor(base, made, {"recipe": recipe}, settletime=1), PythonHandler(job_queue_dir=queue),
        LocalPythonConductor(), job_queue_dir=queue, job_output_dir=output, print=io.StringIO(), logging=0,
    )  # fmt: skip
    runner.start()
    time.sleep(1)
    begin = time.time()
    names = ["a.txt"] if experiment in ("MPSF", "SPSFP") else [f"f{n}.txt" for n in range(count)]
    for name in names[:1] if experiment == "SPSFS" else names:
        with open(os.path.join(base, "start", name), "w") as file:
            file.write("x")
    seen, changed = 0, begin
    while seen < count and time.time() < changed + 30:
        found = len(os.listdir(output))
        if found != seen:
            seen, changed = found, time.time()
        time.sleep(0.01)
    return {"seconds": changed - begin, "jobs": seen}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))), flush=True)
    os._exit(0)
