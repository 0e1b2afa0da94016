"""Small functions that generated Numba code calls: division, shifts and conversions that are defined everywhere.

`function(name)` gives the text of one of them; a generated file holds those that it uses, so that it depends on nothing
that could change under a cache. Their meaning is the interpreter's. Constant; any thread.

Sources: floor division and remainder of floats follow `npy_divmod` of NumPy (numpy/_core/src/npymath/npy_math_internal
.h.src), so that results are the same to the bit.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from hiss.kernels.dtypes import BOOL, DType

_INTEGER_DIVISION: Final = {
    "floor_divide": """
def {name}(a, b):
    if b == {T}(0):
        return {T}(0)
    {guard}return {T}(a // b)
""",
    "remainder": """
def {name}(a, b):
    if b == {T}(0):
        return {T}(0)
    {guard}return {T}(a % b)
""",
}
_GUARDS: Final = {  # the smallest integer divided by -1 traps in hardware; here it wraps
    "floor_divide": "if b == {T}(-1):\n        return {T}(-a)\n    ",
    "remainder": "if b == {T}(-1):\n        return {T}(0)\n    ",
}
_FLOAT_DIVISION: Final = {
    "remainder": """
def {name}(a, b):
    if b == {T}(0):
        return {T}(np.nan)
    r = {T}(np.fmod(np.float64(a), np.float64(b)))
    if r == {T}(0):
        return {T}(math.copysign(0.0, np.float64(b)))
    return {T}(r + b) if (b < {T}(0)) != (r < {T}(0)) else r
""",
    "floor_divide": """
def {name}(a, b):
    if b == {T}(0):
        return {T}(a / b)
    r = {T}(np.fmod(np.float64(a), np.float64(b)))
    d = {T}({T}(a - r) / b)
    if r != {T}(0) and (b < {T}(0)) != (r < {T}(0)):
        d = {T}(d - {T}(1))
    if d == {T}(0):
        return {T}(math.copysign(0.0, np.float64({T}(a / b))))
    f = {T}(np.floor(d))
    return {T}(f + {T}(1)) if {T}(d - f) > {T}(0.5) else f
""",
}
_SHIFTS: Final = {
    "left_shift": """
def {name}(a, b):
    r = {T}(a << (b & {T}({top})))
    return r if (b >= {T}(0)) & (b <= {T}({top})) else {T}(0)
""",
    "right_shift": """
def {name}(a, b):
    r = {T}(a >> (b & {T}({top})))
    return r if (b >= {T}(0)) & (b <= {T}({top})) else {beyond}
""",
}
_SATURATE_NARROW: Final = """
def {name}(v):
    w = {F}(v)
    w = w if w == w else {F}(0)
    w = w if w > {F}({low}) else {F}({low})
    w = w if w < {F}({high}) else {F}({high})
    return {T}({via}(w))
"""
_SATURATE_WIDE: Final = """
def {name}(v):
    w = np.float64(v)
    if w >= {high}:
        return {T}({top})
    if w <= {low}:
        return {T}({bottom})
    return {T}(w) if w == w else {T}(0)
"""


def call(operation: str, dtype: DType) -> str:
    """The name of the function for an operation on operands of `dtype`."""
    return f"{operation}_{dtype.str[1:]}"


def function(name: str) -> str:
    """The text of the function called `name`, as `call` or `conversion` made it."""
    operation, _, code = name.rpartition("_")
    dtype = np.dtype(code)
    names = {"name": name, "T": f"np.{dtype.name}"}
    if operation.startswith("saturate_"):
        return _saturate(name, np.dtype(operation.removeprefix("saturate_")), dtype)
    if operation in _SHIFTS:
        beyond = "{T}(-1) if a < {T}(0) else {T}(0)" if dtype.kind == "i" else "{T}(0)"
        return _SHIFTS[operation].format(top=dtype.itemsize * 8 - 1, beyond=beyond.format(**names), **names)
    if dtype.kind == "f":
        return _FLOAT_DIVISION[operation].format(**names)
    guard = _GUARDS[operation].format(**names) if dtype.kind == "i" else ""
    return _INTEGER_DIVISION[operation].format(guard=guard, **names)


def _saturate(name: str, source: DType, target: DType) -> str:
    bounds = np.iinfo(target)
    cls = f"np.{target.name}"
    if target.itemsize == 8:
        return _SATURATE_WIDE.format(
            name=name, T=cls, high=float(bounds.max), low=float(bounds.min), top=bounds.max, bottom=bounds.min
        )
    working = "np.float64" if target.itemsize == 4 else f"np.{source.name}"  # in which the bounds are exact
    via = "np.int64" if target == np.uint32 else "np.int32"
    return _SATURATE_NARROW.format(name=name, T=cls, F=working, low=float(bounds.min), high=float(bounds.max), via=via)


def conversion(source: DType, target: DType, operand: str) -> tuple[str, str | None]:
    """The expression that converts an operand, and the function that it calls, if any."""
    if target == BOOL:
        return f"{operand} != np.{source.name}(0)", None
    if source.kind == "f" and target.kind in "iu":
        name = f"saturate_{source.str[1:]}_{target.str[1:]}"
        return f"{name}({operand})", name
    return f"np.{target.name}({operand})", None
