"""Whole-array primitives in which each result needs the one before: the first-order recursive filter.

    recursive     operands values (outer, count, inner) and b0, b1, a1 (single), all float64: along the middle axis
                  y[0] = b0 * x[0], y[k] = (b0 * x[k] + b1 * x[k - 1]) + a1 * y[k - 1]

Constant; any thread.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss.kernels.arrays_rows import ArrayPrimitive, Attrs, Kind

Array = npt.NDArray[Any]


def _same(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    return kinds[0]


def _recursive(attrs: Attrs, values: Array, b0: Array, b1: Array, a1: Array) -> Array:
    found = b0 * values
    for k in range(1, values.shape[1]):
        found[:, k] = (b0 * values[:, k] + b1 * values[:, k - 1]) + a1 * found[:, k - 1]
    return np.asarray(found)


ROWS: Final = (ArrayPrimitive("recursive", _same, _recursive, lambda kinds, attrs: 8 * math.prod(kinds[0][1])),)
