"""How filters over neighbourhoods become primitives of `arrays_windows`. See `lowering`.

Names, edge modes and results are those of scipy.ndimage, but that means and weighted sums are floats (float32 up to
16-bit integers, else float64) where SciPy truncates them to the input's integers.
"""

from __future__ import annotations

import math
from typing import Any

from hiss import limits
from hiss.kernels.arrays_windows import MODES
from hiss.kernels.builder import Builder, Misfit, Static, Value, describe, kind_of
from hiss.kernels.dtypes import BOOL, F64
from hiss.kernels.ir import Node
from hiss.kernels.lowering import Args, Lowering
from hiss.kernels.lowering_joins import joined


def _mode(builder: Builder, value: Value) -> str:
    known = builder.known(value, "an edge mode")
    if known not in MODES:
        raise Misfit(f"an edge mode is one of {', '.join(map(repr, MODES))}; found {kind_of(Static(known))}", value)
    return str(known)


def _planes(builder: Builder, value: Value) -> Node:
    """The array as (outer, height, width); one with a single axis is one row."""
    node = builder.node(value)
    if not node.shape:
        raise Misfit("a window needs an array, found a single value", value)
    *outer, height, width = (1, *node.shape) if len(node.shape) == 1 else node.shape
    return builder.reshape(node, (math.prod(outer), height, width))


def _size(builder: Builder, value: Value, flat: bool) -> tuple[int, int]:
    """Rows and columns of a window: one odd number for both, or a pair."""
    known = builder.known(value, "the size of a window")
    pair = known if isinstance(known, tuple) else (1 if flat else known, known)
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 or n % 2 == 0 for n in pair):
        raise Misfit(f"a window has an odd number of rows and of columns, such as 3 or (1, 5); found {known!r}", value)
    if max(pair) > limits.KERNEL_WINDOW_MAX:
        raise Misfit("rows or columns of a window", value, limit="KERNEL_WINDOW_MAX", found=max(pair))
    return pair


def window(name: str) -> Lowering:
    """Median, extremes and mean over a window."""

    def lower(builder: Builder, args: Args) -> Value:
        shape = builder.node(args[0]).shape
        rows, columns = _size(builder, args[1], len(shape) == 1)
        if name == "window_median" and rows * columns > limits.KERNEL_MEDIAN_PIXELS_MAX:
            raise Misfit("pixels of a median's window", limit="KERNEL_MEDIAN_PIXELS_MAX", found=rows * columns)
        found = builder.arrays(name, _planes(builder, args[0]), attrs=(rows, columns, _mode(builder, args[2])))
        return builder.reshape(found, shape)

    return lower


def gaussian_filter(builder: Builder, args: Args) -> Value:
    """Weights exp(-x**2 / (2 sigma**2)) to `truncate` sigmas, their sum made 1, down and across."""
    node = builder.node(args[0])
    sigma = builder.known(args[1], "sigma")
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < math.inf:
        raise Misfit(f"sigma is a number above 0, in pixels; found {sigma!r}", args[1])
    truncate = builder.known(args[3], "truncate")
    if isinstance(truncate, bool) or not isinstance(truncate, int | float) or not 0 < truncate <= 100:
        raise Misfit(f"truncate is a number above 0, in sigmas; found {truncate!r}", args[3])
    reach = int(min(truncate * sigma, limits.KERNEL_WINDOW_MAX) + 0.5)
    if 2 * reach + 1 > limits.KERNEL_WINDOW_MAX:
        raise Misfit("pixels of a Gaussian's window", *args, limit="KERNEL_WINDOW_MAX", found=2 * reach + 1)
    plain = [math.exp(-0.5 * x * x / (sigma * sigma)) for x in range(-reach, reach + 1)]
    weights = tuple(weight / math.fsum(plain) for weight in plain)
    down = (1.0,) if len(node.shape) == 1 else weights
    found = builder.arrays("window_separable", _planes(builder, node), attrs=(down, weights, _mode(builder, args[2])))
    return builder.reshape(found, node.shape)


def correlate(builder: Builder, args: Args) -> Value:
    """The sum of weight times neighbour, the weights' middle on the pixel."""
    node, weights = builder.node(args[0]), builder.cast(_weights(builder, args[1]), F64)
    if node.dtype == BOOL:
        raise Misfit("bools are not weighted; convert them with .astype(np.float32)", args[0])
    if len(weights.shape) != min(2, len(node.shape)):
        raise Misfit(f"weights of {describe(weights)} for {describe(node)}; expected as many axes, at most two", *args)
    size: Any = Static(weights.shape if len(weights.shape) == 2 else weights.shape[0])
    rows, columns = _size(builder, size, len(weights.shape) == 1)
    if rows * columns > limits.KERNEL_STENCIL_PIXELS_MAX:
        raise Misfit("pixels of a stencil", args[1], limit="KERNEL_STENCIL_PIXELS_MAX", found=rows * columns)
    flat = builder.reshape(weights, (rows * columns,))
    attrs = (rows, columns, _mode(builder, args[2]))
    return builder.reshape(builder.arrays("window_correlate", _planes(builder, node), flat, attrs=attrs), node.shape)


def _weights(builder: Builder, value: Value) -> Value:
    """The weights; a tuple of numbers, or of rows of them, as an array."""
    if not isinstance(value, Static) or not isinstance(value.value, tuple) or not value.value:
        return value
    rows = value.value if isinstance(value.value[0], tuple) else (value.value,)
    numbers = [number for row in rows for number in (row if isinstance(row, tuple) else (row,))]
    if len(numbers) > limits.KERNEL_STENCIL_PIXELS_MAX or len(numbers) != len(rows) * len(rows[0]):
        raise Misfit("weights are numbers, or rows of equally many numbers", value)
    parts = [number if isinstance(number, Node) else Static(number, value.names) for number in numbers]
    flat = joined(builder, [builder.reshape(builder.cast(part, F64), (1,)) for part in parts], 0)
    return builder.reshape(flat, (len(rows), len(rows[0]))) if rows is value.value else flat
