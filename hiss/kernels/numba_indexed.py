"""Numba routines of `arrays_indexed`. See `numba_arrays`."""

from __future__ import annotations

import math
from typing import Final

from hiss.kernels.ir import Node
from hiss.kernels.lengths import Length
from hiss.kernels.numba_routines import Routine, RoutineMaker

_TAKE: Final = """\
(values, v, indices, i, out, o):
    # values ({rows}, {count}, {inner}) at {taken} places of the middle axis
    for row in range(U({rows})):
        for k in range(U({taken})):
            at = indices[i + k]
            at = at if at > 0 else 0
            at = at if at < {last} else {last}
            source = v + (row * U({count}) + U(at)) * U({inner})
            target = o + (row * U({taken}) + k) * U({inner})
            for j in range(U({inner})):
                out[target + j] = values[source + j]
"""
_COUNT: Final = """\
(indices, i, out, o):
    for k in range(U({length})):
        out[o + k] = 0
    for k in range(U({size})):
        at = U(indices[i + k])  # what is below 0 is beyond the end
        if at < U({length}):
            out[o + at] += 1
"""
_WEIGH: Final = """\
(indices, i, weights, w, out, o):
    for k in range(U({length})):
        out[o + k] = 0.0
    for k in range(U({size})):
        at = U(indices[i + k])  # what is below 0 is beyond the end
        if at < U({length}):
            out[o + at] += weights[w + k]
"""


def _take(node: Node) -> Routine:
    values, indices = node.args
    rows, count, inner = values.shape
    last = f"{count} - 1" if isinstance(count, Length) else count - 1
    return Routine(_TAKE.format(rows=rows, count=count, inner=inner, taken=indices.size, last=last))


def _bincount(node: Node) -> Routine:
    size, length = math.prod(node.args[0].shape), node.attrs[0]
    return Routine((_COUNT if len(node.args) == 1 else _WEIGH).format(size=size, length=length))


ROUTINES: Final[dict[str, RoutineMaker]] = {"take": _take, "bincount": _bincount}
