"""The table of the language: every function, method, attribute and operator that a kernel may use.

One row gives an entry everywhere: the checker takes its signature from here, the specialiser its lowering to
primitives, the documentation its line. Names and parameters are NumPy's; what NumPy lacks is called `hk`. The rows
come in families, a module each, in the sections of the documentation. Constant after import; any thread.
"""

from __future__ import annotations

import difflib
from typing import Final

from hiss.kernels import functions_elements, functions_images, functions_shapes, functions_statistics
from hiss.kernels.arrays_windows import MODES
from hiss.kernels.functions_rows import Lowering, Parameter, TableFunction
from hiss.kernels.lowering_joins import EDGES

SECTIONS: Final[dict[str, list[TableFunction]]] = {
    **functions_elements.SECTIONS,
    **functions_statistics.SECTIONS,
    **functions_images.SECTIONS,
    **functions_shapes.SECTIONS,
}
_ROWS: Final = [row for rows in SECTIONS.values() for row in rows]
FUNCTIONS: Final[dict[str, TableFunction]] = {row.name: row for row in _ROWS}
assert len(FUNCTIONS) == len(_ROWS), "two rows of one name"

WORDS: Final = frozenset((*MODES, *EDGES))
"""Texts that a kernel may have, besides names of dtypes."""

ALIASES: Final = {
    "abs": "absolute",
    "true_divide": "divide",
    "mod": "remainder",
    "bitwise_not": "invert",
    "fix": "trunc",
}

INSTEAD: Final = {
    **dict.fromkeys(("average", "nanaverage"), "np.mean(x), or np.sum(x * weights) / np.sum(weights)"),
    **dict.fromkeys(("convolve", "correlate2d", "convolve2d"), "hk.correlate(x, weights)"),
    **dict.fromkeys(("histogram", "digitize"), "hk.bincount(index, length=n) of an index that you compute"),
    **dict.fromkeys(("sort", "argsort", "partition"), "np.median, np.percentile or np.quantile"),
    **dict.fromkeys(("nonzero", "argwhere", "flatnonzero"), "np.count_nonzero, np.where or np.argmax"),
    **dict.fromkeys(("repeat", "tile"), "np.broadcast_to, and .reshape if need be"),
    **dict.fromkeys(("append", "vstack", "hstack", "dstack", "column_stack"), "np.concatenate or np.stack of a tuple"),
    **dict.fromkeys(("dot", "matmul", "inner", "einsum", "tensordot"), "np.sum(a * b, axis=...)"),
    **dict.fromkeys(("empty", "empty_like"), "np.zeros"),
    **dict.fromkeys(("array", "asarray", "load", "fromfile", "random"), "a parameter, bound before the stream begins"),
    **dict.fromkeys(("linspace", "logspace"), "np.arange(n) * step"),
    **dict.fromkeys(("meshgrid", "mgrid", "indices"), "np.arange(h)[:, None] and np.arange(w)"),
    **dict.fromkeys(
        ("choose", "select", "take_along_axis", "piecewise"), "np.where(stage == 0, a, np.where(stage == 1, b, c))"
    ),
    **dict.fromkeys(("label", "connected_components"), "hk.groups_count(mask), which counts groups of pixels"),
    **dict.fromkeys(("sobel", "laplace", "prewitt"), "hk.correlate(x, weights)"),
    **dict.fromkeys(("lfilter", "sosfilt"), "hk.iir(x, b0, b1, a1, axis)"),
    "polyfit": "sums, as docs/kernel-language.md shows for a straight line",
    "isin": "(x == a) | (x == b), or np.take(table, x) of a table of truths",
    "linalg": "np.sum(a * b, axis=...) for products; equations are solved in a job after the stream",
    "unique": "hk.bincount(x, length=n) > 0",
    "searchsorted": "np.sum(x[..., None] >= edges, axis=-1)",
    "corrcoef": "np.mean of the products of what is left when the means are subtracted",
    "copy": "x itself: nothing changes in place",
    "outer": "a[:, None] * b",
    "gradient": "np.diff, or differences of slices",
    "isclose": "abs(a - b) < tolerance",
    "fft": "a job after the stream; Fourier transforms are not in the language",
}
"""What to write for names of NumPy that the language does not have."""


def find(name: str, form: str) -> TableFunction | None:
    """The row that is written `name` in this form (`n`, `h`, `m`, `a`), or None."""
    row = FUNCTIONS.get(ALIASES.get(name, name))
    return row if row is not None and form in row.forms else None


def near(name: str, form: str, more: tuple[str, ...] = ()) -> list[str]:
    """Names that the user may have meant."""
    names = [row.name for row in _ROWS if form in row.forms] + [key for key, at in ALIASES.items() if find(at, form)]
    return difflib.get_close_matches(name, [*names, *more], 3, 0.6)


__all__ = [
    "ALIASES",
    "FUNCTIONS",
    "INSTEAD",
    "SECTIONS",
    "WORDS",
    "Lowering",
    "Parameter",
    "TableFunction",
    "find",
    "near",
]
