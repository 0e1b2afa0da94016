"""What the same bytes cost without a buffer: memory copy, direct writes and reads, HDF5 files, blobs in SQLite.

All take frames `(n, *shape)` and write or read them `repeat` times over; all return GB/s of payload. `direct` is
`pwrite` or `pread` of whole frames with `O_DIRECT` from and to aligned memory, and one `fdatasync` at the end, as fio
does it with `--direct=1 --end_fsync=1` and one job; where the file system has no direct I/O (tmpfs), the page cache
takes its place.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np

_ALIGN = 4096


def copy(frames: np.ndarray, repeat: int) -> float:
    """`numpy.copyto` on warm pages."""
    target = np.empty_like(frames)
    np.copyto(target, frames)
    begin = time.perf_counter()
    for _ in range(repeat):
        np.copyto(target, frames)
    return frames.nbytes * repeat / (time.perf_counter() - begin) / 1e9


def direct_flag(folder: Path) -> int:
    """`O_DIRECT` where the file system of a folder has it, else 0."""
    path = folder / "direct-probe"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600))
        return os.O_DIRECT
    except OSError:
        return 0
    finally:
        path.unlink(missing_ok=True)


def direct_write(frames: np.ndarray, repeat: int, path: Path, *, fresh: bool) -> float:
    """Into a preallocated file: one made for it (`fresh`), or one that was written before."""
    size = frames.nbytes * repeat
    memory = _aligned(frames)
    if fresh:
        path.unlink(missing_ok=True)
    if fresh or not path.exists():
        _preallocate(path, size)
        if not fresh:
            _write(memory, frames.nbytes // len(frames), repeat, path)
    return size / _write(memory, frames.nbytes // len(frames), repeat, path) / 1e9


def _preallocate(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, -(-size // _ALIGN) * _ALIGN)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(memory: mmap.mmap, frame_bytes: int, repeat: int, path: Path) -> float:
    """Seconds. Frames that are no multiple of a page go together as far as they are."""
    view = memoryview(memory)
    piece = frame_bytes if frame_bytes % _ALIGN == 0 else len(view)
    descriptor = os.open(path, os.O_RDWR | direct_flag(path.parent))
    try:
        begin = time.perf_counter()
        for number in range(repeat):
            for start in range(0, len(view), piece):
                part = view[start : start + piece]
                written = os.pwrite(descriptor, part, number * len(view) + start)
                assert written == len(part)
        os.fdatasync(descriptor)
        return time.perf_counter() - begin
    finally:
        os.close(descriptor)


def direct_read(frames: np.ndarray, repeat: int, path: Path) -> float:
    """From a file that `direct_write` left."""
    memory = _aligned(frames)
    view, frame_bytes = memoryview(memory), frames.nbytes // len(frames)
    descriptor = os.open(path, os.O_RDONLY | direct_flag(path.parent))
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        begin = time.perf_counter()
        for place in range(0, frames.nbytes * repeat, frame_bytes):
            at = place % frames.nbytes
            assert os.preadv(descriptor, [view[at : at + frame_bytes]], place) == frame_bytes
        return frames.nbytes * repeat / (time.perf_counter() - begin) / 1e9
    finally:
        os.close(descriptor)


def _aligned(frames: np.ndarray) -> mmap.mmap:
    """The frames' bytes, padded to whole pages, in memory that direct I/O takes."""
    memory = mmap.mmap(-1, -(-frames.nbytes // _ALIGN) * _ALIGN)
    np.copyto(np.frombuffer(memory, np.uint8, frames.nbytes), frames.reshape(-1).view(np.uint8))
    return memory


def h5py_write(frames: np.ndarray, repeat: int, path: Path) -> float:
    """One frame a chunk, flushed for each: what a reader beside it may see."""
    begin = time.perf_counter()
    with h5py.File(path, "w") as file:
        shape = (len(frames) * repeat, *frames.shape[1:])
        data = file.create_dataset("data", shape, frames.dtype, chunks=(1, *frames.shape[1:]))
        for number in range(len(data)):
            data[number] = frames[number % len(frames)]
            file.flush()
        os.fdatasync(file.id.get_vfd_handle())
    return frames.nbytes * repeat / (time.perf_counter() - begin) / 1e9


def h5py_read(frames: np.ndarray, repeat: int, path: Path) -> float:
    """Frame by frame, from the disk, of a file that `h5py_write` left."""
    drop_cache(path)
    with h5py.File(path) as file:
        data, out = file["data"], np.empty(frames.shape[1:], frames.dtype)
        begin = time.perf_counter()
        for number in range(len(frames) * repeat):
            data.read_direct(out, np.s_[number])
        return frames.nbytes * repeat / (time.perf_counter() - begin) / 1e9


def sqlite_write(frames: np.ndarray, repeat: int, path: Path) -> float:
    """One row a frame, each a durable transaction, into a fresh database."""
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE block (number INTEGER PRIMARY KEY, data BLOB)")
        begin = time.perf_counter()
        for number in range(len(frames) * repeat):
            database.execute("INSERT INTO block VALUES (?, ?)", (number, frames[number % len(frames)].data.cast("B")))
        return frames.nbytes * repeat / (time.perf_counter() - begin) / 1e9


def drop_cache(*paths: Path) -> None:
    """Let the page cache forget files, so that they are read from the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
