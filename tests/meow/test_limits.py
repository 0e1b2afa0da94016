"""What limits of a pattern hold back, how it is seen and released, and the warning that a chain of causes loops."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiss.errors import InvalidPattern
from hiss.meow_bridge import Engine
from hiss.meow_bridge.jobs import Attempt
from hiss.model import Caller
from hiss.workflow import Job, JobState

from .conftest import ROOM, deal, finished, pattern, script, wait_for
from .memory_store import MemoryStore

MakeEngine = Callable[..., Engine]


def by_state(engine: Engine) -> dict[str, int]:
    jobs = engine.jobs()
    return {state.name: sum(job.state is state for job in jobs) for state in {job.state for job in jobs}}


def run_one(engine: Engine, store: MemoryStore, output: str) -> Attempt:
    """Claim a job and let it write one stream, as a worker does."""
    attempt = engine._jobs.claim(engine._clock_ns(), "here", ROOM)
    assert attempt is not None
    store.seal(output, caller=Caller(attempt.id, ""))
    assert engine._jobs.begin_commit(attempt)
    writes = store.commit_attempt(attempt.id, "job.finished", {"job": attempt.job})
    engine._jobs.finish(attempt, (), writes, "", engine._clock_ns())
    return attempt


def test_what_is_beyond_the_expected_count_is_held_visible_and_released(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r", jobs_expected=2))
    for number in range(3):
        store.seal(f"a/x{number}")

    def settled() -> list[Job]:
        held = engine.jobs(state=JobState.HELD)
        return held if len(engine.jobs(state=JobState.DONE)) == 2 else []

    (held,) = wait_for(settled, "two jobs to finish")
    assert (held.path, held.attempts, held.state.final) == ("a/x2", 0, False)
    assert held.error == "held back: pattern p expects 2 jobs, and they were made"
    assert engine.release_job(held.id[:12]).state is JobState.QUEUED
    assert [job.state for job in finished(engine, 3)] == [JobState.DONE] * 3
    assert engine.release_job(held.id).state is JobState.DONE, "released twice changes nothing"


def test_a_flood_is_held_and_the_next_hour_is_free(make_engine: MakeEngine, store: MemoryStore) -> None:
    now = [10**18]
    engine = make_engine(start=False, clock_ns=lambda: now[0])
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r", jobs_an_hour=3, sweep={"x": [1, 2]}))
    store.seal("a/x")
    store.seal("a/y")
    deal(engine, store)
    assert by_state(engine) == {"QUEUED": 3, "HELD": 1}
    now[0] += 3600 * 10**9
    store.seal("a/z")
    deal(engine, store)
    assert by_state(engine) == {"QUEUED": 5, "HELD": 1}
    (held,) = engine.jobs(state=JobState.HELD)
    assert held.error == "held back: pattern p allows 3 jobs an hour"
    engine.release_job(held.id)
    store.seal("a/w")
    deal(engine, store)
    assert by_state(engine) == {"QUEUED": 6, "HELD": 2}, "what was released counts"


def test_a_held_job_is_cancelled_with_its_rule(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    store.seal("a/x")
    store.seal("a/y")
    held = pattern("p", "a/*", "r", jobs_expected=1)
    assert engine.add(held) == 2
    engine.remove_pattern("p")
    assert by_state(engine) == {"CANCELLED": 2}
    assert engine.add(held) == 2
    assert by_state(engine) == {"QUEUED": 1, "HELD": 1}, "what was cancelled counts no more"
    assert engine.cancel_job(engine.jobs(state=JobState.HELD)[0].id).state is JobState.CANCELLED


def test_at_once(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    """Two workers, but one job of the rule at a time; the other worker takes up other rules' jobs."""
    go = tmp_path / "go"
    wait = "import time, pathlib\nwhile not pathlib.Path(go).exists(): time.sleep(0.01)\n"
    engine.add(script("slow", wait))
    engine.add(script("quick", "1"))
    engine.add(pattern("one", "a/*", "slow", jobs_at_once=1, variables={"go": str(go)}))
    for number in range(3):
        store.seal(f"a/x{number}")
    wait_for(lambda: by_state(engine) == {"RUNNING": 1, "QUEUED": 2}, "one to run")
    engine.add(pattern("other", "b/*", "quick"))
    store.seal("b/x")
    wait_for(lambda: engine.jobs(state=JobState.DONE), "the other rule's job")
    assert by_state(engine) == {"RUNNING": 1, "QUEUED": 2, "DONE": 1}
    go.touch()
    jobs = [job for job in finished(engine, 4) if job.pattern == "one"]
    spans = sorted((job.started_ns, job.finished_ns) for job in jobs)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_a_loop_ends_at_its_longest_chain(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r", chain_jobs=4))
    store.seal("a/x")
    deal(engine, store)
    for _ in range(4):
        run_one(engine, store, "a/x")
        deal(engine, store)
    assert by_state(engine) == {"DONE": 4, "HELD": 1}
    assert [job.chain for job in engine.jobs()] == [5, 4, 3, 2, 1]
    assert engine.jobs()[0].error == "held back: it is job 5 of a chain, pattern p allows 4"
    engine.release_job(engine.jobs()[0].id)
    run_one(engine, store, "a/x")
    deal(engine, store)
    assert by_state(engine) == {"DONE": 5, "HELD": 1}, "each further one is looked at again"


def test_a_chain_that_loops_is_told_of_aloud(
    make_engine: MakeEngine, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Through two patterns by turns: a warning and an event for the tenth time that one leads to itself."""
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    engine.add(pattern("there", "a/x", "r"))
    engine.add(pattern("back", "a/y", "r"))
    store.seal("a/x")
    deal(engine, store)
    with caplog.at_level(logging.WARNING, "hiss.meow"):
        for number in range(40):
            run_one(engine, store, "a/y" if number % 2 == 0 else "a/x")
            deal(engine, store)
    warned = [record.getMessage() for record in caplog.records if "leads to itself" in record.getMessage()]
    assert len(warned) == 2
    assert warned[0].endswith("pattern there leads to itself, for the 10th time in this chain of 21 jobs")
    assert warned[1].endswith("pattern back leads to itself, for the 10th time in this chain of 22 jobs")
    while engine._announcements.publish_some():
        pass
    events = [event for event in store.all_events() if event.kind == "chain.looping"]
    assert [(event.data["pattern"], event.data["laps"], event.data["chain"]) for event in events] == [
        ("there", 10, 21),
        ("back", 10, 22),
    ]


def test_a_rule_ends_with_its_lifetime(make_engine: MakeEngine, store: MemoryStore) -> None:
    """What counts is when the event happened, not when it is dealt with."""
    now = [10**18]
    store.clock_ns = lambda: now[0]
    engine = make_engine(start=False, clock_ns=lambda: now[0])
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r", lifetime_s=60))
    now[0] += 60 * 10**9
    store.seal("a/in-time")
    now[0] += 1
    store.seal("a/late")
    now[0] += 10**12
    deal(engine, store)
    assert {job.path: job.state.name for job in engine.jobs()} == {"a/in-time": "QUEUED", "a/late": "HELD"}
    assert engine.jobs(state=JobState.HELD)[0].error == "held back: the rule's lifetime of 60 s was over"


@pytest.mark.parametrize("limit", ["jobs_at_once", "jobs_an_hour", "jobs_expected", "chain_jobs", "lifetime_s"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_is_above_zero(limit: str, value: Any) -> None:
    with pytest.raises(InvalidPattern, match=limit):
        pattern("p", "a/*", "r", **{limit: value})
