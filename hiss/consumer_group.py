"""One consumer group of one stream: which blocks are done, and who has which until when. No I/O, no clock, no lock.

Blocks are known by the producer's index. A block is *done* once it was acknowledged, and so is every index that can
never be read (vetoed, shed, declared missing), so that `done` stays few ranges: it has holes only where a block is held
or was given back, and where an index was never received, which may still come. What is free is given out lowest index
first, so what comes back goes out again before anything new does.

Invariant: no index has two holders whose leases live at the same time. Whoever calls holds the group's lock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hiss import limits
from hiss.blocks import StreamIndex
from hiss.blocks.index import NOT_HANDLED
from hiss.errors import LimitExceeded
from hiss.model import is_readable
from hiss.sharing import IndexRange, ranges_of

_RUNS_AT_ONCE: Final = 64


class Ranges:
    """A set of whole numbers as sorted ranges that do not touch."""

    def __init__(self, ranges: Iterable[IndexRange] = ()) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def __len__(self) -> int:
        """How many ranges."""
        return len(self._first)

    def __iter__(self) -> Iterator[IndexRange]:
        return iter(list(zip(self._first, self._last, strict=True)))

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._first, number) - 1
        return place >= 0 and number <= self._last[place]

    def add(self, first: int, last: int) -> None:
        low, high = bisect_left(self._last, first - 1), bisect_right(self._first, last + 1)
        if low < high:
            first, last = min(first, self._first[low]), max(last, self._last[high - 1])
        self._first[low:high] = [first]
        self._last[low:high] = [last]

    def lacks(self, first: int, last: int) -> Iterator[IndexRange]:
        """The parts of a range that are not in the set; the set must not change meanwhile."""
        place = bisect_left(self._last, first)
        while first <= last:
            if place == len(self._first) or self._first[place] > last:
                yield first, last
                return
            if first < self._first[place]:
                yield first, self._first[place] - 1
            first = self._last[place] + 1
            place += 1


@dataclass(frozen=True, slots=True)
class _Lease:
    member: str
    until_s: float


class ConsumerGroup:
    """
    Parameters
    ----------
    index : StreamIndex
        Of the stream.
    done : iterable of (first, last)
        What was acknowledged before, as `done` gave it.
    """

    def __init__(self, index: StreamIndex, done: Iterable[IndexRange] = ()) -> None:
        self._index = index
        self.done = Ranges(done)
        self._held: dict[int, _Lease] = {}
        self._start: int | None = None  # nothing that is not done is below, of the first `_records` records
        self._records = 0

    def take(self, member: str, blocks: int, until_s: float, now_s: float) -> tuple[IndexRange, ...]:
        """Give a member up to so many free blocks, until a time of the clock that tells `now_s`.

        Raises
        ------
        LimitExceeded
            The group has too many members, or what is done is in too many pieces.
        """
        live = {index: lease for index, lease in self._held.items() if lease.until_s > now_s}
        self._check(member, live.values())
        taken: list[int] = []
        for index in self._not_done():
            if len(taken) >= min(blocks, limits.SHARE_HELD_MAX - len(live)):
                break
            if index not in live:
                taken.append(index)
        self._held = live | dict.fromkeys(taken, _Lease(member, until_s))
        return ranges_of(taken)

    def settle(self, member: str, done: Sequence[int], back: Iterable[int], now_s: float) -> tuple[IndexRange, ...]:
        """Acknowledge blocks, and give others back; those that were not acknowledged because somebody else has them
        now, or because there are no such blocks."""
        refused = []
        status = self._index.status(np.array(done, np.int64))
        for index, readable in zip(done, (is_readable(status) & (status != NOT_HANDLED)).tolist(), strict=True):
            lease = self._held.get(index)
            if index in self.done:
                continue
            if not readable or (lease is not None and lease.member != member and lease.until_s > now_s):
                refused.append(index)
                continue
            self._held.pop(index, None)
            self.done.add(index, index)
        for index in back:
            if (lease := self._held.get(index)) is not None and lease.member == member:
                del self._held[index]
        return ranges_of(refused)

    def left(self) -> int:
        """How many blocks are not done, held or not."""
        return sum(1 for _ in self._not_done())

    def complete(self) -> bool:
        """Whether all that is there now is done."""
        return next(self._not_done(), None) is None

    def held(self, now_s: float) -> list[str]:
        """The holder of each block that is held."""
        return [lease.member for lease in self._held.values() if lease.until_s > now_s]

    def next_expiry_s(self, now_s: float) -> float | None:
        """When the first lease that lives runs out; None where none does."""
        return min((lease.until_s for lease in self._held.values() if lease.until_s > now_s), default=None)

    def _check(self, member: str, live: Iterable[_Lease]) -> None:
        members = {lease.member for lease in live}
        if member not in members and len(members) >= limits.SHARE_MEMBERS_MAX:
            raise LimitExceeded(
                f"{len(members)} members hold blocks, as many as a group may have",
                limit="SHARE_MEMBERS_MAX",
                allowed=limits.SHARE_MEMBERS_MAX,
            )
        if len(self.done) > limits.SHARE_RANGES_MAX:
            raise LimitExceeded(
                f"what the group has acknowledged is in {len(self.done)} pieces, allowed are "
                f"{limits.SHARE_RANGES_MAX}: the stream has that many gaps; read or follow it instead",
                limit="SHARE_RANGES_MAX",
                allowed=limits.SHARE_RANGES_MAX,
            )

    def _not_done(self) -> Iterator[int]:
        """The indices of readable blocks that are not done, from the lowest on. `done` must not change but by this."""
        self._records, low = self._index.news(self._records)
        if low is not None and self._start is not None:
            self._start = min(self._start, low)
        at, met = self._start, False
        while runs := self._index.runs(at, _RUNS_AT_ONCE):
            for run in runs:
                first = run.first if at is None else max(run.first, at)
                if not is_readable(np.array([run.status], np.uint8))[0]:
                    self.done.add(first, run.last)
                    continue
                for a, b in self.done.lacks(first, run.last):
                    if not met:
                        self._start, met = a, True
                    yield from range(a, b + 1)
            at = runs[-1].last + 1
            if not met:
                self._start = at
