"""The index at a full segment's end: the heads of all its records, read by recovery in their stead.

It is drafted while records are written, and put down when the segment is full and every record in it is durable. So a
footer that is good says three things: these are all records of this generation, they are good, and no crash has torn
them. Where there is none, or a damaged one, the segment is scanned; nothing depends on it but time.

Format in `docs/format.md`. Whatever is decoded comes from disk: nothing is trusted before the digests are
checked, and nothing raises for bad bytes: the answer is None. A draft is guarded by the log's lock.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from hiss import limits
from hiss.blocks.files import Buffer, Files, read_fully
from hiss.blocks.record import (
    BLOCK_META_BYTES,
    HEADER_BYTES,
    KIND_BLOCKS,
    BlockTable,
    RecordHeader,
    aligned,
    decode_header,
    decode_table,
)
from hiss.blocks.segment import HEADER_PAGE_BYTES

MAGIC: Final = b"HISSIDX1"
TRAILER: Final = struct.Struct("<8s Q II QQQQQ 56x Q")
TRAILER_BYTES: Final = TRAILER.size

# what is looked at of a record's header, for all of them at once
HEAD: Final = np.dtype(
    {
        "names": ["generation", "lsn", "stream", "kind", "segment", "blocks", "column_bytes", "offset", "total_bytes"],
        "formats": ["<u8", "<u8", "V16", "<u4", "<u4", "<u4", "<u4", "<u8", "<u8"],
        "offsets": [8, 16, 24, 40, 44, 48, 52, 56, 72],
        "itemsize": HEADER_BYTES,
    }
)

assert TRAILER_BYTES == 128


class FooterDraft:
    """What the footer of a segment that is being written will hold."""

    def __init__(self) -> None:
        self._planned = 0  # records that were given a place
        self._planned_bytes = 0
        self._heads = bytearray()
        self._tables = bytearray()
        self._table_ends: list[int] = []

    def room(self, head_bytes: int, segment_bytes: int) -> int | None:
        """Bytes to leave free behind one more record with such a head; None where the footer would be too large."""
        planned = self._planned_bytes + head_bytes
        if planned > segment_bytes // limits.FOOTER_FRACTION:
            return None
        return limits.RECORD_ALIGN_BYTES + _footer_bytes(planned) if self._planned >= limits.FOOTER_RECORDS_MIN else 0

    def plan(self, head_bytes: int) -> None:
        """A record was given a place."""
        self._planned += 1
        self._planned_bytes += head_bytes

    def add(self, header: bytes, table: bytes) -> None:
        """A planned record was written."""
        self._heads += header
        self._tables += table
        self._table_ends.append(len(self._tables))

    def encode(
        self, salt: int, number: int, generation: int, size: int, tail: int, last_lsn: int, durable_lsn: int
    ) -> tuple[int, list[Buffer]] | None:
        """Offset and bytes of the footer; None where there is no room or a record is missing."""
        offset = size - _footer_bytes(self._planned_bytes)
        if len(self._table_ends) != self._planned or offset < tail:
            return None
        heads = np.frombuffer(bytes(self._heads), HEAD)
        order = np.argsort(heads["offset"], kind="stable")  # streams write side by side, and not in order
        starts, ends = [0, *self._table_ends[:-1]], self._table_ends
        tables = memoryview(bytes(self._tables))
        body = b"".join(
            [heads.view(f"V{HEADER_BYTES}")[order].tobytes()]
            + [tables[starts[place] : ends[place]] for place in order.tolist()]
        )
        digest = xxhash.xxh3_64_intdigest(body, salt)
        fields = (MAGIC, generation, number, len(heads), len(body), tail, last_lsn, durable_lsn, digest)
        packed = TRAILER.pack(*fields, 0)[:-8]
        trailer = packed + struct.pack("<Q", xxhash.xxh3_64_intdigest(packed, salt))
        return offset, [body, bytes(size - offset - len(body) - TRAILER_BYTES), trailer]


def _footer_bytes(body_bytes: int) -> int:
    return aligned(body_bytes + TRAILER_BYTES)


@dataclass(frozen=True, slots=True, eq=False)
class SegmentFooter:
    """A good footer. Vectors of one entry a record, in the order of the log."""

    heads: npt.NDArray[np.void]  # of `HEAD`
    encoded: bytes  # heads, then tables
    table_start: npt.NDArray[np.int64]  # of each table in `encoded`
    number: int
    salt: int
    tail: int  # behind the last record
    last_lsn: int
    durable_lsn: int

    def record(self, place: int) -> tuple[RecordHeader, BlockTable]:
        """One record's head, as a scan would find it."""
        at = place * HEADER_BYTES
        head = memoryview(self.encoded)[at : at + HEADER_BYTES]
        header = decode_header(head, self.salt, self.number, int(self.heads["offset"][place]))
        assert header is not None, "a footer's digest is good and one of its records is not"
        start = int(self.table_start[place])
        table = decode_table(header, self.encoded[start : start + header.table_bytes])
        assert table is not None, "a footer's digest is good and one of its tables is not"
        return header, table

    def blocks(self, places: npt.NDArray[np.int64]) -> BlockTable:
        """The blocks of several records in one table, without columns and times, which an index does not need."""
        count = self.heads["blocks"][places].astype(np.int64)
        row = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        start, count = np.repeat(self.table_start[places], count), np.repeat(count, count)

        def vector(code: str, before: int) -> npt.NDArray[Any]:
            kind = np.dtype(code)
            anywhere = np.ndarray(len(self.encoded) - kind.itemsize + 1, kind, self.encoded, strides=(1,))
            out: npt.NDArray[Any] = anywhere[start + before * count + kind.itemsize * row]
            return out

        none = np.zeros(0, np.int64)
        return BlockTable(
            index=vector("<i8", 0),
            time_ns=none,
            received_ns=none,
            digest=vector("<u8", 24),
            source_digest=none.astype(np.uint64),
            length=vector("<u4", 40),
            status=vector("u1", 44),
            cause=vector("u1", 45),
            columns=np.zeros((len(row), 0), np.uint8),
        )


def read_footer(files: Files, fd: int, size: int, number: int, generation: int, salt: int) -> SegmentFooter | None:
    """The footer of a segment in that generation; None where there is no good one."""
    try:
        trailer = bytearray(TRAILER_BYTES)
        if read_fully(files, fd, trailer, size - TRAILER_BYTES) != TRAILER_BYTES:
            return None
        magic, at, whose, records, length, tail, last_lsn, durable_lsn, digest, own = TRAILER.unpack(trailer)
        if magic != MAGIC or own != xxhash.xxh3_64_intdigest(bytes(trailer[:-8]), salt):
            return None
        offset = size - _footer_bytes(length)
        if (at, whose) != (generation, number) or not records * HEADER_BYTES <= length or offset < tail:
            return None
        body = bytearray(length)
        if read_fully(files, fd, body, offset) != length or digest != xxhash.xxh3_64_intdigest(bytes(body), salt):
            return None
    except OSError:
        return None
    return _checked(bytes(body), records, number, generation, salt, tail, last_lsn, durable_lsn)


def _checked(
    body: bytes, records: int, number: int, generation: int, salt: int, tail: int, last_lsn: int, durable_lsn: int
) -> SegmentFooter | None:
    """The footer, unless it contradicts itself."""
    heads = np.frombuffer(body, HEAD, records)
    tables = heads["blocks"].astype(np.int64) * (BLOCK_META_BYTES + heads["column_bytes"].astype(np.int64))
    start = records * HEADER_BYTES + np.cumsum(tables) - tables
    ends = (heads["offset"] + heads["total_bytes"]).astype(np.int64)
    good = records * HEADER_BYTES + int(tables.sum()) == len(body)
    good = good and bool((heads["generation"] == generation).all() and (heads["segment"] == number).all())
    good = good and bool((heads["kind"] == KIND_BLOCKS).all() and (heads["lsn"] <= last_lsn).all())
    good = good and bool((heads["offset"] >= HEADER_PAGE_BYTES).all() and (ends <= tail).all())
    good = good and bool((heads["offset"][1:].astype(np.int64) >= ends[:-1]).all())
    good = good and bool((heads["lsn"][1:] > heads["lsn"][:-1]).all())
    return SegmentFooter(heads, body, start, number, salt, tail, last_lsn, durable_lsn) if good else None
