"""The documentation of kernels is that of the table, and its examples are in the language."""

from __future__ import annotations

import re
from pathlib import Path

from hiss.kernels.checker import check
from hiss.kernels.functions import FUNCTIONS
from hiss.kernels.reference import table, with_table
from hiss.model import KernelDef, KernelKind

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "kernels.md"


def test_the_table_in_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert with_table(text) == text, "run: python -m hiss.kernels.reference docs/kernels.md"
    assert table().count("\n") == len(FUNCTIONS) + 3


def test_the_examples_are_in_the_language() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    kinds = {"kernel": KernelKind.MAP, "filter": KernelKind.FILTER, "reduce": KernelKind.REDUCE}
    found = re.findall(r"@hiss\.(\w+)[^\n]*\n((?:(?:def|class) .*\n)(?:(?:    .*)?\n)*)", example)
    assert [kind for kind, _ in found] == list(kinds)
    for kind, source in found:
        assert check(KernelDef("k", kinds[kind], source)).warnings == ()
