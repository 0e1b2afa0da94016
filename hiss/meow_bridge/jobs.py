"""Jobs and their attempts in `jobs.db`.

A job is one row under the hash of (event, rule, sweep point); its state goes QUEUED -> RUNNING -> DONE, FAILED or
CANCELLED, with RUNNING -> QUEUED for a retry; what a limit holds back is HELD first, until it is released. An attempt
is open from its start until its outputs are known to be either published or refused for ever; open attempts are what
a start after a crash has to look at. An attempt changes its job only while the job is RUNNING and the attempt is its
latest.

Every method joins or opens a transaction; callable from any thread.
"""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hiss import limits
from hiss.errors import InvalidInput, JobNotFound
from hiss.meow_bridge.admission import Admission
from hiss.meow_bridge.announcements import Announcements
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.identity import (
    attempt_id,
    canonical_json,
    failed_attempt_id,
    looping_event_id,
    pattern_from_json,
    recipe_from_json,
)
from hiss.meow_bridge.job_events import failed_event, looping_event
from hiss.meow_bridge.retry import log
from hiss.workflow import Job, JobState, Pattern, Recipe, StreamRef

_MAY_START: Final = (  # a job that waits, and of whose rule not as many run as may run at once
    "state = 1 AND rule NOT IN"
    " (SELECT rule FROM jobs WHERE state = 2 AND at_once IS NOT NULL GROUP BY rule HAVING count(*) >= at_once)"
)


class AttemptState(enum.IntEnum):
    RUNNING = 1
    COMMITTING = 2  # its process ended well; the buffer is asked to publish what it wrote
    CLOSED = 3


class Cancelled(enum.IntEnum):
    NOT = 0
    BY_REQUEST = 1
    WITH_RULE = 2  # and comes back to life if the same rule does


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as a match makes it. With an `error` it has failed already."""

    id: str
    rule: str
    pattern: str
    recipe: str
    pattern_hash: str
    recipe_hash: str
    event: str
    path: str
    version: int
    input: str
    write_prefix: str
    variables: Mapping[str, Any]
    timeout_s: float
    retries: int
    at_once: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt with all that its process needs."""

    id: str
    job: str
    number: int
    rule: str
    event: str
    path: str
    version: int
    write_prefix: str
    variables: Mapping[str, Any]
    timeout_s: float
    pattern: Pattern
    recipe: Recipe


class JobTable:
    def __init__(self, database: Database, announcements: Announcements) -> None:
        self._database = database
        self._announcements = announcements

    # ---- scheduling

    def insert(self, jobs: Iterable[NewJob], admission: Admission, now_ns: int) -> int:
        """Insert those that are not there; wake those that were cancelled with their rule. Returns how many.

        They are all of one event and one rule, whose `admission` says which of them are held back.
        """
        made = 0
        with self._database.transaction():
            for job in jobs:
                held = "" if job.error else admission.refusal()
                state = JobState.FAILED if job.error else JobState.HELD if held else JobState.QUEUED
                if not self._insert_one(job, state, job.error or held, admission, now_ns):
                    continue
                made += 1
                if state is JobState.QUEUED:
                    admission.admitted()
                elif state is JobState.FAILED:
                    self._announce_failure(job.id)
                if made == 1:
                    self._tell_of_limits(job, held, admission)
        return made

    def _tell_of_limits(self, job: NewJob, held: str, admission: Admission) -> None:
        """Say aloud that a chain of causes loops, or that jobs are held back."""
        if held:
            log.info("job %s on %s: %s", job.id, job.path, held)
        if admission.is_lap_to_warn_of():
            log.warning(
                "job %s on %s: pattern %s leads to itself, for the %dth time in this chain of %d jobs",
                job.id, job.path, job.pattern, admission.laps, admission.chain,
            )  # fmt: skip
            event = looping_event(self.job(job.id), admission.laps)
            self._announcements.put(looping_event_id(job.id), "chain.looping", event)

    def _insert_one(self, job: NewJob, state: JobState, error: str, admission: Admission, now_ns: int) -> int:
        return self._database.execute(
            "INSERT INTO jobs(id, rule, pattern, recipe, pattern_hash, recipe_hash, event, path, version, input,"
            " write_prefix, variables, timeout_s, retries, state, error, created_ns, ready_ns, finished_ns,"
            " cause, chain, laps, at_once, admitted_ns)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
            " ON CONFLICT(id) DO UPDATE SET state = excluded.state, cancelled = 0, failures = 0, interruptions = 0,"
            " error = excluded.error, finished_ns = 0, ready_ns = excluded.ready_ns,"
            " admitted_ns = excluded.admitted_ns WHERE cancelled = ? AND state = ?",
            job.id,
            job.rule,
            job.pattern,
            job.recipe,
            job.pattern_hash,
            job.recipe_hash,
            job.event,
            job.path,
            job.version,
            job.input,
            job.write_prefix,
            canonical_json(job.variables),
            job.timeout_s,
            job.retries,
            state,
            error,
            now_ns,
            now_ns,
            now_ns if job.error else 0,
            admission.cause,
            admission.chain,
            admission.laps,
            job.at_once,
            admission.admitted_ns if state is JobState.QUEUED else 0,
            Cancelled.WITH_RULE,
            JobState.CANCELLED,
        ).rowcount

    # ---- attempts

    def claim(self, now_ns: int, host: str) -> Attempt | None:
        """Start an attempt of the job that has waited longest."""
        with self._database.transaction():
            row = self._database.row(
                f"SELECT * FROM jobs WHERE {_MAY_START} AND ready_ns <= ? ORDER BY ready_ns, seq LIMIT 1", now_ns
            )
            if row is None:
                return None
            number = row["attempts"] + 1
            self._database.execute(
                "UPDATE jobs SET state = ?, attempts = ?, host = ?,"
                " started_ns = CASE started_ns WHEN 0 THEN ? ELSE started_ns END WHERE seq = ?",
                JobState.RUNNING,
                number,
                host,
                now_ns,
                row["seq"],
            )
            self._database.execute(
                "INSERT INTO attempts(id, job, number, state, started_ns) VALUES (?,?,?,?,?)",
                attempt_id(row["id"], number),
                row["id"],
                number,
                AttemptState.RUNNING,
                now_ns,
            )
            return self._attempt(row, number)

    def open_attempts(self) -> list[Attempt]:
        with self._database.transaction():
            return [
                self._attempt(self._job_row(row["job"]), row["number"])
                for row in self._database.rows("SELECT job, number FROM attempts WHERE state < 3 ORDER BY started_ns")
            ]

    def begin_commit(self, attempt: Attempt) -> bool:
        """From here on the attempt's outputs may be published; False where the job was cancelled meanwhile."""
        with self._database.transaction():
            if not self.is_current(attempt):
                return False
            self._database.execute("UPDATE attempts SET state = ? WHERE id = ?", AttemptState.COMMITTING, attempt.id)
            return True

    def finish(
        self, attempt: Attempt, reads: Sequence[StreamRef], writes: Sequence[StreamRef], output: str, now_ns: int
    ) -> None:
        """The attempt's outputs are published: its job is done, whatever was asked since."""
        with self._database.transaction():
            self._close(attempt, "done", now_ns)
            self._database.execute(
                "UPDATE jobs SET state = ?, cancelled = 0, error = '', output = ?, finished_ns = ? WHERE id = ?",
                JobState.DONE,
                output,
                now_ns,
                attempt.job,
            )
            for role, refs in (("read", reads), ("write", writes)):
                for ref in refs:
                    self._database.execute(
                        "INSERT OR IGNORE INTO refs(job, role, stream, path, version, digest) VALUES (?,?,?,?,?,?)",
                        attempt.job,
                        role,
                        ref.id,
                        ref.path,
                        ref.version,
                        ref.digest,
                    )

    def fail(self, attempt: Attempt, error: str, output: str, now_ns: int) -> JobState:
        """The attempt failed and its outputs are refused. Returns the job's state: QUEUED for a retry."""
        return self._unsuccessful(attempt, "failed", error, output, now_ns)

    def interrupt(self, attempt: Attempt, now_ns: int) -> JobState:
        """The attempt ended with the engine that ran it, and its outputs are refused."""
        return self._unsuccessful(attempt, "interrupted", "the rule engine died while it ran", "", now_ns)

    def release(self, attempt: Attempt, now_ns: int) -> JobState:
        """The attempt was stopped because the engine stops; that costs the job nothing."""
        return self._unsuccessful(attempt, "released", "", "", now_ns)

    def _unsuccessful(self, attempt: Attempt, outcome: str, error: str, output: str, now_ns: int) -> JobState:
        with self._database.transaction():
            row = self._job_row(attempt.job)
            self._close(attempt, outcome, now_ns)
            if row["state"] != JobState.RUNNING or row["attempts"] != attempt.number:
                return JobState(row["state"])
            failures = row["failures"] + (outcome == "failed")
            interruptions = row["interruptions"] + (outcome == "interrupted")
            if row["cancelled"]:
                state, ready_ns = JobState.CANCELLED, 0
            elif failures > row["retries"] or interruptions > limits.JOB_INTERRUPTIONS_MAX:
                state, ready_ns = JobState.FAILED, 0
            else:
                state = JobState.QUEUED
                ready_ns = now_ns + (_backoff_ns(failures) if outcome == "failed" else 0)
            self._database.execute(
                "UPDATE jobs SET state = ?, failures = ?, interruptions = ?, ready_ns = ?, finished_ns = ?,"
                " error = ?, output = ?, admitted_ns = CASE cancelled WHEN ? THEN 0 ELSE admitted_ns END WHERE id = ?",
                state,
                failures,
                interruptions,
                ready_ns,
                now_ns if state.final else 0,
                error or row["error"],
                output or row["output"],
                Cancelled.WITH_RULE,
                attempt.job,
            )
            if state is JobState.FAILED:
                self._announce_failure(attempt.job)
            return state

    def _close(self, attempt: Attempt, outcome: str, now_ns: int) -> None:
        self._database.execute(
            "UPDATE attempts SET state = ?, outcome = ?, finished_ns = ? WHERE id = ?",
            AttemptState.CLOSED,
            outcome,
            now_ns,
            attempt.id,
        )

    def is_current(self, attempt: Attempt) -> bool:
        """Whether the attempt is its job's latest and nobody cancelled it."""
        with self._database.transaction():
            row = self._job_row(attempt.job)
            return bool(row["state"] == JobState.RUNNING and row["attempts"] == attempt.number and not row["cancelled"])

    def next_ready_ns(self) -> int | None:
        """When the next queued job may start."""
        with self._database.transaction():
            row = self._database.row(f"SELECT min(ready_ns) AS ready_ns FROM jobs WHERE {_MAY_START}")
            return None if row is None else row["ready_ns"]

    def _announce_failure(self, job: str) -> None:
        self._announcements.put(failed_attempt_id(job), "job.failed", failed_event(self.job(job)))

    # ---- releasing and cancelling

    def release_held(self, job: str, now_ns: int) -> bool:
        """Let a job run that was held back; whether it was. It counts for its rule's limits from now on."""
        with self._database.transaction():
            return bool(
                self._database.execute(
                    "UPDATE jobs SET state = ?, error = '', ready_ns = ?, admitted_ns = ? WHERE id = ? AND state = ?",
                    JobState.QUEUED,
                    now_ns,
                    now_ns,
                    job,
                    JobState.HELD,
                ).rowcount
            )

    def cancel(self, job: str, why: Cancelled, now_ns: int) -> list[str]:
        """Cancel a job that has not finished. Returns the attempts whose processes are to be killed.

        An attempt whose outputs are just being published decides by how that ends.
        """
        with self._database.transaction():
            row = self._job_row(job)
            if JobState(row["state"]).final:
                return []
            latest = attempt_id(job, row["attempts"])
            committing = self._database.row(
                "SELECT 1 FROM attempts WHERE id = ? AND state = ?", latest, AttemptState.COMMITTING
            )
            if committing is not None and row["state"] == JobState.RUNNING:
                self._database.execute("UPDATE jobs SET cancelled = ? WHERE id = ?", why, job)
                return []
            self._database.execute(
                "UPDATE jobs SET state = ?, cancelled = ?, finished_ns = ?, error = ?,"
                " admitted_ns = CASE ? WHEN ? THEN 0 ELSE admitted_ns END WHERE id = ?",
                JobState.CANCELLED,
                why,
                now_ns,
                "cancelled: its rule was removed" if why is Cancelled.WITH_RULE else "cancelled",
                why,
                Cancelled.WITH_RULE,
                job,
            )
            return [latest] if row["state"] == JobState.RUNNING else []

    def cancel_rule(self, rule: str, spared: str | None, now_ns: int) -> list[str]:
        """Cancel the unfinished jobs of a rule, except the one that removes it (M11)."""
        with self._database.transaction():
            rows = self._database.rows("SELECT id FROM jobs WHERE rule = ? AND state IN (1, 2, 6)", rule)
            attempts: list[str] = []
            for row in rows:
                if row["id"] != spared:
                    attempts += self.cancel(row["id"], Cancelled.WITH_RULE, now_ns)
            return attempts

    # ---- looking

    def job(self, prefix: str) -> Job:
        """Raises `JobNotFound` for no job, `InvalidInput` where several ids begin so."""
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT * FROM jobs WHERE id >= ? AND id < ? ORDER BY id LIMIT 2", prefix, prefix + "\x7f"
            )
            if not rows or not prefix:
                raise JobNotFound(f"no job {prefix!r}; `hiss job ls` lists them", job=prefix)
            if len(rows) > 1 and rows[0]["id"] != prefix:
                raise InvalidInput(f"several jobs begin with {prefix!r}: give more digits of the id", job=prefix)
            return self._jobs(rows[:1])[0]

    def jobs(self, state: JobState | None, limit: int) -> list[Job]:
        """Newest first."""
        limit = max(0, min(limit, limits.JOBS_LISTED_MAX))
        with self._database.transaction():
            if state is None:
                rows = self._database.rows("SELECT * FROM jobs ORDER BY seq DESC LIMIT ?", limit)
            else:
                rows = self._database.rows("SELECT * FROM jobs WHERE state = ? ORDER BY seq DESC LIMIT ?", state, limit)
            return self._jobs(rows)

    def jobs_touching(self, path: str, version: int) -> list[Job]:
        """Those that a version of a stream triggered, that read it, or wrote it."""
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT * FROM jobs WHERE (path = ? AND version = ?)"
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
        row = self._database.row("SELECT * FROM jobs WHERE id = ?", job)
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

    def _attempt(self, row: sqlite3.Row, number: int) -> Attempt:
        return Attempt(
            id=attempt_id(row["id"], number),
            job=row["id"],
            number=number,
            rule=row["rule"],
            event=row["event"],
            path=row["path"],
            version=row["version"],
            write_prefix=row["write_prefix"],
            variables=json.loads(row["variables"]),
            timeout_s=row["timeout_s"],
            pattern=pattern_from_json(self._content(row["pattern_hash"])),
            recipe=recipe_from_json(self._content(row["recipe_hash"])),
        )

    def _content(self, content: str) -> str:
        row = self._database.row("SELECT body FROM contents WHERE hash = ?", content)
        assert row is not None, content
        return str(row["body"])


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


def _backoff_ns(failures: int) -> int:
    """Before the retry after so many failures: doubling, bounded."""
    return int(min(limits.JOB_RETRY_FIRST_S * 2 ** min(failures - 1, 30), limits.JOB_RETRY_MOST_S) * 1e9)
