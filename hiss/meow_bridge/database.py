"""`jobs.db`: recipes, patterns, rules, jobs, their attempts, and how far the events have been dealt with.

SQLite in WAL mode with `synchronous=FULL`, so that a committed transaction survives a power cut. One process writes
it (the engine holds `jobs.lock`), through one connection, under one lock; every method of the tables runs inside
`Database.transaction()`, from any thread. What is committed together is true together: the jobs of an event and the
cursor that passes it; a rule that goes and the jobs that it cancels.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hiss.errors import CatalogDamaged, Stopping

SCHEMA_VERSION: Final = 3

_JOB_COLUMNS: Final = """    id TEXT NOT NULL UNIQUE,
    rule TEXT NOT NULL,
    pattern TEXT NOT NULL,
    recipe TEXT NOT NULL,
    pattern_hash TEXT NOT NULL,
    recipe_hash TEXT NOT NULL,
    event TEXT NOT NULL,
    path TEXT NOT NULL,
    version INTEGER NOT NULL,
    input TEXT NOT NULL,        -- the variable that holds the input
    write_prefix TEXT NOT NULL,
    variables TEXT NOT NULL,    -- JSON
    timeout_s REAL NOT NULL,
    retries INTEGER NOT NULL,
    cores INTEGER NOT NULL,
    memory_bytes INTEGER,       -- NULL: what the executor gives
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,   -- jobs.Cancelled
    cause TEXT NOT NULL,        -- the job that wrote what triggered it, or ''
    chain INTEGER NOT NULL,     -- jobs that led to one another, this one included
    laps INTEGER NOT NULL,      -- how many of them are of its pattern, itself not counted, as far as was looked
    at_once INTEGER,            -- the limit of its pattern
    admitted_ns INTEGER NOT NULL DEFAULT 0, -- counts for its rule's limits since then; 0: not, or there are none
    created_ns INTEGER NOT NULL,
    started_ns INTEGER NOT NULL DEFAULT 0,
    finished_ns INTEGER NOT NULL DEFAULT 0,
    ready_ns INTEGER NOT NULL DEFAULT 0,   -- not before this time
    host TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    output TEXT NOT NULL DEFAULT ''"""

_SCHEMA: Final = """
CREATE TABLE cursor(           -- one row: the last event that was dealt with
    one INTEGER PRIMARY KEY CHECK (one = 1),
    node TEXT NOT NULL,
    seq INTEGER NOT NULL
);
CREATE TABLE contents(         -- patterns and recipes as JSON, kept for the jobs that ran under them
    hash TEXT PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE recipes(
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL REFERENCES contents
) WITHOUT ROWID;
CREATE TABLE patterns(
    name TEXT PRIMARY KEY,
    recipe TEXT NOT NULL,
    hash TEXT NOT NULL REFERENCES contents,
    after_seq INTEGER NOT NULL -- events up to here are not for it
) WITHOUT ROWID;
CREATE TABLE rules(
    id TEXT PRIMARY KEY,
    pattern TEXT NOT NULL UNIQUE,
    recipe TEXT NOT NULL,
    pattern_hash TEXT NOT NULL,
    recipe_hash TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    since_seq INTEGER NOT NULL, -- events up to here are met by looking back, later ones as they come
    met_seq INTEGER NOT NULL,   -- how far the looking back has come; done at since_seq
    timed_ns INTEGER NOT NULL   -- the times of a timer up to here have been dealt with
) WITHOUT ROWID;
CREATE TABLE jobs(             -- what waits, is held, or runs
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
__JOB_COLUMNS__
);
CREATE INDEX jobs_queued ON jobs(ready_ns, seq, rule) WHERE state = 1;
CREATE INDEX jobs_admitted ON jobs(rule, admitted_ns) WHERE admitted_ns > 0;
CREATE INDEX jobs_state ON jobs(state, seq);
CREATE INDEX jobs_rule ON jobs(rule);
CREATE INDEX jobs_path ON jobs(path, version);
CREATE TABLE archive(          -- what has ended; the same columns
    seq INTEGER PRIMARY KEY,
__JOB_COLUMNS__
);
CREATE INDEX archive_admitted ON archive(rule, admitted_ns) WHERE admitted_ns > 0;
CREATE INDEX archive_state ON archive(state, seq);
CREATE INDEX archive_path ON archive(path, version);
CREATE VIEW every_job AS SELECT * FROM jobs UNION ALL SELECT * FROM archive;
CREATE TABLE attempts(
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    state INTEGER NOT NULL,     -- jobs.AttemptState
    started_ns INTEGER NOT NULL,
    finished_ns INTEGER NOT NULL DEFAULT 0,
    outcome TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX attempts_open ON attempts(state) WHERE state < 3;
CREATE TABLE announcements(     -- events that the buffer has still to be told
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,    -- under which they are published, once
    kind TEXT NOT NULL,
    data TEXT NOT NULL          -- JSON
);
CREATE TABLE refs(              -- what a job that is done read and wrote
    job TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('read', 'write')),
    stream TEXT NOT NULL,
    path TEXT NOT NULL,
    version INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (job, role, stream)
) WITHOUT ROWID;
CREATE INDEX refs_path ON refs(path, version);
""".replace("__JOB_COLUMNS__", _JOB_COLUMNS)


class Database:
    """The connection to `jobs.db` and its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._closed = False
        self._after_commit: list[Callable[[], None]] = []
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise CatalogDamaged(
                f"{path} cannot be read: {error}; move it away to start with no rules and jobs", path=str(path)
            ) from error
        except CatalogDamaged:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:
            self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise CatalogDamaged(
                f"{self.path} has the schema version {version}, expected {SCHEMA_VERSION}; "
                "it was written by another version of hiss",
                path=str(self.path),
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and alone. Entered within another it joins that one."""
        with self._lock:
            if self._depth:
                yield
                return
            if self._closed:
                raise Stopping("the rule engine has stopped")
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._after_commit.clear()
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0
            calls, self._after_commit = self._after_commit, []
            for call in calls:
                call()

    def after_commit(self, call: Callable[[], None]) -> None:
        """Run `call` when this transaction has committed, still under the lock; never if it fails."""
        assert self._depth, "outside of a transaction"
        self._after_commit.append(call)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        assert self._depth, "outside of a transaction"
        return self._connection.execute(statement, values)

    def execute_many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """The statement for each of the rows; how many rows it changed."""
        assert self._depth, "outside of a transaction"
        return self._connection.executemany(statement, rows).rowcount

    def row(self, statement: str, *values: Any) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self.execute(statement, *values).fetchone()
        return found

    def rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        return self.execute(statement, *values).fetchall()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._connection.close()
