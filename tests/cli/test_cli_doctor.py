"""`hiss doctor`: what it finds of this machine, and that each check can warn and fail."""

from __future__ import annotations

import json
import os
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hiss.cli import checkup, machine
from hiss.cli.machine import Finding, Outcome
from hiss.limits import GiB, MiB
from hiss.model import NodeStatus
from hiss.testing.processes import DataProcess

STATUS = NodeStatus("n", "v", "b", 0, "/data", 10 * GiB, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, 100 * GiB, 50 * GiB, 20 * GiB)


def test_every_line_is_there_and_nothing_stays(hiss, outside: Path) -> None:
    found = hiss("doctor", "--json", "--address", "127.0.0.1:1", "--data", str(outside / "new"), embedded=False)
    findings = {finding["what"]: finding for finding in json.loads(found.out)}
    assert findings.keys() >= {
        "python", "numpy", "compiler", "log", "data directory", "file system", "disk", "disk speed", "memory", "clock",
        "open files", "locked memory", "processes", "OpenCL", "server",
    }  # fmt: skip
    assert {finding["outcome"] for finding in findings.values()} <= {"ok", "warn", "fail"}
    assert all(finding["advice"] or finding["outcome"] == "ok" for finding in findings.values()), findings
    assert findings["log"]["found"].startswith("page cache: ")
    assert findings["disk speed"]["found"].split("/s")[0][-2] in "kMGT"
    assert list(outside.iterdir()) == []
    assert found.status == max(finding["outcome"] == "fail" for finding in findings.values())


def test_a_running_server_is_asked_for_its_space_and_its_recovery(hiss, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with DataProcess(tmp_path / "served") as server:
        with server.connect() as buffer:
            buffer.collection("c").reserve("1 MB", hours=1)
        found = hiss("doctor", "--json", "--address", server.config.address, embedded=False)
    findings = {finding["what"]: finding for finding in json.loads(found.out)}
    assert findings["server"]["outcome"] == "ok"
    assert findings["space"]["found"].startswith("1 MB are promised and not used")
    assert findings["recovery"]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("room", "outcome"), [(100 * GiB, Outcome.OK), (31 * GiB, Outcome.WARN), (29 * GiB, Outcome.FAIL)]
)
def test_promises_are_held_against_the_room(room: int, outcome: Outcome) -> None:
    found = checkup.promises(replace(STATUS, room_bytes=room))
    assert found.outcome is outcome
    assert bool(found.advice) == (outcome is not Outcome.OK)


def test_what_recovery_found_is_told() -> None:
    damage = {"stream": "scan/s", "what": "a record", "segment": 1, "offset": 0, "blocks": []}
    bad = checkup.recovery(replace(STATUS, recovery={"damages_count": 1, "damages": [damage]}))
    assert (bad.outcome, "scan/s: a record" in bad.advice) == (Outcome.FAIL, True)
    stray = checkup.recovery(replace(STATUS, recovery={"stray_records": 3, "warning": "put it back"}))
    assert (stray.outcome, stray.advice) == (Outcome.WARN, "put it back")
    assert checkup.recovery(STATUS).outcome is Outcome.OK


def test_a_directory_that_others_may_write_is_warned_of(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert machine.directory(tmp_path).outcome is Outcome.OK
    tmp_path.chmod(0o777)
    found = machine.directory(tmp_path)
    assert (found.outcome, "chmod go-w" in found.advice) == (Outcome.WARN, True)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("mounted", "outcome", "said"),
    [
        ("tmpfs /data tmpfs rw 0 0", Outcome.WARN, "power cut"),
        ("server:/x /data nfs4 rw 0 0", Outcome.WARN, "remote"),
        ("x /data fuse.sshfs rw 0 0", Outcome.WARN, "remote"),
        ("/dev/sda1 /data xfs rw 0 0", Outcome.OK, ""),
        ("/dev/sda1 /other tmpfs rw 0 0", Outcome.OK, ""),
    ],
)
def test_file_systems(tmp_path: Path, mounted: str, outcome: Outcome, said: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/root / ext4 rw 0 0\n{mounted}\n")
    found = machine.file_system(Path("/data/hiss"), mounts)
    assert (found.outcome, said in found.advice) == (outcome, True)
    assert machine.file_system(Path("/data"), tmp_path / "none").outcome is Outcome.WARN


def test_the_real_file_system_is_known(tmp_path: Path) -> None:
    assert "mounted at" in machine.file_system(tmp_path).found


def test_a_full_and_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=MiB))
        (found,) = machine.disk(tmp_path)
        assert found.outcome is Outcome.FAIL
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100 * GiB))
    monkeypatch.setattr(machine, "_sync_seconds", lambda _: 0.5)
    monkeypatch.setattr(machine, "_speed", lambda _: (False, 1e6))
    assert [finding.outcome for finding in machine.disk(tmp_path)] == [Outcome.WARN, Outcome.WARN]


def test_without_direct_io_the_page_cache_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refused(path: str, flags: int, *more: int, **options: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "no direct I/O here")
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refused)
    direct, per_s = machine._speed(tmp_path)
    assert not direct
    assert per_s > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arena", "outcome"), [(1, Outcome.OK), (60, Outcome.WARN), (101, Outcome.FAIL)])
def test_the_arena_fits_into_what_is_available(tmp_path: Path, arena: int, outcome: Outcome) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {100 * MiB // 1024} kB\n")
    assert machine.memory(arena * MiB, tmp_path / "meminfo").outcome is outcome
    assert machine.memory(1, tmp_path / "none").outcome is Outcome.WARN


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.clock(lambda: 0x2001).outcome is Outcome.OK
    assert machine.clock(lambda: None).outcome is Outcome.OK
    assert "not synchronised" in machine.clock(lambda: 0x40).found
    times = iter([1000.0, 1010.0])
    monkeypatch.setattr(machine.time, "time", lambda: next(times))
    assert "jumped" in machine.clock(lambda: 0).found


def test_the_kernel_answers_for_the_clock() -> None:
    """Asked for real: a status word, or nothing where the call is not allowed."""
    status = machine._clock_status()
    assert status is None or 0 <= status < 1 << 16


def test_limits_of_files_and_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert machine.open_files().outcome is Outcome.WARN
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.setattr(machine, "resource", _Limits(1 << 20))
    assert machine.open_files().outcome is Outcome.OK
    for name, count in (("pids.max", "600"), ("pids.current", "200")):
        (tmp_path / name).write_text(count)
    assert machine.processes(tmp_path).outcome is Outcome.WARN
    (tmp_path / "pids.max").write_text("max")
    assert machine.processes(tmp_path).outcome is Outcome.OK
    assert machine.processes(tmp_path / "none").outcome is Outcome.OK
    monkeypatch.setattr(machine, "resource", _Limits(100))
    assert machine.processes(tmp_path).outcome is Outcome.WARN
    assert machine.locked_memory().found == "100 B"


class _Limits:
    """`resource`, with every limit the same."""

    RLIM_INFINITY = resource.RLIM_INFINITY
    RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_MEMLOCK = resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self._limit, self._limit


def test_opencl_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyopencl

    def none() -> list[object]:
        raise RuntimeError("PLATFORM_NOT_FOUND_KHR")

    monkeypatch.setattr(pyopencl, "get_platforms", none)
    found = machine.opencl()
    assert (found.outcome, "opencl-cpu" in found.advice) == (Outcome.WARN, True)
    assert isinstance(found, Finding)
