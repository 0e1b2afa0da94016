"""Jobs start when their cores and their memory are free, in their order as far as that goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hiss import limits
from hiss.limits import GiB
from hiss.meow_bridge import Engine
from hiss.meow_bridge.executor import Capacity, Room
from hiss.workflow import JobState

from .conftest import pattern, script
from .memory_store import MemoryStore

S = 10**9


@pytest.fixture
def claim(make_engine: Callable[..., Engine], store: MemoryStore) -> Callable[..., str | None]:
    """Claims by hand: `claim(free cores, free GiB, of how many)` is the pattern of the job that may start."""
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    for name, needs in (
        ("big", {"cores": 4, "memory_bytes": 8 * GiB}),
        ("small", {"cores": 1, "memory_bytes": GiB}),
        ("plain", {}),
    ):
        engine.add(pattern(name, f"{name}/*", "r", **needs))

    def make(*names: str) -> None:
        for name in names:
            store.seal(f"{name}/in")
        engine._scheduler.adopt(store.node)
        engine._scheduler.deal_with(store.all_events())

    def attempt(cores: int, gib: int, whole: Capacity = Capacity(4, 8 * GiB), later_s: float = 0.0) -> str | None:  # noqa: B008
        now_ns = engine._clock_ns() + int(later_s * S)
        found = engine._jobs.claim(now_ns, "here", Room(Capacity(cores, gib * GiB), whole, 2 * GiB))
        return None if found is None else found.pattern.name

    attempt.make = make  # type: ignore[attr-defined]
    attempt.engine = engine  # type: ignore[attr-defined]
    return attempt


def test_both_cores_and_memory_must_be_free(claim: Any) -> None:
    claim.make("big")
    assert claim(4, 7) is None
    assert claim(3, 8) is None
    assert claim(4, 8) == "big"


def test_one_that_needs_less_overtakes_but_not_for_ever(claim: Any) -> None:
    claim.make("big", "small", "small")
    assert claim(2, 2) == "small"
    assert claim(2, 2, later_s=limits.JOB_OVERTAKEN_S + 1) is None, "the first in the queue is the next"
    assert claim(4, 8, later_s=limits.JOB_OVERTAKEN_S + 1) == "big"


def test_who_does_not_say_gets_the_default(claim: Any) -> None:
    claim.make("plain")
    assert claim(1, 1) is None
    assert claim(1, 2) == "plain"


def test_what_needs_more_than_there_is_fails_and_says_so(claim: Any, store: MemoryStore) -> None:
    claim.make("big", "small")
    assert claim(2, 4, whole=Capacity(2, 4 * GiB)) == "small"
    (job,) = [job for job in claim.engine.jobs() if job.pattern == "big"]
    assert job.state is JobState.FAILED
    assert job.error == ("it needs 4 cores and 8589934592 bytes; where jobs run there are 2 cores and 4294967296 bytes")


def test_where_there_may_be_more_it_waits(claim: Any) -> None:
    claim.make("big", "small")
    assert claim(2, 4, whole=Capacity(2, 4 * GiB, may_grow=True)) == "small"
    assert claim(2, 4, whole=Capacity(2, 4 * GiB, may_grow=True)) is None
    assert claim(4, 8) == "big"
