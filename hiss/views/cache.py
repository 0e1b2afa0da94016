"""What was read of final streams, kept: in memory, and on disk where the user names a directory.

A sealed stream never changes, so a piece of it is known by the stream's id, its digest and the piece's number. On disk
a piece is a file of that name: its XXH3-64 and its bytes; one that does not have its digest is removed and read again.
Both are bounded, and what was longest not used goes first. Any thread, and on disk any number of processes: files
appear whole, by a rename.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from hiss import limits
from hiss.model import digest_of

_HEAD = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Piece:
    """The name of a piece: of which stream, and its number."""

    stream_id: str
    digest: str
    number: int

    def __str__(self) -> str:
        return f"{self.stream_id}-{self.digest}-{self.number}"


class MemoryCache:
    """The newest pieces, `size_max` bytes together; the newest always stays."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._lock = threading.Lock()
        self._pieces: OrderedDict[Piece, bytes] = OrderedDict()
        self._size = 0

    def get(self, piece: Piece) -> bytes | None:
        with self._lock:
            found = self._pieces.get(piece)
            if found is not None:
                self._pieces.move_to_end(piece)
            return found

    def put(self, piece: Piece, data: bytes) -> None:
        with self._lock:
            self._size -= len(self._pieces.pop(piece, b""))
            self._pieces[piece] = data
            self._size += len(data)
            while self._size > self._size_max and len(self._pieces) > 1:
                self._size -= len(self._pieces.popitem(last=False)[1])

    def clear(self) -> None:
        with self._lock:
            self._pieces.clear()
            self._size = 0

    @property
    def size(self) -> int:
        return self._size


class DiskCache:
    """Files in a directory of its own.

    Parameters
    ----------
    directory : Path
        Made where it is not there, for its owner alone.
    size_max : int
        Bytes of all files together. Another process that fills the same directory is seen at the next trimming.
    """

    def __init__(self, directory: Path, size_max: int) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._size_max = size_max
        self._lock = threading.Lock()
        self._size = sum(size for _, size, _ in self._files())

    def get(self, piece: Piece) -> bytes | None:
        """The piece, or None where it is not there or not what was put there."""
        path = self._directory / str(piece)
        try:
            whole = path.read_bytes()
        except OSError:
            return None
        data = whole[_HEAD.size :]
        if len(whole) < _HEAD.size or _HEAD.unpack_from(whole)[0] != digest_of(data):
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return data

    def put(self, piece: Piece, data: bytes) -> None:
        """Keep it, if there is room; a disk that fails keeps nothing, and nobody is told."""
        if len(data) + _HEAD.size > self._size_max:
            return
        part = self._directory / f".{piece}.{secrets.token_hex(4)}.part"
        try:
            with part.open("xb") as out:
                out.write(_HEAD.pack(digest_of(data)))
                out.write(data)
            os.replace(part, self._directory / str(piece))
        except OSError:
            part.unlink(missing_ok=True)
            return
        with self._lock:
            self._size += len(data) + _HEAD.size
            if self._size > self._size_max:
                self._trim()

    def _trim(self) -> None:
        files = sorted(self._files())
        self._size = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._size <= self._size_max:
                return
            path.unlink(missing_ok=True)
            self._size -= size

    def _files(self) -> list[tuple[int, int, Path]]:
        found = []
        for path in self._directory.iterdir():
            with contextlib.suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime_ns, state.st_size, path))
        return found


MEMORY = MemoryCache(limits.VIEW_CACHE_BYTES)  # of this process, for all that it reads as files
