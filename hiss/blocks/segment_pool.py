"""All segments of a log: made, opened, recycled, retired, deleted.

Invariants: a segment is recycled only when nothing live is in it, nobody uses it and it takes no more records; a
retired one is deleted instead. Its header, with a new generation, is durable before its first record is written. With
`kept_spares`, that many are left for `compaction` alone, so that a full disk does not stop what frees space. No
more than `limits.SEGMENTS_OPEN_MAX` idle descriptors stay open. Any thread may call; the pool's lock guards the state
of all segments.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hiss import limits
from hiss.blocks.files import Files, write_fully
from hiss.blocks.index import StreamIndex
from hiss.blocks.reservations import Room
from hiss.blocks.segment import Segment, SegmentHeader, retired_name, segment_name
from hiss.blocks.segment_footer import FooterDraft
from hiss.errors import SegmentDamaged, SpaceExhausted, Stopping

log = logging.getLogger(__name__)

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOOK_AGAIN_S = 0.25  # for space that another program freed


def out_of_space(error: OSError) -> bool:
    return error.errno in _NO_SPACE


class SegmentPool:
    """The segments in one directory.

    Parameters
    ----------
    files : Files
    directory : Path
        Holds nothing but segments.
    node : str
        The buffer's id, for the headers.
    segment_bytes : int
        Size of new segments.
    kept_spares : int
        Empty segments that only copies of compaction may take.
    """

    def __init__(self, files: Files, directory: Path, node: str, segment_bytes: int, *, kept_spares: int = 0) -> None:
        self.files = files
        self.directory = directory
        self.segment_bytes = segment_bytes
        self.lock = threading.RLock()
        self.space_freed = threading.Condition(self.lock)
        self.segments: dict[int, Segment] = {}
        self._log_bytes = 0  # of all segments
        self.log_bytes_max = 0  # that all segments may take together; 0: as much as the disk has
        self.pressed = 0  # how many wait for space
        self.on_sparse: Callable[[], None] = lambda: None  # a segment has become worth compacting; must not block
        self.on_half_full: Callable[[], None] = lambda: None  # the segment that is written to; must not block
        self._kept_spares = kept_spares
        self._node = node
        self._spares: list[Segment] = []
        self._idle: collections.OrderedDict[int, Segment] = collections.OrderedDict()  # open, used by nobody
        self._closed = False
        self._hurried = False  # nobody waits for space any more
        self._generation = 0
        self._next_number = 1

    # ---- what recovery found

    def adopt(self, segment: Segment) -> None:
        """Take over a segment that is there already, and hold it until `let_go`."""
        with self.lock:
            segment.held = True
            self.segments[segment.number] = segment
            self._log_bytes += segment.size
            self._generation = max(self._generation, segment.generation)
            self._next_number = max(self._next_number, segment.number + 1)

    def let_go(self, segment: Segment) -> None:
        """Recovery is done with it; one that is closed and empty is released."""
        with self.lock:
            segment.held = False
            self.look_at(segment)

    # ---- descriptors

    @contextlib.contextmanager
    def using(self, segment: Segment) -> Iterator[int]:
        """The segment's descriptor, open until the end of the block; the segment is neither recycled nor deleted
        before.
        """
        with self.lock:
            if self._closed:
                raise Stopping(f"{self.directory}: the buffer is closed")
            if segment.fd is None:
                segment.fd = self.files.open(segment.path)
            segment.users += 1
            self._idle.pop(segment.number, None)
            fd = segment.fd
        try:
            yield fd
        finally:
            with self.lock:
                segment.users -= 1
                if not segment.users:
                    self._idle[segment.number] = segment
                    self._close_idle(limits.SEGMENTS_OPEN_MAX)
                self.release_empty(segment)

    def _close_idle(self, keep: int) -> None:
        """Close what was not used for longest; not what waits for a sync: its descriptor is the one told of errors."""
        for segment in [each for each in self._idle.values() if not each.outstanding][: max(0, len(self._idle) - keep)]:
            del self._idle[segment.number]
            assert segment.fd is not None
            self.files.close(segment.fd)
            segment.fd = None

    # ---- making and recycling

    def acquire(self, first_lsn: int, *, for_copies: bool = False) -> Segment | None:
        """A segment that is ready for its first record, its header durable; None where there is no space now.

        Parameters
        ----------
        first_lsn : int
            The sequence number of its first record.
        for_copies : bool
            It may be the last one, that is kept for compaction; then it takes nothing but copies until there is
            another.

        Raises
        ------
        SegmentDamaged
            No segment can be made for another reason than space.
        """
        failures = 0
        while True:
            segment: Segment | None = None
            try:
                segment = self._ready(for_copies)
                if segment is not None:
                    self._put_to_use(segment, first_lsn)
                return segment
            except OSError as error:
                if segment is not None:
                    self.discard(segment)
                if out_of_space(error):
                    return None
                failures += 1
                if failures > limits.LOG_REWRITES_MAX:
                    raise SegmentDamaged(
                        f"{self.directory}: no new segment can be written: {error}; check the disk",
                        path=str(self.directory),
                        errno=error.errno or 0,
                    ) from error

    def _ready(self, for_copies: bool) -> Segment | None:
        """A spare or new segment, as many others left as are kept; None where those are all that there are."""
        with self.lock:
            in_use = len(self.segments) > len(self._spares)  # before that there is nothing to compact
            keep = 0 if for_copies or not in_use else self._kept_spares
            if len(self._spares) > keep:
                segment = self._spares.pop()
                segment.copies_only = len(self._spares) < self._kept_spares and in_use
                return segment
        while True:
            segment = self._make()
            with self.lock:
                if len(self._spares) >= keep:
                    return segment
                self._spares.append(segment)

    def make_kept(self) -> bool:
        """Have another segment for copies, so that one of those that took the kept one is open to all; False where
        there is no space for it."""
        try:
            self.keep_spare(self._make())
        except OSError as error:
            if not out_of_space(error):
                log.warning("%s: no segment can be made: %s", self.directory, error)
            return False
        return True

    def make_ahead(self) -> Segment | None:
        """A new segment for `keep_spare`; None where there are enough, nobody should take more, or the disk is full."""
        with self.lock:
            if len(self._spares) > self._kept_spares or self.pressed or self._closed:
                return None
        if self.room().segments < limits.PREPARE_FREE_SEGMENTS:
            return None
        return self._make()

    def keep_spare(self, segment: Segment) -> None:
        """It is ready for use."""
        with self.lock:
            self._spares.append(segment)
            self.space_freed.notify_all()

    def open_to_all(self, segment: Segment) -> bool:
        """Whether it takes more than copies: there is another one for those."""
        with self.lock:
            if segment.copies_only and len(self._spares) >= self._kept_spares:
                segment.copies_only = False
            return not segment.copies_only

    def wait_for_space(self, deadline: float) -> None:
        """Wait until there may be space.

        Raises
        ------
        SpaceExhausted
            It is `deadline` (of `time.monotonic`), or the buffer is being closed.
        """
        remaining = deadline - time.monotonic()
        with self.space_freed:
            if remaining <= 0 or self._hurried:
                raise SpaceExhausted(
                    f"{self.directory}: no space for another segment of {self.segment_bytes} bytes; free space on the "
                    "disk, or drain and delete streams",
                    path=str(self.directory),
                )
            self.pressed += 1
            self.on_sparse()
            if len(self._spares) <= self._kept_spares:
                self.space_freed.wait(min(remaining, _LOOK_AGAIN_S))
            self.pressed -= 1

    def room(self) -> Room:
        """Whole segments that ordinary records may still take: spare ones, and those that can be made."""
        disk = self.files.free_bytes(self.directory)
        with self.lock:
            makeable = disk
            if self.log_bytes_max:
                makeable = min(disk, max(0, self.log_bytes_max - self._log_bytes))
            whole = len(self._spares) + makeable // self.segment_bytes - self._kept_spares
            return Room(max(0, whole), self.segment_bytes, disk)

    def _make(self) -> Segment:
        with self.lock:
            if self.log_bytes_max and self._log_bytes + self.segment_bytes > self.log_bytes_max:
                raise OSError(errno.ENOSPC, f"the log may take {self.log_bytes_max} bytes")
            number = self._next_number
            self._next_number += 1
        path = self.directory / segment_name(number)
        fd = self.files.open(path, create=True)
        try:
            self.files.allocate(fd, self.segment_bytes)
            self.files.fdatasync(fd)
            self.files.fsync_directory(self.directory)
        except OSError:
            self.files.close(fd)
            with contextlib.suppress(OSError):
                self.files.unlink(path)
            raise
        segment = Segment(number, path, self.segment_bytes, fd=fd)
        with self.lock:
            self.segments[number] = segment
            self._log_bytes += segment.size
            self._idle[number] = segment
        return segment

    def _put_to_use(self, segment: Segment, first_lsn: int) -> None:
        with self.lock:
            self._generation += 1
            segment.generation = self._generation
            segment.closed = False
            segment.draft = FooterDraft()
        header = SegmentHeader(segment.number, self._node, segment.generation, first_lsn, segment.size)
        with self.using(segment) as fd:
            page = header.encode()
            write_fully(self.files, fd, [page], 0)
            self.files.fdatasync(fd)
            with self.lock:
                segment.tail = len(page)

    # ---- an end

    def count_live(self, segment: Segment, records: int, size: int) -> None:
        """Add to (or, negative, take from) what is live in a segment; an empty one is released."""
        with self.lock:
            segment.live_records += records
            segment.live_bytes += size
            assert segment.live_records >= 0
            assert segment.live_bytes >= 0
            self.look_at(segment)

    def forget(self, index: StreamIndex) -> int:
        """Delete an index and what it counts for, so that nobody sees the one without the other; the bytes of it."""
        with self.lock:
            freed = index.delete()
            for number, (records, size) in freed.items():
                self.count_live(self.segments[number], -records, -size)
        return sum(size for _, size in freed.values())

    def close_segment(self, segment: Segment) -> None:
        """It takes no more records."""
        with self.lock:
            segment.closed = True
            self.look_at(segment)

    def look_at(self, segment: Segment) -> None:
        """Something about it has changed: it may be empty, or worth compacting."""
        with self.lock:
            self.release_empty(segment)
            if segment.sparse:
                self.on_sparse()

    def release_empty(self, segment: Segment) -> None:
        """Make a spare of a segment that is of no more use, or delete it where it failed or there are spares enough."""
        with self.lock:
            if not segment.closed or segment.live_records or segment.users or segment.outstanding or segment.held:
                return
            if segment in self._spares or segment.number not in self.segments:
                return
            right_size = segment.size == self.segment_bytes
            if segment.retired or not right_size or len(self._spares) >= limits.SPARE_SEGMENTS_MAX:
                self.discard(segment)
            else:
                self._spares.append(segment)
            self.space_freed.notify_all()

    def discard(self, segment: Segment) -> None:
        """Forget a segment and delete its file; it holds nothing live."""
        with self.lock:
            if self.segments.pop(segment.number, None) is not None:
                self._log_bytes -= segment.size
            self._idle.pop(segment.number, None)
            fd, segment.fd = segment.fd, None
        try:
            if fd is not None:
                self.files.close(fd)
            self.files.unlink(segment.path)
            self.files.fsync_directory(self.directory)
        except OSError as error:
            log.warning("%s: an unused segment cannot be deleted: %s", segment.path, error)

    def retire(self, segment: Segment, error: OSError) -> None:
        """A write or a sync of it failed: it takes no more records and is never synced again.

        The file's new name tells a later recovery from where on its content is not to be trusted. The rename is tried,
        not relied upon: where it fails, or is lost, only the content that reached the disk is found.
        """
        with self.lock:
            if segment.retired:
                return
            segment.failure = error
            segment.closed = True
            trusted_end = next(iter(segment.outstanding), segment.tail)
            log.error("%s: retired at offset %d: %s", segment.path, trusted_end, error)
            path = self.directory / retired_name(segment.number, trusted_end)
            try:
                self.files.rename(segment.path, path)
                segment.path = path
                self.files.fsync_directory(self.directory)
            except OSError as rename_error:
                log.error("%s: cannot be renamed: %s", segment.path, rename_error)
            self.look_at(segment)

    def hurry(self) -> None:
        """The buffer is being closed: who waits for space is told that there is none."""
        with self.space_freed:
            self._hurried = True
            self.space_freed.notify_all()

    def close(self) -> None:
        with self.lock:
            self._closed = True
            for segment in self.segments.values():
                if segment.fd is not None:
                    self.files.close(segment.fd)
                    segment.fd = None
            self._idle.clear()
