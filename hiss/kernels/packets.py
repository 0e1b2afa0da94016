"""Blocks of variable length as kernels see them: the items of all packets in one array, and where each packet is.

What comes in lies one packet after the other; what goes out is appended, so that a target's `used` items are in use.
Who makes one owns the arrays. One thread at a time writes to a target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Packets:
    """`n` packets.

    Attributes
    ----------
    items : array, (m, *item), C-contiguous
    starts, lengths : int64, (n,)
        Packet i is items[starts[i] : starts[i] + lengths[i]].
    used : int64, (1,)
        Of a target, how many items have been written; parts of it share this.
    """

    items: Array
    starts: Ints
    lengths: Ints
    used: Ints

    @classmethod
    def of(cls, items: Array, lengths: Ints) -> Packets:
        """Packets that lie one after the other."""
        return cls(items, np.cumsum(lengths) - lengths, lengths, np.array([len(items)]))

    @classmethod
    def room(cls, items: Array, count: int) -> Packets:
        """A target for `count` packets."""
        return cls(items, np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(1, np.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Array]:
        return (self.packet(row) for row in range(len(self)))

    def __getitem__(self, rows: slice | npt.NDArray[np.bool_]) -> Packets:
        """The packets at `rows`: of a slice a view, of a mask a copy that lies together."""
        if isinstance(rows, slice):
            return Packets(self.items, self.starts[rows], self.lengths[rows], self.used)
        chosen = [self.packet(row) for row in np.flatnonzero(rows).tolist()]
        items = np.concatenate(chosen) if chosen else self.items[:0]
        return Packets.of(items, self.lengths[rows])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.items.dtype

    @property
    def item(self) -> tuple[int, ...]:
        """The shape of an item."""
        return self.items.shape[1:]

    @property
    def nbytes(self) -> int:
        return int(self.lengths.sum()) * math.prod(self.item) * self.dtype.itemsize

    def packet(self, row: int) -> Array:
        start = int(self.starts[row])
        return self.items[start : start + int(self.lengths[row])]

    def append(self, row: int, packet: Array) -> None:
        """Write packet `row` behind what is there."""
        start = int(self.used[0])
        self.items[start : start + len(packet)] = packet
        self.starts[row], self.lengths[row] = start, len(packet)
        self.used[0] += len(packet)

    def together(self) -> Array:
        """All items of these packets one after the other; a copy only where they do not lie so."""
        ends = np.cumsum(self.lengths)
        first = int(self.starts[0]) if len(self) else 0
        if bool((self.starts == first + ends - self.lengths)[self.lengths > 0].all()):
            return self.items[first : first + int(ends[-1])] if len(self) else self.items[:0]
        return np.concatenate(list(self))
