"""Pins: a stream is not evicted under the hands of who reads it.

Any thread. The lock is held for moments, and while one stream is evicted: a reader comes either before or after it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Pins:
    """Which streams are read now, and how often."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: Counter[str] = Counter()

    @contextmanager
    def reading(self, *stream_ids: str) -> Iterator[None]:
        """Around a read of these streams."""
        with self._lock:
            self._readers.update(stream_ids)
        try:
            yield
        finally:
            with self._lock:
                self._readers.subtract(stream_ids)
                for each in stream_ids:
                    if self._readers[each] <= 0:
                        del self._readers[each]

    @contextmanager
    def unread(self, stream_id: str) -> Iterator[bool]:
        """Whether nobody reads the stream; nobody begins to before the end of the block."""
        with self._lock:
            yield not self._readers[stream_id]
