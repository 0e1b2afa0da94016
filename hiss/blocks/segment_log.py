"""The log: records are written where the tail is, by the thread that brings them, and made durable by the committer.

The way of a record: a slot is reserved under the lock (segment, offset, log sequence number), the record is written
from the caller's memory without the lock, so that streams write side by side; then it enters its stream's index and is
readable. The committer thread takes all that has been written since its last round and covers it by one `fdatasync` a
segment (group commit).

A segment that is full gets an end mark, and when all in it is durable an index of its records (`segment_footer`).

What fails: the first write or sync that fails retires its segment for good. A record whose write failed is written
again by its own thread, records whose sync is outstanding are written again from memory by the committer, into another
segment; after `limits.LOG_REWRITES_MAX` of those the record is given up: it leaves the index and its owner is told. A
copy that `compaction` makes is not written again: the record is still where it was.

Invariants: offsets and sequence numbers rise together within a segment; `durable_lsn` in a record is the highest number
below which everything was durable when it was reserved; memory of a record is not touched after its `done` was called.
Lock order: log, then pool, then index. `append` may be called from any thread, one at a time for a stream; `done` comes
from the committer.
"""

from __future__ import annotations

import collections
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import xxhash

from hiss import limits
from hiss.blocks.arena import Region
from hiss.blocks.files import write_fully
from hiss.blocks.index import Place, StreamIndex
from hiss.blocks.recent import Recent
from hiss.blocks.record import (
    BLOCK_META_BYTES,
    HEADER_BYTES,
    KIND_BLOCKS,
    KIND_END,
    KIND_MARK,
    PAYLOAD_ALIGN,
    BlockTable,
    RecordHeader,
    aligned,
)
from hiss.blocks.segment import HEADER_PAGE_BYTES, Segment
from hiss.blocks.segment_footer import FooterDraft
from hiss.blocks.segment_pool import SegmentPool, out_of_space
from hiss.errors import BlockTooLarge, HissError, SegmentDamaged, SpaceExhausted, Stopping
from hiss.extent import Extent
from hiss.model import ByteArray

log = logging.getLogger(__name__)

_ZEROS: Final = bytes(limits.RECORD_ALIGN_BYTES)

Done = Callable[[HissError | None], None]
CopyDone = Callable[[HissError | None, Place], None]


@dataclass(slots=True, eq=False)
class _Slot:
    """A place in the log that is taken and not durable yet."""

    segment: Segment
    offset: int
    total_bytes: int
    lsn: int
    durable_lsn: int


@dataclass(slots=True, eq=False)
class _Write:
    """One record on its way: written from `payload`, which its owner keeps until `ticket` is settled."""

    index: StreamIndex
    table: BlockTable
    payload: ByteArray
    ticket: _Ticket
    ordinal: int = 0  # order of entry; stays when it is written again
    record: int = -1  # its number in the index
    slot: _Slot | None = None
    encoded: bytes = b""  # the table
    copy: bool = False  # of a record that is in the index already, at another place

    @property
    def head_bytes(self) -> int:
        """Header and table."""
        column_bytes: int = self.table.columns.shape[1]
        return HEADER_BYTES + len(self.table.index) * (BLOCK_META_BYTES + column_bytes)

    @property
    def total_bytes(self) -> int:
        return aligned(aligned(self.head_bytes, PAYLOAD_ALIGN) + len(self.payload))

    @property
    def place(self) -> Place:
        assert self.slot is not None
        return Place(self.slot.segment.number, self.slot.offset, self.slot.total_bytes, len(self.table.index))


@dataclass(slots=True, eq=False)
class _Ticket:
    """The records of one `append`: settled when all of them are."""

    done: Done
    open: int
    error: HissError | None = None
    settled: threading.Event = field(default_factory=lambda: threading.Event())  # a simulator may stand in
    silent: bool = False  # the append raised; its caller was told so


@dataclass(slots=True, eq=False)
class _SyncWait:
    target: int
    streams: set[str] | None  # None: all
    error: HissError | None = None

    def covers(self, ordinal: int, stream_id: str) -> bool:
        return ordinal <= self.target and (self.streams is None or stream_id in self.streams)


class SegmentLog:
    """Appends and makes durable.

    Parameters
    ----------
    pool : SegmentPool
    salt : int
        Of the buffer, for the headers' digests.
    unsynced_bytes_max : int
        Appends wait while more than this is written and not durable.
    space_wait_s : float
        How long an append waits for space on a full disk.
    next_lsn : int
        One past the highest sequence number in the log.
    active : Segment or None
        The segment to go on with.
    recent : Recent, optional
        Where records that lie in the arena are kept for readers.
    """

    def __init__(
        self,
        pool: SegmentPool,
        salt: int,
        *,
        unsynced_bytes_max: int,
        space_wait_s: float,
        next_lsn: int,
        active: Segment | None,
        recent: Recent | None = None,
    ) -> None:
        self.pool = pool
        self._salt = salt
        self._unsynced_bytes_max = unsynced_bytes_max
        self._space_wait_s = space_wait_s
        self._next_lsn = next_lsn
        self._active = active
        self._changed = threading.Condition(pool.lock)
        self._recent = recent
        self._roll_lock = threading.Lock()
        self._unsynced_bytes = 0
        self._outstanding: dict[int, _Slot] = {}  # by lsn, rising
        self._doubted_lsn: int | None = None  # from here on recovery has torn records to see to
        self._ordinals: dict[int, int] = {}  # of writes that are not settled, rising; their bytes
        self._unsettled: collections.Counter[str] = collections.Counter()  # writes of each stream, copies left out
        self._next_ordinal = 1
        self._written: list[_Write] = []
        self._ends: list[_Slot] = []  # end marks that wait for their sync
        self._full: list[_Slot] = []  # end marks of segments that wait for their index; the committer's
        self._sync_waits: list[_SyncWait] = []
        self._stopping = False
        self._broken: HissError | None = None
        self._committer = threading.Thread(target=self._run, name="hiss-committer", daemon=True)
        self._committer.start()

    # ---- appending

    def append(self, index: StreamIndex, extent: Extent, done: Done, region: Region | None = None) -> None:
        """Write an extent; on return it is written and readable, and `done` follows when it is durable.

        An extent that does not fit into one segment is written as several records, settled together. `region` is the
        part of the arena that its bytes lie in, if they do; nobody writes to it any more.

        Raises
        ------
        BlockTooLarge
            One block that no segment holds.
        SpaceExhausted
            The disk was full for `space_wait_s`.
        SegmentDamaged
            Writing failed in several segments.
        """
        writes = list(self._cut(index, extent, done))
        for number, write in enumerate(writes):
            try:
                self._write(write)
            except BaseException:
                self._abandon(write.ticket, len(writes) - number)
                raise
            self._enter(write, region)

    def copy(self, index: StreamIndex, record: int, table: BlockTable, payload: ByteArray, done: CopyDone) -> None:
        """Write a durable record a second time; `done` follows as for `append`, with the place of the copy.

        The index knows nothing of the copy: whoever asked for it moves the record there when it is durable, or else
        gives up what `SegmentPool.count_live` has counted for it. Where the copy fails nothing is left of it.

        Raises
        ------
        SpaceExhausted, SegmentDamaged, Stopping
        """

        def settled(error: HissError | None) -> None:
            done(error, write.place)

        write = _Write(index, table, payload, _Ticket(settled, 1), record=record, copy=True)
        self._write(write)
        self._enter(write)

    def _cut(self, index: StreamIndex, extent: Extent, done: Done) -> Iterator[_Write]:
        table = BlockTable.of(extent)
        room = self.pool.segment_bytes - HEADER_PAGE_BYTES - 2 * limits.RECORD_ALIGN_BYTES
        if extent.data.size + len(extent) * (BLOCK_META_BYTES + table.columns.shape[1]) <= room:
            yield _Write(index, table, extent.data, _Ticket(done, 1))
            return
        offsets = extent.offsets
        ends = offsets[1:] + np.arange(1, len(extent) + 1) * (BLOCK_META_BYTES + table.columns.shape[1])
        cuts = [0]
        while cuts[-1] < len(extent):
            start = cuts[-1]
            behind = int(ends[start - 1]) if start else 0
            stop = int(np.searchsorted(ends, behind + room, "right"))
            if stop == start:
                raise BlockTooLarge(
                    f"block {int(extent.index[start])} of stream {index.stream_id}: {int(extent.length[start])} bytes "
                    f"do not fit into a segment of {self.pool.segment_bytes}; raise segment_bytes",
                    allowed=room,
                    found=int(extent.length[start]),
                )
            cuts.append(stop)
        ticket = _Ticket(done, len(cuts) - 1)
        for start, stop in itertools.pairwise(cuts):
            yield _Write(index, table.rows(slice(start, stop)), extent.data[offsets[start] : offsets[stop]], ticket)

    def _write(self, write: _Write, wait_s: float | None = None) -> None:
        """Reserve a slot and write the record there; in another segment where that fails."""
        deadline = time.monotonic() + (self._space_wait_s if wait_s is None else wait_s)
        write.encoded = write.table.encode()
        failure: OSError | None = None
        self._admit(write)
        try:
            for _ in range(limits.LOG_REWRITES_MAX + 1):
                slot = self._reserve(write, deadline)
                try:
                    self._put(slot, write, write.encoded)
                except OSError as error:
                    failure = error
                    self._fail(slot, error)
                    continue
                write.slot = slot
                return
        except BaseException:
            self._forget(write)
            raise
        self._forget(write)
        assert failure is not None
        kind = SpaceExhausted if out_of_space(failure) else SegmentDamaged
        raise kind(
            f"{self.pool.directory}: {len(write.table.index)} blocks of stream {write.index.stream_id} could not be "
            f"written to any of {limits.LOG_REWRITES_MAX + 1} segments: {failure}; check the disk",
            path=str(self.pool.directory),
            errno=failure.errno or 0,
        ) from failure

    def _put(self, slot: _Slot, write: _Write, encoded: bytes) -> None:
        header = RecordHeader(
            generation=slot.segment.generation,
            lsn=slot.lsn,
            stream=bytes.fromhex(write.index.stream_id),
            kind=KIND_BLOCKS,
            segment=slot.segment.number,
            blocks=len(write.table.index),
            column_bytes=write.table.columns.shape[1],
            offset=slot.offset,
            payload_bytes=len(write.payload),
            durable_lsn=slot.durable_lsn,
            table_digest=xxhash.xxh3_64_intdigest(encoded),
        )
        packed = header.encode(self._salt)
        head = (packed + encoded).ljust(header.payload_start, b"\0")
        tail = _ZEROS[: slot.total_bytes - header.payload_start - len(write.payload)]
        with self.pool.using(slot.segment) as fd:
            write_fully(self.pool.files, fd, [head, write.payload.data, tail], slot.offset)
        with self._changed:
            if slot.segment.draft is not None:
                slot.segment.draft.add(packed, encoded)

    def _admit(self, write: _Write) -> None:
        """Wait for room among what is not durable yet, unless the write was admitted before."""
        with self._changed:
            if write.ordinal:
                return
            size = write.total_bytes
            while self._unsynced_bytes and self._unsynced_bytes + size > self._unsynced_bytes_max:
                self._check_running()
                self._changed.wait()
            self._check_running()
            self._unsynced_bytes += size
            write.ordinal = self._next_ordinal
            self._next_ordinal += 1
            self._ordinals[write.ordinal] = size
            if not write.copy:
                self._unsettled[write.index.stream_id] += 1

    def _check_running(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._stopping:
            raise Stopping(f"{self.pool.directory}: the buffer is being closed")

    def _enter(self, write: _Write, region: Region | None = None) -> None:
        """Make a written record readable and leave it to the committer."""
        slot = write.slot
        assert slot is not None
        self.pool.count_live(slot.segment, 1, slot.total_bytes)
        if not write.copy:
            write.record = write.index.add(write.place, write.table)
            if write.record < 0:  # the stream was deleted meanwhile
                self.pool.count_live(slot.segment, -1, -slot.total_bytes)
            elif self._recent is not None and region is not None:
                blocks = len(write.table.index)
                self._recent.add(write.index.stream_id, write.record, write.encoded, blocks, write.payload, region)
        with self._changed:
            self._written.append(write)
            self._changed.notify_all()

    def _abandon(self, ticket: _Ticket, unwritten: int) -> None:
        """An append failed half-way: wait until nobody needs its memory."""
        with self._changed:
            ticket.silent = True
            ticket.open -= unwritten
            if ticket.open == 0:
                return
        ticket.settled.wait()

    # ---- slots

    def _reserve(self, write: _Write, deadline: float) -> _Slot:
        while True:
            slot = self._slot_now(write)
            if slot is not None:
                return slot
            if write.copy:  # it waits for nobody: others wait for what it frees
                raise SpaceExhausted(f"{self.pool.directory}: no segment to move records to", path="")
            self.pool.wait_for_space(deadline)

    def _slot_now(self, write: _Write) -> _Slot | None:
        """A slot in the active segment, or in a new one; None where there is no space for that."""
        while True:
            with self._changed:
                slot = self._slot_for(write)
                if slot is not None:
                    return slot
            with self._roll_lock:
                with self._changed:
                    slot = self._slot_for(write)
                    if slot is not None:
                        return slot
                    old = self._active
                    for_copies = old is not None and not self._takes(old, write)
                    if not for_copies:
                        self._active = None
                if for_copies:
                    if not self.pool.make_kept():
                        return None
                    continue
                if old is not None:
                    self._end(old)
                with self._changed:
                    first_lsn = self._next_lsn  # nobody takes a number while no segment is active
                segment = self.pool.acquire(first_lsn, for_copies=write.copy)
                if segment is None:
                    return None
                with self._changed:
                    self._active = segment

    def _takes(self, segment: Segment, write: _Write) -> bool:
        return write.copy or self.pool.open_to_all(segment)

    def _slot_for(self, write: _Write) -> _Slot | None:
        """The next slot of the active segment, or None where another is needed; the lock is held."""
        segment = self._active
        if segment is None or not self._takes(segment, write):
            return None
        total_bytes, head_bytes, room = write.total_bytes, write.head_bytes, 0
        if segment.draft is not None:
            needed = segment.draft.room(head_bytes, segment.size)
            if needed is None:
                segment.draft = None
            room = needed or 0
        if segment.tail + total_bytes + room > segment.size:
            return None
        slot = self._slot_in(segment, total_bytes)
        if slot is not None and segment.draft is not None:
            segment.draft.plan(head_bytes)
        return slot

    def _slot_in(self, segment: Segment, total_bytes: int) -> _Slot | None:
        if segment.closed or segment.tail + total_bytes > segment.size:
            return None
        durable = min(next(iter(self._outstanding), self._next_lsn), self._doubted_lsn or self._next_lsn) - 1
        slot = _Slot(segment, segment.tail, total_bytes, self._next_lsn, durable)
        self._next_lsn += 1
        half = segment.size // 2
        if segment.tail < half <= segment.tail + total_bytes:
            self.pool.on_half_full()
        segment.tail += total_bytes
        segment.outstanding[slot.offset] = total_bytes
        self._outstanding[slot.lsn] = slot
        return slot

    def _drop(self, slot: _Slot) -> None:
        """The slot needs no sync any more: it is durable, or given up."""
        with self._changed:
            self._outstanding.pop(slot.lsn, None)
            slot.segment.outstanding.pop(slot.offset, None)
            self.pool.look_at(slot.segment)
            self._changed.notify_all()

    def _fail(self, slot: _Slot, error: OSError) -> None:
        with self._changed:
            self.pool.retire(slot.segment, error)
            self._drop(slot)

    def _forget(self, write: _Write) -> None:
        """The write is over, in whatever way."""
        with self._changed:
            size = self._ordinals.pop(write.ordinal, None)
            if size is not None:
                self._unsynced_bytes -= size
                if not write.copy:
                    self._unsettled[write.index.stream_id] -= 1
                    if not self._unsettled[write.index.stream_id]:
                        del self._unsettled[write.index.stream_id]
            self._changed.notify_all()

    # ---- marks

    def doubt(self, lsn: int | None) -> None:
        """Recovery is at work: until it says None, records vouch for none from that number on. Else a crash within a
        recovery would turn what an earlier one had torn into damage.
        """
        with self._changed:
            self._doubted_lsn = lsn

    def mark(self) -> None:
        """Write a mark at the tail and make it durable: whatever stands behind it is left over from before a crash."""
        with self._changed:
            segment = self._active
            slot = None if segment is None else self._slot_in(segment, limits.RECORD_ALIGN_BYTES)
        if slot is not None:
            if self._put_mark(slot, KIND_MARK):
                self._synced(slot.segment)
            self._drop(slot)

    def _end(self, segment: Segment) -> None:
        """The segment takes no more records; say so in it, so that a scan need not read on."""
        with self._changed:
            slot = self._slot_in(segment, limits.RECORD_ALIGN_BYTES)
        if slot is None:
            self.pool.close_segment(segment)
        elif self._put_mark(slot, KIND_END):
            with self._changed:
                self._ends.append(slot)
                self._changed.notify_all()

    def _put_mark(self, slot: _Slot, kind: int) -> bool:
        number, generation = slot.segment.number, slot.segment.generation
        header = RecordHeader(generation, slot.lsn, bytes(16), kind, number, 0, 0, slot.offset, 0, slot.durable_lsn, 0)
        try:
            with self.pool.using(slot.segment) as fd:
                page = header.encode(self._salt).ljust(limits.RECORD_ALIGN_BYTES, b"\0")
                write_fully(self.pool.files, fd, [page], slot.offset)
        except OSError as error:
            self._fail(slot, error)
            return False
        return True

    # ---- the committer

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._written or self._ends or (self._stopping and not self._ordinals)):
                    self._changed.wait()
                if not self._written and not self._ends:
                    return
                writes, self._written = self._written, []
                ends, self._ends = self._ends, []
            try:
                self._commit(writes, ends)
            except BaseException as error:  # a bug: say so to everybody rather than leave them waiting
                log.exception("the committer failed")
                self._break(writes, error)

    def _commit(self, writes: list[_Write], ends: list[_Slot]) -> None:
        """One sync a segment; what that covers is settled, the rest is written again."""
        slots = [write.slot for write in writes if write.slot is not None] + ends
        segments = {slot.segment.number: slot.segment for slot in slots}
        durable = {number for number, segment in segments.items() if not segment.retired and self._synced(segment)}
        for slot in ends:
            self._drop(slot)
        self._full += ends
        again: list[_Write] = []
        for write in writes:
            assert write.slot is not None
            if write.slot.segment.number in durable:
                self._settle(write, None)
            else:
                again.append(write)
        self._finish_full()
        for write in again:
            self._write_again(write)

    def _finish_full(self) -> None:
        """Give the full segments of which all is durable their index, and close them."""
        waiting = []
        for end in self._full:
            with self._changed:
                busy = bool(end.segment.outstanding) and not end.segment.retired
                draft, end.segment.draft = end.segment.draft, end.segment.draft if busy else None
            if busy:
                waiting.append(end)
                continue
            if draft is not None and not end.segment.retired:
                self._put_footer(end, draft)
            self.pool.close_segment(end.segment)
        self._full = waiting

    def _put_footer(self, end: _Slot, draft: FooterDraft) -> None:
        segment = end.segment
        tail = end.offset + end.total_bytes
        footer = draft.encode(
            self._salt, segment.number, segment.generation, segment.size, tail, end.lsn, end.durable_lsn
        )
        if footer is not None:
            try:
                with self.pool.using(segment) as fd:
                    write_fully(self.pool.files, fd, footer[1], footer[0])
            except OSError as error:
                self.pool.retire(segment, error)
            else:
                self._synced(segment)

    def _synced(self, segment: Segment) -> bool:
        try:
            with self.pool.using(segment) as fd:
                self.pool.files.fdatasync(fd)
        except OSError as error:
            self.pool.retire(segment, error)
            return False
        return not segment.retired

    def _write_again(self, write: _Write) -> None:
        """Move a record whose segment failed into another one, and try to make it durable there."""
        error: HissError | None = None
        for _ in range(0 if write.copy else limits.LOG_REWRITES_MAX):
            old = write.slot
            assert old is not None
            try:
                self._write(write, wait_s=0.0)
            except HissError as failure:
                error = failure
                break
            self._relocate(write, old)
            assert write.slot is not None
            if not write.slot.segment.retired and self._synced(write.slot.segment):
                self._settle(write, None)
                return
        self._give_up(write, error)

    def _relocate(self, write: _Write, old: _Slot) -> None:
        """The record was written to its new slot: the index has it there from now on."""
        new = write.slot
        assert new is not None
        self.pool.count_live(new.segment, 1, new.total_bytes)
        gone = old if write.index.relocate(write.record, write.place) else new
        self.pool.count_live(gone.segment, -1, -gone.total_bytes)
        self._drop(old)

    def _give_up(self, write: _Write, error: HissError | None) -> None:
        slot = write.slot
        assert slot is not None
        if write.copy or (write.record >= 0 and write.index.remove(write.record, write.table)):
            self.pool.count_live(slot.segment, -1, -slot.total_bytes)
            if self._recent is not None:
                self._recent.forget(write.index.stream_id, write.record)
        failure = error or SegmentDamaged(
            f"{slot.segment.path}: {len(write.table.index)} blocks of stream {write.index.stream_id} could not be made "
            f"durable: {slot.segment.failure}; check the disk and send them again",
            path=str(slot.segment.path),
        )
        self._settle(write, failure)

    def _settle(self, write: _Write, error: HissError | None) -> None:
        assert write.slot is not None
        self._drop(write.slot)
        with self._changed:
            for wait in self._sync_waits:
                if error is not None and wait.covers(write.ordinal, write.index.stream_id):
                    wait.error = wait.error or error
            self._forget(write)
            ticket = write.ticket
            ticket.open -= 1
            ticket.error = ticket.error or error
            over = ticket.open == 0
        if over:
            ticket.settled.set()
            if not ticket.silent:
                self._tell(ticket)

    def _tell(self, ticket: _Ticket) -> None:
        try:
            ticket.done(ticket.error)
        except Exception:  # somebody else's bug must not stop the log
            log.exception("a callback of an append failed")

    def _break(self, batch: list[_Write], cause: BaseException) -> None:
        error = SegmentDamaged(f"{self.pool.directory}: the log stopped: {cause!r}; restart the buffer")
        with self._changed:
            self._broken = error
        for write in batch:
            if write.ordinal in self._ordinals:
                self._settle(write, error)

    # ---- everybody's

    def busy(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._ordinals)

    def sync(self, streams: set[str] | None = None) -> None:
        """Block until everything written so far is durable, or nothing of these streams is on its way any more; raise
        if some of it cannot be made durable."""
        with self._changed:
            wait = _SyncWait(self._next_ordinal - 1, streams)
            self._sync_waits.append(wait)
            try:
                while self._awaits(wait):
                    self._changed.wait()
            finally:
                self._sync_waits.remove(wait)
        if wait.error is not None:
            raise wait.error

    def _awaits(self, wait: _SyncWait) -> bool:
        if wait.streams is None:
            return next(iter(self._ordinals), self._next_ordinal) <= wait.target
        return any(stream in self._unsettled for stream in wait.streams)

    def close(self) -> None:
        """Make durable what is written, mark the tail, stop the committer."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self.pool.hurry()
        self._committer.join()
        self.mark()
