"""The functions of the language for images and detectors, which NumPy lacks: `hk`. Part of the table in `functions`."""

from __future__ import annotations

from typing import Final

from hiss.kernels import lowering_groups as groups
from hiss.kernels import lowering_windows as windows
from hiss.kernels.functions_rows import FLOAT, TableFunction, row

SECTIONS: Final[dict[str, list[TableFunction]]] = {
    "Windows around each pixel": [
        *(
            row(name, "a, size=3, mode='reflect'", "h", dtypes, windows.window(primitive), f"{note} around each pixel")
            for name, primitive, dtypes, note in (
                (
                    "median_filter",
                    "window_median",
                    "as a",
                    "median of size x size pixels, size odd, or of (rows, columns),",
                ),
                ("minimum_filter", "window_minimum", "as a", "smallest, NaN if there is one, of size x size pixels"),
                ("maximum_filter", "window_maximum", "as a", "largest, NaN if there is one, of size x size pixels"),
                ("uniform_filter", "window_mean", FLOAT, "mean of size x size pixels"),
            )
        ),
        row(
            "gaussian_filter",
            "a, sigma, mode='reflect', truncate=4.0",
            "h",
            FLOAT,
            windows.gaussian_filter,
            "weighted by a Gaussian of sigma pixels, cut off at `truncate` sigmas",
        ),
        row(
            "correlate",
            "a, weights, mode='reflect'",
            "h",
            FLOAT,
            windows.correlate,
            "sum of weight times neighbour, the weights' middle on the pixel",
        ),
    ],
    "Groups of pixels, bit fields, recursion": [
        row(
            "group_sum",
            "a, index, length",
            "h",
            "64 bits of integers; float64",
            groups.group_sum,
            "sums of the elements whose index is 0 … length - 1; others are dropped",
        ),
        row(
            "groups_count",
            "mask, connectivity=8, least=1",
            "h",
            "int64",
            groups.groups_count,
            "how many groups of at least `least` pixels touch: at edges (4), or also at corners (8)",
        ),
        row("otsu", "a", "h", "float64", groups.otsu, "Otsu's threshold; 256 bins, uint8 and uint16 each value"),
        row("bits", "a, first, count", "h", "as a", groups.bits, "the field of `count` bits from bit `first`"),
        row(
            "iir",
            "a, b0, b1, a1, axis=-1",
            "h",
            FLOAT,
            groups.iir,
            "y[k] = b0 x[k] + b1 x[k-1] + a1 y[k-1] along an axis, from rest",
        ),
    ],
}
