"""What a drain did and what a verification found: frozen records for people and machines.

Built by `drain.nexus` and `drain.verification` at their end, in the thread that called them; nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
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

    file: str  # an absolute path, or s3://BUCKET/KEY
    streams: tuple[DrainedStream, ...]
    compression: str
    file_bytes: int
    elapsed_s: float
    left_out: tuple[str, ...] = ()  # joins that are no dataset, and why
    recorded: bool = False  # the buffer knows it as an archive of its streams

    @property
    def blocks(self) -> int:
        return sum(stream.blocks for stream in self.streams)

    @property
    def bytes(self) -> int:
        return sum(stream.bytes for stream in self.streams)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self) | {"blocks": self.blocks, "bytes": self.bytes}

    def __str__(self) -> str:
        return (
            f"{self.file}: {len(self.streams)} streams, {self.blocks} blocks, {self.bytes} bytes in {self.file_bytes} "
            f"({self.compression}), every block read back and compared"
            + "".join(f"; left out: {why}" for why in self.left_out)
        )


@dataclass(frozen=True, slots=True)
class Damage:
    """Blocks that are not what was written: indices of the producer, first and last included, None where unknown."""

    first: int | None
    last: int | None
    reason: str

    def __str__(self) -> str:
        if self.first is None:
            return self.reason
        which = f"block {self.first}" if self.first == self.last else f"blocks {self.first} to {self.last}"
        return f"{which}: {self.reason}"


@dataclass(frozen=True, slots=True)
class VerifiedStream:
    """One stream, every block of it read and compared. `blocks` and `bytes` are those that were good."""

    path: str
    version: int
    state: str
    blocks: int
    bytes: int
    damage: tuple[Damage, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """What was read, and what of it is not what was written. `changed` are a file's objects other than blocks."""

    source: str
    streams: tuple[VerifiedStream, ...]
    changed: tuple[str, ...]
    elapsed_s: float

    @property
    def ok(self) -> bool:
        return not self.changed and not any(stream.damage for stream in self.streams)

    @property
    def blocks(self) -> int:
        return sum(stream.blocks for stream in self.streams)

    @property
    def bytes(self) -> int:
        return sum(stream.bytes for stream in self.streams)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self) | {"ok": self.ok, "blocks": self.blocks, "bytes": self.bytes}

    def __str__(self) -> str:
        lines = [f"{stream.path}: {damage}" for stream in self.streams for damage in stream.damage]
        lines += [f"{path}: not as it was written" for path in self.changed]
        good = f"{self.source}: {len(self.streams)} streams, {self.blocks} blocks, {self.bytes} bytes"
        lines.append(f"{good} read and compared, all good" if self.ok else f"{good} are good; the above is damaged")
        return "\n".join(lines)
