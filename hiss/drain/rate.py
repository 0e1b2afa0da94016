"""A token bucket: so many bytes a second at most. Used by the one thread that drains."""

from __future__ import annotations

import time
from collections.abc import Callable

from hiss import limits


class Rate:
    """
    Parameters
    ----------
    bytes_per_s : int
        0: no limit.
    wait : callable
        Waits so many seconds, or raises to end the drain.
    """

    def __init__(
        self, bytes_per_s: int, wait: Callable[[float], None], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._wait = wait
        self._clock_s = clock_s
        self._burst = bytes_per_s * limits.DRAIN_BURST_S
        self._tokens = self._burst
        self._last_s = clock_s()

    def take(self, count: int) -> None:
        """Take so many bytes; waits until what was taken before and these have had their time."""
        if not self._bytes_per_s:
            self._wait(0.0)
            return
        now_s = self._clock_s()
        self._tokens = min(self._burst, self._tokens + (now_s - self._last_s) * self._bytes_per_s) - count
        self._last_s = now_s
        self._wait(max(0.0, -self._tokens / self._bytes_per_s))
