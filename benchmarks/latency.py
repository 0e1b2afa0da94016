"""From `append` to the acknowledgement: blocks of 64 KiB one at a time, by each lane, idle and under a drain.

Workload: 2,000 blocks (200 with --quick), each appended when the one before is acknowledged as received; p50 and p99 of
the times. Producer and server are processes of their own. `draining`: meanwhile a third process drains a stored stream
from the same server into a NeXus file, over and over, as fast as it can.

Peers, idle as ours: `bare-socket` answers a byte when it has read all, over a Unix socket where the lane is one;
`flight`, `grpc-bytes`: a call for each block; `redis-set`, `redis-xadd`, `nats`: a command for each, over a Unix socket
and TCP.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Case, Run, measure_together
from benchmarks.wire_peers import Crew, beside, our_crew, peers
from hiss.limits import GiB, KiB, MiB
from hiss.testing.processes import DataProcess
from hiss.transport.lane_choice import GRPC, TRUSTED_SHM

SIZE = 64 * KiB
ALL_LANES = ("shm", TRUSTED_SHM, "unix", "tcp", GRPC)
_PEERS = ("bare-socket", "bare-socket-unix", "flight", "redis-set", "redis-xadd", "nats", "grpc-bytes")
_STORED = "bench/stored"
_DRAIN = """
import pathlib, sys, hiss
from hiss.drain import drain
with hiss.connect(sys.argv[1]) as buffer:
    while True:
        drain(buffer.store, sys.argv[2], pathlib.Path(sys.argv[3]), compression="none", overwrite=True)
        print("drained", flush=True)
"""


class _Times:
    """One measurement of many blocks, looked at twice."""

    def __init__(self, crew: Crew, out: Path, count: int, **task: Any) -> None:
        self._crew, self._out = crew, out
        self._task = {"size": SIZE, "count": count, "how": "latency", "pool": 8 * MiB, "out": str(out), **task}

    def p50(self) -> float:
        """Measures, ms."""
        self._crew.run(**self._task)
        return self._of(50)

    def p99(self) -> float:
        """Of what was measured last, ms."""
        return self._of(99)

    def _of(self, percent: float) -> float:
        return float(np.percentile(np.load(self._out), percent) * 1e3)


def run(
    quick: bool, *, lanes: Sequence[str] = ALL_LANES, count: int | None = None, stored_bytes: int = 256 * MiB
) -> Iterator[dict[str, Any]]:
    """The last three are for tests."""
    count = count or (200 if quick else 2_000)
    rounds = 2 if quick else 5
    with tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder, ExitStack() as stack:
        directory = Path(folder)
        (directory / "served").mkdir()
        server = stack.enter_context(DataProcess(directory / "served", arena_bytes=1 * GiB, segment_bytes=128 * MiB))
        found, absent = stack.enter_context(peers(directory))
        theirs = {
            name: _Times(stack.enter_context(peer.crew()), directory / f"{name}.npy", count)
            for name, peer in found.items()
            if name in _PEERS
        }
        ours = {
            lane: _Times(
                stack.enter_context(our_crew(server, lane)),
                directory / f"{lane}.npy",
                count,
                ack="received",
            )
            for lane in lanes
        }
        gone = {name: line for name, line in absent.items() if name in _PEERS}
        yield from measure_together([case for lane in lanes for case in _cases(lane, ours[lane], theirs, gone)], rounds)
        with _draining(server, directory, stored_bytes):
            busy = [case for lane in lanes for case in _cases(lane, ours[lane], {}, {}, "/draining")]
            yield from measure_together(busy, rounds)


def _cases(
    lane: str, times: _Times, theirs: dict[str, _Times], absent: dict[str, str], suffix: str = ""
) -> Iterator[Case]:
    for percent in ("p50", "p99"):
        runs: dict[str, Run] = {name: getattr(each, percent) for name, each in beside(lane, theirs).items()}
        name = f"latency/{lane}/received/64KiB/{percent}{suffix}"
        yield Case(name, "latency", "ms", getattr(times, percent), runs, absent, less_is_better=True)


@contextmanager
def _draining(server: DataProcess, directory: Path, stored_bytes: int) -> Iterator[None]:
    """A process that drains a stream from the server as fast as it can."""
    collection, _, name = _STORED.partition("/")
    frames = np.random.default_rng(0).integers(0, 1 << 16, (4, MiB), "u2")
    with server.connect() as buffer, buffer.collection(collection).create_stream(name, dtype="u2", shape=(MiB,)) as s:
        for _ in range(max(1, stored_bytes // frames.nbytes)):
            s.extend(frames)
    command = [sys.executable, "-c", _DRAIN, server.config.address, _STORED, str(directory / "drained.nxs")]
    environment = {**os.environ, "HISS_TOKEN": server.token}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()  # it runs
            yield
            assert process.poll() is None, "the drain has ended"
        finally:
            process.kill()
