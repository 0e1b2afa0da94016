"""What a drain did: frozen records for people and machines.

Built by `drain.nexus` at the end of a drain, in the thread that called it; nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class DrainedStream:
    """One stream in the file. `bytes` are those of its blocks before compression."""

    path: str
    version: int
    state: str  # 'sealed' or 'aborted'
    location: str  # the dataset's path in the file
    blocks: int
    bytes: int
    gaps: int
    digest: str


@dataclass(frozen=True, slots=True)
class DrainReport:
    """One drained file. Every block in it was read back and had its digest."""

    file: Path
    streams: tuple[DrainedStream, ...]
    compression: str
    file_bytes: int
    elapsed_s: float

    @property
    def blocks(self) -> int:
        return sum(stream.blocks for stream in self.streams)

    @property
    def bytes(self) -> int:
        return sum(stream.bytes for stream in self.streams)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self) | {"file": str(self.file), "blocks": self.blocks, "bytes": self.bytes}

    def __str__(self) -> str:
        return (
            f"{self.file}: {len(self.streams)} streams, {self.blocks} blocks, {self.bytes} bytes in {self.file_bytes} "
            f"({self.compression}), every block read back and compared"
        )
