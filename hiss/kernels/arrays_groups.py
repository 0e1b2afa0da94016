"""Whole-array primitives of groups of pixels: sums through an index map, connected groups, the threshold of Otsu.

    group_sum     operands values (n,), index (n,) of an unsigned dtype, each at most `length`; attrs length: the sum
                  of the values of each group 0 … length - 1; those with the index `length` are dropped. Integers in
                  64 bits. Floats in float64 in one order: element k goes to lane k mod 4, each lane is added
                  up from 0.0 in order, and the four lanes are (0 + 2) + (1 + 3).
    groups_count  operand mask (height, width) of bools; attrs connectivity (4: pixels that share an edge; 8: or a
                  corner), least: how many connected groups have at least `least` pixels; int64, no axes
    otsu_split    operand counts (n,) of int64, none below 0: the place t below n - 1 for which splitting into places
                  up to t and above t makes the variance between the two classes largest, the first of several; 0
                  where one class is always empty; int64, no axes. With w0, m0 the sums of counts and of
                  place * count up to t, W, M those of all (exact, int64), it is in float64
                  ((w0 * w1) * d) * d, where w1 = W - w0 and d = m0 / w0 - (M - m0) / w1.

Constant; any thread.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss.kernels import dtypes
from hiss.kernels.arrays_rows import ArrayPrimitive, Attrs, Kind
from hiss.kernels.dtypes import F64, I64

Array = npt.NDArray[Any]
LANES: Final = 4


def _group_sum_result(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    return dtypes.total(kinds[0][0]), attrs


def _group_sum(attrs: Attrs, values: Array, index: Array) -> Array:
    (length,) = attrs
    lanes = np.zeros((LANES, length + 1), dtypes.total(values.dtype))
    for k in range(LANES):
        lane: Array = lanes[k]
        np.add.at(lane, index[k::LANES], values[k::LANES].astype(lane.dtype))
    return np.asarray(((lanes[0] + lanes[2]) + (lanes[1] + lanes[3]))[:length])


def _one_integer(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    return I64, ()


def _groups_count(attrs: Attrs, mask: Array) -> Array:
    """Each pixel takes the smallest number among its group's: along edges between neighbours, then by short cuts."""
    connectivity, least = attrs
    height, width = mask.shape
    places = np.flatnonzero(mask)
    number = np.full(mask.shape, -1)
    number.reshape(-1)[places] = np.arange(len(places))
    steps = ((0, 1), (1, 0)) if connectivity == 4 else ((0, 1), (1, 0), (1, 1), (1, -1))
    first, second = [], []
    for down, right in steps:
        here = number[: height - down, max(0, -right) : width - max(0, right)]
        there = number[down:, max(0, right) : width - max(0, -right)]
        both = (here >= 0) & (there >= 0)
        first.append(here[both])
        second.append(there[both])
    one, two = np.concatenate(first), np.concatenate(second)
    roots = np.arange(len(places))
    while True:
        smaller = np.minimum(roots[one], roots[two])
        joined = roots.copy()
        np.minimum.at(joined, roots[one], smaller)
        np.minimum.at(joined, roots[two], smaller)
        joined = joined[joined]
        if np.array_equal(joined, roots):
            break
        roots = joined
    return np.asarray(np.count_nonzero(np.bincount(roots, minlength=1) >= least))


def _otsu_split(attrs: Attrs, counts: Array) -> Array:
    w0, m0 = np.cumsum(counts), np.cumsum(counts * np.arange(len(counts)))
    w1, m1 = w0[-1] - w0, m0[-1] - m0
    good = (w0 > 0) & (w1 > 0)
    if not good.any():
        return np.asarray(0)
    distance = m0 / w0.astype(F64) - m1 / w1.astype(F64)
    between = ((w0.astype(F64) * w1.astype(F64)) * distance) * distance
    return np.asarray(np.argmax(np.where(good, between, -1.0)))


ROWS: Final = (
    ArrayPrimitive("group_sum", _group_sum_result, _group_sum, lambda kinds, attrs: 4 * kinds[0][1][0] + attrs[0]),
    ArrayPrimitive("groups_count", _one_integer, _groups_count, lambda kinds, attrs: 8 * math.prod(kinds[0][1])),
    ArrayPrimitive("otsu_split", _one_integer, _otsu_split, lambda kinds, attrs: 12 * kinds[0][1][0]),
)
