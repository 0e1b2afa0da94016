"""The arena: fixed, pre-faulted memory in which each extent lands once.

First-touched memory costs about 25 times as much as warm memory, so all of it is touched at the start, and handed out
again and again. It has three parts, so that no mix of sizes, live or long gone, can make it useless:

    a quarter   reserved for large regions, up to all of it: `largest_bytes`
    a quarter   for any, in pages of `limits.ARENA_PAGE_BYTES`, first fit
    a half      slots of `slot_bytes`, 8 MiB (less in an arena below 32 MiB), each of them for one region at a time

**Guaranteed**, whatever was allocated and released before: a region of up to `slot_bytes` is given
at once while fewer than `slots` such regions are live, and `slots * slot_bytes` is at least half of the arena; a region
of up to `largest_bytes` is given at once while none larger than `slot_bytes` is live. Regions that only `recent` still
holds count as released: under pressure it lets go of them.

Invariants: free and live pieces tile the memory; no two free pieces of a part lie side by side; a slot holds one region
or none; a request is met whole or not at all, in the order of asking, so that two users who each need two
regions cannot dead-lock and a large request cannot starve. Any thread may allocate, hold and release.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import mmap
import threading
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from hiss import limits
from hiss.errors import DeadlineExceeded, InvalidInput, LimitExceeded
from hiss.model import ByteArray

PAGE: Final = limits.ARENA_PAGE_BYTES


_MADV_POPULATE_WRITE: Final = 23  # Linux 5.14, not named by Python's mmap


def _touched_memory(size: int) -> mmap.mmap:
    """Private memory with every page there: in huge pages where there are any, seven times as fast."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel built without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    try:
        memory.madvise(_MADV_POPULATE_WRITE)
    except OSError:
        np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE] = 0
    return memory


class Region:
    """A piece of the arena. Whoever allocated it, and whoever holds it beside, releases it exactly once; after the last
    of them `data` belongs to somebody else."""

    __slots__ = ("_arena", "_holders", "_page", "data", "pages")

    def __init__(self, arena: Arena, page: int, pages: int, data: ByteArray) -> None:
        self._arena, self._page, self._holders = arena, page, 1
        self.pages = pages  # that it takes, 0 for none
        self.data = data  # uint8, 1-D, of the size that was asked for

    def __repr__(self) -> str:
        return f"Region(page={self._page}, bytes={len(self.data)})"

    @property
    def taken_bytes(self) -> int:
        """Of the arena, what it does not use of its place included."""
        return self._arena._taken(self._page, self.pages) * PAGE

    @property
    def holders(self) -> int:
        return self._holders

    def hold(self) -> None:
        """Keep the memory until one more `release`."""
        with self._arena.changed:
            assert self._holders > 0, f"{self} is held after it was released"
            self._holders += 1

    def release(self) -> None:
        """One holder less; the last one gives the memory back. Once too often is an assertion: the next owner would
        lose its data."""
        with self._arena.changed:
            assert self._holders > 0, f"{self} was released twice"
            self._holders -= 1
            if not self._holders:
                self._arena._give_back(self)


class Arena:
    """All regions of one data process.

    Parameters
    ----------
    capacity : int
        Bytes, at least four pages; rounded down to whole pages.

    Attributes
    ----------
    capacity, slot_bytes, slots, largest_bytes : int
        See above.
    changed : threading.Condition
        Guards all of it; reentrant.
    on_pressure : callable
        Called with `changed` held where there is no room; frees something and tells whether it did.

    Raises
    ------
    InvalidInput
        A capacity below four pages.
    """

    def __init__(self, capacity: int) -> None:
        pages = capacity // PAGE
        if pages < 4:
            raise InvalidInput(f"arena of {capacity} bytes: expected at least {4 * PAGE}")
        reserve = pages // 4
        self._slot_pages = min(limits.ARENA_SLOT_BYTES // PAGE, reserve)
        self.slots: Final = -(-pages // (2 * self._slot_pages))
        self._first_slot = pages - self.slots * self._slot_pages
        self.capacity: Final = pages * PAGE
        self.slot_bytes: Final = self._slot_pages * PAGE
        self.largest_bytes: Final = reserve * PAGE
        self._bytes: ByteArray = np.frombuffer(_touched_memory(self.capacity), np.uint8)
        self.changed = threading.Condition(threading.RLock())
        self.on_pressure: Callable[[], bool] = lambda: False
        self._waiting: collections.deque[object] = collections.deque()  # tickets, in the order of asking
        self._live: dict[int, Region] = {}  # first page -> region
        self._reserved = _Span(0, reserve)
        self._any = _Span(reserve, self._first_slot - reserve)
        self._free_slots = list(range(self._first_slot, pages, self._slot_pages))

    @property
    def free_bytes(self) -> int:
        """What no region takes; a slot is taken whole."""
        return (self._reserved.free + self._any.free + len(self._free_slots) * self._slot_pages) * PAGE

    def live(self) -> list[Region]:
        """The regions that nobody has released yet."""
        with self.changed:
            return list(self._live.values())

    def allocate(self, *sizes: int, timeout_s: float | None) -> tuple[Region, ...]:
        """Regions of these sizes, all at once; blocks until there is room for all of them.

        Parameters
        ----------
        *sizes : int
            Bytes of each region; 0 gives a region that holds nothing.
        timeout_s : float or None
            How long to wait; None for ever.

        Raises
        ------
        LimitExceeded
            They do not fit into the arena even when it is empty.
        DeadlineExceeded
            There was no room within `timeout_s`.
        """
        pages = [-(-size // PAGE) for size in sizes]
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        ticket = object()
        with self.changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or (starts := self._take_all(pages)) is None:
                    if self._waiting[0] is ticket:
                        if self.on_pressure():
                            continue
                        self._check_not_empty(sizes)
                    remaining = None if deadline is None else deadline - time.monotonic()
                    if remaining is not None and remaining <= 0:
                        raise DeadlineExceeded(
                            f"no room for {sum(sizes)} bytes in the arena within {timeout_s} s: {self.free_bytes} of "
                            f"{self.capacity} are free; the disk may be too slow for what arrives"
                        )
                    self.changed.wait(remaining)
                return tuple(self._region(*each) for each in zip(starts, pages, sizes, strict=True))
            finally:
                self._waiting.remove(ticket)
                self.changed.notify_all()

    def _check_not_empty(self, sizes: tuple[int, ...]) -> None:
        if not self._live:
            raise LimitExceeded(
                f"{len(sizes)} regions of {sum(sizes)} bytes do not fit into an arena of {self.capacity}, of which one "
                f"may take a quarter; raise arena_bytes",
                limit="arena_bytes",
                allowed=self.largest_bytes,
                found=sum(sizes),
            )

    def _region(self, page: int, pages: int, size: int) -> Region:
        region = Region(self, page, pages, self._bytes[page * PAGE : page * PAGE + size])
        if pages:
            self._live[page] = region
        return region

    def _give_back(self, region: Region) -> None:
        if region.pages:
            assert self._live.pop(region._page) is region
            self._put(region._page, region.pages)
            self.changed.notify_all()

    def _taken(self, page: int, pages: int) -> int:
        return self._slot_pages if page >= self._first_slot else pages

    # ---- places; the lock is held

    def _take_all(self, pages: list[int]) -> list[int] | None:
        taken: list[int] = []
        for count in pages:
            start = self._take(count) if count else 0
            if start is None:
                for undone, size in zip(taken, pages, strict=False):
                    if size:
                        self._put(undone, size)
                return None
            taken.append(start)
        return taken

    def _take(self, count: int) -> int | None:
        """The first page of `count` consecutive ones, or None."""
        if count > self._slot_pages:
            start = self._any.take(count)
            return self._reserved.take(count) if start is None else start
        if 2 * count > self._slot_pages and self._free_slots:  # little of it is wasted
            return self._free_slots.pop()
        start = self._any.take(count)
        return self._free_slots.pop() if start is None and self._free_slots else start

    def _put(self, start: int, count: int) -> None:
        if start >= self._first_slot:
            self._free_slots.append(start)
        elif start >= self._any.first:
            self._any.put(start, count)
        else:
            self._reserved.put(start, count)


class _Span:
    """Consecutive pages from `first` on, handed out first fit: the free pieces of them, by address, never adjacent."""

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.free = count
        self._starts = [first] if count else []
        self._ends = [first + count] if count else []

    def take(self, count: int) -> int | None:
        """The first page of `count` consecutive ones, or None."""
        for place, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            if end - start >= count:
                self.free -= count
                if end - start == count:
                    del self._starts[place], self._ends[place]
                else:
                    self._starts[place] = start + count
                return start
        return None

    def put(self, start: int, count: int) -> None:
        """Free `count` pages from `start`."""
        self.free += count
        place = bisect.bisect(self._starts, start)
        end = start + count
        if place < len(self._starts) and self._starts[place] == end:
            end = self._ends.pop(place)
            del self._starts[place]
        if place and self._ends[place - 1] == start:
            self._ends[place - 1] = end
        else:
            self._starts.insert(place, start)
            self._ends.insert(place, end)
