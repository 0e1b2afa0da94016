"""What a row of the table of whole-array primitives holds. See `arrays`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hiss.kernels.dtypes import DType

Kind = tuple[DType, tuple[int, ...]]  # of an operand or a result
Attrs = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ArrayPrimitive:
    """One row.

    Attributes
    ----------
    name : str
    result : callable
        `result(kinds of the operands, attrs)`: dtype and shape of the result.
    numpy : callable
        `numpy(attrs, *operands)`: the meaning, one frame at a time. Never writes to an operand.
    cost : callable
        `cost(kinds of the operands, attrs)`: of the whole result, in additions.
    exact : bool
        Whether back ends agree to the bit.
    """

    name: str
    result: Callable[[tuple[Kind, ...], Attrs], Kind]
    numpy: Callable[..., Any]
    cost: Callable[[tuple[Kind, ...], Attrs], int]
    exact: bool = True
