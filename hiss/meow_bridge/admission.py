"""Which new jobs of a rule may run, and which its pattern's limits hold back.

An `Admission` is made for one event and one rule, or for all that `is_plain`, inside of the transaction that
inserts the jobs, and counts along: what is committed together is within the limits together. It also knows where the
jobs stand in the chain of causes: how many jobs led to one another, and how often the rule's pattern was among them.
Jobs are counted from `admitted_ns`; what was held back, or cancelled with its rule, does not count. Not thread-safe:
the database's lock covers it.
"""

from __future__ import annotations

from typing import Final

from hiss import limits
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.identity import job_of_attempt
from hiss.meow_bridge.rules import ActiveRule
from hiss.model import Event

HOUR_NS: Final = 3600 * 10**9


class Admission:
    """
    Parameters
    ----------
    database : Database
        Inside of a transaction.
    rule, event
        What the jobs are made of.
    now_ns : int
        When they are made.
    """

    def __init__(self, database: Database, rule: ActiveRule, event: Event, now_ns: int) -> None:
        self._pattern = rule.pattern
        self._now_ns = now_ns
        self.cause = cause_of(event)
        self.chain, self.laps = _place_in_chain(database, self.cause, rule.pattern.name)
        self.counts = rule.pattern.jobs_expected is not None or rule.pattern.jobs_an_hour is not None
        self._used = self._used_in_hour = 0
        if rule.pattern.jobs_expected is not None:
            self._used = _admitted(database, rule.rule.id, 0, rule.pattern.jobs_expected)
        if rule.pattern.jobs_an_hour is not None:
            self._used_in_hour = _admitted(database, rule.rule.id, now_ns - HOUR_NS, rule.pattern.jobs_an_hour)
        self._standing = self._refusal_of_event(rule, event)

    @property
    def holds_none(self) -> bool:
        """Whether every job may run, however many there are: nobody has to look at each."""
        return not self.counts and not self._standing

    def refusal(self) -> str:
        """Why the next job is held back; '' where it may run."""
        pattern = self._pattern
        if self._standing:
            return self._standing
        if pattern.jobs_expected is not None and self._used >= pattern.jobs_expected:
            return f"held back: pattern {pattern.name} expects {pattern.jobs_expected} jobs, and they were made"
        if pattern.jobs_an_hour is not None and self._used_in_hour >= pattern.jobs_an_hour:
            return f"held back: pattern {pattern.name} allows {pattern.jobs_an_hour} jobs an hour"
        return ""

    def admitted(self) -> None:
        """One more job was made that may run."""
        self._used += 1
        self._used_in_hour += 1

    @property
    def admitted_ns(self) -> int:
        """What a job that may run gets as `admitted_ns`; 0 where nobody counts."""
        return self._now_ns if self.counts else 0

    def is_lap_to_warn_of(self) -> bool:
        """The 10th, 100th, 1000th … time that the chain comes by the same pattern."""
        digits = str(self.laps)
        return self.laps >= 10 and digits == "1".ljust(len(digits), "0")

    def _refusal_of_event(self, rule: ActiveRule, event: Event) -> str:
        pattern = rule.pattern
        longest = limits.CHAIN_JOBS_MAX if pattern.chain_jobs is None else pattern.chain_jobs
        if self.chain > longest:
            return f"held back: it is job {self.chain} of a chain, pattern {pattern.name} allows {longest}"
        if pattern.lifetime_s is not None and event.time_ns > rule.rule.created_ns + pattern.lifetime_s * 1e9:
            return f"held back: the rule's lifetime of {pattern.lifetime_s:g} s was over"
        return ""


def is_plain(rule: ActiveRule, event: Event) -> bool:
    """Whether no limit, and no chain of causes, has a say: any number of such jobs have one admission."""
    pattern = rule.pattern
    limited = pattern.jobs_expected, pattern.jobs_an_hour, pattern.lifetime_s
    return all(limit is None for limit in limited) and not cause_of(event)


def cause_of(event: Event) -> str:
    """The job that an event comes from, or ''."""
    return job_of_attempt(str(event.data.get("job") or event.data.get("produced_by") or ""))


def _place_in_chain(database: Database, cause: str, pattern: str) -> tuple[int, int]:
    """How long the chain is with a job that `cause` leads to, and how many of its jobs before are of the pattern.

    The second is looked for `limits.LOOP_SEARCH_JOBS_MAX` jobs back; from there on that job knows.
    """
    row = database.row("SELECT pattern, cause, chain, laps FROM every_job WHERE id = ?", cause) if cause else None
    if row is None:
        return 1, 0
    chain = row["chain"] + 1
    for _ in range(limits.LOOP_SEARCH_JOBS_MAX):
        if row["pattern"] == pattern:
            return chain, row["laps"] + 1
        row = database.row("SELECT pattern, cause, laps FROM every_job WHERE id = ?", row["cause"])
        if row is None:
            break
    return chain, 0


def _admitted(database: Database, rule: str, after_ns: int, at_most: int) -> int:
    """How many jobs of a rule count since then; counted up to `at_most`."""
    row = database.row(
        "SELECT count(*) AS many FROM"
        " (SELECT 1 FROM every_job WHERE rule = ? AND admitted_ns > ? AND admitted_ns > 0 LIMIT ?)",
        rule,
        after_ns,
        at_most,
    )
    assert row is not None
    return int(row["many"])
