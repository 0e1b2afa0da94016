"""One segment: a preallocated file of the log, and what this process knows of it.

The first `limits.RECORD_ALIGN_BYTES` hold the header: which segment of which buffer this is, and its generation, which
rises whenever any segment is put to use, so that records of an earlier use are known for what they are. Records follow.

`Segment` is a plain holder of state; the `SegmentPool` that owns it guards all of its fields with its lock.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import xxhash

from hiss.limits import COMPACTION_FRACTION, RECORD_ALIGN_BYTES

if TYPE_CHECKING:
    from hiss.blocks.segment_footer import FooterDraft

MAGIC: Final = b"HISSSEG1"
FORMAT_VERSION: Final = 1
HEADER: Final = struct.Struct("<8s II 16s QQQ Q")
HEADER_PAGE_BYTES: Final = RECORD_ALIGN_BYTES

_NAME = re.compile(r"([0-9]{8})(?:-([0-9a-f]{8,16}))?\.(seg|retired)")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    number: int
    node: str  # of the buffer that it belongs to
    generation: int
    first_lsn: int  # of its first record
    size: int  # of the file, bytes

    def encode(self) -> bytes:
        packed = HEADER.pack(
            MAGIC, FORMAT_VERSION, self.number, self.node.encode(), self.generation, self.first_lsn, self.size, 0
        )[:-8]
        return (packed + struct.pack("<Q", xxhash.xxh3_64_intdigest(packed))).ljust(HEADER_PAGE_BYTES, b"\0")


def decode_segment_header(data: bytes | bytearray) -> SegmentHeader | None:
    """The header in the first bytes of a segment, or None where there is no good one."""
    if len(data) < HEADER.size or data[:8] != MAGIC:
        return None
    _, version, number, node, generation, first_lsn, size, digest = HEADER.unpack_from(data)
    if digest != xxhash.xxh3_64_intdigest(data[: HEADER.size - 8]) or version != FORMAT_VERSION:
        return None
    return SegmentHeader(number, node.rstrip(b"\0").decode("ascii", "replace"), generation, first_lsn, size)


def segment_name(number: int) -> str:
    return f"{number:08d}.seg"


def retired_name(number: int, trusted_end: int) -> str:
    """The name of a segment that failed: what lies before `trusted_end` was durable before it did."""
    return f"{number:08d}-{trusted_end:08x}.retired"


def parse_name(name: str) -> tuple[int, int | None] | None:
    """Number, and for a retired segment its trusted end; None for a file that is no segment."""
    match = _NAME.fullmatch(name)
    if match is None or (match[2] is None) != (match[3] == "seg"):
        return None
    return int(match[1]), None if match[2] is None else int(match[2], 16)


@dataclass(slots=True, eq=False)
class Segment:
    """What the pool knows of one segment."""

    number: int
    path: Path
    size: int
    generation: int = 0
    tail: int = HEADER_PAGE_BYTES  # where the next record goes
    fd: int | None = None  # None: not open at the moment
    users: int = 0  # who reads or writes it at the moment; its descriptor stays open for them
    live_records: int = 0
    live_bytes: int = 0
    closed: bool = False  # takes no more records
    failure: OSError | None = None  # retired: a write or a sync failed, it is neither written nor synced again
    outstanding: dict[int, int] = field(default_factory=dict)  # offset -> bytes of records not durable yet, in order
    held: bool = False  # recovery is not done with it: neither used again nor deleted
    draft: FooterDraft | None = None  # of its index; None: it will have none
    copies_only: bool = False  # the last one: it takes what is moved out of other segments, nothing else

    @property
    def retired(self) -> bool:
        return self.failure is not None

    @property
    def sparse(self) -> bool:
        """Worth compacting: it is full and has little that is alive, or it failed and has anything."""
        if not self.closed or self.held or self.outstanding or not self.live_records:
            return False
        return self.retired or self.live_bytes * COMPACTION_FRACTION < self.size
