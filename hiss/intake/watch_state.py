"""What `hiss watch` remembers across a restart: which files were taken, into which stream, and how far they are.

SQLite in the state directory, `synchronous=FULL`, one process at a time. A *batch* is one stream: one file as bytes, or
the frames of several. A row of a file commits before the first of its blocks is sent, with the indices that its blocks
will have; so a process that comes back sends the same blocks under the same indices, and the buffer keeps one of each.
A file is `taken`, then `stored` (its stream is sealed, and was read back and compared); or `refused`, as what it is; or
`changed`: what was taken is not there any more. Called from the thread that watches.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hiss.errors import Conflict, InvalidInput
from hiss.intake.settling import Identity

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS one(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches(id INTEGER PRIMARY KEY, collection TEXT NOT NULL, name TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 0, sealed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS files(id INTEGER PRIMARY KEY, path TEXT NOT NULL, bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, batch INTEGER NOT NULL, first INTEGER NOT NULL,
    count INTEGER NOT NULL, digest TEXT NOT NULL DEFAULT '', state TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS files_path ON files(path);
CREATE INDEX IF NOT EXISTS files_batch ON files(batch);
CREATE INDEX IF NOT EXISTS files_state ON files(state);
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """One stream. `version` is 0 until it is known that it was created."""

    id: int
    collection: str
    name: str
    version: int
    sealed: bool

    @property
    def path(self) -> str:
        return f"{self.collection}/{self.name}"


@dataclass(frozen=True, slots=True)
class Taken:
    """A file of a batch: its blocks have the indices from `first` on."""

    id: int
    path: str
    identity: Identity
    batch: int
    first: int
    count: int
    digest: str  # XXH3 of 128 bits of its blocks, in hex; '' before they were read
    state: str


class WatchState:
    """
    Parameters
    ----------
    directory : path
        Where the state is kept; made where it is not there.
    target : str
        The collection; a state directory is for one.

    Raises
    ------
    Conflict
        Another process watches with this state.
    InvalidInput
        The state is of another collection.
    """

    def __init__(self, directory: Path, target: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise Conflict(f"{directory}: another hiss watch is at work here; end it first") from None
        self._database = sqlite3.connect(directory / "watch.db", isolation_level=None)
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("PRAGMA journal_mode=PERSIST")
        self._database.executescript(_SCHEMA)
        self.id = self._once("id", uuid.uuid4().hex)
        before = self._once("target", target)
        if before != target:
            self.close()
            raise InvalidInput(f"{directory}: its files go to the collection {before}, not {target}; choose --state")

    def close(self) -> None:
        self._database.close()
        os.close(self._lock)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, on the disk when it ends."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    # ---- batches

    def begin(self, collection: str, name: str) -> Batch:
        """A batch that has no file yet; in a transaction with its first one."""
        cursor = self._database.execute("INSERT INTO batches(collection, name) VALUES (?, ?)", (collection, name))
        assert cursor.lastrowid is not None
        return Batch(cursor.lastrowid, collection, name, 0, False)

    def created(self, batch: Batch, version: int) -> None:
        self._database.execute("UPDATE batches SET version = ? WHERE id = ?", (version, batch.id))

    def batch(self, number: int) -> Batch:
        row = self._database.execute("SELECT * FROM batches WHERE id = ?", (number,)).fetchone()
        return Batch(row[0], row[1], row[2], row[3], bool(row[4]))

    def batch_is_there(self, batch: Batch) -> bool:
        """Whether a batch was neither dropped nor stored since."""
        return any(each.id == batch.id for each in self.unfinished())

    def unfinished(self) -> list[Batch]:
        """Batches that are not sealed and compared, the oldest first."""
        rows = self._database.execute("SELECT id FROM batches WHERE NOT sealed ORDER BY id").fetchall()
        return [self.batch(row[0]) for row in rows]

    def stored(self, batch: Batch, version: int) -> None:
        """All of it is sealed, read back and compared."""
        with self.transaction():
            self._database.execute("UPDATE batches SET sealed = 1, version = ? WHERE id = ?", (version, batch.id))
            self._database.execute("DELETE FROM files WHERE batch = ? AND state = 'changed'", (batch.id,))
            self._database.execute("UPDATE files SET state = 'stored' WHERE batch = ? AND state = 'taken'", (batch.id,))

    def drop(self, batch: Batch, *, refused: bool = False) -> None:
        """Forget a batch: its files will be looked at again, or, where `refused`, not before they change."""
        with self.transaction():
            if refused:
                self._database.execute("UPDATE files SET state = 'refused' WHERE batch = ?", (batch.id,))
            else:
                self._database.execute("DELETE FROM files WHERE batch = ?", (batch.id,))
            self._database.execute("DELETE FROM batches WHERE id = ?", (batch.id,))

    # ---- files

    def knows(self, path: str, identity: Identity) -> bool:
        """Whether a file was taken, or refused, as it is now."""
        return any(file.identity == identity and file.state != "changed" for file in self._files("path = ?", path))

    def take(self, batch: Batch, path: str, identity: Identity, first: int, count: int) -> Taken:
        return self._add(path, identity, batch.id, first, count, "taken")

    def refuse(self, path: str, identity: Identity) -> None:
        """Not to be looked at again before it changes."""
        with self.transaction():
            self._add(path, identity, 0, 0, 0, "refused")

    def _add(self, path: str, identity: Identity, batch: int, first: int, count: int, state: str) -> Taken:
        self._database.execute("DELETE FROM files WHERE path = ? AND state IN ('stored', 'refused')", (path,))
        cursor = self._database.execute(
            "INSERT INTO files(path, bytes, mtime_ns, inode, batch, first, count, state) VALUES (?,?,?,?,?,?,?,?)",
            (path, identity.bytes, identity.mtime_ns, identity.inode, batch, first, count, state),
        )
        assert cursor.lastrowid is not None
        return Taken(cursor.lastrowid, path, identity, batch, first, count, "", state)

    def digest(self, file: Taken, digest: str) -> None:
        self._database.execute("UPDATE files SET digest = ? WHERE id = ?", (digest, file.id))

    def mark(self, file: Taken, state: str) -> None:
        """A file of a batch as `refused` or `changed`; its indices stay its own."""
        with self.transaction():
            self._database.execute("UPDATE files SET state = ? WHERE id = ?", (state, file.id))

    def forget(self, file: Taken) -> None:
        self._database.execute("DELETE FROM files WHERE id = ?", (file.id,))

    def file(self, number: int) -> Taken | None:
        return next(iter(self._files("id = ?", number)), None)

    def of(self, batch: Batch) -> list[Taken]:
        """The files of a batch in the order of their blocks."""
        return sorted(self._files("batch = ?", batch.id), key=lambda file: file.first)

    def filled(self, batch: Batch) -> tuple[int, int]:
        """How many files a batch has, and the index that its next block will have."""
        row = self._database.execute(
            "SELECT COUNT(*), COALESCE(MAX(first + count), 0) FROM files WHERE batch = ?", (batch.id,)
        ).fetchone()
        return int(row[0]), int(row[1])

    def removable(self) -> list[Taken]:
        return list(self._files("state = ?", "stored"))

    def counts(self) -> dict[str, int]:
        """How many files there are in each state."""
        return dict(self._database.execute("SELECT state, COUNT(*) FROM files GROUP BY state").fetchall())

    def _files(self, where: str, value: Any) -> list[Taken]:
        rows = self._database.execute(
            f"SELECT id, path, bytes, mtime_ns, inode, batch, first, count, digest, state FROM files WHERE {where} "
            "ORDER BY id",
            (value,),
        ).fetchall()
        return [Taken(row[0], row[1], Identity(row[2], row[3], row[4]), *row[5:]) for row in rows]

    def _once(self, key: str, value: str) -> str:
        """A value that is set the first time, and stays."""
        self._database.execute("INSERT OR IGNORE INTO one VALUES (?, ?)", (key, value))
        row = self._database.execute("SELECT value FROM one WHERE key = ?", (key,)).fetchone()
        return str(row[0])
