"""Whole-array primitives of selection: the elements that would stand at given ranks if an axis were sorted.

The operand has three axes, (outer, count, inner), and the middle one is looked along; order is that of `sort_keys`
(ascending, -0.0 before 0.0, NaN last).

    ranked         attrs: the ranks, ascending, each from 0 to count - 1
    ranked_by      operands values, ranks (outer, 1, inner) of int64: one rank for each; clipped into 0 … count - 1

Results are (outer, number of ranks, inner), of the values' dtype. Constant; any thread.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss.kernels import sort_keys
from hiss.kernels.arrays_rows import ArrayPrimitive, Attrs, Kind

Array = npt.NDArray[Any]


def _ranked_result(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    dtype, (outer, _, inner) = kinds[0]
    return dtype, (outer, len(attrs), inner)


def _ranked(attrs: Attrs, values: Array) -> Array:
    keyed = np.partition(sort_keys.keys(values), attrs, axis=1)[:, list(attrs)]
    return sort_keys.values(keyed, values.dtype)


def _ranked_by_result(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    return kinds[0][0], kinds[1][1]


def _ranked_by(attrs: Attrs, values: Array, ranks: Array) -> Array:
    keyed = np.sort(sort_keys.keys(values), axis=1)
    places = np.clip(ranks, 0, values.shape[1] - 1)
    return sort_keys.values(np.take_along_axis(keyed, places, axis=1), values.dtype)


def _cost(kinds: tuple[Kind, ...], attrs: Attrs) -> int:
    """Of a search by halves: one look at each element for each bit, vectorised."""
    dtype, shape = kinds[0]
    return math.prod(shape) * dtype.itemsize * max(1, len(attrs))


ROWS: Final = (
    ArrayPrimitive("ranked", _ranked_result, _ranked, _cost),
    ArrayPrimitive("ranked_by", _ranked_by_result, _ranked_by, _cost),
)
