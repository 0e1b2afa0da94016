"""The untyped form of a kernel: a DAG of table functions over arguments and literals, as the checker makes it.

It knows neither dtypes nor shapes; its canonical text, with the version of the op table, is the kernel's identity.
Local names, comments, spacing and docstrings are not in it, and neither is the name of the frame; parameters keep
theirs. Immutable once made; any thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any

import numpy as np

from hiss.kernels.source import SourceText, Where
from hiss.model import KernelDef

Scalar = bool | int | float

LITERAL, ARGUMENT, TUPLE, SLICE, ITEM, IF = "literal", "argument", "tuple", "slice", "item", "if"
"""Forms of an `Expr`; every other `op` is a name of the function table."""


@dataclass(frozen=True, slots=True, eq=False)
class Expr:
    """One expression. `value` is a literal, an argument's name, or for ITEM the pair (place, number of places)."""

    op: str
    args: tuple[Expr, ...]
    value: Any
    where: Where


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a kernel: its canonical leading arguments (`frame`, `state`), parameters and result."""

    leading: tuple[str, ...]
    parameters: tuple[str, ...]
    defaults: Mapping[str, Scalar]
    result: Expr


@dataclass(frozen=True, slots=True)
class CheckedKernel:
    """A kernel that is in the language.

    `functions` has one entry, `""`, for a map or a filter; `init` and `step` for a scan, also `finish` for a reduction.
    `parameters` are those of all functions in order of appearance, the frame and the state excluded.
    """

    definition: KernelDef
    source: SourceText
    functions: Mapping[str, Function]
    parameters: tuple[str, ...]
    defaults: Mapping[str, Scalar]
    hash: str
    warnings: tuple[str, ...]


@dataclass(slots=True)
class ExprTable:
    """Makes expressions, each distinct one once. `count` is what `limits.KERNEL_NODES_MAX` bounds."""

    known: dict[tuple[Any, ...], Expr] = field(default_factory=dict)
    count: int = 0

    def make(self, op: str, args: tuple[Expr, ...], value: Any, where: Where) -> Expr:
        self.count += 1
        key = (op, tuple(map(id, args)), literal_text(value))
        if key not in self.known:
            self.known[key] = Expr(op, args, value, where)
        return self.known[key]


def literal_text(value: Any) -> str:
    """One text for each distinct literal: its class and its value."""
    if isinstance(value, np.dtype):
        return f"dtype {value.name}"
    if value is None or isinstance(value, EllipsisType):
        return repr(value)
    return f"{type(value).__name__} {value!r}"


def canonical_text(functions: Mapping[str, Function]) -> str:
    """The identity of a kernel as text: one line for each expression, in the order in which they are needed."""
    lines: list[str] = []
    for name in sorted(functions):
        function = functions[name]
        numbers: dict[int, int] = {}
        for expr in in_order(function.result):
            numbers[id(expr)] = len(numbers)
            operands = " ".join(str(numbers[id(arg)]) for arg in expr.args)
            lines.append(f"{expr.op} [{operands}] {literal_text(expr.value)}")
        defaults = ", ".join(f"{key}={literal_text(value)}" for key, value in sorted(function.defaults.items()))
        lines.append(f"{name}({', '.join(function.leading)}; {', '.join(sorted(function.parameters))}; {defaults})")
    return "\n".join(lines)


def identity(functions: Mapping[str, Function], kind: str, table_version: int) -> str:
    """The kernel's hash: 64 hex digits, SHA-256 (FIPS 180-4) of its canonical text."""
    text = f"hiss kernel, op table {table_version}, {kind}\n{canonical_text(functions)}"
    return hashlib.sha256(text.encode()).hexdigest()


def in_order(root: Expr) -> Iterable[Expr]:
    """Every expression that `root` needs, operands first, each once. No recursion: chains may be long."""
    done: set[int] = set()
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        expr, ready = stack.pop()
        if id(expr) in done:
            continue
        if ready:
            done.add(id(expr))
            yield expr
            continue
        stack.append((expr, True))
        stack.extend((arg, False) for arg in reversed(expr.args))
