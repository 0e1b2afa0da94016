"""Numba routines of `arrays_recursive`. See `numba_arrays`."""

from __future__ import annotations

from typing import Final

from hiss.kernels.ir import Node
from hiss.kernels.numba_routines import Routine, RoutineMaker

_RECURSIVE: Final = """\
(values, v, b0, b1, a1, out, o):
    # along the middle axis of ({outer}, {count}, {inner})
    for row in range(U({outer})):
        first = row * U({size})
        for j in range(U({inner})):
            out[o + first + j] = b0 * values[v + first + j]
        for k in range(first + U({inner}), first + U({size}), U({inner})):
            for j in range(k, k + U({inner})):
                driven = b0 * values[v + j] + b1 * values[v + j - U({inner})]
                out[o + j] = driven + a1 * out[o + j - U({inner})]
"""


def _recursive(node: Node) -> Routine:
    outer, count, inner = node.shape
    return Routine(_RECURSIVE.format(outer=outer, count=count, inner=inner, size=count * inner))


ROUTINES: Final[dict[str, RoutineMaker]] = {"recursive": _recursive}
