"""The system fails under a process that uses a storage: it is killed at a system call, or one returns an error.

`strace` attaches to the process and does it. The log's files and the catalog's (SQLite) are in the same run. The
process may go on, or end and say that the disk failed; it may not die of anything else, and what it had been promised
is there.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .audit import Audit, Broken, Promises
from .victims import Injection, Victims, needs_strace, promised, recover

STEPS = 45
# What the log and SQLite ask the system for that changes the disk, and how often in such a run, at least about.
CALLS = {"pwrite64": 126, "pwritev2": 50, "fdatasync": 60, "fallocate": 4, "fsync": 6, "unlink": 2, "ftruncate": 2}
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EINTR")  # short writes: `SimulatedDisk` has them
ERROR_CALLS = ("pwrite64", "pwritev2", "fdatasync", "fsync", "fallocate", "openat", "rename", "unlink", "ftruncate")
READS = ("pread64", "preadv2", "fstat", "newfstatat", "fcntl", "mmap")


@pytest.fixture(scope="session", autouse=True)
def tool() -> None:
    needs_strace()


def injected(victims: Victims, directory: Path, what: str, audit: Audit, *, seed: int = 1, control: str = "") -> bool:
    """One process with one injection; whether it was killed. What it left is held against what it was promised."""
    promises = Promises()
    victim = victims.new(directory, seed, steps=STEPS, control=control)
    try:
        strace = Injection(victim, what)
    except OSError as error:
        pytest.skip(f"strace cannot attach to a process here: {error}")
    victim.start()
    victim.wait()
    strace.close()
    finished = any(line[:1] in (b"E", b"F") for line in victim.lines)
    audit.acknowledged += promised(victim.lines, promises)
    recover(directory, promises, audit).close()
    shutil.rmtree(directory)
    return not finished


def kill_points() -> Iterator[str]:
    for call, times in CALLS.items():
        for number in range(1, times + 1):
            yield f"{call}:signal=SIGKILL:when={number}"


def error_points() -> Iterator[str]:
    for number in range(1, 21):
        for call in ERROR_CALLS:
            for code in ERRORS:
                yield f"{call}:error={code}:when={number}"
        for call in READS:
            yield f"{call}:error=EIO:when={number}"


def thinned(points: Sequence[str], count: int) -> list[str]:
    """So many of them, from all over."""
    return [points[len(points) * k // count] for k in range(count)]


KILLS, FAILURES = list(kill_points()), list(error_points())


def kill_all(victims: Victims, directory: Path, points: Sequence[str], tally) -> None:
    audit, killed = Audit(), 0
    for number, what in enumerate(points):
        killed += injected(victims, directory / str(number), what, audit, seed=number % 7)
    tally("killed at system calls", audit, points=len(points), killed=killed)
    assert killed >= len(points) * 2 // 3, "the points are not where the calls are"


def fail_all(victims: Victims, directory: Path, points: Sequence[str], tally) -> None:
    audit, died = Audit(), 0
    for number, what in enumerate(points):
        died += injected(victims, directory / str(number), what, audit, seed=number % 7)
    tally("failing system calls", audit, points=len(points), server_deaths=died)
    assert not died, "a process ended otherwise than by saying that the disk failed"


@pytest.mark.parametrize("part", range(4))
def test_killed_at_a_system_call_nothing_acknowledged_is_lost(victims, memory_dir, tally, part):
    kill_all(victims, memory_dir, thinned(KILLS, 100)[part::4], tally)


@pytest.mark.parametrize("part", range(4))
def test_a_failing_system_call_costs_nothing_acknowledged(victims, memory_dir, tally, part):
    fail_all(victims, memory_dir, thinned(FAILURES, 100)[part::4], tally)


@pytest.mark.torture
@pytest.mark.parametrize("part", range(10))
def test_killed_at_every_system_call(victims, memory_dir, tally, part):
    kill_all(victims, memory_dir, [*KILLS, *KILLS][part::10], tally)


@pytest.mark.torture
@pytest.mark.parametrize("part", range(20))
def test_every_system_call_fails_in_every_way(victims, memory_dir, tally, part):
    fail_all(victims, memory_dir, FAILURES[part::20], tally)


@pytest.mark.control
@pytest.mark.parametrize(
    ("control", "call", "what"),
    [
        ("early", "pwritev2", "signal=SIGKILL"),
        ("deaf", "pwritev2", "error=EIO"),
        ("early", "fdatasync", "signal=SIGKILL"),
    ],
)
def test_without_a_protection_an_injection_finds_it(victims, memory_dir, tally, control, call, what):
    """The negative controls: answers before the work, and files that do not hear of errors."""
    for number in itertools.chain(range(2, 60), range(60, 200, 5)):
        try:
            injected(victims, memory_dir / str(number), f"{call}:{what}:when={number}", Audit(), control=control)
        except Broken:
            tally.control("killed at system calls" if "KILL" in what else "failing system calls")
            return
    pytest.fail(f"nothing was found: {control}")
