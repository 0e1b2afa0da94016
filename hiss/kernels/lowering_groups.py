"""How sums by group, counts of groups, Otsu's threshold, bit fields and recursive filters become primitives.

See `lowering`, `arrays_groups`, `arrays_recursive`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hiss import limits
from hiss.kernels import dtypes
from hiss.kernels.builder import Builder, Misfit, Static, Value, describe
from hiss.kernels.dtypes import BOOL, F64, I64
from hiss.kernels.ir import Node
from hiss.kernels.lowering import Args, splat
from hiss.kernels.lowering_arrays import along, axis_argument, integer_argument

_OTSU_BINS: Any = 256


def group_sum(builder: Builder, args: Args) -> Value:
    """The map is cleaned and narrowed first; where it is a parameter, that is done once, when the kernel is bound."""
    values, index = builder.node(args[0]), builder.node(args[1])
    if index.dtype.kind not in "iu":
        raise Misfit(f"an index map holds integers, found {describe(index)}", args[1])
    if values.shape != index.shape:
        raise Misfit(f"the index map is {describe(index)}, the values are {describe(values)}", *args[:2])
    length = integer_argument(builder, args[2], "length", 1, limits.KERNEL_GROUPS_MAX)
    narrow = np.dtype(np.uint16 if length <= np.iinfo(np.uint16).max else np.uint32)
    inside = _inside(builder, index, length)
    outside = splat(builder, Static(length), narrow, index.shape)
    clean = builder.point("where", inside, builder.cast(index, narrow), outside)
    flat = [builder.reshape(node, (node.size,)) for node in (values, clean)]
    return builder.arrays("group_sum", *flat, attrs=(length,))


def _inside(builder: Builder, index: Node, length: int) -> Node:
    """Whether 0 <= index < length."""
    top = splat(builder, Static(length), index.dtype, index.shape) if dtypes.holds(index.dtype, length) else None
    every = splat(builder, Static(True), BOOL, index.shape)
    below = every if top is None else builder.point("less", index, top)
    if index.dtype.kind == "u":
        return below
    zero = splat(builder, Static(0), index.dtype, index.shape)
    return builder.point("bitwise_and", below, builder.point("less_equal", zero, index))


def groups_count(builder: Builder, args: Args) -> Value:
    mask = builder.truth(args[0])
    if len(mask.shape) != 2:
        raise Misfit(f"groups of pixels are counted in an array with two axes, found {describe(mask)}", args[0])
    connectivity = builder.known(args[1], "connectivity")
    if connectivity not in (4, 8) or isinstance(connectivity, bool):
        raise Misfit(f"connectivity is 4 (pixels share an edge) or 8 (or a corner), found {connectivity!r}", args[1])
    least = integer_argument(builder, args[2], "least", 1, mask.size)
    return builder.arrays("groups_count", mask, attrs=(int(connectivity), least))


def otsu(builder: Builder, args: Args) -> Value:
    """uint8, uint16: a place for each value; others: 256 bins between the smallest and the largest value."""
    node = builder.node(args[0])
    if node.dtype == BOOL or not node.shape:
        raise Misfit(f"a threshold of {describe(node)}", args[0])
    if node.dtype.kind == "u" and node.dtype.itemsize <= 2:
        flat = builder.reshape(node, (node.size,))
        length = 1 << (8 * node.dtype.itemsize)
        split = builder.arrays("otsu_split", _histogram(builder, builder.cast(flat, I64), length))
        return builder.cast(split, F64)
    wide = builder.cast(node, F64)
    low, high = (builder.reduce(name, wide, tuple(range(len(node.shape))), False) for name in ("min", "max"))
    width = builder.point("divide", builder.point("subtract", high, low), builder.strong(Static(_OTSU_BINS), F64))
    offset = builder.point("subtract", wide, builder.broadcast(low, wide.shape))
    place = builder.point("divide", offset, builder.broadcast(width, wide.shape))
    top = splat(builder, Static(_OTSU_BINS - 1), I64, node.shape)
    index = builder.point("minimum", builder.cast(place, I64), top)
    split = builder.arrays("otsu_split", _histogram(builder, builder.reshape(index, (node.size,)), _OTSU_BINS))
    middle = builder.point("add", builder.cast(split, F64), builder.strong(Static(0.5), F64))
    return builder.point("add", low, builder.point("multiply", middle, width))


def _histogram(builder: Builder, index: Node, length: int) -> Node:
    return builder.arrays("bincount", index, attrs=(length,))


def bits(builder: Builder, args: Args) -> Value:
    """(x >> first) & (2**count - 1)."""
    node = builder.node(args[0])
    if node.dtype.kind not in "iu":
        raise Misfit(f"bit fields are taken of integers, found {describe(node)}", args[0])
    width = node.dtype.itemsize * 8
    first = integer_argument(builder, args[1], "the first bit", 0, width - 1)
    count = integer_argument(builder, args[2], "the number of bits", 1, width - first)
    shifted = node
    if first:
        shifted = builder.point("right_shift", node, splat(builder, Static(first), node.dtype, node.shape))
    if count == width or (first + count == width and node.dtype.kind == "u"):
        return shifted
    return builder.point("bitwise_and", shifted, splat(builder, Static((1 << count) - 1), node.dtype, node.shape))


def iir(builder: Builder, args: Args) -> Value:
    """y[k] = b0 x[k] + b1 x[k-1] + a1 y[k-1] along an axis, from rest: x[-1] = y[-1] = 0."""
    node = builder.node(args[0])
    dtype = dtypes.inexact(node.dtype)
    axis = axis_argument(builder, args[4], len(node.shape))
    laid, shape = along(builder, builder.cast(node, F64), axis)
    coefficients = [_coefficient(builder, value) for value in args[1:4]]
    return builder.cast(builder.reshape(builder.arrays("recursive", laid, *coefficients), shape), dtype)


def _coefficient(builder: Builder, value: Value) -> Node:
    node = builder.cast(value, F64)
    if node.shape:
        raise Misfit(f"a coefficient is one number, found {describe(node)}", value)
    return node
