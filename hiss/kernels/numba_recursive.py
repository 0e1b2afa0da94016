"""Numba routines of `arrays_recursive`. See `numba_arrays`.

Each result waits for the one before it, so several rows are worked on in turn; where the axis is not the last one, its
neighbours are, and vectorise.
"""

from __future__ import annotations

from typing import Final

from hiss.kernels.ir import Node
from hiss.kernels.numba_routines import Routine, RoutineMaker

_SIDE_BY_SIDE: Final = 8  # rows
_ROWS: Final = """\
(values, v, b0, b1, a1, out, o):
    # along the last axis of ({outer}, {count})
    for row in range(U(0), U({outer}), U({rows})):
        first = row * U({count})
        stop = min(row + U({rows}), U({outer})) * U({count})
        for j in range(first, stop, U({count})):
            out[o + j] = b0 * values[v + j]
        for k in range(U(1), U({count})):
            for j in range(first + k, stop, U({count})):
                driven = b0 * values[v + j] + b1 * values[v + j - U(1)]
                out[o + j] = driven + a1 * out[o + j - U(1)]
"""
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
    if inner == 1:
        return Routine(_ROWS.format(outer=outer, count=count, rows=min(_SIDE_BY_SIDE, outer)))
    return Routine(_RECURSIVE.format(outer=outer, count=count, inner=inner, size=count * inner))


ROUTINES: Final[dict[str, RoutineMaker]] = {"recursive": _recursive}
