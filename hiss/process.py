"""What a process of hiss settles with its operating system: signals, its parent, its pid file, its memory. Linux."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hiss.limits import GiB, MiB

_LOOK_S = 0.5  # how soon a signal is seen at the latest
_PR_SET_PDEATHSIG = 1  # prctl(2)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # mallopt(3)
_MALLOC_ARENAS = 2


class StopSignal:
    """Set by SIGTERM and SIGINT. Made and awaited by the main thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._event.set())

    def wait(self) -> None:
        """Until one came. A signal that another thread got, or that came just before the wait, does not end a wait."""
        while not self._event.wait(_LOOK_S):
            pass


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies, so that no process outlives its supervisor."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def allow_descriptors(count: int) -> None:
    """Let this process open `count` files, or as many as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard < 0 else min(count, hard)
    if 0 <= soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def settle_memory() -> None:
    """Let malloc keep what messages of some MiB used, instead of returning it to the kernel after each, and use few
    arenas of its own.

    Pages that are touched for the first time cost about 25 times as much as warm ones. Without this, 8 MiB messages
    over gRPC fault in some 80,000 pages for each GB, with it next to none, and the same stream runs 1.4 times as fast.
    What is kept is bounded by what is in flight at once. Threads that come and go are spread over all arenas, eight a
    core, and each grows to the most that ever was in use in it: a process that is not larger in the evening than in the
    morning has few. A C library without mallopt is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * MiB)
        mallopt(_M_TRIM_THRESHOLD, GiB)
        mallopt(_M_TOP_PAD, 64 * MiB)
        mallopt(_M_ARENA_MAX, _MALLOC_ARENAS)


@contextmanager
def pid_file(path: Path) -> Iterator[None]:
    """A file with this process's id, while the block runs."""
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
