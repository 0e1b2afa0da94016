"""The retention of one node at work: what may leave the log does, at a limited rate, and never while it is read.

An eviction is one transaction of the catalog, with its event; the space is freed after it. A crash between the two
leaves records that nobody asks for, and recovery counts them as dead. What is to go, and in which order, is decided by
`blocks.retention`. `look`, `evict` and `make_room` may be called from any thread, one at a time does the work; `start`
runs `look` in a thread of its own, every `limits.EVICT_EVERY_S` and where space runs short.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from hiss import limits
from hiss.blocks import Reservations, Storage
from hiss.blocks.retention import REQUEST, evicted, may_go, planned, policy_of
from hiss.drain_policy import policy_of as drain_policy_of
from hiss.errors import Conflict, HissError, NotFound, Unavailable
from hiss.model import StreamInfo
from hiss.space import Evicted, Retention

log = logging.getLogger(__name__)


class Evictor:
    """
    Parameters
    ----------
    storage : Storage
    reservations : Reservations
        Says how much space lacks, and is told what was freed.
    default : Retention
        For collections that have no policy of their own, nor one above them.
    clock_ns : callable
        UTC nanoseconds since 1970.
    """

    def __init__(
        self, storage: Storage, reservations: Reservations, default: Retention, clock_ns: Callable[[], int]
    ) -> None:
        self._storage = storage
        self._records = storage.catalog.space
        self._reservations = reservations
        self.default = default
        self._clock_ns = clock_ns
        self._working = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hiss retention", daemon=True)

    def start(self) -> None:
        self._reservations.on_short = self._wake.set
        self._reservations.make_room = self.make_room
        self._reservations.evictable_bytes = self.evictable_bytes
        self._thread.start()

    def close(self) -> None:
        """End the thread; what it has begun is finished."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(limits.EVICT_EVERY_S)
            if self._stop.wait(limits.EVICT_PAUSE_S):
                return
            self._wake.clear()
            try:
                self.look()
            except HissError as error:
                log.error("retention: %s", error)

    # ---- what goes

    def policy(self, collection: str) -> Retention:
        """What holds for a collection."""
        return policy_of(collection, self._records.retentions(), self.default)

    def look(self, *, dry_run: bool = False) -> list[Evicted]:
        """Evict what the policies take now, at most `limits.EVICTIONS_AT_ONCE` streams."""
        short = max(0, self._reservations.shortage()) * self._storage.room().segment_bytes
        return self._take(self._plan(short), dry_run)

    def make_room(self, segments: int) -> None:
        """Evict what may go under pressure, as much as so many segments hold."""
        self._take(self._plan(segments * self._storage.room().segment_bytes), dry_run=False)

    def evictable_bytes(self) -> int:
        """What could go under pressure now."""
        return sum(info.completeness.bytes for info, _ in self._plan(1 << 62))

    def _plan(self, short_bytes: int) -> Iterator[tuple[StreamInfo, str]]:
        own = self._records.retentions()
        policies = [self.default, *own.values()]
        if not short_bytes and all(each.age_s is None and each.drained_s is None for each in policies):
            return iter(())
        candidates = self._records.candidates(undrained=any(each.undrained for each in policies))
        return planned(candidates, own, self.default, self._clock_ns(), short_bytes, self._archived())

    def _archived(self) -> Callable[[StreamInfo], bool]:
        """Tells of a stream whether it is archived wherever its drain policy, as it is now, wants it."""
        drains = self._storage.catalog.drains
        policies = drains.policies()

        def archived(info: StreamInfo) -> bool:
            return bool(info.archives) and not drain_policy_of(info.collection, policies).lacks(info, drains.state)

        return archived

    def archived(self, info: StreamInfo) -> bool:
        """Whether it is archived wherever its drain policy wants it; without such a policy, anywhere."""
        return self._archived()(info)

    def evict(self, path: str, version: int | None, *, dry_run: bool) -> list[Evicted]:
        """Evict a stream, or all that may go of a collection and of those below it.

        Raises
        ------
        NotFound
            No stream and no collection of that path.
        Conflict
            The stream is archived nowhere, or lacks a place that its drain policy names, and nobody allowed that it
            goes.
        Unavailable
            The stream is being read.
        """
        catalog = self._storage.catalog
        collections = [one.path for one in catalog.collections(path) if f"{one.path}/".startswith(f"{path}/")]
        found = [info for each in collections for info in catalog.every_stream(each)]
        if not collections:
            above, _, name = path.rpartition("/")
            found = [info for info in catalog.every_stream(above) if info.name == name]
            if not found:
                raise NotFound(f"{path}: no stream and no collection of that path; `hiss ls` shows what there is")
        wanted = [info for info in found if version in (None, info.version) and info.eviction is None]
        archived = self._archived()
        going = [info for info in wanted if may_go(info, self.policy(info.collection), archived)]
        if not collections and wanted and not going:
            raise Conflict(
                f"stream {path} is open, or not archived wherever it is to be; drain it first (`hiss drains` shows "
                "what waits), or allow it for its collection with `hiss retention COLLECTION --undrained`",
                stream=path,
            )
        taken = self._take(((info, REQUEST) for info in going), dry_run)
        if not collections and going and not taken:
            raise Unavailable(f"stream {path} is being read; try again when that is over")
        return taken

    def _take(self, plan: Iterator[tuple[StreamInfo, str]], dry_run: bool) -> list[Evicted]:
        taken: list[Evicted] = []
        with self._working:
            for info, why in plan:
                if len(taken) >= limits.EVICTIONS_AT_ONCE and why != REQUEST:
                    break
                if self._storage.catalog.attempt_of(info.id) is not None:
                    continue  # staged: its attempt may still be discarded or committed
                if not dry_run:
                    freed = self._storage.evict(info.id, why)
                    if freed is None:
                        continue  # it is being read
                    self._reservations.freed(info.collection, freed)
                    log.info("evicted %s version %d: %s", info.path, info.version, why)
                taken.append(evicted(info, why))
        return taken
