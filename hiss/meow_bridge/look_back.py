"""Looking back: new rules meet what was there before them, as if it had just arrived (M10).

Rules that are made at once, as by a recipe for which patterns waited, look back together: the events are read once,
and each finds its rules by the index. It goes in bounded transactions, and each rule has a mark of its own that says
how far it has come; a page of events that matches no rule moves no mark. Whoever makes rules meets them, in his own
thread, and is told how many jobs that made; what he cannot finish, because the buffer goes away or the engine dies, a
thread takes up from the marks. Events after a rule's `since_seq` are the `Scheduler`'s.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from hiss import limits
from hiss.errors import Stopping
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.file_ledger import FileLedger
from hiss.meow_bridge.file_paths import is_file, local_path
from hiss.meow_bridge.job_maker import JobMaker, Match, subject_of
from hiss.meow_bridge.matching import accepts, concerns, is_own, placed
from hiss.meow_bridge.retry import log, until_done
from hiss.meow_bridge.rules import TIMER, ActiveRule, Mark, RuleBook
from hiss.meow_bridge.trigger import matches
from hiss.model import Event
from hiss.store import Store

Marks: TypeAlias = Mapping[ActiveRule, Mark]


class LookBack:
    """Its thread runs from `start()` until `stop`, which its owner sets; `join()` waits for it."""

    def __init__(
        self,
        database: Database,
        rules: RuleBook,
        maker: JobMaker,
        files: FileLedger,
        store: Store,
        stop: threading.Event,
    ) -> None:
        self._database = database
        self._rules = rules
        self._maker = maker
        self._files = files
        self._store = store
        self._stop = stop
        self._unmet = threading.Event()
        self._claimed: set[str] = set()  # rules that a call is just letting meet what is there
        self._thread = threading.Thread(target=self._finish, name="hiss-meow-look-back", daemon=True)

    def start(self) -> None:
        self._unmet.set()
        self._thread.start()

    def join(self) -> None:
        self._unmet.set()
        if self._thread.is_alive():
            self._thread.join()

    # ---- who meets what

    def claim(self, rules: Sequence[str]) -> None:
        """Inside of the transaction that makes the rules: they are met by who makes them, who gives them back."""
        self._database.after_commit(lambda: self._claimed.update(rules))

    def give_back(self, rules: Sequence[str]) -> None:
        with self._database.transaction():
            self._claimed.difference_update(rules)

    def finish_later(self) -> None:
        """A looking back was cut short: finish it as soon as the buffer is there."""
        self._unmet.set()

    def _finish(self) -> None:
        """Thread: finish what calls of `meet` could not."""
        while True:
            self._unmet.wait()
            self._unmet.clear()
            if self._stop.is_set():
                return
            with self._database.transaction():
                rules = [rule for rule in self._rules.looking_back() if rule not in self._claimed]
            try:
                until_done(lambda rules=rules: self.meet(rules), f"{len(rules)} rules", self._stop)  # type: ignore[misc]
            except Stopping:
                return
            except Exception:
                log.exception("rules %s: meeting what is there failed; tried again at the next start", rules[:10])

    # ---- meeting

    def meet(self, rules: Sequence[str]) -> int:
        """Let rules meet what was there before them, in one pass. Returns how many jobs that made.

        Only what still exists counts. Cut short by an error or a crash it is finished later, from the marks.
        """
        marks = self._rules.marks(rules)
        of_files = {rule: mark for rule, mark in marks.items() if is_file(rule.pattern.trigger)}
        of_streams = {rule: mark for rule, mark in marks.items() if rule not in of_files}
        made = 0
        for some, read in ((of_streams, self._events), (of_files, self._file_events)):
            if some:
                first = min(mark.met_seq for mark in some.values())
                last = max(mark.since_seq for mark in some.values())
                made += self._meet(some, read(first, last), last)
        return made

    def _meet(self, marks: Marks, events: Iterator[Event], last: int) -> int:
        made = 0
        while True:
            page = list(itertools.islice(events, limits.EVENTS_PAGE))
            if self._stop.is_set():
                raise Stopping("the rule engine stops; new rules meet the rest of what is there at the next start")
            is_last = len(page) < limits.EVENTS_PAGE
            before: list[Match] = []
            for some in _bounded(self._matches(marks, page)):
                if before:  # not the end of the page: the last event may have more rules
                    made += self._commit(marks, before, before[-1][1].seq - 1)
                before = some
            if before or is_last:
                made += self._commit(marks, before, last if is_last else page[-1].seq)
            if is_last:
                return made

    def _matches(self, marks: Marks, page: Sequence[Event]) -> Iterator[Match]:
        for event, rules in self._fitting(marks, page):
            if is_file(event.path):
                if os.path.isfile(local_path(event.path)):
                    yield from ((rule, event) for rule in rules)
                continue
            subject = subject_of(self._store, event)
            if subject is not None:
                yield from ((rule, event) for rule in rules if accepts(rule, subject))

    def _fitting(self, marks: Marks, page: Sequence[Event]) -> list[tuple[Event, list[ActiveRule]]]:
        """Events with the rules that are still to meet them; those without any are left out."""
        with self._database.transaction():
            matching = [(event, self._rules.matching(event.kind, event.path)) for event in page]
        fitting = [(event, [rule for rule in rules if _is_to_meet(marks, rule, event)]) for event, rules in matching]
        return [(event, rules) for event, rules in fitting if rules]

    def _commit(self, marks: Marks, matches: Sequence[Match], to_seq: int) -> int:
        """The jobs and the marks together; a rule that was removed or made anew meanwhile gets neither."""
        with self._database.transaction():
            standing = {rule for rule in marks if self._rules.active(rule.rule.id) is rule}
            made = self._maker.make(match for match in matches if match[0] in standing)
            self._rules.set_met([rule.rule.id for rule in standing], to_seq)
            return made

    # ---- what is there

    def _events(self, after: int, until: int) -> Iterator[Event]:
        events = self._store.events(after, self._stop, follow=False)
        return map(placed, itertools.takewhile(lambda event: event.seq <= until, events))

    def _file_events(self, after: int, until: int) -> Iterator[Event]:
        return itertools.chain.from_iterable(self._files.pages(after, until))

    def count_existing(self, rule: ActiveRule) -> int:
        """How many jobs a rule that is not there yet would make of what is. Changes nothing. Raises `Unavailable`."""
        pattern = rule.pattern
        if pattern.event == TIMER:
            return 0
        events: Iterable[Event] = (
            self._file_events(0, self._files.newest())
            if is_file(pattern.trigger)
            else map(placed, self._store.events(0, self._stop, follow=False))
        )
        return sum(
            self._maker.would_make(rule, event)
            for event in events
            if event.kind == pattern.event
            and matches(pattern.trigger, event.path)
            and not is_own(rule, event)
            and concerns(rule, event)
            and self._is_there(rule, event)
        )

    def _is_there(self, rule: ActiveRule, event: Event) -> bool:
        if is_file(event.path):
            return os.path.isfile(local_path(event.path))
        subject = subject_of(self._store, event)
        return subject is not None and accepts(rule, subject)


def _is_to_meet(marks: Marks, rule: ActiveRule, event: Event) -> bool:
    mark = marks.get(rule)
    if mark is None or not mark.met_seq < event.seq <= mark.since_seq:
        return False
    return not is_own(rule, event) and concerns(rule, event)


def _bounded(matches: Iterable[Match]) -> Iterator[list[Match]]:
    """In runs that make about `limits.JOB_ROWS_MAX` rows each."""
    some: list[Match] = []
    rows = 0
    for match in matches:
        some.append(match)
        rows += len(match[0].points)
        if rows >= limits.JOB_ROWS_MAX:
            yield some
            some, rows = [], 0
    if some:
        yield some
