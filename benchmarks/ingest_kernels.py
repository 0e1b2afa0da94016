"""What a kernel costs a stream: each of the six kernels of `kernels`, and three of them as one pipeline, on a stream at
full speed, beside the same stream without a kernel.

Workload: one producer, 2048 x 2048 frames of counts as uint16 (`kernels.workloads`), into an embedded buffer and into
one in a process of its own, by its fastest lane; `keep="result"`, acknowledged when durable. The clock runs from the
first `append` to the last acknowledgement, so it sees what the kernel costs and what its result saves or adds in the
log. Kernels are compiled and their parameters stored before. Each log is written through before the first figure.

Peers: `no-kernel` is the same stream without one, its raw blocks stored; `copy` is numpy.copyto on warm pages. The
ratio to `no-kernel` is what is left of the stream's speed; it is above 1 where a kernel makes blocks smaller.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import disk_peers
from benchmarks.ingest import buffers, stream, warm
from benchmarks.kernels import Workload, workloads
from benchmarks.measure import Case, measure
from hiss.client import Buffer
from hiss.limits import MiB
from hiss.model import ArrayParam, BoundKernel, ScalarParam


def run(
    quick: bool, *, side: int = 2048, segment_bytes: int = 128 * MiB, lanes: Sequence[str] = ("embedded", "unix")
) -> Iterator[dict[str, Any]]:
    """Frames of `side` by `side` pixels, segments and lanes: others than these are for tests."""
    rounds, repeat = (2, 2) if quick else (5, 16)
    lanes = lanes[:1] if quick else lanes
    listed = list(workloads((side, side), "uint16", 4))
    frames = listed[0].frames
    with (
        tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder,
        buffers(Path(folder), segment_bytes, lanes) as found,
    ):
        for lane, buffer in found.items():
            warm(buffer, frames, segment_bytes)
            for workload in listed:
                yield measure(_case(lane, buffer, workload, repeat), rounds)


def _case(lane: str, buffer: Buffer, workload: Workload, repeat: int) -> Case:
    kernels = [bound(definition, params) for definition, params in workload.stages]
    frames = workload.frames

    def rate(kernels: Sequence[BoundKernel]) -> float:
        with stream(buffer, dtype="u2", shape=frames.shape[1:], kernels=kernels) as s:
            begin = time.perf_counter()
            for _ in range(repeat):
                for frame in frames:
                    s.append(frame)
            s.flush()
            taken = time.perf_counter() - begin
            ledger = s.report().completeness.ledger
        assert all(entry.reason == "vetoed" for entry in ledger), f"{workload.name}: {ledger}"
        return float(frames.nbytes * repeat / taken / 1e9)

    rate(kernels)  # compiles
    peers = {"no-kernel": lambda: rate([]), "copy": lambda: disk_peers.copy(frames, repeat)}
    return Case(f"ingest/kernel/{lane}/{workload.name}", "input", "GB/s", lambda: rate(kernels), peers)


def bound(definition: Any, params: dict[str, Any]) -> BoundKernel:
    """A stage of a workload, for a stream."""
    values = {
        name: value if isinstance(value, ScalarParam) else ArrayParam(np.asarray(value))
        for name, value in params.items()
    }
    return BoundKernel(definition, values)
