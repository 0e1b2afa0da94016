"""What the tests of the rule engine share: engines over a buffer in memory, and waiting for what must come true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hiss.limits import GiB
from hiss.meow_bridge import Engine
from hiss.meow_bridge.executor import Capacity, Room
from hiss.meow_bridge.local_executor import local_executor
from hiss.meow_bridge.warm import Zygote
from hiss.workflow import Job, Pattern, Recipe, RecipeKind

from .memory_store import MemoryStore

ROOM = Room(Capacity(4, GiB), Capacity(4, GiB), GiB)  # for whoever claims a job by hand
WAIT_S = 60.0  # far more than anything takes; only a failing test waits that long


def wait_for(holds: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """The first true value of `holds`."""
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.005)
    return value


def script(name: str, body: str, **more: Any) -> Recipe:
    return Recipe(name, body, kind=RecipeKind.SCRIPT, **more)


def command(name: str, *words: str, **more: Any) -> Recipe:
    return Recipe(name, list(words), **more)


def finished(engine: Engine, count: int) -> list[Job]:
    """The jobs, oldest first, once there are `count` and all are final."""

    def done() -> list[Job]:
        jobs = engine.jobs()
        assert len(jobs) <= count, [(job.pattern, job.path) for job in jobs]
        return jobs if len(jobs) == count and all(job.state.final for job in jobs) else []

    jobs: list[Job] = wait_for(done, f"{count} jobs to finish")
    return jobs[::-1]


def deal(engine: Engine, store: MemoryStore) -> None:
    """What the engine's threads do with the events that there are, here and now."""
    engine._scheduler.adopt(store.node)
    events = list(store.events(0, threading.Event(), follow=False))
    while events:
        events = engine._scheduler.deal_with(events)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="session")
def shared_zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """One for all engines: to start one takes longer than most of what is tested. It holds nothing of any engine."""
    zygote = Zygote(tmp_path_factory.mktemp("zygote"), spares=2)
    yield zygote
    zygote.close()


@pytest.fixture
def zygote(shared_zygote: Zygote) -> Zygote | None:
    """Of the engines of a test. A module whose tests look at it, or kill it, overrides this with None: each its own."""
    return shared_zygote


@pytest.fixture
def make_engine(tmp_path: Path, store: MemoryStore, zygote: Zygote | None) -> Iterator[Callable[..., Engine]]:
    """Engines on `tmp_path` and `store`, stopped at the end; `start=False` leaves the threads out."""
    engines: list[Engine] = []

    def make(*, start: bool = True, directory: Path = tmp_path, own_zygote: bool = False, **options: Any) -> Engine:
        options.setdefault("executor", partial(local_executor, zygote=None if own_zygote else zygote))
        engine = Engine(directory, store, lambda attempt, writes, rights: {"TEST_WRITES": writes}, **options)  # type: ignore[arg-type]
        engines.append(engine)
        if start:
            engine.start()
        return engine

    yield make
    store.set_away(False)
    for engine in engines:
        engine.stop()


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()


def pattern(name: str, trigger: str, recipe: str, **more: Any) -> Pattern:
    return Pattern(name, trigger, recipe, **more)
