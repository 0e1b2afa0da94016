"""The lock on a data directory: one process at a time has it open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from hiss.errors import DataDirectoryLocked


class DirectoryLock:
    """Held from construction to `release`, or to the end of the process however that ends.

    Raises
    ------
    DataDirectoryLocked
        Another process, or another object in this one, holds it.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise DataDirectoryLocked(
                f"{directory} is open in another process{f' (pid {holder})' if holder else ''}; stop that one, or "
                "connect to it",
                path=str(directory),
                pid=holder,
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
