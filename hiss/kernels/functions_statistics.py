"""The functions of the language that look along axes: sums, extremes, ranks, running ones. Part of `functions`."""

from __future__ import annotations

from typing import Final

from hiss.kernels import lowering_arrays as arrays
from hiss.kernels import lowering_joins as joins
from hiss.kernels import lowering_nan as nans
from hiss.kernels import lowering_ranks as ranks
from hiss.kernels import lowering_reductions as reductions
from hiss.kernels.functions_rows import MEAN, SUM, TableFunction, row

SECTIONS: Final[dict[str, list[TableFunction]]] = {
    "Reductions": [
        row(
            "sum",
            "a, axis=None, dtype=None, *, keepdims=False",
            "nm",
            "64 bits of integers; floats as a",
            reductions.total("sum"),
        ),
        row(
            "prod",
            "a, axis=None, dtype=None, *, keepdims=False",
            "nm",
            "64 bits of integers; floats as a",
            reductions.total("prod"),
        ),
        row(
            "mean",
            "a, axis=None, dtype=None, *, keepdims=False",
            "nm",
            "float64 of integers; floats as a",
            reductions.mean,
        ),
        row(
            "var",
            "a, axis=None, *, ddof=0, keepdims=False",
            "nm",
            "float64 of integers; floats as a",
            reductions.var,
        ),
        row(
            "std",
            "a, axis=None, *, ddof=0, keepdims=False",
            "nm",
            "float64 of integers; floats as a",
            reductions.std,
        ),
        *(
            row(
                name,
                "a, axis=None, *, keepdims=False",
                forms,
                "as a",
                reductions.extremum(name[-3:]),
                "NaN if there is one",
            )
            for name, forms in (("min", "nm"), ("max", "nm"), ("amin", "n"), ("amax", "n"))
        ),
        row("any", "a, axis=None, *, keepdims=False", "nm", "bool", reductions.any_of),
        row("all", "a, axis=None, *, keepdims=False", "nm", "bool", reductions.all_of),
        row("count_nonzero", "a, axis=None, *, keepdims=False", "n", "int64", reductions.count_nonzero),
        row("ptp", "a, axis=None, *, keepdims=False", "n", "as a", nans.ptp, "the largest less the smallest"),
        *(
            row(
                name,
                "a, axis=None",
                "nm",
                "int64",
                joins.arg_extreme(name),
                "the first one's place; of a NaN if there is one",
            )
            for name in ("argmin", "argmax")
        ),
        row("nansum", "a, axis=None, dtype=None, *, keepdims=False", "n", SUM, nans.total("sum", 0), "NaN counts as 0"),
        row(
            "nanprod", "a, axis=None, dtype=None, *, keepdims=False", "n", SUM, nans.total("prod", 1), "NaN counts as 1"
        ),
        *(
            row(
                f"nan{name}",
                "a, axis=None, *, keepdims=False",
                "n",
                "as a",
                nans.extremum(name),
                "NaN where nothing else is",
            )
            for name in ("min", "max")
        ),
        row(
            "nanmean", "a, axis=None, dtype=None, *, keepdims=False", "n", MEAN, nans.mean, "NaN where nothing else is"
        ),
        row("nanvar", "a, axis=None, *, ddof=0, keepdims=False", "n", MEAN, nans.var, "NaN where nothing else is"),
        row("nanstd", "a, axis=None, *, ddof=0, keepdims=False", "n", MEAN, nans.std, "NaN where nothing else is"),
    ],
    "Order statistics": [
        row("median", "a, axis=None, *, keepdims=False", "n", "float64 of integers; floats as a", ranks.median),
        row(
            "nanmedian",
            "a, axis=None, *, keepdims=False",
            "n",
            "float64 of integers; floats as a",
            ranks.nanmedian,
            "NaN where nothing else is",
        ),
        row(
            "percentile",
            "a, q, axis=None, *, keepdims=False",
            "n",
            "float64 of integers; floats as a",
            ranks.percentile,
            "q from 0 to 100, between neighbours; of a tuple of q one result each, stacked",
        ),
        row(
            "quantile",
            "a, q, axis=None, *, keepdims=False",
            "n",
            "float64 of integers; floats as a",
            ranks.quantile,
            "q from 0 to 1, as np.percentile",
        ),
    ],
    "Along an axis, and through an index map": [
        *(
            row(name, "a, axis=None", "nm", "64 bits of integers; floats as a", arrays.running(ufunc))
            for name, ufunc in (("cumsum", "running_add"), ("cumprod", "running_multiply"))
        ),
        row(
            "take",
            "a, indices, axis=None",
            "nm",
            "as a",
            arrays.take,
            "computed indices are clipped; a parameter's are checked when it is bound",
        ),
        row(
            "bincount",
            "x, weights=None, *, length",
            "h",
            "int64, or float64 of weights",
            arrays.bincount,
            "`length` results; what lies beyond is dropped",
        ),
        row(
            "bin2d",
            "a, factor",
            "h",
            "as np.sum",
            arrays.bin2d,
            "sums over blocks of factor x factor, or of (rows, columns), of the last axes",
        ),
        *(
            row(
                f"{name}.accumulate",
                "a, axis=0",
                "n",
                "as a",
                arrays.running_extreme(f"running_{name}"),
                "NaN from the first on",
            )
            for name in ("minimum", "maximum")
        ),
        row(
            "diff",
            "a, *, axis=-1",
            "n",
            "as a; of bools bool",
            joins.diff,
            "each less the one before; unsigned numbers wrap",
        ),
    ],
}
