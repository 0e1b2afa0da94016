"""`hiss serve` as a user starts it: the processes, and what is done about one that dies."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hiss
from hiss.errors import HissError
from hiss.testing.conformance import wait_for
from hiss.testing.processes import Served, running

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("HISS_TOKEN", raising=False)
    with Served(tmp_path / "data", tmp_path / "state") as server:
        yield server


def test_the_first_contact_runs_as_it_stands(served: Served, tmp_path: Path) -> None:
    pytest.importorskip("papermill", reason="pip install 'hiss[notebook]'")
    shutil.copytree(EXAMPLES / "first_contact", tmp_path / "here")
    script = tmp_path / "here" / "first_contact.py"
    script.write_text(script.read_text().replace("localhost:5001", f"localhost:{served.port}"))
    command = [sys.executable, "-W", "ignore", script.name]
    done = subprocess.run(
        command, cwd=script.parent, env=served.environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr + served.log.read_text()
    assert done.stdout.count("DONE") == 2, done.stdout
    assert "beamtime42/scan7/sinogram_hann v1" in done.stdout
    with hiss.connect(f"localhost:{served.port}") as buffer:
        assert buffer["beamtime42/scan7/sinogram_ramp"].shape == (1, 6, 2560)
        graph = buffer.meow.provenance("beamtime42/scan7/sinogram_ramp")
        assert {"instrument", "stream", "job", "kernel"} <= {node.kind for node in graph.nodes}


@pytest.mark.parametrize("role", ["data", "rules"])
def test_a_process_that_is_killed_comes_back(served: Served, role: str) -> None:
    with hiss.connect(f"localhost:{served.port}") as buffer:
        buffer.meow.add(hiss.Recipe("echo", ["echo", "{input}"]))
        served.kill(role)
        served.wait_for(role)
        wait_for(lambda: names_of_recipes(buffer) == ["echo"], 120)
        assert buffer.status().collections == 0


def test_what_is_sealed_is_archived_by_a_drain_process_that_comes_back(served: Served, tmp_path: Path) -> None:
    with hiss.connect(f"localhost:{served.port}") as buffer:
        scan = buffer.collection("scan")
        scan.drain_to(f"{tmp_path}/{{stream}}.nxs")
        for number in range(2):
            with scan.create_stream(f"s{number}", dtype="u1", shape=(2,), ack="archived") as s:
                s.append(bytes_of(number))
            location = s.wait_archived(120).archives[0].location
            assert location == f"{tmp_path}/s{number}.nxs::/entry/instrument/s{number}/data"
            served.kill("drain")
        served.wait_for("drain")


def names_of_recipes(buffer: hiss.Buffer) -> list[str]:
    try:
        return [recipe.name for recipe in buffer.meow.recipes()]
    except HissError:
        return []


def test_it_stops_cleanly_and_leaves_no_process(served: Served) -> None:
    pids = [served.pid(role) for role in ("data", "rules", "drain")]
    assert served.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_the_processes_do_not_outlive_a_supervisor_that_is_killed(served: Served) -> None:
    pids = [served.pid(role) for role in ("data", "rules", "drain")]
    served.process.kill()
    served.process.wait(60)
    wait_for(lambda: not any(running(pid) for pid in pids))


def test_a_port_in_use_is_named(served: Served, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hiss.cli", "serve", "--data", str(tmp_path / "other"), "--port", str(served.port)]
    command += ["--http", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=served.environment)
    assert done.returncode != 0
    assert str(served.port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_runs_once_across_kills_of_both_processes(served: Served, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    script = tmp_path / "mark.py"
    script.write_text(
        "import hiss, os, numpy as np\n"
        "job = hiss.job()\n"
        f"open(os.path.join({str(marks)!r}, job.id), 'a').write('x')\n"
        "job.output('seen', np.asarray(job.input)[:1])\n"
    )
    with hiss.connect(f"localhost:{served.port}") as buffer:
        buffer.meow.add(hiss.Recipe("mark", script))
        buffer.meow.add(hiss.Pattern("each", trigger="scan/*", recipe="mark", where={"take": True}))
        for number in range(6):
            with buffer.collection("scan").create_stream(
                f"s{number}", dtype="u1", shape=(2,), attrs={"take": True}
            ) as s:
                s.append(bytes_of(number))
            if number in (1, 3):
                served.kill("rules")
            if number == 4:
                served.kill("data")
                served.wait_for("data")
        wait_for(lambda: done_jobs(buffer) == 6, 240)
        assert len(buffer.meow.jobs()) == 6
        assert len(list(marks.iterdir())) == 6
        events = list(buffer.store.events(0, threading.Event(), follow=False))
        assert sum(event.kind == "job.finished" for event in events) == 6, "one committed output each"
        seen = [info.version for info in buffer.store.streams("scan", all_versions=True) if info.name == "seen"]
        assert len(seen) == len(set(seen)) == 6


def bytes_of(number: int) -> np.ndarray:
    return np.full(2, number, "u1")


def done_jobs(buffer: hiss.Buffer) -> int:
    try:
        return sum(job.state.name == "DONE" for job in buffer.meow.jobs())
    except HissError:
        return -1
