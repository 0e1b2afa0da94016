"""Whole-array primitives that go through an index map: `take` and `bincount`.

Both take indices as int64. Constant; any thread.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss.kernels.arrays_rows import ArrayPrimitive, Attrs, Kind

Array = npt.NDArray[Any]


def _take_result(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    (dtype, (rows, _, inner)), (_, indices) = kinds
    return dtype, (rows, math.prod(indices), inner)


def _take(attrs: Attrs, values: Array, indices: Array) -> Array:
    """`values` (rows, count, inner) at `indices` of the middle axis, clipped into it."""
    return np.take(values, indices.reshape(-1), axis=1, mode="clip")


def _bincount_result(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    weights = kinds[1:]
    return (weights[0][0] if weights else np.dtype(np.int64)), attrs


def _bincount(attrs: Attrs, indices: Array, *weights: Array) -> Array:
    """How many indices, or which sum of weights (float64, in the order of the elements), fall on each of `attrs[0]`
    places; indices outside are dropped."""
    (length,) = attrs
    flat = indices.reshape(-1)
    good = (flat >= 0) & (flat < length)
    if not weights:
        return np.bincount(flat[good], minlength=length)
    return np.bincount(flat[good], weights[0].reshape(-1)[good], minlength=length)


ROWS: Final = (
    ArrayPrimitive("take", _take_result, _take, lambda kinds, attrs: 2 * math.prod(_take_result(kinds, attrs)[1])),
    ArrayPrimitive("bincount", _bincount_result, _bincount, lambda kinds, attrs: 4 * math.prod(kinds[0][1]) + attrs[0]),
)
