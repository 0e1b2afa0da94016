"""Timers: rules whose event is a time. Jobs are made by the clock, exactly one for each time, rule and sweep point.

The event of a time is not one of the buffer's: its id is `timer-` and the time in nanoseconds, and a job's id follows
from it as always, so that a time that is met twice makes one job. How far a rule's times have been dealt with is kept
with the rule, and committed with the jobs. `deal_with_due` may be called from any thread; a thread of its own does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from hiss.meow_bridge.admission import Admission
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.jobs import JobTable
from hiss.meow_bridge.matching import new_jobs
from hiss.meow_bridge.retry import Pauses, log
from hiss.meow_bridge.rules import ActiveRule, RuleBook
from hiss.meow_bridge.timetable import timetable
from hiss.model import Event

NODE: Final = "timer"
_LOOK_S: Final = 30.0  # the longest sleep, so that a clock that was set is noticed


class Timers:
    """Its thread runs from `start()` until `stop`, which its owner sets; `join()` waits for it."""

    def __init__(
        self,
        database: Database,
        rules: RuleBook,
        jobs: JobTable,
        clock_ns: Callable[[], int],
        jobs_made: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._database = database
        self._rules = rules
        self._jobs = jobs
        self._clock_ns = clock_ns
        self._jobs_made = jobs_made
        self._stop = stop
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hiss-meow-timers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join()

    def rules_changed(self) -> None:
        """There may be another rule that is due first."""
        self._changed.set()

    def _run(self) -> None:
        pauses = Pauses(self._stop)
        since_start = True
        while not self._stop.is_set():
            self._changed.clear()
            try:
                next_ns = self.deal_with_due(since_start=since_start)
                since_start = False
                pauses.reset()
            except Exception:
                log.exception("timers: trying again")
                pauses.wait()
                continue
            wait_s = _LOOK_S if next_ns is None else (next_ns - self._clock_ns()) / 1e9
            self._changed.wait(min(max(wait_s, 0.0), _LOOK_S))

    def deal_with_due(self, *, since_start: bool = False) -> int | None:
        """Make the jobs of all times that have come; returns when the next one comes.

        A time that has come is met, unless others came after it meanwhile, or it came before the engine started
        (`since_start`): then it was missed, and the pattern's `catch_up` decides.
        """
        next_times = [self._deal_with(rule, since_start) for rule in self._rules.timers()]
        return min((time_ns for time_ns in next_times if time_ns is not None), default=None)

    def _deal_with(self, rule: ActiveRule, since_start: bool) -> int | None:
        table = timetable(rule.pattern)
        with self._database.transaction():
            timed_ns = self._rules.timed(rule.rule.id)
            if timed_ns is None:
                return None
            now_ns = self._clock_ns()
            due = table.between(timed_ns, now_ns)
            missed, met = (due, []) if since_start else (due[:-1], due[-1:])
            times = _caught_up(missed, rule.pattern.catch_up, bool(met)) + met
            if len(times) < len(due):
                log.warning(
                    "timer %s: %d times were missed, %d are made up for", rule.pattern.name, len(missed),
                    len(times) - len(met),
                )  # fmt: skip
            made = sum(self._insert(rule, time_ns, now_ns) for time_ns in times)
            if due:
                self._rules.set_timed(rule.rule.id, due[-1])
            if made:
                self._database.after_commit(self._jobs_made)
            return table.after(max(now_ns, timed_ns))

    def _insert(self, rule: ActiveRule, time_ns: int, now_ns: int) -> int:
        event = Event(NODE, time_ns, "timer", time_ns, rule.pattern.trigger, "", 0, {})
        return self._jobs.insert(new_jobs(rule, event), Admission(self._database, rule, event, now_ns), now_ns)


def _caught_up(missed: list[int], catch_up: str, is_on_time: bool) -> list[int]:
    """Which of the missed times are made up for; `one` is enough where the newest time is met anyway."""
    if catch_up == "all":
        return missed
    return missed[-1:] if catch_up == "one" and not is_on_time else []
