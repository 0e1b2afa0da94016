"""From events to jobs: the five experiments of the MEOW thesis (17.4.2), and how long after its seal a job's code runs.

`SPMF` one pattern and N streams, `MPSF` N patterns and one stream, `MPMF` N patterns and N streams, each its own,
`SPSFP` one pattern with a sweep of N, `SPSFS` one pattern whose job writes the next stream, N in sequence. `scheduled`
is the time from the first event to the last job's row, the seals between them included, with an executor that starts
nothing; `there` the time that a new rule takes to meet N streams that are there, or to make N jobs of one; `finished`
the time to the last job's end, executions included. The buffer is embedded: its rule engine is in this process, the
jobs are not. `archive` is the ratio of the time to schedule N jobs beside a million that have ended to that beside
none.

Peers, in the same run: mig_meow's WorkflowRunner for `scheduled` (its workers do not run with today's papermill),
meow_base's for `finished`. Both watch files, so their event is a file that was written.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import hiss
from benchmarks.measure import Case, measure
from benchmarks.peers import install_line, interpreter, run_program
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.limits import MiB
from hiss.meow_bridge.executor import Capacity, Order, RunningAttempt
from hiss.server import open_embedded
from hiss.workflow import JobState, RecipeKind

_WAIT_S = 300.0
_NEXT = """
import hiss, numpy as np
number = int(input.rpartition("n")[2]) + 1
if number < limit: hiss.job().output(f"n{number}", np.zeros((1, 1), "u1"))
"""


class Nowhere:
    """An executor that has no room for anything, and may grow: jobs wait."""

    def capacity(self) -> Capacity:
        return Capacity(0, 0, may_grow=True)

    def begin(self, order: Order) -> RunningAttempt:
        raise AssertionError(f"{order.id}: there is no room")

    def close(self) -> None:
        pass


def run(quick: bool) -> Iterator[dict[str, Any]]:
    sys.setswitchinterval(2e-4)  # as in a server's processes
    yield from _latency(20 if quick else 200)
    for count in (10,) if quick else (10, 100, 500):
        for name in ("SPMF", "MPSF", "MPMF", "SPSFP"):
            yield _case(f"{name}/{count}/scheduled", lambda n=name, c=count: _scheduled(n, c), "mig_meow", name, count)
    for name in () if quick else ("SPMF", "MPMF", "SPSFP"):
        yield _case(f"{name}/5000/scheduled", lambda n=name: _scheduled(n, 5000), None, name, 5000)
    for count in (10,) if quick else (10, 100, 500, 5000):
        for name in ("SPMF", "SPSFP"):
            peer = "mig_meow" if count <= 500 else None
            yield _case(f"{name}/{count}/there", lambda n=name, c=count: _there(n, c), peer, name, count)
    for count in (10,) if quick else (10, 100):
        for name in ("SPMF", "MPSF", "MPMF", "SPSFP", "SPSFS"):
            peer = "meow_base" if count == 10 or name != "SPSFS" else None
            yield _case(f"{name}/{count}/finished", lambda n=name, c=count: _finished(n, c), peer, name, count)
    archived = 10_000 if quick else 1_000_000
    case = Case(
        f"schedule/SPSFP/500/archive of {archived}", "time", "ratio", lambda: _archive(archived), less_is_better=True
    )
    yield measure(case, 1)


def _case(label: str, ours: Callable[[], float], peer: str | None, name: str, count: int) -> dict[str, Any]:
    peers: dict[str, Callable[[], float]] = {}
    absent: dict[str, str] = {}
    if peer is not None and interpreter("meow") is None:
        absent = {peer: install_line("meow")}
    elif peer is not None:
        peers = {peer: lambda: _peer(peer, name, count)}
    case = Case(f"schedule/{label}", "time", "s", ours, peers, absent, less_is_better=True)
    return measure(case, 1 if count >= 100 else 3)


def _peer(peer: str, name: str, count: int) -> float:
    found = run_program("meow", f"run_{peer}.py", name, str(count))
    if found["jobs"] != count:
        sys.stderr.write(f"{peer} {name} {count}: it made {found['jobs']} jobs\n")
    return float(found["seconds"])


# ------------------------------------------------------------------------------------------------------- experiments


def _latency(count: int) -> Iterator[dict[str, Any]]:
    """From the return of `seal` to the first line of the recipe, one at a time: median and 99th percentile."""
    with _buffer() as buffer:
        _rules(buffer, "first", 1, "lat/*", body="import time\nprint(time.time_ns())")
        times_ms = sorted(_start_ms(buffer, number) for number in range(count))
    for name, place in (("p50", count // 2), ("p99", count * 99 // 100)):
        value = times_ms[place]
        yield measure(
            Case(f"schedule/seal-to-start/{name}", "latency", "ms", lambda v=value: v, less_is_better=True), 1
        )


def _start_ms(buffer: Buffer, number: int) -> float:
    sealed_ns = _seal(buffer, "lat", f"s{number}", after=True)

    def done() -> list[Any]:
        return [job for job in buffer.meow.jobs(limit=1) if job.path == f"lat/s{number}" and job.state.final]

    _wait(lambda: bool(done()))
    (job,) = done()
    assert job.state is JobState.DONE, job.error
    return (int(job.output) - sealed_ns) / 1e6


def _scheduled(name: str, count: int) -> float:
    with _buffer(executor=lambda *_: Nowhere()) as buffer:
        begin_ns = _experiment(buffer, name, count)
        _wait(lambda: len(buffer.meow.jobs(limit=count + 1)) == count)
        return (max(job.created_ns for job in buffer.meow.jobs(limit=count)) - begin_ns) / 1e9


def _finished(name: str, count: int) -> float:
    with _buffer() as buffer:
        begin_ns = _experiment(buffer, name, count)

        def over() -> bool:
            jobs = buffer.meow.jobs(limit=count + 1)
            return len(jobs) == count and all(job.state.final for job in jobs)

        _wait(over)
        jobs = buffer.meow.jobs(limit=count)
        assert {job.state for job in jobs} == {JobState.DONE}
        return (max(job.finished_ns for job in jobs) - begin_ns) / 1e9


def _there(name: str, count: int) -> float:
    """The events are there already: how long adding the rule takes."""
    with _buffer(executor=lambda *_: Nowhere()) as buffer:
        for number in range(count if name == "SPMF" else 1):
            _seal(buffer, "bench", f"s{number}")
        buffer.meow.add(hiss.Recipe("r", "pass", kind=RecipeKind.SCRIPT))
        sweep = {"point": list(range(count))} if name == "SPSFP" else {}
        begin_s = time.perf_counter()
        made = buffer.meow.add(hiss.Pattern("p", "bench/*", "r", sweep=sweep))
        assert made == count
        return time.perf_counter() - begin_s


def _archive(count: int) -> float:
    """500 jobs beside many that have ended, against 500 beside none."""
    times_s = []
    for archived in (0, count):
        directory = Path(tempfile.mkdtemp(prefix="hiss-bench-"))
        with _buffer(directory) as buffer:  # makes the database
            _rules(buffer, "r", 1, "elsewhere/*")
            _seal(buffer, "elsewhere", "s")
            _wait(lambda b=buffer: any(job.state.final for job in b.meow.jobs()))
        if archived:
            _fill_archive(directory / "data" / "jobs.db", archived)
        with _buffer(directory, executor=lambda *_: Nowhere()) as buffer:
            buffer.meow.add(hiss.Recipe("s", "pass", kind=RecipeKind.SCRIPT))
            _seal(buffer, "bench", "s")
            begin_s = time.perf_counter()
            assert buffer.meow.add(hiss.Pattern("p", "bench/*", "s", sweep={"point": list(range(500))})) == 500
            times_s.append(time.perf_counter() - begin_s)
        shutil.rmtree(directory)
    return times_s[1] / times_s[0]


def _fill_archive(path: Path, count: int) -> None:
    """Copies of the one job that has ended, each with an id of its own."""
    with sqlite3.connect(path) as database:
        names = [row[1] for row in database.execute("PRAGMA table_info(archive)") if row[1] not in ("seq", "id")]
        columns = ", ".join(names)
        database.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
            f" INSERT INTO archive(id, {columns}) SELECT lower(hex(randomblob(16))), {columns} FROM n,"
            " (SELECT * FROM archive LIMIT 1)"
        )
    database.close()


def _experiment(buffer: Buffer, name: str, count: int) -> int:
    """Make the rules, then the events; when the first was sealed."""
    if name == "SPSFS":
        _rules(buffer, "p", 1, "bench/n*", body=_NEXT, variables={"limit": count})
        return _seal(buffer, "bench", "n0")
    many_rules = name in ("MPSF", "MPMF")
    sweep = {"point": list(range(count))} if name == "SPSFP" else {}
    trigger = "bench/s{number}" if name == "MPMF" else "bench/*"
    _rules(buffer, "p", count if many_rules else 1, trigger, sweep=sweep)
    begin_ns = _seal(buffer, "bench", "s0")
    for number in range(1, count if name in ("SPMF", "MPMF") else 1):
        _seal(buffer, "bench", f"s{number}")
    return begin_ns


def _rules(buffer: Buffer, name: str, count: int, trigger: str, body: str = "pass", **pattern: Any) -> None:
    buffer.meow.add(hiss.Recipe(name, body, kind=RecipeKind.SCRIPT))
    for number in range(count):
        buffer.meow.add(hiss.Pattern(f"{name}{number}", trigger.replace("{number}", str(number)), name, **pattern))


def _seal(buffer: Buffer, collection: str, name: str, *, after: bool = False) -> int:
    """Store a stream of one block; the time before its seal, or after it."""
    with buffer.collection(collection).create_stream(name, dtype="u1", shape=(1,)) as stream:
        stream.append(np.zeros(1, "u1"))
        stream.flush()
        before_ns = time.time_ns()
    return time.time_ns() if after else before_ns


def _wait(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"not within {_WAIT_S} s")
        time.sleep(0.005)


@contextmanager
def _buffer(directory: Path | None = None, **engine_options: Any) -> Iterator[Buffer]:
    place = directory or Path(tempfile.mkdtemp(prefix="hiss-bench-"))
    with Buffer(open_embedded(place / "data", StorageOptions(arena_bytes=64 * MiB), "numba", engine_options)) as buffer:
        assert buffer.meow.jobs(limit=1) is not None  # starts the rule engine
        time.sleep(0.5)  # and lets it fork ahead, as a server has long done
        yield buffer
    if directory is None:
        shutil.rmtree(place)
