"""The documentation of the language says what the code does, and its examples are in the language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hiss.kernels.checker import check
from hiss.kernels.functions import FUNCTIONS
from hiss.kernels.reference import MISTAKES, answer, functions, up_to_date
from hiss.model import KernelDef, KernelKind

DOCS = Path(__file__).parent.parent.parent / "docs"
LANGUAGE, GUIDE = DOCS / "kernel-language.md", DOCS / "kernels.md"
KINDS = {"kernel": KernelKind.MAP, "filter": KernelKind.FILTER, "scan": KernelKind.SCAN, "reduce": KernelKind.REDUCE}


def test_the_generated_parts_are_up_to_date() -> None:
    text = LANGUAGE.read_text("utf-8")
    assert up_to_date(text) == text, "run: python -m hiss.kernels.reference docs/kernel-language.md"


def test_every_function_is_described() -> None:
    rows = [line for line in functions().split("\n") if line.startswith("| `")]
    assert len(rows) == len(FUNCTIONS)
    assert all(len(re.split(r"(?<!\\)\|", row)) == 5 for row in rows)


@pytest.mark.parametrize("title", MISTAKES)
def test_each_mistake_is_answered_with_its_place(title: str) -> None:
    """The line and column, the line itself with a caret under the column, and what to do."""
    source = MISTAKES[title]
    message, *shown = answer(source).split("\n")
    place = re.match(r"kernel 'k', line (\d+), column (\d+): ", message)
    assert place is not None
    line, column = int(place.group(1)), int(place.group(2))
    assert shown[0] == f"    {source.split(chr(10))[line - 1]}"
    assert shown[1] == f"    {' ' * (column - 1)}^"


def test_nothing_is_said_of_what_is_right() -> None:
    assert answer("def k(frame):\n    return frame.astype(np.float32) - 1\n") == ""


@pytest.mark.parametrize("document", [LANGUAGE, GUIDE], ids=lambda path: path.stem)
def test_the_examples_are_in_the_language(document: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", document.read_text("utf-8"), re.DOTALL)
    found = re.findall(r"@hiss\.(\w+)[^\n]*\n((?:(?:def|class) .*\n)(?:(?:    .*)?\n)*)", "\n".join(blocks))
    assert {kind for kind, _ in found} >= {"kernel", "filter", "reduce"}
    for kind, source in found:
        assert check(KernelDef("k", KINDS[kind], source)).warnings == (), source
