"""Patterns and recipes of `mig_meow`: its files read and written as they are, and run."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
import hiss.meow
from hiss.errors import InvalidPattern, InvalidRecipe, MissingExtra, PatternNotFound, RecipeNotFound
from hiss.limits import MiB
from hiss.meow import MigPattern
from hiss.workflow import JobState, Pattern, Recipe, RecipeKind

from .conftest import wait_for

yaml: Any = pytest.importorskip("yaml")

NOTEBOOK: dict[str, Any] = {
    "cells": [
        {
            "cell_type": "code",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": "infile = ''\noutfile = ''\nfactor = 1\n",
        },
        {
            "cell_type": "code",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": [
                "import hiss, numpy as np\n",
                "job = hiss.job()\n",
                "job.output(outfile, np.asarray(job.input) * factor)",
            ],
        },
    ],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 4,
}

# as `write_dir_pattern` of mig_meow 0.37 writes it
PATTERN = """\
input_file: infile
input_paths:
- start/*
output:
  outfile: '{VGRID}/result/{FILENAME}'
parameterize_over: {}
recipes:
- multiply
variables:
  factor: 3
"""

SWEPT = """\
input_file: infile
input_paths: [a/*, b/c]
output: {outfile: 'out/{PREFIX}'}
parameterize_over:
  x: {increment: 0.1, start: 0, stop: 0.3}
recipes: [one, two]
variables: {}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "Patterns").mkdir()
    (tmp_path / "Recipes").mkdir()
    (tmp_path / "Patterns" / "triple").write_text(PATTERN)
    (tmp_path / "Patterns" / "swept.yml").write_text(SWEPT)
    (tmp_path / "Recipes" / "multiply").write_text(yaml.dump({"recipe": NOTEBOOK, "source": "multiply.ipynb"}))
    return tmp_path


def test_their_files_are_read(directory: Path) -> None:
    triple = hiss.meow.read_dir_pattern("triple", directory)
    assert triple == MigPattern(
        "triple", "infile", ("start/*",), ("multiply",), {"outfile": "{VGRID}/result/{FILENAME}"}, {"factor": 3}
    )
    assert triple.patterns() == [
        Pattern(
            "triple",
            "start/*",
            "multiply",
            input="infile",
            outputs={"outfile": "{VGRID}/result/{FILENAME}"},
            variables={"factor": 3},
        )
    ]
    recipe = hiss.meow.read_dir_recipe("multiply", directory)
    assert (recipe.name, recipe.kind, json.loads(recipe.body)) == ("multiply", RecipeKind.NOTEBOOK, NOTEBOOK)
    assert [each.name for each in hiss.meow.read_dir_patterns(directory)] == ["swept", "triple"]
    assert hiss.meow.read_dir_recipes(directory) == [recipe]
    assert hiss.meow.read_dir_patterns(directory / "nowhere") == []


def test_several_paths_and_recipes_are_several_patterns(directory: Path) -> None:
    patterns = hiss.meow.read_pattern(directory / "Patterns" / "swept.yml").patterns()
    assert [(each.name, each.trigger, each.recipe) for each in patterns] == [
        ("swept.1", "a/*", "one"),
        ("swept.2", "a/*", "two"),
        ("swept.3", "b/c", "one"),
        ("swept.4", "b/c", "two"),
    ]
    assert all(each.sweep == {"x": {"start": 0, "stop": 0.3, "step": 0.1}} for each in patterns)


def test_what_is_written_is_read_the_same(directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for pattern in hiss.meow.read_dir_patterns(directory):
        hiss.meow.write_dir_pattern(pattern, out)
    assert hiss.meow.read_dir_patterns(out) == hiss.meow.read_dir_patterns(directory)
    recipe = hiss.meow.read_dir_recipe("multiply", directory)
    path = hiss.meow.write_dir_recipe(recipe, out)
    assert yaml.safe_load(path.read_text()) == {"recipe": NOTEBOOK, "source": "multiply.ipynb"}
    assert hiss.meow.read_dir_recipe("multiply", out) == recipe
    ours = Pattern("p", "a/*", "r", sweep={"x": {"start": 1, "stop": 3, "step": 1}}, variables={"v": [1, "ä"]})
    hiss.meow.write_dir_pattern(ours, out)
    assert hiss.meow.read_dir_pattern("p", out).patterns() == [ours]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"sweep": {"x": [1, 2]}}, "list"),
        ({"retries": 1}, "retries"),
        ({"event": "job.failed", "writes": "a"}, "writes"),
    ],
)
def test_what_they_have_no_word_for_is_not_lost_silently(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidPattern, match=said):
        hiss.meow.write_dir_pattern(Pattern("p", "a/*", "r", **more), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_is_registered(tmp_path: Path) -> None:
    path = tmp_path / "some.ipynb"
    path.write_text(json.dumps(NOTEBOOK))
    assert hiss.meow.register_recipe(path) == Recipe("some", path)
    assert hiss.meow.register_recipe(str(path), "other").name == "other"
    with pytest.raises(InvalidRecipe, match="takes scripts"):
        hiss.meow.register_recipe(tmp_path / "some.py")
    with pytest.raises(InvalidRecipe, match="notebooks only"):
        hiss.meow.write_dir_recipe(Recipe("c", ["true"]), tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n", "expected names"),
        ("a: [\n", "cannot be read"),
        ("input_file: a\ninput_paths: [b]\n", "no recipes"),
        ("input_file: a\ninput_paths: [b]\nrecipes: [c]\ntriger: 1\n", "unknown triger"),
        ("input_file: a\ninput_paths: b\nrecipes: [c]\n", "input_paths"),
        ("input_file: a\ninput_paths: [b]\nrecipes: [c]\noutput: [1]\n", "output"),
        ("input_file: !!python/object/apply:os.getcwd []\n", "cannot be read"),
    ],
)
def test_what_is_no_pattern_says_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "p"
    path.write_text(text)
    with pytest.raises(InvalidPattern, match=said):
        hiss.meow.read_pattern(path)


def test_what_else_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(PatternNotFound):
        hiss.meow.read_dir_pattern("p", tmp_path)
    with pytest.raises(RecipeNotFound):
        hiss.meow.read_dir_recipe("r", tmp_path)
    with pytest.raises(InvalidPattern, match="never run"):
        MigPattern("p", "infile", (), ("r",)).patterns()
    with pytest.raises(InvalidPattern, match="increment"):
        MigPattern("p", "infile", ("a/*",), ("r",), parameterize_over={"x": {"start": 1}}).patterns()
    path = tmp_path / "r"
    path.write_text("source: x\n")
    with pytest.raises(InvalidRecipe, match="no notebook"):
        hiss.meow.read_recipe(path)
    path.write_text(yaml.dump({"recipe": NOTEBOOK, "source": "x", "environments": {"local": {}}}))
    with pytest.warns(UserWarning, match="environments"):
        assert hiss.meow.read_recipe(path).name == "r"


def test_without_pyyaml_the_line_that_installs_it_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtra, match=r"hiss\[mig_meow\]"):
        hiss.meow.read_dir_pattern("triple", directory)


def test_their_pattern_and_notebook_run(directory: Path) -> None:
    pytest.importorskip("papermill")
    data = Path(tempfile.mkdtemp(prefix="hiss"))
    with hiss.open(data, arena_bytes=32 * MiB, backend="numpy") as buf:
        for recipe in hiss.meow.read_dir_recipes(directory):
            buf.meow.add(recipe)
        for pattern in hiss.meow.read_dir_pattern("triple", directory).patterns():
            buf.meow.add(pattern)
        with buf.collection("start").create_stream("x", dtype="i8", shape=()) as stream:
            stream.extend(np.arange(4))
        (job,) = wait_for(lambda: [job for job in buf.meow.jobs() if job.state.final], "the job")
        assert job.state is JobState.DONE, job.output
        assert np.asarray(buf["start/result/x"]).tolist() == [0, 3, 6, 9]
    shutil.rmtree(data)
