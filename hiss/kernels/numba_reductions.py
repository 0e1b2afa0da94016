"""Prints reductions: few elements written out, results side by side, or one after the other in lanes.

Float sums follow the stated order (`primitives.Reduction`) whatever the form. See `numba_writer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hiss.kernels import views
from hiss.kernels.ir import Node
from hiss.kernels.lengths import Length
from hiss.kernels.numba_operations import literal, unsigned
from hiss.kernels.numba_places import Axes, Body, Place
from hiss.kernels.numba_writer import Writer
from hiss.kernels.primitives import LANES, REDUCTIONS, Reduction
from hiss.kernels.schedule import Nest
from hiss.kernels.views import contiguous

_UNROLLED_MAX: Final = 16  # reductions of so few elements are written out,
_UNROLLED_LINES_MAX: Final = 1000  # unless that is so much text
_TILE_ORDERED: Final = 128  # results that are reduced side by side when the reduced axis is not the last
_TILE_FREE: Final = 256


def print_group(writer: Writer, group: list[Nest]) -> None:
    """Print the loops of reductions of one domain over the same axes."""
    _Reductions(writer).group(group)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One reduction of a group: `value` is what it joins for each element."""

    node: Node
    rule: Reduction
    value: str
    place: Place | None

    @property
    def ordered(self) -> bool:
        return self.node.dtype.kind in self.rule.ordered_kinds

    @property
    def start(self) -> str:
        return literal(self.rule.of_nothing(self.node.dtype), self.node.dtype)


class _Reductions:
    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def group(self, group: list[Nest]) -> None:
        domain, axes_reduced = group[0].domain, group[0].axes
        body = Body(len(domain))
        here = views.identity(len(domain))
        parts = []
        for nest in group:
            value = self.writer.value(body, nest.root.args[0], here)
            parts.append(_Part(nest.root, REDUCTIONS[nest.root.op], value, self._result_place(nest)))
        places = [*body.places(), *(part.place for part in parts if part.place is not None)]
        axes = Axes(domain, axes_reduced, places)
        count = math.prod(axes.reduced)
        if count <= _UNROLLED_MAX and count * len(body.lines) <= _UNROLLED_LINES_MAX:
            self.writer.loops(axes.kept, lambda index: self._written_out(body, parts, axes, index))
        elif axes.last_kept:
            self.writer.loops(axes.kept[:-1], lambda index: self._side_by_side(body, parts, axes, index))
        else:
            self.writer.loops(axes.kept, lambda index: self._one_result(body, parts, axes, index))

    def _result_place(self, nest: Nest) -> Place | None:
        """Where the results go, as an access of the domain (which does not move along reduced axes)."""
        if not nest.root.shape:
            self.writer.names[id(nest.root)] = self.writer.fresh("t")
            return None
        strides = iter(contiguous(nest.root.shape))
        moved = tuple(0 if axis in nest.axes else next(strides) for axis in range(len(nest.domain)))
        return Place(*self.writer.buffers[id(nest.root)], 0, moved)

    def _finish(self, part: _Part, axes: Axes, kept: Sequence[str | int], result: str) -> None:
        if part.place is None:
            self.writer.line(f"{self.writer.names[id(part.node)]} = {result}")
        else:
            self.writer.line(f"{part.place.text(axes.index([*kept, *[0] * len(axes.reduced)]))} = {result}")

    def _written_out(self, body: Body, parts: list[_Part], axes: Axes, kept: list[str | int]) -> None:
        """Few elements: no loop over them."""
        count = math.prod(axes.reduced)
        for k in range(count):
            place = [int(at) for at in np.unravel_index(k, axes.reduced)]
            self.writer.emit(body, axes.index([*kept, *place]), f"_{k}")
        for part in parts:
            values = [part.value + f"_{k}" if part.value in body.names else part.value for k in range(count)]
            if part.ordered:
                values = [self._named_value(self.joined(part, part.start, value)) for value in values]
                width = LANES // 2
                while width:
                    for j in range(min(width, max(0, len(values) - width))):
                        values[j] = self._named_value(self.joined(part, values[j], values[j + width]))
                    values, width = values[:width], width // 2
            else:
                total = values[0]
                for value in values[1:]:
                    total = self._named_value(self.joined(part, total, value))
                values = [total]
            self._finish(part, axes, kept, values[0])

    def _named_value(self, text: str) -> str:
        name = self.writer.fresh()
        self.writer.line(f"{name} = {text}")
        return name

    def joined(self, part: _Part, first: str, second: str) -> str:
        return self.writer.join(part.rule.join, part.node.dtype, [first, second])

    def _one_result(self, body: Body, parts: list[_Part], axes: Axes, kept: list[str | int]) -> None:
        """One result after the other: floats in lanes, integers in one accumulator, which vectorises by itself."""
        lanes = [part for part in parts if part.node.dtype.kind == "f"]
        names = {
            id(part): self.writer.accumulator(part.node.dtype, LANES) if part in lanes else self.writer.fresh("r")
            for part in parts
        }
        if lanes:
            self.writer.loops((LANES,), lambda index: self._start(lanes, names, index[0]))
        for part in parts:
            if part not in lanes:
                self.writer.line(f"{names[id(part)]} = {part.start}")
        *outer, last = axes.reduced
        tracked = len([size for size in outer if size > 1]) > 0 and last % LANES != 0 and any(p.ordered for p in lanes)
        if tracked:
            self.writer.line("lane = U(0)")

        def add(index: list[str | int], lane: str) -> None:
            self.writer.emit(body, axes.index([*kept, *index]))
            for part in parts:
                name = names[id(part)]
                name = f"{name}[{lane}]" if part in lanes else name
                self.writer.line(f"{name} = {self.joined(part, name, part.value)}")

        def row(index: list[str | int]) -> None:
            if not lanes:
                self.writer.loops((last,), lambda at: add([*index, *at], ""))
            elif tracked:
                self._tracked_row(last, lambda at, lane: add([*index, at], lane))
            else:
                self._lane_row(last, lambda at, lane: add([*index, at], lane))

        self.writer.loops(tuple(outer), row)
        for part in parts:
            result = names[id(part)]
            if part in lanes:
                self._tree(part, result, LANES, 1, "")
                result += "[U(0)]"
            self._finish(part, axes, kept, result)

    def _lane_row(self, size: int, add: Callable[[str, str], None]) -> None:
        """A row whose first element is in lane 0."""
        if isinstance(size, Length):
            self._open_row(size, add)
            return
        if size >= LANES:
            chunk, lane, at = self.writer.fresh("i"), self.writer.fresh("j"), self.writer.fresh("k")
            self.writer.line(f"for {chunk} in range({unsigned(size // LANES)}):")
            self.writer.line(f"    for {lane} in range({unsigned(LANES)}):")
            self.writer.depth += 2
            self.writer.line(f"{at} = {chunk} * {unsigned(LANES)} + {lane}")
            add(at, lane)
            self.writer.depth -= 2
        if size % LANES:
            lane, at = self.writer.fresh("j"), self.writer.fresh("k")
            self.writer.line(f"for {lane} in range({unsigned(size % LANES)}):")
            self.writer.depth += 1
            self.writer.line(f"{at} = {lane} + {unsigned(size - size % LANES)}")
            add(at, lane)
            self.writer.depth -= 1

    def _open_row(self, size: Length, add: Callable[[str, str], None]) -> None:
        """Such a row of a packet."""
        whole, rest, chunk, lane, at = (self.writer.fresh(letter) for letter in "mmijk")
        lanes = unsigned(LANES)
        self.writer.line(f"{whole} = {unsigned(size)} // {lanes}")
        self.writer.line(f"{rest} = {unsigned(size)} % {lanes}")
        self.writer.line(f"for {chunk} in range({whole}):")
        self.writer.line(f"    for {lane} in range({lanes}):")
        self.writer.depth += 2
        self.writer.line(f"{at} = {chunk} * {lanes} + {lane}")
        add(at, lane)
        self.writer.depth -= 2
        self.writer.line(f"for {lane} in range({rest}):")
        self.writer.depth += 1
        self.writer.line(f"{at} = {lane} + {whole} * {lanes}")
        add(at, lane)
        self.writer.depth -= 1

    def _tracked_row(self, size: int, add: Callable[[str, str], None]) -> None:
        """A row that starts in the lane where the one before ended."""
        at, take, step, j, k = (self.writer.fresh(letter) for letter in "kmijk")
        self.writer.line(f"{at} = U(0)")
        self.writer.line(f"while {at} < {unsigned(size)}:")
        self.writer.depth += 1
        self.writer.line(f"{take} = min({unsigned(LANES)} - lane, {unsigned(size)} - {at})")
        self.writer.line(f"for {step} in range({take}):")
        self.writer.depth += 1
        self.writer.line(f"{j} = lane + {step}")
        self.writer.line(f"{k} = {at} + {step}")
        add(k, j)
        self.writer.depth -= 1
        self.writer.line(f"{at} = {at} + {take}")
        self.writer.line(f"lane = (lane + {take}) & {unsigned(LANES - 1)}")
        self.writer.depth -= 1

    def _side_by_side(self, body: Body, parts: list[_Part], axes: Axes, kept: list[str | int]) -> None:
        """Many results at once: the last axis is kept, so neighbours are reduced together in tiles of it."""
        inner, count = axes.kept[-1], math.prod(axes.reduced)
        ordered = any(part.ordered for part in parts)
        tile = min(inner, _TILE_ORDERED if ordered else _TILE_FREE)
        width = {id(part): min(LANES, count) if part.ordered else 1 for part in parts}
        names = {id(part): self.writer.accumulator(part.node.dtype, width[id(part)] * tile) for part in parts}
        first, here = self.writer.fresh("i"), self.writer.fresh("m")
        self.writer.line(f"for {first} in range({unsigned(0)}, {unsigned(inner)}, {unsigned(tile)}):")
        self.writer.depth += 1
        self.writer.line(f"{here} = min({unsigned(tile)}, {unsigned(inner)} - {first})")
        for part in parts:
            at = self.writer.fresh("j")
            self.writer.line(f"for {at} in range({unsigned(width[id(part)] * tile)}):")
            self.writer.line(f"    {names[id(part)]}[{at}] = {part.start}")
        element, lane = self.writer.fresh("e"), self.writer.fresh("l")
        self.writer.line(f"{element} = U(0)")

        def add(index: list[str | int]) -> None:
            self.writer.line(f"{lane} = ({element} & {unsigned(LANES - 1)}) * {unsigned(tile)}")
            j, k = self.writer.fresh("j"), self.writer.fresh("k")
            self.writer.line(f"for {j} in range({here}):")
            self.writer.depth += 1
            self.writer.line(f"{k} = {first} + {j}")
            self.writer.emit(body, axes.index([*kept, k, *index]))
            for part in parts:
                name = f"{names[id(part)]}[{f'{lane} + {j}' if part.ordered else j}]"
                self.writer.line(f"{name} = {self.joined(part, name, part.value)}")
            self.writer.depth -= 1
            self.writer.line(f"{element} = {element} + U(1)")

        self.writer.loops(axes.reduced, add)
        for part in parts:
            self._tree(part, names[id(part)], width[id(part)], tile, here)
            j, k = self.writer.fresh("j"), self.writer.fresh("k")
            self.writer.line(f"for {j} in range({here}):")
            self.writer.depth += 1
            self.writer.line(f"{k} = {first} + {j}")
            self._finish(part, axes, [*kept, k], f"{names[id(part)]}[{j}]")
            self.writer.depth -= 1
        self.writer.depth -= 1

    def _start(self, parts: list[_Part], names: dict[int, str], lane: str | int) -> None:
        for part in parts:
            self.writer.line(f"{names[id(part)]}[{lane}] = {part.start}")

    def _tree(self, part: _Part, name: str, lanes: int, tile: int, here: str) -> None:
        """Join `lanes` lanes of `tile` neighbours (of which `here` count) pairwise into the first."""
        width = LANES // 2
        while width:
            pairs = min(width, max(0, lanes - width))
            if pairs:
                j = self.writer.fresh("j")
                self.writer.line(f"for {j} in range({unsigned(pairs)}):")
                self.writer.depth += 1
                first, second = f"{name}[{j}]", f"{name}[{j} + {unsigned(width)}]"
                if tile > 1:
                    k = self.writer.fresh("k")
                    self.writer.line(f"for {k} in range({here}):")
                    self.writer.depth += 1
                    first = f"{name}[{j} * {unsigned(tile)} + {k}]"
                    second = f"{name}[({j} + {unsigned(width)}) * {unsigned(tile)} + {k}]"
                self.writer.line(f"{first} = {self.joined(part, first, second)}")
                self.writer.depth -= 2 if tile > 1 else 1
            lanes, width = min(lanes, width), width // 2
