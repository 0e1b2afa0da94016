"""What a job prints: its end is kept, its amount counted. One thread."""

from __future__ import annotations

import collections


class OutputTail:
    """The last bytes of what is added."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._chunks: collections.deque[bytes] = collections.deque()
        self._kept = 0
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._kept += len(chunk)
        while self._kept - len(self._chunks[0]) >= self._bytes_max:
            first = self._chunks.popleft()
            self._kept -= len(first)
            self._dropped += len(first)

    @property
    def added_bytes(self) -> int:
        return self._kept + self._dropped

    def text(self) -> str:
        data = b"".join(self._chunks)
        over = max(0, len(data) - self._bytes_max)
        dropped = self._dropped + over
        text = data[over:].decode("utf-8", "replace")
        return f"[{dropped} bytes before this are not kept]\n{text}" if dropped else text
