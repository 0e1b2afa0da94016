"""Which files of a directory are settled: nobody writes them any more.

A file is settled when nobody has it open for writing and, where the kernel does not tell (`open_files`: other hosts'
files, other users'), when it was the same for `limits.FILE_SETTLE_S`; `settle_s` asks for so long of every file. The
directory is scanned, every `limits.FILE_SCAN_S`; where watchdog is installed the kernel's hints say what to look at in
between, and scans are rarer. Hidden files and directories are none of the instrument's. Not thread-safe but for the
hints, which come from watchdog's threads.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from hiss import limits
from hiss.intake.putting import natural_key
from hiss.open_files import is_being_written, is_remote


@dataclass(frozen=True, slots=True)
class Identity:
    """By what a file is seen to be the same without reading it."""

    bytes: int
    mtime_ns: int
    inode: int


def identity_of(path: str) -> Identity | None:
    """None where there is no regular file of that path; symbolic links are none."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return Identity(found.st_size, found.st_mtime_ns, found.st_ino) if stat.S_ISREG(found.st_mode) else None


@dataclass(frozen=True, slots=True)
class Settled:
    """A file that may be taken; `path` is relative to the directory."""

    path: str
    identity: Identity


class Settling:
    """
    Parameters
    ----------
    directory : str
    is_known : callable
        Whether a file of that path and identity was taken before.
    include, exclude : tuple of str
        Globs of file names; without `include` all.
    settle_s : float
        For so long every file has to be the same.
    observed : bool
        Ask the system for hints, where it can give some.
    monotonic_s : callable
    """

    def __init__(
        self,
        directory: str,
        is_known: Callable[[str, Identity], bool],
        *,
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        settle_s: float = 0.0,
        observed: bool = True,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._is_known = is_known
        self._include, self._exclude = include, exclude
        self._settle_s = settle_s
        self._clock_s = monotonic_s
        self._remote = is_remote(directory)
        self._pending: dict[str, tuple[Identity, float]] = {}  # not settled, and since when they are the same
        self._hints: set[str] = set()
        self._rescan = True
        self._scanned_s = -limits.FILE_RESCAN_S
        self._hinted = threading.Condition()
        self._observer = _observer(directory, self.hint) if observed and not self._remote else None

    @property
    def pending(self) -> bool:
        """Whether there are files that are not settled, or were not looked at."""
        with self._hinted:
            return bool(self._pending or self._hints or self._rescan)

    def close(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()

    def hint(self, path: str) -> None:
        """Something happened to a path; '' for anywhere. From any thread."""
        with self._hinted:
            if not path or len(self._hints) >= limits.FILE_HINTS_MAX:
                self._rescan = True
            elif self._is_wanted(path):
                self._hints.add(path)
            self._hinted.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Until something happened, or is due, or `timeout_s` have passed."""
        now_s = self._clock_s()
        due_s = [self._scanned_s + self._scan_every_s() - now_s]
        due_s += [since_s + self._settle_time_s() - now_s for _, since_s in self._pending.values()]
        with self._hinted:
            if not self._hints and not self._rescan:
                self._hinted.wait(max(0.01, min(timeout_s, *due_s)))

    def look(self) -> list[Settled]:
        """The files that are settled and not known, in the natural order of their paths."""
        now_s = self._clock_s()
        with self._hinted:
            hints, self._hints = self._hints, set()
            scan, self._rescan = self._rescan or now_s - self._scanned_s >= self._scan_every_s(), False
        if scan:
            paths = set(self._files())
            self._pending = {path: since for path, since in self._pending.items() if path in paths}
            self._scanned_s = now_s
        else:
            paths = hints | set(self._pending)
        ordered = sorted(paths, key=natural_key)
        return [found for path in ordered if (found := self._look_at(path, now_s)) is not None]

    def _look_at(self, path: str, now_s: float) -> Settled | None:
        whole = os.path.join(self._directory, path)
        identity = identity_of(whole)
        if identity is None or self._is_known(path, identity):
            self._pending.pop(path, None)
            return None
        before, since_s = self._pending.get(path, (identity, now_s))
        since_s = since_s if before == identity else now_s
        writing = is_being_written(whole)
        told = writing is False and not self._remote  # the kernel knows of all who write
        if writing or now_s - since_s < (self._settle_s if told else self._settle_time_s()):
            self._pending[path] = (identity, since_s)
            return None
        self._pending.pop(path, None)
        return Settled(path, identity)

    def _settle_time_s(self) -> float:
        return max(self._settle_s, limits.FILE_SETTLE_S)

    def _scan_every_s(self) -> float:
        return limits.FILE_SCAN_S if self._observer is None else limits.FILE_RESCAN_S

    def _is_wanted(self, path: str) -> bool:
        parts = path.split("/")
        if any(part.startswith(".") for part in parts):
            return False
        chosen = not self._include or any(fnmatch(parts[-1], glob) for glob in self._include)
        return chosen and not any(fnmatch(parts[-1], glob) for glob in self._exclude)

    def _files(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self._directory):
            folders[:] = [name for name in folders if not name.startswith(".")]
            below = os.path.relpath(folder, self._directory)
            for name in names:
                path = name if below == "." else f"{below}/{name}"
                if self._is_wanted(path):
                    yield path


def _observer(directory: str, hint: Callable[[str], None]) -> Any:
    """watchdog's thread for a directory and those below it; None where it is not installed or cannot watch."""
    try:
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer
    except ImportError:
        return None

    class Handler(FileSystemEventHandler):
        """What was made, closed or moved, as hints; a directory is scanned."""

        def dispatch(self, event: Any) -> None:
            if event.event_type in ("created", "closed", "moved"):
                path = os.fsdecode(event.dest_path or event.src_path)
                hint("" if event.is_directory else os.path.relpath(path, directory))

    observer = Observer()
    try:
        observer.schedule(Handler(), directory, recursive=True)
        observer.start()
    except OSError:  # too many directories for the kernel: they are scanned
        return None
    return observer
