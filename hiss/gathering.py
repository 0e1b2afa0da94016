"""How a producer's blocks become extents: memory that is used again, and the extent that is filling.

Used by `writer` only, under its lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiss import limits
from hiss.extent import Extent
from hiss.model import BlockStatus, ByteArray, IntArray
from hiss.spare_memory import SpareMemory
from hiss.store import SharedSlots


class Buffers:
    """Memory for extents, used again after its ack. It is shared with the server where there are `slots`, which whoever
    makes the sessions sets; what they have not comes from, and goes to, the connection's spare memory."""

    def __init__(self, size: int, spare: SpareMemory) -> None:
        self.size = size
        self.slots: SharedSlots | None = None
        self._spare = spare
        self._closed = False

    def take(self, size: int, *, grows: bool = False) -> ByteArray:
        """At least `size` bytes; as many as there are in one piece where the extent `grows`.

        Little memory is not worth keeping: it comes and goes without the operating system.
        """
        if size > self.size or (size <= limits.DIRECT_BYTES and not grows):
            return np.empty(size, np.uint8)
        slot = self.slots.take() if self.slots is not None else None
        return self._spare.take(self.size) if slot is None else slot

    def give(self, buffer: ByteArray) -> None:
        """Have it back. After `close` it is let go: it may be a slot, which is somebody else's by then."""
        if self._closed or (self.slots is not None and self.slots.give(buffer)):
            return
        if len(buffer) == self.size:
            self._spare.give(buffer)

    def close(self) -> None:
        self._closed = True
        slots, self.slots = self.slots, None
        if slots is not None:
            slots.close()


@dataclass(slots=True, eq=False)
class Packet:
    """An extent on its way, and the memory that comes back with its ack. `count`: blocks of the session up to it."""

    extent: Extent
    buffer: ByteArray | None
    count: int = 0


@dataclass(slots=True, eq=False)
class GapRange:
    """Indices that are declared to be gaps, in their turn: made into extents when they are sent, so that a long one
    takes no memory."""

    first: int
    last: int
    status: BlockStatus

    def cut(self, columns: np.dtype[np.void]) -> Packet:
        """The next extent of it; the range goes on behind that, and is used up when `first` is above `last`."""
        count = min(self.last - self.first + 1, limits.EXTENT_BLOCKS_MAX)
        index = np.arange(self.first, self.first + count)
        self.first += count
        return Packet(declaration(index, self.status, columns), None)


def declaration(index: IntArray, status: BlockStatus, columns: np.dtype[np.void]) -> Extent:
    """An extent without bytes that says what became of these indices."""
    count = len(index)
    none = np.zeros(count, np.int64)
    return Extent.of(
        index,
        np.zeros(0, np.uint8),
        none,
        columns=np.zeros(count, columns),
        status=np.full(count, status, np.uint8),
    )


class Gathering:
    """Blocks that wait for their extent to fill. The user's thread fills it, under the writer's lock."""

    def __init__(self, columns: np.dtype[np.void], buffers: Buffers) -> None:
        self._columns = columns
        self._buffers = buffers
        self._clear()

    def _clear(self) -> None:
        self.index: list[int] = []
        self._time_ns: list[int] = []
        self._length: list[int] = []
        self._rows: list[tuple[Any, ...]] = []
        self._buffer: ByteArray = np.empty(0, np.uint8)
        self._used = 0
        self.since_s = 0.0

    def fits(self, size: int) -> bool:
        """Whether a block of `size` bytes can be added; one always can to nothing."""
        blocks = len(self.index)
        return not blocks or (self._used + size <= len(self._buffer) and blocks < limits.EXTENT_BLOCKS_MAX)

    def add(
        self, index: int, time_ns: int, block: ByteArray, row: tuple[Any, ...], clock_s: Callable[[], float]
    ) -> None:
        if not self.index:
            self.since_s = clock_s()
            self._buffer = self._buffers.take(len(block), grows=True)
        self.index.append(index)
        self._time_ns.append(time_ns)
        size = len(block)
        self._length.append(size)
        self._rows.append(row)
        end = self._used + size
        self._buffer[self._used : end] = block
        self._used = end

    def take(self) -> Packet:
        columns = np.array(self._rows, self._columns)
        data = self._buffer[: self._used]
        extent = Extent.of(self.index, data, self._length, time_ns=self._time_ns, columns=columns)
        packet = Packet(extent, self._buffer)
        self._clear()
        return packet
