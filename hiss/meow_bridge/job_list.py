"""Jobs as one looks at them: those that wait or run and those that have ended, as one list.

They stand in two tables of `jobs.db`, `jobs` and `archive`, so that what is made and claimed costs the same however
many have ended; the view `every_job` is both. Every method joins or opens a transaction; callable from any thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from hiss import limits
from hiss.errors import InvalidInput, JobNotFound
from hiss.meow_bridge.database import Database
from hiss.workflow import Job, JobState, StreamRef


class JobList:
    def __init__(self, database: Database) -> None:
        self._database = database

    def job(self, prefix: str) -> Job:
        """Raises `JobNotFound` for no job, `InvalidInput` where several ids begin so."""
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT * FROM every_job WHERE id >= ? AND id < ? ORDER BY id LIMIT 2", prefix, prefix + "\x7f"
            )
            if not rows or not prefix:
                raise JobNotFound(f"no job {prefix!r}; `hiss job ls` lists them", job=prefix)
            if len(rows) > 1 and rows[0]["id"] != prefix:
                raise InvalidInput(f"several jobs begin with {prefix!r}: give more digits of the id", job=prefix)
            return self._jobs(rows[:1])[0]

    def jobs(self, state: JobState | None, limit: int, prefix: str = "") -> list[Job]:
        """Newest first; with a prefix, those whose event is of what is there or below."""
        limit = max(0, min(limit, limits.JOBS_LISTED_MAX))
        wanted: list[str] = []
        values: list[Any] = []
        if state is not None:
            wanted.append("state = ?")
            values.append(state)
        if prefix:
            wanted.append("(path = ? OR substr(path, 1, ?) = ?)")
            values += [prefix, len(prefix) + 1, prefix + "/"]
        where = f"WHERE {' AND '.join(wanted)} " if wanted else ""
        with self._database.transaction():
            return self._jobs(
                self._database.rows(f"SELECT * FROM every_job {where}ORDER BY seq DESC LIMIT ?", *values, limit)
            )

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state that has some, by its name in lower case."""
        with self._database.transaction():
            rows = self._database.rows("SELECT state, count(*) AS jobs FROM every_job GROUP BY state")
        return {JobState(row["state"]).name.lower(): row["jobs"] for row in rows}

    def jobs_touching(self, path: str, version: int) -> list[Job]:
        """Those that a version of a stream triggered, that read it, or wrote it."""
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT * FROM every_job WHERE (path = ? AND version = ?)"
                " OR id IN (SELECT job FROM refs WHERE path = ? AND version = ?) ORDER BY seq",
                path,
                version,
                path,
                version,
            )
            return self._jobs(rows)

    def content_hashes(self, job: str) -> tuple[str, str]:
        """Of the pattern and the recipe that a job ran under."""
        with self._database.transaction():
            row = self._job_row(job)
            return row["pattern_hash"], row["recipe_hash"]

    def _job_row(self, job: str) -> sqlite3.Row:
        row = self._database.row("SELECT * FROM every_job WHERE id = ?", job)
        if row is None:
            raise JobNotFound(f"no job {job!r}; `hiss job ls` lists them", job=job)
        return row

    def _jobs(self, rows: Sequence[sqlite3.Row]) -> list[Job]:
        refs: dict[tuple[str, str], list[StreamRef]] = {}
        done = [row["id"] for row in rows if row["state"] == JobState.DONE]
        for start in range(0, len(done), 500):
            some = done[start : start + 500]
            for ref in self._database.rows(f"SELECT * FROM refs WHERE job IN ({','.join('?' * len(some))})", *some):
                refs.setdefault((ref["job"], ref["role"]), []).append(
                    StreamRef(ref["stream"], ref["path"], ref["version"], ref["digest"])
                )
        return [_job(row, refs) for row in rows]


def _job(row: sqlite3.Row, refs: Mapping[tuple[str, str], list[StreamRef]]) -> Job:
    return Job(
        id=row["id"],
        rule=row["rule"],
        pattern=row["pattern"],
        recipe=row["recipe"],
        event=row["event"],
        path=row["path"],
        version=row["version"],
        variables=json.loads(row["variables"]),
        state=JobState(row["state"]),
        attempts=row["attempts"],
        created_ns=row["created_ns"],
        started_ns=row["started_ns"],
        finished_ns=row["finished_ns"],
        host=row["host"],
        error=row["error"],
        output=row["output"],
        reads=tuple(refs.get((row["id"], "read"), ())),
        writes=tuple(refs.get((row["id"], "write"), ())),
        chain=row["chain"],
    )
