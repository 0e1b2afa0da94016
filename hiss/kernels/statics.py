"""Python arithmetic on what is known before a kernel runs: numbers, sizes, axes, dtypes.

Plain Python's results, within bounds: an expression such as `9 ** 9 ** 9` is refused before it is computed. Errors are
`StaticError`; whoever knows the place in the source makes a `KernelRejected` of it. Pure; any thread.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

INTEGER_BITS_MAX: Final = 128  # of an intermediate; what meets an array must fit its dtype anyway


class StaticError(ValueError):
    """The expression has no value, or none that is allowed."""


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        if b < 0:
            return float(a) ** b
        if abs(a) > 1 and a.bit_length() * b > INTEGER_BITS_MAX:
            raise StaticError(f"the power has more than {INTEGER_BITS_MAX} bits")
        return a**b
    result = float(a) ** float(b)
    if isinstance(result, complex):
        raise StaticError("the power is complex")
    return result


def _shift_left(a: Any, b: Any) -> Any:
    if b > INTEGER_BITS_MAX:
        raise StaticError(f"shifted by {b} bits")
    return a << b


BINARY: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "power": _power,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "left_shift": _shift_left,
    "right_shift": operator.rshift,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
}
"""Operators, by the names that they have in the function table."""

UNARY: Final[dict[str, Callable[[Any], Any]]] = {
    "negative": operator.neg,
    "positive": operator.pos,
    "invert": operator.invert,
    "absolute": abs,
}


def apply(name: str, values: tuple[Any, ...]) -> Any:
    """The operator `name` on Python values: numbers, and for comparisons also tuples, dtypes and None."""
    numbers = all(isinstance(value, int | float) for value in values)
    if not numbers and name not in ("equal", "not_equal"):
        raise StaticError(f"{name.replace('_', ' ')} of {' and '.join(map(show, values))}")
    try:
        result = BINARY[name](*values) if name in BINARY else UNARY[name](*values)
    except (ArithmeticError, TypeError, ValueError) as error:
        if isinstance(error, StaticError):
            raise
        raise StaticError(str(error)) from None
    if isinstance(result, int) and result.bit_length() > INTEGER_BITS_MAX:
        raise StaticError(f"the integer has more than {INTEGER_BITS_MAX} bits")
    return result


def show(value: Any) -> str:
    """A static value for messages."""
    return type(value).__name__ if isinstance(value, tuple | slice) else repr(value)[:40]
