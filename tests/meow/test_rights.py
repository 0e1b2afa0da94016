"""Self-modification: a job with the right changes rules, nobody grants more than he has, and attacks are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss.client import Buffer
from hiss.errors import InvalidPattern, PatternNotFound, PermissionRefused
from hiss.limits import MiB
from hiss.meow_bridge import Engine
from hiss.meow_bridge.identity import attempt_id
from hiss.model import Caller
from hiss.testing.conformance import wait_for
from hiss.workflow import JobState, RecipeKind, acting

from .conftest import pattern, script
from .memory_store import MemoryStore

ABLE = Caller("f" * 32 + ".1", "beam/made", ("rules",))
UNABLE = Caller("f" * 32 + ".1", "beam/made")


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """With an operator's pattern that may write everywhere below `other`, and one within the job's reach."""
    engine = make_engine(start=False)
    for name in ("far", "near", "free"):
        engine.add(script(name, "1"))
    engine.add(pattern("far", "other/*", "far"))
    engine.add(pattern("near", "beam/*", "near", writes="beam/made/near"))
    return engine


CALLS: dict[str, Callable[[Engine], Any]] = {
    "add a recipe": lambda engine: engine.add(script("new", "1")),
    "change a recipe": lambda engine: engine.add(script("near", "2")),
    "remove a recipe": lambda engine: engine.remove_recipe("free"),
    "add a pattern": lambda engine: engine.add(pattern("new", "beam/*", "free", writes="beam/made")),
    "change a pattern": lambda engine: engine.add(pattern("near", "beam/s", "near", writes="beam/made")),
    "remove a pattern": lambda engine: engine.remove_pattern("near"),
}


@pytest.mark.parametrize("name", CALLS)
def test_with_the_right_and_not_without(engine: Engine, name: str) -> None:
    before = engine.recipes(), engine.patterns(), engine.rules()
    with acting(UNABLE), pytest.raises(PermissionRefused, match="no right to"):
        CALLS[name](engine)
    assert (engine.recipes(), engine.patterns(), engine.rules()) == before
    with acting(ABLE):
        CALLS[name](engine)
    assert (engine.recipes(), engine.patterns()) != before[:2]


ATTACKS: dict[str, Callable[[Engine], Any]] = {
    "a pattern that writes by its trigger": lambda engine: engine.add(pattern("x", "beam/made/*", "free")),
    "a pattern that writes elsewhere": lambda engine: engine.add(pattern("x", "beam/*", "free", writes="other")),
    "a pattern that writes above": lambda engine: engine.add(pattern("x", "beam/*", "free", writes="beam")),
    "a name that only begins the same": lambda engine: engine.add(pattern("x", "a/*", "free", writes="beam/made2")),
    "a keyword for the place": lambda engine: engine.add(pattern("x", "a/*", "free", writes="{COLLECTION}")),
    "a keyword within a name": lambda engine: engine.add(pattern("x", "a/*", "free", writes="beam/made{STREAM}")),
    "a glob at the top": lambda engine: engine.add(pattern("x", "*/made", "free")),
    "files, with their own place": lambda engine: engine.add(pattern("x", "file:/tmp/*", "free")),
    "to change a stronger pattern": lambda engine: engine.add(pattern("far", "beam/*", "free", writes="beam/made")),
    "to remove a stronger pattern": lambda engine: engine.remove_pattern("far"),
    "code for a stronger pattern": lambda engine: engine.add(script("far", "evil")),
    "to remove a stronger pattern's recipe": lambda engine: engine.remove_recipe("far"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nobody_grants_more_than_he_has(engine: Engine, name: str) -> None:
    before = engine.recipes(), engine.patterns(), engine.rules()
    with acting(ABLE), pytest.raises(PermissionRefused):
        ATTACKS[name](engine)
    assert (engine.recipes(), engine.patterns(), engine.rules()) == before


def test_code_for_a_stronger_pattern_that_waits(engine: Engine) -> None:
    """A recipe that does not exist yet, named by a pattern of more rights, is no gift to whoever adds it first."""
    engine.add(pattern("strong", "other/x", "to-come"))
    with acting(ABLE), pytest.raises(PermissionRefused, match="strong"):
        engine.add(script("to-come", "evil"))
    engine.add(script("to-come", "good"))


def test_a_right_is_passed_on_only_by_who_has_it(engine: Engine) -> None:
    heir = pattern("heir", "beam/*", "free", writes="beam/made", rights=["rules"])
    with acting(UNABLE), pytest.raises(PermissionRefused):
        engine.add(heir)
    with acting(ABLE):
        engine.add(heir)
    (kept,) = [each for each in engine.patterns() if each.name == "heir"]
    assert kept.rights == ("rules",)
    with pytest.raises(InvalidPattern, match="rights"):
        pattern("p", "a/*", "r", rights=["admin"])


def test_jobs_of_others_are_not_a_jobs_to_cancel_or_release(engine: Engine, store: MemoryStore) -> None:
    engine.add(pattern("held", "beam/h*", "near", writes="beam/made", jobs_expected=1))
    for path in ("other/x", "beam/h1", "beam/h2"):
        store.seal(path)
    engine._scheduler.adopt(store.node)
    engine._scheduler.deal_with(store.all_events())
    far = next(job for job in engine.jobs() if job.pattern == "far")
    held = engine.jobs(state=JobState.HELD)[0]
    for caller in (UNABLE, ABLE):
        with acting(caller), pytest.raises(PermissionRefused):
            engine.cancel_job(far.id)
    with acting(UNABLE), pytest.raises(PermissionRefused):
        engine.release_job(held.id)
    with acting(ABLE):
        assert engine.release_job(held.id).state is JobState.QUEUED
        assert engine.cancel_job(held.id).state is JobState.CANCELLED


def test_the_one_that_edits_its_own_rule_is_spared(make_engine: Callable[..., Engine], store: MemoryStore) -> None:
    """M11 for all the others."""
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    engine.add(pattern("p", "beam/*", "r", rights=["rules"]))
    store.seal("beam/one")
    store.seal("beam/two")
    engine._scheduler.adopt(store.node)
    engine._scheduler.deal_with(store.all_events())
    one, two = engine.jobs()[::-1]
    with acting(Caller(attempt_id(one.id, 1), "beam", ("rules",))):
        engine.add(script("r", "2"))
    states = {job.id: job.state for job in engine.jobs()}
    assert (states[one.id], states[two.id]) == (JobState.QUEUED, JobState.CANCELLED)


# ---- with the tokens that jobs get


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    with hiss.open(tmp_path / "data", arena_bytes=32 * MiB, segment_bytes=16 * MiB, backend="numpy") as buffer:
        yield buffer


MODIFY = """
import hiss
from hiss.workflow import RecipeKind
buffer = hiss.job().buffer
buffer.meow.add(hiss.Recipe("made", "print('made', input)", kind=RecipeKind.SCRIPT))
buffer.meow.add(hiss.Pattern("made", trigger="scan/data*", recipe="made"))
"""


def seal(buffer: Buffer, name: str) -> None:
    with buffer.collection("scan").create_stream(name, dtype="i8", shape=(2,)) as stream:
        stream.extend(np.zeros((1, 2), "i8"))


def test_a_jobs_token_does_what_its_pattern_says(buffer: Buffer) -> None:
    buffer.meow.add(hiss.Recipe("modify", MODIFY, kind=RecipeKind.SCRIPT, retries=0))
    buffer.meow.add(hiss.Pattern("without", trigger="scan/without", recipe="modify"))
    seal(buffer, "without")
    wait_for(lambda: [job for job in buffer.meow.jobs() if job.state.final], 60)
    (job,) = buffer.meow.jobs()
    assert job.state is JobState.FAILED
    assert "PermissionRefused" in job.error
    assert [each.name for each in buffer.meow.recipes()] == ["modify"]
    buffer.meow.add(hiss.Pattern("with", trigger="scan/with", recipe="modify", rights=["rules"]))
    seal(buffer, "data1")
    seal(buffer, "with")
    wait_for(lambda: len([job for job in buffer.meow.jobs() if job.state is JobState.DONE]) == 2, 60)
    assert buffer.meow.jobs()[0].output == "made scan/data1\n"
    with pytest.raises(PatternNotFound):
        buffer.meow.pattern("none")
