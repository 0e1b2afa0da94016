"""The catalog's SQLite database: opened, checked, and one transaction at a time.

WAL mode with `synchronous=FULL`: a committed transaction survives a power cut (`NORMAL` does not promise that,
https://www.sqlite.org/pragma.html#pragma_synchronous). This process is the only writer. One connection, one lock; any
thread. Whatever SQLite finds wrong with the file is `CatalogDamaged`; nothing is deleted or repaired.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hiss.errors import CatalogDamaged, SpaceExhausted, Stopping, Unavailable

SCHEMA_VERSION: Final = 3

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
}


class CatalogDatabase:
    """One SQLite file.

    Raises
    ------
    CatalogDamaged
        It is no database, not one of ours, of a newer format, or inconsistent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._depth = 0
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with self.errors():
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, cached_statements=512
            )
        try:
            with self.errors():
                self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        connection = self._connection
        connection.row_factory = sqlite3.Row
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
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and durable when the outermost block ends."""
        with self.lock, self.errors():
            if self._depth:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            else:
                self._commit()
            finally:
                self._depth -= 1

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self.lock, self.errors():
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        found = self.rows(query, *values)
        return found[0] if found else None

    def close(self) -> None:
        with self.lock:
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
