"""Numba routines of `arrays_windows`. See `numba_arrays`.

All have one form. For each row of pixels, the rows of its window are joined column by column into lines, which lie in
the nearest cache; the lines are continued beyond the edges; then each pixel's result is made of its neighbours in the
lines. So what the windows of neighbours share is computed once, and both loops vectorise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from hiss.kernels import dtypes
from hiss.kernels.arrays_windows import source
from hiss.kernels.dtypes import BOOL, F64, DType
from hiss.kernels.ir import Node
from hiss.kernels.numba_operations import literal, printed
from hiss.kernels.numba_routines import Routine, RoutineMaker
from hiss.kernels.numba_sort_keys import from_key, to_key
from hiss.kernels.sort_keys import key_dtype
from hiss.kernels.sorting_network import middle_of_sorted, network

_ROUTINE: Final = """\
({operands}, out, o, lines):
    # windows of {rows} x {columns} in ({outer}, {height}, {width}); beyond the edges: {mode}
{before}    for plane in range(U({outer})):
        first = v + plane * U({size})
        target = o + plane * U({size})
        for y in range(U({height})):
            row = np.int64(y)
{starts}
            for x in range(U({width})):
{down}
{edges}            for x in range(U({width})):
{across}
            target += U({width})
"""


@dataclass(slots=True)
class _Text:
    """Statements of a loop's body; `value` names the last one. Each loop has a letter of its own: in OpenCL a name has
    one type in all of a function."""

    letter: str
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def value(self, expression: str) -> str:
        self.count += 1
        name = f"{self.letter}{self.count}"
        self.lines.append(f"{name} = {expression}")
        return name

    def sort(self, names: list[str], wanted: list[int]) -> list[str]:
        """The names after a sorting network; only those in the places `wanted` mean anything."""
        names = list(names)
        for one in network(len(names), wanted):
            a, b = names[one.low], names[one.high]
            if one.needs_low:
                names[one.low] = self.value(f"{a} if {a} < {b} else {b}")
            if one.needs_high:
                names[one.high] = self.value(f"{b} if {a} < {b} else {a}")
        return names


@dataclass(frozen=True, slots=True)
class _Window:
    """What differs between the routines. `down` makes the lines' values of those of a column, `across` the result of
    the lines' (each with `columns` neighbours)."""

    node: Node
    rows: int
    columns: int
    mode: str
    line: DType
    count: int  # of lines
    load: Callable[[str], str]
    down: Callable[[_Text, list[str]], list[str]]
    across: Callable[[_Text, list[list[str]]], str]
    before: tuple[str, ...] = ()

    def routine(self) -> Routine:
        outer, height, width = self.node.shape
        beside = self.columns // 2
        pitch = width + 2 * beside
        down, across = _Text("t"), _Text("s")
        loaded = [down.value(self.load(f"values[r{k} + x]")) for k in range(self.rows)]
        for k, name in enumerate(self.down(down, loaded)):
            down.lines.append(f"lines[x + U({k * pitch + beside})] = {name}")
        near = [
            [across.value(f"lines[x + U({k * pitch + j})]") for j in range(self.columns)] for k in range(self.count)
        ]
        across.lines.append(f"out[target + x] = {self.across(across, near)}")
        operands = "values, v, weights, w" if len(self.node.args) == 2 else "values, v"
        text = _ROUTINE.format(
            operands=operands,
            rows=self.rows,
            columns=self.columns,
            mode=self.mode,
            outer=outer,
            height=height,
            width=width,
            size=height * width,
            before="".join(f"    {line}\n" for line in self.before),
            starts=_indented(self._starts(height, width), 12),
            down=_indented(down.lines, 16),
            edges="".join(f"{'':12}{line}\n" for line in self._edges(width, pitch)),
            across=_indented(across.lines, 16),
        )
        return Routine(text, ((self.line, self.count * pitch),))

    def _starts(self, height: int, width: int) -> list[str]:
        """Where each row of the window starts in the values."""
        lines = []
        for k in range(self.rows):
            lines += _mapped("i", f"row + {k - self.rows // 2}", height, self.mode)
            lines.append(f"r{k} = first + U(i) * U({width})")
        return lines

    def _edges(self, width: int, pitch: int) -> list[str]:
        """Continue the lines."""
        beside, lines = self.columns // 2, []
        places = [*range(beside), *range(beside + width, pitch)]
        for at in places:
            taken = beside + source(at - beside, width, self.mode)
            lines.append(f"for k in range(U(0), U({self.count * pitch}), U({pitch})):")
            lines.append(f"    lines[k + U({at})] = lines[k + U({taken})]")
        return lines


def _indented(lines: list[str], spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in lines)


def _mapped(name: str, index: str, size: int, mode: str) -> list[str]:
    """`arrays_windows.source` of an index that is known when the code runs."""
    if mode == "nearest" or size == 1:
        return [f"{name} = min(max({index}, 0), {size - 1})"]
    if mode == "wrap":
        return [f"{name} = ({index}) % {size}"]
    period = 2 * size if mode == "reflect" else 2 * size - 2
    last = period - (mode == "reflect")
    return [f"{name} = ({index}) % {period}", f"{name} = {name} if {name} < {size} else {last} - {name}"]


def _median(node: Node) -> Routine:
    """Columns are sorted once for all windows that share them; then each window's rows, and what may be the middle."""
    rows, columns, mode = node.attrs
    dtype = node.dtype
    keyed = dtype.kind in "bf"
    places = middle_of_sorted(rows, columns)

    def down(text: _Text, names: list[str]) -> list[str]:
        if keyed:
            names = [text.value(to_key(dtype, name)) for name in names]
        return text.sort(names, list(range(rows)))

    def across(text: _Text, near: list[list[str]]) -> str:
        ordered = [text.sort(near[i], [j for k, j in places if k == i]) for i in range(rows)]
        left = [ordered[i][j] for i, j in places]
        middle = text.sort(left, [len(left) // 2])[len(left) // 2]
        return from_key(dtype, middle) if keyed else middle

    line = key_dtype(dtype) if keyed else dtype
    return _Window(node, rows, columns, mode, line, rows, str, down, across).routine()


def _extreme(node: Node) -> Routine:
    rows, columns, mode = node.attrs
    dtype = node.dtype
    primitive = node.op.removeprefix("window_")
    if dtype == BOOL:
        primitive = {"minimum": "bitwise_and", "maximum": "bitwise_or"}[primitive]

    def joined(text: _Text, names: list[str]) -> str:
        result = names[0]
        for name in names[1:]:
            result = text.value(printed(primitive, dtype, [result, name]))
        return result

    return _Window(
        *(node, rows, columns, mode, dtype, 1, str),
        down=lambda text, names: [joined(text, names)],
        across=lambda text, near: joined(text, near[0]),
    ).routine()


def _mean(node: Node) -> Routine:
    rows, columns, mode = node.attrs
    dtype = node.args[0].dtype
    summed = dtypes.total(dtype)
    if dtype.kind != "f" and dtype.itemsize <= 2:  # `limits.KERNEL_WINDOW_MAX` keeps the sum within 32 bits
        summed = np.dtype(np.uint32 if summed.kind == "u" else np.int32)
    cls = f"np.{summed.name}"

    def joined(text: _Text, names: list[str]) -> str:
        result = names[0]
        for name in names[1:]:
            result = text.value(f"{cls}({result} + {name})")
        return result

    def across(text: _Text, near: list[list[str]]) -> str:
        return f"np.{node.dtype.name}(np.float64({joined(text, near[0])}) / {literal(rows * columns, F64)})"

    return _Window(
        *(node, rows, columns, mode, summed, 1, lambda value: f"{cls}({value})"),
        down=lambda text, names: [joined(text, names)],
        across=across,
    ).routine()


def _weighted(text: _Text, names: list[str], weights: list[str]) -> str:
    result = text.value(f"{names[0]} * {weights[0]}")
    for name, weight in zip(names[1:], weights[1:], strict=True):
        result = text.value(f"{result} + {name} * {weight}")
    return result


def _separable(node: Node) -> Routine:
    row_weights, column_weights, mode = node.attrs
    down = [literal(weight, F64) for weight in row_weights]
    across = [literal(weight, F64) for weight in column_weights]
    return _Window(
        *(node, len(down), len(across), mode, F64, 1, lambda value: f"np.float64({value})"),
        down=lambda text, names: [_weighted(text, names, down)],
        across=lambda text, near: f"np.{node.dtype.name}({_weighted(text, near[0], across)})",
    ).routine()


def _correlate(node: Node) -> Routine:
    rows, columns, mode = node.attrs
    weights = [f"w{k}" for k in range(rows * columns)]
    return _Window(
        *(node, rows, columns, mode, F64, rows, lambda value: f"np.float64({value})"),
        down=lambda text, names: names,
        across=lambda text, near: (
            f"np.{node.dtype.name}({_weighted(text, [name for line in near for name in line], weights)})"
        ),
        before=tuple(f"{name} = weights[w + U({k})]" for k, name in enumerate(weights)),
    ).routine()


ROUTINES: Final[dict[str, RoutineMaker]] = {
    "window_median": _median,
    "window_minimum": _extreme,
    "window_maximum": _extreme,
    "window_mean": _mean,
    "window_separable": _separable,
    "window_correlate": _correlate,
}
