"""The table of primitives: what a typed kernel is made of. One row gives an operation everywhere.

A row holds the kinds of dtype that it takes, the dtype of its result, its meaning in NumPy, its cost, and whether back
ends agree to the bit or to 4 ulp (units in the last place). Operands come in one dtype (`where`: a bool first),
already converted and of one shape. How a back end prints a row stands in that back end's own table (`numba_operations`
and its like). Primitives of whole arrays are in `arrays`. `VERSION` is part of every kernel's identity: raise it when
a row's meaning changes. Constant after import; any thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hiss.kernels.dtypes import BOOL, DType

VERSION: Final = 1
ULP_MAX: Final = 4  # between back ends, for a row that is not exact


@dataclass(frozen=True, slots=True)
class Primitive:
    """One row."""

    name: str
    arity: int
    kinds: str  # of the operands: b bool, i signed, u unsigned, f float
    numpy: Callable[..., Any]
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


_POINT: Final = (
    # arithmetic; integers wrap
    Primitive("add", 2, "iuf", np.add),
    Primitive("subtract", 2, "iuf", np.subtract),
    Primitive("multiply", 2, "iuf", np.multiply),
    Primitive("divide", 2, "f", np.divide, cost=4),
    Primitive("floor_divide", 2, "iuf", np.floor_divide, cost=16),
    Primitive("remainder", 2, "iuf", np.remainder, cost=16),
    Primitive("power", 2, "f", np.power, cost=60, exact=False),
    Primitive("negative", 1, "iuf", np.negative),
    Primitive("absolute", 1, "iuf", np.absolute),
    Primitive("sign", 1, "iuf", np.sign, cost=2),
    # bits; a shift by the width or more, or by a negative count, gives 0, or -1 for a negative number shifted right
    Primitive("bitwise_and", 2, "biu", np.bitwise_and),
    Primitive("bitwise_or", 2, "biu", np.bitwise_or),
    Primitive("bitwise_xor", 2, "biu", np.bitwise_xor),
    Primitive("invert", 1, "biu", np.invert),
    Primitive("left_shift", 2, "iu", np.left_shift, cost=2),
    Primitive("right_shift", 2, "iu", np.right_shift, cost=2),
    # comparison
    Primitive("less", 2, "biuf", np.less, truth=True),
    Primitive("less_equal", 2, "biuf", np.less_equal, truth=True),
    Primitive("equal", 2, "biuf", np.equal, truth=True),
    Primitive("not_equal", 2, "biuf", np.not_equal, truth=True),
    Primitive("isnan", 1, "f", np.isnan, truth=True),
    Primitive("isfinite", 1, "f", np.isfinite, truth=True),
    Primitive("isinf", 1, "f", np.isinf, truth=True),
    # choice; a NaN wins
    Primitive("where", 3, "biuf", np.where),
    Primitive("minimum", 2, "iuf", np.minimum),
    Primitive("maximum", 2, "iuf", np.maximum),
    # exact functions of floats
    Primitive("sqrt", 1, "f", np.sqrt, cost=6),
    Primitive("floor", 1, "f", np.floor, cost=2),
    Primitive("ceil", 1, "f", np.ceil, cost=2),
    Primitive("trunc", 1, "f", np.trunc, cost=2),
    Primitive("rint", 1, "f", np.rint, cost=2),
    # transcendental functions: within ULP_MAX of each other
    Primitive("exp", 1, "f", np.exp, cost=30, exact=False),
    Primitive("exp2", 1, "f", np.exp2, cost=30, exact=False),
    Primitive("expm1", 1, "f", np.expm1, cost=40, exact=False),
    Primitive("log", 1, "f", np.log, cost=30, exact=False),
    Primitive("log2", 1, "f", np.log2, cost=30, exact=False),
    Primitive("log10", 1, "f", np.log10, cost=30, exact=False),
    Primitive("log1p", 1, "f", np.log1p, cost=40, exact=False),
    Primitive("sin", 1, "f", np.sin, cost=40, exact=False),
    Primitive("cos", 1, "f", np.cos, cost=40, exact=False),
    Primitive("tan", 1, "f", np.tan, cost=60, exact=False),
    Primitive("arctan", 1, "f", np.arctan, cost=40, exact=False),
    Primitive("arctan2", 2, "f", np.arctan2, cost=60, exact=False),
    Primitive("hypot", 2, "f", np.hypot, cost=20, exact=False),
    Primitive("sinh", 1, "f", np.sinh, cost=60, exact=False),
    Primitive("cosh", 1, "f", np.cosh, cost=60, exact=False),
    Primitive("tanh", 1, "f", np.tanh, cost=60, exact=False),
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

    def of_nothing(self, dtype: DType) -> float:
        """The result where there are no elements: that which never wins."""
        if self.start is not None:
            return self.start
        top = self.name == "min"
        if dtype.kind == "f":
            return math.inf if top else -math.inf
        return int(np.iinfo(dtype).max if top else np.iinfo(dtype).min)


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
