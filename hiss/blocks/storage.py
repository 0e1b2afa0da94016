"""The storage of one data directory: arena, log, indexes and catalog, opened together.

    DIR/lock         held while a process has it open
    DIR/catalog.db   SQLite: what there is
    DIR/arrays/      parameters of kernels, by digest
    DIR/segments/    the log: the blocks

Any thread may call anything; blocks of one stream are appended by one thread at a time. Readers see what is written,
whether or not it is durable yet.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import xxhash

from hiss import limits
from hiss.blocks import ledger
from hiss.blocks.arena import Arena, Region
from hiss.blocks.catalog import FILE_NAME, Catalog
from hiss.blocks.compaction import Compaction, Compactor
from hiss.blocks.directory_lock import DirectoryLock
from hiss.blocks.extent_reader import ExtentReader
from hiss.blocks.files import OS_FILES, Files
from hiss.blocks.index import StreamIndex, digest_rows
from hiss.blocks.pins import Pins
from hiss.blocks.preparation import Preparer
from hiss.blocks.recent import Recent, RecentUse
from hiss.blocks.recovery import Recovery, RecoveryReport
from hiss.blocks.reservations import Room
from hiss.blocks.segment import parse_name
from hiss.blocks.segment_log import Done, SegmentLog
from hiss.blocks.segment_pool import SegmentPool
from hiss.errors import BlockConflict, CatalogDamaged, InvalidInput, SpecMismatch
from hiss.extent import Extent
from hiss.model import Chooser, Completeness, StreamInfo


def _arena_bytes() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(limits.ARENA_BYTES_MIN, min(limits.ARENA_BYTES_DEFAULT, memory // 4))


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Sizes of one data directory's storage. Bytes and seconds."""

    arena_bytes: int = field(default_factory=_arena_bytes)
    segment_bytes: int = limits.SEGMENT_BYTES
    unsynced_bytes_max: int | None = None  # None: `limits.UNSYNCED_BYTES_MAX`, or half the arena if that is less
    space_wait_s: float = limits.SPACE_WAIT_S
    log_bytes_max: int = 0  # that all segments may take together; 0: as much as the disk has
    prepare: bool = True  # have the next segment written through before it is needed
    compaction_bytes_per_s: int = limits.COMPACTION_BYTES_PER_S  # copied out of segments that are nearly empty; 0: none

    def __post_init__(self) -> None:
        if self.arena_bytes < limits.ARENA_BYTES_MIN:
            raise InvalidInput(f"arena_bytes {self.arena_bytes}: expected at least {limits.ARENA_BYTES_MIN}")
        if self.segment_bytes < limits.SEGMENT_BYTES_MIN or self.segment_bytes % limits.RECORD_ALIGN_BYTES:
            raise InvalidInput(
                f"segment_bytes {self.segment_bytes}: expected at least {limits.SEGMENT_BYTES_MIN}, and a multiple of "
                f"{limits.RECORD_ALIGN_BYTES}"
            )
        if self.log_bytes_max and self.log_bytes_max < 2 * self.segment_bytes:
            raise InvalidInput(f"log_bytes_max {self.log_bytes_max}: expected room for two segments at least, or 0")
        if self.compaction_bytes_per_s < 0:
            raise InvalidInput(f"compaction_bytes_per_s {self.compaction_bytes_per_s}: expected at least 0; 0 is none")
        if self.space_wait_s < 0 or (self.unsynced_bytes_max is not None and self.unsynced_bytes_max < 1):
            raise InvalidInput("space_wait_s is at least 0, unsynced_bytes_max at least 1")


IO_MODE: Final = "page cache"
IO_REASON: Final = (
    "written through the page cache and made durable by fdatasync: into segments that were written before, as all are "
    "after their first use or when they were prepared, that is as fast as direct I/O or faster "
    "(docs/decisions/0011-page-cache.md)"
)


@dataclass(frozen=True, slots=True)
class LogUsage:
    """Space that the log takes."""

    segments: int
    log_bytes: int  # of all segment files
    live_bytes: int  # of records that a stream still has
    disk_free_bytes: int
    arena_free_bytes: int  # what is only kept for readers included
    compaction: Compaction  # since the start
    recent: RecentUse
    prepared_segments: int  # made and written through before they were needed, since the start


class Storage:
    """One data directory.

    Parameters
    ----------
    directory : Path
        Made where it is not there.
    options : StorageOptions
    files : Files
        Where the log is written; the operating system's.
    clock_ns : callable
        UTC nanoseconds since 1970.

    Raises
    ------
    DataDirectoryLocked
        Another process has it open.
    CatalogDamaged
        The catalog cannot be read, or is not the one of this log. Nothing was changed.
    """

    def __init__(
        self,
        directory: Path,
        options: StorageOptions | None = None,
        *,
        files: Files = OS_FILES,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        options = options or StorageOptions()
        self.directory = Path(directory)
        self._files = files
        segments = self.directory / "segments"
        segments.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_file = DirectoryLock(self.directory)
        self._open = True
        try:
            _check_catalog_is_there(self.directory, segments, files)
            self.catalog = Catalog(self.directory, clock_ns=clock_ns)
            files.fsync_directory(self.directory)
            files.fsync_directory(self.directory.parent)
            try:
                self.arena = Arena(options.arena_bytes)
                keep = 1 if options.compaction_bytes_per_s else 0
                self._pool = SegmentPool(files, segments, self.catalog.node, options.segment_bytes, kept_spares=keep)
                self._pool.log_bytes_max = options.log_bytes_max
                self._recent = Recent(self.arena)
                self._reader = ExtentReader(self._pool, self.catalog.salt, self._recent)
                self._disk_reader = ExtentReader(self._pool, self.catalog.salt)
                self._lock = threading.Lock()
                self._indexes: dict[str, StreamIndex] = {}
                self.pins = Pins()
                self._log, self.recovery = self._recover(options)
                self._compactor = Compactor(
                    self._pool, self._log, self._reader, self._strays, self._all_indexes, options.compaction_bytes_per_s
                )
                if options.compaction_bytes_per_s:
                    self._compactor.start()
                self._preparer = Preparer(self._pool, self._log.busy)
                if options.prepare:
                    self._preparer.start()
            except BaseException:
                self.catalog.close()
                raise
        except BaseException:
            self._lock_file.release()
            raise

    def _recover(self, options: StorageOptions) -> tuple[SegmentLog, RecoveryReport]:
        streams = {info.id: info for info in self.catalog.all_streams() if info.eviction is None}
        deleted = self.catalog.deleted_streams()
        dead = deleted | self.catalog.space.evicted_streams()
        recovery = Recovery(
            self._pool,
            self._reader,
            self.catalog.node,
            self.catalog.salt,
            streams,
            lambda stream_id: self._index_of(streams[stream_id]),
            dead.__contains__,
        )
        found = recovery.scan_log()
        self._strays = recovery.strays
        if not found.damages:  # what cannot be read may be of a deleted stream
            self.catalog.forget_deleted(deleted - found.dead_streams)
        unsynced = options.unsynced_bytes_max or min(limits.UNSYNCED_BYTES_MAX, options.arena_bytes // 2)
        log = SegmentLog(
            self._pool,
            self.catalog.salt,
            unsynced_bytes_max=unsynced,
            space_wait_s=options.space_wait_s,
            next_lsn=found.next_lsn,
            active=found.active,
            recent=self._recent,
        )
        try:
            return log, recovery.repair(log)
        except BaseException:
            log.close()
            raise

    def close(self) -> None:
        """Make everything durable and let the directory go. Appends that still run fail with `Stopping`."""
        with self._lock:
            was_open, self._open = self._open, False
        if not was_open:
            return
        try:
            self._preparer.close()
            self._compactor.close()
            self._log.close()
        finally:
            self._recent.clear()
            self._pool.close()
            self.catalog.close()
            self._lock_file.release()

    # ---- writing

    def append(self, stream_id: str, extent: Extent, on_durable: Done, region: Region | None = None) -> None:
        """Write an extent to the log; on return it is *written*, and readable.

        Parameters
        ----------
        stream_id : str
        extent : Extent
            None of its blocks is handled yet. Its memory stays with the caller, unchanged until `on_durable`.
        on_durable : callable
            Called once from another thread, possibly before this returns: with None after the sync that covers the
            extent, or with the error that left it not durable; its blocks are then not handled. Not called where this
            raises.
        region : Region, optional
            The part of the arena that its bytes lie in. Readers are served from there as long as there is room.

        Raises
        ------
        StreamNotFound, BlockConflict, SpecMismatch, BlockTooLarge, SpaceExhausted, SegmentDamaged, Stopping
        """
        index = self.index(stream_id)
        _check(index, extent)
        if not len(extent):
            on_durable(None)
            return
        self._log.append(index, extent, on_durable, region)

    def sync(self, stream_ids: Iterable[str] | None = None) -> None:
        """Block until everything written so far, or what was of these streams, is durable; raises if some of it
        cannot be.

        The last callbacks of appends may still be running when it returns.
        """
        self._log.sync(None if stream_ids is None else set(stream_ids))

    def delete(self, stream_id: str) -> int:
        """Forget a stream and free its space in the log. Deleting what is not there changes nothing.

        The id may be one of `stray_streams`: their space is used again then.

        The catalog forgets it first, if it has not yet: space is only used again when nobody can ask for what was
        there. Returns the bytes that its records took.
        """
        self.catalog.delete_stream(stream_id, missing_ok=True)
        freed = self._free(stream_id)
        self._strays.release(stream_id)
        return freed

    def evict(self, stream_id: str, policy: str) -> int | None:
        """Free the space of a final stream that the catalog goes on to know; the bytes that its records took.

        None where somebody reads it: nothing was changed. As with `delete` the catalog says so first. Evicted twice is
        evicted.
        """
        with self.pins.unread(stream_id) as unread:
            if not unread:
                return None
            self.catalog.space.evict(stream_id, policy)
        return self._free(stream_id)

    def _free(self, stream_id: str) -> int:
        with self._lock:
            index = self._indexes.get(stream_id)
        self._recent.forget(stream_id)
        freed = 0 if index is None else self._pool.forget(index)
        with self._lock:
            self._indexes.pop(stream_id, None)
        return freed

    @property
    def io_mode(self) -> tuple[str, str]:
        """How segments are written, and why so."""
        return IO_MODE, IO_REASON

    @property
    def stray_streams(self) -> tuple[str, ...]:
        """Ids of streams that the log has blocks of, that the catalog does not know, and that nobody deleted."""
        return self._strays.ids

    # ---- reading

    def index(self, stream_id: str) -> StreamIndex:
        """What is known of a stream's blocks. Raises `StreamNotFound`."""
        with self._lock:
            found = self._indexes.get(stream_id)
        return found if found is not None else self._index_of(self.catalog.stream_by_id(stream_id))

    def _index_of(self, info: StreamInfo) -> StreamIndex:
        with self._lock:
            if info.id not in self._indexes:
                self._indexes[info.id] = StreamIndex(info.id, info.columns_dtype, self._reader.table)
            return self._indexes[info.id]

    def _all_indexes(self) -> list[StreamIndex]:
        with self._lock:
            return list(self._indexes.values())

    def read(
        self,
        stream_id: str,
        start: int | None = None,
        stop: int | None = None,
        step: int = 1,
        choose: Chooser | None = None,
        *,
        data: bool = True,
        from_disk: bool = False,
    ) -> Iterator[Extent]:
        """Stored blocks in the order of their index, several an extent, the digest of each verified.

        Parameters
        ----------
        start, stop : int or None
            Range of the producer's index, `stop` excluded.
        step : int
            Every step-th index from `start`, or from the stream's first.
        choose : callable, optional
            Tells from times and columns which of these blocks; the heads of records are read for that, not the blocks.
        data : bool
            False: everything of the blocks but their bytes, which are not read.
        from_disk : bool
            Also what memory still has is read from there, and its digest taken again.

        Raises
        ------
        BlockDamaged
            When a damaged block is reached; what came before is good.
        StreamNotFound
            The stream is not there, or was deleted meanwhile.
        """
        if step < 1:
            raise InvalidInput(f"step {step}: expected at least 1")
        reader = self._disk_reader if from_disk else self._reader
        return reader.read(self.index(stream_id), start, stop, step, choose, data=data)

    def newest(self, stream_id: str) -> Extent | None:
        """The stored block of the highest index."""
        index = self.index(stream_id)
        last = index.newest()
        return None if last is None else next(self._reader.read(index, last, last + 1, 1), None)

    def arrivals(self, stream_id: str, cursor: int) -> tuple[list[Extent], int]:
        """What became readable since `cursor` (0 at first), in the order of arrival, whatever its status.

        Returns
        -------
        extents : list of Extent
            About `limits.EXTENT_BYTES_TARGET` in one call.
        cursor : int
            For the next call; good as long as this storage is open.
        """
        index = self.index(stream_id)
        extents: list[Extent] = []
        size, end = 0, index.records
        while cursor < end and size < limits.EXTENT_BYTES_TARGET:
            extent = self._reader.record(index, cursor) if index.live(cursor) else None
            if extent is not None:
                extents.append(extent)
                size += extent.data.size
            cursor += 1
        return extents, cursor

    def wait_arrival(self, stream_id: str, cursor: int, timeout_s: float) -> bool:
        """Wait until something arrived since `cursor`; whether it has. Returns early when the stream is deleted."""
        index = self.index(stream_id)
        with index.arrived:
            return (
                index.arrived.wait_for(lambda: index.records > cursor or index.deleted, timeout_s) and not index.deleted
            )

    def completeness(self, stream_id: str, end_index: int | None, stage_names: Sequence[str]) -> Completeness:
        """Counts, and the ledger of every index from the first to the end that is not stored."""
        return ledger.completeness(self.index(stream_id), end_index, stage_names)

    def stream_digest(self, stream_id: str) -> str:
        """16 hex digits over (index, status, digest) of all blocks in index order, however they were cut."""
        index = self.index(stream_id)
        rolling = index.rolling_digest()
        return f"{self._slow_digest(index) if rolling is None else rolling:016x}"

    def _slow_digest(self, index: StreamIndex) -> int:
        state, position = xxhash.xxh3_64(), None
        record, table = -1, None
        while runs := index.runs(position):
            for run in runs:
                if run.record != record or table is None:
                    record, table = run.record, self._reader.table(index, run.record)
                rows = slice(run.row, run.row + run.count)
                state.update(digest_rows(table.index[rows], table.status[rows], table.digest[rows]))
            position = runs[-1].last + 1
        return int(state.intdigest())

    def room(self) -> Room:
        """What the log may still take."""
        return self._pool.room()

    def log_bytes(self, stream_ids: Iterable[str]) -> int:
        """What the records of these streams take in the log."""
        with self._lock:
            found = [self._indexes[each] for each in stream_ids if each in self._indexes]
        return sum(index.log_bytes for index in found)

    def usage(self) -> LogUsage:
        with self._pool.lock:
            segments = list(self._pool.segments.values())
            return LogUsage(
                len(segments),
                sum(segment.size for segment in segments),
                sum(segment.live_bytes for segment in segments),
                self._files.free_bytes(self.directory),
                self.arena.free_bytes + self._recent.spare_bytes,
                self._compactor.done,
                self._recent.use,
                self._preparer.prepared,
            )


def _check_catalog_is_there(directory: Path, segments: Path, files: Files) -> None:
    """A log without a catalog is not a new directory: a new catalog would know of no block in it."""
    if not (directory / FILE_NAME).exists() and any(map(parse_name, files.list(segments))):
        raise CatalogDamaged(
            f"{directory} has a log but no {FILE_NAME}; put it back from a copy. Nothing was changed",
            path=str(directory / FILE_NAME),
        )


def _check(index: StreamIndex, extent: Extent) -> None:
    """What enters the log can be read again: the vectors belong together and no block is there already."""
    where = f"extent for stream {index.stream_id}"
    if extent.columns.dtype.itemsize != index.columns_dtype.itemsize:
        raise SpecMismatch(
            f"{where}: columns of {extent.columns.dtype.itemsize} bytes a block, the stream's have "
            f"{index.columns_dtype.itemsize}"
        )
    if int(extent.length.sum()) != extent.data.size or (len(extent) and int(extent.length.min()) < 0):
        raise InvalidInput(f"{where}: the lengths do not add up to the {extent.data.size} bytes of data")
    handled = index.handled(extent.index)
    if handled.any():
        block = int(extent.index[np.argmax(handled)])
        raise BlockConflict(f"{where}: block {block} is there already", index=block)
