"""Blocks that arrived lately, still in the arena: readers get them without touching the disk.

A record that was written from a region of the arena is kept here, region and table, when it enters its stream's index,
and stays readable after the sync that covers it. Kept is at most 1 / `limits.RECENT_FRACTION` of the arena, the oldest
going first, and where the arena has no room whatever is durable goes at once (`Arena.on_pressure`).

Invariants: each entry holds its region once; a region is held once more while somebody copies from it; bytes in the
arena had their digests checked there and nobody writes to them, so they are not hashed again. All methods may be called
from any thread; the arena's lock guards the state.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass

import numpy as np

from hiss import limits
from hiss.blocks.arena import Arena, Region
from hiss.blocks.record import BlockTable, table_of
from hiss.model import ByteArray, IntArray


@dataclass(frozen=True, slots=True)
class RecentUse:
    """What readers got from memory and from the disk since the start."""

    bytes: int = 0  # of the arena, kept at the moment
    blocks_from_memory: int = 0
    blocks_from_disk: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    table: bytes  # as it stands in the record
    blocks: int
    payload: ByteArray
    region: Region


_Key = tuple[str, int]  # stream, number of the record in its index


class Recent:
    """Records of one arena."""

    def __init__(self, arena: Arena) -> None:
        self._changed = arena.changed
        self._allowed_bytes = arena.capacity // limits.RECENT_FRACTION
        self._entries: collections.OrderedDict[_Key, _Entry] = collections.OrderedDict()
        self._holds: dict[Region, int] = {}  # how many entries lie in each region
        self._bytes = 0
        self._from_memory = self._from_disk = 0
        arena.on_pressure = self._make_room

    @property
    def use(self) -> RecentUse:
        with self._changed:
            return RecentUse(self._bytes, self._from_memory, self._from_disk)

    @property
    def spare_bytes(self) -> int:
        """Of the arena, what is given up as soon as somebody needs it."""
        with self._changed:
            return sum(region.taken_bytes for region in self._holds if self._is_ours(region))

    def add(self, stream_id: str, record: int, table: bytes, blocks: int, payload: ByteArray, region: Region) -> None:
        """Keep a record; `payload` lies in `region`, which somebody else holds at this moment."""
        entry = _Entry(table, blocks, payload, region)
        with self._changed:
            region.hold()
            holds = self._holds.get(region, 0)
            self._holds[region] = holds + 1
            self._entries[stream_id, record] = entry
            self._bytes += len(table) + (0 if holds else region.taken_bytes)
            while self._bytes > self._allowed_bytes:
                self._drop(next(iter(self._entries)))

    def forget(self, stream_id: str, record: int | None = None) -> None:
        """A record was given up, or with None all of the stream's."""
        with self._changed:
            if record is not None:
                gone = [(stream_id, record)] if (stream_id, record) in self._entries else []
            else:
                gone = [key for key in self._entries if key[0] == stream_id]
            for key in gone:
                self._drop(key)

    def clear(self) -> None:
        with self._changed:
            while self._entries:
                self._drop(next(iter(self._entries)))

    def table(self, stream_id: str, record: int) -> BlockTable | None:
        """A record's table, if it is here."""
        with self._changed:
            entry = self._entries.get((stream_id, record))
        if entry is None:
            return None
        return table_of(entry.blocks, len(entry.table) // entry.blocks, entry.table)

    def copy(self, stream_id: str, record: int, table: BlockTable, rows: IntArray, out: ByteArray) -> bool:
        """Copy the blocks at `rows` of the record into `out`, one behind the other; False where it is not here."""
        with self._changed:
            entry = self._entries.get((stream_id, record))
            if entry is None:
                self._from_disk += len(rows)
                return False
            self._from_memory += len(rows)
            entry.region.hold()
        try:
            offsets, position = table.offsets, 0
            for part in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
                start, stop = int(offsets[part[0]]), int(offsets[part[-1] + 1])
                out[position : position + stop - start] = entry.payload[start:stop]
                position += stop - start
        finally:
            entry.region.release()
        return True

    # ---- the lock is held

    def _drop(self, key: _Key) -> None:
        entry = self._entries.pop(key)
        region = entry.region
        self._bytes -= len(entry.table)
        self._holds[region] -= 1
        if not self._holds[region]:
            del self._holds[region]
            self._bytes -= region.taken_bytes
        region.release()

    def _is_ours(self, region: Region) -> bool:
        return region.holders == self._holds.get(region, 0)

    def _make_room(self) -> bool:
        """Let go of the oldest record whose region nobody else holds; whether there was one."""
        key = next((key for key, entry in self._entries.items() if self._is_ours(entry.region)), None)
        if key is None:
            return False
        self._drop(key)
        return True
