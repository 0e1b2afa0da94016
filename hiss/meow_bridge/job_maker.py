"""From matches to rows of jobs, for all that finds matches: events as they come, and looking back.

Every method is called inside of a transaction, from the thread that holds it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TypeAlias

from hiss.errors import NotFound
from hiss.meow_bridge.admission import Admission, is_plain
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.jobs import JobTable
from hiss.meow_bridge.matching import Subject, new_jobs
from hiss.meow_bridge.rules import ActiveRule
from hiss.model import Event
from hiss.store import Store

Match: TypeAlias = tuple[ActiveRule, Event]


class JobMaker:
    """
    Parameters
    ----------
    database, jobs
        Where the jobs go.
    clock_ns : callable
        UTC in nanoseconds since 1970.
    jobs_made : callable
        Called after the commit of new jobs.
    """

    def __init__(
        self, database: Database, jobs: JobTable, clock_ns: Callable[[], int], jobs_made: Callable[[], None]
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._clock_ns = clock_ns
        self._jobs_made = jobs_made

    def make(self, matches: Iterable[Match]) -> int:
        """The jobs of many matches; those in which no limit and no chain has a say go in together."""
        made = 0
        plain = []
        for rule, event in matches:
            if is_plain(rule, event):
                plain.append((rule, event))
            else:
                now_ns = self._clock_ns()
                admission = Admission(self._database, rule, event, now_ns)
                made += self._jobs.insert(new_jobs(rule, event), admission, now_ns)
        if plain:
            now_ns = self._clock_ns()
            jobs = itertools.chain.from_iterable(new_jobs(rule, event) for rule, event in plain)
            made += self._jobs.insert(jobs, Admission(self._database, *plain[0], now_ns), now_ns)
        if made:
            self._database.after_commit(self._jobs_made)
        return made

    def would_make(self, rule: ActiveRule, event: Event) -> int:
        """How many jobs `make` would make of one match. Changes nothing."""
        return sum(self._jobs.would_insert(job.id) for job in new_jobs(rule, event))


def subject_of(store: Store, event: Event) -> Subject | None:
    """What an event is of, asked from the buffer; None if it does not exist any more. Outside of transactions."""
    try:
        if event.stream:
            info = store.stream(event.path, event.version)
            return Subject(info.attrs, info.completeness.gaps)
        return Subject(store.collection(event.collection).attrs if event.collection else {}, 0)
    except NotFound:
        return None
