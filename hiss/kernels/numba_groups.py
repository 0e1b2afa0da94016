"""Numba routines of `arrays_groups`. See `numba_arrays`.

`group_sum` adds into four tables in turn: neighbouring pixels often fall into one group, and an addition would wait for
the one before it to be stored.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from hiss.kernels import dtypes
from hiss.kernels.arrays_groups import LANES
from hiss.kernels.ir import Node
from hiss.kernels.lengths import Length
from hiss.kernels.numba_routines import Routine, RoutineMaker

_BLOCK: Final = 64  # pixels that are looked at together
_GROUP_SUM: Final = """\
(values, v, index, i, out, o, sums):
    # {count} values into {length} groups, and one for what is dropped
    for k in range(U({all_lanes})):
        sums[k] = {T}(0)
    for k in range(U({fours})):
        at = k * U(4)
        sums[U(index[i + at])] += {T}(values[v + at])
        sums[U({slots}) + U(index[i + at + U(1)])] += {T}(values[v + at + U(1)])
        sums[U({slots} * 2) + U(index[i + at + U(2)])] += {T}(values[v + at + U(2)])
        sums[U({slots} * 3) + U(index[i + at + U(3)])] += {T}(values[v + at + U(3)])
    for k in range(U({rest})):
        at = U({fours}) * U(4) + k
        sums[k * U({slots}) + U(index[i + at])] += {T}(values[v + at])
    for k in range(U({length})):
        even = {T}(sums[k] + sums[k + U({slots} * 2)])
        odd = {T}(sums[k + U({slots})] + sums[k + U({slots} * 3)])
        out[o + k] = {T}(even + odd)
"""
_GROUPS_COUNT: Final = """\
(mask, m, parents, sizes):
    # pixels of ({height}, {width}) that touch; a group is a tree whose root knows how many it has
    found = np.int64(0)
    for y in range({height}):
        for start in range(0, {width}, {block}):
            stop = min(start + {block}, {width})
            some = np.uint8(0)
            for x in range(start, stop):  # vectorises, so that what is empty is passed over
                some = np.uint8(some | np.uint8(mask[m + U(y * {width} + x)]))
            if some == 0:
                continue
            for x in range(start, stop):
                here = y * {width} + x
                if not mask[m + U(here)]:
                    continue
                root = here
                parents[here] = here
                size = 1
                for side in range({sides}):
                    down = 0 if side == 0 else 1
                    near_x = {near}
                    near_y = y - down
                    near = near_y * {width} + near_x
                    if near_y < 0 or near_x < 0 or near_x >= {width} or not mask[m + U(near)]:
                        continue
                    while parents[near] != near:
                        parents[near] = parents[parents[near]]
                        near = parents[near]
                    if near != root:
                        found -= 1 if sizes[near] >= {least} else 0
                        found -= 1 if root != here and size >= {least} else 0
                        size += sizes[near]
                        parents[root] = near
                        root = near
                        found += 1 if size >= {least} else 0
                sizes[root] = size
                found += 1 if root == here and size >= {least} else 0
    return found
"""
_OTSU_SPLIT: Final = """\
(counts, c):
    # the split of {length} places with the largest variance between the classes
    total = np.int64(0)
    moment = np.int64(0)
    for k in range({length}):
        total += counts[c + U(k)]
        moment += counts[c + U(k)] * k
    w0 = np.int64(0)
    m0 = np.int64(0)
    best, place = -1.0, np.int64(0)
    for k in range({length}):
        w0 += counts[c + U(k)]
        m0 += counts[c + U(k)] * k
        w1 = total - w0
        if w0 > 0 and w1 > 0:
            distance = np.float64(m0) / np.float64(w0) - np.float64(moment - m0) / np.float64(w1)
            between = ((np.float64(w0) * np.float64(w1)) * distance) * distance
            if between > best:
                best, place = between, np.int64(k)
    return place
"""


def _group_sum(node: Node) -> Routine:
    count, length = node.args[0].shape[0], node.attrs[0]
    dtype = dtypes.total(node.args[0].dtype)
    text = _GROUP_SUM.format(
        count=count,
        length=length,
        slots=length + 1,
        all_lanes=LANES * (length + 1),
        fours=f"{count} // {LANES}" if isinstance(count, Length) else count // LANES,
        rest=f"{count} % {LANES}" if isinstance(count, Length) else count % LANES,
        T=f"np.{dtype.name}",
    )
    return Routine(text, ((dtype, LANES * (length + 1)),))


def _groups_count(node: Node) -> Routine:
    """The neighbours that come before a pixel: left, above, and for 8 the two corners above."""
    connectivity, least = node.attrs
    height, width = node.args[0].shape
    number = np.dtype(np.int32 if height * width <= np.iinfo(np.int32).max else np.int64)
    near = "x - 1 if side == 0 else x" if connectivity == 4 else "x - 1 if side == 0 else x - 2 + side"
    text = _GROUPS_COUNT.format(
        height=height, width=width, least=least, block=_BLOCK, sides=2 if connectivity == 4 else 4, near=near
    )
    return Routine(text, ((number, height * width), (number, height * width)))


def _otsu_split(node: Node) -> Routine:
    return Routine(_OTSU_SPLIT.format(length=node.args[0].shape[0]))


ROUTINES: Final[dict[str, RoutineMaker]] = {
    "group_sum": _group_sum,
    "groups_count": _groups_count,
    "otsu_split": _otsu_split,
}
