"""How reductions that leave out NaN, and other functions, are composed of a few operations. See `lowering`."""

from __future__ import annotations

import math

import numpy as np

from hiss.kernels import lowering, lowering_reductions
from hiss.kernels.builder import Builder, Misfit, Static, Value
from hiss.kernels.dtypes import F64, I64
from hiss.kernels.ir import Node
from hiss.kernels.lowering import Args, Lowering, splat
from hiss.kernels.lowering_reductions import axes_argument


def _filled(builder: Builder, value: Value, number: float) -> Node:
    """The array with `number` for NaN."""
    node = builder.node(value)
    if node.dtype.kind != "f":
        return node
    return builder.point(
        "where", builder.point("isnan", node), splat(builder, Static(number), node.dtype, node.shape), node
    )


def total(name: str, neutral: int) -> Lowering:
    """`nansum`, `nanprod`."""
    inner = lowering_reductions.total(name)
    return lambda builder, args: inner(builder, (_filled(builder, args[0], float(neutral)), *args[1:]))


def extremum(name: str) -> Lowering:
    """`nanmin`, `nanmax`: NaN where nothing else is."""
    inner = lowering_reductions.extremum(name)
    never = math.inf if name == "min" else -math.inf

    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        if node.dtype.kind != "f":
            return inner(builder, args)
        found = builder.node(inner(builder, (_filled(builder, node, never), *args[1:])))
        some = builder.node(lowering_reductions.any_of(builder, (_present(builder, node), *args[1:])))
        nothing = splat(builder, Static(math.nan), node.dtype, found.shape)
        return builder.point("where", some, found, nothing)

    return lower


def _present(builder: Builder, node: Node) -> Node:
    return builder.point("invert", builder.point("isnan", node))


def mean(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    dtype = lowering.dtype_argument(builder, args[2])
    if node.dtype.kind != "f" or (dtype is not None and dtype.kind != "f"):
        return lowering_reductions.mean(builder, args)
    axes = axes_argument(builder, args[1], len(node.shape))
    keepdims = lowering_reductions.flag_argument(builder, args[3], "keepdims")
    return builder.cast(_mean(builder, node, axes, keepdims), dtype or node.dtype)


def _mean(builder: Builder, node: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    """The mean of what is no NaN, in float64; NaN (0 / 0) where nothing else is."""
    summed = builder.reduce("sum", builder.cast(_filled(builder, node, 0.0), F64), axes, keepdims)
    return builder.point("divide", summed, builder.cast(_count(builder, node, axes, keepdims), F64))


def _count(builder: Builder, node: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    return builder.reduce("sum", builder.cast(_present(builder, node), I64), axes, keepdims)


def var(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    if node.dtype.kind != "f":
        return lowering_reductions.var(builder, args)
    return builder.cast(_variance(builder, node, args), node.dtype)


def std(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    if node.dtype.kind != "f":
        return lowering_reductions.std(builder, args)
    return builder.cast(builder.point("sqrt", _variance(builder, node, args)), node.dtype)


def _variance(builder: Builder, node: Node, args: Args) -> Node:
    """NaN where no more than `ddof` numbers are, as in NumPy."""
    axes = axes_argument(builder, args[1], len(node.shape))
    ddof = builder.known(args[2], "ddof")
    if isinstance(ddof, bool) or not isinstance(ddof, int) or not 0 <= ddof <= 1 << 20:
        raise Misfit(f"ddof is an integer of at least 0, found {ddof!r}", args[2])
    keepdims = lowering_reductions.flag_argument(builder, args[3], "keepdims")
    middle = builder.broadcast(_mean(builder, node, axes, True), node.shape)
    deviation = builder.point("subtract", builder.cast(node, F64), middle)
    squares = builder.point("multiply", deviation, deviation)
    squares = builder.point("where", _present(builder, node), squares, splat(builder, Static(0.0), F64, node.shape))
    summed = builder.reduce("sum", squares, axes, keepdims)
    count = builder.cast(_count(builder, node, axes, keepdims), F64)
    freedom = builder.point("subtract", count, splat(builder, Static(float(ddof)), F64, count.shape))
    enough = builder.point("less", splat(builder, Static(0.0), F64, count.shape), freedom)
    quotient = builder.point("divide", summed, freedom)
    return builder.point("where", enough, quotient, splat(builder, Static(math.nan), F64, count.shape))


def nan_to_num(builder: Builder, args: Args) -> Value:
    """NaN becomes `nan`; infinities stay, unless `posinf` or `neginf` say otherwise."""
    node = builder.node(args[0])
    if node.dtype.kind != "f":
        return node
    edges = builder.known(args[2], "posinf"), builder.known(args[3], "neginf")
    result = builder.point("where", builder.point("isnan", node), splat(builder, args[1], node.dtype, node.shape), node)
    largest = float(np.finfo(node.dtype).max)
    for edge, infinite, default in zip(edges, (math.inf, -math.inf), (largest, -largest), strict=True):
        number = splat(builder, Static(default if edge is None else edge), node.dtype, node.shape)
        hit = builder.point("equal", node, splat(builder, Static(infinite), node.dtype, node.shape))
        result = builder.point("where", hit, number, result)
    return result


def ptp(builder: Builder, args: Args) -> Value:
    """The largest less the smallest; of unsigned numbers too, where that never wraps."""
    largest, smallest = (builder.node(lowering_reductions.extremum(name)(builder, args)) for name in ("max", "min"))
    if largest.dtype.kind == "b":
        raise Misfit("ptp of bools; use np.any and np.all", *args)
    return builder.point("subtract", largest, smallest)


def scaled(factor: float) -> Lowering:
    """`deg2rad`, `rad2deg`."""

    def lower(builder: Builder, args: Args) -> Value:
        (node,) = lowering.inexact_operands(builder, args)
        return builder.point("multiply", node, splat(builder, Static(factor), node.dtype, node.shape))

    return lower


def reciprocal(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    if node.dtype.kind != "f":
        raise Misfit("reciprocal is of floats; write 1 / x", *args)
    return builder.point("divide", splat(builder, Static(1.0), node.dtype, node.shape), node)


def without_nan(name: str) -> Lowering:
    """`fmin`, `fmax`: NaN only where both are."""
    inner = lowering.extreme(name)

    def lower(builder: Builder, args: Args) -> Value:
        dtype = builder.common_dtype(*args)
        first, second = builder.together(args, dtype)
        if dtype.kind != "f":
            return inner(builder, (first, second))
        joined = builder.point(name, first, second)
        joined = builder.point("where", builder.point("isnan", second), first, joined)
        return builder.point("where", builder.point("isnan", first), second, joined)

    return lower


def rounded(builder: Builder, args: Args) -> Value:
    """`np.round` to whole numbers: ties to even; integers are what they are."""
    node = builder.node(args[0])
    if builder.known(args[1], "decimals") != 0:
        raise Misfit("round is to whole numbers; write np.rint(x * 100) / 100", *args)
    return builder.point("rint", node) if node.dtype.kind == "f" else node
