"""When a timer is due: every so many seconds, or as a line of `cron` says. Pure functions, callable from any thread.

All times are UTC. `every_s` counts from 1970, so that 3600 means each full hour. A cron line has five fields, minute,
hour, day of the month, month, day of the week (0 and 7 are Sunday), each `*`, a number, a range `a-b`, any of these
with a step `/n`, or several by commas. As in POSIX crontab, where both days are restricted either is enough.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hiss import limits
from hiss.errors import InvalidPattern
from hiss.workflow import Pattern

_S: Final = 10**9
_DAY_S: Final = 86_400
_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_DAYS_SEARCHED: Final = 366 * 8 + 2  # 29 February comes within 8 years, also across 2100


@dataclass(frozen=True, slots=True)
class Timetable:
    """Give either `step_ns`, or the fields of a cron line."""

    step_ns: int = 0
    minutes: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()  # 0 is Sunday
    either_day: bool = False

    def after(self, time_ns: int) -> int | None:
        """The first time that is due later than `time_ns`; None if there is none, as with 30 February."""
        if self.step_ns:
            return (time_ns // self.step_ns + 1) * self.step_ns
        first_day = time_ns // (_DAY_S * _S)
        for day in range(first_day, first_day + _DAYS_SEARCHED):
            if self._has_day(datetime.date(1970, 1, 1) + datetime.timedelta(days=day)):
                for second in self._seconds_of_day():
                    due_ns = (day * _DAY_S + second) * _S
                    if due_ns > time_ns:
                        return due_ns
        return None

    def between(self, after_ns: int, until_ns: int) -> list[int]:
        """The times due in (after_ns, until_ns], the last `limits.TIMER_CATCH_UP_MAX` of them."""
        if self.step_ns:
            after_ns = max(after_ns, until_ns - limits.TIMER_CATCH_UP_MAX * self.step_ns)
        due: list[int] = []
        time_ns = self.after(after_ns)
        while time_ns is not None and time_ns <= until_ns:
            due.append(time_ns)
            time_ns = self.after(time_ns)
        return due[-limits.TIMER_CATCH_UP_MAX :]

    def _has_day(self, date: datetime.date) -> bool:
        by_month, by_week = date.day in self.days, date.isoweekday() % 7 in self.weekdays
        return date.month in self.months and (by_month or by_week if self.either_day else by_month and by_week)

    def _seconds_of_day(self) -> Iterator[int]:
        return (3600 * hour + 60 * minute for hour in self.hours for minute in self.minutes)


def timetable(pattern: Pattern) -> Timetable:
    """Of a pattern whose event is `timer`. Raises `InvalidPattern`."""
    if pattern.every_s is not None:
        if not limits.TIMER_EVERY_S_MIN <= pattern.every_s <= limits.TIMER_EVERY_S_MAX:
            raise InvalidPattern(
                f"pattern {pattern.name!r}: every_s is {pattern.every_s:g}, expected "
                f"{limits.TIMER_EVERY_S_MIN:g} to {limits.TIMER_EVERY_S_MAX:g} seconds"
            )
        return Timetable(round(pattern.every_s * _S))
    line = str(pattern.cron)
    parts = line.split()
    if len(parts) != len(_FIELDS):
        raise InvalidPattern(
            f"pattern {pattern.name!r}: cron {line[:80]!r} has {len(parts)} fields, expected 5: "
            "minute hour day-of-month month day-of-week, such as '30 2 * * 1-5'"
        )
    minutes, hours, days, months, weekdays = (
        _numbers(part, *field, pattern.name) for part, field in zip(parts, _FIELDS, strict=True)
    )
    made = Timetable(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=months,
        weekdays=frozenset(number % 7 for number in weekdays),
        either_day=not parts[2].startswith("*") and not parts[4].startswith("*"),
    )
    if made.after(0) is None:
        raise InvalidPattern(f"pattern {pattern.name!r}: cron {line!r} is never due")
    return made


def _numbers(text: str, name: str, low: int, high: int, owner: str) -> frozenset[int]:
    found: set[int] = set()
    for entry in text.split(","):
        span, slash, step_text = entry.partition("/")
        first, dash, last = span.partition("-")
        try:
            start, stop = (low, high) if span == "*" else (int(first), int(last if dash else first))
            stop = high if slash and not dash else stop
            step = int(step_text) if slash else 1
            if not (low <= start <= stop <= high and step > 0):
                raise ValueError
        except ValueError:
            raise InvalidPattern(
                f"pattern {owner!r}: cron {name} {text[:40]!r}; expected numbers {low} to {high}, '*', ranges, steps"
            ) from None
        found.update(range(start, stop + 1, step))
    return frozenset(found)
