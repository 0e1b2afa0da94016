"""Rows of a dataset as ready chunks: gathered, encoded by several threads, handed to HDF5 in their order; and back.

Only the calling thread touches HDF5. What waits to be encoded, decoded or taken is bounded by
`limits.DRAIN_WINDOW_BYTES`, and by one chunk for each thread where chunks are larger. The memory of chunks is used
again: new memory is many times slower than memory that was touched before. A dataset whose filters nobody but HDF5 can
run is written by HDF5.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.drain.coding import Decode, Encoded, Undecodable, decoder, encoder
from hiss.model import ByteArray


class Threads(ThreadPoolExecutor):
    """The threads that encode: one for each core that this process may use, up to `limits.DRAIN_THREADS_MAX`."""

    def __init__(self) -> None:
        self.count = min(len(os.sched_getaffinity(0)), limits.DRAIN_THREADS_MAX)
        super().__init__(self.count, thread_name_prefix="drain")


class ChunkWriter:
    """Appends rows to `data`, whose chunks are whole along every axis but the first.

    Parameters
    ----------
    data : h5py.Dataset
        As it was made: its chunks and filters count. It grows as needed; `close` gives it its length.
    threads : Threads
        They encode the chunks.
    """

    def __init__(self, data: h5py.Dataset, threads: Threads) -> None:
        self._data = data
        self._threads = threads
        self._encode = encoder(data)
        self._plain = data.id.get_create_plist().get_nfilters() == 0
        self._rows = 0  # appended
        self._written = 0  # of `_rows`, in chunks that were begun
        self._chunk_rows = int(data.chunks[0])
        chunk_bytes = int(np.prod(data.chunks, dtype=np.int64)) * data.dtype.itemsize
        self._open: npt.NDArray[Any] | None = None  # the chunk that fills
        self._free: list[npt.NDArray[Any]] = []
        self._waiting: deque[tuple[int, npt.NDArray[Any], Future[Encoded]]] = deque()
        self._waiting_max = max(limits.DRAIN_WINDOW_BYTES // chunk_bytes, threads.count)

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add rows; `values` may be reused when this returns."""
        if self._encode is None:
            self._grow(self._rows + len(values))
            self._data[self._rows : self._rows + len(values)] = values
            self._rows += len(values)
            return
        done = 0
        while done < len(values):
            filled = self._rows - self._written
            count = min(len(values) - done, self._chunk_rows - filled)
            part = values[done : done + count]
            done += count
            self._rows += count
            if count == self._chunk_rows and self._plain:
                self._write(self._written, np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
                self._written += count
                continue
            if self._open is None:
                self._open = self._free.pop() if self._free else np.empty(self._data.chunks, self._data.dtype)
            self._open[filled : filled + count] = part
            if filled + count == self._chunk_rows:
                self._submit()

    def close(self) -> int:
        """Write what is left; returns the number of rows, which is the length of the dataset from now on."""
        if self._open is not None:
            self._open[self._rows - self._written :] = 0
            self._submit()
        while self._waiting:
            self._write_oldest()
        if self._data.shape[0] != self._rows:
            self._data.resize(self._rows, axis=0)
        return self._rows

    def _submit(self) -> None:
        assert self._open is not None
        assert self._encode is not None
        chunk: ByteArray = self._open.reshape(-1).view(np.uint8)
        self._waiting.append((self._written, self._open, self._threads.submit(self._encode, chunk)))
        self._written += self._chunk_rows
        self._open = None
        while len(self._waiting) > self._waiting_max:
            self._write_oldest()
        while self._waiting and self._waiting[0][2].done():
            self._write_oldest()

    def _write_oldest(self) -> None:
        row, chunk, encoded = self._waiting.popleft()
        self._write(row, encoded.result())
        self._free.append(chunk)

    def _write(self, row: int, encoded: Encoded) -> None:
        self._grow(row + 1)
        self._data.id.write_direct_chunk((row, *([0] * (self._data.ndim - 1))), encoded)

    def _grow(self, rows: int) -> None:
        if rows > self._data.shape[0]:
            self._data.resize(rows, axis=0)


def read_chunks(data: h5py.Dataset, threads: Threads) -> Iterator[npt.NDArray[Any] | str]:
    """The rows of every chunk in their order, or what is wrong where a chunk cannot be read.

    An array is the caller's until the next one is asked for.
    """
    whole = data.chunks is not None and data.chunks[1:] == data.shape[1:]
    decode = decoder(data) if whole else None
    if decode is None:
        yield from _read_by_hdf5(data)
        return
    rows = int(data.chunks[0])
    chunk_bytes = int(np.prod(data.chunks, dtype=np.int64)) * data.dtype.itemsize
    most = max(1, min(limits.DRAIN_WINDOW_BYTES // chunk_bytes, 2 * threads.count))
    free: list[npt.NDArray[Any]] = []
    waiting: deque[tuple[int, npt.NDArray[Any], Future[str]]] = deque()
    for first in [*range(0, data.shape[0], rows), None]:
        while waiting and (first is None or len(waiting) > most):
            begin, chunk, done = waiting.popleft()
            yield done.result() or chunk[: data.shape[0] - begin]
            free.append(chunk)
        if first is not None:
            chunk = free.pop() if free else np.empty(data.chunks, data.dtype)
            waiting.append((first, chunk, _decoding(data, first, decode, chunk, threads)))


def _decoding(data: h5py.Dataset, first: int, decode: Decode, chunk: npt.NDArray[Any], threads: Threads) -> Future[str]:
    """Read a stored chunk, and have it decoded; the result is what was wrong with it."""
    try:
        mask, stored = data.id.read_direct_chunk((first, *([0] * (data.ndim - 1))))
        if mask:
            raise Undecodable(f"filters {mask:#x} were left out")
    except (OSError, RuntimeError, Undecodable) as error:
        failed: Future[str] = Future()
        failed.set_result(_unreadable(error))
        return failed
    return threads.submit(_decoded, decode, stored, chunk.reshape(-1).view(np.uint8))


def _decoded(decode: Decode, stored: bytes, chunk: ByteArray) -> str:
    try:
        decode(stored, chunk)
    except Undecodable as error:
        return _unreadable(error)
    return ""


def rows_at_once(data: h5py.Dataset) -> int:
    """How many rows `read_chunks` gives at once: those of a chunk; of a dataset without chunks what fits the window."""
    if data.chunks is not None:
        return int(data.chunks[0])
    row_bytes = int(np.prod(data.shape[1:], dtype=np.int64)) * data.dtype.itemsize
    return int(max(1, min(data.shape[0], limits.DRAIN_WINDOW_BYTES // max(1, row_bytes))))


def _read_by_hdf5(data: h5py.Dataset) -> Iterator[npt.NDArray[Any] | str]:
    rows = rows_at_once(data)
    for first in range(0, data.shape[0], rows):
        try:
            yield data[first : first + rows]
        except OSError as error:
            yield _unreadable(error)


def _unreadable(error: Exception) -> str:
    return f"cannot be read ({' '.join(str(error).split())[:200]})"
