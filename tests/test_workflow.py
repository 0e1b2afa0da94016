"""Recipes and patterns check themselves when they are made."""

from __future__ import annotations

from pathlib import Path

import pytest

import hiss
from hiss.errors import InvalidPattern, InvalidRecipe
from hiss.workflow import RecipeKind


def test_what_a_recipe_is_follows_from_its_source(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text("print(1)\n")
    assert hiss.Recipe("a", script).kind is RecipeKind.SCRIPT
    assert hiss.Recipe("a", ["echo", "{input}"]).kind is RecipeKind.COMMAND
    made = hiss.Recipe("a", test_what_a_recipe_is_follows_from_its_source)
    assert (made.kind, made.entry) == (RecipeKind.FUNCTION, "test_what_a_recipe_is_follows_from_its_source")


@pytest.mark.parametrize("source", ["nothing.py", "picture.png", lambda: 0, []])
def test_a_recipe_without_runnable_code_is_refused(source: object) -> None:
    with pytest.raises(InvalidRecipe):
        hiss.Recipe("a", source)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout_s", [0, -1, 1e9, float("nan")])
def test_time_limits_are_bounded(timeout_s: float) -> None:
    with pytest.raises(InvalidRecipe, match="timeout_s"):
        hiss.Recipe("a", ["true"], timeout_s=timeout_s)
    with pytest.raises(InvalidPattern, match="timeout_s"):
        hiss.Pattern("p", trigger="a/*", recipe="a", timeout_s=timeout_s)


def test_a_name_is_given_once_in_a_pattern() -> None:
    with pytest.raises(InvalidPattern, match="twice"):
        hiss.Pattern("p", trigger="a/*", recipe="a", variables={"x": 1}, sweep={"x": [1]})
    with pytest.raises(InvalidPattern, match="variable names"):
        hiss.Pattern("p", trigger="a/*", recipe="a", variables={"not a name": 1})
