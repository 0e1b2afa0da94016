"""Timers: when they are due, that each time makes its jobs exactly once, and what becomes of times that were missed."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiss import limits
from hiss.errors import InvalidPattern
from hiss.meow_bridge import Engine
from hiss.meow_bridge.timetable import timetable
from hiss.workflow import JobState, Pattern

from .conftest import script, wait_for
from .memory_store import MemoryStore

MakeEngine = Callable[..., Engine]

S = 10**9
UTC = datetime.UTC


def timer(name: str = "t", **more: Any) -> Pattern:
    return Pattern(name, "top/hourly", "r", event="timer", **more)


def ns(*when: int) -> int:
    return int(datetime.datetime(*when, tzinfo=UTC).timestamp()) * S  # type: ignore[arg-type]


def text(time_ns: int | None) -> str:
    assert time_ns is not None
    return datetime.datetime.fromtimestamp(time_ns // S, UTC).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("30 2 * * *", (2026, 11, 20, 2, 29), "2026-11-20 02:30"),
        ("30 2 * * *", (2026, 11, 20, 2, 30), "2026-11-21 02:30"),
        ("*/15 * * * *", (2026, 11, 20, 23, 45), "2026-11-21 00:00"),
        ("0 8 * * 1-5", (2026, 11, 20, 9, 0), "2026-11-23 08:00"),  # from a Friday to Monday
        ("0 0 * * 7", (2026, 11, 20, 0, 0), "2026-11-22 00:00"),
        ("0 0 * * 0", (2026, 11, 20, 0, 0), "2026-11-22 00:00"),
        ("0 0 13 * 5", (2026, 11, 20, 0, 0), "2026-11-27 00:00"),  # the 13th or a Friday
        ("0 0 29 2 *", (2026, 11, 20, 0, 0), "2028-02-29 00:00"),
        ("0 0 29 2 *", (2096, 3, 1, 0, 0), "2104-02-29 00:00"),  # 2100 is no leap year
        ("5,10-20/5 1/12 1 1 *", (2026, 1, 1, 1, 10), "2026-01-01 01:15"),
        ("5,10-20/5 1/12 1 1 *", (2026, 1, 1, 1, 20), "2026-01-01 13:05"),
    ],
)
def test_lines_of_cron(cron: str, after: tuple[int, ...], due: str) -> None:
    assert text(timetable(timer(cron=cron)).after(ns(*after))) == due


def fields(low: int, high: int) -> st.SearchStrategy[tuple[str, set[int]]]:
    """A field and the numbers that it stands for, worked out in another way."""
    numbers = st.sets(st.integers(low, high), min_size=1, max_size=3)
    steps = st.integers(1, 20)
    return (
        numbers.map(lambda found: (",".join(map(str, found)), found))
        | st.just(("*", set(range(low, high + 1))))
        | steps.map(lambda step: (f"*/{step}", {n for n in range(low, high + 1) if (n - low) % step == 0}))
        | st.tuples(st.integers(low, high), st.integers(low, high)).map(
            lambda ends: (f"{min(ends)}-{max(ends)}", {n for n in range(low, high + 1) if min(ends) <= n <= max(ends)})
        )
    )


@settings(deadline=None, max_examples=60)
@given(
    fields(0, 59),
    fields(0, 23),
    fields(1, 31),
    fields(1, 12),
    fields(0, 6),
    st.integers(0, 3 * 10**9),
    st.integers(0, 30),
)
def test_the_next_time_is_the_first_minute_that_fits(
    minute: Any, hour: Any, day: Any, month: Any, weekday: Any, start_s: int, days: int
) -> None:
    """Every minute of some days is looked at."""
    parts = (minute, hour, day, month, weekday)
    either = not day[0].startswith("*") and not weekday[0].startswith("*")

    def fits(at: datetime.datetime) -> bool:
        by_day, by_week = at.day in day[1], (at.weekday() + 1) % 7 in weekday[1]
        return (
            at.minute in minute[1]
            and at.hour in hour[1]
            and at.month in month[1]
            and (by_day or by_week if either else by_day and by_week)
        )

    if {29, 30, 31} >= day[1] and not either and month[1] <= {2, 4, 6, 9, 11}:
        return  # may never be due: tested above
    table = timetable(timer(cron=" ".join(text for text, _ in parts)))
    first = start_s // 60 * 60 + 60
    minutes = (datetime.datetime.fromtimestamp(first + 60 * n, UTC) for n in range(1440 * min(days, 3)))
    expected = next((int(at.timestamp()) * S for at in minutes if fits(at)), None)
    found = table.after(start_s * S)
    assert found is not None
    assert fits(datetime.datetime.fromtimestamp(found // S, UTC))
    if expected is not None:
        assert found == expected
    else:
        assert found >= (first + 60 * 1440 * min(days, 3)) * S


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"every_s": 60, "cron": "* * * * *"},
        {"every_s": 0.5},
        {"every_s": float("nan")},
        {"every_s": 1e12},
        {"cron": "* * * *"},
        {"cron": "60 * * * *"},
        {"cron": "5-1 * * * *"},
        {"cron": "*/0 * * * *"},
        {"cron": "a * * * *"},
        {"cron": "* * 30 2 *"},
        {"every_s": 60, "catch_up": "some"},
    ],
)
def test_what_is_no_timer_is_refused(make_engine: MakeEngine, given: dict[str, Any]) -> None:
    engine = make_engine(start=False)
    with pytest.raises(InvalidPattern, match="'t'"):
        engine.add(timer(**given))
    assert engine.patterns() == []


def test_other_patterns_have_no_times() -> None:
    with pytest.raises(InvalidPattern, match="timer"):
        Pattern("p", "a/*", "r", every_s=60)
    with pytest.raises(InvalidPattern, match="path of the collection"):
        Pattern("p", "a/*", "r", event="timer", every_s=60)


def due_jobs(engine: Engine) -> list[int]:
    return sorted(int(job.event.removeprefix("timer-")) // S for job in engine.jobs(limit=10_000))


def test_each_time_makes_its_jobs_once(make_engine: MakeEngine) -> None:
    now = [1000 * S]
    engine = make_engine(start=False, clock_ns=lambda: now[0])
    engine.add(script("r", "1"))
    engine.add(timer(every_s=60, sweep={"x": [1, 2]}))
    assert engine._timers.deal_with_due() == 1020 * S
    assert due_jobs(engine) == []
    for now_s in (1020, 1020, 1079, 1080, 1081):
        now[0] = now_s * S
        engine._timers.deal_with_due()
    assert due_jobs(engine) == [1020, 1020, 1080, 1080]
    job = engine.jobs()[0]
    assert (job.path, job.version, job.variables["input"]) == ("top/hourly", 0, "top/hourly")
    engine.remove_pattern("t")
    now[0] = 2000 * S
    assert engine._timers.deal_with_due() is None
    assert len(engine.jobs(state=JobState.CANCELLED)) == 4


@pytest.mark.parametrize(("catch_up", "made_up_for"), [("none", []), ("one", [1300]), ("all", [1100, 1200, 1300])])
def test_times_missed_while_the_engine_was_down(make_engine: MakeEngine, catch_up: str, made_up_for: list[int]) -> None:
    now = [1001 * S]
    engine = make_engine(start=False, clock_ns=lambda: now[0])
    engine.add(script("r", "1"))
    engine.add(timer(every_s=100, catch_up=catch_up))
    engine.stop()
    now[0] = 1350 * S
    engine = make_engine(start=False, clock_ns=lambda: now[0])
    assert engine._timers.deal_with_due(since_start=True) == 1400 * S
    assert due_jobs(engine) == made_up_for
    now[0] = 1400 * S
    engine._timers.deal_with_due()
    assert due_jobs(engine) == [*made_up_for, 1400]


@pytest.mark.parametrize(("catch_up", "met"), [("none", [1300]), ("one", [1300]), ("all", [1100, 1200, 1300])])
def test_times_missed_while_the_machine_slept(make_engine: MakeEngine, catch_up: str, met: list[int]) -> None:
    now = [1001 * S]
    engine = make_engine(start=False, clock_ns=lambda: now[0])
    engine.add(script("r", "1"))
    engine.add(timer(every_s=100, catch_up=catch_up))
    now[0] = 1350 * S
    engine._timers.deal_with_due()
    assert due_jobs(engine) == met


def test_making_up_for_years_is_bounded(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TIMER_CATCH_UP_MAX", 5)
    now = [1001 * S]
    engine = make_engine(start=False, clock_ns=lambda: now[0])
    engine.add(script("r", "1"))
    engine.add(timer(every_s=1, catch_up="all"))
    now[0] = 10**9 * S
    engine._timers.deal_with_due(since_start=True)
    assert due_jobs(engine) == [10**9 - 4, 10**9 - 3, 10**9 - 2, 10**9 - 1, 10**9]


def test_a_running_engine_keeps_time(engine: Engine, tmp_path: Path) -> None:
    """A timer that is added while the engine runs is met without a restart, time after time."""
    engine.add(script("r", "print(scheduled)"))
    engine.add(timer(every_s=1, variables={"scheduled": "{EVENT}"}))
    done = wait_for(lambda: len(jobs := engine.jobs(state=JobState.DONE)) >= 2 and jobs, "two times")
    engine.remove_pattern("t")
    assert [job.output for job in done] == [f"{job.event}\n" for job in done]
    times = due_jobs(engine)
    assert len(set(times)) == len(times)


def test_a_timer_whose_jobs_are_limited(make_engine: MakeEngine, store: MemoryStore) -> None:
    now = [1001 * S]
    engine = make_engine(start=False, clock_ns=lambda: now[0])
    engine.add(script("r", "1"))
    engine.add(timer(every_s=1, lifetime_s=3, catch_up="all"))
    now[0] = 1010 * S
    engine._timers.deal_with_due()
    held = [job for job in engine.jobs() if job.state is JobState.HELD]
    assert (len(engine.jobs()), len(held)) == (9, 6)
