"""The memory that a server lends to one reader: memfds that nobody but the server can write, used again when the reader
says so.

Each holds one extent at a time, of the one stream that this reader reads, and is made for it: what readers of another
collection see never lies there. A lease begins when an extent is placed. It ends when the reader gives it back, and
then the memory takes another extent; or it runs out, and then the memory is the reader's to keep and never written
again, so that an array that somebody still holds does not change. `place` and `close` are called by one thread,
`give_back` by any. What is lent at once is bounded for each reader and, by `Budget`, for all.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hiss import limits
from hiss.model import ByteArray
from hiss.transport.shared_memory import READER_SEALS, make_memory


class Budget:
    """Bytes that may be lent by one server. Any thread."""

    def __init__(self, allowed: int = limits.SHARED_READ_BYTES_MAX) -> None:
        self._left = allowed
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        with self._lock:
            fits = size <= self._left
            self._left -= size if fits else 0
            return fits

    def give(self, size: int) -> None:
        with self._lock:
            self._left += size


class _Memory:
    """One memfd, mapped for writing before it was sealed against that."""

    def __init__(self, size: int) -> None:
        descriptor = make_memory("hiss reader", size)
        try:
            self._map = mmap.mmap(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, READER_SEALS)
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor: int | None = descriptor
        self.bytes: ByteArray = np.frombuffer(self._map, np.uint8)
        self.size = size

    def sent(self) -> None:
        """The descriptor has left; the mapping is enough for us."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def close(self) -> None:
        self.sent()
        self.bytes = np.empty(0, np.uint8)
        self._map.close()


@dataclass(slots=True, eq=False)
class _Lease:
    memory: _Memory
    lent: bool = False
    until_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Where an extent's bytes lie. Where the reader does not know that memory yet, `memory` is there for its
    descriptor, and `gone` is the number of one that is not lent any more, if one was given up meanwhile."""

    number: int
    memory: _Memory | None = None
    gone: int | None = None


class LentMemory:
    """What one reader has.

    Parameters
    ----------
    budget : Budget
        Of all readers.
    clock_s : callable
        For leases.
    """

    def __init__(self, budget: Budget, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._clock_s = clock_s
        self._leases: dict[int, _Lease] = {}  # by number; none is used twice
        self._numbers = itertools.count()
        self._gone: list[int] = []  # not told yet
        self._lock = threading.Lock()

    def place(self, data: ByteArray) -> Placed | None:
        """Copy the bytes to where the reader can see them; None where there is no room: they are to be sent."""
        with self._lock:
            number = self._free(data.size)
            if number is None:
                number = self._new(data.size)
            if number is None:
                return None
            lease = self._leases[number]
            lease.lent, lease.until_s = True, self._clock_s() + limits.SHARED_LEASE_S
        lease.memory.bytes[: data.size] = data
        if lease.memory.descriptor is None:
            return Placed(number)
        return Placed(number, lease.memory, self._gone.pop() if self._gone else None)

    def give_back(self, number: int) -> None:
        """The reader has no array over it any more. What is not lent, or ran out, is nothing to give back."""
        with self._lock:
            if number in self._leases:
                self._leases[number].lent = False

    def trim(self, kept_bytes: int) -> list[int]:
        """Give up what is beyond so many bytes; the numbers of all that is gone and was not told."""
        with self._lock:
            kept = 0
            for number, lease in list(self._leases.items()):
                kept += lease.memory.size
                if kept > kept_bytes:
                    self._give_up(number)
                    self._gone.append(number)
            gone, self._gone = self._gone, []
            return gone

    def close(self) -> None:
        self.trim(0)

    # ---- the lock is held

    def _free(self, size: int) -> int | None:
        """The first that is not lent and large enough: the fewest of them stay warm."""
        return next((n for n, each in self._leases.items() if not each.lent and each.memory.size >= size), None)

    def _new(self, size: int) -> int | None:
        """Another one, in the place of one that is too small or whose lease ran out where there are enough."""
        if len(self._leases) >= limits.SHARED_READ_MEMORIES_MAX:
            now_s = self._clock_s()
            useless = [n for n, each in self._leases.items() if not each.lent or each.until_s < now_s]
            if not useless:
                return None
            self._give_up(useless[0])
            self._gone.append(useless[0])
        size = max(limits.MiB, 1 << (size - 1).bit_length())
        if not self._budget.take(size):
            return None
        number = next(self._numbers)
        try:
            self._leases[number] = _Lease(_Memory(size))
        except OSError:  # no descriptor or no memory left: a reader can do without
            self._budget.give(size)
            return None
        return number

    def _give_up(self, number: int) -> None:
        memory = self._leases.pop(number).memory
        self._budget.give(memory.size)
        memory.close()
