"""Rules and jobs through the objects that users hold: the same on an embedded buffer and on a served one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hiss
from hiss.client import Buffer
from hiss.drain import drain
from hiss.errors import InvalidPattern, PatternNotFound, RecipeNotFound
from hiss.limits import MiB
from hiss.testing.conformance import double, frames, wait_for
from hiss.testing.processes import Served


@pytest.fixture(params=["embedded", "served"])
def buffer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Buffer]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("HISS_TOKEN", raising=False)
    if request.param == "embedded":
        with hiss.open(tmp_path / "data", arena_bytes=32 * MiB, segment_bytes=16 * MiB) as buffer:
            yield buffer
    else:
        with (
            Served(tmp_path / "data", tmp_path / "state") as served,
            hiss.connect(f"localhost:{served.port}") as buffer,
        ):
            yield buffer


def total(input, scale=1):  # type: ignore[no-untyped-def]
    """A recipe: what it returns becomes a stream."""
    import numpy as np

    return {"total": np.asarray(input).sum(axis=0, keepdims=True) * scale}


def store(buffer: Buffer, name: str, seed: int = 1) -> np.ndarray:
    data = frames(5, dtype="i8", seed=seed)
    with buffer.collection("scan").create_stream(name, dtype="i8", shape=(4, 6)) as s:
        s.extend(data)
    return data


def settled(buffer: Buffer, count: int) -> bool:
    jobs = buffer.meow.jobs()
    return len(jobs) == count and all(job.state.final for job in jobs)


def test_a_rule_from_the_event_to_the_result(buffer: Buffer) -> None:
    before = store(buffer, "early")
    buffer.meow.add(hiss.Recipe("total", total))
    made = buffer.meow.add(
        hiss.Pattern("sums", trigger="scan/ear*", recipe="total", sweep={"scale": [1, 2]}, where={}, variables={})
    )
    assert made == 2, "a new rule meets what is already there"
    wait_for(lambda: settled(buffer, 2), 120)
    assert sorted(int(np.asarray(buffer.stream("scan/total", version))[0, 0, 0]) for version in (1, 2)) == sorted(
        [int(before.sum(axis=0)[0, 0]), 2 * int(before.sum(axis=0)[0, 0])]
    )
    job = buffer.meow.jobs()[0]
    assert (job.pattern, job.recipe, job.path) == ("sums", "total", "scan/early")
    assert [ref.path for ref in job.reads] == ["scan/early"]
    assert [ref.path for ref in job.writes] == ["scan/total"]
    assert buffer.stream("scan/total", 1).info.produced_by in {job.id for job in buffer.meow.jobs()}


def test_a_recipe_that_fails_leaves_nothing_and_says_why(buffer: Buffer, tmp_path: Path) -> None:
    script = tmp_path / "bad.py"
    script.write_text("import hiss\nhiss.job().output('half', [[1]])\nraise ValueError('the beam was off')\n")
    buffer.meow.add(hiss.Recipe("bad", script, retries=0))
    buffer.meow.add(hiss.Pattern("p", trigger="scan/*", recipe="bad"))
    store(buffer, "s")
    wait_for(lambda: settled(buffer, 1), 120)
    job = buffer.meow.jobs()[0]
    assert job.state.name == "FAILED"
    assert "the beam was off" in job.error + job.output
    assert "half" not in buffer["scan"]


def test_rules_exist_while_both_halves_do(buffer: Buffer) -> None:
    buffer.meow.add(hiss.Pattern("p", trigger="scan/*", recipe="total"))
    assert buffer.meow.rules() == []
    buffer.meow.add(hiss.Recipe("total", total))
    assert [(rule.pattern, rule.recipe) for rule in buffer.meow.rules()] == [("p", "total")]
    buffer.meow.remove_recipe("total")
    assert buffer.meow.rules() == []
    with pytest.raises(RecipeNotFound, match="total"):
        buffer.meow.remove_recipe("total")
    with pytest.raises(PatternNotFound):
        buffer.meow.remove_pattern("q")
    with pytest.raises(InvalidPattern):
        buffer.meow.add(hiss.Pattern("p", trigger="scan/***", recipe="total"))


def test_every_kind_of_event_reaches_its_pattern(buffer: Buffer, tmp_path: Path) -> None:
    """Of streams that are aborted, still written, stalled, drained, of kernels that break, collections and jobs."""
    buffer.meow.add(hiss.Recipe("echo", ["echo", "{input}", "{version}"]))
    kinds = {
        "stream.aborted": {},
        "stream.progress": {"every": 3},
        "stream.stalled": {"stalled_s": 0.05},
        "drain.completed": {},
        "job.finished": {},
        "kernel.quarantined": {},
        "collection.sealed": {},
    }
    for kind, more in kinds.items():
        trigger = {"collection.sealed": "scan", "stream.stalled": "scan/cut"}.get(kind, "scan/*")
        variables = {"version": "{VERSION}"}
        name = kind.replace(".", "-")
        buffer.meow.add(hiss.Pattern(name, trigger=trigger, recipe="echo", event=kind, variables=variables, **more))
    buffer.meow.add(hiss.Pattern("once", trigger="scan/whole", recipe="echo"))
    store(buffer, "whole")
    drain(buffer.store, "scan/whole", tmp_path / "whole.nxs")
    stream = buffer.collection("scan").create_stream("cut", dtype="i8", shape=(4, 6))
    stream.extend(frames(3, dtype="i8"))
    wait_for(lambda: job_of(buffer, "stream-stalled"), 60)
    stream.abort("enough")
    kernels = [double.bind(budget_s=1e-9)]
    with buffer.collection("scan").create_stream("broken", dtype="i8", shape=(4, 6), kernels=kernels) as stream:
        for frame in frames(10, dtype="i8"):
            stream.append(frame)
            stream.flush()
    buffer["scan"].seal()
    wait_for(lambda: all(job_of(buffer, kind.replace(".", "-")) for kind in kinds), 120)
    wait_for(lambda: all(job.state.final for job in buffer.meow.jobs()), 120)
    outputs = {kind: buffer.meow.job(job_of(buffer, kind.replace(".", "-"))).output.strip() for kind in kinds}
    assert outputs == {
        "stream.aborted": "scan/cut 1",
        "stream.progress": "scan/whole 1",
        "stream.stalled": "scan/cut 1",
        "drain.completed": "scan/whole 1",
        "job.finished": outputs["job.finished"],
        "kernel.quarantined": "scan/broken 1",
        "collection.sealed": "scan 0",
    }


def job_of(buffer: Buffer, pattern: str) -> str:
    """The first job of a pattern, '' while there is none."""
    return next((job.id for job in reversed(buffer.meow.jobs()) if job.pattern == pattern), "")


def test_a_jobs_record_and_the_job_once_more(buffer: Buffer) -> None:
    data = frames(5, dtype="i8")
    kernels = [double.bind(gain=3)]
    with buffer.collection("scan").create_stream("s", dtype="i8", shape=(4, 6), kernels=kernels) as stream:
        stream.extend(data)
    buffer.meow.add(hiss.Recipe("total", total))
    sums = hiss.Pattern("sums", trigger="scan/s", recipe="total")
    assert buffer.meow.count_existing(sums) == 1
    buffer.meow.add(sums)
    wait_for(lambda: settled(buffer, 1), 120)
    job = buffer.meow.job(buffer.meow.jobs()[0].id)
    info = buffer["scan/s"].info
    assert job.trigger is not None
    assert (job.trigger.path, job.trigger.digest) == ("scan/s", info.digest)
    assert [(use.name, use.hash, use.params["gain"]["scalar"]) for use in job.kernels] == [
        ("double", info.stages[0].hash, 3)
    ]
    again = buffer.meow.rerun_job(job.id)
    assert (again.same, [each.path for each in again.outputs]) == (True, ["scan/total"]), again
    assert buffer["scan/total"].version == 1
