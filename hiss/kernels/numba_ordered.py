"""Numba routines of `arrays_ordered`. See `numba_arrays`."""

from __future__ import annotations

from typing import Final

from hiss.kernels.arrays_ordered import RUNNING
from hiss.kernels.ir import Node
from hiss.kernels.numba_operations import printed
from hiss.kernels.numba_routines import Routine, RoutineMaker

_RUNNING: Final = """\
(values, v, out, o):
    # along the middle axis of ({outer}, {count}, {inner})
    for row in range(U({outer})):
        first = row * U({count} * {inner})
        for j in range(U({inner})):
            out[o + first + j] = values[v + first + j]
        for k in range(U(1), U({count})):
            here = first + k * U({inner})
            for j in range(U({inner})):
                a = out[o + here + j - U({inner})]
                b = values[v + here + j]
                out[o + here + j] = {joined}
"""


def _running(node: Node) -> Routine:
    outer, count, inner = node.shape
    joined = printed(node.op.removeprefix("running_"), node.dtype, ["a", "b"])
    return Routine(_RUNNING.format(outer=outer, count=count, inner=inner, joined=joined))


ROUTINES: Final[dict[str, RoutineMaker]] = dict.fromkeys(RUNNING, _running)
