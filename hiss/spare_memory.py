"""Memory of extents that were acknowledged, for those that come: pages that were written before are many times faster
than fresh ones. All producers of one connection share it, so that stream after stream finds it warm. Any thread."""

from __future__ import annotations

import threading

import numpy as np

from hiss import limits
from hiss.model import ByteArray


class SpareMemory:
    """Buffers that nobody uses, at most `limits.SPARE_BUFFERS_BYTES` of them together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[int, list[ByteArray]] = {}  # by their size; the size that was given back last comes last
        self._bytes = 0

    def take(self, size: int) -> ByteArray:
        """A buffer of exactly `size` bytes, with anything in it."""
        with self._lock:
            if size in self._free:
                return self._pop(size)
        return np.empty(size, np.uint8)

    def give(self, buffer: ByteArray) -> None:
        """Nobody uses it any more. Where there is too much, those go whose size was not given back for longest."""
        size = len(buffer)
        if not 0 < size <= limits.SPARE_BUFFERS_BYTES:
            return
        with self._lock:
            mine = self._free.pop(size, [])
            mine.append(buffer)
            self._free[size] = mine
            self._bytes += size
            while self._bytes > limits.SPARE_BUFFERS_BYTES:
                self._pop(next(iter(self._free)))

    def _pop(self, size: int) -> ByteArray:
        free = self._free[size]
        buffer = free.pop()
        if not free:
            del self._free[size]
        self._bytes -= size
        return buffer
