"""Parameters of notebooks: set wherever the notebook assigns them, by syntax, with everything else as it was."""

from __future__ import annotations

import ast
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiss.errors import InvalidRecipe, JobFailed, MissingExtra
from hiss.meow_bridge.notebook import INJECTED_TAG, execute, literal, parameterised, parameterised_source


def cell(source: str | list[str], kind: str = "code") -> dict[str, Any]:
    more = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source, **more}


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 4}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1", "x = 9"),
        ("x=1 # one", "x=9 # one"),
        ("if True:\n    x = 1\nelse:\n    x = 2", "if True:\n    x = 9\nelse:\n    x = 9"),
        ("x = 'a=b' + f(y=2)", "x = 9"),
        ("x = (\n  1 +\n  2\n)\ny = 3", "x = (\n  9\n)\ny = 3"),
        ("a, x = 1, 2", "a, x = 1, 9"),
        ("(a, (x, b)) = 1, (2, 3)", "(a, (x, b)) = 1, (9, 3)"),
        ("a, x = f()", "a, x = f(); x = 9"),
        ("a, *x = 1, 2", "a, *x = 1, 2; x = 9"),
        ("a = x = 1  # both", "a = x = 1; x = 9  # both"),
        ("x: int = 1", "x: int = 9"),
        ("x: int", "x: int"),
        ("x = 1; y = 2; x = 3", "x = 9; y = 2; x = 9"),
        ("for i in r:\n\tx = i", "for i in r:\n\tx = 9"),
        (
            "try:\n  x = 1\nexcept E:\n  x = 2\nfinally:\n  x = 3",
            "try:\n  x = 9\nexcept E:\n  x = 9\nfinally:\n  x = 9",
        ),
        ("with a as b:\n  x = 1", "with a as b:\n  x = 9"),
        ("match a:\n  case 1:\n    x = 2", "match a:\n  case 1:\n    x = 9"),
        ("def f():\n    x = 1", "def f():\n    x = 1"),
        ("class A:\n    x = 1", "class A:\n    x = 1"),
        ("f(x=1)", "f(x=1)"),
        ("x == 1", "x == 1"),
        ("x += 1", "x += 1"),
        ("a.x = 1; a['x'] = 2", "a.x = 1; a['x'] = 2"),
        ("s = 'x = 1'\n'''\nx = 2\n'''", "s = 'x = 1'\n'''\nx = 2\n'''"),
        ("größe = 'ä'; x = 'ö'; é = 1", "größe = 'ä'; x = 9; é = 1"),
        ("%matplotlib inline\nx = 1\n!ls x = 2\nx?", "%matplotlib inline\nx = 9\n!ls x = 2\nx?"),
        ("%%time\nx = 1", "%%time\nx = 9"),
        ("%%bash\nx=1", "%%bash\nx=1"),
        ("files = !ls\nx = 1", "files = !ls\nx = 9"),
        ("x = 1 +", "x = 1 +"),
        ("x = 1,  2", "x = 9"),
        ("x = 1\r\ny = 2", "x = 9\ny = 2"),
    ],
)
def test_one_cell(source: str, expected: str) -> None:
    assert parameterised_source(source, {"x": 9})[0] == expected


def test_a_name_that_is_assigned_nowhere_goes_before_the_first_code_cell() -> None:
    result = parameterised(
        notebook(cell("# title", "markdown"), cell(["x = 1\n", "y = x"]), cell("x = 2")), {"x": 5, "path": "a/b=c"}
    )
    assert [each["source"] for each in result["cells"]] == ["# title", "path = 'a/b=c'", "x = 5\ny = x", "x = 5"]
    assert result["cells"][1]["metadata"]["tags"] == [INJECTED_TAG]


def test_the_recipe_itself_stays_as_it_is() -> None:
    given_notebook = notebook(cell("x = 1"))
    before = json.dumps(given_notebook)
    parameterised(given_notebook, {"x": 2, "y": 3})
    assert json.dumps(given_notebook) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_every_json_value_comes_through(value: Any) -> None:
    assert eval(literal(value)) == value
    source, names = parameterised_source("before = 1\nx = 'a'\nafter = 2", {"x": value})
    space: dict[str, Any] = {}
    exec(source, space)
    assert names == {"x"}
    assert (space["before"], space["x"], space["after"]) == (1, value, 2)


TARGETS = st.sampled_from(["x", "y", "z", "a", "a, x", "x, (y, a)", "a = x", "*x, a", "x, *a"])
VALUES = st.sampled_from(["1", "'x = 2'", "(3, 4)", "[5, (6, 7)]", "8, (9, 10)", "f(x=1)", "(\n 11,\n (12, 13))"])


@given(st.lists(st.tuples(TARGETS, VALUES, st.booleans()), max_size=6))
def test_after_each_statement_the_parameters_have_their_values(statements: list[tuple[str, str, bool]]) -> None:
    """Whatever a cell assigns: where it runs at all, it runs, and no parameter has another value in between."""
    lines = [f"if 1:\n    {target} = {value}" if deep else f"{target} = {value}" for target, value, deep in statements]
    runnable = []
    for line in lines:
        try:
            exec(line, {"f": lambda x: (x, (x, x))})
            runnable.append(line)
        except (TypeError, ValueError):
            pass
    source, names = parameterised_source("\n".join(runnable), {"x": "X", "y": "Y"})
    space: dict[str, Any] = {"f": lambda x: (x, (x, x))}
    exec(source, space)
    assert {name: space[name] for name in names} == {name: name.upper() for name in names}
    stored = {
        node.id
        for node in ast.walk(ast.parse("\n".join(runnable)))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    assert names == stored & {"x", "y"}


# The kernel answers the last question that it is asked, and has still something to do when it is to end.
BUSY_AT_THE_END = """
import time
handlers = get_ipython().kernel.shell_handlers
answer = handlers["kernel_info_request"]
async def answer_and_linger(*asked):
    await answer(*asked)
    time.sleep(0.5)
handlers["kernel_info_request"] = answer_and_linger
"""


def test_a_notebook_runs_with_its_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And what the job prints is what its cells print: the kernel is not interrupted when it has done its work."""
    pytest.importorskip("papermill")
    monkeypatch.chdir(tmp_path)
    cells = ("x = 1\nif x:\n    y = 2", "import sys\nprint('sum', x + y, sys.executable)", BUSY_AT_THE_END)
    body = json.dumps(notebook(*map(cell, cells)))
    printed = io.StringIO()
    with redirect_stdout(printed):
        executed = json.loads(execute("r", body, {"x": 30, "y": 12}, tmp_path / "own"))
    assert printed.getvalue().strip() == f"sum 42 {sys.executable}"
    assert "Interrupt" not in capfd.readouterr().err
    assert executed["cells"][1]["outputs"][0]["text"] is not None
    with pytest.raises(JobFailed, match=r"cell \d+: ZeroDivisionError: division by zero"):
        execute("r", json.dumps(notebook(cell("1/0"))), {}, tmp_path / "second")


def test_other_languages_and_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = notebook(cell("1"))
    other["metadata"] = {"kernelspec": {"language": "R", "name": "ir"}}
    with pytest.raises(InvalidRecipe, match="R; only Python"):
        execute("r", json.dumps(other), {}, tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'hiss\[notebook\]'"):
        execute("r", json.dumps(notebook(cell("1"))), {}, tmp_path)
