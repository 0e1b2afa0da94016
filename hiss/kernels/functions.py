"""The table of the language: every function, method, attribute and operator that a kernel may use.

One row gives an entry everywhere: the checker takes its signature from here, the specialiser its lowering to
primitives, the documentation its line. Names and parameters are NumPy's. The lowering functions are in
`lowering` (point by point), `lowering_reductions` and `lowering_shapes`; rows that only apply one primitive need none
of their own. Constant after import; any thread.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hiss.kernels import lowering
from hiss.kernels import lowering_arrays as arrays
from hiss.kernels import lowering_groups as groups
from hiss.kernels import lowering_ranks as ranks
from hiss.kernels import lowering_reductions as reductions
from hiss.kernels import lowering_shapes as shapes
from hiss.kernels import lowering_windows as windows
from hiss.kernels.arrays_windows import MODES
from hiss.kernels.builder import Builder, Value
from hiss.kernels.primitives import PRIMITIVES

Lowering = Callable[[Builder, tuple[Value, ...]], Value]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a table function: its names (NumPy has several for some), and the default unless required."""

    names: tuple[str, ...]
    required: bool
    default: Any
    keyword_only: bool


@dataclass(frozen=True, slots=True)
class TableFunction:
    """One row.

    `forms` says how it is written: n `np.name(...)`, h `hk.name(...)`, m a method, a an attribute, o as an operator
    only.
    """

    name: str
    signature: str
    forms: str
    dtypes: str
    note: str
    lower: Lowering
    parameters: tuple[Parameter, ...]


def _parameters(signature: str) -> tuple[Parameter, ...]:
    """From `"a, axis=None, *, keepdims=False"`; `x|y` are names of one parameter."""
    found: list[Parameter] = []
    keyword_only = False
    for part in filter(None, (text.strip() for text in signature.split(","))):
        if part == "*":
            keyword_only = True
            continue
        names, _, default = part.partition("=")
        value = ast.literal_eval(default) if default else None
        found.append(Parameter(tuple(names.split("|")), not default, value, keyword_only))
    return tuple(found)


def _row(name: str, signature: str, forms: str, dtypes: str, lower: Lowering, note: str = "") -> TableFunction:
    return TableFunction(name, signature, forms, dtypes, note, lower, _parameters(signature))


def _points(rule: Callable[[str], Lowering], dtypes: str, names: dict[str, str]) -> list[TableFunction]:
    """Rows that apply one primitive: name -> note."""
    return [
        _row(name, ("x", "x1, x2")[PRIMITIVES[name].arity - 1], "n", dtypes, rule(name), note)
        for name, note in names.items()
    ]


_SAME = "the common dtype"
_FLOAT = "float32 up to 16-bit integers, float64 for larger, floats as they are"
_ROWS: Final = [
    # arithmetic
    _row("add", "x1, x2", "n", _SAME, lowering.arithmetic("add"), "`+`; of bools: or"),
    _row("subtract", "x1, x2", "n", _SAME, lowering.subtract, "`-`; unsigned numbers wrap, with a warning"),
    _row("multiply", "x1, x2", "n", _SAME, lowering.arithmetic("multiply"), "`*`; of bools: and"),
    _row("divide", "x1, x2", "n", "float64 of integers, else the common dtype", lowering.divide, "`/`"),
    _row("floor_divide", "x1, x2", "n", _SAME, lowering.arithmetic("floor_divide"), "`//`; by integer 0: 0"),
    _row("remainder", "x1, x2", "n", _SAME, lowering.arithmetic("remainder"), "`%`; sign of x2; by integer 0: 0"),
    _row("power", "x1, x2", "n", _SAME, lowering.power, "`**`; integer exponents of integers: static, at least 0"),
    _row("negative", "x", "n", "as x", lowering.unary("negative"), "unary `-`"),
    _row("positive", "x", "n", "as x", lowering.unary("positive"), "unary `+`"),
    _row("absolute", "x", "n", "as x", lowering.unary("absolute"), "`abs(x)`; of the smallest integer: itself"),
    _row("square", "x", "n", "as x", lowering.square),
    _row("sign", "x", "n", "as x", lowering.unary("sign")),
    # bits
    _row("bitwise_and", "x1, x2", "n", _SAME, lowering.bits("bitwise_and"), "`&`"),
    _row("bitwise_or", "x1, x2", "n", _SAME, lowering.bits("bitwise_or"), "`|`"),
    _row("bitwise_xor", "x1, x2", "n", _SAME, lowering.bits("bitwise_xor"), "`^`"),
    _row("invert", "x", "n", "as x", lowering.bits("invert"), "`~`; of bools: not"),
    _row("left_shift", "x1, x2", "n", _SAME, lowering.bits("left_shift"), "`<<`; by the width or more: 0"),
    _row("right_shift", "x1, x2", "n", _SAME, lowering.bits("right_shift"), "`>>`; by the width or more: 0 or -1"),
    # comparison and logic
    *(
        _row(name, "x1, x2", "n", "bool", lowering.compare(name), f"`{sign}`; integers compare exactly")
        for name, sign in (
            ("less", "<"),
            ("less_equal", "<="),
            ("greater", ">"),
            ("greater_equal", ">="),
            ("equal", "=="),
            ("not_equal", "!="),
        )
    ),
    _row("logical_and", "x1, x2", "n", "bool", lowering.logical("bitwise_and"), "also `and` of single values"),
    _row("logical_or", "x1, x2", "n", "bool", lowering.logical("bitwise_or"), "also `or` of single values"),
    _row("logical_xor", "x1, x2", "n", "bool", lowering.logical("bitwise_xor")),
    _row("logical_not", "x", "n", "bool", lowering.logical("invert"), "also `not` of single values"),
    _row("isnan", "x", "n", "bool", lowering.test("isnan")),
    _row("isfinite", "x", "n", "bool", lowering.test("isfinite")),
    _row("isinf", "x", "n", "bool", lowering.test("isinf")),
    # choice
    _row("where", "condition, x, y", "n", "the common dtype of x and y", lowering.where),
    _row("minimum", "x1, x2", "n", _SAME, lowering.extreme("minimum"), "NaN where either is NaN"),
    _row("maximum", "x1, x2", "n", _SAME, lowering.extreme("maximum"), "NaN where either is NaN"),
    _row("clip", "a, a_min|min=None, a_max|max=None", "nm", _SAME, lowering.clip, "None: no bound on that side"),
    # functions of floats
    *_points(
        lowering.inexact,
        _FLOAT,
        {
            "sqrt": "",
            **dict.fromkeys(("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan"), ""),
            **dict.fromkeys(("arctan", "arctan2", "hypot", "sinh", "cosh", "tanh"), ""),
            "rint": "ties to even",
        },
    ),
    _row("floor", "x", "n", "as x", lowering.whole("floor")),
    _row("ceil", "x", "n", "as x", lowering.whole("ceil")),
    _row("trunc", "x", "n", "as x", lowering.whole("trunc")),
    # conversion
    _row(
        "astype", "x, dtype", "m", "dtype", lowering.astype, "also `np.float32(x)`; floats to integers saturate, NaN: 0"
    ),
    # reductions
    _row(
        "sum",
        "a, axis=None, dtype=None, *, keepdims=False",
        "nm",
        "64 bits of integers; floats as a",
        reductions.total("sum"),
    ),
    _row(
        "prod",
        "a, axis=None, dtype=None, *, keepdims=False",
        "nm",
        "64 bits of integers; floats as a",
        reductions.total("prod"),
    ),
    _row(
        "mean",
        "a, axis=None, dtype=None, *, keepdims=False",
        "nm",
        "float64 of integers; floats as a",
        reductions.mean,
    ),
    _row(
        "var",
        "a, axis=None, *, ddof=0, keepdims=False",
        "nm",
        "float64 of integers; floats as a",
        reductions.var,
    ),
    _row(
        "std",
        "a, axis=None, *, ddof=0, keepdims=False",
        "nm",
        "float64 of integers; floats as a",
        reductions.std,
    ),
    *(
        _row(
            name,
            "a, axis=None, *, keepdims=False",
            forms,
            "as a",
            reductions.extremum(name[-3:]),
            "NaN if there is one",
        )
        for name, forms in (("min", "nm"), ("max", "nm"), ("amin", "n"), ("amax", "n"))
    ),
    _row("any", "a, axis=None, *, keepdims=False", "nm", "bool", reductions.any_of),
    _row("all", "a, axis=None, *, keepdims=False", "nm", "bool", reductions.all_of),
    _row("count_nonzero", "a, axis=None, *, keepdims=False", "n", "int64", reductions.count_nonzero),
    # along an axis, and through an index map
    *(
        _row(name, "a, axis=None", "nm", "64 bits of integers; floats as a", arrays.running(ufunc))
        for name, ufunc in (("cumsum", "running_add"), ("cumprod", "running_multiply"))
    ),
    _row("take", "a, indices, axis=None", "nm", "as a", arrays.take, "indices are clipped"),
    _row(
        "bincount",
        "x, weights=None, *, length",
        "h",
        "int64, or float64 of weights",
        arrays.bincount,
        "`length` results; what lies beyond is dropped",
    ),
    _row("bin2d", "a, factor", "h", "as np.sum", arrays.bin2d, "sums over blocks of factor x factor of the last axes"),
    # windows around each pixel
    *(
        _row(name, "a, size=3, mode='reflect'", "h", dtypes, windows.window(primitive), f"{note} around each pixel")
        for name, primitive, dtypes, note in (
            (
                "median_filter",
                "window_median",
                "as a",
                "median of size x size pixels, size odd, or of (rows, columns),",
            ),
            ("minimum_filter", "window_minimum", "as a", "smallest, NaN if there is one, of size x size pixels"),
            ("maximum_filter", "window_maximum", "as a", "largest, NaN if there is one, of size x size pixels"),
            ("uniform_filter", "window_mean", _FLOAT, "mean of size x size pixels"),
        )
    ),
    _row(
        "gaussian_filter",
        "a, sigma, mode='reflect', truncate=4.0",
        "h",
        _FLOAT,
        windows.gaussian_filter,
        "weighted by a Gaussian of sigma pixels, cut off at `truncate` sigmas",
    ),
    _row(
        "correlate",
        "a, weights, mode='reflect'",
        "h",
        _FLOAT,
        windows.correlate,
        "sum of weight times neighbour, the weights' middle on the pixel",
    ),
    # order statistics
    _row("median", "a, axis=None, *, keepdims=False", "n", "float64 of integers; floats as a", ranks.median),
    _row(
        "nanmedian",
        "a, axis=None, *, keepdims=False",
        "n",
        "float64 of integers; floats as a",
        ranks.nanmedian,
        "NaN where nothing else is",
    ),
    _row(
        "percentile",
        "a, q, axis=None, *, keepdims=False",
        "n",
        "float64 of integers; floats as a",
        ranks.percentile,
        "one q from 0 to 100, between neighbours",
    ),
    # groups of pixels, bit fields, recursion
    _row(
        "group_sum",
        "a, index, *, length",
        "h",
        "64 bits of integers; float64",
        groups.group_sum,
        "sums of the elements whose index is 0 … length - 1; others are dropped",
    ),
    _row(
        "groups_count",
        "mask, connectivity=8, least=1",
        "h",
        "int64",
        groups.groups_count,
        "how many groups of at least `least` pixels touch: at edges (4), or also at corners (8)",
    ),
    _row("otsu", "a", "h", "float64", groups.otsu, "Otsu's threshold; 256 bins, uint8 and uint16 each value"),
    _row("bits", "a, first, count", "h", "as a", groups.bits, "the field of `count` bits from bit `first`"),
    _row(
        "iir",
        "a, b0, b1, a1, axis=-1",
        "h",
        _FLOAT,
        groups.iir,
        "y[k] = b0 x[k] + b1 x[k-1] + a1 y[k-1] along an axis, from rest",
    ),
    # shape
    _row("reshape", "a, shape", "nm", "as a", shapes.reshape, "row-major; one size may be -1"),
    _row("ravel", "a", "nm", "as a", shapes.ravel),
    _row("flatten", "a", "m", "as a", shapes.ravel),
    _row("transpose", "a, axes=None", "nm", "as a", shapes.transpose),
    _row("T", "a", "a", "as a", shapes.transpose, "attribute"),
    _row("swapaxes", "a, axis1, axis2", "nm", "as a", shapes.swapaxes),
    _row("squeeze", "a, axis=None", "nm", "as a", shapes.squeeze),
    _row("expand_dims", "a, axis", "n", "as a", shapes.expand_dims),
    _row("flip", "m, axis=None", "n", "as m", shapes.flip),
    _row("broadcast_to", "array, shape", "n", "as array", shapes.broadcast_to),
    _row("getitem", "a, key", "o", "as a", shapes.getitem, "`a[...]`: static integers, slices, `...`, `None`"),
    # new arrays
    _row("zeros", "shape, dtype=None", "n", "float64 or dtype", shapes.filled(0)),
    _row("ones", "shape, dtype=None", "n", "float64 or dtype", shapes.filled(1)),
    _row("full", "shape, fill_value, dtype=None", "n", "of the value, or dtype", shapes.full),
    _row("zeros_like", "a, dtype=None", "n", "as a, or dtype", shapes.filled_like(0)),
    _row("ones_like", "a, dtype=None", "n", "as a, or dtype", shapes.filled_like(1)),
    _row("full_like", "a, fill_value, dtype=None", "n", "as a, or dtype", shapes.full_like),
    # what is known before the kernel runs
    _row("shape", "a", "a", "static tuple", shapes.shape_of, "attribute"),
    _row("ndim", "a", "a", "static integer", shapes.ndim_of, "attribute"),
    _row("size", "a", "a", "static integer", shapes.size_of, "attribute"),
    _row("dtype", "a", "a", "static dtype", shapes.dtype_of, "attribute"),
    _row("len", "a", "o", "static integer", shapes.length_of, "`len(a)`"),
]
FUNCTIONS: Final[dict[str, TableFunction]] = {row.name: row for row in _ROWS}
assert len(FUNCTIONS) == len(_ROWS), "two rows of one name"

WORDS: Final = frozenset(MODES)
"""Texts that a kernel may have, besides names of dtypes."""

ALIASES: Final = {
    "abs": "absolute",
    "true_divide": "divide",
    "mod": "remainder",
    "bitwise_not": "invert",
    "fix": "trunc",
}


def find(name: str, form: str) -> TableFunction | None:
    """The row that is written `name` in this form (`n`, `h`, `m`, `a`), or None."""
    row = FUNCTIONS.get(ALIASES.get(name, name))
    return row if row is not None and form in row.forms else None


def near(name: str, form: str, more: tuple[str, ...] = ()) -> list[str]:
    """Names that the user may have meant."""
    names = [row.name for row in _ROWS if form in row.forms] + [key for key, at in ALIASES.items() if find(at, form)]
    return difflib.get_close_matches(name, [*names, *more], 3, 0.6)
