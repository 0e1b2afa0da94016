"""How kernels fare: counts and times of one kernel on one stream, and of all of them in a process.

Written by the thread that runs the kernel, read by any."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from hiss import limits


class KernelReport:
    """The record of one kernel. What is added to it is added to `total` as well.

    `extents` and `blocks` are those that reached it, `bytes` what it read, `seconds` the time that it took, of which
    the newest extents give the percentiles. For a shadow `vetoed`, `failed` and `result_bytes` are what it would have
    done, and `skipped` the blocks that came while it was busy.
    """

    def __init__(self, total: KernelReport | None = None, on_ran: Callable[..., None] | None = None) -> None:
        self._total = total
        self._on_ran = on_ran  # told the counts of each extent
        self._lock = threading.Lock()
        self._counts: dict[str, int] = dict.fromkeys(
            ("extents", "blocks", "bytes", "vetoed", "vetoed_bytes", "failed", "faults", "result_bytes", "skipped"), 0
        )
        self._seconds = 0.0
        self._times: deque[float] = deque(maxlen=limits.KERNEL_TIMES_KEPT)

    def ran(self, seconds: float, **counts: int) -> None:
        """Add one extent."""
        with self._lock:
            self._seconds += seconds
            self._times.append(seconds)
        self.count(extents=1, **counts)
        if self._total is not None:
            self._total.ran(seconds, **counts)
        if self._on_ran is not None:
            self._on_ran(**counts)

    def count(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def skipped(self, blocks: int) -> None:
        self.count(skipped=blocks)
        if self._total is not None:
            self._total.skipped(blocks)

    def attrs(self) -> dict[str, Any]:
        """As JSON values; what is 0 is left out, but for `extents` and `blocks`. Nothing where it has seen nothing."""
        with self._lock:
            counts, seconds, times = dict(self._counts), self._seconds, list(self._times)
        if not counts["extents"] and not counts["skipped"]:
            return {}
        shown = {name: count for name, count in counts.items() if count or name in ("extents", "blocks")}
        p50, p99 = np.percentile(times, (50, 99)).tolist() if times else (0.0, 0.0)
        return {**shown, "seconds": round(seconds, 6), "p50_ms": round(p50 * 1e3, 4), "p99_ms": round(p99 * 1e3, 4)}
