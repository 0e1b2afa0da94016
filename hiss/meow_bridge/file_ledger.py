"""The content versions of watched files that were seen, in `jobs.db`: one row a path, one number for each new content.

A file is looked at again where its size, time of change or inode are others than those in its row; it has a new
version where its digest is another, or where it had been gone. The number (`seq`) orders the events of all files; it
commits together with the jobs that the event makes, so that each content version makes its jobs exactly once. Every
method joins or opens a transaction; callable from any thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import xxhash

from hiss import limits
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.file_paths import KIND, NODE, SCHEME
from hiss.model import Event

_SCHEMA: Final = (  # made where they lack
    "CREATE TABLE IF NOT EXISTS files("
    "path TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, version INTEGER NOT NULL, digest TEXT NOT NULL,"
    "bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, time_ns INTEGER NOT NULL,"
    "gone INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS file_number(one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """By what a file is seen to be the same without reading it."""

    bytes: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Content:
    """What was read of a file."""

    path: str
    identity: Identity
    digest: str  # XXH3 of 128 bits, in hex


def identity_of(path: str) -> Identity | None:
    """None where there is no regular file of that path; symbolic links are none."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return Identity(found.st_size, found.st_mtime_ns, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def content_of(path: str) -> Content | None:
    """Read a file; None where it is not there or changes while it is read."""
    before = identity_of(path)
    if before is None:
        return None
    state = xxhash.xxh3_128()
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(limits.MiB):
                state.update(chunk)
    except OSError:
        return None
    return Content(path, before, state.hexdigest()) if identity_of(path) == before else None


class FileLedger:
    def __init__(self, database: Database) -> None:
        self._database = database
        with database.transaction():
            for statement in _SCHEMA:
                database.execute(statement)

    def newest(self) -> int:
        """The number of the newest event of a file."""
        with self._database.transaction():
            row = self._database.row("SELECT seq FROM file_number")
            return 0 if row is None else int(row["seq"])

    def knows(self, path: str, identity: Identity) -> bool:
        """Whether a file was seen as it is, as far as that can be told without reading it."""
        with self._database.transaction():
            row = self._row(path)
            return row is not None and not row["gone"] and _identity(row) == identity

    def record(self, content: Content, now_ns: int) -> Event | None:
        """The event of a content that is new; None where it is the one that was seen."""
        with self._database.transaction():
            row = self._row(content.path)
            same = row is not None and not row["gone"] and row["digest"] == content.digest
            seq = row["seq"] if row is not None and same else self.newest() + 1
            version = (0 if row is None else row["version"]) + (not same)
            now_ns = row["time_ns"] if row is not None and same else now_ns
            identity = content.identity
            self._database.execute(
                "INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?,?,?,0)",
                *(content.path, seq, version, content.digest),
                *(identity.bytes, identity.mtime_ns, identity.inode, now_ns),
            )
            if same:
                return None
            self._database.execute("INSERT OR REPLACE INTO file_number VALUES (1, ?)", seq)
            row = self._row(content.path)
            assert row is not None
            return _event(row)

    def forget_gone(self, path: str) -> None:
        """A file is there no more: whatever comes under its name is new."""
        with self._database.transaction():
            self._database.execute("UPDATE files SET gone = 1 WHERE path = ?", path)

    def there(self, root: str) -> list[str]:
        """The files below a directory that were seen and were there at the last look."""
        below = root.rstrip("/") + "/"
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT path FROM files WHERE path >= ? AND path < ? AND NOT gone", below, below[:-1] + "0"
            )
            return [row["path"] for row in rows]

    def pages(self, after: int, until: int) -> Iterator[list[Event]]:
        """The events of files that are there, with numbers above `after` and up to `until`, in order."""
        while True:
            with self._database.transaction():
                rows = self._database.rows(
                    "SELECT * FROM files WHERE seq > ? AND seq <= ? AND NOT gone ORDER BY seq LIMIT ?",
                    after,
                    until,
                    limits.EVENTS_PAGE,
                )
            if not rows:
                return
            yield [_event(row) for row in rows]
            after = rows[-1]["seq"]

    def digest(self, path: str, version: int) -> str:
        """Of a content version; '' where it was overwritten since."""
        with self._database.transaction():
            row = self._row(path)
            return row["digest"] if row is not None and row["version"] == version else ""

    def _row(self, path: str) -> Any:
        return self._database.row("SELECT * FROM files WHERE path = ?", path)


def _identity(row: Any) -> Identity:
    return Identity(row["bytes"], row["mtime_ns"], row["inode"])


def _event(row: Any) -> Event:
    directory, _, name = row["path"].rpartition("/")
    data = {"digest": row["digest"], "bytes": row["bytes"], "mtime_ns": row["mtime_ns"]}
    return Event(NODE, row["seq"], KIND, row["time_ns"], SCHEME + directory, name, row["version"], data)
