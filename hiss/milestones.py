"""Events of streams that are still written: `stream.progress` every N blocks, `stream.stalled` after T seconds without.

Who wishes for them: a stream, by its attributes `progress_every` and `stalled_after_s`, and patterns, by the watches
that the rule engine sets. Streams of which nobody wishes anything cost a look into a dict for each extent.

*Progress* is told at the multiples of each N, of blocks that are durable and can be read, in the order of the counts
and before the stream's seal; what was told is not told again, after a restart neither (`blocks.milestone_table`).
Counts that a stream had passed when somebody first wished for them are not told. *Stalls* are measured by a clock that
starts anew with the process; one stall is told once, and ends with the next block, vetoed or not.

Staged outputs of jobs, raw companions and final streams are not watched. `stir` is called by the threads that write
blocks and waits for nothing; the rest may come from any thread and waits for the disk; one thread of its own tells.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hiss import limits
from hiss.blocks import Storage
from hiss.errors import HissError, InvalidInput, NotFound, Stopping
from hiss.meow_bridge.trigger import matches
from hiss.model import Attrs, StreamInfo, StreamWatch

log = logging.getLogger(__name__)

PROGRESS_ATTRIBUTE: Final = "progress_every"
STALLED_ATTRIBUTE: Final = "stalled_after_s"
_WISHES: Final = {PROGRESS_ATTRIBUTE, STALLED_ATTRIBUTE}
_RETRY_S: Final = 1.0  # after a disk or catalog that failed


def check_wishes(attrs: Attrs, what: str) -> None:
    """The two attributes by which a stream asks for events are numbers above 0. Raises `InvalidInput`."""
    every, after_s = attrs.get(PROGRESS_ATTRIBUTE), attrs.get(STALLED_ATTRIBUTE)
    if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
        raise InvalidInput(f"{what}: attribute {PROGRESS_ATTRIBUTE} is {every!r}, expected a count of blocks from 1 on")
    if after_s is not None and (not isinstance(after_s, int | float) or isinstance(after_s, bool) or not after_s > 0):
        raise InvalidInput(f"{what}: attribute {STALLED_ATTRIBUTE} is {after_s!r}, expected seconds above 0")


@dataclass(slots=True)
class _Watched:
    """An open stream of which somebody wishes events."""

    info: StreamInfo
    every: frozenset[int]
    stalled_s: frozenset[float]
    last_s: float  # when the last block came, by the clock
    next_count: int | None = None  # of readable blocks, to be told
    stalls_told: set[float] = field(default_factory=set)


class Milestones:
    """
    Parameters
    ----------
    storage : Storage
        Of which the open streams are taken up at once.
    monotonic_s : callable
        A clock that is never set; seconds.
    """

    def __init__(self, storage: Storage, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._storage = storage
        self._catalog = storage.catalog
        self._table = storage.catalog.milestones
        self._clock_s = monotonic_s
        self._telling = threading.RLock()  # over what is watched and what was told of it; before every other lock
        self._looking = threading.Lock()  # one looks at a time; before `_telling`
        self._changed = threading.Condition()  # over what is to be looked at
        self._watched: dict[str, _Watched] = {}
        self._watches: list[StreamWatch] = self._table.watches()
        self._crossed: set[str] = set()
        self._stopped = False
        for info in self._catalog.open_streams():
            self._opened(info, begin_here=False)
        self._thread = threading.Thread(target=self._run, name="milestones", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop telling; what was crossed and not told is told after the next start."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    # ---- what is watched

    def opened(self, info: StreamInfo) -> None:
        """A stream is there, or its attributes were amended."""
        self._opened(info, begin_here=True)

    def _opened(self, info: StreamInfo, *, begin_here: bool) -> None:
        nobody_asks = not (self._watches or info.id in self._watched or _WISHES & info.attrs.keys())
        if nobody_asks:
            return
        if info.raw_of is None and not info.state.final and self._catalog.attempt_of(info.id) is None:
            with self._telling:
                self._watch(info, begin_here=begin_here)

    def watch(self, watches: Sequence[StreamWatch]) -> None:
        """Replace the wishes of patterns; counts that open streams have passed already are not told for new ones."""
        if len(watches) > limits.STREAM_WATCHES_MAX:
            raise InvalidInput(f"{len(watches)} watches of streams, allowed are {limits.STREAM_WATCHES_MAX}")
        with self._telling:
            if set(watches) == set(self._watches):
                return
            self._table.set_watches(watches)
            self._watches = list(watches)
            for info in self._catalog.open_streams():
                self._opened(info, begin_here=True)

    def closed(self, stream_id: str) -> None:
        """A stream is final, or gone."""
        with self._telling:
            if self._watched.pop(stream_id, None) is not None:
                self._table.forget(stream_id)

    def _watch(self, info: StreamInfo, *, begin_here: bool) -> None:
        every = {watch.every for watch in self._watches if watch.every and matches(watch.trigger, info.path)}
        stalled_s = {
            watch.stalled_s for watch in self._watches if watch.stalled_s and matches(watch.trigger, info.path)
        }
        every |= {info.attrs[PROGRESS_ATTRIBUTE]} if PROGRESS_ATTRIBUTE in info.attrs else set()
        stalled_s |= {float(info.attrs[STALLED_ATTRIBUTE])} if STALLED_ATTRIBUTE in info.attrs else set()
        known = self._watched.get(info.id)
        if known is not None and (set(known.every), set(known.stalled_s)) == (every, stalled_s):
            known.info = info
            return
        if known is not None and known.every:
            self.tell_progress(info.id)  # what was crossed under the wishes that there were
        if not every and not stalled_s:
            self._watched.pop(info.id, None)
            return
        if begin_here and every:
            self._table.begin_at(info.id, self._storage.index(info.id).stored)
        last_s = self._clock_s() if known is None else known.last_s
        told = set() if known is None else known.stalls_told & stalled_s
        watched = _Watched(info, frozenset(every), frozenset(stalled_s), last_s, stalls_told=told)
        watched.next_count = _next_multiple(watched.every, self._table.told(info.id) or 0)
        self._watched[info.id] = watched
        self._wake(info.id)

    # ---- what happens to it

    def stir(self, stream_id: str) -> None:
        """Blocks of a stream came in. Must be quick: it is on the way of the data."""
        watched = self._watched.get(stream_id)
        if watched is None:
            return
        watched.last_s = self._clock_s()
        count = watched.next_count
        if watched.stalls_told:
            watched.stalls_told = set()  # over; the clock runs again
            self._wake(stream_id)
        elif count is not None and self._storage.index(stream_id).stored >= count:
            self._wake(stream_id)

    def _wake(self, stream_id: str) -> None:
        with self._changed:
            self._crossed.add(stream_id)
            self._changed.notify_all()

    def look(self) -> float | None:
        """Tell all that is due, in the calling thread; returns in how many seconds a stall may be, None for none.

        When it returns, what was crossed before the call is told, by this thread or by another that was at it.
        """
        with self._looking:
            with self._changed:
                crossed, self._crossed = self._crossed, set()
            for stream_id in sorted(crossed):
                try:
                    self.tell_progress(stream_id)
                except NotFound:
                    pass  # deleted meanwhile
                except BaseException:
                    with self._changed:
                        self._crossed |= crossed
                    raise
            return self._tell_stalls()

    def tell_progress(self, stream_id: str) -> None:
        """Tell the counts that a stream has passed; what is told of is durable first."""
        with self._telling:
            watched = self._watched.get(stream_id)
            if watched is None or watched.next_count is None:
                return
            index = self._storage.index(stream_id)
            stored = index.stored
            if stored < watched.next_count:
                return
            self._storage.sync()
            while watched.next_count is not None and watched.next_count <= stored:
                counts = _multiples(watched.every, watched.next_count, stored)
                ends = [(count, index.end_of_stored(count)) for count in counts]
                self._catalog.tell(lambda info=watched.info, ends=ends: self._table.tell_progress(info, ends))  # type: ignore[misc]
                watched.next_count = _next_multiple(watched.every, counts[-1])

    def _tell_stalls(self) -> float | None:
        now_s, waits_s = self._clock_s(), []
        with self._telling:
            for watched in list(self._watched.values()):
                for after_s in sorted(watched.stalled_s - watched.stalls_told):
                    left_s = watched.last_s + after_s - now_s
                    if left_s > 0:
                        waits_s.append(left_s)
                        continue
                    watched.stalls_told = watched.stalls_told | {after_s}
                    self._tell_stall(watched.info, after_s)
        return min(waits_s, default=None)

    def _tell_stall(self, info: StreamInfo, after_s: float) -> None:
        index = self._storage.index(info.id)
        handled, end_index = index.handled_count, index.next_index
        self._catalog.tell(lambda: self._table.tell_stall(info, after_s, handled, end_index))

    def _run(self) -> None:
        while True:
            try:
                wait_s = self.look()
            except Stopping:
                return
            except HissError as error:
                log.warning("events of open streams: %s; trying again", error)
                wait_s = _RETRY_S
            except Exception:
                log.exception("events of open streams: a bug; trying again")
                wait_s = _RETRY_S
            with self._changed:
                if not self._stopped and (wait_s == _RETRY_S or not self._crossed):
                    self._changed.wait(wait_s)
                if self._stopped:
                    return


def _next_multiple(every: frozenset[int], count: int) -> int | None:
    """The first multiple of any of them above `count`."""
    return min(((count // each + 1) * each for each in every), default=None)


def _multiples(every: frozenset[int], first: int, last: int) -> list[int]:
    """The multiples of any of them from `first`, which is one, to `last`; no more than an event page."""
    found = [first]
    while len(found) < limits.EVENTS_PAGE and (count := _next_multiple(every, found[-1]) or last + 1) <= last:
        found.append(count)
    return found
