"""From events to jobs: how long after the seal a job's code runs, and how fast many jobs are scheduled.

`schedule/seal-to-start`: from the return of `seal` to the first line of the recipe, a Python script in a process of
its own, one at a time; `seal-to-row` to the job's row in the database. `SPMF`, `MPSF`, `SPSFP` are experiments of the
MEOW thesis, table 17.4.2: one pattern and N streams, N patterns and one stream, one pattern with a sweep of N; from
the first event to the last job's row, with an executor that starts one job at a time. The buffer is embedded: its
rule engine is in this process, the jobs are not.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import hiss
from benchmarks.measure import Case, measure
from hiss.client import Buffer

_WAIT_S = 300.0


def run(quick: bool) -> Iterator[dict[str, Any]]:
    rounds = 2 if quick else 5
    with _buffer() as buffer:
        _rule(buffer, "first", "import time\nprint(time.time_ns())\n")
        yield measure(
            Case("schedule/seal-to-start", "latency", "ms", lambda: _start(buffer), less_is_better=True), rounds
        )
        yield measure(Case("schedule/seal-to-row", "latency", "ms", lambda: _row(buffer), less_is_better=True), rounds)
    experiments: dict[str, Callable[[int], float]] = {"SPMF": _spmf, "MPSF": _mpsf, "SPSFP": _spsfp}
    for count in (10,) if quick else (10, 100, 500):
        for name, experiment in experiments.items():
            case = Case(
                f"schedule/{name}/{count}",
                "time to the last job",
                "s",
                lambda run=experiment, count=count: run(count),  # type: ignore[misc]
                less_is_better=True,
            )
            yield measure(case, 1 if count == 500 else rounds)


def _start(buffer: Buffer) -> float:
    sealed_ns, job = _one(buffer)
    return (int(job.output.split()[0]) - sealed_ns) / 1e6


def _row(buffer: Buffer) -> float:
    sealed_ns, job = _one(buffer)
    return (job.created_ns - sealed_ns) / 1e6


def _one(buffer: Buffer) -> tuple[int, Any]:
    before = {job.id for job in buffer.meow.jobs()}
    sealed_ns = _seal(buffer, f"s{time.time_ns()}")
    new: list[Any] = []
    _wait(lambda: bool(new := [job for job in buffer.meow.jobs() if job.id not in before]) and new[0].state.final)
    new = [job for job in buffer.meow.jobs() if job.id not in before]
    assert new[0].state.name == "DONE", new[0].error
    return sealed_ns, new[0]


def _spmf(count: int) -> float:
    with _buffer() as buffer:
        _rule(buffer, "p", "pass\n")
        begin_ns = _seal(buffer, "s0")
        for number in range(1, count):
            _seal(buffer, f"s{number}")
        return _last_row_s(buffer, count, begin_ns)


def _mpsf(count: int) -> float:
    with _buffer() as buffer:
        for number in range(count):
            _rule(buffer, f"p{number}", "pass\n")
        return _last_row_s(buffer, count, _seal(buffer, "s"))


def _spsfp(count: int) -> float:
    with _buffer() as buffer:
        _rule(buffer, "p", "pass\n", sweep={"point": list(range(count))})
        return _last_row_s(buffer, count, _seal(buffer, "s"))


def _last_row_s(buffer: Buffer, count: int, begin_ns: int) -> float:
    _wait(lambda: len(buffer.meow.jobs(limit=count + 1)) == count)
    return (max(job.created_ns for job in buffer.meow.jobs(limit=count)) - begin_ns) / 1e9


def _rule(buffer: Buffer, name: str, script: str, **pattern: Any) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        buffer.meow.add(hiss.Recipe(name, Path(file.name)))
    buffer.meow.add(hiss.Pattern(name, trigger="bench/*", recipe=name, **pattern))


def _seal(buffer: Buffer, name: str) -> int:
    with buffer.collection("bench").create_stream(name, dtype="u1", shape=(1,)) as s:
        s.append(np.zeros(1, "u1"))
        s.flush()
        return time.time_ns()  # leaving the block seals


def _wait(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"not within {_WAIT_S} s")
        time.sleep(0.002)


@contextmanager
def _buffer() -> Iterator[Buffer]:
    directory = Path(tempfile.mkdtemp(prefix="hiss-bench-"))
    with hiss.open(directory / "data") as buffer:
        yield buffer
    shutil.rmtree(directory)
