"""Numbers as unsigned integers that sort as the numbers do: for selection by rank.

Order: ascending, -0.0 before 0.0, every NaN last (and made one NaN). Floats: the sign bit of positive numbers is set,
negative ones are inverted; signed integers: the sign bit is flipped (M. Herf, "Radix Tricks", 2001,
http://stereopsis.com/radix.html). Pure; any thread.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss.kernels.dtypes import DType

Array = npt.NDArray[Any]
_UNSIGNED: Final = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


def key_dtype(dtype: DType) -> DType:
    """Of the keys of numbers of `dtype`."""
    return _UNSIGNED[dtype.itemsize]


def sign_bit(dtype: DType) -> int:
    return 1 << (dtype.itemsize * 8 - 1)


def keys(values: Array) -> Array:
    """One key for each value."""
    key, top = key_dtype(values.dtype), key_dtype(values.dtype).type(sign_bit(values.dtype))
    bits: Array = np.ascontiguousarray(values).view(key).reshape(values.shape)
    if values.dtype.kind in "bu":
        return bits
    if values.dtype.kind == "i":
        return np.asarray(bits ^ top)
    return np.asarray(np.where(np.isnan(values), ~key.type(0), np.where(bits >= top, ~bits, bits | top)))


def values(keyed: Array, dtype: DType) -> Array:
    """The values of keys, in `dtype`."""
    key, top = key_dtype(dtype), key_dtype(dtype).type(sign_bit(dtype))
    if dtype.kind in "bu":
        bits = keyed
    elif dtype.kind == "i":
        bits = keyed ^ top
    else:
        bits = np.where(keyed >= top, keyed & ~top, ~keyed)
    return np.ascontiguousarray(bits, key).view(dtype).reshape(keyed.shape)
