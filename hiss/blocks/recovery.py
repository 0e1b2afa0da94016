"""What is done with a log when it is opened: every segment is scanned, the indexes are built, what a crash left is
cleared away.

In two steps. `scan_log` reads all segments in the order in which they were written and fills the indexes; it changes no
byte. `repair` then, with the log running, writes again what stands where it cannot be trusted, covers torn records so
that they are never taken for damage, and marks the tail. A crash within either is followed by the same again.

What a record may be found to be:

A segment with a good footer is not scanned: the footer says what is in it, and that it was durable. What is wrong with
its blocks is found when they are read.

- *good*: in the index; where the same block was written twice, the later one counts. A copy that compaction made of a
  final stream's record may be torn, so that blocks that occur twice are always compared with their digests first;
- *torn*: not good, and no later record vouches that it was durable: a write that a crash cut. Its good blocks are
  written again;
- *damaged*: not good though it was durable, or refused by the disk, so that nobody can tell: reported by name; its good
  blocks are served, the others never. Where something was refused, the segment is neither written nor used again;
- *dead*: of a stream that was deleted;
- *stray*: of a stream that the catalog knows nothing of: reported, and its segment kept (`strays`).

Before anything is served, every segment is synced: what a killed process had written but not synced is durable then,
and may be acknowledged so. Called by one thread, before any other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.blocks.extent_reader import ExtentReader, wrong_blocks
from hiss.blocks.files import write_fully
from hiss.blocks.index import Place, StreamIndex
from hiss.blocks.ledger import DAMAGED, NEVER
from hiss.blocks.record import HEADER_BYTES, KIND_VOID, BlockTable, RecordHeader, columns_of
from hiss.blocks.segment import Segment, parse_name
from hiss.blocks.segment_footer import FooterDraft, SegmentFooter, read_footer
from hiss.blocks.segment_log import SegmentLog
from hiss.blocks.segment_pool import SegmentPool
from hiss.blocks.segment_scan import Hole, SegmentScan
from hiss.blocks.strays import Strays
from hiss.errors import CatalogDamaged, HissError
from hiss.extent import Extent
from hiss.model import BlockStatus, ByteArray, StreamInfo

log = logging.getLogger(__name__)

_REPORTED_MAX = 1000  # findings named one by one in a report

STRAY_ADVICE: Final = (
    "the log has blocks of streams that the catalog does not know and that nobody deleted: the catalog has lost its "
    "latest changes. Their space is kept. Put a later copy of catalog.db and catalog.db-wal back, or delete these "
    "streams by their ids"
)


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of the log that was durable and cannot be read any more."""

    segment: int
    offset: int
    stream: str  # its path or id, '' where nothing says whose it was
    blocks: tuple[int, ...]  # producer indices, as far as they are known
    what: str


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What opening the log found and did."""

    segments: int = 0
    indexed_segments: int = 0  # of those, read by the index at their end
    records: int = 0  # good ones with blocks
    blocks: int = 0
    bytes: int = 0  # of payload
    dead_records: int = 0  # of streams that were deleted
    stray_records: int = 0  # of streams that the catalog does not know, and that nobody deleted; kept
    stray_bytes: int = 0  # of segment space that they take
    stray_streams: tuple[str, ...] = ()  # their ids
    torn_records: int = 0  # cut by a crash; nothing durable was in them
    rewritten_blocks: int = 0  # written again, because they stood where they were not safe
    damages: tuple[Damage, ...] = ()
    damages_count: int = 0  # those not listed included

    def attrs(self) -> dict[str, Any]:
        """As JSON."""
        names = ("segments", "indexed_segments", "records", "blocks", "bytes", "dead_records")
        out: dict[str, Any] = {name: getattr(self, name) for name in (*names, "torn_records", "rewritten_blocks")}
        if self.stray_records:
            out["stray_records"], out["stray_bytes"] = self.stray_records, self.stray_bytes
            out["stray_streams"] = list(self.stray_streams[:100])
            out["warning"] = STRAY_ADVICE
        out["damages_count"] = self.damages_count
        out["damages"] = [
            {
                "segment": damage.segment,
                "offset": damage.offset,
                "stream": damage.stream,
                "blocks": list(damage.blocks[:100]),
                "what": damage.what,
            }
            for damage in self.damages[:100]
        ]
        return out


@dataclass(slots=True, eq=False)
class _Doubtful:
    """A record that is not simply good: some blocks are wrong, or its segment failed."""

    index: StreamIndex
    header: RecordHeader
    table: BlockTable
    good: npt.NDArray[np.bool_]
    wanted: npt.NDArray[np.bool_]  # all of them, but for what a final stream does not have
    segment: Segment
    untrusted: bool  # its segment failed: what is read may never have reached the disk
    refused: bool  # by the disk, when its payload was to be read


@dataclass(slots=True, eq=False)
class LogScan:
    """What `scan_log` found, for `repair` and the log."""

    next_lsn: int = 1
    durable_lsn: int = 0
    active: Segment | None = None
    again: list[_Doubtful] = field(default_factory=list)
    torn: list[Hole] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    segments: int = 0
    indexed_segments: int = 0
    records: int = 0
    blocks: int = 0
    bytes: int = 0
    dead_records: int = 0
    dead_streams: set[str] = field(default_factory=set)  # deleted ones that the log still has records of
    torn_records: int = 0
    rewritten_blocks: int = 0

    def report(self, strays: Strays) -> RecoveryReport:
        stray_records, stray_bytes = strays.totals()
        return RecoveryReport(
            self.segments,
            self.indexed_segments,
            self.records,
            self.blocks,
            self.bytes,
            self.dead_records,
            stray_records,
            stray_bytes,
            strays.ids[:_REPORTED_MAX],
            self.torn_records,
            self.rewritten_blocks,
            tuple(self.damages[:_REPORTED_MAX]),
            len(self.damages),
        )


class Recovery:
    """One opening of the log.

    Parameters
    ----------
    pool : SegmentPool
        Empty; takes over what is found.
    reader : ExtentReader
        Over that pool.
    node, salt : str, int
        The buffer's.
    streams : mapping of str to StreamInfo
        All that the catalog knows, by id.
    index_of : callable
        The index of a stream, made where it is not there.
    is_deleted : callable
        Whether a stream that the catalog does not know was deleted.
    """

    def __init__(
        self,
        pool: SegmentPool,
        reader: ExtentReader,
        node: str,
        salt: int,
        streams: Mapping[str, StreamInfo],
        index_of: Callable[[str], StreamIndex],
        is_deleted: Callable[[str], bool],
    ) -> None:
        self._pool, self._reader, self._node, self._salt = pool, reader, node, salt
        self._streams, self._index_of, self._is_deleted = streams, index_of, is_deleted
        self.strays: Final = Strays(pool)
        self._doubtful: list[_Doubtful] = []
        self._missing: dict[str, npt.NDArray[np.int64]] = {}  # of final streams: (first, last) of what is not there
        self._holes: list[tuple[Segment, Hole]] = []
        self._unsafe: list[Segment] = []  # held until what stands there is safe elsewhere
        self._refused: set[int] = (
            set()
        )  # segments of which something could not be read: held as long as this log is open
        self._answers: list[_Answer] = []  # to what was written again
        self.found = LogScan()

    # ---- reading

    def scan_log(self) -> LogScan:
        """Scan all segments and fill the indexes.

        Raises
        ------
        CatalogDamaged
            The segments belong to another catalog than this one.
        """
        opened = self._open_all()
        newest = max((segment.generation for segment, _ in opened), default=0)
        for segment, trusted_end in sorted(opened, key=lambda each: each[0].generation):
            with self._pool.using(segment) as fd:
                self._read_segment(segment, fd, trusted_end, segment.generation == newest)
        for segment, hole in self._holes:
            self._judge_hole(segment, hole)
        for doubtful in self._doubtful:
            self._judge(doubtful)
        self._compare_final()
        unsafe = {doubtful.segment.number for doubtful in self.found.again} | {hole.segment for hole in self.found.torn}
        for segment, _ in opened:  # only now: until here any of them may turn out to be the one to go on with
            if segment is not self.found.active:
                self._pool.close_segment(segment)
            if segment.number in self._refused:
                continue
            if segment.number in unsafe:
                self._unsafe.append(segment)
            else:
                self._pool.let_go(segment)
        return self.found

    def _read_segment(self, segment: Segment, fd: int, trusted_end: int, newest: bool) -> None:
        scan = SegmentScan(self._pool.files, fd, segment.size, segment.number, self._salt)
        footer = None
        if scan.header is not None and not segment.retired:
            footer = read_footer(self._pool.files, fd, segment.size, segment.number, scan.generation, self._salt)
        if footer is not None:
            self._take_footer(segment, footer)
            return
        if not segment.retired:
            # Killed between a sync that failed and the new name that says so, the bytes can be read from memory, count
            # as clean, and will never reach the disk.
            self._pool.files.drop_cached(fd)
            scan = SegmentScan(self._pool.files, fd, segment.size, segment.number, self._salt)
            segment.generation = scan.generation
        self._scan_segment(segment, scan, trusted_end, newest)

    def _take_footer(self, segment: Segment, footer: SegmentFooter) -> None:
        """All records of a segment, by the index at its end."""
        segment.tail = footer.tail
        found = self.found
        found.segments += 1
        found.indexed_segments += 1
        found.durable_lsn = max(found.durable_lsn, footer.durable_lsn)
        found.next_lsn = max(found.next_lsn, footer.last_lsn + 1)
        found.active = None
        if not len(footer.heads):  # of a segment that has marks only
            return
        streams, whose = np.unique(footer.heads["stream"].view("S16"), return_inverse=True)
        order = np.argsort(whose, kind="stable")
        ends = np.cumsum(np.bincount(whose, minlength=len(streams)))
        for stream, places in zip(streams.tolist(), np.split(order, ends[:-1]), strict=True):
            self._take_many(segment, footer, stream.ljust(16, b"\0").hex(), places)

    def _take_many(
        self, segment: Segment, footer: SegmentFooter, stream_id: str, places: npt.NDArray[np.int64]
    ) -> None:
        """One stream's records of a footer: all at once where nothing is special about them."""
        heads = footer.heads[places]
        size = int(heads["total_bytes"].sum())
        info = self._streams.get(stream_id)
        if info is None:
            self._take_unknown(segment, stream_id, len(heads), size)
            return
        index = self._index_of(info.id)
        if (heads["column_bytes"] == index.columns_dtype.itemsize).all() and heads["blocks"].all():
            table = footer.blocks(places)
            plain = int(table.index[0]) >= index.next_index and bool((table.index[1:] > table.index[:-1]).all())
            if plain and (not info.state.final or self._in_final(info, table).all()):
                self._pool.count_live(segment, len(heads), size)
                index.add_records(segment.number, heads["offset"], heads["total_bytes"], heads["blocks"], table)
                self.found.records += len(heads)
                self.found.blocks += int((table.status == BlockStatus.STORED).sum())
                self.found.bytes += int(table.length.sum(dtype=np.int64))
                return
        for place in places.tolist():
            self._take(segment, None, *footer.record(place), untrusted=False)

    def _scan_segment(self, segment: Segment, scan: SegmentScan, trusted_end: int, newest: bool) -> None:
        draft, doubtful = FooterDraft(), len(self._doubtful)
        records = list(scan.records())  # all of them, so that it is known how far they vouch for each other
        self.found.durable_lsn = max(self.found.durable_lsn, scan.durable_lsn)
        for header, table in records:
            self._take(segment, scan, header, table, untrusted=header.offset >= trusted_end)
            if newest and draft.room(HEADER_BYTES + header.table_bytes, segment.size) is not None:
                draft.plan(HEADER_BYTES + header.table_bytes)
                draft.add(header.encode(self._salt), table.encode())
            else:
                newest = False
        if scan.refusals:
            self._refused.add(segment.number)
        usable = scan.header is not None and not scan.ended and not segment.retired and not scan.refusals
        if (
            usable
            and newest
            and len(self._doubtful) == doubtful
            and all(hole.last and not hole.header for hole in scan.holes)
        ):
            segment.draft = draft
        self._holes += [(segment, hole) for hole in scan.holes if hole.offset < trusted_end]
        segment.tail = scan.tail
        self.found.segments += 1
        self.found.next_lsn = max(self.found.next_lsn, scan.highest_lsn + 1, scan.last_lsn + 1)
        if scan.generation:  # the last one that was put to use is gone on with, if it can be
            self.found.active = segment if usable else None

    def _open_all(self) -> list[tuple[Segment, int]]:
        """Every segment, its generation known, and from where on it is not to be trusted."""
        opened = []
        for name in self._pool.files.list(self._pool.directory):
            parsed = parse_name(name)
            if parsed is None:
                continue
            number, trusted_end = parsed
            segment = Segment(number, self._pool.directory / name, 0)
            if trusted_end is not None:
                segment.failure = OSError(f"{name}: failed earlier")
            with self._pool.using(segment) as fd:
                segment.size = self._pool.files.size(fd)
                scan = SegmentScan(self._pool.files, fd, segment.size, number, self._salt)
                if scan.header is not None and scan.header.node != self._node:
                    raise CatalogDamaged(
                        f"{segment.path} belongs to buffer {scan.header.node}, the catalog to buffer {self._node}: the "
                        "catalog was lost or replaced; put the right one back from a copy. Nothing was changed",
                        path=str(segment.path),
                    )
                segment.generation = scan.generation
                self._pool.adopt(segment)
                opened.append((segment, self._synced(segment, fd) if trusted_end is None else trusted_end))
            if scan.header is None and scan.generation:
                self._damage(number, 0, "", (), "the segment's header is damaged; its records were found without it")
        return opened

    def _synced(self, segment: Segment, fd: int) -> int:
        """Sync what a killed process left unsynced; from where on the segment is not to be trusted."""
        try:
            self._pool.files.fdatasync(fd)
        except OSError as error:
            self._pool.retire(segment, error)
            return 0
        return segment.size

    def _take(
        self, segment: Segment, scan: SegmentScan | None, header: RecordHeader, table: BlockTable, *, untrusted: bool
    ) -> None:
        """One good header and table: into the index, or put aside. Without a scan, it is known to have been synced."""
        info = self._streams.get(header.stream.hex())
        if info is None:
            self._take_unknown(segment, header.stream.hex(), 1, header.total_bytes)
            return
        index = self._index_of(info.id)
        good = np.ones(len(table.index), np.bool_)
        refused = False
        if header.column_bytes != index.columns_dtype.itemsize:
            self._damage(header.segment, header.offset, info.path, table.index, "its columns are not the stream's")
            return
        # a copy, or what was copied; where the original is put aside, the copy is known by nobody vouching for it
        twice = scan is not None and (header.lsn > self.found.durable_lsn or bool(index.handled(table.index).any()))
        if scan is not None and (untrusted or twice or not info.state.final):
            payload = scan.payload(header)
            refused = payload is None
            if payload is None:
                good = table.length == 0
            else:
                good[wrong_blocks(payload, table.length, table.digest)] = False
        if untrusted or (not good.all() and (twice or not info.state.final)):
            wanted = self._in_final(info, table) if info.state.final else np.ones(len(table.index), np.bool_)
            self._doubtful.append(_Doubtful(index, header, table, good, wanted, segment, untrusted, refused))
            return
        if info.state.final:
            good &= self._in_final(info, table)
        self._enter(index, segment, header, table, good)

    def _take_unknown(self, segment: Segment, stream_id: str, records: int, size: int) -> None:
        """Records of a stream that the catalog does not have."""
        if self._is_deleted(stream_id):
            self.found.dead_records += records
            self.found.dead_streams.add(stream_id)
            return
        if stream_id not in self.strays:
            log.error("segment %d has records of stream %s: %s", segment.number, stream_id, STRAY_ADVICE)
        self.strays.hold(stream_id, segment, records, size)

    def _in_final(self, info: StreamInfo, table: BlockTable) -> npt.NDArray[np.bool_]:
        """Blocks that belong to the final stream; others were damaged or untold when it became final."""
        whole = info.completeness
        if whole.first_index is None or whole.last_index is None:
            return np.zeros(len(table.index), np.bool_)
        out = (table.index >= whole.first_index) & (table.index <= whole.last_index)
        if info.id not in self._missing:
            entries = [entry for entry in whole.ledger if (entry.stage, entry.reason) in (DAMAGED, NEVER)]
            spans = np.array([(entry.first, entry.last) for entry in entries], np.int64).reshape(-1, 2)
            self._missing[info.id] = spans
        spans = self._missing[info.id]
        if len(spans):
            where = np.searchsorted(spans[:, 0], table.index, "right") - 1
            out &= (where < 0) | (table.index > spans[where, 1])
        return out

    def _enter(
        self,
        index: StreamIndex,
        segment: Segment,
        header: RecordHeader,
        table: BlockTable,
        keep: npt.NDArray[np.bool_],
    ) -> None:
        """Into the index; blocks that an earlier record holds are taken from it."""
        again = index.handled(table.index) & keep
        if again.any():
            self._supersede(index, table.index[again])
        if keep.any():
            place = Place(segment.number, header.offset, header.total_bytes, header.blocks)
            self._pool.count_live(segment, 1, header.total_bytes)
            index.add(place, table, None if keep.all() else keep)
            self.found.records += 1
            self.found.blocks += int((keep & (table.status == BlockStatus.STORED)).sum())
            self.found.bytes += int(table.length[keep].sum(dtype=np.int64))

    def _supersede(self, index: StreamIndex, blocks: npt.NDArray[np.int64]) -> None:
        records, rows = index.locate(blocks)
        for record in np.unique(records).tolist():
            place = index.place(record)
            table = self._reader.table(index, record)
            drop = np.zeros(len(table.index), np.bool_)
            drop[rows[records == record]] = True
            index.remove(record, table, drop)
            if not index.live(record):
                self._pool.count_live(self._pool.segments[place.segment], -1, -place.total_bytes)

    # ---- judging; all segments have been read

    def _judge_hole(self, segment: Segment, hole: Hole) -> None:
        if hole.lsn > self.found.durable_lsn and hole.refused is None:
            if hole.header is not None or not hole.last:  # else it is the end of what was written
                self.found.torn_records += 1
            if segment is not self.found.active or hole.offset < segment.tail:  # the tail is written over
                self.found.torn.append(hole)
            return
        whose = "" if hole.header is None else hole.header.stream.hex()
        if whose and whose not in self._streams and self._is_deleted(whose):
            return
        what = "a record's header is damaged" if hole.header is None else "a record's table of blocks is damaged"
        if hole.refused is not None:
            what = f"the disk does not read it: {hole.refused}"
        path = self._streams[whose].path if whose in self._streams else whose
        self._damage(segment.number, hole.offset, path, (), f"{what} ({hole.size} bytes are skipped)")

    def _judge(self, doubtful: _Doubtful) -> None:
        header, index = doubtful.header, doubtful.index
        bad = doubtful.table.index[~doubtful.good & doubtful.wanted]
        if not doubtful.untrusted and (header.lsn <= self.found.durable_lsn or doubtful.refused):
            free = doubtful.good & doubtful.wanted & ~index.handled(doubtful.table.index)
            self._enter(index, doubtful.segment, header, doubtful.table, free)
            lost = bad[~index.handled(bad)]
            index.damaged += [(block, block) for block in lost.tolist()]
            if len(lost):
                path = self._streams[index.stream_id].path
                self._damage(header.segment, header.offset, path, lost, "blocks do not have their digest")
            return
        if len(bad):
            self.found.torn_records += 1
        self.found.again.append(doubtful)
        if not doubtful.untrusted:
            hole = Hole(header.segment, header.offset, header.total_bytes, header.lsn, header, False, header.generation)
            self.found.torn.append(hole)

    def _compare_final(self) -> None:
        """A final stream of which the log holds less than the catalog says has lost something."""
        waiting = {doubtful.index.stream_id for doubtful in self.found.again}
        for info in self._streams.values():
            if not info.state.final or info.id in waiting:
                continue
            stored = self._index_of(info.id).stored
            if stored != info.completeness.blocks:
                self._damage(
                    0, 0, info.path, (), f"{stored} of its {info.completeness.blocks} stored blocks are in the log"
                )

    def _damage(self, segment: int, offset: int, stream: str, blocks: Any, what: str) -> None:
        named = tuple(int(block) for block in blocks)
        log.error("segment %d at offset %d: %s%s", segment, offset, what, f" (stream {stream})" if stream else "")
        self.found.damages.append(Damage(segment, offset, stream, named, what))

    # ---- writing

    def repair(self, segment_log: SegmentLog) -> RecoveryReport:
        """Write again what is not safe where it stands, cover what was torn, mark the tail. Everything is durable on
        return.
        """
        segment_log.doubt(min((hole.lsn for hole in self.found.torn), default=None))
        for doubtful in sorted(self.found.again, key=lambda each: each.header.lsn, reverse=True):
            self._write_again(segment_log, doubtful)
        segment_log.sync()
        for answer in self._answers:  # what failed before `sync` was called is not raised by it
            answer.said.wait()
            if answer.error is not None:
                raise answer.error
        for hole in self.found.torn:
            self._cover(hole)
        segment_log.doubt(None)
        segment_log.mark()
        for segment in self._unsafe:
            self._pool.let_go(segment)
        return self.found.report(self.strays)

    def _write_again(self, segment_log: SegmentLog, doubtful: _Doubtful) -> None:
        table, header = doubtful.table, doubtful.header
        rows = np.flatnonzero(doubtful.good & doubtful.wanted & ~doubtful.index.handled(table.index))
        if not len(rows):
            return
        with self._pool.using(doubtful.segment) as fd:
            scan = SegmentScan(self._pool.files, fd, doubtful.segment.size, header.segment, self._salt)
            payload = scan.payload(header)
        if payload is None or len(wrong_blocks(payload, table.length, table.digest)) > (~doubtful.good).sum():
            raise HissError(
                f"segment {header.segment}: what was read a moment ago reads differently now; check the disk"
            )
        answer = _Answer()
        self._answers.append(answer)
        segment_log.append(doubtful.index, _extent(doubtful.index, table, payload, rows), answer)
        self.found.rewritten_blocks += len(rows)
        self.found.records += 1
        self.found.blocks += int((table.status[rows] == BlockStatus.STORED).sum())
        self.found.bytes += int(table.length[rows].sum(dtype=np.int64))

    def _cover(self, hole: Hole) -> None:
        """Put a void over a torn record, so that it is not taken for a damaged one when later records vouch for it."""
        segment = self._pool.segments.get(hole.segment)
        if segment is None or segment.retired:
            return
        payload = hole.size - HEADER_BYTES
        void = RecordHeader(
            hole.generation, hole.lsn, bytes(16), KIND_VOID, segment.number, 0, 0, hole.offset, payload, 0, 0
        )
        try:
            with self._pool.using(segment) as fd:
                if segment.generation != hole.generation:
                    return  # put to use again while torn records were written elsewhere: the hole is gone
                page = void.encode(self._salt).ljust(limits.RECORD_ALIGN_BYTES, b"\0")
                write_fully(self._pool.files, fd, [page], hole.offset)
                self._pool.files.fdatasync(fd)
        except OSError as error:
            self._pool.retire(segment, error)


class _Answer:
    """What the log said of a record that was written again."""

    def __init__(self) -> None:
        self.said = threading.Event()
        self.error: HissError | None = None

    def __call__(self, error: HissError | None) -> None:
        self.error = error
        self.said.set()


def _extent(index: StreamIndex, table: BlockTable, payload: ByteArray, rows: npt.NDArray[np.int64]) -> Extent:
    whole = Extent(
        index=table.index,
        time_ns=table.time_ns,
        length=table.length.astype(np.int64),
        digest=table.digest,
        columns=columns_of(table, index.columns_dtype),
        data=payload,
        received_ns=table.received_ns,
        status=table.status,
        cause=table.cause,
        source_digest=table.source_digest,
    )
    return whole.select(rows)
