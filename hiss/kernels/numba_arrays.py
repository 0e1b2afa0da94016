"""Prints primitives of whole arrays: each as a call of a routine that stands in the same file.

A family's module has a table, from the primitive's name to a function that makes the routine for a node. The routine
takes, for each operand, its flat array and the index of its first element, or its value if it is single; then, unless
its own result is a single value, which it returns, the flat array for it and the index of its first element; then its
scratch arrays; then, of a packet, its length `n`. Sizes are literals in its text. See `numba_writer`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hiss.kernels import (
    numba_groups,
    numba_indexed,
    numba_ordered,
    numba_ranks,
    numba_recursive,
    numba_windows,
    views,
)
from hiss.kernels.arrays import ARRAYS
from hiss.kernels.ir import Node
from hiss.kernels.numba_operations import unsigned
from hiss.kernels.numba_places import Body
from hiss.kernels.numba_routines import RoutineMaker
from hiss.kernels.numba_writer import Writer
from hiss.kernels.schedule import Nest

ROUTINES: Final[dict[str, RoutineMaker]] = {
    **numba_indexed.ROUTINES,
    **numba_ordered.ROUTINES,
    **numba_windows.ROUTINES,
    **numba_ranks.ROUTINES,
    **numba_groups.ROUTINES,
    **numba_recursive.ROUTINES,
}
assert ROUTINES.keys() == ARRAYS.keys()


def print_group(writer: Writer, group: list[Nest]) -> None:
    """Print one call after the other."""
    for nest in group:
        _call(writer, nest.root)


def _call(writer: Writer, node: Node) -> None:
    routine = ROUTINES[node.op](node)
    if writer.program.variable:
        routine = replace(routine, text=routine.text.replace(")", ", n)" if routine.text[1] != ")" else "n)", 1))
    name = next((name for name, text in writer.routines.items() if text == routine.text_of(name)), None)
    if name is None:
        name = f"{node.op}_{sum(known.startswith(node.op + '_') for known in writer.routines) + 1}"
        writer.routines[name] = routine.text_of(name)
    arguments: list[str] = []
    for arg in node.args:
        arguments += _operand(writer, arg)
    if node.shape:
        buffer, base = writer.buffers[id(node)]
        arguments += [buffer, base or unsigned(0)]
    for dtype, size in routine.scratch:
        arguments.append(writer.temporary(dtype, size, f"w{len(writer.temporaries)}"))
    arguments += ["n"] if writer.program.variable else []
    call = f"{name}({', '.join(arguments)})"
    if node.shape:
        writer.line(call)
    else:
        writer.names[id(node)] = writer.fresh("t")
        writer.line(f"{writer.names[id(node)]} = {call}")


def _operand(writer: Writer, arg: Node) -> list[str]:
    if not arg.shape:
        body = Body(0)
        value = writer.value(body, arg, views.identity(0))
        writer.emit(body, ())
        return [value]
    place = writer.plan.strided(arg)
    assert place is not None
    assert views.is_contiguous(arg.shape, place.strides), "an operand is not contiguous"
    buffer, base = writer.buffers[id(place.owner)]
    terms = [base] if base else []
    terms += [unsigned(place.offset)] if place.offset or not terms else []
    return [buffer, " + ".join(terms)]
