"""What a routine is: the text of a function that computes one primitive of whole arrays. See `numba_arrays`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hiss.kernels.dtypes import DType
from hiss.kernels.ir import Node


@dataclass(frozen=True, slots=True)
class Routine:
    """The text after `def NAME`, from the opening parenthesis on, and (dtype, size) of the scratch arrays it takes."""

    text: str
    scratch: tuple[tuple[DType, int], ...] = ()

    def text_of(self, name: str) -> str:
        return f"def {name}{self.text}"


RoutineMaker = Callable[[Node], Routine]
