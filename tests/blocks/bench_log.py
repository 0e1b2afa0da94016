"""A log on a `Files`, without catalog and arena, with streams whose bytes follow from their name and index."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hiss import limits
from hiss.blocks.compaction import Compactor
from hiss.blocks.extent_reader import ExtentReader
from hiss.blocks.files import Files
from hiss.blocks.index import StreamIndex
from hiss.blocks.ledger import completeness
from hiss.blocks.recovery import Recovery, RecoveryReport
from hiss.blocks.segment_log import SegmentLog
from hiss.blocks.segment_pool import SegmentPool
from hiss.errors import HissError
from hiss.extent import Extent, block_digests
from hiss.model import AckLevel, BlockStatus, Column, Completeness, FrameSpec, Keep, StreamInfo, StreamState

NODE = "0123456789ab"
SALT = 0x1122334455667788


def stream_info(name: str = "s", columns: tuple[Column, ...] = (Column("angle", "<f8"),)) -> StreamInfo:
    return StreamInfo(
        id=uuid.uuid4().hex,
        collection="test/run",
        name=name,
        version=1,
        frame=FrameSpec(None, ()),
        columns=columns,
        ack=AckLevel.DURABLE,
        keep=Keep.RESULT,
        attrs={},
        stages=(),
        state=StreamState.OPEN,
        completeness=Completeness(0, 0, 0, None, None),
        digest="",
        created_ns=1,
        final_ns=0,
    )


def block_bytes(stream_id: str, index: int, size: int) -> bytes:
    seed = [int(stream_id[:8], 16), abs(index), size]
    return np.random.default_rng(seed).bytes(size)


def make_extent(info: StreamInfo, blocks: Iterable[tuple[int, int]], status: dict[int, int] | None = None) -> Extent:
    """An extent of (index, size); `status` for those that are not stored."""
    status = status or {}
    pairs = [(index, 0 if status.get(index, 0) else size) for index, size in blocks]
    data = np.frombuffer(b"".join(block_bytes(info.id, *pair) for pair in pairs), np.uint8).copy()
    index = np.array([index for index, _ in pairs], np.int64)
    length = np.array([size for _, size in pairs], np.int64)
    columns = np.zeros(len(pairs), info.columns_dtype)
    for name in columns.dtype.names or ():
        columns[name] = index
    digest = block_digests(data, length)
    return Extent(
        index=index,
        time_ns=index * 10,
        length=length,
        digest=digest,
        columns=columns,
        data=data,
        received_ns=index * 10 + 1,
        status=np.array([status.get(index, 0) for index, _ in pairs], np.uint8),
        cause=np.zeros(len(pairs), np.uint8),
        source_digest=digest ^ np.uint64(1),
    )


class BenchScan:
    """A log on `files` that was read, and its indexes; nothing is repaired yet."""

    def __init__(
        self,
        files: Files,
        streams: dict[str, StreamInfo],
        *,
        segment_bytes: int = 64 << 10,
        deleted: Callable[[str], bool] = lambda stream_id: True,
        kept_spares: int = 0,
    ) -> None:
        self.files = files
        self.streams = streams
        self.pool = SegmentPool(files, Path("/simulated"), NODE, segment_bytes, kept_spares=kept_spares)
        self.reader = ExtentReader(self.pool, SALT)
        self.indexes: dict[str, StreamIndex] = {}
        self.recovery = Recovery(self.pool, self.reader, NODE, SALT, streams, self.index, deleted)
        self.found = self.recovery.scan_log()

    def index(self, stream_id: str) -> StreamIndex:
        if stream_id not in self.indexes:
            self.indexes[stream_id] = StreamIndex(stream_id, self.streams[stream_id].columns_dtype, self.reader.table)
        return self.indexes[stream_id]


class BenchLog(BenchScan):
    """A log that was opened on `files`."""

    def __init__(
        self,
        files: Files,
        streams: dict[str, StreamInfo],
        *,
        segment_bytes: int = 64 << 10,
        unsynced_bytes_max: int = 1 << 30,
        space_wait_s: float = 0.0,
        deleted: Callable[[str], bool] = lambda stream_id: True,
        kept_spares: int = 0,
    ) -> None:
        super().__init__(files, streams, segment_bytes=segment_bytes, deleted=deleted, kept_spares=kept_spares)
        self.log = SegmentLog(
            self.pool,
            SALT,
            unsynced_bytes_max=unsynced_bytes_max,
            space_wait_s=space_wait_s,
            next_lsn=self.found.next_lsn,
            active=self.found.active,
        )
        self.report: RecoveryReport = self.recovery.repair(self.log)
        self.compactor = Compactor(
            self.pool,
            self.log,
            self.reader,
            self.recovery.strays,
            lambda: list(self.indexes.values()),
            limits.COMPACTION_BYTES_PER_S,
            pause=lambda seconds: False,
        )

    def add(self, info: StreamInfo) -> StreamInfo:
        self.streams[info.id] = info
        return info

    def append(self, info: StreamInfo, extent: Extent) -> Outcome:
        outcome = Outcome()
        self.log.append(self.index(info.id), extent, outcome)
        return outcome

    def seal(self, info: StreamInfo) -> StreamInfo:
        self.log.sync()
        whole = completeness(self.index(info.id), None, [])
        self.streams[info.id] = replace(info, state=StreamState.SEALED, completeness=whole)
        return self.streams[info.id]

    def delete(self, info: StreamInfo) -> None:
        self.streams.pop(info.id)
        self.pool.forget(self.indexes[info.id])
        self.indexes.pop(info.id)

    def contents(self, info: StreamInfo) -> dict[int, bytes]:
        """Every stored block, read and checked."""
        return {
            int(index): bytes(extent.data[start:stop])
            for extent in self.reader.read(self.index(info.id), None, None, 1)
            for index, start, stop in zip(extent.index, extent.offsets[:-1], extent.offsets[1:], strict=True)
        }

    def handled(self, info: StreamInfo) -> dict[int, int]:
        """Status of every handled index."""
        runs = self.index(info.id).runs(limit=1 << 30)
        return {index: run.status for run in runs for index in range(run.first, run.last + 1)}

    def close(self) -> None:
        self.log.close()
        self.pool.close()

    def stop_without_a_trace(self) -> None:
        """End the committer's thread without writing anything more, as far as that can be helped."""
        self.log._stopping = True
        with self.log._changed:
            self.log._changed.notify_all()
        self.log._committer.join()
        self.pool.close()


class Outcome:
    """What `on_durable` said."""

    def __init__(self) -> None:
        self.said: list[HissError | None] = []
        self.event = threading.Event()

    def __call__(self, error: HissError | None) -> None:
        self.said.append(error)
        self.event.set()

    def wait(self) -> HissError | None:
        assert self.event.wait(30), "nobody said what became of the extent"
        assert len(self.said) == 1
        return self.said[0]


STORED = int(BlockStatus.STORED)
