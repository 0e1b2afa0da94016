"""The arena: fixed, pre-faulted memory in which each extent lands once.

First-touched memory costs about 25 times as much as warm memory, so all of it is touched at the start, and handed out
again and again. A buddy allocator (Knowlton 1965) over pages of `limits.ARENA_PAGE_BYTES`; what a request does not need
of its power of two is given back at once, so that no more than one page a region is wasted.

Invariants: free and live pieces tile the memory; no two free buddies of the same order lie side by side; a request is
met whole or not at all, in the order of asking, so that two users who each need two regions cannot dead-lock and a
large request cannot starve. Any thread may allocate and release.
"""

from __future__ import annotations

import collections
import contextlib
import mmap
import threading
import time
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
    """A piece of the arena. Its owner releases it exactly once; after that `data` belongs to somebody else."""

    __slots__ = ("_arena", "_page", "_pages", "data")

    def __init__(self, arena: Arena, page: int, pages: int, data: ByteArray) -> None:
        self._arena, self._page, self._pages = arena, page, pages
        self.data = data  # uint8, 1-D, of the size that was asked for

    def __repr__(self) -> str:
        return f"Region(page={self._page}, bytes={len(self.data)})"

    def release(self) -> None:
        """Give the memory back. Releasing twice is an assertion: the second owner would lose its data."""
        self._arena._release(self)


class Arena:
    """All regions of one data process.

    Parameters
    ----------
    capacity : int
        Bytes, at least one page; rounded down to whole pages.

    Raises
    ------
    InvalidInput
        A capacity below one page.
    """

    def __init__(self, capacity: int) -> None:
        pages = capacity // PAGE
        if pages < 1:
            raise InvalidInput(f"arena of {capacity} bytes: expected at least {PAGE}")
        self.capacity: Final = pages * PAGE
        self._bytes: ByteArray = np.frombuffer(_touched_memory(self.capacity), np.uint8)
        self._changed = threading.Condition()
        self._waiting: collections.deque[object] = collections.deque()  # tickets, in the order of asking
        self._live: dict[int, Region] = {}  # first page -> region
        self._free: list[set[int]] = [set() for _ in range(pages.bit_length())]  # by order: first pages
        self._free_pages = 0
        self._put(0, pages)

    @property
    def free_bytes(self) -> int:
        return self._free_pages * PAGE

    def live(self) -> list[Region]:
        """The regions that nobody has released yet."""
        with self._changed:
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
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or (starts := self._take_all(pages)) is None:
                    if self._waiting[0] is ticket and self.free_bytes == self.capacity:
                        raise LimitExceeded(
                            f"{len(sizes)} regions of {sum(sizes)} bytes do not fit into an arena of {self.capacity}; "
                            "raise arena_bytes",
                            limit="arena_bytes",
                            allowed=self.capacity,
                            found=sum(sizes),
                        )
                    remaining = None if deadline is None else deadline - time.monotonic()
                    if remaining is not None and remaining <= 0:
                        raise DeadlineExceeded(
                            f"no room for {sum(sizes)} bytes in the arena within {timeout_s} s: {self.free_bytes} of "
                            f"{self.capacity} are free; the disk may be too slow for what arrives"
                        )
                    self._changed.wait(remaining)
                return tuple(self._region(*each) for each in zip(starts, pages, sizes, strict=True))
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _region(self, page: int, pages: int, size: int) -> Region:
        region = Region(self, page, pages, self._bytes[page * PAGE : page * PAGE + size])
        if pages:
            self._live[page] = region
        return region

    def _release(self, region: Region) -> None:
        with self._changed:
            assert region._pages >= 0, f"{region} was released twice"
            if region._pages:
                assert self._live.pop(region._page) is region
                self._put(region._page, region._pages)
                self._changed.notify_all()
            region._pages = -1

    # ---- pages; the lock is held

    def _take_all(self, pages: list[int]) -> list[int] | None:
        taken: list[int] = []
        for count in pages:
            start = self._take(count) if count else 0
            if start is None:
                for undone, size in zip(taken, pages, strict=False):
                    self._put(undone, size)
                return None
            taken.append(start)
        return taken

    def _take(self, count: int) -> int | None:
        """The first page of `count` consecutive ones, or None. The tail of the power of two is given back."""
        for order in range((count - 1).bit_length(), len(self._free)):
            if self._free[order]:
                start = self._free[order].pop()
                self._free_pages -= 1 << order
                self._put(start + count, (1 << order) - count)
                return start
        return None

    def _put(self, start: int, count: int) -> None:
        """Free `count` pages from `start`, as the largest aligned powers of two, merged with their free buddies."""
        self._free_pages += count
        while count:
            order = min((start & -start).bit_length() - 1 if start else count.bit_length(), count.bit_length() - 1)
            self._put_piece(start, order)
            start, count = start + (1 << order), count - (1 << order)

    def _put_piece(self, start: int, order: int) -> None:
        while order + 1 < len(self._free) and (start ^ (1 << order)) in self._free[order]:
            self._free[order].remove(start ^ (1 << order))
            start &= ~(1 << order)
            order += 1
        self._free[order].add(start)
