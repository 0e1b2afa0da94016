"""The files of the log, as a Protocol, so that a simulator can hold them: fail them, tear them, record what they did.

Everything that the log does to the disk goes through a `Files`; nothing above it calls `os` for data. `OS_FILES` is the
real one. All methods may be called from any thread, raise `OSError`, and release the GIL while they wait.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Files(Protocol):
    def open(self, path: Path, *, create: bool = False) -> int:
        """A descriptor for reading and writing. With `create` the file must not exist yet."""
        ...

    def close(self, fd: int) -> None: ...

    def allocate(self, fd: int, size: int) -> None:
        """Reserve `size` bytes of disk, so that later writes within them need no space. They read as zeros."""
        ...

    def size(self, fd: int) -> int: ...

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write; the number of bytes that were taken, which may be fewer than were given."""
        ...

    def preadv(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        """Read into `buffer`; the number of bytes that were read, 0 at the end of the file."""
        ...

    def fdatasync(self, fd: int) -> None: ...

    def drop_cached(self, fd: int) -> None:
        """Forget what memory holds of the file and is not to be written: the next read asks the disk."""
        ...

    def fsync_directory(self, path: Path) -> None: ...

    def rename(self, old: Path, new: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def list(self, path: Path) -> list[str]: ...

    def free_bytes(self, path: Path) -> int: ...


class OsFiles:
    """The operating system's files."""

    def open(self, path: Path, *, create: bool = False) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)

    def close(self, fd: int) -> None:
        os.close(fd)

    def allocate(self, fd: int, size: int) -> None:
        os.posix_fallocate(fd, 0, size)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        return os.pwritev(fd, buffers, offset)

    def preadv(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def drop_cached(self, fd: int) -> None:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def fsync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def list(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def free_bytes(self, path: Path) -> int:
        return shutil.disk_usage(path).free


OS_FILES = OsFiles()


def write_fully(files: Files, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
    """Write all of `buffers` at `offset`, carrying on after short writes.

    EINTR is retried by the interpreter (PEP 475). A write that takes nothing is an error, not a reason to spin: a full
    disk may answer so.
    """
    views = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
    while views:
        taken = files.pwritev(fd, views, offset)
        if taken <= 0:
            raise OSError(5, f"write of {sum(map(len, views))} bytes at {offset} took nothing")
        offset += taken
        while views and taken >= len(views[0]):
            taken -= len(views.pop(0))
        if taken:
            views[0] = views[0][taken:]


def read_fully(files: Files, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
    """Fill `buffer` from `offset`; fewer bytes only at the end of the file. Returns how many."""
    view, done = memoryview(buffer), 0
    while done < len(view):
        count = files.preadv(fd, view[done:], offset + done)
        if count == 0:
            break
        done += count
    return done
