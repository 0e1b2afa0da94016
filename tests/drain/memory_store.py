"""The reading side of a buffer over arrays in memory, so that drain is tested by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hiss.errors import CollectionNotFound, StreamNotFound
from hiss.extent import Extent
from hiss.model import (
    AckLevel,
    CollectionInfo,
    Column,
    Completeness,
    FrameSpec,
    Keep,
    LedgerEntry,
    Selection,
    StageInfo,
    StreamInfo,
    StreamState,
    columns_dtype,
)


class MemoryStore:
    """Streams given as lists of blocks; only what drain calls is there."""

    def __init__(
        self,
        collection: str = "beam/scan1",
        attrs: dict[str, Any] | None = None,
        joins: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.info = CollectionInfo(collection, attrs or {}, (), joins or {}, True, 1, ())
        self.infos: dict[str, StreamInfo] = {}
        self.extents: dict[str, list[Extent]] = {}
        self.archived: dict[str, str] = {}
        self.published: list[tuple[str, str, int, dict[str, Any]]] = []

    def add(
        self,
        name: str,
        blocks: Sequence[Any],
        *,
        frame: FrameSpec,
        index: Sequence[int] | None = None,
        columns: dict[str, tuple[str, Sequence[Any]]] | None = None,
        attrs: dict[str, Any] | None = None,
        ledger: tuple[LedgerEntry, ...] = (),
        state: StreamState = StreamState.SEALED,
        stages: tuple[StageInfo, ...] = (),
        blocks_per_extent: int = 3,
        **changes: Any,
    ) -> StreamInfo:
        index = list(range(len(blocks))) if index is None else list(index)
        specs = tuple(Column.parse(key, text) for key, (text, _) in (columns or {}).items())
        records = np.zeros(len(blocks), columns_dtype(specs))
        for key, (_, values) in (columns or {}).items():
            records[key] = values
        raw = [
            bytes(block) if frame.opaque else np.ascontiguousarray(block, frame.numpy_dtype).tobytes()
            for block in blocks
        ]
        made = []
        for first in range(0, len(blocks), blocks_per_extent):
            part = slice(first, first + blocks_per_extent)
            data = np.frombuffer(b"".join(raw[part]), np.uint8)
            times = [1_700_000_000_000_000_000 + i for i in index[part]]
            made.append(Extent.of(index[part], data, [len(r) for r in raw[part]], time_ns=times, columns=records[part]))
        info = StreamInfo(
            id=f"{len(self.infos):032x}",
            collection=self.info.path,
            name=name,
            version=1,
            frame=frame,
            columns=specs,
            ack=AckLevel.DURABLE,
            keep=Keep.RESULT,
            attrs=attrs or {},
            stages=stages,
            state=state,
            completeness=Completeness(
                len(blocks), sum(map(len, raw)), sum(entry.count for entry in ledger),
                min(index, default=None), max(index, default=None), ledger,
            ),
            digest="00" * 8,
            created_ns=10 + len(self.infos),
            final_ns=20 if state.final else 0,
        )  # fmt: skip
        info = replace(info, **changes)
        self.infos[info.id] = info
        self.extents[info.id] = made
        return info

    def collection(self, path: str) -> CollectionInfo:
        if path != self.info.path:
            raise CollectionNotFound(path)
        return self.info

    def stream(self, path: str, version: int | None = None) -> StreamInfo:
        for info in self.infos.values():
            if info.path == path and version in (None, info.version):
                return info
        raise StreamNotFound(path)

    def streams(self, collection: str, *, all_versions: bool = False) -> list[StreamInfo]:
        return [info for info in self.infos.values() if info.collection == collection]

    def publish_event(self, kind: str, path: str, version: int, data: Any) -> None:
        self.published.append((kind, path, version, dict(data)))

    def record_archives(self, archives: Sequence[tuple[str, str, str]]) -> None:
        self.archived |= {stream_id: location for stream_id, location, _ in archives}

    def read(self, stream_id: str, selection: Selection) -> Iterator[Extent]:
        yield from self.extents[stream_id]
