"""The axis of variable length: a size that is known when a packet comes, as a number of the kernel's shapes.

A `Length` is `factor` times the packet's length, written `n`. It is an int, so that shapes stay tuples of ints, and
its value is a large prime times `factor`: two lengths are equal if their factors are, and none is equal to a size that
is known. What would need more (`n - 1` elements, say) raises `UnknownLength`, which the specialiser reports with its
place. As text it is an expression of `n`, which is how generated code has it. Immutable; any thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, Final, NoReturn

_PRIME: Final = (1 << 61) - 1  # 2^61 - 1, a Mersenne prime: larger than any size


class UnknownLength(Exception):
    """Something needs the length of a packet before there is one."""

    def __init__(self) -> None:
        super().__init__("the axis of variable length has no size before the kernel runs, so this cannot be made of it")


class Length(int):
    """`factor` times the length of a packet."""

    factor: int

    def __new__(cls, factor: int = 1) -> Length:
        made = super().__new__(cls, factor * _PRIME)
        made.factor = factor
        return made

    def __mul__(self, other: int) -> int:
        if isinstance(other, Length):
            raise UnknownLength
        return Length(self.factor * other) if other else 0

    __rmul__ = __mul__

    def __add__(self, other: int) -> int:
        if isinstance(other, Length):
            return Length(self.factor + other.factor)
        return self if not other else _unknown()

    __radd__ = __add__

    def __mod__(self, other: int) -> int:
        whole = self.factor % (other.factor if isinstance(other, Length) else other) == 0
        return 0 if whole else _unknown()

    def __floordiv__(self, other: int) -> int:
        if isinstance(other, Length):
            return self.factor // other.factor if self.factor % other.factor == 0 else _unknown()
        return Length(self.factor // other) if self.factor % other == 0 else _unknown()

    def __rtruediv__(self, other: float) -> float:
        return other / weight(self)  # of a bound on cost: a program divides by the length as a value of its own

    def _refused(self, *others: Any) -> NoReturn:
        raise UnknownLength

    __sub__ = __rsub__ = __neg__ = __truediv__ = __rfloordiv__ = __rmod__ = _refused
    __pow__ = __rpow__ = __divmod__ = __rdivmod__ = __lshift__ = __rshift__ = __and__ = __or__ = _refused

    def __repr__(self) -> str:
        return "n" if self.factor == 1 else f"n * {self.factor}"

    __str__ = __repr__

    def __format__(self, specification: str) -> str:
        return repr(self)

    def __hash__(self) -> int:
        return int.__hash__(self)

    def at(self, count: int) -> int:
        """Its value for a packet of `count`."""
        return self.factor * count


def _unknown() -> NoReturn:
    raise UnknownLength


def at(value: Any, count: int) -> Any:
    """A size, or anything else, with the length of a packet put in."""
    if isinstance(value, tuple):
        return tuple(at(part, count) for part in value)
    return value.at(count) if isinstance(value, Length) else value


def is_variable(shape: Iterable[Any]) -> bool:
    return any(isinstance(size, Length) for size in shape)


def weight(size: int) -> int:
    """A size to compare costs by, as a number like any other: a packet is long."""
    return size.factor << 20 if isinstance(size, Length) else size


def items_of(shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Of a variable shape how many items there are for each of the packet's, and the shape of an item."""
    first, *rest = shape
    assert isinstance(first, Length)
    return first.factor, tuple(rest)


def known_size(shape: tuple[int, ...]) -> int:
    """Elements of a shape; of a variable one, of one step of the packet."""
    size = math.prod(shape)
    return size.factor if isinstance(size, Length) else size


def broadcast_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape to which `shapes` broadcast; a `ValueError` where they do not."""
    found: list[int] = []
    for sizes in zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
        wide = {size: size for size in sizes if size != 1}
        if len(wide) > 1:
            raise ValueError(f"{shapes} do not broadcast")
        found.append(next(iter(wide.values()), 1))
    return tuple(reversed(found))
