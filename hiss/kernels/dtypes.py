"""The element types of the kernel language and how they combine: NumPy 2's rules (NEP 50), written out.

A value is *strong* (an array, a NumPy scalar: it has a dtype) or *weak* (a Python scalar: it takes the dtype of its
partners, and only its kind counts). Pure functions; any thread.

Source: https://numpy.org/neps/nep-0050-scalar-promotion.html. One difference: where NumPy takes an 8-bit integer or
bool to float16 (`np.sqrt(uint8)`), the language, which has no float16, takes it to float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

DType = np.dtype[Any]

BOOL: Final = np.dtype(np.bool_)
I64: Final = np.dtype(np.int64)
U64: Final = np.dtype(np.uint64)
F32: Final = np.dtype(np.float32)
F64: Final = np.dtype(np.float64)

SUPPORTED: Final[dict[str, DType]] = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float32", "float64"),
    )
}
SPELLINGS: Final[dict[str, DType]] = SUPPORTED | {
    "bool_": BOOL,
    "intp": I64,
    "uintp": U64,
    "double": F64,
    "single": F32,
}
"""The names that a dtype has after `np.`, or as a text where a dtype is expected."""


def supported(dtype: DType) -> DType | None:
    """The native form of `dtype` if the language has it."""
    native = dtype.newbyteorder("=")
    return SUPPORTED.get(native.name) if native.kind in "biuf" else None


def promote(dtypes: Iterable[DType], weak: Iterable[type]) -> DType:
    """The dtype in which values of `dtypes` meet Python scalars of the classes `weak`."""
    strong = list(dtypes)
    classes = list(weak)
    if bool in classes:  # a Python bool is as strong as np.bool
        strong.append(BOOL)
    if not strong:
        return F64 if float in classes else I64
    result = np.result_type(*strong)
    if float in classes and result.kind != "f":
        return F64
    if int in classes and result.kind == "b":
        return I64
    return result


def inexact(dtype: DType) -> DType:
    """Where `sqrt`, `exp` and their like are computed: float32 up to 16-bit integers, else float64."""
    if dtype.kind == "f":
        return dtype
    return F32 if dtype.itemsize <= 2 else F64


def total(dtype: DType) -> DType:
    """In which integers and bools are summed: 64 bits of their signedness. Floats are summed in float64."""
    if dtype.kind == "f":
        return F64
    return U64 if dtype.kind == "u" else I64


def default(value: bool | int | float) -> DType:
    """What a Python scalar becomes when nothing else decides."""
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, float):
        return F64
    return U64 if value > np.iinfo(np.int64).max else I64


def holds(dtype: DType, value: int | float) -> bool:
    """Whether `dtype` can hold the Python integer `value`; floats and bools hold anything that is cast to them."""
    if dtype.kind not in "iu" or isinstance(value, float):
        return True
    bounds = np.iinfo(dtype)
    return bounds.min <= value <= bounds.max
