"""How medians and percentiles become primitives of `arrays_ranks`. See `lowering`.

Results are float64 of integers and floats as they are; NaN where there is one, as in NumPy (`nanmedian` leaves them
out).
"""

from __future__ import annotations

import math
from typing import Any

from hiss import limits
from hiss.kernels.builder import Builder, Misfit, Static, Value, kind_of
from hiss.kernels.dtypes import BOOL, F64, I64, DType
from hiss.kernels.ir import Node
from hiss.kernels.lowering import Args, splat
from hiss.kernels.lowering_joins import joined
from hiss.kernels.lowering_reductions import axes_argument


def _laid(builder: Builder, node: Node, axes: tuple[int, ...]) -> Node:
    """The array as (outer, count, inner), `axes` laid together in the middle."""
    kept = [axis for axis in range(len(node.shape)) if axis not in axes]
    if axes and axes == tuple(range(axes[0], axes[-1] + 1)):  # neighbours: nothing has to move
        before, after = node.shape[: axes[0]], node.shape[axes[-1] + 1 :]
    else:
        node = builder.permute(node, (*kept, *axes))
        before, after = node.shape[: len(kept)], ()
    count = node.size // (math.prod(before) * math.prod(after))
    return builder.reshape(node, (math.prod(before), count, math.prod(after)))


def _unlaid(builder: Builder, result: Node, node: Node, axes: tuple[int, ...], keepdims: Value) -> Node:
    known = builder.known(keepdims, "keepdims")
    if not isinstance(known, bool):
        raise Misfit(f"keepdims is True or False, found {kind_of(Static(known))}", keepdims)
    sizes = [(1 if axis in axes else size) for axis, size in enumerate(node.shape) if known or axis not in axes]
    return builder.reshape(result, tuple(sizes))


def _prepared(builder: Builder, args: Args) -> tuple[Node, tuple[int, ...], Node, DType]:
    node = builder.node(args[0])
    if node.dtype == BOOL:
        raise Misfit("bools have no order to speak of; use np.mean, or convert them with .astype(np.uint8)", args[0])
    axes = axes_argument(builder, args[1], len(node.shape))
    return node, axes, _laid(builder, node, axes), node.dtype if node.dtype.kind == "f" else F64


def _part(builder: Builder, ranked: Node, place: int) -> Node:
    outer, _, inner = ranked.shape
    return builder.slice(ranked, (0, place, 0), (1, 1, 1), (outer, 1, inner))


def _poisoned(builder: Builder, value: Node, largest: Node) -> Node:
    """NaN where the largest element is, since NaN is the largest."""
    if largest.dtype.kind != "f":
        return value
    nan = splat(builder, Static(math.nan), value.dtype, value.shape)
    return builder.point("where", builder.point("isnan", largest), nan, value)


def median(builder: Builder, args: Args) -> Value:
    """The middle element, or the mean of the two in the middle."""
    node, axes, laid, dtype = _prepared(builder, args)
    count = laid.shape[1]
    ranks = tuple(sorted({(count - 1) // 2, count // 2} | ({count - 1} if laid.dtype.kind == "f" else set())))
    ranked = builder.arrays("ranked", laid, attrs=ranks)
    low = builder.cast(_part(builder, ranked, 0), dtype)
    high = builder.cast(_part(builder, ranked, ranks.index(count // 2)), dtype)
    value = _poisoned(builder, _halfway(builder, low, high), _part(builder, ranked, len(ranks) - 1))
    return _unlaid(builder, value, node, axes, args[2])


def _halfway(builder: Builder, low: Node, high: Node) -> Node:
    """(low + high) / 2 of floats, as NumPy's mean of two: summed in float64."""
    if low is high:
        return low
    wide = [builder.cast(part, F64) for part in (low, high)]
    summed = builder.point("add", *wide)
    two = splat(builder, Static(2), F64, summed.shape)
    return builder.cast(builder.point("divide", summed, two), low.dtype)


def nanmedian(builder: Builder, args: Args) -> Value:
    """The median of what is not NaN; NaN where nothing is left."""
    node, axes, laid, dtype = _prepared(builder, args)
    if laid.dtype.kind != "f":
        return median(builder, args)
    valid = builder.point("invert", builder.point("isnan", laid))
    left = builder.reduce("sum", builder.cast(valid, I64), (1,), True)
    one = splat(builder, Static(1), I64, left.shape)
    below = builder.point("right_shift", builder.point("subtract", left, one), one)
    above = builder.point("right_shift", left, one)
    low, high = (builder.arrays("ranked_by", laid, rank) for rank in (below, above))
    low, high = builder.cast(low, dtype), builder.cast(high, dtype)
    between = _halfway(builder, low, high)
    value = builder.point("where", builder.point("equal", low, high), low, between)  # one element: no sum to overflow
    return _unlaid(builder, value, node, axes, args[2])


def percentile(builder: Builder, args: Args) -> Value:
    """NumPy's method 'linear': between the two elements around q / 100 * (count - 1)."""
    return _between_ranks(builder, args, "a percentile", 100)


def quantile(builder: Builder, args: Args) -> Value:
    """`percentile` with q from 0 to 1."""
    return _between_ranks(builder, args, "a quantile", 1)


def _between_ranks(builder: Builder, args: Args, what: str, most: int) -> Value:
    node, axes, laid, dtype = _prepared(builder, (args[0], args[2]))
    known = builder.known(args[1], what)
    several = known if isinstance(known, tuple) and known else (known,)
    for q in several:
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= most:
            raise Misfit(f"{what} is a number from 0 to {most}, found {kind_of(Static(q))}", args[1])
    if len(several) > limits.KERNEL_PARAMETERS_MAX:
        raise Misfit("results of one call", args[1], limit="KERNEL_PARAMETERS_MAX", found=len(several))
    last = laid.shape[1] - 1
    places = [q / most * last for q in several]
    pairs = [(min(math.floor(place), last), min(math.floor(place) + 1, last)) for place in places]
    ranks = tuple(sorted({rank for pair in pairs for rank in pair} | ({last} if laid.dtype.kind == "f" else set())))
    ranked = builder.arrays("ranked", laid, attrs=ranks)
    largest = _part(builder, ranked, len(ranks) - 1)
    results = []
    for place, pair in zip(places, pairs, strict=True):
        low, high = (builder.cast(_part(builder, ranked, ranks.index(rank)), dtype) for rank in pair)
        value = _poisoned(builder, _between(builder, low, high, place - math.floor(place)), largest)
        results.append(_unlaid(builder, value, node, axes, args[3]))
    if not isinstance(known, tuple):
        return results[0]
    return joined(builder, [builder.reshape(result, (1, *result.shape)) for result in results], 0)


def _between(builder: Builder, low: Node, high: Node, share: float) -> Node:
    """low + (high - low) * share, from the nearer end, as NumPy does it."""
    gap = builder.point("subtract", high, low)
    number: Any = share if share < 0.5 else 1 - share
    step = builder.point("multiply", gap, splat(builder, Static(float(number)), gap.dtype, gap.shape))
    return builder.point("add", low, step) if share < 0.5 else builder.point("subtract", high, step)
