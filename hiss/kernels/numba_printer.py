"""Prints a schedule as one self-contained Python file for Numba.

What is printed comes from the typed form alone: numbers, names made here (`v12`, `a0`), dtypes from a closed set. No
text of a user gets into it. Each family of operations is printed by its own module (`FAMILIES`), with the `Writer` that
they share. Pure; any thread.

The function is `kernel(rows, frame, outputs or states…, columns…, arrays…, scalars…, temporaries…)` over flat arrays.
For packets there follow where each starts in `frame` and how long it is, in items, and for results that are packets
the same of those, and how many items of the output are used; results come one after the other from there on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hiss.kernels import numba_arrays, numba_points, numba_prelude, numba_reductions
from hiss.kernels.dtypes import BOOL, DType
from hiss.kernels.ir import Program
from hiss.kernels.lengths import Length, is_variable, items_of
from hiss.kernels.numba_operations import unsigned
from hiss.kernels.numba_writer import Writer
from hiss.kernels.schedule import Family, Nest, schedule

VERSION: Final = 4  # of the generator
FAMILIES: Final[dict[Family, Callable[[Writer, list[Nest]], None]]] = {
    Family.POINTS: numba_points.print_group,
    Family.REDUCTION: numba_reductions.print_group,
    Family.ARRAYS: numba_arrays.print_group,
}
_PACKETS: Final = {"starts": "read", "lengths": "read", "placed": "written", "counts": "written", "used": "written"}
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


def print_program(program: Program, source: Sequence[str] = ()) -> Printed:
    """The Numba source of a program over frames (or of a reduction's step, if it has states).

    With the lines of the kernel's `source` it has them as comments, for people to read; such a text is not compiled.
    """
    writer = Writer(schedule(program), source)
    for group in writer.plan.groups:
        FAMILIES[group[0].family](writer, group)
    for place in writer.copied_back():
        size = writer.program.outputs[place].size
        writer.loops((size,), lambda index, at=place: writer.line(f"z{at}[{index[0]}] = n{at}[{index[0]}]"))  # type: ignore[misc]
    if program.variable:
        _close(writer)
    return Printed(_file(writer), tuple((dtype, size) for dtype, size, _ in writer.temporaries))


def _close(writer: Writer) -> None:
    """The lines after a packet: of a selection the chosen items move together; how many the result has, and where."""
    output = writer.program.outputs[0]
    if not is_variable(output.shape):
        return
    factor, inner = items_of(output.shape)
    line, item = writer.line, unsigned(math.prod(inner))
    line(f"kept = {unsigned(Length(factor))}")
    if writer.program.selects:
        line("kept = U(0)")
        line(f"for i in range({unsigned(Length(factor))}):")
        line(f"    for j in range({item}):")
        line(f"        o0[p0 + kept * {item} + j] = o0[p0 + i * {item} + j]")
        line("    kept += U(o1[i])")
    line("placed[b] = np.int64(end)")
    line("counts[b] = np.int64(kept)")
    line("end += kept")


def _file(writer: Writer) -> str:
    functions = [numba_prelude.function(name).strip() for name in sorted(writer.prelude)]
    functions += [text.strip() for text in writer.routines.values()]
    closes = writer.program.variable and is_variable(writer.program.outputs[0].shape)
    signature = ", ".join(_numba_type(*argument) for argument in _arguments(writer))
    lines = [
        _DECORATOR.format(types=signature),
        f"def kernel({', '.join(_argument_names(writer))}):",
        *(f"    {text}" for text in writer.accumulators),
        *(["    end = U(used[0])"] if closes else []),
        "    for q in range(len(rows)):",
        "        b = U(rows[q])",
        *_bases(writer),
        *(f"{'    ' * depth}{text}" for depth, text in writer.text),
        *(["    used[0] = np.int64(end)"] if closes else []),
    ]
    head = _HEAD.format(version=VERSION)
    return head + "".join(f"\n\n{_FUNCTION}\n{text}\n" for text in functions) + "\n\n" + "\n".join(lines) + "\n"


def _argument_names(writer: Writer) -> list[str]:
    program = writer.program
    return [
        "rows",
        "frame",
        *(f"{'z' if writer.is_state(place) else 'o'}{place}" for place in range(len(program.outputs))),
        *(f"c{slot}" for slot in range(len(program.columns))),
        *(f"a{slot}" for slot in range(len(program.arrays))),
        *(f"s{slot}" for slot in range(len(program.scalars))),
        *(name for _, _, name in writer.temporaries),
        *(_PACKETS if program.variable else ()),
    ]


def _arguments(writer: Writer) -> list[tuple[DType, str]]:
    """For each argument its dtype, and whether it is read, written or a scalar."""
    program = writer.program
    return [
        (np.dtype(np.int64), "read"),
        (program.dtype, "read"),
        *((output.dtype, "written") for output in program.outputs),
        *((dtype, "read") for _, dtype in program.columns),
        *((array.dtype, "read") for array in program.arrays),
        *((scalar.dtype, "scalar") for scalar in program.scalars),
        *((dtype, "written") for dtype, _, _ in writer.temporaries),
        *((np.dtype(np.int64), use) for use in (_PACKETS.values() if program.variable else ())),
    ]


def _bases(writer: Writer) -> list[str]:
    """Where this block starts in the frames and outputs, and its columns."""
    program = writer.program
    if program.variable:
        item = unsigned(math.prod(items_of(program.shape)[1]))
        lines = ["n = lengths[b]", f"f = U(starts[b]) * {item}"]
    else:
        lines = [f"f = b * {unsigned(math.prod(program.shape))}"]
    for k, output in enumerate(program.outputs):
        if is_variable(output.shape):
            item = unsigned(math.prod(items_of(output.shape)[1]))
            lines.append(f"p{k} = end * {item}" if k == 0 else f"p{k} = U(0)")
        elif not writer.is_state(k):
            lines.append(f"p{k} = b * {unsigned(output.size)}")
    lines += [f"d{slot} = c{slot}[b]" for slot in range(len(program.columns))]
    return [f"        {line}" for line in lines]


def _numba_type(dtype: DType, use: str) -> str:
    scalar = "types.boolean" if dtype == BOOL else f"types.{dtype.name}"
    if use == "scalar":
        return scalar
    return f'types.Array({scalar}, 1, "C", readonly={use == "read"})'
