"""The demo itself, as its users run it: a process, a killed server, a picture, a NeXus file, exit status 0."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import hiss
from hiss.cli.main import root
from hiss.demo.snippets import snippets
from hiss.workflow import JobState, Pattern, Recipe

RECIPES = Path(hiss.__file__).parent / "demo" / "recipes"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload,no-any-return]


def stop(pid: int) -> None:
    """SIGTERM a supervisor that is not our child, and wait until it is gone."""
    waiter = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    import select

    assert select.select([waiter], [], [], 60)[0], f"process {pid} does not stop"
    os.close(waiter)


def test_the_demo_keeps_its_promises_and_goes_on_with_keep(tmp_path: Path) -> None:
    out, port = tmp_path / "out", free_port()
    done = run(sys.executable, "-m", "hiss.cli", "demo", "--out", str(out), "--port", str(port), "--keep", "--json")
    assert done.stdout, done.stderr + (out / "server.log").read_text()
    told = json.loads(done.stdout)
    try:
        assert done.returncode == 0, told["promises"]
        assert len(told["promises"]) >= 7
        assert all(promise["kept"] for promise in told["promises"])
        assert told["promises"][0]["text"] == "0 acknowledged blocks lost"
        _look_at_artefacts(out, {Path(path).name for path in told["artefacts"]})
        _paste(told["address"], tmp_path)
        _follow(told["address"])
    finally:
        stop(told["supervisor"])


def _look_at_artefacts(out: Path, names: set[str]) -> None:
    assert names >= {"slice.png", "provenance.html", "scan.nxs"}
    assert (out / "slice.png").stat().st_size > 50_000
    page = (out / "provenance.html").read_text()
    assert all(word in page for word in ("<svg", "flatfield", "reconstruct", "slice.png", "demo/scan1/dark"))
    with h5py.File(out / "scan.nxs") as file:
        entry = file["entry"]
        assert entry["definition"][()] == b"NXtomo"
        assert set(entry["instrument/detector/image_key"][()]) == {0, 1, 2}
        assert entry["volume/data"].ndim == 3
        assert b"1 never received" in entry["hiss/proj/completeness"][()]
        assert entry["process_1_proj/program"][()] == b"hiss kernel flatfield"


def _paste(address: str, folder: Path) -> None:
    """What it prints to paste works as it stands there."""
    producer, analyst, shell = snippets(address)
    for name, snippet in (("producer.py", producer), ("analyst.py", analyst)):
        (folder / name).write_text(snippet.text)
        done = run(sys.executable, str(folder / name))
        assert done.returncode == 0, done.stderr
    tools = str(Path(sys.executable).parent)
    done = run("bash", "-e", "-c", shell.text, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    assert "demo/scan1/volume" in done.stdout


def _follow(address: str) -> None:
    """`hiss tail -f` tells of blocks as they come, and ends when the stream is sealed."""
    with hiss.connect(address) as buffer:
        stream = buffer.collection("demo/live").create_stream("frames", dtype="uint8", shape=(4,))
        stream.append(np.zeros(4, np.uint8))
        stream.flush()
        command = [sys.executable, "-m", "hiss.cli", "tail", "-f", "--json", "--address", address, "demo/live/frames"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
            assert tail.stdout is not None
            assert json.loads(tail.stdout.readline())["index"] == 0
            stream.append(np.ones(4, np.uint8), index=7)
            stream.seal()
            assert [json.loads(line)["index"] for line in tail.stdout] == [7]
            assert tail.wait(60) == 0


def test_the_notebook_reconstructs_the_phantom(tmp_path: Path) -> None:
    """The recipe, run by the rule engine on a simulated scan without noise or flats, gives back the phantom."""
    pytest.importorskip("papermill", reason="papermill is not installed: pip install 'hiss[demo]'")
    from hiss.testing.simulator import ParallelScan

    scan = ParallelScan(rows=24, columns=96, views=91, centre=50.4)
    with hiss.open(tmp_path / "data") as buffer:
        buffer.meow.add(Recipe("reconstruct", RECIPES / "reconstruct.ipynb", retries=0))
        buffer.meow.add(
            Pattern("p", trigger="demo/*/proj", recipe="reconstruct", outputs={"volume": "{COLLECTION}/volume"})
        )
        columns = {"angle": "f8 deg"}
        spec = {"dtype": "float32", "shape": (24, 96), "columns": columns}
        with buffer.collection("demo/scan1").create_stream("proj", **spec) as stream:
            for view in set(range(91)) - {40}:
                stream.append(scan.attenuation(view).astype(np.float32), index=view, angle=scan.angles[view])
        job = _finished(buffer)
        assert job.state is JobState.DONE, f"{job.error}\n{job.output}"
        volume = buffer["demo/scan1/volume"]
        assert abs(volume.attrs["centre"] - scan.centre) < 0.05
        inside = np.hypot(*np.meshgrid(np.arange(96) - 47.5, np.arange(96) - 47.5)) < 40
        for row in (6, 12):
            slice_, truth = volume[row], scan.truth(row)[::-1]  # the first axis of a slice points the other way
            assert np.corrcoef(slice_[inside], truth[inside])[0, 1] > 0.92
            assert abs(slice_[inside].sum() / truth[inside].sum() - 1) < 0.05


def _finished(buffer: hiss.Buffer) -> object:
    """The job, when it has come to its end: the event of that is waited for, and the state that follows it."""
    import threading

    stop_ = threading.Event()
    timer = threading.Timer(120, stop_.set)
    timer.start()
    try:
        for event in buffer.store.events(0, stop_):
            if event.kind in ("job.finished", "job.failed"):
                break
        while buffer.meow.jobs()[0].state is JobState.RUNNING and not stop_.wait(0.02):
            pass
    finally:
        timer.cancel()
    jobs = buffer.meow.jobs()
    assert len(jobs) == 1
    return jobs[0]


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = CliRunner().invoke(root, ["demo", "--out", str(tmp_path), "--port", str(port)])
    assert result.exit_code == 5
    assert f"port {port}" in result.stderr


def test_a_directory_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "buffer").mkdir()
    (tmp_path / "buffer" / "thesis.tex").write_text("years of work")
    result = CliRunner().invoke(root, ["demo", "--out", str(tmp_path), "--port", str(free_port())])
    assert result.exit_code == 4
    assert (tmp_path / "buffer" / "thesis.tex").read_text() == "years of work"


def test_a_missing_package_is_answered_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "skimage" else find(name, *rest)
    )
    result = CliRunner().invoke(root, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 10
    assert "pip install 'hiss[demo]'" in result.stderr
    assert list(tmp_path.iterdir()) == []
