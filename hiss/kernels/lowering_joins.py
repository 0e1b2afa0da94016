"""How arrays are joined, padded, turned and counted out: views and one primitive that lays arrays in a row.

See `lowering`. Whatever NumPy would do by copying in pieces (`pad`, `stack`, `roll`) is slices and `concatenate` here.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from hiss import limits
from hiss.kernels.builder import Builder, Misfit, Static, Value, describe, kind_of
from hiss.kernels.dtypes import I64
from hiss.kernels.ir import Node
from hiss.kernels.lengths import Length
from hiss.kernels.lowering import Args, Lowering, splat, subtract
from hiss.kernels.lowering_arrays import axis_argument, integer_argument
from hiss.kernels.lowering_reductions import distinct_axes
from hiss.kernels.lowering_shapes import flip

EDGES: Final = ("constant", "edge", "reflect", "symmetric", "wrap")
"""What `np.pad` may put around an array."""


def _parts(builder: Builder, value: Value) -> list[Node]:
    """The arrays of a tuple, in one dtype."""
    if not isinstance(value, Static) or not isinstance(value.value, tuple) or not value.value:
        raise Misfit("expected a tuple of arrays, such as np.stack((a, b))", value)
    parts = [builder.node(part if isinstance(part, Node) else Static(part, value.names)) for part in value.value]
    dtype = builder.common_dtype(*parts)  # a Python number is an array of its own here, as in NumPy
    return [builder.cast(part, dtype) for part in parts]


def joined(builder: Builder, parts: list[Node], axis: int) -> Node:
    """Arrays one behind the other along an axis; their other sizes agree."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0].shape
    rest = {(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts}
    if not first or len(rest) > 1 or any(len(part.shape) != len(first) for part in parts):
        shapes = " and ".join(describe(part) for part in parts)
        raise Misfit(f"arrays that are joined along axis {axis} agree in their other sizes: {shapes}", *parts)
    outer, inner = math.prod(first[:axis]), math.prod(first[axis + 1 :])
    laid = [builder.reshape(part, (outer, part.shape[axis], inner)) for part in parts]
    count = sum(part.shape[axis] for part in parts)
    return builder.reshape(builder.arrays("concatenate", *laid), (*first[:axis], count, *first[axis + 1 :]))


def concatenate(builder: Builder, args: Args) -> Value:
    parts = _parts(builder, args[0])
    axis = axis_argument(builder, args[1], min(len(part.shape) for part in parts))
    if axis is None:
        parts, axis = [builder.reshape(part, (part.size,)) for part in parts], 0
    return joined(builder, parts, axis)


def stack(builder: Builder, args: Args) -> Value:
    parts = _parts(builder, args[0])
    if len({part.shape for part in parts}) > 1:
        raise Misfit(f"stacked arrays have one shape: {' and '.join(map(describe, parts))}", *parts)
    (axis,) = distinct_axes((builder.known(args[1], "an axis"),), len(parts[0].shape) + 1, args[1])
    shape = parts[0].shape
    return joined(builder, [builder.reshape(part, (*shape[:axis], 1, *shape[axis:])) for part in parts], axis)


def _piece(builder: Builder, node: Node, axis: int, start: int, count: int, step: int = 1) -> Node:
    starts = tuple(start if k == axis else 0 for k in range(len(node.shape)))
    steps = tuple(step if k == axis else 1 for k in range(len(node.shape)))
    return builder.slice(node, starts, steps, tuple(count if k == axis else n for k, n in enumerate(node.shape)))


def roll(builder: Builder, args: Args) -> Value:
    """`np.roll` along one axis, or of the array laid flat."""
    node = builder.node(args[0])
    shift, axis = builder.known(args[1], "a shift"), axis_argument(builder, args[2], len(node.shape))
    if isinstance(shift, bool) or not isinstance(shift, int):
        raise Misfit(f"a shift is an integer, found {kind_of(Static(shift))}", args[1])
    laid = builder.reshape(node, (node.size,)) if axis is None else node
    axis = axis or 0
    if not laid.shape or not shift % laid.shape[axis]:
        return node
    cut = laid.shape[axis] - shift % laid.shape[axis]
    tail = _piece(builder, laid, axis, cut, laid.shape[axis] - cut)
    return builder.reshape(joined(builder, [tail, _piece(builder, laid, axis, 0, cut)], axis), node.shape)


def pad(builder: Builder, args: Args) -> Value:
    """`np.pad`: one width, or (before, after), or such a pair for each axis."""
    node, mode = builder.node(args[0]), builder.known(args[2], "a mode")
    if mode not in EDGES:
        raise Misfit(f"the mode of pad is one of {', '.join(map(repr, EDGES))}, found {kind_of(Static(mode))}", args[2])
    value = args[3]
    if not isinstance(value, Static) or value.value is not None:
        if mode != "constant":
            raise Misfit(f"constant_values belongs to the mode 'constant', not to {mode!r}", value)
    else:
        value = Static(0)
    widths = _widths(builder, args[1], len(node.shape))
    for axis, (before, after) in enumerate(widths):
        size = node.shape[axis]
        most = {"reflect": size - 1, "symmetric": size, "wrap": size}.get(mode)
        if most is not None and max(before, after) > most:
            raise Misfit(f"{mode!r} pads at most {most} at each end of axis {axis}, whose size is {size}", *args)
        outside = _outside(builder, node, axis, mode, value)
        ends = [outside(before, True)] if before else [], [outside(after, False)] if after else []
        node = joined(builder, [*ends[0], node, *ends[1]], axis)
    return node


def _widths(builder: Builder, value: Value, rank: int) -> list[tuple[int, int]]:
    known = builder.known(value, "a width")
    try:
        pairs = np.broadcast_to(np.asarray(known), (rank, 2)).tolist()
        good = all(type(width) is int and 0 <= width <= limits.BLOCK_BYTES_MAX for pair in pairs for width in pair)
    except ValueError:
        good = False
    if not good:
        raise Misfit(f"the width of pad is an integer of at least 0, a pair, or a pair for each of {rank} axes", value)
    return [(before, after) for before, after in pairs]


def _outside(builder: Builder, node: Node, axis: int, mode: str, value: Value) -> Any:
    """What stands beyond an end: a function of its width and whether it is before the first element."""
    size = node.shape[axis]

    def piece(width: int, before: bool) -> Node:
        shape = tuple(width if k == axis else n for k, n in enumerate(node.shape))
        match mode:
            case "constant":
                return splat(builder, value, node.dtype, shape)
            case "edge":
                return builder.broadcast(_piece(builder, node, axis, 0 if before else size - 1, 1), shape)
            case "wrap":
                return _piece(builder, node, axis, size - width if before else 0, width)
        skipped = 1 if mode == "reflect" else 0
        first = width - 1 + skipped if before else size - 1 - skipped
        return _piece(builder, node, axis, first, width, -1)

    return piece


def flip_axis(axis: int, least_rank: int) -> Lowering:
    """`fliplr`, `flipud`."""

    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        if len(node.shape) < least_rank:
            raise Misfit(f"{describe(node)} has fewer than {least_rank} dimensions", *args)
        return flip(builder, (node, Static(axis)))

    return lower


def rot90(builder: Builder, args: Args) -> Value:
    """Quarter turns in the plane of two axes, from the first towards the second."""
    node, turns = builder.node(args[0]), integer_argument(builder, args[1], "k", -4, 4) % 4
    known = builder.known(args[2], "axes")
    if len(node.shape) < 2 or not isinstance(known, tuple) or len(known) != 2:
        raise Misfit(f"rot90 turns in the plane of two axes; found {describe(node)}, axes {known!r}", *args)
    first, second = distinct_axes(known, len(node.shape), args[2])
    order = list(range(len(node.shape)))
    order[first], order[second] = second, first
    if turns == 2:
        return flip(builder, (node, Static((first, second))))
    if turns == 1:
        return builder.permute(_flipped(builder, node, second), tuple(order))
    return _flipped(builder, builder.permute(node, tuple(order)), second) if turns == 3 else node


def _flipped(builder: Builder, node: Node, axis: int) -> Node:
    return _piece(builder, node, axis, node.shape[axis] - 1, node.shape[axis], -1)


def moveaxis(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    rank = len(node.shape)
    (source,), (target,) = (distinct_axes((builder.known(arg, "an axis"),), rank, arg) for arg in (args[1], args[2]))
    order = [axis for axis in range(rank) if axis != source]
    order.insert(target, source)
    return builder.permute(node, tuple(order))


def arange(builder: Builder, args: Args) -> Value:
    """`np.arange` of integers."""
    known = [builder.known(arg, "a bound of arange") for arg in args[:3]]
    if any(isinstance(one, bool) or not isinstance(one, int | None) for one in known) or known[0] is None:
        raise Misfit("arange takes integers; for a step such as 0.5 write np.arange(n) * 0.5", *args)
    start, stop, step = (0, known[0], known[2]) if known[1] is None else known
    if isinstance(stop, Length) and (start, step) in ((0, None), (0, 1)):
        return builder.arrays("arange", attrs=(0, 1, stop))
    if isinstance(stop, Length):
        raise Misfit("of the axis of variable length np.arange(n) is all that there is", *args)
    numbers = range(start, stop, step or 1) if step != 0 else range(0)
    if not numbers:
        raise Misfit("the range is empty; an array has at least one element", *args)
    if len(numbers) > limits.BLOCK_BYTES_MAX or not min(numbers[0], numbers[-1]) >= -(1 << 63):
        raise Misfit("numbers of a range", *args, limit="BLOCK_BYTES_MAX", found=len(numbers))
    if max(numbers[0], numbers[-1]) >= 1 << 63:
        raise Misfit("the numbers of a range fit int64", *args)
    return builder.arrays("arange", attrs=(numbers.start, numbers.step or 1, len(numbers)))


def arg_extreme(primitive: str) -> Lowering:
    """`argmin`, `argmax`: the place of the first one; of a NaN if there is one."""

    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        axis = axis_argument(builder, args[1], len(node.shape))
        shape = node.shape if axis is not None else (node.size,)
        axis = axis or 0
        node = builder.cast(node, np.dtype(np.uint8)) if node.dtype.kind == "b" else node
        laid = builder.reshape(node, (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])))
        found = builder.arrays(primitive, laid)
        assert found.dtype == I64
        return builder.reshape(found, (*shape[:axis], *shape[axis + 1 :]))

    return lower


def diff(builder: Builder, args: Args) -> Value:
    """Each element less the one before it; of bools whether they differ."""
    node = builder.node(args[0])
    axis = axis_argument(builder, args[1], len(node.shape))
    if axis is None or not node.shape or node.shape[axis] < 2:
        raise Misfit(f"diff needs an axis with two elements at least, found {describe(node)}", *args)
    count = node.shape[axis] - 1
    after, before = _piece(builder, node, axis, 1, count), _piece(builder, node, axis, 0, count)
    return builder.point("not_equal", after, before) if node.dtype.kind == "b" else subtract(builder, (after, before))
