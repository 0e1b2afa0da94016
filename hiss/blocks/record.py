"""The record: how one extent stands in the log. Pure functions over bytes; the format is in `docs/format.md`.

A record is a header of 128 bytes, the table of its blocks (one vector for each property, then the packed columns),
padding to 64 bytes, the payload, and padding to `limits.RECORD_ALIGN_BYTES`. Three checks: the header by its own
digest, seeded with the buffer's salt, the table by a digest in the header, each block by its digest in the table. The
header says where it stands (segment, generation, offset), so that a record that was left over, copied or misplaced is
no record.

Whatever is decoded comes from disk: nothing here trusts it before its digest is checked, and nothing raises for bad
bytes: the answer is None.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from hiss.errors import SpecMismatch
from hiss.extent import Extent
from hiss.limits import RECORD_ALIGN_BYTES
from hiss.model import ByteArray, IntArray, UIntArray

MAGIC: Final = b"HISSREC1"
HEADER: Final = struct.Struct("<8s QQ 16s IIII QQQQQ 24x Q")
HEADER_BYTES: Final = HEADER.size
PAYLOAD_ALIGN: Final = 64
BLOCK_META_BYTES: Final = 5 * 8 + 4 + 1 + 1

KIND_BLOCKS: Final = 1
KIND_MARK: Final = 2  # nothing but a header: what stands behind it is left over from before a crash
KIND_END: Final = 3  # nothing but a header: the segment has no more records
KIND_VOID: Final = 4  # covers what a crash left of a record that was never durable; its "payload" is that rest

assert HEADER_BYTES == 128


def aligned(size: int, to: int = RECORD_ALIGN_BYTES) -> int:
    return -(-size // to) * to


def record_bytes(blocks: int, column_bytes: int, payload_bytes: int) -> int:
    """What a record of so many blocks takes in the log; 0 where there are none."""
    head = HEADER_BYTES + blocks * (BLOCK_META_BYTES + column_bytes)
    return aligned(aligned(head, PAYLOAD_ALIGN) + payload_bytes) if blocks else 0


def payload_start(blocks: int, column_bytes: int) -> int:
    """Offset of the payload from a record's start."""
    return aligned(HEADER_BYTES + blocks * (BLOCK_META_BYTES + column_bytes), PAYLOAD_ALIGN)


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The first 128 bytes of a record."""

    generation: int  # of the segment when this was written
    lsn: int  # log sequence number, rising by one from record to record
    stream: bytes  # 16 bytes of the stream's id; zeros in marks
    kind: int
    segment: int
    blocks: int
    column_bytes: int  # packed columns of one block
    offset: int  # in the segment file
    payload_bytes: int
    durable_lsn: int  # every record up to this one was durable when this one was written
    table_digest: int

    @property
    def table_bytes(self) -> int:
        return self.blocks * (BLOCK_META_BYTES + self.column_bytes)

    @property
    def payload_start(self) -> int:
        """Offset of the payload from the record's start."""
        return payload_start(self.blocks, self.column_bytes)

    @property
    def total_bytes(self) -> int:
        return aligned(self.payload_start + self.payload_bytes)

    def encode(self, salt: int) -> bytes:
        packed = HEADER.pack(
            MAGIC,
            self.generation,
            self.lsn,
            self.stream,
            self.kind,
            self.segment,
            self.blocks,
            self.column_bytes,
            self.offset,
            self.payload_bytes,
            self.total_bytes,
            self.durable_lsn,
            self.table_digest,
            0,
        )
        return packed[:-8] + struct.pack("<Q", xxhash.xxh3_64_intdigest(packed[:-8], salt))


def decode_header(data: bytes | bytearray | memoryview, salt: int, segment: int, offset: int) -> RecordHeader | None:
    """The header in the first 128 bytes of `data`, or None where there is no good one for that place."""
    if len(data) < HEADER_BYTES or bytes(data[:8]) != MAGIC:
        return None
    fields = HEADER.unpack_from(data)
    if fields[-1] != xxhash.xxh3_64_intdigest(memoryview(data)[: HEADER_BYTES - 8], salt):
        return None
    _, generation, lsn, stream, kind, number, blocks, column_bytes, at, payload, total, durable, digest, _ = fields
    header = RecordHeader(generation, lsn, stream, kind, number, blocks, column_bytes, at, payload, durable, digest)
    return header if number == segment and at == offset and total == header.total_bytes else None


@dataclass(frozen=True, slots=True, eq=False)
class BlockTable:
    """What a record says of its blocks; vectors of one entry a block, as in `Extent`."""

    index: IntArray
    time_ns: IntArray
    received_ns: IntArray
    digest: UIntArray
    source_digest: UIntArray
    length: npt.NDArray[np.uint32]
    status: ByteArray
    cause: ByteArray
    columns: ByteArray  # (n, column_bytes)

    @classmethod
    def of(cls, extent: Extent) -> BlockTable:
        count = len(extent)
        columns = np.ascontiguousarray(extent.columns)
        raw = columns.view(np.uint8) if columns.dtype.itemsize else np.zeros(0, np.uint8)
        return cls(
            index=extent.index,
            time_ns=extent.time_ns,
            received_ns=extent.received_ns,
            digest=extent.digest,
            source_digest=extent.source_digest,
            length=extent.length.astype(np.uint32),
            status=extent.status,
            cause=extent.cause,
            columns=raw.reshape(count, columns.dtype.itemsize),
        )

    def rows(self, rows: slice) -> BlockTable:
        return BlockTable(
            self.index[rows],
            self.time_ns[rows],
            self.received_ns[rows],
            self.digest[rows],
            self.source_digest[rows],
            self.length[rows],
            self.status[rows],
            self.cause[rows],
            self.columns[rows],
        )

    @property
    def offsets(self) -> IntArray:
        """Where each block starts in the payload, and the end: `n + 1` entries."""
        out = np.zeros(len(self.index) + 1, np.int64)
        np.cumsum(self.length, out=out[1:])
        return out

    def encode(self) -> bytes:
        return b"".join(
            (
                self.index.astype("<i8", copy=False).tobytes(),
                self.time_ns.astype("<i8", copy=False).tobytes(),
                self.received_ns.astype("<i8", copy=False).tobytes(),
                self.digest.astype("<u8", copy=False).tobytes(),
                self.source_digest.astype("<u8", copy=False).tobytes(),
                self.length.astype("<u4", copy=False).tobytes(),
                self.status.tobytes(),
                self.cause.tobytes(),
                self.columns.tobytes(),
            )
        )


def decode_table(header: RecordHeader, data: bytes | bytearray | memoryview) -> BlockTable | None:
    """The table in `data`, or None where its digest is not the header's or it contradicts itself."""
    if len(data) != header.table_bytes or xxhash.xxh3_64_intdigest(data) != header.table_digest:
        return None
    table = table_of(header.blocks, BLOCK_META_BYTES + header.column_bytes, data)
    return table if int(table.length.sum(dtype=np.int64)) == header.payload_bytes else None


def table_of(count: int, row_bytes: int, data: bytes | bytearray | memoryview) -> BlockTable:
    """The table in `data`, that is known to be one of `count` blocks; a view of it."""
    start = 0
    vectors: list[npt.NDArray[Any]] = []
    for code in ("<i8", "<i8", "<i8", "<u8", "<u8", "<u4", "u1", "u1"):
        vectors.append(np.frombuffer(data, code, count, start))
        start += vectors[-1].nbytes
    column_bytes = row_bytes - BLOCK_META_BYTES
    columns = np.frombuffer(data, np.uint8, count * column_bytes, start).reshape(count, column_bytes)
    index, time_ns, received_ns, digest, source_digest, length, status, cause = vectors
    return BlockTable(index, time_ns, received_ns, digest, source_digest, length, status, cause, columns)


def columns_of(table: BlockTable, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """The table's columns as records of `dtype`."""
    count, size = table.columns.shape
    if size != dtype.itemsize:
        raise SpecMismatch(f"columns of {size} bytes a block in the log, but the stream's have {dtype.itemsize}")
    if not size:
        return np.zeros(count, dtype)
    return np.ascontiguousarray(table.columns).reshape(-1).view(dtype)
