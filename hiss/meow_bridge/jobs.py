"""Jobs and their attempts in `jobs.db`.

A job is one row under the hash of (event, rule, sweep point); its state goes QUEUED -> RUNNING -> DONE, FAILED or
CANCELLED, with RUNNING -> QUEUED for a retry; what a limit holds back is HELD first, until it is released. With its
end it moves from the table `jobs`, which stays as small as what is going on, to `archive`. An attempt
is open from its start until its outputs are known to be either published or refused for ever; open attempts are what
a start after a crash has to look at. An attempt changes its job only while the job is RUNNING and the attempt is its
latest.

Every method joins or opens a transaction; callable from any thread.
"""

from __future__ import annotations

import enum
import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hiss import limits
from hiss.meow_bridge.admission import Admission
from hiss.meow_bridge.announcements import Announcements
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.executor import Capacity, Room
from hiss.meow_bridge.identity import (
    attempt_id,
    failed_attempt_id,
    looping_event_id,
    pattern_from_json,
    recipe_from_json,
)
from hiss.meow_bridge.job_events import failed_event, looping_event
from hiss.meow_bridge.job_list import JobList
from hiss.meow_bridge.retry import log
from hiss.workflow import JobState, Pattern, Recipe, StreamRef

_MAY_START: Final = (  # a job that waits, and of whose rule not as many run as may run at once
    "state = 1 AND rule NOT IN"
    " (SELECT rule FROM jobs WHERE state = 2 AND at_once IS NOT NULL GROUP BY rule HAVING count(*) >= at_once)"
)


_INSERT: Final = (
    "INSERT INTO jobs(id, rule, pattern, recipe, pattern_hash, recipe_hash, event, path, version, input,"
    " write_prefix, variables, timeout_s, retries, cores, memory_bytes, state, error, created_ns, ready_ns,"
    " finished_ns, cause, chain, laps, at_once, admitted_ns)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    " ON CONFLICT(id) DO UPDATE SET state = excluded.state, cancelled = 0, failures = 0, interruptions = 0,"
    " error = excluded.error, finished_ns = 0, ready_ns = excluded.ready_ns,"
    " admitted_ns = excluded.admitted_ns WHERE cancelled = 2 AND state = 5"
)
_BATCH_ROWS: Final = 500  # looked up at once; SQLite takes so many values, and more


class AttemptState(enum.IntEnum):
    RUNNING = 1
    COMMITTING = 2  # its process ended well; the buffer is asked to publish what it wrote
    CLOSED = 3


class Cancelled(enum.IntEnum):
    NOT = 0
    BY_REQUEST = 1
    WITH_RULE = 2  # and comes back to life if the same rule does


_WOKEN: Final = (JobState.CANCELLED, Cancelled.WITH_RULE)


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
    variables_json: str
    timeout_s: float
    retries: int
    cores: int
    memory_bytes: int | None
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
    cores: int
    memory_bytes: int
    pattern: Pattern
    recipe: Recipe


class JobTable(JobList):
    def __init__(self, database: Database, announcements: Announcements) -> None:
        super().__init__(database)
        self._announcements = announcements

    # ---- scheduling

    def insert(self, jobs: Iterable[NewJob], admission: Admission, now_ns: int) -> int:
        """Insert those that are not there; wake those that were cancelled with their rule. Returns how many.

        They are all of one event and one rule, whose `admission` says which of them are held back; or of any that no
        limit and no chain of causes has to know of.
        """
        with self._database.transaction():
            made = 0
            for some in _batches(jobs):
                some = self._not_ended(some)
                if admission.holds_none and not any(job.error for job in some):
                    new = self._insert_rows(some, JobState.QUEUED, "", admission, now_ns)
                    if new and not made:
                        self._tell_of_limits(some[0], "", admission)
                    made += new
                else:
                    made += sum(self._insert_checked(job, admission, now_ns, not made) for job in some)
        return made

    def _insert_checked(self, job: NewJob, admission: Admission, now_ns: int, is_first: bool) -> int:
        """Insert one that may be held back, or has failed already; whether it was new."""
        held = "" if job.error else admission.refusal()
        state = JobState.FAILED if job.error else JobState.HELD if held else JobState.QUEUED
        if not self._insert_rows([job], state, job.error or held, admission, now_ns):
            return 0
        if state is JobState.QUEUED:
            admission.admitted()
        elif state is JobState.FAILED:
            self._announce_failure(job.id)
            self._archive(job.id)
        if is_first:
            self._tell_of_limits(job, held, admission)
        return 1

    def _not_ended(self, jobs: Sequence[NewJob]) -> list[NewJob]:
        """Those that have not ended before; one that was cancelled with its rule has not, now that this is back."""
        marks = ",".join("?" * len(jobs))
        rows = self._database.rows(
            f"SELECT id, state, cancelled FROM archive WHERE id IN ({marks})", *(job.id for job in jobs)
        )
        if not rows:
            return list(jobs)
        woken = [row["id"] for row in rows if (row["state"], row["cancelled"]) == _WOKEN]
        for job in woken:
            self._database.execute("INSERT INTO jobs SELECT * FROM archive WHERE id = ?", job)
            self._database.execute("DELETE FROM archive WHERE id = ?", job)
        ended = {row["id"] for row in rows} - set(woken)
        return [job for job in jobs if job.id not in ended]

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

    def _insert_rows(
        self, jobs: Sequence[NewJob], state: JobState, error: str, admission: Admission, now_ns: int
    ) -> int:
        """Insert those that are not there, or wait to be woken; returns how many."""
        finished_ns = now_ns if state.final else 0
        admitted_ns = admission.admitted_ns if state is JobState.QUEUED else 0
        return self._database.execute_many(
            _INSERT,
            [
                (
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
                    job.variables_json,
                    job.timeout_s,
                    job.retries,
                    job.cores,
                    job.memory_bytes,
                    int(state),
                    error,
                    now_ns,
                    now_ns,
                    finished_ns,
                    admission.cause,
                    admission.chain,
                    admission.laps,
                    job.at_once,
                    admitted_ns,
                )
                for job in jobs
            ],
        )

    def _archive(self, job: str) -> None:
        """The job has ended: it leaves the table of what is going on."""
        self._database.execute("INSERT INTO archive SELECT * FROM jobs WHERE id = ?", job)
        self._database.execute("DELETE FROM jobs WHERE id = ?", job)

    # ---- attempts

    def claim(self, now_ns: int, host: str, room: Room) -> Attempt | None:
        """Start an attempt of the job that has waited longest, if what it needs is free.

        If it is not, one that needs less goes first, but not when the other has waited for `limits.JOB_OVERTAKEN_S`.
        What needs more than there is at all fails, unless that may grow.
        """
        with self._database.transaction():
            row = self._longest_waiting(now_ns, room)
            if row is None:
                return None
            if not _fits(row, room.free, room):
                if now_ns - row["ready_ns"] > limits.JOB_OVERTAKEN_S * 1e9:
                    return None
                row = self._next(now_ns, room.free, room)
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
            return self._attempt(row, number, room.default_bytes)

    def _longest_waiting(self, now_ns: int, room: Room) -> sqlite3.Row | None:
        """The job that has waited longest of those that can start at all; the others fail."""
        while True:
            row = self._next(now_ns, None, room)
            if row is None or _fits(row, room.whole, room):
                return row
            if room.whole.may_grow:
                return self._next(now_ns, room.whole, room)
            self._fail_unstarted(row, room.whole, now_ns)

    def _next(self, now_ns: int, within: Capacity | None, room: Room) -> sqlite3.Row | None:
        """The job that has waited longest, of those that need no more than what is given."""
        may = f"SELECT * FROM jobs WHERE {_MAY_START} AND ready_ns <= ?"
        order = "ORDER BY ready_ns, seq LIMIT 1"
        if within is None:
            return self._database.row(f"{may} {order}", now_ns)
        fitting = "cores <= ? AND coalesce(memory_bytes, ?) <= ?"
        values = (now_ns, within.cores, room.default_bytes, within.memory_bytes)
        return self._database.row(f"{may} AND {fitting} {order}", *values)

    def _fail_unstarted(self, row: sqlite3.Row, whole: Capacity, now_ns: int) -> None:
        """A job that can never start, as things are."""
        wanted = f"{row['cores']} cores" + (f" and {row['memory_bytes']} bytes" if row["memory_bytes"] else "")
        self._database.execute(
            "UPDATE jobs SET state = ?, finished_ns = ?, error = ? WHERE seq = ?",
            JobState.FAILED,
            now_ns,
            f"it needs {wanted}; where jobs run there are {whole.cores} cores and {whole.memory_bytes} bytes",
            row["seq"],
        )
        self._announce_failure(row["id"])
        self._archive(row["id"])

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
            self._archive(attempt.job)

    def fail(self, attempt: Attempt, error: str, output: str, now_ns: int) -> JobState:
        """The attempt failed and its outputs are refused. Returns the job's state: QUEUED for a retry."""
        return self._unsuccessful(attempt, "failed", error, output, now_ns)

    def interrupt(self, attempt: Attempt, error: str, now_ns: int) -> JobState:
        """The attempt ended with what ran it, and its outputs are refused."""
        return self._unsuccessful(attempt, "interrupted", error, "", now_ns)

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
            if state.final:
                self._archive(attempt.job)
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
            self._archive(job)
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

    def would_insert(self, job: str) -> bool:
        """Whether `insert` would make this job, or wake it."""
        with self._database.transaction():
            row = self._database.row("SELECT state, cancelled FROM every_job WHERE id = ?", job)
        return row is None or (row["state"] == JobState.CANCELLED and row["cancelled"] == Cancelled.WITH_RULE)

    def last_attempt(self, job: str) -> Attempt:
        """The latest attempt of a job, as it was told."""
        with self._database.transaction():
            row = self._job_row(job)
            return self._attempt(row, row["attempts"])

    def _attempt(self, row: sqlite3.Row, number: int, default_bytes: int = 0) -> Attempt:
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
            cores=row["cores"],
            memory_bytes=row["memory_bytes"] or default_bytes,
            pattern=pattern_from_json(self._content(row["pattern_hash"])),
            recipe=recipe_from_json(self._content(row["recipe_hash"])),
        )

    def _content(self, content: str) -> str:
        row = self._database.row("SELECT body FROM contents WHERE hash = ?", content)
        assert row is not None, content
        return str(row["body"])


def _fits(row: sqlite3.Row, within: Capacity, room: Room) -> bool:
    needed = row["memory_bytes"] or room.default_bytes
    return bool(row["cores"] <= within.cores and needed <= within.memory_bytes)


def _batches(jobs: Iterable[NewJob]) -> Iterator[list[NewJob]]:
    jobs = iter(jobs)
    while some := list(itertools.islice(jobs, _BATCH_ROWS)):
        yield some


def _backoff_ns(failures: int) -> int:
    """Before the retry after so many failures: doubling, bounded."""
    return int(min(limits.JOB_RETRY_FIRST_S * 2 ** min(failures - 1, 30), limits.JOB_RETRY_MOST_S) * 1e9)
