"""Where the loops of a generated function find their elements, and which axes they run over. See `numba_writer`.

Indices are unsigned, so that Numba adds no check for negative ones and loops vectorise; offsets that go backwards wrap,
which in 64 bits is exact. Pure; any thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hiss.kernels.ir import Node, Shape
from hiss.kernels.numba_operations import unsigned
from hiss.kernels.views import View


@dataclass(frozen=True, slots=True)
class Place:
    """Where a loop finds an element: buffer[base + offset + sum of stride * index]."""

    buffer: str
    base: str
    offset: int
    strides: tuple[int, ...]

    def text(self, index: Sequence[str | int]) -> str:
        offset, terms = self.offset, [self.base] if self.base else []
        for stride, at in zip(self.strides, index, strict=True):
            if isinstance(at, int):
                offset += stride * at
            elif stride:
                terms.append(at if stride == 1 else f"{at} * {unsigned(stride)}")
        if offset or not terms:
            terms.append(unsigned(offset))
        return f"{self.buffer}[{' + '.join(terms)}]"


@dataclass(frozen=True, slots=True)
class Line:
    """`name = …`: a load, or an operation on operands that are names of lines or text that is the same everywhere."""

    name: str
    place: Place | None
    node: Node | None
    operands: tuple[str, ...] = ()


@dataclass(slots=True)
class Body:
    """What a loop computes for one element of its domain."""

    rank: int
    lines: list[Line] = field(default_factory=list)
    known: dict[tuple[int, View], str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def places(self) -> list[Place]:
        return [line.place for line in self.lines if line.place is not None]


class Axes:
    """The loops over a domain: kept axes first, then reduced ones, neighbours merged where all accesses allow it."""

    def __init__(self, domain: Shape, reduced: tuple[int, ...], places: list[Place]) -> None:
        self.rank = len(domain)
        wide = [axis for axis in range(self.rank) if domain[axis] > 1]
        self.last_kept = bool(wide) and wide[-1] not in reduced
        kept = [axis for axis in wide if axis not in reduced]
        self._kept = self._merged(kept, domain, places)
        self._reduced = self._merged([axis for axis in wide if axis in reduced], domain, places)
        self.kept = tuple(math.prod(domain[axis] for axis in run) for run in self._kept)
        self.reduced = tuple(math.prod(domain[axis] for axis in run) for run in self._reduced) or (1,)
        self._reduced = self._reduced or [[]]

    @staticmethod
    def _merged(axes: list[int], domain: Shape, places: list[Place]) -> list[list[int]]:
        runs: list[list[int]] = []
        for axis in axes:
            if runs and all(p.strides[runs[-1][-1]] == p.strides[axis] * domain[axis] for p in places):
                runs[-1].append(axis)
            else:
                runs.append([axis])
        return runs

    def index(self, loops: Sequence[str | int]) -> list[str | int]:
        """The index of every axis of the domain: a merged run counts along its last axis, the others stand still."""
        found: list[str | int] = [0] * self.rank
        for run, at in zip([*self._kept, *self._reduced], [*loops], strict=False):
            if run:
                found[run[-1]] = at
        return found
