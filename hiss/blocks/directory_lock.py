"""The lock on a data directory: one process at a time has it open."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from hiss.errors import DataDirectoryLocked


class DirectoryLock:
    """Held from construction to `release`, to the end of the process however that ends, or until nobody refers to it.

    Raises
    ------
    DataDirectoryLocked
        Another process, or another object in this one, holds it.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._close = weakref.finalize(self, os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            self._close()
            raise DataDirectoryLocked(
                f"{directory} is open in another process{f' (pid {holder})' if holder else ''}; stop that one, or "
                "connect to it",
                path=str(directory),
                pid=holder,
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        self._close()
