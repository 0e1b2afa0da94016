"""Protections taken out, one at a time: every check of the storage must fail without the one that it is there for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hiss.blocks import extent_reader, recovery
from hiss.blocks.recovery import Recovery
from hiss.blocks.segment_log import SegmentLog
from hiss.blocks.segment_pool import SegmentPool

from .simulated_disk import SimulatedDisk

Patch = tuple[Any, str, Callable[[Any], Any]]  # where, name, from the original to what stands there instead


def _nothing(original: Any) -> Any:
    return lambda *args, **kwargs: None


def _settled_when_written(original: Any) -> Any:
    """Appends are said to be durable when they are written."""

    def enter(self: SegmentLog, write: Any, *more: Any) -> None:
        original(self, write, *more)
        if not write.copy and not write.ticket.silent and write.ticket.open == 1:
            write.ticket.silent = True
            write.ticket.done(None)

    return enter


def _sync_errors_ignored(original: Any) -> Any:
    def synced(self: SegmentLog, segment: Any) -> bool:
        with self.pool.using(segment) as fd, contextlib.suppress(OSError):
            self.pool.files.fdatasync(fd)
        return not segment.retired

    return synced


def _recycled_at_once(original: Any) -> Any:
    """A closed segment is used again while something in it is live."""

    def release(self: SegmentPool, segment: Any) -> None:
        with self.lock:
            live, segment.live_records = segment.live_records, 0
            original(self, segment)
            segment.live_records = live

    return release


CONTROLS: dict[str, tuple[Patch, ...]] = {
    "data syncs": ((SimulatedDisk, "fdatasync", lambda original: lambda self, fd: self.on_operation()),),
    "directory syncs": ((SimulatedDisk, "fsync_directory", _nothing),),
    "the ack after the sync": ((SegmentLog, "_enter", _settled_when_written),),
    "failing syncs": ((SegmentLog, "_synced", _sync_errors_ignored),),
    "digests of blocks": tuple(
        (module, "wrong_blocks", lambda original: lambda *args: np.zeros(0, np.int64))
        for module in (extent_reader, recovery)
    ),
    "voids over what was torn": ((Recovery, "_cover", _nothing),),
    "live records hold their segment": ((SegmentPool, "release_empty", _recycled_at_once),),
}


@contextlib.contextmanager
def without(key: str | None) -> Iterator[None]:
    """While it is entered, that protection is not there."""
    undo = []
    try:
        for where, name, change in CONTROLS[key] if key else ():
            original = where.__dict__[name]
            undo.append((where, name, original))
            setattr(where, name, change(original))
        yield
    finally:
        for where, name, original in undo:
            setattr(where, name, original)
