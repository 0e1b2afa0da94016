"""Records in the log of streams that the catalog knows nothing of, although nobody deleted them.

Every deleted stream leaves its id in the catalog, so a record of neither a known nor a deleted stream says that the
catalog has lost something: a damaged tail, or an older copy that was put back. Such records are counted as live: their
segments are not used again until an operator has said that they may be.

Filled by recovery, before any other thread; after that any thread may call.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from hiss.blocks.segment import Segment
from hiss.blocks.segment_pool import SegmentPool


@dataclass(slots=True)
class _Held:
    records: int = 0
    size: int = 0


class Strays:
    """What keeps segments of one pool from being used again, by stream id."""

    def __init__(self, pool: SegmentPool) -> None:
        self._pool = pool
        self._held: dict[str, dict[int, _Held]] = {}  # stream -> segment number -> what is held there
        self._lock = threading.Lock()

    def hold(self, stream_id: str, segment: Segment, records: int, size: int) -> None:
        """Keep the segment for these records of the stream; `size` is all that they take, bytes."""
        held = self._held.setdefault(stream_id, {}).setdefault(segment.number, _Held())
        held.records += records
        held.size += size
        self._pool.count_live(segment, records, size)

    def release(self, stream_id: str) -> bool:
        """Nobody wants the records of that stream; whether there were any."""
        with self._lock:
            places = self._held.pop(stream_id, None)
        for number, held in (places or {}).items():
            self._pool.count_live(self._pool.segments[number], -held.records, -held.size)
        return places is not None

    def holds(self, segment: int) -> bool:
        """Whether something keeps the segment of that number."""
        with self._lock:
            return any(segment in places for places in self._held.values())

    def __contains__(self, stream_id: str) -> bool:
        with self._lock:
            return stream_id in self._held

    @property
    def ids(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(self._held))

    def totals(self) -> tuple[int, int]:
        """Records and bytes that are held."""
        total: Counter[str] = Counter()
        with self._lock:
            for places in self._held.values():
                for held in places.values():
                    total["records"] += held.records
                    total["bytes"] += held.size
        return total["records"], total["bytes"]
