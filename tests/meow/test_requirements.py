"""One test for each row of MEOW's tables: the requirements (R, P, M), the open problems, and what must not be repeated.

The names carry the ids. Each goes through what users call, on an engine that runs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss import limits
from hiss.client import Buffer
from hiss.errors import InvalidRecipe, PatternNotFound, RecipeNotFound
from hiss.limits import MiB
from hiss.meow_bridge import Engine
from hiss.model import Caller
from hiss.testing.conformance import wait_for as wait
from hiss.workflow import Job, JobState, Pattern, Recipe, RecipeKind, acting

from .conftest import finished, pattern, script, wait_for
from .memory_store import MemoryStore

MakeEngine = Callable[..., Engine]


def names(rules: Any) -> list[tuple[str, str]]:
    return [(rule.pattern, rule.recipe) for rule in rules]


def held_up(tmp_path: Path) -> tuple[Recipe, dict[str, str]]:
    """A recipe whose jobs wait for a file, and the variable that names it."""
    body = "import pathlib, time\nwhile not pathlib.Path(go).exists(): time.sleep(0.01)\n"
    return script("r", body), {"go": str(tmp_path / "go")}


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    with hiss.open(tmp_path / "data", arena_bytes=32 * MiB, segment_bytes=16 * MiB, backend="numpy") as buffer:
        yield buffer


def put(buffer: Buffer, path: str, values: Any, **more: Any) -> None:
    collection, _, name = path.rpartition("/")
    array = np.asarray(values)
    with buffer.collection(collection).create_stream(
        name, dtype=array.dtype.str, shape=array.shape[1:], new_version=True, **more
    ) as stream:
        stream.extend(array)


def ended(buffer: Buffer, count: int) -> list[Job]:
    wait(lambda: len(buffer.meow.jobs()) == count and all(job.state.final for job in buffer.meow.jobs()), 60)
    return buffer.meow.jobs()[::-1]


# ----------------------------------------------------------------------------------------------------------- recipes


def test_R1_a_recipe_has_a_unique_name(engine: Engine) -> None:
    engine.add(script("r", "1"))
    engine.add(script("other", "1"))
    engine.add(script("r", "2"))
    assert [(recipe.name, recipe.body) for recipe in engine.recipes()] == [("other", "1"), ("r", "2")]
    with pytest.raises(hiss.errors.InvalidName):
        script("", "1")


def test_R2_a_recipe_holds_runnable_code(engine: Engine, store: MemoryStore) -> None:
    with pytest.raises(InvalidRecipe):
        script("r", "this is no Python")
    engine.add(script("r", "print('it ran')"))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/x")
    assert finished(engine, 1)[0].output == "it ran\n"


def test_R3_a_new_recipe_makes_a_rule_with_every_pattern_that_names_it(engine: Engine) -> None:
    for name in ("p", "q"):
        engine.add(pattern(name, "a/*", "r"))
    engine.add(pattern("s", "a/*", "other"))
    assert engine.rules() == []
    engine.add(script("r", "1"))
    assert names(engine.rules()) == [("p", "r"), ("q", "r")]


def test_R4_deleting_a_recipe_deletes_its_rules_at_once(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "1"))
    engine.add(script("s", "1"))
    for name, recipe in (("p", "r"), ("q", "r"), ("t", "s")):
        engine.add(pattern(name, "a/*", recipe))
    engine.remove_recipe("r")
    assert names(engine.rules()) == [("t", "s")]
    store.seal("a/x")
    assert [job.pattern for job in finished(engine, 1)] == ["t"]
    with pytest.raises(RecipeNotFound):
        engine.remove_recipe("r")


def test_R5_changing_a_recipe_is_deleting_it_and_creating_it_anew(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "print(1)"))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/x")
    finished(engine, 1)
    (before,) = engine.rules()
    engine.add(script("r", "print(2)"))
    (after,) = engine.rules()
    assert before.id != after.id
    assert [job.output for job in finished(engine, 2)] == ["1\n", "2\n"], "the new rule meets what is there"


# ---------------------------------------------------------------------------------------------------------- patterns


def test_P1_a_pattern_has_a_unique_name(engine: Engine) -> None:
    engine.add(pattern("p", "a/*", "r"))
    engine.add(pattern("p", "b/*", "r"))
    assert [(each.name, each.trigger) for each in engine.patterns()] == [("p", "b/*")]
    with pytest.raises(hiss.errors.InvalidName):
        pattern("", "a/*", "r")


def test_P2_a_pattern_names_its_recipe(engine: Engine) -> None:
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r"))
    assert engine.pattern("p").recipe == "r"
    assert names(engine.rules()) == [("p", "r")]


def test_P3_a_pattern_holds_the_event_filter(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*/proj", "r", where={"kind": "good"}, complete_only=True))
    store.seal("a/s/proj", attrs={"kind": "bad"})
    store.seal("a/s/dark", attrs={"kind": "good"})
    store.seal("a/t/proj", attrs={"kind": "good"}, gaps=1)
    store.seal("a/u/proj", attrs={"kind": "good"})
    assert [job.path for job in finished(engine, 1)] == ["a/u/proj"]


def test_P4_a_pattern_holds_the_variables_for_the_recipe(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "print(data, centre, out)"))
    more = {"input": "data", "variables": {"centre": 296}, "outputs": {"out": "{COLLECTION}/made"}}
    engine.add(pattern("p", "a/*", "r", **more))
    store.seal("a/x")
    assert finished(engine, 1)[0].output == "a/x 296 a/made\n"


def test_P5_a_new_pattern_makes_a_rule_if_its_recipe_is_there(engine: Engine) -> None:
    engine.add(pattern("early", "a/*", "r"))
    assert [each.name for each in engine.waiting_patterns()] == ["early"]
    engine.add(script("r", "1"))
    engine.add(pattern("late", "a/*", "r"))
    assert names(engine.rules()) == [("early", "r"), ("late", "r")]


def test_P6_deleting_a_pattern_deletes_its_rules_at_once(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r"))
    engine.add(pattern("q", "a/*", "r"))
    engine.remove_pattern("p")
    assert names(engine.rules()) == [("q", "r")]
    store.seal("a/x")
    assert [job.pattern for job in finished(engine, 1)] == ["q"]
    with pytest.raises(PatternNotFound):
        engine.remove_pattern("p")


def test_P7_changing_a_pattern_is_deleting_it_and_creating_it_anew(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "print(v)"))
    engine.add(pattern("p", "a/*", "r", variables={"v": 1}))
    store.seal("a/x")
    finished(engine, 1)
    (before,) = engine.rules()
    assert engine.add(pattern("p", "a/*", "r", variables={"v": 1})) == 0, "unchanged, nothing changes"
    assert engine.rules() == [before]
    assert engine.add(pattern("p", "a/*", "r", variables={"v": 2})) == 1
    assert [job.output for job in finished(engine, 2)] == ["1\n", "2\n"]
    assert engine.rules()[0].id != before.id


# ------------------------------------------------------------------------------------------------------ the rule engine


def test_M1_a_rule_is_uniquely_identified(make_engine: MakeEngine, store: MemoryStore, tmp_path: Path) -> None:
    """By what it is: another engine gives it the same id, another content another one."""
    ids: list[set[str]] = []
    for directory in ("one", "two"):
        engine = make_engine(directory=tmp_path / directory)
        engine.add(script("r", "1"))
        engine.add(script("s", "1"))
        for name, recipe in (("p", "r"), ("q", "r"), ("t", "s")):
            engine.add(pattern(name, "a/*", recipe))
        ids.append({rule.id for rule in engine.rules()})
    assert ids[0] == ids[1]
    assert len(ids[0]) == 3


def test_M2_a_rule_takes_its_filter_from_the_pattern(engine: Engine) -> None:
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/**/proj", "r", event="stream.aborted"))
    (rule,) = engine.rules()
    assert (rule.trigger, rule.event) == ("a/**/proj", "stream.aborted")


def test_M3_a_rule_links_pattern_and_recipe(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "print('r', v)"))
    engine.add(pattern("p", "a/*", "r", variables={"v": 7}))
    store.seal("a/x")
    (job,) = finished(engine, 1)
    (rule,) = engine.rules()
    assert (job.rule, job.pattern, job.recipe) == (rule.id, rule.pattern, rule.recipe) == (rule.id, "p", "r")
    assert job.output == "r 7\n"


def test_M4_a_part_of_one_store_is_monitored(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "1"))
    engine.add(pattern("p", "beam/**", "r"))
    for path in ("beam/x", "other/x", "beam2/x"):
        store.seal(path)
    assert [job.path for job in finished(engine, 1)] == ["beam/x"]


def test_M5_with_everything_below_it(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "1"))
    engine.add(pattern("p", "beam/**", "r"))
    paths = ["beam/x", "beam/s/x", "beam/s/t/u/v/x"]
    for path in paths:
        store.seal(path)
    assert sorted(job.path for job in finished(engine, 3)) == sorted(paths)


def test_M6_no_event_is_missed(make_engine: MakeEngine, store: MemoryStore) -> None:
    """While the engine is down, while the buffer is away, and in a flood."""
    first = make_engine(jobs_at_once=1)
    first.add(script("r", "1"))
    first.add(pattern("p", "a/*", "r", jobs_at_once=1))
    store.seal("a/before")
    first.stop()
    for number in range(20):
        store.seal(f"a/down{number}")
    second = make_engine(jobs_at_once=1)
    store.seal("a/up")
    wait_for(lambda: len(second.jobs()) == 22, "the jobs")
    store.set_away(True)
    store.set_away(False)
    store.seal("a/back")
    wait_for(lambda: len(second.jobs()) == 23, "the last job")
    assert len({job.path for job in second.jobs()}) == 23


def test_M7_every_event_is_compared_with_every_current_rule(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "1"))
    triggers = {"a/*", "*/x", "**", "a/x", "b/*"}
    for number, trigger in enumerate(sorted(triggers)):
        engine.add(pattern(f"p{number}", trigger, "r"))
    store.seal("a/x")
    jobs = finished(engine, 4)
    assert {engine.pattern(job.pattern).trigger for job in jobs} == triggers - {"b/*"}


def test_M8_by_its_properties(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "1"))
    for event in ("stream.sealed", "stream.aborted", "collection.sealed"):
        engine.add(pattern(event, "a/**", "r", event=event))
    store.emit("stream.aborted", "a/s", "x", 1)
    store.emit("collection.sealed", "a/s")
    assert sorted(job.pattern for job in finished(engine, 2)) == ["collection.sealed", "stream.aborted"]


def test_M9_a_match_schedules_jobs_as_the_pattern_says(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "print(x, y)"))
    engine.add(pattern("p", "a/*", "r", sweep={"x": [1, 2], "y": {"start": 0, "stop": 0.2, "step": 0.1}}))
    store.seal("a/x")
    assert sorted(job.output for job in finished(engine, 6)) == [f"{x} {y}\n" for x in (1, 2) for y in (0.0, 0.1, 0.2)]


def test_M10_a_new_rule_is_applied_to_what_is_there(engine: Engine, store: MemoryStore) -> None:
    """`existing`: all, each once, with a count beforehand; or none."""
    engine.add(script("r", "1"))
    for path in ("a/x", "a/deep/er/y", "b/z", "a/x"):
        store.seal(path)
    store.delete("a/x", 1)
    every = pattern("every", "a/**", "r", sweep={"n": [1, 2]})
    assert engine.count_existing(every) == 4
    assert (engine.patterns(), engine.jobs()) == ([], []), "a count changes nothing"
    assert engine.add(every) == 4
    assert engine.count_existing(every) == 0
    assert engine.add(pattern("none", "a/**", "r"), existing=False) == 0
    assert sorted((job.path, job.version) for job in finished(engine, 4)) == [("a/deep/er/y", 1)] * 2 + [("a/x", 2)] * 2


def test_M10_in_bounded_transactions(
    make_engine: MakeEngine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short in the middle, it goes on where it was."""
    monkeypatch.setattr(limits, "EVENTS_PAGE", 4)
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    for number in range(10):
        store.seal(f"a/x{number}")
    calls = store.stream

    def dies_at_the_sixth(path: str, version: int | None = None) -> Any:
        if path == "a/x5":
            raise KeyboardInterrupt
        return calls(path, version)

    monkeypatch.setattr(store, "stream", dies_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        engine.add(pattern("p", "a/*", "r"))
    assert len(engine.jobs()) == 4
    engine.stop()
    monkeypatch.setattr(store, "stream", calls)
    again = make_engine()
    wait_for(lambda: len(again.jobs()) == 10, "the rest")


def test_M11_deleting_a_rule_cancels_its_unfinished_jobs(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    recipe, go = held_up(tmp_path)
    engine.add(recipe)
    engine.add(pattern("p", "a/*", "r", variables=go, jobs_at_once=1))
    for name in ("x", "y"):
        store.seal(f"a/{name}")
    wait_for(lambda: engine.jobs(state=JobState.RUNNING), "one to run")
    engine.remove_pattern("p")
    assert [job.state for job in finished(engine, 2)] == [JobState.CANCELLED] * 2


def test_M11_spares_the_job_that_did_it(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    recipe, go = held_up(tmp_path)
    engine.add(recipe)
    engine.add(pattern("p", "a/*", "r", variables=go, rights=["rules"], jobs_at_once=1))
    store.seal("a/x")
    (job,) = wait_for(lambda: engine.jobs(state=JobState.RUNNING), "it to run")
    with acting(Caller(f"{job.id}.1", "a", ("rules",))):
        engine.remove_pattern("p")
    (tmp_path / "go").touch()
    assert [job.state for job in finished(engine, 1)] == [JobState.DONE]


# ----------------------------------------------------------------------------------- what the thesis left open


def test_open_26_2_1_overwritten_between_trigger_and_job(buffer: Buffer, tmp_path: Path) -> None:
    """The job is bound to the version that triggered it, whatever comes after."""
    body = (
        "import hiss, pathlib, time, numpy\nwhile not pathlib.Path(go).exists(): time.sleep(0.01)\n"
        "print(int(numpy.asarray(hiss.job().input).sum()))"
    )
    buffer.meow.add(script("r", body))
    buffer.meow.add(Pattern("p", "a/x", "r", variables={"go": str(tmp_path / "go")}))
    put(buffer, "a/x", np.array([1, 2]))
    wait(lambda: buffer.meow.jobs(), 60)
    put(buffer, "a/x", np.array([100]))
    (tmp_path / "go").touch()
    assert [job.output for job in ended(buffer, 2)] == ["3\n", "100\n"]


def test_open_26_2_1_and_29_2_runaway_chains_and_floods(buffer: Buffer, caplog: pytest.LogCaptureFixture) -> None:
    """A chain that leads to itself ends, is told of aloud, and can be released; a flood is held."""

    def again(input):  # type: ignore[no-untyped-def]
        return {"x": np.asarray(input) + 1}

    buffer.meow.add(Recipe("again", again))
    buffer.meow.add(Pattern("loop", "a/x", "again", chain_jobs=11))
    buffer.meow.add(Pattern("flood", "f/*", "again", jobs_an_hour=2))
    with caplog.at_level(logging.WARNING, "hiss.meow"):
        put(buffer, "a/x", np.array([0]))
        wait(lambda: len(buffer.meow.jobs(state=JobState.HELD)) == 1, 60)
    (held,) = buffer.meow.jobs(state=JobState.HELD)
    assert held.error == "held back: it is job 12 of a chain, pattern loop allows 11"
    assert "leads to itself, for the 10th time" in caplog.text
    wait(lambda: [event for event in events(buffer) if event.kind == "chain.looping"], 60)
    buffer.meow.release_job(held.id)
    wait(lambda: buffer.meow.job(held.id).state is JobState.DONE, 60)
    for number in range(3):
        put(buffer, f"f/s{number}", np.array([0]))
    wait(lambda: [job for job in buffer.meow.jobs(state=JobState.HELD) if job.pattern == "flood"], 60)


def events(buffer: Buffer) -> list[Any]:
    return list(buffer.store.events(0, threading.Event(), follow=False))


def test_open_27_3_nothing_happens_when_nothing_happens(buffer: Buffer) -> None:
    """A stalled stream, a failed job and a time of the clock are events."""
    buffer.meow.add(script("r", "print('told', input)"))
    buffer.meow.add(script("fails", "1/0", retries=0))
    buffer.meow.add(Pattern("stalled", "a/x", "r", event="stream.stalled", stalled_s=0.05))
    buffer.meow.add(Pattern("fails", "a/y", "fails"))
    buffer.meow.add(Pattern("failed", "a/y", "r", event="job.failed"))
    buffer.meow.add(Pattern("timer", "a/t", "r", event="timer", every_s=1))
    stream = buffer.collection("a").create_stream("x", dtype="u1", shape=(1,))
    put(buffer, "a/y", np.array([1]))

    def told() -> bool:
        done = {job.pattern for job in buffer.meow.jobs(state=JobState.DONE)}
        return {"stalled", "failed", "timer"} <= done

    wait(told, 60)
    assert next(event.path for event in events(buffer) if event.kind == "stream.stalled") == "a/x"
    stream.close()


def test_open_decisions_while_data_still_flows(buffer: Buffer) -> None:
    """A job for each so many blocks, bound to what could be read then; what it decides reaches the instrument."""

    def decide(input, blocks, end_index):  # type: ignore[no-untyped-def]
        stream = hiss.job().buffer.stream(input.path)
        told = {"blocks": blocks, "sum": int(np.asarray(input).sum()), "seen": len(input), "end": end_index}
        hiss.job().buffer.store.send_feedback(stream.info.id, told)

    buffer.meow.add(Recipe("decide", decide))
    buffer.meow.add(Pattern("live", "a/x", "decide", event="stream.progress", every=4, jobs_at_once=1))
    with buffer.collection("a").create_stream("x", dtype="i8", shape=(1,), ack="written") as stream:
        told: list[Any] = []
        stream.extend(np.ones((10, 1), "i8"))
        stream.flush()
        wait(lambda: told.extend(stream.feedback()) or len(told) == 2, 60)
    assert told == [{"blocks": n, "sum": n, "seen": n, "end": n} for n in (4, 8)]


def test_open_26_2_8_and_29_4_reading_hdf5_is_no_change(engine: Engine, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="pip install 'hiss[hdf5]'")
    pytest.importorskip("watchdog", reason="pip install 'hiss[watch]'")
    (tmp_path / "in").mkdir()
    engine.add(script("r", "import h5py\nwith h5py.File(input, 'r') as file: print(file['x'][0])"))
    engine.add(pattern("p", f"file:{tmp_path}/in/*.h5", "r"))
    for number in (1, 2):
        with h5py.File(tmp_path / "in" / f"{number}.h5", "w") as file:
            file["x"] = [number]
        finished(engine, number)
        with h5py.File(tmp_path / "in" / f"{number}.h5", "r") as file:
            file["x"][0]
    assert [job.output for job in finished(engine, 2)] == ["1\n", "2\n"], "a job for each, none for being read"


def test_open_29_3_provenance_everywhere(buffer: Buffer) -> None:
    """Without a word of the recipe's: what it read and wrote is known, back to the instrument."""

    def mixed(input):  # type: ignore[no-untyped-def]
        return {"out": np.asarray(input) + np.asarray(hiss.job().buffer["a/other"])}

    buffer.collection("a", attrs={"instrument": "camera 7"})
    put(buffer, "a/other", np.array([1]))
    buffer.meow.add(Recipe("mixed", mixed))
    buffer.meow.add(Pattern("p", "a/x", "mixed"))
    put(buffer, "a/x", np.array([1]))
    ended(buffer, 1)
    labels = {node.label.split()[0] for node in buffer.meow.provenance("a/out").nodes}
    assert labels == {"a/out", "a/x", "a/other", "mixed", "camera"}


def test_open_27_4_recipes_are_not_only_notebooks(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    """A function, a script and any command; notebooks have tests of their own (`test_notebook`, `test_job`)."""
    body = "def f(path):\n    print('function', path)\n"
    engine.add(Recipe("function", body, kind=RecipeKind.FUNCTION, entry="f"))
    engine.add(script("script", "print('script', input)"))
    engine.add(Recipe("command", ["echo", "command", "{input}"]))
    for name in ("function", "script", "command"):
        engine.add(pattern(name, "a/*", name, variables={"path": "{PATH}"}))
    store.seal("a/x")
    assert sorted(job.output for job in finished(engine, 3)) == [
        "command a/x\n",
        "function a/x\n",
        "script a/x\n",
    ]


def test_open_29_1_requirements_of_a_recipe(engine: Engine, store: MemoryStore) -> None:
    """Packages, cores, memory, time and retries are stated; the pattern may override the numbers."""
    engine.add(script("needs", "1", packages=["no-such-package-anywhere>=2"], retries=0))
    engine.add(script("slow", "import time\ntime.sleep(600)", timeout_s=600.0, retries=5))
    engine.add(script("threads", "import os\nprint(os.environ['OMP_NUM_THREADS'])", cores=1, memory_bytes=512 * MiB))
    engine.add(pattern("needs", "a/*", "needs"))
    engine.add(pattern("slow", "a/*", "slow", timeout_s=0.2, retries=0))
    engine.add(pattern("threads", "a/*", "threads"))
    store.seal("a/x")
    jobs = {job.recipe: job for job in finished(engine, 3)}
    assert "no-such-package-anywhere" in jobs["needs"].error
    assert "took longer than 0.2 s" in jobs["slow"].error
    assert (jobs["slow"].attempts, jobs["threads"].output) == (1, "1\n")


def test_open_17_4_2_no_polling_and_no_settle_time(make_engine: MakeEngine, tmp_path: Path) -> None:
    """A sequence of jobs goes on while the clock stands still: nothing waits for time to pass."""
    pytest.importorskip("watchdog", reason="pip install 'hiss[watch]'")
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    engine = make_engine(monotonic_s=lambda: 0.0)
    engine.add(script("next", "import pathlib\npathlib.Path(out).write_text(open(input).read() + '!')"))
    for here, there in (("one", "two"), ("two", "three")):
        out = {"out": f"{tmp_path}/{there}/{{FILENAME}}"}
        engine.add(pattern(here, f"file:{tmp_path}/{here}/*", "next", variables=out))
    (tmp_path / "one" / "x").write_text("x")
    finished(engine, 2)
    assert (tmp_path / "three" / "x").read_text() == "x!!"


# -------------------------------------------------------------------------------------- what must not be repeated


def test_never_a_job_while_the_file_is_written_nor_four_for_four_writes(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("watchdog", reason="pip install 'hiss[watch]'")
    (tmp_path / "in").mkdir()
    engine.add(script("r", "print(open(input).read())"))
    engine.add(pattern("p", f"file:{tmp_path}/in/*", "r"))
    with (tmp_path / "in" / "slow").open("w") as file:
        for step in range(4):
            file.write(str(step))
            file.flush()
            (tmp_path / "in" / f"other{step}").write_text(str(step))
            finished(engine, step + 1)
    assert finished(engine, 5)[-1].output == "0123\n"


def test_never_jobs_of_a_removed_pattern(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    recipe, go = held_up(tmp_path)
    engine.add(recipe)
    engine.add(pattern("p", "a/*", "r", variables=go))
    for number in range(6):
        store.seal(f"a/x{number}")
    wait_for(lambda: len(engine.jobs()) == 6, "the jobs")
    engine.remove_pattern("p")
    (tmp_path / "go").touch()
    assert {job.state for job in finished(engine, 6)} == {JobState.CANCELLED}


def test_never_sub_directories_missed_by_a_new_rule(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    pytest.importorskip("watchdog", reason="pip install 'hiss[watch]'")
    (tmp_path / "in" / "b" / "c").mkdir(parents=True)
    for name in ("a", "b/a", "b/c/a"):
        (tmp_path / "in" / name).write_text(name)
    for path in ("a/x", "a/b/x", "a/b/c/x"):
        store.seal(path)
    engine.add(script("r", "1"))
    assert engine.add(pattern("streams", "a/**", "r")) == 3
    assert engine.add(pattern("files", f"file:{tmp_path}/in/**", "r")) == 3


@pytest.mark.parametrize(
    ("sweep", "points"),
    [
        ({"x": {"start": 1, "stop": 3, "step": 1}, "y": ["a", "b"]}, 6),
        ({"x": {"start": 3, "stop": 1, "step": -1}}, 3),
        ({"x": {"start": 1, "stop": 1, "step": 1}}, 1),
        ({"x": [5]}, 1),
    ],
)
def test_never_a_sweep_that_lacks_points_or_variables(
    engine: Engine, store: MemoryStore, sweep: dict[str, Any], points: int
) -> None:
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r", sweep=sweep))
    store.seal("a/x")
    jobs = finished(engine, points)
    assert all(set(sweep) <= set(job.variables) for job in jobs)
    assert len({tuple(job.variables[name] for name in sweep) for job in jobs}) == points


def test_never_a_job_lost_without_a_word(
    make_engine: MakeEngine, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """500 events, a loop that stumbles now and then: it says so, and every event has its job."""
    engine = make_engine(jobs_at_once=1)
    insert, calls = engine._jobs.insert, [0]

    def stumbles(*given: Any) -> Any:
        calls[0] += 1
        if calls[0] in (2, 3):
            raise RuntimeError("a bug")
        return insert(*given)

    engine._jobs.insert = stumbles  # type: ignore[method-assign]
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r", jobs_at_once=1))
    store.seal("a/x0")
    wait_for(engine.jobs, "the first, so that the others are not all met together with it")
    for number in range(1, 500):
        store.seal(f"a/x{number}")
    wait_for(lambda: len(engine.jobs(limit=1000)) == 500, "500 jobs")
    assert "a bug" in caplog.text
    assert len({job.path for job in engine.jobs(limit=1000)}) == 500
    engine.remove_pattern("p")


def test_never_a_pickle(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    """Nothing that the engine keeps is one: neither a file nor a value in its database begins as pickles do."""
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r", variables={"x": {"deep": [1, None, "y"]}}))
    store.seal("a/x")
    finished(engine, 1)
    engine.stop()
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")]
    assert not [path for path in kept if b"\x80\x04\x95" in path.read_bytes()]


def test_never_parameters_replaced_by_searching_text() -> None:
    """Indented code is replaced, and values that contain `=` are no obstacle."""
    from hiss.meow_bridge.notebook import parameterised

    source = "if True:\n    x = 1\nurl = 'a=b'\nprint(x, url)\n# x = 3\ntext = 'x = 4'\n"
    notebook = {"cells": [{"cell_type": "code", "source": source, "metadata": {}}], "metadata": {}, "nbformat": 4}
    (cell,) = parameterised(notebook, {"x": 5, "url": "c=d=e"})["cells"]
    space: dict[str, Any] = {}
    exec("".join(cell["source"]), space)
    assert (space["x"], space["url"], space["text"]) == (5, "c=d=e", "x = 4")


def test_never_slow_with_many_rules_or_events(make_engine: MakeEngine, store: MemoryStore) -> None:
    """What a match costs is what matches: a rule is asked for its conditions only where its trigger fits."""
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    for number in range(40):
        engine.add(pattern(f"p{number}", f"a/s{number}/*", "r", where={"kind": "good"}), existing=False)
    asked: list[str] = []
    stream = store.stream
    store.stream = lambda path, version=None: asked.append(path) or stream(path, version)  # type: ignore[func-returns-value,method-assign]
    store.seal("a/s7/x", attrs={"kind": "good"})
    store.seal("b/x")
    assert engine.add(pattern("p7", "a/s7/*", "r", where={"kind": "good"}, variables={"new": 1})) == 1
    assert asked == ["a/s7/x"]
