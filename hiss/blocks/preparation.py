"""Has a segment ready before it is needed: allocated, and written through once, as fast then as a recycled one.

A file system that has only reserved the blocks of a file notes for each write that they are in use now: the first fill
of a segment is several times slower than every later one (docs/decisions/0011-page-cache.md). So when the segment that
is written to is half full, the next one is made, and filled with zeros in the background.

Invariants: at most one segment is prepared ahead, and only where `limits.PREPARE_FREE_SEGMENTS` more would fit on the
disk and nobody waits for space; zeros are written in pieces, with a pause after each that is longer while blocks are on
their way; a segment is put among the spare ones when it is durable. Whatever is left undone is a segment of zeros, that
the next start finds empty. One thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from hiss import limits
from hiss.blocks.files import write_fully
from hiss.blocks.segment import Segment
from hiss.blocks.segment_pool import SegmentPool
from hiss.errors import Stopping

log = logging.getLogger(__name__)

_BUSY_PAUSES: Final = 8  # times as long as the piece took


class Preparer:
    """Prepares segments of one pool.

    Parameters
    ----------
    pool : SegmentPool
    is_busy : callable
        Whether blocks are on their way to the disk.
    pause : callable, optional
        Waits so many seconds; whether it was told to stop meanwhile.
    """

    def __init__(
        self, pool: SegmentPool, is_busy: Callable[[], bool], *, pause: Callable[[float], bool] | None = None
    ) -> None:
        self._pool = pool
        self._is_busy = is_busy
        self._stopping = threading.Event()
        self._pause = pause or self._stopping.wait
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self.prepared = 0  # segments since the start

    def start(self) -> None:
        self._pool.on_half_full = self._wanted.set
        self._thread = threading.Thread(target=self._run, name="hiss-preparer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the piece that is being written. More than once is fine."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._stopping.is_set():
                return
            try:
                self.step()
            except Stopping:
                return
            except OSError as error:  # the disk is full, or fails: whoever needs a segment is told
                log.info("no segment was prepared: %s", error)

    def step(self) -> bool:
        """Prepare one segment, where that is wanted; whether it was."""
        segment = self._pool.make_ahead()
        if segment is None:
            return False
        try:
            done = self._fill(segment)
        except OSError:
            self._pool.discard(segment)
            raise
        self._pool.keep_spare(segment)
        self.prepared += done
        return done

    def _fill(self, segment: Segment) -> bool:
        zeros = bytes(limits.PREPARE_BYTES)
        with self._pool.using(segment) as fd:
            for offset in range(0, segment.size, len(zeros)):
                begin = time.monotonic()
                piece = memoryview(zeros)[: segment.size - offset]
                write_fully(self._pool.files, fd, [piece], offset)
                self._pool.files.fdatasync(fd)
                took = time.monotonic() - begin
                if self._pause(took * (_BUSY_PAUSES if self._is_busy() else 1)):
                    return False
        return True
