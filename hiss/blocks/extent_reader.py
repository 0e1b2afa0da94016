"""Reads records back: tables, and the blocks that a caller wants, every one checked against its digest; from the arena
what is still there (`recent`), the rest from the disk.

Reads go through `pread` into fresh memory, never through a mapping, so that a failing disk gives an error and not
SIGBUS. Any thread. A record may move (its segment failed, or is compacted) or go (its stream was deleted) between two
reads: the place is looked up again. While a segment is read it is not used again, so a place that is still the
record's when the segment has been taken hold of has the record's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hiss.blocks.files import read_fully
from hiss.blocks.index import Place, StreamIndex
from hiss.blocks.recent import Recent
from hiss.blocks.record import (
    BLOCK_META_BYTES,
    HEADER_BYTES,
    BlockTable,
    columns_of,
    decode_header,
    decode_table,
    payload_start,
)
from hiss.blocks.segment_pool import SegmentPool
from hiss.errors import BlockDamaged, Stopping, StreamNotFound
from hiss.extent import Extent
from hiss.limits import EXTENT_BLOCKS_MAX, EXTENT_BYTES_TARGET
from hiss.model import BlockStatus, ByteArray, Chooser, IntArray, digest_of

Rows = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class _Part:
    """Blocks of one record that go into an extent."""

    record: int
    table: BlockTable
    rows: Rows


class ExtentReader:
    """Reads from the segments of one pool."""

    def __init__(self, pool: SegmentPool, salt: int, recent: Recent | None = None) -> None:
        self._pool = pool
        self._salt = salt
        self._recent = recent

    def table(self, index: StreamIndex, record: int) -> BlockTable:
        """A record's table.

        Raises
        ------
        BlockDamaged
            It is not what was written.
        StreamNotFound
            The stream was deleted.
        """
        if self._recent is not None and not index.deleted:
            kept = self._recent.table(index.stream_id, record)
            if kept is not None:
                return kept
        return self._stored_table(index, record)

    def _stored_table(self, index: StreamIndex, record: int) -> BlockTable:
        tried: Place | None = None
        while True:
            place = index.place(record)
            if place == tried or index.deleted:
                raise self._bad(index, record, place, "its header or its table is damaged")
            tried = place
            size = HEADER_BYTES + place.blocks * (BLOCK_META_BYTES + index.columns_dtype.itemsize)
            data = self._read(index, record, place, 0, bytearray(min(size, place.total_bytes)))
            if data is None:
                continue
            header = decode_header(data, self._salt, place.segment, place.offset)
            if header is None or header.stream.hex() != index.stream_id or header.blocks != place.blocks:
                continue
            table = decode_table(header, memoryview(data)[HEADER_BYTES : HEADER_BYTES + header.table_bytes])
            if table is not None:
                return table

    def _read(
        self, index: StreamIndex, record: int, place: Place, start: int, buffer: bytearray | memoryview
    ) -> bytearray | memoryview | None:
        """Fill `buffer` from a record, from its byte `start` on; None where that is not possible, or it has moved."""
        segment = self._pool.segments.get(place.segment)
        if segment is None:
            return None
        try:
            with self._pool.using(segment) as fd:
                if index.place(record) != place:
                    return None
                count = read_fully(self._pool.files, fd, buffer, place.offset + start)
        except Stopping:
            raise  # an OSError too, but not of the disk
        except OSError:
            return None
        return buffer if count == len(buffer) else None

    def whole(self, index: StreamIndex, record: int) -> tuple[BlockTable, ByteArray]:
        """A record's table and payload as they are on the disk, every block checked.

        Raises
        ------
        BlockDamaged
            Something of it is not what was written.
        StreamNotFound
            The stream was deleted.
        """
        table = self._stored_table(index, record)
        payload = np.empty(int(table.length.sum(dtype=np.int64)), np.uint8)
        self._stored_payload(index, _Part(record, table, np.arange(len(table.index))), payload)
        return table, payload

    def _bad(self, index: StreamIndex, record: int, place: Place, what: str) -> BlockDamaged | StreamNotFound:
        if index.deleted:
            return StreamNotFound(f"stream {index.stream_id} was deleted while it was read")
        runs = [run for run in index.runs(limit=1 << 62) if run.record == record]
        span = f"{runs[0].first} to {runs[-1].last}" if runs else "none"
        return BlockDamaged(
            f"stream {index.stream_id}: blocks {span} in segment {place.segment} at offset {place.offset} cannot be "
            f"read: {what}; the other blocks are not affected",
            stream=index.stream_id,
            segment=place.segment,
            offset=place.offset,
        )

    # ---- extents

    def read(
        self,
        index: StreamIndex,
        start: int | None,
        stop: int | None,
        step: int,
        choose: Chooser | None = None,
        *,
        data: bool = True,
    ) -> Iterator[Extent]:
        """Stored blocks in index order, several an extent; of records without a chosen block only the head is read."""
        base = start if start is not None else index.first_index
        parts: list[_Part] = []
        size = count = 0
        found = self._parts(index, 0 if base is None else base, stop, step, start is None)
        for part in found if choose is None else _chosen(found, index.columns_dtype, choose):
            for piece in _pieces(part):
                piece_bytes = int(piece.table.length[piece.rows].sum(dtype=np.int64))
                if parts and (size + piece_bytes > EXTENT_BYTES_TARGET or count + len(piece.rows) > EXTENT_BLOCKS_MAX):
                    yield from self._some(self._extent(index, parts, data))
                    parts, size, count = [], 0, 0
                parts.append(piece)
                size, count = size + piece_bytes, count + len(piece.rows)
        if parts:
            yield from self._some(self._extent(index, parts, data))

    @staticmethod
    def _some(extent: Extent) -> Iterator[Extent]:
        if len(extent):
            yield extent

    def _parts(self, index: StreamIndex, base: int, stop: int | None, step: int, from_first: bool) -> Iterator[_Part]:
        position: int | None = None if from_first else base
        record, table = -1, None
        while runs := index.runs(position):
            for run in runs:
                first, last = max(run.first, base), run.last if stop is None else min(run.last, stop - 1)
                if run.first >= (stop if stop is not None else run.first + 1):
                    return
                first += -(first - base) % step
                if run.status != BlockStatus.STORED or first > last:
                    continue
                if run.record != record or table is None:
                    record = run.record
                    table = self._table_unless_given_up(index, record)
                if table is None:
                    continue
                yield _Part(record, table, run.row + np.arange(first - run.first, last - run.first + 1, step))
            position = runs[-1].last + 1
        if index.deleted:
            raise StreamNotFound(f"stream {index.stream_id} was deleted while it was read")

    def _table_unless_given_up(self, index: StreamIndex, record: int) -> BlockTable | None:
        """The table, or None where the record could not be made durable and has left the index meanwhile: it is not
        damaged, and nobody was told that it is there."""
        try:
            return self.table(index, record)
        except BlockDamaged:
            if index.live(record):
                raise
            return None

    def record(self, index: StreamIndex, record: int) -> Extent | None:
        """All blocks of a record that are still the stream's, whatever their status, in the order of the record; None
        where there are none."""
        table = self._table_unless_given_up(index, record)
        if table is None:
            return None
        rows = np.flatnonzero(self._mine(index, record, table))
        extent = self._extent(index, [_Part(record, table, rows)])
        return extent if len(extent) else None

    @staticmethod
    def _mine(index: StreamIndex, record: int, table: BlockTable) -> npt.NDArray[np.bool_]:
        handled = index.handled(table.index)
        records, rows = index.locate(table.index[handled])
        mine = np.zeros(len(table.index), np.bool_)
        mine[handled] = (records == record) & (rows == np.flatnonzero(handled))
        return mine

    def _extent(self, index: StreamIndex, parts: list[_Part], with_data: bool = True) -> Extent:
        """Their blocks; without those of a record that was given up meanwhile."""
        data = np.zeros(0, np.uint8)
        if with_data:
            parts, data = self._filled(index, parts)

        def joined(name: str) -> npt.NDArray[np.generic]:
            vectors = [getattr(part.table, name)[part.rows] for part in parts]
            return vectors[0] if len(vectors) == 1 else np.concatenate(vectors)

        length: IntArray = joined("length").astype(np.int64)
        columns = [columns_of(part.table, index.columns_dtype)[part.rows] for part in parts]
        return Extent(
            index=joined("index").astype(np.int64, copy=False),
            time_ns=joined("time_ns").astype(np.int64, copy=False),
            length=length,
            digest=joined("digest").astype(np.uint64, copy=False),
            columns=columns[0] if len(columns) == 1 else np.concatenate(columns),
            data=data,
            received_ns=joined("received_ns").astype(np.int64, copy=False),
            status=joined("status").astype(np.uint8, copy=False),
            cause=joined("cause").astype(np.uint8, copy=False),
            source_digest=joined("source_digest").astype(np.uint64, copy=False),
        )

    def _filled(self, index: StreamIndex, parts: list[_Part]) -> tuple[list[_Part], ByteArray]:
        """The parts, without the rows of one that was given up meanwhile, and their bytes."""
        sizes = [int(part.table.length[part.rows].sum(dtype=np.int64)) for part in parts]
        data = np.empty(sum(sizes), np.uint8)
        found, position = [], 0
        for part, size in zip(parts, sizes, strict=True):
            try:
                self._payload(index, part, data[position : position + size])
            except BlockDamaged:
                if index.live(part.record):
                    raise
                found.append(_Part(part.record, part.table, part.rows[:0]))
                continue
            found.append(part)
            position += size
        return found, data[:position]

    def _payload(self, index: StreamIndex, part: _Part, out: ByteArray) -> None:
        """The bytes of `part`: from memory, or read and every block checked."""
        if not len(out):
            return
        if self._recent is None or not self._recent.copy(index.stream_id, part.record, part.table, part.rows, out):
            self._stored_payload(index, part, out)

    def _stored_payload(self, index: StreamIndex, part: _Part, out: ByteArray) -> None:
        tried: Place | None = None
        while True:
            place = index.place(part.record)
            bad = self._read_blocks(index, place, part, out) if place != tried else None
            if bad is not None and not len(bad):
                return
            if place == tried or index.deleted:
                if index.deleted:
                    raise self._bad(index, part.record, place, "")
                raise self._damaged(index, part, place, out)
            tried = place

    def _read_blocks(self, index: StreamIndex, place: Place, part: _Part, out: ByteArray) -> IntArray | None:
        """Places in `part.rows` of blocks whose digest is wrong; None where the disk gives nothing."""
        offsets = part.table.offsets
        begin = payload_start(*part.table.columns.shape)
        position = 0
        breaks = np.flatnonzero(np.diff(part.rows) != 1) + 1
        for rows in np.split(part.rows, breaks):
            if not len(rows):
                continue
            start, stop = int(offsets[rows[0]]), int(offsets[rows[-1] + 1])
            target = out[position : position + stop - start]
            at = begin + start
            if len(target) and self._read(index, part.record, place, at, target.data) is None:
                return None
            position += stop - start
        return wrong_blocks(out, part.table.length[part.rows], part.table.digest[part.rows])

    def _damaged(self, index: StreamIndex, part: _Part, place: Place, out: ByteArray) -> BlockDamaged:
        bad = self._read_blocks(index, place, part, out)
        blocks = part.table.index[part.rows if bad is None else part.rows[bad]].tolist()
        return BlockDamaged(
            f"stream {index.stream_id}: {'block' if len(blocks) == 1 else 'blocks'} {', '.join(map(str, blocks[:8]))}"
            f"{' …' if len(blocks) > 8 else ''} in segment {place.segment} at offset {place.offset}: "
            f"{'the disk gives an error' if bad is None else 'the bytes do not have their digest'}; not served, the "
            "other blocks are not affected",
            stream=index.stream_id,
            index=blocks[0] if blocks else -1,
            segment=place.segment,
            offset=place.offset,
        )


def _chosen(parts: Iterator[_Part], columns_dtype: np.dtype[np.void], choose: Chooser) -> Iterator[_Part]:
    """What is left of the parts where only chosen blocks count."""
    for part in parts:
        columns = columns_of(part.table, columns_dtype)[part.rows]
        rows = part.rows[choose(part.table.time_ns[part.rows], columns)]
        if len(rows):
            yield _Part(part.record, part.table, rows)


def wrong_blocks(data: ByteArray, length: npt.NDArray[np.generic], digest: npt.NDArray[np.uint64]) -> IntArray:
    """Places of the blocks in `data` that do not have their digest. Blocks without bytes have none to check."""
    view, position = data.data, 0
    wrong = []
    for place, (size, expected) in enumerate(zip(length.tolist(), digest.tolist(), strict=True)):
        if size and digest_of(view[position : position + size]) != expected:
            wrong.append(place)
        position += size
    return np.array(wrong, np.int64)


def _pieces(part: _Part) -> Iterator[_Part]:
    """Cut a part whose blocks are more than one extent should hold."""
    ends = np.cumsum(part.table.length[part.rows], dtype=np.int64)
    start = 0
    while start < len(part.rows):
        behind = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, behind + EXTENT_BYTES_TARGET, "right"))
        stop = min(max(stop, start + 1), start + EXTENT_BLOCKS_MAX)
        yield _Part(part.record, part.table, part.rows[start:stop])
        start = stop
