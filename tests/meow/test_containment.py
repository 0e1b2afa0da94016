"""Recipes that do what no recipe should: each is contained, its job fails with the reason, and the next job runs.

Bounds are lowered so that nothing here does harm to the machine even where a protection is missing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hiss import limits
from hiss.limits import MiB
from hiss.meow_bridge import Engine
from hiss.meow_bridge.keeper import Allotment, excess
from hiss.meow_bridge.local_executor import LocalExecutor
from hiss.meow_bridge.process_tree import children, descendants
from hiss.workflow import Job, JobState

from .conftest import finished, pattern, script, wait_for
from .memory_store import MemoryStore
from .test_attempts import alive, pids, running


@pytest.fixture
def zygote() -> None:
    """Each engine has its own: it is killed here, and looked at."""


# Forks without end in four generations, and ends by itself after a while, in case nothing else ends it.
BOMB = """
import os, time
until = time.monotonic() + 20
open(pids, "a").write(f"{os.getpid()} ")
for generation in range(4):
    for child in range(8):
        if os.fork() == 0:
            open(pids, "a").write(f"{os.getpid()} ")
            break
while time.monotonic() < until: time.sleep(0.05)
"""

# Forks twice, in a session of its own, ignores what can be ignored, and lives on.
DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    os.closerange(0, 256)
    open(pids, "a").write(f"{os.getpid()} ")
    time.sleep(600)
while not os.path.exists(pids): time.sleep(0.01)
"""


def outcome(
    engine: Engine, store: MemoryStore, body: str, *, variables: dict[str, Any] | None = None, **more: Any
) -> Job:
    """The end of a job that goes wrong, and behind it one that does not."""
    engine.add(script("wrong", body, retries=0, **more))
    engine.add(script("next", "print('well')", retries=0))
    engine.add(pattern("p", "a/*", "wrong", variables=variables or {}))
    engine.add(pattern("q", "b/*", "next"))
    store.seal("a/in")
    wait_for(lambda: [job for job in engine.jobs() if job.recipe == "wrong" and job.state.final], "the job to end")
    store.seal("b/in")
    wrong, after = finished(engine, 2)
    assert (after.state, after.output) == (JobState.DONE, "well\n")
    return wrong


def test_a_recipe_that_loops_for_ever(engine: Engine, store: MemoryStore) -> None:
    job = outcome(engine, store, "while True: pass", timeout_s=0.5)
    assert (job.state, job.error) == (JobState.FAILED, "took longer than 0.5 s and was killed")


def test_a_recipe_that_ignores_every_signal_it_can(engine: Engine, store: MemoryStore) -> None:
    body = (
        "import signal, time\n"
        "for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)\n"
        "print('deaf')\ntime.sleep(600)"
    )
    job = outcome(engine, store, body, timeout_s=1.0)
    assert (job.state, job.error, job.output) == (JobState.FAILED, "took longer than 1 s and was killed", "deaf\n")


def test_a_recipe_that_forks_without_end(
    engine: Engine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOB_PROCESSES_MAX", 50)
    found = tmp_path / "pids"
    job = outcome(engine, store, BOMB, variables={"pids": str(found)})
    assert job.state is JobState.FAILED
    assert "processes at once" in job.error
    assert str(limits.JOB_PROCESSES_MAX) in job.error
    seen = [int(word) for word in found.read_text().split()]
    assert len(seen) > limits.JOB_PROCESSES_MAX / 4
    assert not any(alive(pid) for pid in seen)


def test_a_recipe_that_makes_a_daemon(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    job = outcome(engine, store, DAEMON, variables={"pids": str(tmp_path / "pids")})
    assert job.state is JobState.DONE
    (daemon,) = pids(tmp_path / "pids", 1)
    assert not alive(daemon)


def test_a_recipe_that_takes_all_memory_at_once(engine: Engine, store: MemoryStore) -> None:
    job = outcome(engine, store, "x = bytearray(1 << 40)", memory_bytes=128 * MiB)
    assert (job.state, job.error) == (JobState.FAILED, "MemoryError")


def test_a_recipe_that_takes_memory_bit_by_bit(engine: Engine, store: MemoryStore) -> None:
    job = outcome(engine, store, "x = []\nwhile True: x.append(bytearray(1 << 20))", memory_bytes=128 * MiB)
    assert job.state is JobState.FAILED
    assert job.error.startswith(("MemoryError", "its processes took"))


def test_a_recipe_whose_processes_take_memory_together(engine: Engine, store: MemoryStore) -> None:
    """Each is below the bound, all together are not: what no resource limit of a process can see."""
    body = (
        "import os, time\n"
        "for child in range(4):\n"
        "    if os.fork() == 0:\n"
        "        x = b'x' * (60 << 20)\n        time.sleep(600)\n"
        "time.sleep(600)"
    )
    job = outcome(engine, store, body, memory_bytes=128 * MiB)
    assert job.state is JobState.FAILED
    assert "bytes of memory" in job.error


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("open('big', 'wb').truncate(1 << 50)", "File too large"),
        (
            "import itertools\nfor n in itertools.count(): open(f'{n}', 'wb').write(b'x' * (8 << 20))",
            "holds more than 33554432 bytes",
        ),
        ("import time\nfor n in range(10 ** 6): open(f'{n}', 'w')\ntime.sleep(600)", "files"),
        (
            "import tempfile\nx = []\nwhile True:\n"
            "    x.append(tempfile.NamedTemporaryFile())\n    x[-1].write(b'x' * (8 << 20))",
            "holds more than 33554432 bytes",
        ),
    ],
)
def test_a_recipe_that_fills_its_disk(
    engine: Engine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, body: str, error: str
) -> None:
    monkeypatch.setattr(limits, "JOB_WORK_BYTES_MAX", 32 * MiB)
    monkeypatch.setattr(limits, "JOB_WORK_FILES_MAX", 1000)
    job = outcome(engine, store, body)
    assert job.state is JobState.FAILED
    assert error in job.error


def test_a_recipe_that_prints_gigabytes(engine: Engine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOB_PRINTED_BYTES_MAX", 64 * MiB)
    job = outcome(engine, store, "import os\nwhile True: os.write(1, b'x' * (1 << 16))")
    assert (job.state, job.error) == (JobState.FAILED, f"it printed more than {64 * MiB} bytes")
    assert len(job.output) < 2 * limits.JOB_OUTPUT_BYTES_MAX


# ------------------------------------------------------------------------------------------------- negative controls


def test_a_daemon_lives_on_where_nobody_keeps_it(tmp_path: Path) -> None:
    found = tmp_path / "pids"
    subprocess.run([sys.executable, "-c", f"pids = {str(found)!r}\n{DAEMON}"], check=True)
    (daemon,) = pids(found, 1)
    try:
        assert alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_what_is_within_its_bounds_is_let_be(tmp_path: Path) -> None:
    """The same processes and files that are too much elsewhere, with bounds that they keep."""
    (tmp_path / "file").write_bytes(b"x" * MiB)
    body = "import os, time\nfor n in range(3): os.fork() or time.sleep(600)\ntime.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", body])
    try:
        wait_for(lambda: len(descendants(os.getpid())) >= 4, "the processes to be there")
        generous = Allotment(str(tmp_path), 1024 * MiB, 2 * MiB, 10, 100)
        assert excess(os.getpid(), generous) == ""
        assert "bytes of memory" in excess(os.getpid(), Allotment(str(tmp_path), MiB, 2 * MiB, 10, 100))
        assert "holds more" in excess(os.getpid(), Allotment(str(tmp_path), 1024 * MiB, MiB // 2, 10, 100))
        assert "processes at once" in excess(os.getpid(), Allotment(str(tmp_path), 1024 * MiB, 2 * MiB, 10, 3))
    finally:
        for pid in [process.pid, *descendants(process.pid)]:
            os.kill(pid, signal.SIGKILL)
        process.wait()


# ------------------------------------------------------------------------------------------------------- the zygote


def zygote_of(engine: Engine) -> int:
    executor = engine._dispatcher._executor
    assert isinstance(executor, LocalExecutor)
    pid: int = wait_for(lambda: executor._zygote.pid, "the zygote to be started")
    return pid


WAIT = """
import os, time
open(pids, "a").write(f"{os.getpid()} {os.getppid()} ")
while not os.path.exists(go): time.sleep(0.01)
"""


def test_the_zygote_is_killed(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    """What it forked goes on; what comes next has another one."""
    go = tmp_path / "go"
    engine.add(script("r", WAIT, retries=0))
    engine.add(pattern("p", "a/*", "r", variables={"go": str(go), "pids": str(tmp_path / "pids")}))
    store.seal("a/in")
    pids(tmp_path / "pids", 2)
    first = zygote_of(engine)
    os.kill(first, signal.SIGKILL)
    go.touch()
    (job,) = finished(engine, 1)
    assert (job.state, job.attempts) == (JobState.DONE, 1)
    for number in range(4):  # more than were started ahead
        store.seal(f"a/in{number}")
    assert [(job.state, job.attempts) for job in finished(engine, 5)] == [(JobState.DONE, 1)] * 5
    assert zygote_of(engine) != first


def test_a_keeper_is_killed(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    """Its attempt is lost, with all its processes, and costs no retry."""
    go, found = tmp_path / "go", tmp_path / "pids"
    body = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    )
    engine.add(script("r", body + WAIT, retries=0))
    engine.add(pattern("p", "a/*", "r", variables={"go": str(go), "pids": str(found)}))
    store.seal("a/in")
    _, keeper = pids(found, 2)
    below = descendants(keeper)
    assert len(below) == 2
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, below)), "its processes to die")
    pids(found, 4)
    assert running(engine).attempts == 2
    go.touch()
    (job,) = finished(engine, 1)
    assert (job.state, job.attempts) == (JobState.DONE, 2)
    assert ("discard", f"{job.id}.1") in store.calls


def test_the_zygote_has_one_thread(engine: Engine) -> None:
    zygote = zygote_of(engine)
    wait_for(lambda: len(children(zygote)) == limits.JOBS_AT_ONCE, "the jobs that are started ahead")
    for pid in [zygote, *descendants(zygote)]:
        assert len(os.listdir(f"/proc/{pid}/task")) == 1


def test_nothing_of_the_engine_or_of_another_job_is_in_a_job(
    make_engine: Any, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secrets of its environment, no open files, and no trace of the last job in memory."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for-the-operator-only")
    monkeypatch.setenv("HISS_TOKEN", "the-owner's")
    monkeypatch.setenv("KEPT", "yes")
    engine = make_engine(jobs_at_once=1)
    engine.add(script("first", "print(secret)"))
    engine.add(pattern("p", "a/*", "first", variables={"secret": "needle" + "-in-memory"}))
    store.seal("a/in")
    assert finished(engine, 1)[0].output == "needle-in-memory\n"
    look = r"""
import os
halves = [(b"needle-in", b"-memory"), (b"for-the-ope", b"rator-only")]  # never whole, or they would find themselves
found = 0
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        span, rights, *rest = line.split()
        start, stop = (int(end, 16) for end in span.split("-"))
        if "rw" in rights and "[v" not in line:
            memory.seek(start)
            data = memory.read(stop - start)
            for first, second in halves:
                place = data.find(first)
                while place >= 0:
                    place += len(first)
                    found += data[place : place + len(second)] == second
                    place = data.find(first, place)
print(found, os.environ.get("AWS_SECRET_ACCESS_KEY"), os.environ.get("HISS_TOKEN"), os.environ.get("KEPT"))
open_files = [f"/proc/self/fd/{number}" for number in range(256)]
print(sorted(os.readlink(name).split(":")[0] for name in open_files if os.path.exists(name)))
"""
    engine.add(script("second", look))
    engine.add(pattern("q", "b/*", "second"))
    store.seal("b/in")
    first, second = finished(engine, 2)[1].output.splitlines()
    assert first == "0 None None yes"
    engine.add(pattern("control", "c/*", "second", variables={"secret": "needle" + "-in-memory"}))
    store.seal("c/in")
    assert int(finished(engine, 3)[2].output.split()[0]) > 0, "what is there is found"
    assert second == "['/dev/null', 'pipe', 'pipe']"
