"""The catalog's SQLite database: opened, checked, and changed by transactions that share their commits.

WAL mode with `synchronous=FULL`: a committed transaction survives a power cut (`NORMAL` does not promise that,
https://www.sqlite.org/pragma.html#pragma_synchronous). This process is the only writer.

Group commit: a commit costs a sync of the disk, so callers who come while one is running do their changes one after
another, each within a savepoint, and the next commit is for all of them; each returns when that commit has. One that
fails takes back its own changes only; a commit that fails is told to all. One connection writes, under one lock;
another one reads, and sees nothing that is not committed, except that a transaction sees its own changes. Any thread.
Whatever SQLite finds wrong with the file is `CatalogDamaged`; nothing is deleted or repaired.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from hiss import limits
from hiss.errors import CatalogDamaged, CollectionNotFound, HissError, SpaceExhausted, Stopping, Unavailable

SCHEMA_VERSION: Final = 5

_SCHEMA: Final = """
CREATE TABLE property (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE collection (
    path TEXT PRIMARY KEY, attrs TEXT NOT NULL, expect TEXT NOT NULL, joins TEXT NOT NULL,
    sealed INTEGER NOT NULL, created_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE stream (
    ordinal INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, collection TEXT NOT NULL, name TEXT NOT NULL,
    version INTEGER NOT NULL, attempt TEXT,
    state INTEGER NOT NULL, raw INTEGER NOT NULL, attrs TEXT NOT NULL, document TEXT NOT NULL,
    completeness TEXT NOT NULL, digest TEXT NOT NULL, final_ns INTEGER NOT NULL, abort_reason TEXT NOT NULL,
    epoch INTEGER NOT NULL, UNIQUE (collection, name, version));
CREATE INDEX stream_state ON stream (state);
CREATE INDEX stream_attempt ON stream (attempt) WHERE attempt IS NOT NULL;
CREATE TABLE kernel (
    ordinal INTEGER PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL, registered_ns INTEGER NOT NULL,
    document TEXT NOT NULL, UNIQUE (name, hash));
CREATE INDEX kernel_hash ON kernel (hash);
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, time_ns INTEGER NOT NULL, collection TEXT NOT NULL,
    stream TEXT NOT NULL, version INTEGER NOT NULL, data TEXT NOT NULL);
CREATE TABLE attempt (id TEXT PRIMARY KEY, state TEXT NOT NULL, published TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE attempt_read (
    attempt TEXT NOT NULL, stream TEXT NOT NULL, path TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (attempt, stream));
"""
_SINCE: Final = {  # what a version adds to the one before
    2: ("CREATE TABLE deleted (ordinal INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)",),
    3: (
        "CREATE TABLE reservation (id TEXT PRIMARY KEY, collection TEXT NOT NULL, bytes INTEGER NOT NULL, "
        "base_bytes INTEGER NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE retention (collection TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
        "ALTER TABLE stream ADD COLUMN archives TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE stream ADD COLUMN eviction TEXT NOT NULL DEFAULT ''",
    ),
    4: (
        "CREATE TABLE attachment (ordinal INTEGER PRIMARY KEY, collection TEXT NOT NULL, streams TEXT NOT NULL, "
        "kernel TEXT NOT NULL, shadow INTEGER NOT NULL, attached_ns INTEGER NOT NULL, stage TEXT NOT NULL, "
        "UNIQUE (collection, streams, kernel))",
    ),
    5: (
        "CREATE TABLE drain_policy (collection TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE drain (id TEXT PRIMARY KEY, source TEXT NOT NULL, collection TEXT NOT NULL, "
        "version INTEGER NOT NULL, url TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL, "
        "priority INTEGER NOT NULL, attempts INTEGER NOT NULL, reason TEXT NOT NULL, due_ns INTEGER, "
        "next_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL, began INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX drain_waiting ON drain (priority DESC, due_ns) WHERE state IN ('wanted', 'failed')",
    ),
}


class _Batch:
    """Transactions that one commit makes durable."""

    def __init__(self, settled: threading.Condition) -> None:
        self.settled = settled  # told when it is over, to all but the one that commits it
        self.members = 0  # whose changes are in it
        self.on_commit: list[Callable[[], object]] = []  # called in that order, under the lock
        self.led = False  # one of them will commit it
        self.over = False
        self.error: BaseException | None = None


class CatalogDatabase:
    """One SQLite file.

    Raises
    ------
    CatalogDamaged
        It is no database, not one of ours, of a newer format, or inconsistent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rlock = threading.RLock()
        self.lock = threading.Condition(self._rlock)
        self._owner: int | None = None  # the thread whose transaction it is at the moment
        self._batch: _Batch | None = None  # begun and not committed
        self._arriving = 0  # threads that want to begin a transaction
        self._arriving_lock = threading.Lock()
        self._reader_lock = threading.Lock()
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with self.errors():
            self._connection = self._reader = self._connect()
        try:
            with self.errors():
                self._open()
                self._reader = self._connect()
                self._reader.execute("PRAGMA query_only=ON")
        except BaseException:
            self._connection.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=512)
        connection.row_factory = sqlite3.Row
        return connection

    def _open(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
        if problems != ["ok"]:
            raise self._damaged("; ".join(map(str, problems)))
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            properties = {"node": secrets.token_hex(6), "salt": secrets.token_hex(8)}
            with self.transaction() as writer:
                for statement in _SCHEMA.split(";"):
                    writer.execute(statement)
                writer.executemany("INSERT INTO property VALUES (?, ?)", properties.items())
                self._raise_version(writer, 1)
        elif 0 < version < SCHEMA_VERSION:
            with self.transaction() as writer:
                self._raise_version(writer, version)
        elif version != SCHEMA_VERSION:
            raise self._damaged(f"format version {version}; this program reads version {SCHEMA_VERSION}")

    @staticmethod
    def _raise_version(writer: sqlite3.Connection, version: int) -> None:
        """Add what came after `version`, in the caller's transaction."""
        for number in range(version + 1, SCHEMA_VERSION + 1):
            for statement in _SINCE[number]:
                writer.execute(statement)
        writer.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def properties(self) -> dict[str, str]:
        return {row["name"]: row["value"] for row in self.rows("SELECT name, value FROM property")}

    @contextlib.contextmanager
    def transaction(self, *, wait: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing, and durable when the outermost block ends.

        With `wait` False it is durable with the next one that waits, or at the end: for what a crash may undo.
        """
        if self._owner == threading.get_ident():
            with self.errors():
                yield self._connection
            return
        with self._arriving_lock:
            self._arriving += 1
        with self.lock:
            with self._arriving_lock:
                self._arriving -= 1
            batch = self._begin()
            effects = len(batch.on_commit)
            self._owner = threading.get_ident()
            try:
                with self.errors():
                    if batch.members:
                        self._connection.execute("SAVEPOINT one")
                    yield self._connection
                    if batch.members:
                        self._connection.execute("RELEASE one")
            except BaseException as error:
                del batch.on_commit[effects:]
                self._undo(batch, error)
                raise
            finally:
                self._owner = None
                self.lock.notify_all()
            batch.members += 1
            if wait:
                self._settle(batch)

    def _begin(self) -> _Batch:
        if self._batch is None:
            with self.errors():
                self._connection.execute("BEGIN IMMEDIATE")
            self._batch = _Batch(threading.Condition(self._rlock))
        return self._batch

    def on_commit(self, effect: Callable[[], object]) -> None:
        """Called when the caller's transaction has committed, before anybody is told so; must be quick."""
        assert self._owner == threading.get_ident(), "outside of a transaction"
        assert self._batch is not None
        self._batch.on_commit.append(effect)

    def _undo(self, batch: _Batch, error: BaseException) -> None:
        """Take back what one transaction changed; all of the batch where SQLite has given that up (a full disk)."""
        connection = self._connection
        if connection.in_transaction and batch.members:
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
            return
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        self._end(batch, error)

    def _settle(self, batch: _Batch) -> None:
        """Return when the batch is committed; the first to come here does it, when nobody else is about to join."""
        if batch.led:
            while not batch.over:
                batch.settled.wait()
        batch.led = True
        try:
            while not batch.over and self._arriving and batch.members < limits.CATALOG_BATCH_MAX:
                self.lock.wait()
        finally:  # Ctrl-C too: the others of the batch wait for whoever leads it
            if not batch.over:
                self._commit(batch)
        if batch.error is not None:
            raise batch.error

    def _commit(self, batch: _Batch) -> None:
        error: BaseException | None = None
        try:
            with self.errors():
                self._connection.execute("COMMIT")
        except (HissError, sqlite3.Error) as failure:
            error = failure
        finally:
            if self._connection.in_transaction:
                error = error or Unavailable(f"{self.path}: the commit was interrupted, nothing of it holds; try again")
                self._connection.execute("ROLLBACK")
            self._end(batch, error)

    def _end(self, batch: _Batch, error: BaseException | None) -> None:
        if error is None:
            for effect in batch.on_commit:
                effect()
        batch.over, batch.error = True, error
        self._batch = None
        batch.settled.notify_all()
        self.lock.notify_all()

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """What is committed; within a transaction, with its own changes."""
        if self._owner == threading.get_ident():
            with self.errors():
                return self._connection.execute(query, values).fetchall()
        with self._reader_lock, self.errors():
            return self._reader.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        found = self.rows(query, *values)
        return found[0] if found else None

    def check_at_or_below(self, path: str) -> None:
        """Raise `CollectionNotFound` unless there is a collection of that path, or one below it."""
        below = f"{path}/"
        if not self.row("SELECT 1 FROM collection WHERE path = ? OR substr(path, 1, ?) = ?", path, len(below), below):
            raise CollectionNotFound(f"no collection {path[:200]!r}, and none below it", path=path[:200])

    def close(self) -> None:
        with self.lock, self._reader_lock:
            if self._batch is not None:
                self._commit(self._batch)
            self._reader.close()
            self._connection.close()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """SQLite's complaints about the file or the disk, as ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "is full" in str(error):
                raise SpaceExhausted(f"{self.path}: {error}; free space on the disk", path=str(self.path)) from error
            if "is locked" in str(error):
                raise Unavailable(
                    f"{self.path}: another program holds the database; close it", path=str(self.path)
                ) from error
            raise self._damaged(str(error)) from error
        except UnicodeDecodeError as error:  # of a text, or of SQLite's own message about a name
            raise self._damaged(str(error)) from error
        except sqlite3.IntegrityError:
            raise  # a bug of ours, not of the file
        except sqlite3.ProgrammingError as error:
            if "closed" not in str(error):
                raise
            raise Stopping(f"{self.path}: the buffer is closed") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> CatalogDamaged:
        return CatalogDamaged(
            f"the catalog {self.path} cannot be used: {what}. Nothing was changed; keep the directory as it is, put "
            "catalog.db (with catalog.db-wal, if there is one) back from a copy, and start again",
            path=str(self.path),
        )
