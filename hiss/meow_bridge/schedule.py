"""Events to jobs as they come: every event meets every rule, once (M6-M9).

A thread reads the buffer's events from the cursor on, another takes what has gathered, matches it, and commits the
jobs together with the cursor; so an event is either dealt with or will be read again. What was there before a rule
(events up to its `since_seq`) is left to the `LookBack`. A job's id decides in both that it is made once.

Conditions need a look at the stream, which is a call to the buffer: it is made outside of the transaction, and the
match repeated with what it told, because the rules may have changed meanwhile.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence

from hiss import limits
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.file_ledger import Content, FileLedger
from hiss.meow_bridge.job_maker import JobMaker, Match, subject_of
from hiss.meow_bridge.matching import Subject, accepts, concerns, has_conditions, is_own, placed
from hiss.meow_bridge.retry import PASSING, Pauses, log
from hiss.meow_bridge.rules import ActiveRule, RuleBook
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
        maker: JobMaker,
        files: FileLedger,
        store: Store,
        clock_ns: Callable[[], int],
        stop: threading.Event,
    ) -> None:
        self._database = database
        self._rules = rules
        self._maker = maker
        self._files = files
        self._store = store
        self._clock_ns = clock_ns
        self._stop = stop
        self._events: queue.Queue[Event] = queue.Queue(limits.EVENTS_PAGE)
        self._queued = self._cursor()  # of the reading thread: the last event in the queue
        self._threads = [
            threading.Thread(target=target, name=f"hiss-meow-{name}", daemon=True)
            for name, target in (("events", self._read), ("match", self._match))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
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
            subjects |= {event.id: subject_of(self._store, event) for event in unknown}

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
        matches: list[Match] = []
        for place, event in enumerate(events):
            if rows >= limits.JOB_ROWS_MAX:
                events, left = events[:place], events[place:]
                break
            for rule in self._fitting(event):
                if not has_conditions(rule) or self._met(rule, subjects[event.id]):
                    matches.append((rule, event))
                    rows += len(rule.points)
        else:
            left = []
        self._maker.make(matches)
        if events:
            self._advance(events[-1].node, events[-1].seq)
        return left

    @staticmethod
    def _met(rule: ActiveRule, subject: Subject | None) -> bool:
        return subject is not None and accepts(rule, subject)

    def deal_with_file(self, content: Content) -> None:
        """A watched file is settled: its event, if the content is new, commits together with the jobs that it makes."""
        with self._database.transaction():
            event = self._files.record(content, self._clock_ns())
            if event is None:
                return
            rules = self._rules.matching(event.kind, event.path)
            self._maker.make((rule, event) for rule in rules if event.seq > rule.since_seq)
