"""How Numba's Python says each pointwise primitive, conversion and number.

Numba's own promotion differs from NumPy's, so every integer result is cast back to its dtype. In a template `{T}` is
the operand's class (`np.uint16`), `{D}` its code (`u2`), `{0}` to `{2}` the operands. A row maps a dtype (`f4`) or its
kind to a template; what is missing takes the entry `""`. The entry `"number"` is for floats whose second operand is a
literal and no NaN, where that is simpler. `exp2` and `log2` are computed in float64, since Numba 0.68 cannot compile
one function that calls them for both floats. Constant; any thread.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from hiss.kernels.dtypes import BOOL, DType
from hiss.kernels.lengths import Length
from hiss.kernels.primitives import PRIMITIVES


def _same(template: str) -> dict[str, str]:
    return {"": template}


def _wrapping(template: str) -> dict[str, str]:
    """Of int64 taken unsigned: Numba tells LLVM that signed sums do not overflow, and comparisons of them go wrong.

    Narrower integers are computed in int64, where theirs do not.
    """
    return {"": template, "i8": template.format("U({0})", "U({1})")}


NUMBA: Final[dict[str, dict[str, str]]] = {
    "add": _wrapping("{0} + {1}"),
    "subtract": _wrapping("{0} - {1}"),
    "multiply": _wrapping("{0} * {1}"),
    "divide": _same("{0} / {1}"),
    "floor_divide": _same("floor_divide_{D}({0}, {1})"),
    "remainder": _same("remainder_{D}({0}, {1})"),
    "power": _same("{0} ** {1}"),
    "negative": {"": "-{0}", "u": "{T}(0) - {0}", "i8": "U(0) - U({0})"},
    "absolute": {
        "i": "-{0} if {0} < {T}(0) else {0}",
        "i8": "np.int64(U(0) - U({0})) if {0} < {T}(0) else {0}",
        "u": "{0}",
        "f": "abs({0})",
    },
    "sign": {
        "u": "{T}({0} > {T}(0))",
        "i": "{T}({0} > {T}(0)) - {T}({0} < {T}(0))",
        "f": "{0} if {0} != {0} else {T}({0} > {T}(0)) - {T}({0} < {T}(0))",
    },
    "bitwise_and": _same("{0} & {1}"),
    "bitwise_or": _same("{0} | {1}"),
    "bitwise_xor": _same("{0} ^ {1}"),
    "invert": {"": "~{0}", "b": "not {0}"},
    "left_shift": _same("left_shift_{D}({0}, {1})"),
    "right_shift": _same("right_shift_{D}({0}, {1})"),
    "less": _same("{0} < {1}"),
    "less_equal": _same("{0} <= {1}"),
    "equal": _same("{0} == {1}"),
    "not_equal": _same("{0} != {1}"),
    "isnan": _same("{0} != {0}"),
    "isfinite": _same("abs({0}) < {T}(np.inf)"),
    "isinf": _same("abs({0}) == {T}(np.inf)"),
    "where": _same("{1} if {0} else {2}"),
    "minimum": {
        "": "{0} if {0} < {1} else {1}",
        "f": "{0} if ({0} < {1}) | ({0} != {0}) else {1}",
        "number": "{1} if {0} > {1} else {0}",
    },
    "maximum": {
        "": "{0} if {0} > {1} else {1}",
        "f": "{0} if ({0} > {1}) | ({0} != {0}) else {1}",
        "number": "{1} if {0} < {1} else {0}",
    },
    "sqrt": _same("np.sqrt({0})"),
    "floor": _same("np.floor({0})"),
    "ceil": _same("np.ceil({0})"),
    "trunc": _same("np.trunc({0})"),
    "rint": _same("np.rint({0})"),
    "exp": {"": "np.exp({0})", "f4": "exp_f4({0})"},
    "exp2": {"": "np.exp2({0})", "f4": "np.exp2(np.float64({0}))"},
    "expm1": _same("np.expm1({0})"),
    "log": {"": "np.log({0})", "f4": "log_f4({0})"},
    "log2": {"": "np.log2({0})", "f4": "np.log2(np.float64({0}))"},
    "log10": _same("np.log10({0})"),
    "log1p": _same("np.log1p({0})"),
    "sin": _same("np.sin({0})"),
    "cos": _same("np.cos({0})"),
    "tan": _same("np.tan({0})"),
    "arctan": _same("np.arctan({0})"),
    "arctan2": _same("np.arctan2({0}, {1})"),
    "hypot": _same("np.hypot({0}, {1})"),
    "sinh": _same("np.sinh({0})"),
    "cosh": _same("np.cosh({0})"),
    "tanh": _same("np.tanh({0})"),
}
assert NUMBA.keys() == PRIMITIVES.keys()


def printed(name: str, dtype: DType, operands: list[str]) -> str:
    """The expression of a primitive; `dtype` is that of the (last) operand."""
    templates = NUMBA[name]
    kind: str = dtype.kind
    if "number" in templates and kind == "f" and operands[1].startswith("np.") and "nan" not in operands[1]:
        kind = "number"
    template = templates.get(dtype.str[1:], templates.get(kind, templates.get("")))
    assert template is not None, f"{name} is not printed for {dtype}"
    text = template.format(*operands, T=f"np.{np.dtype(dtype).name}", D=np.dtype(dtype).str[1:])
    return text if dtype.kind == "b" or PRIMITIVES[name].truth else f"np.{dtype.name}({text})"


def literal(value: float, dtype: DType) -> str:
    """A number as Numba source, of exactly this dtype."""
    if dtype == BOOL:
        return repr(bool(value))
    if dtype.kind in "iu":
        return f"np.{dtype.name}({int(value)})"
    text = {math.inf: "np.inf", -math.inf: "-np.inf"}.get(value, repr(float(value)))
    return f"np.{dtype.name}({'np.nan' if math.isnan(value) else text})"


def unsigned(value: int) -> str:
    """An index or size."""
    return f"U({value})" if isinstance(value, Length) else f"U({value % (1 << 64)})"
