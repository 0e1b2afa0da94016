"""How the functions of the language become primitives: NumPy's dtype and shape rules, one function for each rule.

Every function takes the builder and the values of the table's signature and returns a value; the makers return such a
function for a primitive. What does not fit raises `Misfit`. Called by the specialiser, in its thread.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from hiss.kernels import dtypes
from hiss.kernels.builder import Builder, Misfit, Static, Value, describe, kind_of
from hiss.kernels.dtypes import BOOL, F64, I64, U64, DType
from hiss.kernels.ir import Node, Shape
from hiss.kernels.lengths import Length

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
            return builder.point("divide", splat(builder, Static(1), dtype, node.shape), node)
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
    return result if result is not None else splat(builder, Static(1), node.dtype, node.shape)


def inexact_operands(builder: Builder, args: Args) -> list[Node]:
    """Each operand decides which float it needs: uint16 and int8 meet in float32, though as integers in int32."""
    weak = [type(arg.value) for arg in args if isinstance(arg, Static)]
    strong = [dtypes.inexact(dtypes.promote([arg.dtype], weak)) for arg in args if isinstance(arg, Node)]
    return builder.together(args, dtypes.promote(strong, []) if strong else dtypes.inexact(builder.common_dtype(*args)))


def inexact(name: str) -> Lowering:
    """Functions of floats; integers are converted as the table says."""
    return lambda builder, args: builder.point(name, *inexact_operands(builder, args))


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
                return splat(builder, Static(answer), BOOL, node.shape)
        if isinstance(left, Node) and isinstance(right, Node) and {left.dtype, right.dtype} == {I64, U64}:
            return _mixed(builder, order, *builder.one_shape([left, right]))
        return builder.point(order, *builder.together((left, right)))

    return lower


def _beyond(node: Node, value: Any) -> bool:
    known = isinstance(value, int) and not isinstance(value, Length)
    return node.dtype.kind in "iu" and known and not dtypes.holds(node.dtype, value)


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
            return splat(builder, Static(name == "isfinite"), BOOL, node.shape)
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
    if dtype.kind not in "iu" or not isinstance(value, int) or isinstance(value, Length):
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


def splat(builder: Builder, value: Value, dtype: DType, shape: Shape) -> Node:
    """An array of one value."""
    return builder.broadcast(builder.cast(value, dtype), shape)
