"""Which events make which jobs: conditions, what is there already, restarts, a buffer that is away, removed rules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hiss import limits
from hiss.errors import (
    DataDirectoryLocked,
    InvalidInput,
    InvalidPattern,
    JobNotFound,
    LimitExceeded,
    PatternNotFound,
    RecipeNotFound,
    Unavailable,
)
from hiss.meow_bridge import Engine
from hiss.workflow import JobState

from .conftest import deal, finished, pattern, script, wait_for
from .memory_store import MemoryStore

MakeEngine = Callable[..., Engine]


def paths(engine: Engine, **more: Any) -> list[str]:
    return sorted(job.path for job in engine.jobs(**more))


def test_a_job_is_bound_to_the_version_that_triggered_it(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "print(input, version, centre)"))
    engine.add(pattern("p", "a/*", "r", variables={"version": "{VERSION}", "centre": 296}))
    store.seal("a/x")
    store.seal("a/x")
    first, second = finished(engine, 2)
    assert (first.output, second.output) == ("a/x 1 296\n", "a/x 2 296\n")
    assert (first.version, second.version) == (1, 2)
    assert first.variables == {"input": "a/x", "version": "1", "centre": 296}


def test_sweep_makes_a_job_for_each_point(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/x", "r", sweep={"a": [1, 2, 3], "b": {"start": 1, "stop": 0, "step": -1}}))
    store.seal("a/x")
    deal(engine, store)
    assert sorted((job.variables["a"], job.variables["b"]) for job in engine.jobs()) == [
        (a, b) for a in (1, 2, 3) for b in (0, 1)
    ]


def test_conditions(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    engine.add(pattern("good", "a/*", "r", where={"kind": "good", "n": 2}))
    engine.add(pattern("whole", "a/*", "r", complete_only=True))
    store.seal("a/bad", attrs={"kind": "bad", "n": 2}, gaps=1)
    store.seal("a/lacks", attrs={"kind": "good"})
    store.seal("a/gaps", attrs={"kind": "good", "n": 2, "more": 1}, gaps=3)
    deal(engine, store)
    assert sorted((job.pattern, job.path) for job in engine.jobs()) == [
        ("good", "a/gaps"),
        ("whole", "a/lacks"),
    ]


def test_other_kinds_of_event(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r", event="collection.sealed", input="scan"))
    engine.add(pattern("q", "**", "r", event="job.failed"))
    store.seal("a/s/x")
    store.emit("collection.sealed", "a/s")
    store.emit("job.failed", "")
    deal(engine, store)
    jobs = {job.pattern: job for job in engine.jobs()}
    assert jobs["p"].variables == {"scan": "a/s"}
    assert (jobs["q"].path, set(jobs)) == ("", {"p", "q"})


def test_a_new_rule_meets_what_is_there(make_engine: MakeEngine, store: MemoryStore) -> None:
    """M10: as if it had just arrived, once, in every depth; what is gone is gone."""
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    for path in ("a/x", "a/deep/er/x", "a/x", "b/x", "a/gone"):
        store.seal(path)
    store.delete("a/gone", 1)
    assert engine.add(pattern("p", "a/**", "r")) == 3
    assert engine.add(pattern("p", "a/**", "r")) == 0, "unchanged changes nothing"
    deal(engine, store)
    assert paths(engine) == ["a/deep/er/x", "a/x", "a/x"]
    store.seal("a/later")
    deal(engine, store)
    assert paths(engine) == ["a/deep/er/x", "a/later", "a/x", "a/x"]


def test_existing_false_skips_what_is_there_also_later(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    store.seal("a/before")
    assert engine.add(pattern("p", "a/*", "r"), existing=False) == 0
    store.seal("a/after")
    engine.add(script("r", "1"))
    deal(engine, store)
    assert paths(engine) == ["a/after"]
    engine.add(script("r", "2"))
    assert sorted(job.path for job in engine.jobs() if job.state is JobState.QUEUED) == ["a/after"]


def test_many_events_are_met_in_pages(make_engine: MakeEngine, store: MemoryStore, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "EVENTS_PAGE", 7)
    monkeypatch.setattr(limits, "JOB_ROWS_MAX", 5)
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    for number in range(40):
        store.seal(f"a/x{number}")
    assert engine.add(pattern("p", "a/*", "r")) == 40
    for number in range(40, 80):
        store.seal(f"a/x{number}")
    deal(engine, store)
    assert len(engine.jobs()) == 80
    assert engine._scheduler.cursor() == 80


def test_a_pattern_without_its_recipe_waits_and_says_so(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    store.seal("a/x")
    assert engine.add(pattern("p", "a/*", "nobody")) == 0
    assert engine.rules() == []
    assert [waiting.name for waiting in engine.waiting_patterns()] == ["p"]
    engine.add(script("nobody", "1"))
    assert [rule.pattern for rule in engine.rules()] == ["p"]
    assert engine.waiting_patterns() == []
    assert paths(engine) == ["a/x"]
    engine.remove_recipe("nobody")
    assert engine.rules() == []
    assert [waiting.name for waiting in engine.waiting_patterns()] == ["p"]


def test_a_removed_rule_takes_its_unfinished_jobs_along(make_engine: MakeEngine, store: MemoryStore) -> None:
    """M11, and that the same rule wakes them again."""
    engine = make_engine(start=False)
    store.seal("a/x")
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r"))
    engine.add(pattern("other", "a/*", "r"))
    engine.remove_pattern("p")
    assert {job.pattern: job.state.name for job in engine.jobs()} == {"p": "CANCELLED", "other": "QUEUED"}
    assert engine.add(pattern("p", "a/*", "r")) == 1
    assert {job.pattern: job.state.name for job in engine.jobs()} == {"p": "QUEUED", "other": "QUEUED"}


def test_changing_is_removing_and_adding(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    store.seal("a/x")
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r"))
    (old,) = engine.rules()
    assert engine.add(pattern("p", "a/*", "r", variables={"v": 1})) == 1
    (new,) = engine.rules()
    assert old.id != new.id
    assert [(job.rule, job.state) for job in engine.jobs()] == [
        (new.id, JobState.QUEUED),
        (old.id, JobState.CANCELLED),
    ]


def test_restart_goes_on_after_the_last_event(make_engine: MakeEngine, store: MemoryStore) -> None:
    for turn in range(4):
        engine = make_engine(start=False)
        engine.add(script("r", "1"))
        engine.add(pattern("p", "a/*", "r"), existing=turn != 3)
        store.seal(f"a/x{turn}")
        deal(engine, store)
        assert len(engine.jobs()) == turn + 1
        engine.stop()


def test_the_buffer_goes_away_and_comes_back(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "print(input)"))
    store.seal("a/before")
    finished_now = lambda: len(engine.jobs(state=JobState.DONE))  # noqa: E731
    store.set_away(True)
    engine.add(pattern("p", "a/*", "r"))  # meets what is there when the buffer is back
    with pytest.raises(Unavailable):
        engine.add(pattern("q", "a/*", "r"), existing=False)
    assert [each.name for each in engine.patterns()] == ["p"]
    store.set_away(False)
    wait_for(lambda: finished_now() == 1, "the job of what was there")
    store.set_away(True)
    store.set_away(False)
    store.seal("a/after")
    assert [job.path for job in finished(engine, 2)] == ["a/before", "a/after"]


def test_another_buffer_starts_from_its_beginning(make_engine: MakeEngine, store: MemoryStore, tmp_path: Path) -> None:
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/x")
    deal(engine, store)
    engine.stop()
    other = MemoryStore("other")
    other.seal("a/x")
    second = Engine(tmp_path, other, lambda *_: {})  # type: ignore[arg-type]
    deal(second, other)
    assert sorted(job.event for job in second.jobs()) == ["node-1", "other-1"]
    second.stop()


def test_what_is_asked_wrongly(make_engine: MakeEngine, tmp_path: Path, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    for what, error in (
        (lambda: engine.recipe("x"), RecipeNotFound),
        (lambda: engine.remove_recipe("x"), RecipeNotFound),
        (lambda: engine.pattern("x"), PatternNotFound),
        (lambda: engine.remove_pattern("x"), PatternNotFound),
        (lambda: engine.job("x"), JobNotFound),
        (lambda: engine.job(""), JobNotFound),
        (lambda: engine.cancel_job("x"), JobNotFound),
        (lambda: engine.add(pattern("p", "a//b", "r")), InvalidPattern),
        (lambda: engine.add(pattern("p", "a/b", "r", sweep={"x": []})), InvalidPattern),
        (lambda: engine.add(pattern("p", "a/b", "r", sweep={"x": [{1, 2}]})), InvalidPattern),
        (lambda: engine.add(pattern("p", "a/b", "r", sweep={"x": list(range(10_001))})), LimitExceeded),
        (lambda: make_engine(start=False), DataDirectoryLocked),
        (lambda: make_engine(start=False, jobs_at_once=0, directory=tmp_path / "other"), InvalidInput),
    ):
        with pytest.raises(error):
            what()
    assert engine.patterns() == []


def test_an_ambiguous_prefix_is_refused(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r", sweep={"x": list(range(40))}))
    store.seal("a/x")
    deal(engine, store)
    ids = [job.id for job in engine.jobs()]
    digit = next(digit for digit in "0123456789abcdef" if sum(job.startswith(digit) for job in ids) > 1)
    with pytest.raises(InvalidInput, match="several"):
        engine.job(digit)
    assert engine.job(ids[0]).id == ids[0]


def test_variables_that_grow_beyond_bounds_fail_the_job(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    engine.add(pattern("p", "**", "r", variables={"x": "{PATH}" * 20_000}))
    store.seal("/".join(["a" * 30] * 8))
    deal(engine, store)
    (job,) = engine.jobs()
    assert job.state is JobState.FAILED
    assert "variables" in job.error


def test_who_adds_a_pattern_lets_it_meet_what_is_there(make_engine: MakeEngine, store: MemoryStore) -> None:
    """Not the thread that finishes what others could not, though it looks in just then: the call says how many."""
    engine = make_engine()
    engine.add(script("r", "1"))
    store.seal("a/x")
    look_back = engine._look_back
    meet = look_back.meet

    def after_the_thread_has_looked(rules: Sequence[str]) -> int:
        if threading.current_thread() is not look_back._thread:
            look_back.finish_later()
            wait_for(lambda: not look_back._unmet.is_set(), "the thread to wake")
        return meet(rules)

    look_back.meet = after_the_thread_has_looked  # type: ignore[method-assign]
    made = [engine.add(pattern(f"p{number}", "a/*", "r", jobs_at_once=1)) for number in range(5)]
    assert made == [1] * 5


def test_rules_that_are_made_at_once_read_the_events_once(make_engine: MakeEngine, store: MemoryStore) -> None:
    """A recipe for which many patterns waited: what is there is not read, and not looked at, once for each of them."""
    engine = make_engine(start=False)
    for number in range(20):
        store.seal(f"a/x{number}")
        engine.add(pattern(f"p{number}", f"a/x{number}", "r"))
    engine.add(pattern("every", "a/*", "r", sweep={"n": [1, 2]}))
    engine.add(pattern("late", "a/*", "r"), existing=False)
    looks = {"events": 0, "stream": 0}
    for name in looks:
        call = getattr(store, name)

        def counted(*given: Any, name: str = name, call: Any = call, **more: Any) -> Any:
            looks[name] += given != (20, engine._stop)  # what is newer than all
            return call(*given, **more)

        setattr(store, name, counted)
    engine._scheduler.adopt(store.node)
    with engine._database.transaction():
        engine._scheduler._advance(store.node, 20)  # they were dealt with long ago
    engine.add(script("r", "1"))
    assert looks == {"events": 1, "stream": 20}
    assert len(engine.jobs()) == 20 + 20 * 2
    assert not engine._rules.looking_back()


def test_looking_back_is_bounded_where_one_event_makes_many_jobs(
    make_engine: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short between two transactions of one event, it makes the rest of its jobs later, and none twice."""
    monkeypatch.setattr(limits, "JOB_ROWS_MAX", 3)
    engine = make_engine(start=False)
    for name in ("x", "y"):
        store.seal(f"a/{name}")
    for number in range(8):
        engine.add(pattern(f"p{number}", "a/*", "r"))
    maker = engine._look_back._maker
    make = maker.make
    sizes: list[int] = []

    def dies_at_the_third(matches: Any) -> int:
        found = list(matches)
        sizes.append(len(found))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return make(found)

    monkeypatch.setattr(maker, "make", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        engine.add(script("r", "1"))
    assert sizes == [3, 3, 3]
    assert len(engine.jobs()) == 6
    monkeypatch.setattr(maker, "make", make)
    assert engine._look_back.meet(engine._rules.looking_back()) == 10
    assert sorted((job.pattern, job.path) for job in engine.jobs()) == sorted(
        (f"p{number}", f"a/{name}") for number in range(8) for name in ("x", "y")
    )
