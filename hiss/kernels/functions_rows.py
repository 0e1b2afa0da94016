"""What a row of the function table holds, and how one is written. See `functions`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hiss.kernels.builder import Builder, Value
from hiss.kernels.primitives import PRIMITIVES

Lowering = Callable[[Builder, tuple[Value, ...]], Value]
SAME: Final = "the common dtype"
FLOAT: Final = "float32 up to 16-bit integers, float64 for larger, floats as they are"
SUM: Final = "64 bits of integers; floats as a"
MEAN: Final = "float64 of integers; floats as a"
_COMMA = re.compile(r",\s*(?![^()]*\))")  # outside parentheses


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a table function: its names (NumPy has several for some), and the default unless required."""

    names: tuple[str, ...]
    required: bool
    default: Any
    keyword_only: bool


@dataclass(frozen=True, slots=True)
class TableFunction:
    """One row.

    `forms` says how it is written: n `np.name(...)`, h `hk.name(...)`, m a method, a an attribute, o as an operator
    only.
    """

    name: str
    signature: str
    forms: str
    dtypes: str
    note: str
    lower: Lowering
    parameters: tuple[Parameter, ...]


def _parameters(signature: str) -> tuple[Parameter, ...]:
    """From `"a, axis=None, *, keepdims=False"`; `x|y` are names of one parameter."""
    found: list[Parameter] = []
    keyword_only = False
    for part in filter(None, (text.strip() for text in _COMMA.split(signature))):
        if part == "*":
            keyword_only = True
            continue
        names, _, default = part.partition("=")
        value = ast.literal_eval(default) if default else None
        found.append(Parameter(tuple(names.split("|")), not default, value, keyword_only))
    return tuple(found)


def row(name: str, signature: str, forms: str, dtypes: str, lower: Lowering, note: str = "") -> TableFunction:
    """One row."""
    return TableFunction(name, signature, forms, dtypes, note, lower, _parameters(signature))


def points(rule: Callable[[str], Lowering], dtypes: str, names: dict[str, str]) -> list[TableFunction]:
    """Rows that apply one primitive: name -> note."""
    return [
        row(name, ("x", "x1, x2")[PRIMITIVES[name].arity - 1], "n", dtypes, rule(name), note)
        for name, note in names.items()
    ]
