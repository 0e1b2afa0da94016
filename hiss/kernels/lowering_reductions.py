"""How reductions become primitives: axes, dtypes of results, and what is made of sums. See `lowering`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hiss.kernels import dtypes
from hiss.kernels.builder import Builder, Misfit, Static, Value, kind_of
from hiss.kernels.dtypes import BOOL, F64, I64, DType
from hiss.kernels.ir import Node
from hiss.kernels.lengths import Length
from hiss.kernels.lowering import Args, Lowering, dtype_argument, subtract


def axes_argument(builder: Builder, value: Value, rank: int) -> tuple[int, ...]:
    """The axes that are meant, ascending."""
    known = builder.known(value, "an axis")
    if known is None:
        return tuple(range(rank))
    axes = known if isinstance(known, tuple) else (known,)
    return tuple(sorted(distinct_axes(axes, rank, value)))


def distinct_axes(axes: tuple[Any, ...], rank: int, value: Value) -> list[int]:
    found: list[int] = []
    for axis in axes:
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise Misfit(f"an axis is an integer, found {axis!r}", value)
        if not -rank <= axis < rank:
            raise Misfit(f"axis {axis} of an array with {rank} dimensions", value)
        found.append(axis % rank)
    if len(set(found)) != len(found):
        raise Misfit(f"axes {axes} name one axis twice", value)
    return found


def flag_argument(builder: Builder, value: Value, what: str) -> bool:
    """A static truth."""
    known = builder.known(value, what)
    if not isinstance(known, bool):
        raise Misfit(f"{what} is True or False, found {kind_of(Static(known))}", value)
    return known


def _result(node: Node, dtype: DType | None) -> DType:
    return dtype or (node.dtype if node.dtype.kind == "f" else F64)


def total(name: str) -> Lowering:
    """`sum` and `prod`: integers in 64 bits, floats in float64, given back in the dtype that NumPy gives."""

    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        dtype = dtype_argument(builder, args[2]) or (node.dtype if node.dtype.kind == "f" else dtypes.total(node.dtype))
        axes = axes_argument(builder, args[1], len(node.shape))
        if dtype.kind == "f":
            wide = builder.cast(node, F64)
        else:  # as NumPy: converted to the dtype that was asked for, then summed
            wide = builder.cast(builder.cast(node, dtype), dtypes.total(dtype))
        return builder.cast(builder.reduce(name, wide, axes, flag_argument(builder, args[3], "keepdims")), dtype)

    return lower


def _mean(builder: Builder, node: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    """The mean in float64. Integers of up to 32 bits are summed exactly, larger ones as float64."""
    exact = node.dtype.kind != "f" and node.dtype.itemsize <= 4
    wide = builder.cast(node, dtypes.total(node.dtype) if exact else F64)
    summed = builder.cast(builder.reduce("sum", wide, axes, keepdims), F64)
    count = math.prod(node.shape[axis] for axis in axes)
    return builder.point("divide", summed, builder.broadcast(builder.strong(Static(count), F64), summed.shape))


def mean(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    dtype = dtype_argument(builder, args[2])
    if dtype is not None and dtype.kind != "f":
        raise Misfit(f"a mean is a float, not {dtype}; convert it with .astype", *args)
    axes = axes_argument(builder, args[1], len(node.shape))
    return builder.cast(_mean(builder, node, axes, flag_argument(builder, args[3], "keepdims")), _result(node, dtype))


def _variance(builder: Builder, args: Args) -> tuple[Node, DType]:
    node = builder.node(args[0])
    axes = axes_argument(builder, args[1], len(node.shape))
    ddof = builder.known(args[2], "ddof")
    count = math.prod(node.shape[axis] for axis in axes)
    if not isinstance(ddof, int | float) or ddof >= count:
        raise Misfit(f"ddof is a number below the {count} elements of each variance, found {ddof!r}", args[2])
    deviation = subtract(builder, (builder.cast(node, F64), _mean(builder, node, axes, True)))
    assert isinstance(deviation, Node)
    squares = builder.point("multiply", deviation, deviation)
    summed = builder.reduce("sum", squares, axes, flag_argument(builder, args[3], "keepdims"))
    if isinstance(count, Length):
        less = builder.point("subtract", builder.strong(Static(count), F64), builder.const(ddof, F64))
        left = builder.point("maximum", less, builder.const(0.0, F64))
    else:
        left = builder.const(count - ddof, F64)
    divisor = builder.broadcast(left, summed.shape)
    return builder.point("divide", summed, divisor), _result(node, None)


def var(builder: Builder, args: Args) -> Value:
    node, dtype = _variance(builder, args)
    return builder.cast(node, dtype)


def std(builder: Builder, args: Args) -> Value:
    node, dtype = _variance(builder, args)
    return builder.cast(builder.point("sqrt", node), dtype)


def extremum(name: str) -> Lowering:
    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        axes, keepdims = axes_argument(builder, args[1], len(node.shape)), flag_argument(builder, args[2], "keepdims")
        wide = builder.cast(node, np.dtype(np.uint8)) if node.dtype == BOOL else node
        return builder.cast(builder.reduce(name, wide, axes, keepdims), node.dtype)

    return lower


def _counted(builder: Builder, truth: Node, args: Args) -> Node:
    axes, keepdims = axes_argument(builder, args[1], len(truth.shape)), flag_argument(builder, args[2], "keepdims")
    return builder.reduce("sum", builder.cast(truth, I64), axes, keepdims)


def count_nonzero(builder: Builder, args: Args) -> Value:
    return _counted(builder, builder.truth(args[0]), args)


def any_of(builder: Builder, args: Args) -> Value:
    return builder.cast(_counted(builder, builder.truth(args[0]), args), BOOL)


def all_of(builder: Builder, args: Args) -> Value:
    untrue = builder.point("invert", builder.truth(args[0]))
    return builder.point("invert", builder.cast(_counted(builder, untrue, args), BOOL))
