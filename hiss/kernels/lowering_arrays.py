"""How functions that look at many elements become primitives of whole arrays. See `lowering`, `arrays`.

The primitives take operands with few axes, (outer, count, inner), so that their routines need to know no more.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hiss.kernels import dtypes
from hiss.kernels.builder import Builder, Misfit, Static, Value, describe, kind_of
from hiss.kernels.dtypes import F64, I64
from hiss.kernels.ir import VIEWS, Node, Shape
from hiss.kernels.lowering import Args, Lowering
from hiss.kernels.lowering_reductions import distinct_axes, total


def axis_argument(builder: Builder, value: Value, rank: int) -> int | None:
    """One axis, or None for the array laid flat."""
    known = builder.known(value, "an axis")
    return None if known is None else distinct_axes((known,), rank, value)[0]


def integer_argument(builder: Builder, value: Value, what: str, least: int, most: int) -> int:
    """A static integer within bounds."""
    known = builder.known(value, what)
    if isinstance(known, bool) or not isinstance(known, int) or not least <= known <= most:
        raise Misfit(f"{what} is an integer from {least} to {most}, found {kind_of(Static(known))}", value)
    return known


def along(builder: Builder, node: Node, axis: int | None) -> tuple[Node, Shape]:
    """The array as (outer, count, inner) around `axis`, and the shape in which it came (flat, if None)."""
    shape = node.shape if axis is not None else (node.size,)
    axis = axis or 0
    sizes = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    return builder.reshape(node, sizes), shape


def running(name: str) -> Lowering:
    """`cumsum` and `cumprod`: integers in 64 bits, floats in float64, given back in their own dtype."""

    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        wide = builder.cast(node, dtypes.total(node.dtype))
        laid, shape = along(builder, wide, axis_argument(builder, args[1], len(node.shape)))
        result = builder.reshape(builder.arrays(name, laid), shape)
        return builder.cast(result, node.dtype if node.dtype.kind == "f" else wide.dtype)

    return lower


def running_extreme(name: str) -> Lowering:
    """`np.maximum.accumulate` and its like, in the array's own dtype."""

    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        axis = axis_argument(builder, args[1], len(node.shape))
        if axis is None:
            raise Misfit("accumulate goes along one axis", args[1])
        wide = builder.cast(node, np.dtype(np.uint8)) if node.dtype.kind == "b" else node
        laid, shape = along(builder, wide, axis)
        return builder.cast(builder.reshape(builder.arrays(name, laid), shape), node.dtype)

    return lower


def index_map(builder: Builder, value: Value) -> Node:
    node = builder.node(value)
    if node.dtype.kind not in "iu":
        raise Misfit(f"indices are integers, found {describe(node)}; convert them with .astype(np.int64)", value)
    return builder.cast(node, I64)


def _check_range(builder: Builder, value: Value, count: int) -> None:
    """An index map that is a parameter, or a part of one, is checked when it is bound."""
    node = builder.node(value)
    while node.op in VIEWS or node.op == "cast":
        node = node.args[0]
    if node.op != "array":
        return
    known = builder.array_values[node.attrs[0]]
    low, high = int(known.min()), int(known.max())
    if low < 0 or high >= count:
        raise Misfit(f"the index map goes from {low} to {high}, the axis from 0 to {count - 1}", value)


def take(builder: Builder, args: Args) -> Value:
    """`np.take` with mode 'clip', and without negative indices from the end."""
    node, indices = builder.node(args[0]), index_map(builder, args[1])
    axis = axis_argument(builder, args[2], len(node.shape))
    laid, shape = along(builder, node, axis)
    axis = axis or 0
    _check_range(builder, args[1], shape[axis])
    shaped = builder.reshape(indices, (indices.size,))
    result = builder.arrays("take", laid, shaped)
    return builder.reshape(result, (*shape[:axis], *indices.shape, *shape[axis + 1 :]))


def bincount(builder: Builder, args: Args) -> Value:
    indices = index_map(builder, args[0])
    length = integer_argument(builder, args[2], "length", 1, 1 << 31)
    operands = [indices]
    if not (isinstance(args[1], Static) and args[1].value is None):
        operands = builder.one_shape([indices, builder.cast(args[1], F64)])
    flat = [builder.reshape(operand, (operand.size,)) for operand in operands]
    return builder.arrays("bincount", *flat, attrs=(length,))


def bin2d(builder: Builder, args: Args) -> Value:
    """Sums over blocks of `factor` x `factor` or (rows, columns); the last axes must divide."""
    node = builder.node(args[0])
    known = builder.known(args[1], "factor")
    pair = known if isinstance(known, tuple) and len(known) == 2 else (known, known)
    assert isinstance(args[1], Static)
    rows, columns = (integer_argument(builder, Static(n, args[1].names), "factor", 1, 1 << 15) for n in pair)
    if len(node.shape) < 2 or node.shape[-2] % rows or node.shape[-1] % columns:
        raise Misfit(
            f"{describe(node)} does not divide into blocks of {rows} x {columns}; crop it first: "
            f"x[: h // {rows} * {rows}, : w // {columns} * {columns}]",
            *args,
        )
    *outer, height, width = node.shape
    shape = (*outer, height // rows, rows, width // columns, columns)
    blocks = builder.reshape(node, shape)
    axes: Any = Static((-3, -1))
    return total("sum")(builder, (blocks, axes, Static(None), Static(False)))
