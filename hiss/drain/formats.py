"""What a format of drained data is: the one boundary between draining and how blocks lie in permanent storage.

Implementations: `nexus.Nexus`, `zarr_format.Zarr`, `bare.Bare`; one suite tests them. A format is made for
one drain and used by the thread that drains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hiss.drain.frames import Progress, Written
from hiss.errors import Damaged
from hiss.model import Attrs, Keep, StreamInfo
from hiss.store import Store


@dataclass(frozen=True, slots=True)
class Content:
    """What is drained: final streams, and what their collection says."""

    title: str
    attrs: Attrs
    streams: tuple[StreamInfo, ...]
    joins: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A written stream: the name of the group that shows it, the path of its `data`, and what was written there."""

    info: StreamInfo
    shown: str
    location: str
    written: Written


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    placed: tuple[Placed, ...]
    left_out: tuple[str, ...] = ()  # what the format cannot hold, and why


class Format(Protocol):
    """One way to lay blocks down. `compression` is the name of the one that was chosen."""

    @property
    def compression(self) -> str: ...

    @property
    def holds_all(self) -> bool:
        """Whether all that is known of the blocks is in it, so that it is an archive of them."""
        ...

    def write(self, part: Path, name: str, content: Content, store: Store, progress: Progress) -> Outcome:
        """Write all blocks and all that is known of them to `part`, which will be called `name`.

        Raises `BlockDamaged` where a block comes out of the buffer with other bytes than its digest says.
        """
        ...

    def compare(self, part: Path, outcome: Outcome, progress: Progress) -> None:
        """Read everything back; raises `Damaged` where it is not what was written."""
        ...


def check_count(info: StreamInfo, written: Written) -> None:
    """Raises `Damaged` where fewer blocks were read than the stream has."""
    computed = info.keep is Keep.RAW and bool(info.stages)
    if not computed and len(written) != info.completeness.blocks:
        raise Damaged(
            f"{info.path}: {len(written)} blocks came out of the buffer, {info.completeness.blocks} are in its "
            "record; nothing was drained",
            stream=info.path,
        )
