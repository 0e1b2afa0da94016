"""`hiss.meow.WorkflowRunner` over a directory, as users of `mig_meow` know it."""

from __future__ import annotations

import fnmatch
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hiss.meow
from hiss.errors import InvalidInput
from hiss.meow import MigPattern, WorkflowRunner
from hiss.meow_bridge.trigger import matches
from hiss.meow_runner import file_triggers
from hiss.testing.conformance import wait_for
from hiss.workflow import Recipe, RecipeKind

pytest.importorskip("watchdog", reason="pip install 'hiss[watch]'")

APPEND = """
import pathlib
out = pathlib.Path(outfile)
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(pathlib.Path(infile).read_text() + extra + "\\n")
"""


def recipe(name: str = "append", body: str = APPEND) -> Recipe:
    return Recipe(name, body, kind=RecipeKind.SCRIPT, retries=0)


def pattern(name: str, path: str, out: str = "{VGRID}/out/{FILENAME}", **more: Any) -> MigPattern:
    return MigPattern(name, "infile", (path,), ("append",), {"outfile": out}, {"extra": name}, **more)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., WorkflowRunner]]:
    """Runners over `tmp_path/data`, stopped at the end."""
    made: list[WorkflowRunner] = []

    def runner(*patterns: MigPattern, **more: Any) -> WorkflowRunner:
        given = {each.name: each for each in patterns}
        made.append(WorkflowRunner(tmp_path / "data", 2, patterns=given, recipes={"append": recipe()}, **more))
        return made[-1]

    yield runner
    for each in made:
        each.stop_runner()


def statuses(runner: WorkflowRunner) -> list[str]:
    return [runner.check_job(job)["status"] for job in runner.check_jobs()]


def settled(runner: WorkflowRunner, count: int) -> None:
    wait_for(lambda: statuses(runner) == ["done"] * count, 60)


def test_the_foundational_example_over_a_directory(run: Callable[..., WorkflowRunner], tmp_path: Path) -> None:
    """A file that comes is appended to, and what comes of that once more: two jobs, the second caused by the first."""
    runner = run(
        pattern("first", "start/*.txt", "{VGRID}/middle/{FILENAME}"),
        pattern("second", "middle/*.txt", "{VGRID}/end/{PREFIX}-{REL_DIR}.log"),
    )
    (tmp_path / "data" / "start" / "a.txt").write_text("line\n")
    settled(runner, 2)
    assert (tmp_path / "data" / "end" / "a-middle.log").read_text() == "line\nfirst\nsecond\n"
    assert runner.check_status() == "[0/2] ['start/**/*.txt', 'middle/**/*.txt']"
    (tmp_path / "data" / "start" / "a.txt").write_text("other\n")
    settled(runner, 4)


def test_what_is_there_is_met_and_found_again_after_a_stop(run: Callable[..., WorkflowRunner], tmp_path: Path) -> None:
    (tmp_path / "data" / "in" / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (tmp_path / "data" / "in" / name).write_text(name)
    runner = run(pattern("p", "in/*"))
    settled(runner, 2)
    runner.stop_runner()
    (tmp_path / "data" / "in" / "c").write_text("meanwhile")
    again = run(pattern("p", "in/*"))
    settled(again, 3)
    again.stop_runner(clear_jobs=True)
    assert not (tmp_path / ".data.workflow_processing").exists()


def test_not_what_is_there_if_that_is_asked_for(run: Callable[..., WorkflowRunner], tmp_path: Path) -> None:
    (tmp_path / "data" / "in").mkdir(parents=True)
    (tmp_path / "data" / "in" / "a").write_text("a")
    runner = run(pattern("p", "in/*"), retro_active_jobs=False)
    (tmp_path / "data" / "in" / "b").write_text("b")
    settled(runner, 1)
    assert runner.check_job(runner.check_jobs()[0])["path"] == str(tmp_path / "data" / "in" / "b")


def test_patterns_and_recipes_come_change_and_go(
    run: Callable[..., WorkflowRunner], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = run()
    assert runner.check_patterns() == {}
    assert runner.add_pattern(pattern("p", "in/*"))
    assert [(rule["pattern"], rule["recipe"], rule["path"]) for rule in runner.check_rules()] == [
        ("p", "append", "in/**/*")
    ]
    (tmp_path / "data" / "in" / "a").write_text("a")
    settled(runner, 1)
    assert runner.modify_pattern(pattern("p", "other/*"))
    assert runner.get_all_input_paths() == ["other/**/*"]
    assert runner.remove_recipe("append")
    assert not runner.remove_recipe("append")
    assert runner.check_rules() == []
    assert runner.add_recipe(recipe())
    assert set(runner.check_recipes()) == {"append"}
    assert runner.remove_pattern("p")
    assert not runner.remove_pattern("p")
    with caplog.at_level(logging.WARNING, "hiss.meow"):
        assert runner.add_pattern(MigPattern("bad", "infile", (), ())) is False
    assert "never run" in caplog.text


def test_workers_stop_and_start(run: Callable[..., WorkflowRunner], tmp_path: Path) -> None:
    runner = run(
        pattern("p", "in/*", parameterize_over={"n": {"start": 1, "stop": 3, "increment": 1}}), start_workers=False
    )
    assert runner.check_running_status() == (False, "2 workers are not running. ")
    (tmp_path / "data" / "in" / "a").write_text("a")
    wait_for(lambda: len(runner.check_queue()) == 3, 60)
    assert runner.check_status() == "[3/3] ['in/**/*']"
    assert runner.start_workers()
    settled(runner, 3)
    assert runner.check_running_status()[0]
    assert runner.stop_workers()
    assert runner.get_running_status() == (0, 2)


def test_their_files_run(tmp_path: Path) -> None:
    """A pattern and a recipe as `mig_meow` stores them, the recipe a notebook."""
    pytest.importorskip("yaml", reason="pip install 'hiss[mig_meow]'")
    pytest.importorskip("papermill", reason="pip install 'hiss[notebook]'")
    cell = {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": "infile = ''\noutfile = ''\nextra = ''",
    }
    notebook = {
        "cells": [cell, {**cell, "source": APPEND}],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    (tmp_path / "append.ipynb").write_text(json.dumps(notebook))
    hiss.meow.write_dir_pattern(pattern("p", "in/*"), tmp_path / "meow")
    patterns = {"p": hiss.meow.read_dir_pattern("p", tmp_path / "meow")}
    recipes = {"append": hiss.meow.register_recipe(tmp_path / "append.ipynb")}
    with WorkflowRunner(tmp_path / "data", 1, patterns=patterns, recipes=recipes) as runner:
        (tmp_path / "data" / "in" / "a").write_text("a ")
        settled(runner, 1)
        assert (tmp_path / "data" / "out" / "a").read_text() == "a p\n"
        assert not list((tmp_path / ".data.workflow_processing").rglob("*.pkl"))


def test_what_is_kept_is_not_watched(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is within"):
        WorkflowRunner(tmp_path, 1, job_data=tmp_path / "jobs")


NAMES = st.text("ab*", min_size=1, max_size=3)


@settings(deadline=None, max_examples=300)
@given(st.lists(NAMES, min_size=1, max_size=3), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4))
def test_their_globs_match_what_theirs_do(parts: list[str], path: list[str]) -> None:
    """By `fnmatch`, as `mig_meow` matches; each path by one trigger only."""
    glob, name = re.sub(r"\*+", "*", "/".join(parts)), "/".join(path)
    hits = sum(matches(f"file:/r/{trigger}", f"file:/r/{name}") for trigger in file_triggers(glob))
    exact = glob.count("*") < 2 or all(part.rfind("*") < 1 for part in glob.split("/"))
    assert hits == fnmatch.fnmatchcase(name, glob) if exact else hits <= fnmatch.fnmatchcase(name, glob)
