"""The functions of the language that work element by element. Part of the table in `functions`."""

from __future__ import annotations

import math
from typing import Final

from hiss.kernels import lowering, lowering_nan
from hiss.kernels.functions_rows import FLOAT, SAME, TableFunction, points, row

SECTIONS: Final[dict[str, list[TableFunction]]] = {
    "Arithmetic": [
        row("add", "x1, x2", "n", SAME, lowering.arithmetic("add"), "`+`; of bools: or"),
        row("subtract", "x1, x2", "n", SAME, lowering.subtract, "`-`; unsigned numbers wrap, with a warning"),
        row("multiply", "x1, x2", "n", SAME, lowering.arithmetic("multiply"), "`*`; of bools: and"),
        row("divide", "x1, x2", "n", "float64 of integers, else the common dtype", lowering.divide, "`/`"),
        row("floor_divide", "x1, x2", "n", SAME, lowering.arithmetic("floor_divide"), "`//`; by integer 0: 0"),
        row("remainder", "x1, x2", "n", SAME, lowering.arithmetic("remainder"), "`%`; sign of x2; by integer 0: 0"),
        row("power", "x1, x2", "n", SAME, lowering.power, "`**`; integer exponents of integers: static, at least 0"),
        row("negative", "x", "n", "as x", lowering.unary("negative"), "unary `-`"),
        row("positive", "x", "n", "as x", lowering.unary("positive"), "unary `+`"),
        row("absolute", "x", "n", "as x", lowering.unary("absolute"), "`abs(x)`; of the smallest integer: itself"),
        row("square", "x", "n", "as x", lowering.square),
        row("sign", "x", "n", "as x", lowering.unary("sign")),
        row("reciprocal", "x", "n", "as x", lowering_nan.reciprocal, "floats only"),
    ],
    "Bits": [
        row("bitwise_and", "x1, x2", "n", SAME, lowering.bits("bitwise_and"), "`&`"),
        row("bitwise_or", "x1, x2", "n", SAME, lowering.bits("bitwise_or"), "`|`"),
        row("bitwise_xor", "x1, x2", "n", SAME, lowering.bits("bitwise_xor"), "`^`"),
        row("invert", "x", "n", "as x", lowering.bits("invert"), "`~`; of bools: not"),
        row("left_shift", "x1, x2", "n", SAME, lowering.bits("left_shift"), "`<<`; by the width or more: 0"),
        row("right_shift", "x1, x2", "n", SAME, lowering.bits("right_shift"), "`>>`; by the width or more: 0 or -1"),
    ],
    "Comparison and logic": [
        *(
            row(name, "x1, x2", "n", "bool", lowering.compare(name), f"`{sign}`; integers compare exactly")
            for name, sign in (
                ("less", "<"),
                ("less_equal", "<="),
                ("greater", ">"),
                ("greater_equal", ">="),
                ("equal", "=="),
                ("not_equal", "!="),
            )
        ),
        row("logical_and", "x1, x2", "n", "bool", lowering.logical("bitwise_and"), "also `and` of single values"),
        row("logical_or", "x1, x2", "n", "bool", lowering.logical("bitwise_or"), "also `or` of single values"),
        row("logical_xor", "x1, x2", "n", "bool", lowering.logical("bitwise_xor")),
        row("logical_not", "x", "n", "bool", lowering.logical("invert"), "also `not` of single values"),
        row("isnan", "x", "n", "bool", lowering.test("isnan")),
        row("isfinite", "x", "n", "bool", lowering.test("isfinite")),
        row("isinf", "x", "n", "bool", lowering.test("isinf")),
    ],
    "Choice": [
        row("where", "condition, x, y", "n", "the common dtype of x and y", lowering.where),
        row("minimum", "x1, x2", "n", SAME, lowering.extreme("minimum"), "NaN where either is NaN"),
        row("maximum", "x1, x2", "n", SAME, lowering.extreme("maximum"), "NaN where either is NaN"),
        row("clip", "a, a_min|min=None, a_max|max=None", "nm", SAME, lowering.clip, "None: no bound on that side"),
        row("fmin", "x1, x2", "n", SAME, lowering_nan.without_nan("minimum"), "NaN where both are NaN"),
        row("fmax", "x1, x2", "n", SAME, lowering_nan.without_nan("maximum"), "NaN where both are NaN"),
        row(
            "nan_to_num",
            "x, *, nan=0.0, posinf=None, neginf=None",
            "n",
            "as x",
            lowering_nan.nan_to_num,
            "None: the largest number, the smallest",
        ),
    ],
    "Functions of floats": [
        *points(
            lowering.inexact,
            FLOAT,
            {
                "sqrt": "",
                **dict.fromkeys(("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan"), ""),
                **dict.fromkeys(("arctan", "arctan2", "hypot", "sinh", "cosh", "tanh"), ""),
                "rint": "ties to even",
            },
        ),
        row("floor", "x", "n", "as x", lowering.whole("floor")),
        row("ceil", "x", "n", "as x", lowering.whole("ceil")),
        row("trunc", "x", "n", "as x", lowering.whole("trunc")),
        row("round", "a, decimals=0", "nm", "as a", lowering_nan.rounded, "to whole numbers, ties to even"),
        row("deg2rad", "x", "n", FLOAT, lowering_nan.scaled(math.pi / 180)),
        row("rad2deg", "x", "n", FLOAT, lowering_nan.scaled(180 / math.pi)),
    ],
    "Conversion": [
        row(
            "astype",
            "x, dtype",
            "m",
            "dtype",
            lowering.astype,
            "also `np.float32(x)`; floats to integers saturate, NaN: 0",
        ),
    ],
}
