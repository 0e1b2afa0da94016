"""Moves the little that is alive out of segments that are nearly empty, so that they are used again.

Interleaved streams share segments, and one small stream that stays keeps a whole segment from being recycled. A segment
of which less than 1 / `limits.COMPACTION_FRACTION` is alive is compacted: each record in it is read, every block
compared with its digest, written once more at the log's tail, and when the copy is durable the index goes over to it.
The emptied segment is recycled like any other. (The idea: Rosenblum and Ousterhout, The design and implementation of a
log-structured file system, 1992, section 3.) A retired segment is emptied too, whatever is alive in it.

Invariants: the index never names a copy that is not durable, so that a crash at any point leaves the original, the copy
or both, and of both recovery takes one; readers that still have the old place find the record there or look it up
again; a record of which anything is damaged stays, and its segment with it, reported; copying is limited to a rate
unless somebody waits for space, and takes the one segment that the pool keeps for it when the disk is full.

`step` is called by one thread: the compactor's own once it was started.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hiss import limits
from hiss.blocks.extent_reader import ExtentReader
from hiss.blocks.index import Place, StreamIndex
from hiss.blocks.segment import Segment
from hiss.blocks.segment_log import SegmentLog
from hiss.blocks.segment_pool import SegmentPool
from hiss.blocks.strays import Strays
from hiss.errors import BlockDamaged, HissError, SpaceExhausted, Stopping, StreamNotFound

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Compaction:
    """What was compacted since the start."""

    segments: int = 0  # emptied
    records: int = 0  # moved
    bytes: int = 0  # written for that
    kept: tuple[str, ...] = ()  # segments that cannot be emptied, and why


@dataclass(slots=True, eq=False)
class _Copies:
    """Copies on their way to the disk."""

    open: int = 0
    error: HissError | None = None


class Compactor:
    """Compacts the segments of one log.

    Parameters
    ----------
    pool, log, reader, strays
        Of the log; recovery is over.
    indexes : callable
        The indexes of all streams.
    bytes_per_s : int
        Copied at most, while nobody waits for space.
    pause : callable, optional
        Waits so many seconds; whether it was told to stop meanwhile.
    """

    def __init__(
        self,
        pool: SegmentPool,
        segment_log: SegmentLog,
        reader: ExtentReader,
        strays: Strays,
        indexes: Callable[[], list[StreamIndex]],
        bytes_per_s: int,
        *,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self._pool, self._log, self._reader, self._strays = pool, segment_log, reader, strays
        self._indexes = indexes
        self._bytes_per_s = bytes_per_s
        self._stopping = threading.Event()
        self._pause = pause or self._stopping.wait
        self._wanted = threading.Event()
        self._settled = threading.Condition()
        self._kept: dict[int, tuple[int, str]] = {}  # segment -> generation, why
        self._done = Compaction()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Compact from now on, in a thread, whatever is worth it."""
        self._pool.on_sparse = self._wanted.set
        self._wanted.set()
        self._thread = threading.Thread(target=self._run, name="hiss-compactor", daemon=True)
        self._thread.start()

    @property
    def done(self) -> Compaction:
        with self._pool.lock:
            kept = [why for why in map(self._why_kept, self._pool.segments.values()) if why]
        return replace(self._done, kept=tuple(kept))

    def close(self) -> None:
        """Stop between two batches of records. More than once is fine."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            self._wanted.clear()
            try:
                while not self._stopping.is_set() and self.step():
                    pass
            except Stopping:
                return
            except SpaceExhausted:  # until something is freed
                log.debug("no segment to compact into")
            except HissError as error:
                log.warning("compaction goes on later: %s", error)
            except Exception:
                log.exception("compaction has failed; it is tried again when something is deleted")

    # ---- one segment

    def step(self) -> bool:
        """Empty the segment that has the least in it; whether there was one to be emptied.

        Raises
        ------
        SpaceExhausted, SegmentDamaged, Stopping
            Records cannot be written elsewhere; what was not moved is where it was.
        """
        segment = self._next()
        if segment is None:
            return False
        generation = segment.generation
        try:
            for batch in self._batches(segment):
                if self._stopping.is_set():
                    return True
                self._move(batch)
        except BlockDamaged as error:
            self._keep(segment, str(error))
            return True
        with self._pool.lock:
            emptied = segment.generation != generation or not segment.live_records
        if emptied:
            self._done = replace(self._done, segments=self._done.segments + 1)
        else:
            self._keep(segment, "it holds records that are not moved")
        return True

    def _next(self) -> Segment | None:
        with self._pool.lock:
            sparse = [each for each in self._pool.segments.values() if each.sparse and not self._why_kept(each)]
        sparse = [each for each in sparse if not self._strays.holds(each.number)]
        return min(sparse, key=lambda each: each.live_bytes, default=None)

    def _why_kept(self, segment: Segment) -> str:
        """Why it is left as it is; empty: it is not."""
        generation, why = self._kept.get(segment.number, (0, ""))
        return why if generation == segment.generation else ""

    def _keep(self, segment: Segment, why: str) -> None:
        text = f"{segment.path.name}: {why}"
        log.error("compaction leaves a segment as it is: %s", text)
        with self._pool.lock:
            self._kept[segment.number] = (segment.generation, text)

    def _batches(self, segment: Segment) -> Iterator[list[tuple[StreamIndex, int, Place]]]:
        """What is alive in the segment, some records at a time."""
        batch: list[tuple[StreamIndex, int, Place]] = []
        size = 0
        for index in self._indexes():
            for record in index.records_in(segment.number):
                place = index.place(record)
                if batch and size + place.total_bytes > limits.COMPACTION_BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
                batch.append((index, record, place))
                size += place.total_bytes
        if batch:
            yield batch

    def _move(self, batch: list[tuple[StreamIndex, int, Place]]) -> None:
        """Copy records, and move the index to each copy when it is durable; returns when all are."""
        copies = _Copies()
        size = 0
        try:
            for index, record, place in batch:
                size += self._copy(index, record, place, copies)
        finally:
            with self._settled:
                self._settled.wait_for(lambda: not copies.open)
        self._done = replace(self._done, records=self._done.records + len(batch), bytes=self._done.bytes + size)
        if copies.error is not None:
            raise copies.error
        if not self._pool.pressed:
            self._pause(size / self._bytes_per_s)

    def _copy(self, index: StreamIndex, record: int, place: Place, copies: _Copies) -> int:
        """Write one record again; the bytes that its copy takes."""
        try:
            table, payload = self._reader.whole(index, record)
        except StreamNotFound:
            return 0
        if index.live(record) != len(table.index) and not index.deleted:
            raise BlockDamaged(f"blocks of stream {index.stream_id} at offset {place.offset} are known to be damaged")

        def settled(error: HissError | None, copy: Place) -> None:
            if error is None:
                self._relocate(index, record, place, copy)
            with self._settled:
                copies.open -= 1
                copies.error = copies.error or error
                self._settled.notify_all()

        with self._settled:
            copies.open += 1
        try:
            self._log.copy(index, record, table, payload, settled)
        except BaseException:
            with self._settled:
                copies.open -= 1
            raise
        return place.total_bytes

    def _relocate(self, index: StreamIndex, record: int, old: Place, copy: Place) -> None:
        """The copy is durable: the record stands there from now on, unless nobody wants it any more."""
        gone = old if index.relocate(record, copy) else copy
        self._pool.count_live(self._pool.segments[gone.segment], -1, -gone.total_bytes)
