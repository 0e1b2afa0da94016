"""How the functions of the language become primitives: NumPy's dtype and shape rules, one function for each rule.

Every function takes the builder and the values of the table's signature and returns a value; the makers return such a
function for a primitive. What does not fit raises `Misfit`. Called by the specialiser, in its thread.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from hiss.kernels import dtypes
from hiss.kernels.builder import Builder, Misfit, Static, Value, describe, kind_of
from hiss.kernels.dtypes import BOOL, F64, I64, U64, DType
from hiss.kernels.ir import Node, Shape

Args = tuple[Value, ...]
Lowering = Callable[[Builder, Args], Value]
_SMALLEST = np.dtype(np.int8)  # where NumPy takes bools for `//`, `%`, `<<`, `>>`

# ---------------------------------------------------------------------------------------------------- arithmetic


def arithmetic(name: str) -> Lowering:
    """`+ * // %` in the common dtype. Sums of bools are `or`, products `and`, the others are taken in int8."""
    logical = {"add": "bitwise_or", "multiply": "bitwise_and"}

    def lower(builder: Builder, args: Args) -> Value:
        dtype = builder.common_dtype(*args)
        if dtype == BOOL and name not in logical:
            dtype = _SMALLEST
        return builder.point(logical[name] if dtype == BOOL else name, *builder.together(args, dtype))

    return lower


def subtract(builder: Builder, args: Args) -> Value:
    dtype = builder.common_dtype(*args)
    if dtype == BOOL:
        raise Misfit("bools are not subtracted; use ^ or np.logical_xor", *args)
    if dtype.kind == "u":
        builder.warnings.append(
            f"{dtype} - {dtype} wraps below zero; convert first, for example with .astype(np.float32)"
        )
    return builder.point("subtract", *builder.together(args, dtype))


def divide(builder: Builder, args: Args) -> Value:
    dtype = builder.common_dtype(*args)
    return builder.point("divide", *builder.together(args, dtype if dtype.kind == "f" else F64))


def unary(name: str) -> Lowering:
    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        if node.dtype == BOOL and name != "absolute":
            raise Misfit(f"{name} of bools; use ~ or np.logical_not", *args)
        return node if name == "positive" or node.dtype == BOOL else builder.point(name, node)

    return lower


def square(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    node = builder.cast(node, _SMALLEST) if node.dtype == BOOL else node
    return builder.point("multiply", node, node)


def power(builder: Builder, args: Args) -> Value:
    """Integer powers by multiplication; of floats for 0 to 4, 0.5 and -1, which so are exact to rounding."""
    base, exponent = args
    dtype = builder.common_dtype(*args)
    known = exponent.value if isinstance(exponent, Static) else None
    if dtype.kind != "f":
        if isinstance(exponent, Node) or not isinstance(known, int) or known < 0:
            raise Misfit("the exponent of an integer is a number known before the kernel runs, and at least 0", *args)
        dtype = _SMALLEST if dtype == BOOL else dtype
        if not dtypes.holds(dtype, known):
            raise Misfit(f"the exponent {known} does not fit {dtype}", *args)
        return _repeated(builder, builder.cast(base, dtype), known)
    if isinstance(exponent, Static) and not exponent.names:
        node = builder.cast(base, dtype)
        if known in (0, 1, 2, 3, 4):
            return _repeated(builder, node, int(known))
        if known == 0.5:
            return builder.point("sqrt", node)
        if known == -1:
            return builder.point("divide", _splat(builder, Static(1), dtype, node.shape), node)
    return builder.point("power", *builder.together(args, dtype))


def _repeated(builder: Builder, node: Node, exponent: int) -> Node:
    """By squaring. For 3 and 4 that is (x*x)*x and (x*x)*(x*x)."""
    result: Node | None = None
    while exponent:
        if exponent & 1:
            result = node if result is None else builder.point("multiply", node, result)
        exponent >>= 1
        if exponent:
            node = builder.point("multiply", node, node)
    return result if result is not None else _splat(builder, Static(1), node.dtype, node.shape)


def _inexact(builder: Builder, args: Args) -> list[Node]:
    """Each operand decides which float it needs: uint16 and int8 meet in float32, though as integers in int32."""
    weak = [type(arg.value) for arg in args if isinstance(arg, Static)]
    strong = [dtypes.inexact(dtypes.promote([arg.dtype], weak)) for arg in args if isinstance(arg, Node)]
    return builder.together(args, dtypes.promote(strong, []) if strong else dtypes.inexact(builder.common_dtype(*args)))


def inexact(name: str) -> Lowering:
    """Functions of floats; integers are converted as the table says."""
    return lambda builder, args: builder.point(name, *_inexact(builder, args))


def whole(name: str) -> Lowering:
    """`floor`, `ceil`, `trunc`: integers are what they are (as in NumPy from 2.1)."""

    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        return builder.point(name, node) if node.dtype.kind == "f" else node

    return lower


def bits(name: str) -> Lowering:
    def lower(builder: Builder, args: Args) -> Value:
        dtype = builder.common_dtype(*args)
        if dtype.kind == "f":
            raise Misfit(f"{name} of floats ({' and '.join(map(describe, args))})", *args)
        if dtype == BOOL and name.endswith("shift"):
            dtype = _SMALLEST
        return builder.point(name, *builder.together(args, dtype))

    return lower


# ---------------------------------------------------------------------------------------------------- comparison

_SWAPPED = {"greater": "less", "greater_equal": "less_equal"}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "less": operator.lt,
    "less_equal": operator.le,
    "equal": operator.eq,
    "not_equal": operator.ne,
}


def compare(name: str) -> Lowering:
    """Integers compare exactly, whatever their dtypes, and so do integers with Python integers beyond their range."""

    def lower(builder: Builder, args: Args) -> Value:
        left, right = (args[1], args[0]) if name in _SWAPPED else args
        order = _SWAPPED.get(name, name)
        for node, number, mirrored in ((left, right, False), (right, left, True)):
            if isinstance(node, Node) and isinstance(number, Static) and _beyond(node, number.value):
                answer = _ORDER[order](number.value, 0) if mirrored else _ORDER[order](0, number.value)
                return _splat(builder, Static(answer), BOOL, node.shape)
        if isinstance(left, Node) and isinstance(right, Node) and {left.dtype, right.dtype} == {I64, U64}:
            return _mixed(builder, order, *builder.one_shape([left, right]))
        return builder.point(order, *builder.together((left, right)))

    return lower


def _beyond(node: Node, value: Any) -> bool:
    return node.dtype.kind in "iu" and isinstance(value, int) and not dtypes.holds(node.dtype, value)


def _mixed(builder: Builder, order: str, left: Node, right: Node) -> Node:
    """int64 against uint64: the sign decides first, then both are compared as uint64."""
    signed = left if left.dtype == I64 else right
    zero = builder.broadcast(builder.const(0, I64), signed.shape)
    below = builder.point("less", signed, zero)
    same = builder.point(order, builder.cast(left, U64), builder.cast(right, U64))
    negative_answers = _ORDER[order](-1, 0) if signed is left else _ORDER[order](0, -1)
    if negative_answers:
        return builder.point("bitwise_or", below, same)
    return builder.point("bitwise_and", builder.point("invert", below), same)


def logical(name: str) -> Lowering:
    def lower(builder: Builder, args: Args) -> Value:
        return builder.point(name, *builder.one_shape([builder.truth(arg) for arg in args]))

    return lower


def test(name: str) -> Lowering:
    """`isnan` and its like: of integers known without looking."""

    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        if node.dtype.kind != "f":
            return _splat(builder, Static(name == "isfinite"), BOOL, node.shape)
        return builder.point(name, node)

    return lower


def where(builder: Builder, args: Args) -> Value:
    condition, *choices = args
    dtype = builder.common_dtype(*choices)
    nodes = [builder.cast(choice, dtype) for choice in choices]
    return builder.point("where", *builder.one_shape([builder.truth(condition), *nodes]))


def extreme(name: str) -> Lowering:
    logical = {"minimum": "bitwise_and", "maximum": "bitwise_or"}

    def lower(builder: Builder, args: Args) -> Value:
        dtype = builder.common_dtype(*args)
        return builder.point(logical[name] if dtype == BOOL else name, *builder.together(args, dtype))

    return lower


def clip(builder: Builder, args: Args) -> Value:
    """`minimum(maximum(a, a_min), a_max)`; Python integers beyond the dtype's range are no bound."""
    value = builder.node(args[0])
    bounds = {"maximum": args[1], "minimum": args[2]}
    for name, bound in tuple(bounds.items()):
        if isinstance(bound, Static) and (bound.value is None or _no_bound(name, value.dtype, bound.value)):
            del bounds[name]
    dtype = builder.common_dtype(value, *bounds.values())
    result: Value = builder.cast(value, dtype)
    for name, bound in bounds.items():
        result = extreme(name)(builder, (result, builder.cast(bound, dtype)))
    return result


def _no_bound(name: str, dtype: DType, value: Any) -> bool:
    """Whether a Python integer lies on the far side of all that `dtype` holds."""
    if dtype.kind not in "iu" or not isinstance(value, int):
        return False
    edges = np.iinfo(dtype)
    return value <= edges.min if name == "maximum" else value >= edges.max


# ---------------------------------------------------------------------------------------------------- conversion


def dtype_argument(builder: Builder, value: Value) -> DType | None:
    """A dtype, or None where None was given."""
    known = builder.known(value, "a dtype")
    if known is None or isinstance(known, np.dtype):
        return known
    raise Misfit(f"expected a dtype such as np.float32, found {kind_of(Static(known))}", value)


def astype(builder: Builder, args: Args) -> Value:
    dtype = dtype_argument(builder, args[1])
    if dtype is None:
        raise Misfit("astype needs a dtype such as np.float32", *args)
    return builder.cast(args[0], dtype)


# ---------------------------------------------------------------------------------------------------- reductions


def _axes(builder: Builder, value: Value, rank: int) -> tuple[int, ...]:
    """The axes that are meant, ascending."""
    known = builder.known(value, "an axis")
    if known is None:
        return tuple(range(rank))
    axes = known if isinstance(known, tuple) else (known,)
    return tuple(sorted(_distinct(axes, rank, value)))


def _distinct(axes: tuple[Any, ...], rank: int, value: Value) -> list[int]:
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


def _flag(builder: Builder, value: Value, what: str) -> bool:
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
        axes = _axes(builder, args[1], len(node.shape))
        if dtype.kind == "f":
            wide = builder.cast(node, F64)
        else:  # as NumPy: converted to the dtype that was asked for, then summed
            wide = builder.cast(builder.cast(node, dtype), dtypes.total(dtype))
        return builder.cast(builder.reduce(name, wide, axes, _flag(builder, args[3], "keepdims")), dtype)

    return lower


def _mean(builder: Builder, node: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    """The mean in float64. Integers of up to 32 bits are summed exactly, larger ones as float64."""
    exact = node.dtype.kind != "f" and node.dtype.itemsize <= 4
    wide = builder.cast(node, dtypes.total(node.dtype) if exact else F64)
    summed = builder.cast(builder.reduce("sum", wide, axes, keepdims), F64)
    count = math.prod(node.shape[axis] for axis in axes)
    return builder.point("divide", summed, builder.broadcast(builder.const(count, F64), summed.shape))


def mean(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    dtype = dtype_argument(builder, args[2])
    if dtype is not None and dtype.kind != "f":
        raise Misfit(f"a mean is a float, not {dtype}; convert it with .astype", *args)
    axes = _axes(builder, args[1], len(node.shape))
    return builder.cast(_mean(builder, node, axes, _flag(builder, args[3], "keepdims")), _result(node, dtype))


def _variance(builder: Builder, args: Args) -> tuple[Node, DType]:
    node = builder.node(args[0])
    axes = _axes(builder, args[1], len(node.shape))
    ddof = builder.known(args[2], "ddof")
    count = math.prod(node.shape[axis] for axis in axes)
    if not isinstance(ddof, int | float) or ddof >= count:
        raise Misfit(f"ddof is a number below the {count} elements of each variance, found {ddof!r}", args[2])
    deviation = subtract(builder, (builder.cast(node, F64), _mean(builder, node, axes, True)))
    assert isinstance(deviation, Node)
    squares = builder.point("multiply", deviation, deviation)
    summed = builder.reduce("sum", squares, axes, _flag(builder, args[3], "keepdims"))
    divisor = builder.broadcast(builder.const(count - ddof, F64), summed.shape)
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
        axes, keepdims = _axes(builder, args[1], len(node.shape)), _flag(builder, args[2], "keepdims")
        wide = builder.cast(node, np.dtype(np.uint8)) if node.dtype == BOOL else node
        return builder.cast(builder.reduce(name, wide, axes, keepdims), node.dtype)

    return lower


def _counted(builder: Builder, truth: Node, args: Args) -> Node:
    axes, keepdims = _axes(builder, args[1], len(truth.shape)), _flag(builder, args[2], "keepdims")
    return builder.reduce("sum", builder.cast(truth, I64), axes, keepdims)


def count_nonzero(builder: Builder, args: Args) -> Value:
    return _counted(builder, builder.truth(args[0]), args)


def any_of(builder: Builder, args: Args) -> Value:
    return builder.cast(_counted(builder, builder.truth(args[0]), args), BOOL)


def all_of(builder: Builder, args: Args) -> Value:
    untrue = builder.point("invert", builder.truth(args[0]))
    return builder.point("invert", builder.cast(_counted(builder, untrue, args), BOOL))


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
    axes = _distinct(known if isinstance(known, tuple) else (known,), rank, args[1])
    if len(axes) != rank:
        raise Misfit(f"axes {known} of an array with {rank} dimensions", *args)
    return builder.permute(node, tuple(axes))


def swapaxes(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    axes = list(range(len(node.shape)))
    first, second = (_distinct((builder.known(arg, "an axis"),), len(axes), arg)[0] for arg in (args[1], args[2]))
    axes[first], axes[second] = axes[second], axes[first]
    return builder.permute(node, tuple(axes))


def squeeze(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    single = tuple(axis for axis, size in enumerate(node.shape) if size == 1)
    axes = single if builder.known(args[1], "an axis") is None else _axes(builder, args[1], len(node.shape))
    if not set(axes) <= set(single):
        raise Misfit(f"squeezed axes have size 1; the shape is {node.shape}", *args)
    return builder.reshape(node, tuple(size for axis, size in enumerate(node.shape) if axis not in axes))


def expand_dims(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    known = builder.known(args[1], "an axis")
    axes = known if isinstance(known, tuple) else (known,)
    rank = len(node.shape) + len(axes)
    places = set(_distinct(axes, rank, args[1]))
    sizes = iter(node.shape)
    return builder.reshape(node, tuple(1 if axis in places else next(sizes) for axis in range(rank)))


def flip(builder: Builder, args: Args) -> Value:
    node = builder.node(args[0])
    axes = _axes(builder, args[1], len(node.shape))
    starts = tuple(size - 1 if axis in axes else 0 for axis, size in enumerate(node.shape))
    steps = tuple(-1 if axis in axes else 1 for axis in range(len(node.shape)))
    return builder.slice(node, starts, steps, node.shape)


def broadcast_to(builder: Builder, args: Args) -> Value:
    node, shape = builder.node(args[0]), _shape(builder, args[1])
    try:
        fits = np.broadcast_shapes(node.shape, shape) == shape
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
    if isinstance(key, Node):
        raise Misfit("an index is static; masks and computed indices are not in the language: use np.where", *args)
    keys = key.value if isinstance(key.value, tuple) else (key.value,)
    return _indexed(builder, node, keys, args)


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
        start, step, count = _range(entry, size, len(starts), args)
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
            raise Misfit("a slice has integers", *args)
        if entry.step == 0:
            raise Misfit("a slice with step 0", *args)
        chosen = range(size)[entry]
        if not chosen:
            raise Misfit(f"the slice of axis {axis} is empty; its size is {size}", *args)
        return chosen.start, chosen.step, len(chosen)
    if isinstance(entry, bool) or not isinstance(entry, int):
        raise Misfit(f"an index is an integer, a slice, ... or None, found {kind_of(Static(entry))}", *args)
    if not -size <= entry < size:
        raise Misfit(f"index {entry} of axis {axis}, whose size is {size}", *args)
    return entry % size, 1, 1


# ---------------------------------------------------------------------------------------------------- new arrays


def _splat(builder: Builder, value: Value, dtype: DType, shape: Shape) -> Node:
    return builder.broadcast(builder.cast(value, dtype), shape)


def filled(value: int) -> Lowering:
    def lower(builder: Builder, args: Args) -> Value:
        return _splat(builder, Static(value), dtype_argument(builder, args[1]) or F64, _shape(builder, args[0]))

    return lower


def full(builder: Builder, args: Args) -> Value:
    shape, value, dtype = _shape(builder, args[0]), builder.node(args[1]), dtype_argument(builder, args[2])
    value = builder.cast(args[1] if isinstance(args[1], Static) and dtype else value, dtype or value.dtype)
    return broadcast_to(builder, (value, Static(shape)))


def filled_like(value: int) -> Lowering:
    def lower(builder: Builder, args: Args) -> Value:
        node = builder.node(args[0])
        return _splat(builder, Static(value), dtype_argument(builder, args[1]) or node.dtype, node.shape)

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
