"""The table of primitives: what a typed kernel is made of. One row gives an operation everywhere.

A row holds the kinds of dtype that it takes, the dtype of its result, its meaning in NumPy, how the Numba back end
prints it, its cost, and whether back ends agree to the bit or to 4 ulp (units in the last place). Operands come in one
dtype (`where`: a bool first), already converted and of one shape. `VERSION` is part of every kernel's identity:
raise it when a row's meaning changes. Constant after import; any thread.

Numba's own promotion differs from NumPy's, so every printed integer result is cast back to its dtype; `{T}` in a
template is the operand's class (`np.uint16`), `{0}` to `{2}` the operands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hiss.kernels.dtypes import BOOL, DType

VERSION: Final = 1
ULP_MAX: Final = 4  # between back ends, for a row that is not exact


@dataclass(frozen=True, slots=True)
class Primitive:
    """One row. `numba` maps a dtype (`f4`) or its kind to a template; what is missing takes the entry `""`.

    The entry `"number"` is for floats whose second operand is a literal and no NaN, where that is simpler.
    """

    name: str
    arity: int
    kinds: str  # of the operands: b bool, i signed, u unsigned, f float
    numpy: Callable[..., Any]
    numba: dict[str, str]
    cost: int = 1  # relative to an addition
    truth: bool = False  # the result is bool, whatever the operands
    exact: bool = True

    def result(self, dtypes: tuple[DType, ...]) -> DType | None:
        """The result's dtype, or None where operands of these dtypes do not fit."""
        first, *rest = dtypes[1:] if self.name == "where" else dtypes
        if any(dtype != first for dtype in rest) or first.kind not in self.kinds:
            return None
        if self.name == "where" and dtypes[0] != BOOL:
            return None
        return BOOL if self.truth else first

    def printed(self, dtype: DType, operands: list[str]) -> str:
        """The expression in Numba's Python; `dtype` is that of the (last) operand."""
        kind: str = dtype.kind
        if "number" in self.numba and kind == "f" and operands[1].startswith("np.") and "nan" not in operands[1]:
            kind = "number"
        template = self.numba.get(dtype.str[1:], self.numba.get(kind, self.numba.get("")))
        assert template is not None, f"{self.name} is not printed for {dtype}"
        text = template.format(*operands, T=f"np.{np.dtype(dtype).name}", D=np.dtype(dtype).str[1:])
        return text if dtype.kind == "b" or self.truth else f"np.{dtype.name}({text})"


def _same(template: str) -> dict[str, str]:
    return {"": template}


_POINT: Final = (
    # arithmetic; integers wrap
    Primitive("add", 2, "iuf", np.add, _same("{0} + {1}")),
    Primitive("subtract", 2, "iuf", np.subtract, _same("{0} - {1}")),
    Primitive("multiply", 2, "iuf", np.multiply, _same("{0} * {1}")),
    Primitive("divide", 2, "f", np.divide, _same("{0} / {1}"), cost=4),
    Primitive("floor_divide", 2, "iuf", np.floor_divide, _same("floor_divide_{D}({0}, {1})"), cost=16),
    Primitive("remainder", 2, "iuf", np.remainder, _same("remainder_{D}({0}, {1})"), cost=16),
    Primitive("power", 2, "f", np.power, _same("{0} ** {1}"), cost=60, exact=False),
    Primitive("negative", 1, "iuf", np.negative, {"": "-{0}", "u": "{T}(0) - {0}"}),
    Primitive("absolute", 1, "iuf", np.absolute, {"i": "-{0} if {0} < {T}(0) else {0}", "u": "{0}", "f": "abs({0})"}),
    Primitive(
        "sign",
        1,
        "iuf",
        np.sign,
        {
            "u": "{T}({0} > {T}(0))",
            "i": "{T}({0} > {T}(0)) - {T}({0} < {T}(0))",
            "f": "{0} if {0} != {0} else {T}({0} > {T}(0)) - {T}({0} < {T}(0))",
        },
        cost=2,
    ),
    # bits; a shift by the width or more, or by a negative count, gives 0, or -1 for a negative number shifted right
    Primitive("bitwise_and", 2, "biu", np.bitwise_and, _same("{0} & {1}")),
    Primitive("bitwise_or", 2, "biu", np.bitwise_or, _same("{0} | {1}")),
    Primitive("bitwise_xor", 2, "biu", np.bitwise_xor, _same("{0} ^ {1}")),
    Primitive("invert", 1, "biu", np.invert, {"": "~{0}", "b": "not {0}"}),
    Primitive("left_shift", 2, "iu", np.left_shift, _same("left_shift_{D}({0}, {1})"), cost=2),
    Primitive("right_shift", 2, "iu", np.right_shift, _same("right_shift_{D}({0}, {1})"), cost=2),
    # comparison
    Primitive("less", 2, "biuf", np.less, _same("{0} < {1}"), truth=True),
    Primitive("less_equal", 2, "biuf", np.less_equal, _same("{0} <= {1}"), truth=True),
    Primitive("equal", 2, "biuf", np.equal, _same("{0} == {1}"), truth=True),
    Primitive("not_equal", 2, "biuf", np.not_equal, _same("{0} != {1}"), truth=True),
    Primitive("isnan", 1, "f", np.isnan, _same("{0} != {0}"), truth=True),
    Primitive("isfinite", 1, "f", np.isfinite, _same("abs({0}) < {T}(np.inf)"), truth=True),
    Primitive("isinf", 1, "f", np.isinf, _same("abs({0}) == {T}(np.inf)"), truth=True),
    # choice; a NaN wins
    Primitive("where", 3, "biuf", np.where, _same("{1} if {0} else {2}")),
    Primitive(
        "minimum",
        2,
        "iuf",
        np.minimum,
        {
            "": "{0} if {0} < {1} else {1}",
            "f": "{0} if ({0} < {1}) | ({0} != {0}) else {1}",
            "number": "{1} if {0} > {1} else {0}",
        },
    ),
    Primitive(
        "maximum",
        2,
        "iuf",
        np.maximum,
        {
            "": "{0} if {0} > {1} else {1}",
            "f": "{0} if ({0} > {1}) | ({0} != {0}) else {1}",
            "number": "{1} if {0} < {1} else {0}",
        },
    ),
    # exact functions of floats
    Primitive("sqrt", 1, "f", np.sqrt, _same("np.sqrt({0})"), cost=6),
    Primitive("floor", 1, "f", np.floor, _same("np.floor({0})"), cost=2),
    Primitive("ceil", 1, "f", np.ceil, _same("np.ceil({0})"), cost=2),
    Primitive("trunc", 1, "f", np.trunc, _same("np.trunc({0})"), cost=2),
    Primitive("rint", 1, "f", np.rint, _same("np.rint({0})"), cost=2),
    # transcendental functions: within ULP_MAX of each other
    Primitive("exp", 1, "f", np.exp, {"": "np.exp({0})", "f4": "exp_f4({0})"}, cost=30, exact=False),
    Primitive("exp2", 1, "f", np.exp2, _same("np.exp2({0})"), cost=30, exact=False),
    Primitive("expm1", 1, "f", np.expm1, _same("np.expm1({0})"), cost=40, exact=False),
    Primitive("log", 1, "f", np.log, {"": "np.log({0})", "f4": "log_f4({0})"}, cost=30, exact=False),
    Primitive("log2", 1, "f", np.log2, _same("np.log2({0})"), cost=30, exact=False),
    Primitive("log10", 1, "f", np.log10, _same("np.log10({0})"), cost=30, exact=False),
    Primitive("log1p", 1, "f", np.log1p, _same("np.log1p({0})"), cost=40, exact=False),
    Primitive("sin", 1, "f", np.sin, _same("np.sin({0})"), cost=40, exact=False),
    Primitive("cos", 1, "f", np.cos, _same("np.cos({0})"), cost=40, exact=False),
    Primitive("tan", 1, "f", np.tan, _same("np.tan({0})"), cost=60, exact=False),
    Primitive("arctan", 1, "f", np.arctan, _same("np.arctan({0})"), cost=40, exact=False),
    Primitive("arctan2", 2, "f", np.arctan2, _same("np.arctan2({0}, {1})"), cost=60, exact=False),
    Primitive("hypot", 2, "f", np.hypot, _same("np.hypot({0}, {1})"), cost=20, exact=False),
    Primitive("sinh", 1, "f", np.sinh, _same("np.sinh({0})"), cost=60, exact=False),
    Primitive("cosh", 1, "f", np.cosh, _same("np.cosh({0})"), cost=60, exact=False),
    Primitive("tanh", 1, "f", np.tanh, _same("np.tanh({0})"), cost=60, exact=False),
)
PRIMITIVES: Final[dict[str, Primitive]] = {primitive.name: primitive for primitive in _POINT}


@dataclass(frozen=True, slots=True)
class Reduction:
    """How a reduction joins two values of its dtype, and where it starts.

    `ordered` ones follow the stated order over the reduced elements (row-major): element k goes to lane k mod `LANES`,
    each lane is joined in order from `start`, then lanes j and j + w are joined for w = 32, 16, 8, 4, 2, 1.
    """

    name: str
    join: str  # the primitive that joins
    ordered_kinds: str  # kinds of dtype for which the order shows
    start: int | None  # None: the first element


LANES: Final = 64
REDUCTIONS: Final[dict[str, Reduction]] = {
    row.name: row
    for row in (
        Reduction("sum", "add", "f", 0),
        Reduction("prod", "multiply", "f", 1),
        Reduction("min", "minimum", "", None),
        Reduction("max", "maximum", "", None),
    )
}
assert not set(PRIMITIVES) & set(REDUCTIONS)
