"""An append through shared memory, the client's side: a Unix lane on which only the places of the blocks travel.

`Slots` outlive their session: what was not acknowledged lies there and is announced again on the next lane, or sent
over it where that is of another kind. A slot is given back, to be written again, when its extent is acknowledged, which
no server says before it has a copy.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import threading
import weakref
from typing import Any

import numpy as np

from hiss import limits
from hiss.extent import Extent
from hiss.model import ByteArray
from hiss.store import SharedSlots, SharingSession
from hiss.transport.lane_client import LaneAppend
from hiss.transport.lane_framing import TRUSTED, Head, Kind, Part
from hiss.transport.shared_memory import SIZE, make_memory


class Slots:
    """Shared memory of one producer in slots of one size; a `store.SharedSlots`. One thread at a time, but `place_of`.

    Parameters
    ----------
    slot_bytes : int
        Rounded up to whole pages.
    spare : SpareSlots, optional
        Who keeps the memory for the next producer when this one is done with it.

    Raises
    ------
    OSError
        There is no such memory here.
    """

    def __init__(self, slot_bytes: int, spare: SpareSlots | None = None) -> None:
        self._spare = spare
        self._slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        count = min(limits.SHARED_SLOTS_MAX, limits.SHARED_MEMORY_BYTES_MAX // self._slot_bytes)
        self.size = count * self._slot_bytes
        self.descriptor = make_memory("hiss producer", self.size)
        self._close = weakref.finalize(self, os.close, self.descriptor)
        try:
            self._map = mmap.mmap(self.descriptor, self.size)
        except BaseException:
            self._close()
            raise
        self._bytes: ByteArray = np.frombuffer(self._map, np.uint8)
        self._address = self._bytes.ctypes.data
        self.handed_bytes = slot_bytes
        self._cold = list(range(count))[::-1]  # takes no memory until it is written
        self._warm: list[int] = []

    def lacks(self, size: int) -> bool:
        return False  # all are ready from the start

    def prepare(self) -> None:
        pass

    def take(self) -> ByteArray | None:
        free = self._warm or self._cold
        if not free or self._closed:
            return None
        start = free.pop() * self._slot_bytes
        return self._bytes[start : start + self.handed_bytes]

    def give(self, buffer: ByteArray) -> bool:
        place = self.place_of(buffer)
        if place is None:
            return False
        slot = place // self._slot_bytes
        if self.warm_bytes + self._slot_bytes <= limits.SPARE_BUFFERS_BYTES:
            self._warm.append(slot)
        else:
            self._map.madvise(mmap.MADV_REMOVE, slot * self._slot_bytes, self._slot_bytes)
            self._cold.append(slot)
        return True

    def place_of(self, data: ByteArray) -> int | None:
        """Where in the memory these bytes lie; None: elsewhere."""
        place = data.__array_interface__["data"][0] - self._address
        return place if not self._closed and 0 <= place <= self.size - data.nbytes else None

    @property
    def warm_bytes(self) -> int:
        """That its free slots take."""
        return len(self._warm) * self._slot_bytes

    @property
    def _closed(self) -> bool:
        return not self._close.alive

    def close(self) -> None:
        all_free = (len(self._warm) + len(self._cold)) * self._slot_bytes == self.size
        if self._closed or not (all_free and self._spare is not None and self._spare.keep(self)):
            self.discard()

    def discard(self) -> None:
        """Let the memory go, and keep it for nobody."""
        self._close()
        self._bytes = np.empty(0, np.uint8)
        with contextlib.suppress(BufferError):  # an extent lies there still; it goes with that
            self._map.close()


class SpareSlots:
    """Memories of producers of one connection that ended with everything acknowledged, for the next ones: their pages
    are warm. At most `limits.SPARE_BUFFERS_BYTES` together. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Slots] = []  # the one that was kept last comes last
        self._closed = False

    def slots(self, slot_bytes: int) -> Slots:
        """One that is free, or a new one. Raises `OSError` where there is no such memory."""
        with self._lock:
            for place, slots in enumerate(self._free):
                if slots.handed_bytes == slot_bytes:
                    return self._free.pop(place)
        return Slots(slot_bytes, self)

    def keep(self, slots: Slots) -> bool:
        """Take one back of which nothing is used; False where it is to be discarded."""
        with self._lock:
            if self._closed or slots.warm_bytes > limits.SPARE_BUFFERS_BYTES:
                return False
            self._free.append(slots)
            while (
                len(self._free) > limits.SPARE_MEMORIES_MAX
                or sum(each.warm_bytes for each in self._free) > limits.SPARE_BUFFERS_BYTES
            ):
                self._free.pop(0).discard()
        return True

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for slots in self._free:
                slots.discard()
            self._free.clear()


class ShmAppend(LaneAppend, SharingSession):
    """A lane whose server looks at the producer's memory. Extents that lie elsewhere are sent.

    Parameters
    ----------
    *lane
        As of any lane.
    spare : SpareSlots
        Has the memory.
    trusted : bool
        Asks the server not to hash what it copies: it takes the digests as they come.
    """

    def __init__(self, *lane: Any, spare: SpareSlots, trusted: bool = False) -> None:
        self._spare, self._trusted = spare, trusted
        self._slots: Slots | None = None
        super().__init__(*lane)

    def share(self, slot_bytes: int, slots: SharedSlots | None) -> SharedSlots | None:
        if not isinstance(slots, Slots):
            try:
                slots = self._spare.slots(slot_bytes)
            except OSError:
                return None
        connection = self._connection
        assert isinstance(connection, socket.socket), "memory is announced on Unix sockets only"
        with contextlib.suppress(OSError), self._sending:  # the callbacks tell why it broke
            head = Head(Kind.MEMORY, TRUSTED if self._trusted else 0, 0, SIZE.size)
            connection.sendall(head.pack())
            socket.send_fds(connection, [SIZE.pack(slots.size)], [slots.descriptor])
        self._slots = slots
        return slots

    def _parts(self, part: Extent) -> list[Part]:
        place = self._slots.place_of(part.data) if self._slots is not None and part.data.size else None
        return self._framer.parts(part, place)
