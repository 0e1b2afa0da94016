"""Reads one segment from end to end, as recovery finds it: good records, holes where there is none, and where the tail
is.

Records stand one behind the other. Where the next one is not good, the scan looks on at every record boundary for one
of the same generation with a higher sequence number: what is between is a hole. Whether a hole is damage (the record
was durable) or what a crash left of a write on its way is for `recovery` to say, which sees all segments. No errors are
raised for bad bytes. What the disk refuses to read is a hole too, that knows why; only a segment whose very first page
is refused is an error, since nobody can tell what is in it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from hiss.blocks.files import Files, read_fully
from hiss.blocks.record import (
    HEADER_BYTES,
    KIND_BLOCKS,
    KIND_END,
    MAGIC,
    BlockTable,
    RecordHeader,
    decode_header,
    decode_table,
)
from hiss.blocks.segment import HEADER_PAGE_BYTES, SegmentHeader, decode_segment_header
from hiss.errors import SegmentDamaged
from hiss.limits import RECORD_ALIGN_BYTES, SCAN_BYTES
from hiss.model import ByteArray

_NEAR_BYTES: Final = 128 * 1024  # a gap that takes less time to read than to leave out


@dataclass(frozen=True, slots=True)
class Hole:
    """A stretch of a segment without a good record where one is expected or was."""

    segment: int
    offset: int
    size: int
    lsn: int  # of the record that is missing
    header: RecordHeader | None  # where that is good, and only what it describes is not
    last: bool  # nothing good follows in the segment
    generation: int  # of the segment when it was scanned
    refused: OSError | None = None  # by the disk, when it was to be read: there may have been anything


class SegmentScan:
    """One pass over a segment.

    Parameters
    ----------
    files, fd, size : Files, int, int
        The open file and its length.
    number : int
        The segment's, from its name.
    salt : int
        The buffer's.

    Attributes
    ----------
    header : SegmentHeader or None
        None where it is damaged or was never written; the generation is then that of the newest record.
    tail, last_lsn : int
        Set when `records` has been exhausted: one past the last good record, and its sequence number.
    ended : bool
        The segment says that it takes no more records.
    durable_lsn : int
        The highest that a record of this segment vouches for.
    holes : list of Hole
    refusals : list of (int, OSError)
        Reads that the disk refused, by offset.

    Raises
    ------
    SegmentDamaged
        The disk refuses the first page.
    """

    def __init__(self, files: Files, fd: int, size: int, number: int, salt: int) -> None:
        self._files, self._fd, self._size, self._number, self._salt = files, fd, size, number, salt
        self.refusals: list[tuple[int, OSError]] = []
        self._ahead_at, self._ahead = 0, bytearray()  # what was read last, and where it stands
        header = decode_segment_header(self._bytes(0, HEADER_PAGE_BYTES))
        if self.refusals:
            raise SegmentDamaged(
                f"segment {number} cannot be read, so it is not known what is in it: {self.refusals[0][1]}. Nothing "
                "was changed; check the disk, then open the buffer again, or move the file away and lose what is in it",
                segment=number,
            )
        self.header: SegmentHeader | None = header if header and header.number == number else None
        self.last_lsn = self.header.first_lsn - 1 if self.header else 0
        self.tail = HEADER_PAGE_BYTES
        self.ended = False
        self.durable_lsn = 0
        self.highest_lsn = 0  # of any good header, whatever became of its record
        self.holes: list[Hole] = []

    @functools.cached_property
    def generation(self) -> int:
        """Of the segment's use; where its header does not tell, all of it is read for that."""
        return self.header.generation if self.header else self._newest_generation()

    def records(self) -> Iterator[tuple[RecordHeader, BlockTable]]:
        """Every good record with blocks, in order."""
        position = HEADER_PAGE_BYTES
        while self.generation and position < self._size and not self.ended:
            header = self._header(position)
            if header is None:
                found = self._next_good(position + RECORD_ALIGN_BYTES)
                end = self._size if found is None else found
                self._hole(position, end - position, None, found is None)
                if found is None:
                    return
                position = found
                continue
            self.highest_lsn = max(self.highest_lsn, header.lsn)
            self.durable_lsn = max(self.durable_lsn, header.durable_lsn)
            table = self._table(header) if header.kind == KIND_BLOCKS else None
            if header.kind == KIND_BLOCKS and table is None:
                found = self._next_good(position + header.total_bytes)
                self._hole(position, header.total_bytes, header, found is None)
                self.last_lsn = header.lsn
                position += header.total_bytes
                continue
            self.last_lsn = header.lsn
            position += header.total_bytes
            self.tail = position
            self.ended = header.kind == KIND_END
            if table is not None:
                yield header, table

    def payload(self, header: RecordHeader) -> ByteArray | None:
        """A record's payload, unchecked; None where the disk refuses it."""
        data = np.empty(header.payload_bytes, np.uint8)
        if not len(data):
            return data
        offset = header.offset + header.payload_start
        try:
            count = read_fully(self._files, self._fd, data.data, offset)
        except OSError as error:
            self.refusals.append((offset, error))
            return None
        data[count:] = 0
        return data

    # ---- inside

    def _hole(self, offset: int, size: int, header: RecordHeader | None, last: bool) -> None:
        lsn = header.lsn if header else self.last_lsn + 1
        refused = next((error for at, error in self.refusals if offset <= at < offset + size), None)
        self.holes.append(Hole(self._number, offset, size, lsn, header, last, self.generation, refused))

    def _bytes(self, offset: int, size: int) -> bytearray:
        """What is there; zeros where the disk refuses it.

        Where one small record follows another, they are read many at once.
        """
        ahead = offset - self._ahead_at
        if 0 <= ahead - len(self._ahead) <= _NEAR_BYTES and size < SCAN_BYTES:
            self._read_ahead(offset)
            ahead = 0
        if ahead >= 0 and ahead + size <= len(self._ahead):
            return self._ahead[ahead : ahead + size]
        data = bytearray(max(0, min(size, self._size - offset)))
        try:
            read_fully(self._files, self._fd, data, offset)
        except OSError as error:
            self.refusals.append((offset, error))
            return bytearray(len(data))
        if size < SCAN_BYTES:
            self._ahead_at, self._ahead = offset, data
        return data

    def _read_ahead(self, offset: int) -> None:
        data = bytearray(max(0, min(SCAN_BYTES, self._size - offset)))
        try:
            read_fully(self._files, self._fd, data, offset)
        except OSError:  # of something in it; what is asked for is read by itself
            data = bytearray()
        self._ahead_at, self._ahead = offset, data

    def _header(self, offset: int) -> RecordHeader | None:
        """The good header at `offset`, of this generation, and not left over from before a crash."""
        header = decode_header(self._bytes(offset, HEADER_BYTES), self._salt, self._number, offset)
        if header is None or header.generation != self.generation or header.lsn <= self.last_lsn:
            return None
        return header if offset + header.total_bytes <= self._size else None

    def _table(self, header: RecordHeader) -> BlockTable | None:
        data = bytes(self._bytes(header.offset + HEADER_BYTES, header.table_bytes))
        return decode_table(header, data)

    def _next_good(self, position: int) -> int | None:
        for offset, header in self._headers_from(position):
            if header.generation == self.generation and header.lsn > self.last_lsn:
                return offset
        return None

    def _newest_generation(self) -> int:
        return max((header.generation for _, header in self._headers_from(HEADER_PAGE_BYTES)), default=0)

    def _headers_from(self, position: int) -> Iterator[tuple[int, RecordHeader]]:
        """Good headers at any record boundary, of any generation."""
        magic = np.frombuffer(MAGIC, np.uint64)[0]
        while position < self._size:
            data = self._bytes(position, SCAN_BYTES)
            whole = len(data) // RECORD_ALIGN_BYTES
            pages = np.frombuffer(data, np.uint64, whole * RECORD_ALIGN_BYTES // 8).reshape(whole, -1)
            for page in np.flatnonzero(pages[:, 0] == magic).tolist():
                start = page * RECORD_ALIGN_BYTES
                view = memoryview(data)[start : start + HEADER_BYTES]
                header = decode_header(view, self._salt, self._number, position + start)
                if header is not None and position + start + header.total_bytes <= self._size:
                    yield position + start, header
            position += max(len(data), RECORD_ALIGN_BYTES)
