"""Prints a schedule as one self-contained Python file for Numba.

What is printed comes from the typed form alone: numbers, names made here (`v12`, `a0`), dtypes from a closed set. No
text of a user gets into it. Every arithmetic result is cast to its dtype, because Numba promotes otherwise than NumPy.
Indices are unsigned, so that Numba adds no check for negative ones and loops vectorise; offsets that go backwards wrap,
which in 64 bits is exact. Pure; any thread.

The function is `kernel(rows, frame, outputs or states…, columns…, arrays…, scalars…, temporaries…)` over flat arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from hiss.kernels import numba_prelude, views
from hiss.kernels.dtypes import BOOL, DType
from hiss.kernels.ir import VIEWS, Node, Program, Shape
from hiss.kernels.primitives import LANES, PRIMITIVES, REDUCTIONS, Reduction
from hiss.kernels.schedule import BUFFERS, Nest, Schedule, schedule
from hiss.kernels.views import View, contiguous

VERSION: Final = 2  # of the generator
_UNROLLED_MAX: Final = 16  # reductions of so few elements are written out,
_UNROLLED_LINES_MAX: Final = 1000  # unless that is so much text
_TILE_ORDERED: Final = 128  # results that are reduced side by side when the reduced axis is not the last
_TILE_FREE: Final = 256
_HEAD: Final = """\
# Generated from a checked kernel by hiss.kernels.numba_printer, version {version}.
import math

import numpy as np
from numba import njit, types

U = np.uint64
"""
_FUNCTION: Final = '@njit(error_model="numpy")'
_DECORATOR: Final = (
    '@njit([types.void({types})], nogil=True, cache=True, error_model="numpy", boundscheck=False, fastmath=False)'
)


@dataclass(frozen=True, slots=True)
class Printed:
    """A generated file and how to call its function: `temporaries` are (dtype, size) of the scratch it needs."""

    text: str
    temporaries: tuple[tuple[DType, int], ...]


def print_program(program: Program) -> Printed:
    """The Numba source of a program over frames (or of a reduction's step, if it has states)."""
    return _Printer(schedule(program)).run()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a loop finds an element: buffer[base + offset + sum of stride * index]."""

    buffer: str
    base: str
    offset: int
    strides: tuple[int, ...]

    def text(self, index: Sequence[str | int]) -> str:
        offset, terms = self.offset, [self.base] if self.base else []
        for stride, at in zip(self.strides, index, strict=True):
            if isinstance(at, int):
                offset += stride * at
            elif stride:
                terms.append(at if stride == 1 else f"{at} * {_unsigned(stride)}")
        if offset or not terms:
            terms.append(_unsigned(offset))
        return f"{self.buffer}[{' + '.join(terms)}]"


@dataclass(frozen=True, slots=True)
class _Line:
    """`name = …`: a load, or an operation on operands that are names of lines or text that is the same everywhere."""

    name: str
    place: _Place | None
    node: Node | None
    operands: tuple[str, ...] = ()


@dataclass(slots=True)
class _Body:
    """What a loop computes for one element of its domain."""

    rank: int
    lines: list[_Line] = field(default_factory=list)
    known: dict[tuple[int, View], str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def places(self) -> list[_Place]:
        return [line.place for line in self.lines if line.place is not None]


class _Printer:
    def __init__(self, plan: Schedule) -> None:
        self.plan, self.program = plan, plan.program
        self.stepping = bool(self.program.states)
        self.count = 0
        self.prelude: set[str] = set()
        self.names: dict[int, str] = {}  # of stored single values
        self.temporaries: list[tuple[Node, str]] = []
        self.accumulators: list[str] = []
        self.text: list[tuple[int, str]] = []
        self.depth = 2
        self.buffers = self._buffers()

    # ------------------------------------------------------------------------------------------ the file

    def run(self) -> Printed:
        for group in self.plan.groups:
            (self._reduce_group if group[0].reduces else self._point_group)(group)
        for place in self._copied_back():
            size = self.program.outputs[place].size
            self._loops((size,), lambda index, at=place: self.line(f"z{at}[{index[0]}] = n{at}[{index[0]}]"))
        body = [f"{'    ' * depth}{text}" for depth, text in self.text]
        temporaries = tuple((node.dtype, node.size) for node, _ in self.temporaries)
        head = _HEAD.format(version=VERSION)
        functions = "".join(
            f"\n\n{_FUNCTION}\n{numba_prelude.function(name).strip()}\n" for name in sorted(self.prelude)
        )
        signature = ", ".join(_numba_type(*argument) for argument in self._arguments())
        lines = [
            _DECORATOR.format(types=signature),
            f"def kernel({', '.join(self._argument_names())}):",
            *(f"    {text}" for text in self.accumulators),
            "    for q in range(len(rows)):",
            "        b = U(rows[q])",
            *self._bases(),
            *body,
        ]
        return Printed(head + functions + "\n\n" + "\n".join(lines) + "\n", temporaries)

    def _argument_names(self) -> list[str]:
        program = self.program
        outs = "z" if self.stepping else "o"
        return [
            "rows",
            "frame",
            *(f"{outs}{place}" for place in range(len(program.outputs))),
            *(f"c{slot}" for slot in range(len(program.columns))),
            *(f"a{slot}" for slot in range(len(program.arrays))),
            *(f"s{slot}" for slot in range(len(program.scalars))),
            *(name for _, name in self.temporaries),
        ]

    def _arguments(self) -> list[tuple[DType, str]]:
        """For each argument its dtype, and whether it is read, written or a scalar."""
        program = self.program
        return [
            (np.dtype(np.int64), "read"),
            (program.dtype, "read"),
            *((output.dtype, "written") for output in program.outputs),
            *((dtype, "read") for _, dtype in program.columns),
            *((array.dtype, "read") for array in program.arrays),
            *((scalar.dtype, "scalar") for scalar in program.scalars),
            *((node.dtype, "written") for node, _ in self.temporaries),
        ]

    def _bases(self) -> list[str]:
        """Where this block starts in the frames and outputs, and its columns."""
        lines = [f"f = b * {_unsigned(math.prod(self.program.shape))}"]
        if not self.stepping:
            lines += [f"p{k} = b * {_unsigned(output.size)}" for k, output in enumerate(self.program.outputs)]
        lines += [f"d{slot} = c{slot}[b]" for slot in range(len(self.program.columns))]
        return [f"        {line}" for line in lines]

    def _buffers(self) -> dict[int, tuple[str, str]]:
        """The name and base of each buffer, by the id of the node that it holds."""
        found: dict[int, tuple[str, str]] = {}
        for node in self.program.nodes:
            if node.op in BUFFERS:
                letter = {"array": "a", "state": "z"}.get(node.op)
                found[id(node)] = (f"{letter}{node.attrs[0]}", "") if letter else ("frame", "f")
        in_place = self._in_place()
        for key, nest in self.plan.stored.items():
            if nest.root.shape and nest.output is not None:
                k = nest.output
                new = self._temporary(nest.root, f"n{k}") if self.stepping and k not in in_place else f"z{k}"
                found[key] = (new, "") if self.stepping else (f"o{k}", f"p{k}")
            elif nest.root.shape:
                found[key] = self._temporary(nest.root, f"w{len(self.temporaries)}"), ""
        if self.stepping:
            for nest in self._copies():
                assert nest.output is not None
                if nest.output not in in_place:
                    self._temporary(nest.root, f"n{nest.output}")
        return found

    def _temporary(self, node: Node, name: str) -> str:
        self.temporaries.append((node, name))
        return name

    def _copies(self) -> list[Nest]:
        return [nest for group in self.plan.groups for nest in group if nest.copy and nest.output is not None]

    # ------------------------------------------------------------------------------------------ states

    def _in_place(self) -> set[int]:
        """The states that may be written where they lie.

        Safe where the loop that writes state k reads it at the element that it writes only, and no later loop reads
        it: within one iteration all loads come before the stores.
        """
        if not self.stepping:
            return set()
        safe = set(range(len(self.program.outputs)))
        written: dict[int, int] = {}
        for turn, group in enumerate(self.plan.groups):
            for nest in group:
                if nest.output is not None:
                    written[nest.output] = turn
                    if nest.reduces:
                        safe.discard(nest.output)
        for turn, group in enumerate(self.plan.groups):
            for nest in group:
                for state, same in self._state_reads(nest):
                    if turn > written[state] or (turn == written[state] and not same):
                        safe.discard(state)
        return safe

    def _state_reads(self, nest: Nest) -> list[tuple[int, bool]]:
        """The states that a nest reads: place, and whether only at the index of the loop."""
        found = []
        rank = len(nest.domain)
        stack = [(start, views.identity(rank)) for start in nest.starts()]
        seen: set[tuple[int, View]] = set()
        while stack:
            node, view = stack.pop()
            if (id(node), view) in seen:
                continue
            seen.add((id(node), view))
            if node.op == "state":
                same = not nest.reduces and node.shape == nest.domain and view == views.identity(rank)
                found.append((node.attrs[0], same))
            elif id(node) in self.plan.stored and node is not nest.root:
                continue
            elif node.op in VIEWS:
                inner = views.through(node, view, rank)
                if inner is None:  # a reshape of a buffer: some other element
                    found += [(at.attrs[0], False) for at in _states_below(node)]
                else:
                    stack.append((node.args[0], inner))
            else:
                stack += [(arg, view) for arg in node.args]
        return found

    def _copied_back(self) -> list[int]:
        """The states that were written beside themselves."""
        names = {name for _, name in self.temporaries}
        return [place for place in range(len(self.program.outputs)) if self.stepping and f"n{place}" in names]

    # ------------------------------------------------------------------------------------------ values

    def line(self, text: str) -> None:
        self.text.append((self.depth, text))

    def fresh(self, letter: str = "v") -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def value(self, body: _Body, node: Node, view: View, own: Node | None = None) -> str:
        """The name or literal of a node's element in `body`, its lines added. `own`, the nest's root, is not read."""
        stack = [(node, view)]
        while stack:
            current, at = stack[-1]
            key = id(current), at
            if key in body.known:
                stack.pop()
                continue
            direct = None if current is own else self._direct(body, current, at)
            if direct is not None:
                body.known[key] = direct
                continue
            if current.op in VIEWS:
                inner = views.through(current, at, body.rank)
                assert inner is not None, "a reshape of what is not stored"
                needed = [(current.args[0], inner)]
            else:
                needed = [(arg, at) for arg in current.args]
            missing = [entry for entry in needed if (id(entry[0]), entry[1]) not in body.known]
            if missing:
                stack += reversed(missing)
                continue
            operands = tuple(body.known[id(arg), inner_view] for arg, inner_view in needed)
            body.known[key] = operands[0] if current.op in VIEWS else self._operation(body, current, operands)
        return body.known[id(node), view]

    def _direct(self, body: _Body, node: Node, view: View) -> str | None:
        """A literal, a single value, or a load; None where the node is computed."""
        match node.op:
            case "const":
                return literal(node.attrs[0], node.dtype)
            case "scalar":
                return f"s{node.attrs[0]}"
            case "column":
                return f"d{node.attrs[0]}"
        if id(node) in self.plan.stored and not node.shape:
            return self.names[id(node)]
        place = self.plan.strided(node)
        if place is None:
            return None
        buffer, base = self.buffers[id(place.owner)]
        name = self.fresh()
        body.lines.append(_Line(name, _Place(buffer, base, *place.at(view, body.rank)), None))
        body.names.add(name)
        return name

    def _operation(self, body: _Body, node: Node, operands: tuple[str, ...]) -> str:
        name = self.fresh()
        body.lines.append(_Line(name, None, node, operands))
        body.names.add(name)
        return name

    def expression(self, node: Node, operands: list[str]) -> str:
        dtype = node.args[-1].dtype
        if node.op == "cast":
            text, called = numba_prelude.conversion(dtype, node.dtype, operands[0])
            self.prelude |= {called} if called else set()
            return text
        return self.join(node.op, dtype, operands)

    def join(self, primitive: str, dtype: DType, operands: list[str]) -> str:
        if numba_prelude.call(primitive, dtype) + "(" in PRIMITIVES[primitive].printed(dtype, operands):
            self.prelude.add(numba_prelude.call(primitive, dtype))
        return PRIMITIVES[primitive].printed(dtype, operands)

    def emit(self, body: _Body, index: Sequence[str | int], suffix: str = "") -> None:
        """Print a body's lines for one element; `suffix` keeps the names of several copies apart."""
        for one in body.lines:
            if one.place is not None:
                self.line(f"{one.name}{suffix} = {one.place.text(index)}")
            else:
                assert one.node is not None
                operands = [name + suffix if name in body.names else name for name in one.operands]
                self.line(f"{one.name}{suffix} = {self.expression(one.node, operands)}")

    # ------------------------------------------------------------------------------------------ loops

    def _loops(self, sizes: Shape, inner: Any) -> None:
        """Loops over `sizes` around what `inner` prints; it gets the index, literal where the size is 1."""
        index: list[str | int] = []
        depth = self.depth
        for size in sizes:
            if size == 1:
                index.append(0)
                continue
            name = self.fresh("i")
            self.line(f"for {name} in range({_unsigned(size)}):")
            self.depth += 1
            index.append(name)
        inner(index)
        self.depth = depth

    def _point_group(self, group: list[Nest]) -> None:
        domain = group[0].domain
        here = views.identity(len(domain))
        body = _Body(len(domain))
        stores: list[tuple[_Place, str]] = []
        singles: list[tuple[str, str]] = []
        for nest in group:
            value = self.value(body, nest.root, here, own=None if self._reads_stored(nest) else nest.root)
            place = self._written(nest)
            if place is None:
                self.names[id(nest.root)] = self.fresh("t")
                singles.append((self.names[id(nest.root)], value))
            else:
                stores.append((place, value))
        axes = _Axes(domain, (), [*body.places(), *(place for place, _ in stores)])

        def inner(index: list[str | int]) -> None:
            at = axes.index(index)
            self.emit(body, at)
            for place, value in stores:
                self.line(f"{place.text(at)} = {value}")
            for name, value in singles:
                self.line(f"{name} = {value}")

        self._loops(axes.kept, inner)

    def _reads_stored(self, nest: Nest) -> bool:
        """Whether a copy takes its root from where another nest stored it."""
        return nest.copy and self.plan.stored.get(id(nest.root)) is not nest

    def _written(self, nest: Nest) -> _Place | None:
        """Where a nest writes its element; None for a single value that stays in a variable."""
        strides = contiguous(nest.domain)
        if nest.copy and nest.output is not None:
            k = nest.output
            if self.stepping:
                names = {name for _, name in self.temporaries}
                return _Place(f"n{k}" if f"n{k}" in names else f"z{k}", "", 0, strides)
            return _Place(f"o{k}", f"p{k}", 0, strides)
        if not nest.root.shape:
            return None
        return _Place(*self.buffers[id(nest.root)], 0, strides)

    # ------------------------------------------------------------------------------------------ reductions

    def _reduce_group(self, group: list[Nest]) -> None:
        domain, axes_reduced = group[0].domain, group[0].axes
        body = _Body(len(domain))
        here = views.identity(len(domain))
        parts = []
        for nest in group:
            value = self.value(body, nest.root.args[0], here)
            parts.append(_Part(nest.root, REDUCTIONS[nest.root.op], value, self._result_place(nest)))
        places = [*body.places(), *(part.place for part in parts if part.place is not None)]
        axes = _Axes(domain, axes_reduced, places)
        count = math.prod(axes.reduced)
        if count <= _UNROLLED_MAX and count * len(body.lines) <= _UNROLLED_LINES_MAX:
            self._loops(axes.kept, lambda index: self._written_out(body, parts, axes, index))
        elif axes.last_kept:
            self._loops(axes.kept[:-1], lambda index: self._side_by_side(body, parts, axes, index))
        else:
            self._loops(axes.kept, lambda index: self._one_result(body, parts, axes, index))

    def _result_place(self, nest: Nest) -> _Place | None:
        """Where the results go, as an access of the domain (which does not move along reduced axes)."""
        if not nest.root.shape:
            self.names[id(nest.root)] = self.fresh("t")
            return None
        strides = iter(contiguous(nest.root.shape))
        moved = tuple(0 if axis in nest.axes else next(strides) for axis in range(len(nest.domain)))
        return _Place(*self.buffers[id(nest.root)], 0, moved)

    def _finish(self, part: _Part, axes: _Axes, kept: Sequence[str | int], result: str) -> None:
        if part.place is None:
            self.line(f"{self.names[id(part.node)]} = {result}")
        else:
            self.line(f"{part.place.text(axes.index([*kept, *[0] * len(axes.reduced)]))} = {result}")

    def _written_out(self, body: _Body, parts: list[_Part], axes: _Axes, kept: list[str | int]) -> None:
        """Few elements: no loop over them."""
        count = math.prod(axes.reduced)
        for k in range(count):
            place = [int(at) for at in np.unravel_index(k, axes.reduced)]
            self.emit(body, axes.index([*kept, *place]), f"_{k}")
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
        name = self.fresh()
        self.line(f"{name} = {text}")
        return name

    def joined(self, part: _Part, first: str, second: str) -> str:
        return self.join(part.rule.join, part.node.dtype, [first, second])

    def _one_result(self, body: _Body, parts: list[_Part], axes: _Axes, kept: list[str | int]) -> None:
        """One result after the other: floats in lanes, integers in one accumulator, which vectorises by itself."""
        lanes = [part for part in parts if part.node.dtype.kind == "f"]
        names = {id(part): self._accumulator(part, LANES) if part in lanes else self.fresh("r") for part in parts}
        if lanes:
            self._loops((LANES,), lambda index: self._start(lanes, names, index[0]))
        for part in parts:
            if part not in lanes:
                self.line(f"{names[id(part)]} = {part.start}")
        *outer, last = axes.reduced
        tracked = len([size for size in outer if size > 1]) > 0 and last % LANES != 0 and any(p.ordered for p in lanes)
        if tracked:
            self.line("lane = U(0)")

        def add(index: list[str | int], lane: str) -> None:
            self.emit(body, axes.index([*kept, *index]))
            for part in parts:
                name = names[id(part)]
                name = f"{name}[{lane}]" if part in lanes else name
                self.line(f"{name} = {self.joined(part, name, part.value)}")

        def row(index: list[str | int]) -> None:
            if not lanes:
                self._loops((last,), lambda at: add([*index, *at], ""))
            elif tracked:
                self._tracked_row(last, lambda at, lane: add([*index, at], lane))
            else:
                self._lane_row(last, lambda at, lane: add([*index, at], lane))

        self._loops(tuple(outer), row)
        for part in parts:
            result = names[id(part)]
            if part in lanes:
                self._tree(part, result, LANES, 1, "")
                result += "[U(0)]"
            self._finish(part, axes, kept, result)

    def _lane_row(self, size: int, add: Any) -> None:
        """A row whose first element is in lane 0."""
        if size >= LANES:
            chunk, lane, at = self.fresh("i"), self.fresh("j"), self.fresh("k")
            self.line(f"for {chunk} in range({_unsigned(size // LANES)}):")
            self.line(f"    for {lane} in range({_unsigned(LANES)}):")
            self.depth += 2
            self.line(f"{at} = {chunk} * {_unsigned(LANES)} + {lane}")
            add(at, lane)
            self.depth -= 2
        if size % LANES:
            lane, at = self.fresh("j"), self.fresh("k")
            self.line(f"for {lane} in range({_unsigned(size % LANES)}):")
            self.depth += 1
            self.line(f"{at} = {lane} + {_unsigned(size - size % LANES)}")
            add(at, lane)
            self.depth -= 1

    def _tracked_row(self, size: int, add: Any) -> None:
        """A row that starts in the lane where the one before ended."""
        at, take, step, j, k = (self.fresh(letter) for letter in "kmijk")
        self.line(f"{at} = U(0)")
        self.line(f"while {at} < {_unsigned(size)}:")
        self.depth += 1
        self.line(f"{take} = min({_unsigned(LANES)} - lane, {_unsigned(size)} - {at})")
        self.line(f"for {step} in range({take}):")
        self.depth += 1
        self.line(f"{j} = lane + {step}")
        self.line(f"{k} = {at} + {step}")
        add(k, j)
        self.depth -= 1
        self.line(f"{at} = {at} + {take}")
        self.line(f"lane = (lane + {take}) & {_unsigned(LANES - 1)}")
        self.depth -= 1

    def _side_by_side(self, body: _Body, parts: list[_Part], axes: _Axes, kept: list[str | int]) -> None:
        """Many results at once: the last axis is kept, so neighbours are reduced together in tiles of it."""
        inner, count = axes.kept[-1], math.prod(axes.reduced)
        ordered = any(part.ordered for part in parts)
        tile = min(inner, _TILE_ORDERED if ordered else _TILE_FREE)
        width = {id(part): min(LANES, count) if part.ordered else 1 for part in parts}
        names = {id(part): self._accumulator(part, width[id(part)] * tile) for part in parts}
        first, here = self.fresh("i"), self.fresh("m")
        self.line(f"for {first} in range({_unsigned(0)}, {_unsigned(inner)}, {_unsigned(tile)}):")
        self.depth += 1
        self.line(f"{here} = min({_unsigned(tile)}, {_unsigned(inner)} - {first})")
        for part in parts:
            at = self.fresh("j")
            self.line(f"for {at} in range({_unsigned(width[id(part)] * tile)}):")
            self.line(f"    {names[id(part)]}[{at}] = {part.start}")
        element, lane = self.fresh("e"), self.fresh("l")
        self.line(f"{element} = U(0)")

        def add(index: list[str | int]) -> None:
            self.line(f"{lane} = ({element} & {_unsigned(LANES - 1)}) * {_unsigned(tile)}")
            j, k = self.fresh("j"), self.fresh("k")
            self.line(f"for {j} in range({here}):")
            self.depth += 1
            self.line(f"{k} = {first} + {j}")
            self.emit(body, axes.index([*kept, k, *index]))
            for part in parts:
                name = f"{names[id(part)]}[{f'{lane} + {j}' if part.ordered else j}]"
                self.line(f"{name} = {self.joined(part, name, part.value)}")
            self.depth -= 1
            self.line(f"{element} = {element} + U(1)")

        self._loops(axes.reduced, add)
        for part in parts:
            self._tree(part, names[id(part)], width[id(part)], tile, here)
            j, k = self.fresh("j"), self.fresh("k")
            self.line(f"for {j} in range({here}):")
            self.depth += 1
            self.line(f"{k} = {first} + {j}")
            self._finish(part, axes, [*kept, k], f"{names[id(part)]}[{j}]")
            self.depth -= 1
        self.depth -= 1

    def _accumulator(self, part: _Part, size: int) -> str:
        name = self.fresh("r")
        self.accumulators.append(f"{name} = np.empty({size}, np.{part.node.dtype.name})")
        return name

    def _start(self, parts: list[_Part], names: dict[int, str], lane: str | int) -> None:
        for part in parts:
            self.line(f"{names[id(part)]}[{lane}] = {part.start}")

    def _tree(self, part: _Part, name: str, lanes: int, tile: int, here: str) -> None:
        """Join `lanes` lanes of `tile` neighbours (of which `here` count) pairwise into the first."""
        width = LANES // 2
        while width:
            pairs = min(width, max(0, lanes - width))
            if pairs:
                j = self.fresh("j")
                self.line(f"for {j} in range({_unsigned(pairs)}):")
                self.depth += 1
                first, second = f"{name}[{j}]", f"{name}[{j} + {_unsigned(width)}]"
                if tile > 1:
                    k = self.fresh("k")
                    self.line(f"for {k} in range({here}):")
                    self.depth += 1
                    first = f"{name}[{j} * {_unsigned(tile)} + {k}]"
                    second = f"{name}[({j} + {_unsigned(width)}) * {_unsigned(tile)} + {k}]"
                self.line(f"{first} = {self.joined(part, first, second)}")
                self.depth -= 2 if tile > 1 else 1
            lanes, width = min(lanes, width), width // 2


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One reduction of a group: `value` is what it joins for each element."""

    node: Node
    rule: Reduction
    value: str
    place: _Place | None

    @property
    def ordered(self) -> bool:
        return self.node.dtype.kind in self.rule.ordered_kinds

    @property
    def start(self) -> str:
        dtype = self.node.dtype
        if self.rule.start is not None:
            return literal(self.rule.start, dtype)
        top = self.rule.name == "min"  # the value that never wins
        if dtype.kind == "f":
            return literal(math.inf if top else -math.inf, dtype)
        return literal(int(np.iinfo(dtype).max if top else np.iinfo(dtype).min), dtype)


class _Axes:
    """The loops over a domain: kept axes first, then reduced ones, neighbours merged where all accesses allow it."""

    def __init__(self, domain: Shape, reduced: tuple[int, ...], places: list[_Place]) -> None:
        self.rank = len(domain)
        wide = [axis for axis in range(self.rank) if domain[axis] > 1]
        self.last_kept = bool(wide) and wide[-1] not in reduced
        kept = [axis for axis in wide if axis not in reduced]
        self._kept = self._merged(kept, domain, places)
        self._reduced = self._merged([axis for axis in wide if axis in reduced], domain, places)
        self.kept = tuple(math.prod(domain[axis] for axis in run) for run in self._kept)
        self.reduced = tuple(math.prod(domain[axis] for axis in run) for run in self._reduced) or (1,)
        self._reduced = self._reduced or [[]]

    @staticmethod
    def _merged(axes: list[int], domain: Shape, places: list[_Place]) -> list[list[int]]:
        runs: list[list[int]] = []
        for axis in axes:
            if runs and all(p.strides[runs[-1][-1]] == p.strides[axis] * domain[axis] for p in places):
                runs[-1].append(axis)
            else:
                runs.append([axis])
        return runs

    def index(self, loops: Sequence[str | int]) -> list[str | int]:
        """The index of every axis of the domain: a merged run counts along its last axis, the others stand still."""
        found: list[str | int] = [0] * self.rank
        for run, at in zip([*self._kept, *self._reduced], [*loops], strict=False):
            if run:
                found[run[-1]] = at
        return found


def literal(value: float, dtype: DType) -> str:
    """A number as Numba source, of exactly this dtype."""
    if dtype == BOOL:
        return repr(bool(value))
    if dtype.kind in "iu":
        return f"np.{dtype.name}({int(value)})"
    text = {math.inf: "np.inf", -math.inf: "-np.inf"}.get(value, repr(float(value)))
    return f"np.{dtype.name}({'np.nan' if math.isnan(value) else text})"


def _unsigned(value: int) -> str:
    return f"U({value % (1 << 64)})"


def _numba_type(dtype: DType, use: str) -> str:
    scalar = "types.boolean" if dtype == BOOL else f"types.{dtype.name}"
    if use == "scalar":
        return scalar
    return f'types.Array({scalar}, 1, "C", readonly={use == "read"})'


def _states_below(node: Node) -> list[Node]:
    """The state leaves under a chain of views."""
    while node.op in VIEWS:
        node = node.args[0]
    return [node] if node.op == "state" else []
