"""Whole-array primitives of neighbourhoods: median, extremes, mean and weighted sums over a window around each pixel.

Operands have three axes, (outer, height, width); each outer plane is worked on by itself. A window has an odd number of
rows and of columns, its middle on the pixel. `attrs` end with the edge mode, which says what lies beyond the
edges, in SciPy's words:

    reflect   c b a | a b c      the edge pixel twice
    mirror    d c b | a b c d    about the edge pixel
    nearest   a a a | a b c      the edge pixel
    wrap      x y z | a b c … x y z | a b c

    window_median     attrs rows, columns, mode: the middle of the sorted window (`sort_keys`: a NaN is the largest)
    window_minimum    attrs rows, columns, mode: the smallest; NaN where there is one
    window_maximum    attrs rows, columns, mode: the largest; NaN where there is one
    window_mean       attrs rows, columns, mode: sums of columns, top to bottom, added up left to right, in 64 bits
                      (floats in float64); divided in float64 by the number of pixels
    window_separable  attrs weights of the rows, weights of the columns, mode: float64; each column's products added
                      top to bottom, then those of the sums left to right
    window_correlate  operands values, weights (rows, columns) of float64; attrs rows, columns, mode: products in
                      float64 added row by row

The last three give float32 or float64, as `dtypes.inexact` has it. Constant; any thread.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss.kernels import dtypes, sort_keys
from hiss.kernels.arrays_rows import ArrayPrimitive, Attrs, Kind
from hiss.kernels.dtypes import F64

Array = npt.NDArray[Any]
MODES: Final = ("reflect", "mirror", "nearest", "wrap")
_CHUNK_BYTES: Final = 1 << 25  # of windows that are laid out at once


def source(index: int, size: int, mode: str) -> int:
    """The pixel within `size` that stands for the one at `index`, which may lie beyond the edges."""
    if mode == "nearest" or size == 1:
        return min(max(index, 0), size - 1)
    if mode == "wrap":
        return index % size
    period = 2 * size if mode == "reflect" else 2 * size - 2
    index %= period
    return index if index < size else period - (mode == "reflect") - index


def _padded(values: Array, rows: int, columns: int, mode: str) -> Array:
    """The planes with what lies beyond the edges."""
    _, height, width = values.shape
    above = [source(y, height, mode) for y in range(-(rows // 2), height + rows // 2)]
    aside = [source(x, width, mode) for x in range(-(columns // 2), width + columns // 2)]
    return values[:, above][:, :, aside]


def _same(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    return kinds[0]


def _inexact(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    return dtypes.inexact(kinds[0][0]), kinds[0][1]


def _median(attrs: Attrs, values: Array) -> Array:
    rows, columns, mode = attrs
    keyed = sort_keys.keys(_padded(values, rows, columns, mode))
    windows = np.lib.stride_tricks.sliding_window_view(keyed, (rows, columns), (1, 2))
    found = np.empty(values.shape, keyed.dtype)
    count, middle = rows * columns, rows * columns // 2
    step = max(1, _CHUNK_BYTES // (values.shape[0] * values.shape[2] * count * keyed.itemsize))
    for first in range(0, values.shape[1], step):
        laid = windows[:, first : first + step].reshape(*found[:, first : first + step].shape, count)
        found[:, first : first + step] = np.partition(laid, middle, axis=-1)[..., middle]
    return sort_keys.values(found, values.dtype)


def _joined(ufunc: Callable[[Array, Array], Array], parts: list[Array]) -> Array:
    return functools.reduce(ufunc, parts)


def _over(ufunc: Callable[[Array, Array], Array], padded: Array, rows: int, columns: int) -> Array:
    """Join the rows of each window, top to bottom, then the columns, left to right."""
    height, width = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
    lines = _joined(ufunc, [padded[:, k : k + height] for k in range(rows)])
    return _joined(ufunc, [lines[:, :, k : k + width] for k in range(columns)])


def _extreme(ufunc: np.ufunc) -> Callable[..., Array]:
    def meaning(attrs: Attrs, values: Array) -> Array:
        rows, columns, mode = attrs
        return _over(ufunc, _padded(values, rows, columns, mode), rows, columns)

    return meaning


def _mean(attrs: Attrs, values: Array) -> Array:
    rows, columns, mode = attrs
    wide = values.astype(dtypes.total(values.dtype))
    sums = _over(np.add, _padded(wide, rows, columns, mode), rows, columns).astype(F64)
    return np.asarray(sums / (rows * columns), dtypes.inexact(values.dtype))


def _separable(attrs: Attrs, values: Array) -> Array:
    down, across, mode = attrs
    padded = _padded(values.astype(F64), len(down), len(across), mode)
    height, width = values.shape[1:]
    lines = _joined(np.add, [padded[:, k : k + height] * weight for k, weight in enumerate(down)])
    found = _joined(np.add, [lines[:, :, k : k + width] * weight for k, weight in enumerate(across)])
    return np.asarray(found, dtypes.inexact(values.dtype))


def _correlate(attrs: Attrs, values: Array, weights: Array) -> Array:
    rows, columns, mode = attrs
    padded = _padded(values.astype(F64), rows, columns, mode)
    height, width = values.shape[1:]
    places = [(i, j) for i in range(rows) for j in range(columns)]
    products = [padded[:, i : i + height, j : j + width] * weights.reshape(rows, columns)[i, j] for i, j in places]
    return _joined(np.add, products).astype(dtypes.inexact(values.dtype))


def _cost(each: Callable[[Attrs], int]) -> Callable[[tuple[Kind, ...], Attrs], int]:
    return lambda kinds, attrs: math.prod(kinds[0][1]) * each(attrs)


ROWS: Final = (
    ArrayPrimitive("window_median", _same, _median, _cost(lambda attrs: 4 * attrs[0] * attrs[1])),
    ArrayPrimitive("window_minimum", _same, _extreme(np.minimum), _cost(lambda attrs: attrs[0] + attrs[1])),
    ArrayPrimitive("window_maximum", _same, _extreme(np.maximum), _cost(lambda attrs: attrs[0] + attrs[1])),
    ArrayPrimitive("window_mean", _inexact, _mean, _cost(lambda attrs: 4 + attrs[0] + attrs[1])),
    ArrayPrimitive("window_separable", _inexact, _separable, _cost(lambda attrs: 2 * (len(attrs[0]) + len(attrs[1])))),
    ArrayPrimitive("window_correlate", _inexact, _correlate, _cost(lambda attrs: 2 * attrs[0] * attrs[1])),
)
