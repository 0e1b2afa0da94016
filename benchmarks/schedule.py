"""From events to jobs: the five experiments of the MEOW thesis (17.4.2), and how long after its seal a job's code runs.

`SPMF` one pattern and N streams, `MPSF` N patterns and one stream, `MPMF` N patterns and N streams, each its own,
`SPSFP` one pattern with a sweep of N, `SPSFS` one pattern whose job writes the next stream, N in sequence. Three
figures of each, in seconds:

- `there`: the streams are there and the patterns wait; from the call that adds their recipe until the N jobs are
  committed. Nothing but the rule engine's own work.
- `seals`: from just before the first seal until the N jobs are committed; the streams are written, durably, by
  several writers at once.
- `finished`: the same with one writer, until the N jobs have ended, executions included.

Jobs count when another connection to the database reads them, so the last commit is in each figure. In the first two
the executor starts nothing. The buffer is embedded: its rule engine is in this process, the jobs are not. `archive` is
the ratio of the time to schedule N jobs beside a million that have ended to that beside none.

Peers, in the same run: mig_meow's WorkflowRunner for `there` and `seals` (its workers do not run with today's
papermill), meow_base's for `finished`. Both watch files, so their event is a file that was written, and their clock
starts before the first is opened. Each experiment of theirs is run once. One that would take minutes is left out, and
the line says so.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
_PEER_S = 120.0  # an experiment of a peer that takes longer is given up
_WRITERS = 8  # of the streams that are sealed, as several detectors or ranks would
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
    for count in (10,) if quick else (10, 100, 500, 5000):
        rounds = 1 if quick or count > 100 else 3
        for name in ("SPMF", "MPSF", "MPMF", "SPSFP"):
            yield _case(f"{name}/{count}/there", lambda n=name, c=count: _there(n, c), rounds, "mig_meow", name, count)
            yield _case(f"{name}/{count}/seals", lambda n=name, c=count: _seals(n, c), rounds, "mig_meow", name, count)
    rounds = 1 if quick else 3
    for count in (10,) if quick else (10, 100):
        for name in ("SPMF", "SPSFS") if quick else ("SPMF", "MPSF", "MPMF", "SPSFP", "SPSFS"):
            peer = None if quick and name == "SPSFS" else "meow_base"  # there it takes 25 s
            yield _case(f"{name}/{count}/finished", lambda n=name, c=count: _finished(n, c), rounds, peer, name, count)
    archived = 10_000 if quick else 1_000_000
    case = Case(
        f"schedule/SPSFP/500/archive of {archived}", "time", "ratio", lambda: _archive(archived), less_is_better=True
    )
    yield measure(case, 1)


def _case(
    label: str, ours: Callable[[], float], rounds: int, peer: str | None, name: str, count: int
) -> dict[str, Any]:
    peers: dict[str, Callable[[], float]] = {}
    absent: dict[str, str] = {}
    if peer is not None:
        found = _peer(peer, name, count)
        if isinstance(found, str):
            absent[peer] = found
        else:
            peers[peer] = functools.partial(float, found)
    case = Case(f"schedule/{label}", "time", "s", ours, peers, absent, less_is_better=True)
    return measure(case, rounds)


@functools.cache
def _peer(peer: str, name: str, count: int) -> float | str:
    """What a peer takes, or why that is not known."""
    if interpreter("meow") is None:
        return install_line("meow")
    if count > 500:
        return "left out beyond N = 500, where it takes minutes"
    if name == "SPSFS" and count > 10:
        return "left out beyond N = 10, where it takes minutes: each job waits for the one before to settle"
    try:
        found = run_program("meow", f"run_{peer}.py", name, str(count), timeout_s=_PEER_S)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return f"it did not end well: {str(error)[-200:]}"
    if found["jobs"] < count:
        return f"it made {found['jobs']} of {count} jobs"
    return float(found["seconds"])


# ------------------------------------------------------------------------------------------------------- experiments


def _latency(count: int) -> Iterator[dict[str, Any]]:
    """From the return of `seal` to the first line of the recipe, one at a time: median and 99th percentile."""
    with _buffer() as buffer:
        buffer.meow.add(_recipe("first", "import time\nprint(time.time_ns())"))
        buffer.meow.add(hiss.Pattern("first", "lat/*", "first"))
        times_ms = sorted(_start_ms(buffer, number) for number in range(count))
    for name, place in (("p50", count // 2), ("p99", count * 99 // 100)):
        value = times_ms[place]
        yield measure(
            Case(f"schedule/seal-to-start/{name}", "latency", "ms", lambda v=value: v, less_is_better=True), 1
        )


def _start_ms(buffer: Buffer, number: int) -> float:
    sealed_ns = _seal(buffer.collection("lat"), f"s{number}", after=True)

    def done() -> list[Any]:
        return [job for job in buffer.meow.jobs(limit=1) if job.path == f"lat/s{number}" and job.state.final]

    _wait(lambda: bool(done()))
    (job,) = done()
    assert job.state is JobState.DONE, job.error
    return (int(job.output) - sealed_ns) / 1e6


def _there(name: str, count: int) -> float:
    """The events are there, and so are the patterns: how long adding their recipe takes."""
    with _buffer(executor=lambda *_: Nowhere()) as buffer:
        _patterns(buffer, name, count)
        _write(buffer, name, count, _WRITERS)
        begin_ns = time.time_ns()
        buffer.meow.add(_recipe("p"))
        return _until(buffer, "jobs", count, begin_ns)


def _seals(name: str, count: int) -> float:
    with _buffer(executor=lambda *_: Nowhere()) as buffer:
        buffer.meow.add(_recipe("p"))
        _patterns(buffer, name, count)
        return _until(buffer, "jobs", count, _write(buffer, name, count, _WRITERS))


def _finished(name: str, count: int) -> float:
    with _buffer() as buffer:
        buffer.meow.add(_recipe("p", _NEXT if name == "SPSFS" else "pass"))
        _patterns(buffer, name, count)
        seconds = _until(buffer, "archive", count, _write(buffer, name, count, 1))
        assert {job.state for job in buffer.meow.jobs(limit=count + 1)} == {JobState.DONE}
        return seconds


def _archive(count: int) -> float:
    """500 jobs beside many that have ended, against 500 beside none; the best of five, for one commit may wait long."""
    times_s = []
    for archived in (0, count):
        directory = Path(tempfile.mkdtemp(prefix="hiss-bench-"))
        with _buffer(directory) as buffer:  # makes the database
            buffer.meow.add(_recipe("r"))
            buffer.meow.add(hiss.Pattern("r", "elsewhere/*", "r"))
            _seal(buffer.collection("elsewhere"), "s")
            _wait(lambda b=buffer: any(job.state.final for job in b.meow.jobs()))
        if archived:
            _fill_archive(directory / "data" / "jobs.db", archived)
        with _buffer(directory, executor=lambda *_: Nowhere()) as buffer:
            buffer.meow.add(_recipe("s"))
            _seal(buffer.collection("bench"), "s")
            times_s.append(min(_made_of_one(buffer, f"p{number}") for number in range(5)))
        shutil.rmtree(directory)
    return times_s[1] / times_s[0]


def _made_of_one(buffer: Buffer, name: str) -> float:
    """How long a new pattern takes to make 500 jobs of the one stream that is there."""
    pattern = hiss.Pattern(name, "bench/*", "s", sweep={"point": list(range(500))})
    begin_s = time.perf_counter()
    assert buffer.meow.add(pattern) == 500
    return time.perf_counter() - begin_s


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


def _recipe(name: str, body: str = "pass") -> hiss.Recipe:
    return hiss.Recipe(name, body, kind=RecipeKind.SCRIPT)


def _patterns(buffer: Buffer, name: str, count: int) -> None:
    """The patterns of an experiment."""
    more: dict[str, Any] = {}
    trigger = "bench/*"
    if name == "SPSFS":
        trigger, more = "bench/n*", {"variables": {"limit": count}}
    elif name == "SPSFP":
        more = {"sweep": {"point": list(range(count))}}
    elif name == "MPMF":
        trigger = "bench/s{number}"
    for number in range(count if name in ("MPSF", "MPMF") else 1):
        buffer.meow.add(hiss.Pattern(f"p{number}", trigger.replace("{number}", str(number)), "p", **more))


def _write(buffer: Buffer, name: str, count: int, writers: int) -> int:
    """Store the streams of an experiment, several at once; when the first was sealed."""
    if name == "SPSFS":
        return _seal(buffer.collection("bench"), "n0")
    names = [f"s{number}" for number in range(count if name in ("SPMF", "MPMF") else 1)]
    collection = buffer.collection("bench")
    with ThreadPoolExecutor(writers) as pool:
        return min(pool.map(lambda stream: _seal(collection, stream), names))


def _until(buffer: Buffer, table: str, count: int, begin_ns: int) -> float:
    """Seconds from `begin_ns` until so many jobs are committed in `jobs`, or have ended and are in `archive`."""
    path = buffer.store.status().data_directory
    with contextlib.closing(sqlite3.connect(f"file:{path}/jobs.db?mode=ro", uri=True)) as database:
        _wait(lambda: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] >= count, 0.001)
    return (time.time_ns() - begin_ns) / 1e9


def _seal(collection: hiss.Collection, name: str, *, after: bool = False) -> int:
    """Store a stream of one block; the time before its seal, or after it."""
    with collection.create_stream(name, dtype="u1", shape=(1,)) as stream:
        stream.append(np.zeros(1, "u1"))
        stream.flush()
        before_ns = time.time_ns()
    return time.time_ns() if after else before_ns


def _wait(condition: Callable[[], bool], pause_s: float = 0.005) -> None:
    give_up_s = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"not within {_WAIT_S} s")
        time.sleep(pause_s)


@contextmanager
def _buffer(directory: Path | None = None, **engine_options: Any) -> Iterator[Buffer]:
    place = directory or Path(tempfile.mkdtemp(prefix="hiss-bench-"))
    with Buffer(open_embedded(place / "data", StorageOptions(arena_bytes=64 * MiB), "numba", engine_options)) as buffer:
        assert buffer.meow.jobs(limit=1) is not None  # starts the rule engine
        if not engine_options:
            time.sleep(0.5)  # and lets it fork ahead, as a server has long done
        yield buffer
    if directory is None:
        shutil.rmtree(place)
