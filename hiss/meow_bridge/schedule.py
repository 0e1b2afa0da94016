"""Events to jobs: every event meets every rule, once (M6-M10).

Two ways lead from events to jobs. *As they come*: a thread reads the buffer's events from the cursor on, another
takes what has gathered, matches it, and commits the jobs together with the cursor; so an event is either dealt with
or will be read again. *Looking back*: a new rule meets the events up to the one that was newest when it was made
(`since_seq`), in bounded transactions behind a mark of its own; the first way leaves those events out for it. A job's
id decides in both that it is made once.

Conditions need a look at the stream, which is a call to the buffer: it is made outside of the transaction, and the
match repeated with what it told, because the rules may have changed meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from hiss import limits
from hiss.errors import NotFound, Stopping
from hiss.meow_bridge.admission import Admission, is_plain
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.file_ledger import Content, FileLedger
from hiss.meow_bridge.file_paths import is_file, local_path
from hiss.meow_bridge.jobs import JobTable
from hiss.meow_bridge.matching import Subject, accepts, concerns, has_conditions, is_own, new_jobs, placed
from hiss.meow_bridge.retry import PASSING, Pauses, log, until_done
from hiss.meow_bridge.rules import TIMER, ActiveRule, RuleBook
from hiss.meow_bridge.trigger import matches
from hiss.model import Event
from hiss.store import Store

_WAIT_S = 0.2  # for events, before a look at `stop`

Subjects = dict[str, Subject | None]  # by the event's id; None: it does not exist any more


class Scheduler:
    """Its threads run from `start()` until `stop`, which its owner sets; `join()` waits for them."""

    def __init__(
        self,
        database: Database,
        rules: RuleBook,
        jobs: JobTable,
        files: FileLedger,
        store: Store,
        clock_ns: Callable[[], int],
        jobs_made: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._database = database
        self._rules = rules
        self._jobs = jobs
        self._files = files
        self._store = store
        self._clock_ns = clock_ns
        self._jobs_made = jobs_made
        self._stop = stop
        self._events: queue.Queue[Event] = queue.Queue(limits.EVENTS_PAGE)
        self._queued = self._cursor()  # of the reading thread: the last event in the queue
        self._unmet = threading.Event()
        self._claimed: set[str] = set()  # rules that a call is just letting meet what is there
        self._threads = [
            threading.Thread(target=target, name=f"hiss-meow-{name}", daemon=True)
            for name, target in (("events", self._read), ("match", self._match), ("look-back", self._finish_meeting))
        ]

    def start(self) -> None:
        self._unmet.set()
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        self._unmet.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    # ---- where the events stand

    def cursor(self) -> int:
        """The last event that was dealt with."""
        return self._cursor()[1]

    def newest(self) -> int:
        """The newest event that there is. Raises `Unavailable`."""
        seq = self.cursor()
        for event in self._store.events(seq, self._stop, follow=False):
            seq = event.seq
        return seq

    def _cursor(self) -> tuple[str, int]:
        with self._database.transaction():
            row = self._database.row("SELECT node, seq FROM cursor")
            return ("", 0) if row is None else (row["node"], row["seq"])

    def _advance(self, node: str, seq: int) -> None:
        self._database.execute("INSERT OR REPLACE INTO cursor(one, node, seq) VALUES (1,?,?)", node, seq)

    def adopt(self, node: str) -> None:
        """Start at the beginning of another node's events, if it is another."""
        with self._database.transaction():
            known, _ = self._cursor()
            if known == node:
                return
            if known:
                log.warning("events: the buffer is node %s, not %s; all its events count as new", node, known)
                self._rules.forget_events()
            self._advance(node, 0)

    # ---- as they come

    def _read(self) -> None:
        """Thread: put the buffer's events into the queue, from the cursor on."""
        pauses = Pauses(self._stop)
        while not self._stop.is_set():
            try:
                node = self._store.status().node
                self.adopt(node)
                if self._queued[0] != node:
                    self._queued = (node, self.cursor())
                for event in self._store.events(self._queued[1], self._stop):
                    pauses.reset()
                    if not self._put(event):
                        return
                    self._queued = (node, event.seq)
            except PASSING as error:
                log.warning("events: %s; trying again", error)
            except Exception:
                log.exception("events: reading them failed; trying again")
            pauses.wait()

    def _put(self, event: Event) -> bool:
        while not self._stop.is_set():
            try:
                self._events.put(event, timeout=_WAIT_S)
                return True
            except queue.Full:
                pass
        return False

    def _match(self) -> None:
        """Thread: deal with what has gathered in the queue."""
        pauses = Pauses(self._stop)
        batch: list[Event] = []
        while not self._stop.is_set():
            batch = batch or self._gathered()
            try:
                while batch and not self._stop.is_set():
                    batch = self.deal_with(batch)
                pauses.reset()
            except PASSING as error:
                log.warning("matching: %s; trying again", error)
                pauses.wait()
            except Exception:
                log.exception("matching: event %s and those after it; trying again", batch[0].id if batch else "")
                pauses.wait()

    def _gathered(self) -> list[Event]:
        batch: list[Event] = []
        with contextlib.suppress(queue.Empty):
            batch.append(self._events.get(timeout=_WAIT_S))
            while len(batch) < limits.EVENTS_PAGE:
                batch.append(self._events.get_nowait())
        return batch

    def deal_with(self, events: Sequence[Event]) -> list[Event]:
        """Match events that follow the cursor, all in one transaction; returns those that are left for the next one."""
        events = [placed(event) for event in events]
        subjects: Subjects = {}
        while True:
            with self._database.transaction():
                node, cursor = self._cursor()
                new = [event for event in events if event.node == node and event.seq > cursor]
                unknown = [event for event in new if event.id not in subjects and self._is_asked(event)]
                if not unknown:
                    return self._schedule(new, subjects)
            subjects |= {event.id: self._subject(event) for event in unknown}

    def _fitting(self, event: Event) -> list[ActiveRule]:
        return [
            rule
            for rule in self._rules.matching(event.kind, event.path)
            if event.seq > rule.since_seq and not is_own(rule, event) and concerns(rule, event)
        ]

    def _is_asked(self, event: Event) -> bool:
        return any(has_conditions(rule) for rule in self._fitting(event))

    def _schedule(self, events: list[Event], subjects: Subjects) -> list[Event]:
        rows = 0
        pairs: list[tuple[ActiveRule, Event]] = []
        for place, event in enumerate(events):
            if rows >= limits.JOB_ROWS_MAX:
                events, left = events[:place], events[place:]
                break
            for rule in self._fitting(event):
                if not has_conditions(rule) or self._met(rule, subjects[event.id]):
                    pairs.append((rule, event))
                    rows += len(rule.points)
        else:
            left = []
        made = self._insert_all(pairs)
        if events:
            self._advance(events[-1].node, events[-1].seq)
        if made:
            self._database.after_commit(self._jobs_made)
        return left

    def _insert_all(self, pairs: Iterable[tuple[ActiveRule, Event]]) -> int:
        """The jobs of many matches; those in which no limit and no chain has a say go in together."""
        made = 0
        plain = []
        for rule, event in pairs:
            if is_plain(rule, event):
                plain.append((rule, event))
            else:
                made += self._insert(rule, event)
        if plain:
            now_ns = self._clock_ns()
            jobs = itertools.chain.from_iterable(new_jobs(rule, event) for rule, event in plain)
            made += self._jobs.insert(jobs, Admission(self._database, *plain[0], now_ns), now_ns)
        return made

    def _insert(self, rule: ActiveRule, event: Event) -> int:
        now_ns = self._clock_ns()
        return self._jobs.insert(new_jobs(rule, event), Admission(self._database, rule, event, now_ns), now_ns)

    @staticmethod
    def _met(rule: ActiveRule, subject: Subject | None) -> bool:
        return subject is not None and accepts(rule, subject)

    def _subject(self, event: Event) -> Subject | None:
        """What the event is of, or None if it does not exist any more."""
        try:
            if event.stream:
                info = self._store.stream(event.path, event.version)
                return Subject(info.attrs, info.completeness.gaps)
            return Subject(self._store.collection(event.collection).attrs if event.collection else {}, 0)
        except NotFound:
            return None

    def deal_with_file(self, content: Content) -> None:
        """A watched file is settled: its event, if the content is new, commits together with the jobs that it makes."""
        with self._database.transaction():
            event = self._files.record(content, self._clock_ns())
            if event is None:
                return
            rules = [rule for rule in self._rules.matching(event.kind, event.path) if event.seq > rule.since_seq]
            if sum(self._insert(rule, event) for rule in rules):
                self._database.after_commit(self._jobs_made)

    # ---- looking back

    def meet_existing(self, rule: str) -> int:
        """Let a rule meet what was there before it (M10). Returns how many jobs that made.

        Only what still exists counts. Cut short by an error or a crash it is finished later by `_finish_meeting`.
        """
        mark = self._rules.met(rule)
        if mark is None or mark[0] >= mark[1]:
            return 0
        active = self._rules.active(rule)
        if active is not None and is_file(active.pattern.trigger):
            return self._meet_files(active, *mark)
        made = 0
        events = self._store.events(mark[0], self._stop, follow=False)
        for page in _pages(placed(event) for event in itertools.takewhile(lambda event: event.seq <= mark[1], events)):
            made += self._meet(rule, page, page[-1].seq)
        if self._stop.is_set():
            raise Stopping(f"rule {rule}: the rule engine stops; it meets the rest of what is there at the next start")
        return made + self._meet(rule, [], mark[1])

    def count_existing(self, rule: ActiveRule) -> int:
        """How many jobs a rule that is not there yet would make of what is. Changes nothing. Raises `Unavailable`."""
        if rule.pattern.event == TIMER:
            return 0
        if is_file(rule.pattern.trigger):
            events: Iterable[Event] = itertools.chain.from_iterable(self._files.pages(0, self._files.newest()))
        else:
            events = self._store.events(0, self._stop, follow=False)
        made = 0
        for event in map(placed, events):
            if (
                event.kind == rule.pattern.event
                and matches(rule.pattern.trigger, event.path)
                and not is_own(rule, event)
                and concerns(rule, event)
                and (
                    os.path.isfile(local_path(event.path))
                    if is_file(event.path)
                    else self._met(rule, self._subject(event))
                )
            ):
                made += sum(self._jobs.would_insert(job.id) for job in new_jobs(rule, event))
        return made

    def _meet_files(self, rule: ActiveRule, after: int, until: int) -> int:
        """The same for a rule over watched files: those that are there, in the content that was seen."""
        made = 0
        for page in self._files.pages(after, until):
            there = [event for event in page if self._fits(rule, event) and os.path.isfile(local_path(event.path))]
            made += self._insert_met(rule, there, page[-1].seq)
        return made + self._insert_met(rule, [], until)

    def _meet(self, rule: str, page: Sequence[Event], to_seq: int) -> int:
        active = self._rules.active(rule)
        if active is None:
            return 0
        there = [event for event in page if self._fits(active, event) and self._met(active, self._subject(event))]
        return self._insert_met(active, there, to_seq)

    def _insert_met(self, rule: ActiveRule, there: Sequence[Event], to_seq: int) -> int:
        with self._database.transaction():
            if self._rules.met(rule.rule.id) is None:
                return 0
            made = self._insert_all((rule, event) for event in there)
            self._rules.set_met(rule.rule.id, to_seq)
            if made:
                self._database.after_commit(self._jobs_made)
            return made

    def _fits(self, rule: ActiveRule, event: Event) -> bool:
        with self._database.transaction():
            return (
                not is_own(rule, event)
                and concerns(rule, event)
                and any(found is rule for found in self._rules.matching(event.kind, event.path))
            )

    def claim(self, rules: Sequence[str]) -> None:
        """Inside of the transaction that makes the rules: they are met by who makes them, who gives them back."""
        self._database.after_commit(lambda: self._claimed.update(rules))

    def give_back(self, rules: Sequence[str]) -> None:
        with self._database.transaction():
            self._claimed.difference_update(rules)

    def finish_later(self) -> None:
        """A rule's looking back was cut short: finish it as soon as the buffer is there."""
        self._unmet.set()

    def _finish_meeting(self) -> None:
        """Thread: finish what calls of `meet_existing` could not, because the buffer went away or the engine died."""
        while True:
            self._unmet.wait()
            self._unmet.clear()
            if self._stop.is_set():
                return
            for rule in self._rules.looking_back():
                if rule in self._claimed:
                    continue
                try:
                    until_done(lambda rule=rule: self.meet_existing(rule), f"rule {rule}", self._stop)  # type: ignore[misc]
                except Stopping:
                    return
                except Exception:
                    log.exception("rule %s: meeting what is there failed; tried again at the next start", rule)


def _pages(events: Iterable[Event]) -> Iterator[list[Event]]:
    events = iter(events)
    while page := list(itertools.islice(events, limits.EVENTS_PAGE)):
        yield page
