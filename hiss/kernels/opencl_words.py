"""What OpenCL C calls things: types, numbers, functions of floats, and the few helpers that its programs share.

A transcendental function of a float32 is computed in float64 and rounded: drivers may be off by 4 ulp and more in
single precision (table 38 of the specification), and so every device gives the same as the table promises. Constant;
any thread.

Source: The OpenCL C 1.2 specification, https://registry.khronos.org/OpenCL/specs/opencl-1.2.pdf.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from hiss.kernels.dtypes import BOOL, DType

C_TYPES: Final[dict[str, str]] = {
    "bool": "bool",
    "int8": "char",
    "int16": "short",
    "int32": "int",
    "int64": "long",
    "uint8": "uchar",
    "uint16": "ushort",
    "uint32": "uint",
    "uint64": "ulong",
    "float32": "float",
    "float64": "double",
}
RESERVED: Final = frozenset(
    [
        "auto",
        "bool",
        "break",
        "case",
        "char",
        "complex",
        "const",
        "constant",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "event_t",
        "extern",
        "float",
        "for",
        "global",
        "goto",
        "half",
        "if",
        "image2d_t",
        "image3d_t",
        "inline",
        "int",
        "kernel",
        "local",
        "long",
        "private",
        "quad",
        "read_only",
        "read_write",
        "register",
        "restrict",
        "return",
        "sampler_t",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "uchar",
        "uint",
        "ulong",
        "union",
        "unsigned",
        "ushort",
        "void",
        "volatile",
        "while",
        "write_only",
    ]
)
EXACT: Final = frozenset({"sqrt", "floor", "ceil", "trunc", "rint", "copysign", "fmod", "fabs"})
"""Functions whose result is the same on every device that `opencl_device` takes."""
FUNCTIONS: Final[dict[str, str]] = {
    **{name: name for name in ("sqrt", "floor", "ceil", "trunc", "rint", "copysign", "fmod", "hypot")},
    **{name: name for name in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow")},
    **{name: name for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "arctan": "atan",
    "arctan2": "atan2",
    "atan": "atan",
    "atan2": "atan2",
    "power": "pow",
    "fabs": "fabs",
}
HELPERS: Final[dict[str, str]] = {
    "floor_quotient": """\
long floor_quotient(const long a, const long b)
{
    const long q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}
""",
    "floor_remainder": """\
long floor_remainder(const long a, const long b)
{
    const long r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
""",
    "round_even_f4": """\
float round_even_f4(const float x)
{
    const float whole = (fabs(x) + 8388608.0f) - 8388608.0f; /* 2**23: the sum has no room for a fraction */
    return fabs(x) < 8388608.0f ? copysign(whole, x) : x;
}
""",
    "round_even_f8": """\
double round_even_f8(const double x)
{
    const double whole = (fabs(x) + 4503599627370496.0) - 4503599627370496.0; /* 2**52 */
    return fabs(x) < 4503599627370496.0 ? copysign(whole, x) : x;
}
""",
}
"""Integer division that rounds down, as Python's; rounding to even by the sum that vectorises everywhere."""


def c_type(dtype: DType) -> str:
    """Of a variable."""
    return C_TYPES[dtype.name]


def memory_type(dtype: DType) -> str:
    """Of an element of an array: a kernel's arguments cannot be of `bool`."""
    return "uchar" if dtype == BOOL else C_TYPES[dtype.name]


def number(value: float, dtype: DType) -> str:
    """A literal of exactly this dtype."""
    if dtype == BOOL:
        return "true" if value else "false"
    if dtype.kind == "f":
        return _real(float(value), dtype)
    whole = int(np.asarray(int(value) % (1 << 64), np.uint64).astype(dtype))
    match dtype.name:
        case "uint64":
            return f"{whole}UL" if whole < 1 << 63 else f"(ulong){number(whole - (1 << 64), np.dtype(np.int64))}"
        case "int64":
            return "LONG_MIN" if whole == -(1 << 63) else f"{whole}L"
        case "uint32":
            return f"{whole}u"
        case "int32":
            return "INT_MIN" if whole == -(1 << 31) else f"{whole}"
    return f"{whole}"  # smaller ones are int in every expression


def _real(value: float, dtype: DType) -> str:
    single = dtype.itemsize == 4
    if math.isnan(value):
        return "NAN" if single else "(double)NAN"
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}{'' if single else '(double)'}INFINITY"
    text = str(np.float32(value)) if single else repr(value)
    if single and math.isinf(float(text)):
        return f"{'-' if value < 0 else ''}INFINITY"
    text = text if any(mark in text for mark in ".e") else f"{text}.0"
    return f"{text}f" if single else text
