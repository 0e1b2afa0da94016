"""Feedback from rules and from the command line, on a served buffer as users start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import hiss
from hiss.client import Buffer
from hiss.testing.consumers import told
from hiss.testing.processes import Served
from hiss.testing.waiting import wait_for


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("feedback")
    with Served(folder / "data", folder / "state") as served:
        yield served


@pytest.fixture
def buffer(served: Served) -> Iterator[Buffer]:
    token = (served.data / "token").read_text()
    with hiss.connect(f"localhost:{served.port}", token=token) as buffer:
        yield buffer


def stop_at(input, level, other):  # type: ignore[no-untyped-def]
    """A recipe: tells the instrument to stop when the newest frames are too bright."""
    import numpy as np

    import hiss

    job = hiss.job()
    if np.asarray(input).max() >= level:
        assert job.feedback({"stop": True, "blocks": len(input)})
        job.feedback({"from": "scan"}, stream=other)
        assert not job.feedback("nobody hears this", stream="feed/sealed")


def test_a_rule_steers_the_instrument(buffer: Buffer) -> None:
    """While its stream is written, and the stream of another device beside it."""
    scan = buffer.collection("feed")
    with scan.create_stream("sealed", dtype="u1", shape=(1,)) as s:
        s.append(np.zeros(1, "u1"))
    motor = scan.create_stream("motor", dtype="u1", shape=(1,))
    buffer.meow.add(hiss.Recipe("stop", stop_at, retries=0))
    buffer.meow.add(
        hiss.Pattern(
            "stop",
            trigger="feed/camera",
            recipe="stop",
            event="stream.progress",
            every=5,
            variables={"level": 50, "other": "feed/motor"},
        )
    )
    camera = scan.create_stream("camera", dtype="u1", shape=(1,))
    for level in range(10):
        camera.append(np.array([10 * level], "u1"))
    camera.flush()
    assert told(camera, 1) == [{"stop": True, "blocks": 10}]
    assert told(motor, 1) == [{"from": "scan"}]
    wait_for(lambda: jobs(buffer, "stop") == ["DONE", "DONE"], 120)
    camera.close()
    motor.close()


def jobs(buffer: Buffer, pattern: str) -> list[str]:
    return [job.state.name for job in buffer.meow.jobs() if job.pattern == pattern]


def test_a_rule_that_writes_elsewhere_needs_the_right(buffer: Buffer) -> None:
    (scan, _) = buffer.collection("far"), buffer.collection("results")
    camera = scan.create_stream("camera", dtype="u1", shape=(1,))
    script = "import hiss\nhiss.job().feedback('from ' + name, stream='far/camera')\n"
    buffer.meow.add(hiss.Recipe("say", script, kind=hiss.workflow.RecipeKind.SCRIPT, retries=0))
    for name, rights in (("without", []), ("with", ["feedback"])):
        pattern = hiss.Pattern(
            name, trigger="far/start", recipe="say", writes="results", rights=rights, variables={"name": name}
        )
        buffer.meow.add(pattern)
    with scan.create_stream("start", dtype="u1", shape=(1,)) as s:
        s.append(np.zeros(1, "u1"))
    wait_for(lambda: jobs(buffer, "without") == ["FAILED"] and jobs(buffer, "with") == ["DONE"], 120)
    (failed,) = [job for job in buffer.meow.jobs() if job.pattern == "without"]
    assert "may write below 'results' only" in failed.error + failed.output
    assert told(camera, 1) == ["from with"]
    camera.close()


def test_the_command_line_says_a_word_to_a_producer(served: Served, buffer: Buffer) -> None:
    def say(*words: str) -> Any:
        command = [sys.executable, "-m", "hiss.cli", "feedback", "--address", f"localhost:{served.port}", *words]
        environment = {**os.environ, "HISS_TOKEN": (served.data / "token").read_text()}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    camera = buffer.collection("shell").create_stream("camera", dtype="u1", shape=(1,))
    assert say("shell/camera", '{"exposure_s": 0.2}').stdout == "shell/camera: delivered to its producer\n"
    assert told(camera, 1) == [{"exposure_s": 0.2}]
    wrong = say("shell/camera", "stop")
    assert (wrong.returncode, "is no JSON" in wrong.stderr) == (2, True)
    camera.close()
    deaf = say("shell/camera", '"stop"')
    assert (deaf.returncode, "no producer is connected" in deaf.stderr) == (5, True)
