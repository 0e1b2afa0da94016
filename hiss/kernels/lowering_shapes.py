"""How shapes, indices and new arrays become views and constants, and what is known of them. See `lowering`."""

from __future__ import annotations

import math
from typing import Any

from hiss.kernels.builder import SELECT, Builder, Misfit, Static, Value, describe, kind_of
from hiss.kernels.dtypes import BOOL, F64
from hiss.kernels.ir import Node, Shape
from hiss.kernels.lengths import Length, broadcast_shape, is_variable
from hiss.kernels.lowering import Args, Lowering, dtype_argument, splat
from hiss.kernels.lowering_reductions import axes_argument, distinct_axes

# ---------------------------------------------------------------------------------------------------- shape


def _sizes(builder: Builder, value: Value, what: str = "a shape") -> Shape:
    known = builder.known(value, what)
    sizes = known if isinstance(known, tuple) else (known,)
    if any(isinstance(size, bool) or not isinstance(size, int) for size in sizes):
        raise Misfit(f"{what} is an integer or a tuple of integers, found {kind_of(Static(known))}", value)
    return sizes


def _shape(builder: Builder, value: Value) -> Shape:
    sizes = _sizes(builder, value)
    if any(size < 1 for size in sizes):
        raise Misfit(f"sizes are at least 1, found {sizes}", value)
    return sizes


def reshape(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    sizes = _sizes(builder, args[1])
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        if rest > 0 and node.size % rest == 0:
            sizes = tuple(node.size // rest if size == -1 else size for size in sizes)
    if any(size < 1 for size in sizes) or math.prod(sizes) != node.size:
        raise Misfit(f"{describe(node)} cannot take the shape {sizes}", *args)
    return builder.reshape(node, sizes)


def ravel(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    return builder.reshape(node, (node.size,))


def transpose(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    rank = len(node.shape)
    known = builder.known(args[1], "axes") if len(args) > 1 else None
    if known is None:
        return builder.permute(node, tuple(reversed(range(rank))))
    axes = distinct_axes(known if isinstance(known, tuple) else (known,), rank, args[1])
    if len(axes) != rank:
        raise Misfit(f"axes {known} of an array with {rank} dimensions", *args)
    return builder.permute(node, tuple(axes))


def swapaxes(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    axes = list(range(len(node.shape)))
    first, second = (distinct_axes((builder.known(arg, "an axis"),), len(axes), arg)[0] for arg in (args[1], args[2]))
    axes[first], axes[second] = axes[second], axes[first]
    return builder.permute(node, tuple(axes))


def squeeze(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    single = tuple(axis for axis, size in enumerate(node.shape) if size == 1)
    axes = single if builder.known(args[1], "an axis") is None else axes_argument(builder, args[1], len(node.shape))
    if not set(axes) <= set(single):
        raise Misfit(f"squeezed axes have size 1; the shape is {node.shape}", *args)
    return builder.reshape(node, tuple(size for axis, size in enumerate(node.shape) if axis not in axes))


def expand_dims(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    known = builder.known(args[1], "an axis")
    axes = known if isinstance(known, tuple) else (known,)
    rank = len(node.shape) + len(axes)
    places = set(distinct_axes(axes, rank, args[1]))
    sizes = iter(node.shape)
    return builder.reshape(node, tuple(1 if axis in places else next(sizes) for axis in range(rank)))


def flip(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    axes = axes_argument(builder, args[1], len(node.shape))
    starts = tuple(size - 1 if axis in axes else 0 for axis, size in enumerate(node.shape))
    steps = tuple(-1 if axis in axes else 1 for axis in range(len(node.shape)))
    return builder.slice(node, starts, steps, node.shape)


def broadcast_to(builder: Builder, args: Args) -> Value:
    node, shape = builder.node(args[0]), _shape(builder, args[1])
    try:
        fits = broadcast_shape([node.shape, shape]) == shape
    except ValueError:
        fits = False
    if not fits:
        raise Misfit(f"{describe(node)} does not broadcast to {shape}", *args)
    return builder.broadcast(node, shape)


def getitem(builder: Builder, args: Args) -> Value:
    """Basic indexing. Of a static tuple (a shape): its entry or its part."""
    value, key = args
    if isinstance(value, Static) and isinstance(value.value, tuple):
        index = builder.known(key, "the index of a tuple")
        if isinstance(index, slice) or (isinstance(index, int) and -len(value.value) <= index < len(value.value)):
            part = value.value[index]
            names = value.names | (key.names if isinstance(key, Static) else frozenset())
            return part if isinstance(part, Node) else Static(part, names)
        raise Misfit(f"index {index!r} of a tuple with {len(value.value)} entries", *args)
    node = builder.node(value)
    if isinstance(key, Node) and is_variable(node.shape[:1]) and key.dtype == BOOL:
        return _selected(builder, node, key, args)
    if isinstance(key, Node):
        if key.dtype == BOOL:
            advice = (
                "instead of a mask write np.where(mask, x, 0); for statistics np.nanmean(np.where(mask, x, np.nan))"
            )
        else:
            advice = "an index that is computed goes through np.take(values, indices), which clips it"
        raise Misfit(f"what stands in brackets is known before the kernel runs; {advice}", *args)
    keys = key.value if isinstance(key.value, tuple) else (key.value,)
    return _indexed(builder, node, keys, args)


def _selected(builder: Builder, node: Node, mask: Node, args: Args) -> Node:
    """x[mask], of the items of a packet."""
    if mask.shape != node.shape[:1]:
        raise Misfit(
            f"the mask is {describe(mask)}, the packet {describe(node)}; a mask has one truth for each item", *args
        )
    return builder.make(SELECT, (node, mask), node.dtype, node.shape)


def _indexed(builder: Builder, node: Node, keys: tuple[Any, ...], args: Args) -> Node:
    consumed = sum(entry is not None and entry is not Ellipsis for entry in keys)
    rank = len(node.shape)
    if sum(entry is Ellipsis for entry in keys) > 1 or consumed > rank:
        raise Misfit(f"{consumed} indices for {describe(node)}", *args)
    if Ellipsis not in keys:
        keys = (*keys, Ellipsis)
    starts: list[int] = []
    steps: list[int] = []
    counts: list[int] = []
    shape: list[int] = []
    for entry in keys:
        if entry is None:
            shape.append(1)
            continue
        if entry is Ellipsis:
            sizes = node.shape[len(starts) : len(starts) + rank - consumed]
            starts += [0] * len(sizes)
            steps += [1] * len(sizes)
            counts += sizes
            shape += sizes
            continue
        size = node.shape[len(starts)]
        if isinstance(size, Length) and entry not in (slice(None), slice(None, None, 1)):
            raise Misfit("of the axis of variable length all is taken, x[:], or what a mask selects, x[mask]", *args)
        start, step, count = (0, 1, size) if isinstance(size, Length) else _range(entry, size, len(starts), args)
        starts.append(start)
        steps.append(step)
        counts.append(count)
        if isinstance(entry, slice):
            shape.append(count)
    part = builder.slice(node, tuple(starts), tuple(steps), tuple(counts))
    return builder.reshape(part, tuple(shape))


def _range(entry: Any, size: int, axis: int, args: Args) -> tuple[int, int, int]:
    """The start, step and count of one index or slice on an axis of `size`."""
    if isinstance(entry, slice):
        if any(
            isinstance(part, bool) or not isinstance(part, int | None) for part in (entry.start, entry.stop, entry.step)
        ):
            raise Misfit("a slice has integers; write `//` for a division of sizes, and bind Python numbers", *args)
        if entry.step == 0:
            raise Misfit("a slice with step 0", *args)
        chosen = range(size)[entry]
        if not chosen:
            raise Misfit(f"the slice of axis {axis} is empty; its size is {size}", *args)
        return chosen.start, chosen.step, len(chosen)
    if isinstance(entry, bool) or not isinstance(entry, int):
        hint = "; `//` divides to a whole number" if isinstance(entry, float) else ""
        raise Misfit(f"an index is an integer, a slice, ... or None, found {kind_of(Static(entry))}{hint}", *args)
    if not -size <= entry < size:
        raise Misfit(f"index {entry} of axis {axis}, whose size is {size}", *args)
    return entry % size, 1, 1


# ---------------------------------------------------------------------------------------------------- new arrays


def filled(value: int) -> Lowering:
    def lower(builder: Builder, args: Args) -> Value:
        return splat(builder, Static(value), dtype_argument(builder, args[1]) or F64, _shape(builder, args[0]))

    return lower


def full(builder: Builder, args: Args) -> Value:
    shape, value, dtype = _shape(builder, args[0]), builder.node(args[1]), dtype_argument(builder, args[2])
    value = builder.cast(args[1] if isinstance(args[1], Static) and dtype else value, dtype or value.dtype)
    return broadcast_to(builder, (value, Static(shape)))


def filled_like(value: int) -> Lowering:
    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        return splat(builder, Static(value), dtype_argument(builder, args[1]) or node.dtype, node.shape)

    return lower


def full_like(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    value = builder.cast(args[1], dtype_argument(builder, args[2]) or node.dtype)
    return broadcast_to(builder, (value, Static(node.shape)))


# ---------------------------------------------------------------------------------------------------- known before


def shape_of(builder: Builder, args: Args) -> Value:
    return Static(builder.node(args[0]).shape)


def ndim_of(builder: Builder, args: Args) -> Value:
    return Static(len(builder.node(args[0]).shape))


def size_of(builder: Builder, args: Args) -> Value:
    return Static(builder.node(args[0]).size)


def dtype_of(builder: Builder, args: Args) -> Value:
    return Static(builder.node(args[0]).dtype)


def length_of(builder: Builder, args: Args) -> Value:
    if isinstance(args[0], Static) and isinstance(args[0].value, tuple):
        return Static(len(args[0].value))
    shape = builder.node(args[0]).shape
    if not shape:
        raise Misfit("a single value has no length", *args)
    return Static(shape[0])
