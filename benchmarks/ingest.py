"""Blocks in: embedded, beside the raw disk, and by each lane of a server, beside the peers (`ingest_wire`).

Workload here: one producer in this process, random uint16 frames made once (they do not compress), one stream for each
round, deleted afterwards. The clock runs from the first `append` to the last ack. The log is written through before the
first figure, so that what is measured goes into recycled segments, as in a buffer that has run for a while;
`ingest/fresh` is the same into a new one. A full run takes some 12 minutes, most of them the lanes'.

Peers and limits: `direct-write` is pwrite with O_DIRECT and one fdatasync at the end, to a preallocated file that was
written before (`ingest/fresh`: to one that was not); `h5py` is one frame a chunk, flushed for each; `sqlite` one blob a
frame, each a durable transaction; `copy` is numpy.copyto on warm pages. `8MiB-lent` appends with `copy=False`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import hiss
from benchmarks import disk_peers, ingest_wire
from benchmarks.ingest_wire import ACKS
from benchmarks.measure import Case, measure
from hiss.client import Buffer
from hiss.limits import SEGMENT_BYTES, GiB, KiB
from hiss.testing.certificates import certificates
from hiss.testing.processes import DataProcess
from hiss.transport.lane_choice import GRPC, TRUSTED_SHM

LANES = ("embedded", "shm", TRUSTED_SHM, "unix", "tcp", "tls", GRPC)


def run(
    quick: bool, *, side: int = 2048, segment_bytes: int = SEGMENT_BYTES, lanes: Sequence[str] = LANES
) -> Iterator[dict[str, Any]]:
    """Frames of `side` by `side` pixels, segments and lanes: others than these are for tests."""
    rounds = 2 if quick else 5
    with tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder:
        directory = Path(folder)
        big = np.random.default_rng(0).integers(0, 1 << 16, (8, side, side)).astype("u2")
        repeat = 2 if quick else 8
        small = min(2_000 if quick else 50_000, segment_bytes // (4 * KiB))
        if "embedded" in lanes:
            with hiss.open(directory / "embedded", arena_bytes=1 * GiB, segment_bytes=segment_bytes) as buffer:
                yield measure(_fresh("embedded", buffer, big, repeat, directory), 1)
                warm(buffer, big, segment_bytes)
                for ack in ACKS:
                    yield measure(_big("embedded", ack, buffer, big, repeat, directory), rounds)
                yield measure(_lent("embedded", buffer, big, repeat, directory), rounds)
                for ack in ACKS:
                    yield measure(_small("embedded", ack, buffer, small), rounds)
                yield measure(_small_extend("embedded", buffer, small), rounds)
        served = [lane for lane in lanes if lane != "embedded"]
        with ExitStack() as stack:
            servers: dict[str, DataProcess] = {}
            for kind, tls in (("plain", None), ("tls", certificates().server)):  # a server over TLS has no other lane
                if mine := [lane for lane in served if (lane == "tls") is (tls is not None)]:
                    (directory / kind).mkdir()
                    sizes = {"arena_bytes": 1 * GiB, "segment_bytes": segment_bytes}
                    server = stack.enter_context(DataProcess(directory / kind, **sizes, tls=tls))
                    with server.connect(None if tls else mine[0]) as buffer:
                        if not tls:
                            yield measure(_fresh(mine[0], buffer, big, repeat, directory), 1)
                        warm(buffer, big, segment_bytes)
                    servers |= dict.fromkeys(mine, server)
            yield from ingest_wire.run(quick, servers, directory)


def _lent(lane: str, buffer: Buffer, frames: np.ndarray, repeat: int, directory: Path) -> Case:
    """As `received`, but the producer lends its frames until their ack instead of having them copied."""
    case = _big(lane, "received", buffer, frames, repeat, directory, copy=False)
    return Case(f"ingest/{lane}/received/8MiB-lent", case.metric, case.unit, case.run, case.peers)


def _big(
    lane: str, ack: str, buffer: Buffer, frames: np.ndarray, repeat: int, directory: Path, *, copy: bool = True
) -> Case:
    size = frames.nbytes * repeat

    def ours() -> float:
        with stream(buffer, dtype="u2", shape=frames.shape[1:], ack=ack) as s:
            begin = time.perf_counter()
            for _ in range(repeat):
                for frame in frames:
                    s.append(frame, copy=copy)
            s.flush()
            return size / (time.perf_counter() - begin) / 1e9

    peers: dict[str, Callable[[], float]] = {"copy": lambda: disk_peers.copy(frames, repeat)}
    if ack == "durable":
        peers["direct-write"] = lambda: disk_peers.direct_write(frames, repeat, directory / "raw", fresh=False)
    if ack == "durable" and lane == "embedded":
        few = min(repeat, 2)
        peers["h5py"] = lambda: disk_peers.h5py_write(frames, few, directory / "peer.h5")
        peers["sqlite"] = lambda: disk_peers.sqlite_write(frames, few, directory / "peer.db")
    return Case(f"ingest/{lane}/{ack}/8MiB", "throughput", "GB/s", ours, peers)


def _fresh(lane: str, buffer: Buffer, frames: np.ndarray, repeat: int, directory: Path) -> Case:
    case = _big(lane, "durable", buffer, frames, repeat, directory)
    peers = {
        "copy": case.peers["copy"],
        "direct-write": lambda: disk_peers.direct_write(frames, repeat, directory / "fresh", fresh=True),
    }
    return Case(f"ingest/fresh/{lane}/durable/8MiB", case.metric, case.unit, case.run, peers)


def warm(buffer: Buffer, frames: np.ndarray, segment_bytes: int) -> None:
    """Write three segments through and free them, so that what follows is written over them."""
    for _ in range(3):
        with stream(buffer, dtype="u2", shape=frames.shape[1:]) as s:
            for _ in range(segment_bytes // frames.nbytes):
                s.extend(frames)


def _small(lane: str, ack: str, buffer: Buffer, blocks: int) -> Case:
    block = np.random.default_rng(0).integers(0, 256, 4 * KiB).astype("u1")

    def ours() -> float:
        with stream(buffer, dtype="u1", shape=block.shape, ack=ack) as s:
            begin = time.perf_counter()
            for _ in range(blocks):
                s.append(block)
            s.flush()
            return blocks / (time.perf_counter() - begin)

    return Case(f"ingest/{lane}/{ack}/4KiB", "rate", "blocks/s", ours)


def _small_extend(lane: str, buffer: Buffer, blocks: int) -> Case:
    data = np.random.default_rng(0).integers(0, 256, (blocks, 4 * KiB)).astype("u1")

    def ours() -> float:
        with stream(buffer, dtype="u1", shape=data.shape[1:], ack="durable") as s:
            begin = time.perf_counter()
            s.extend(data)
            s.flush()
            return blocks / (time.perf_counter() - begin)

    return Case(f"ingest/{lane}/durable/4KiB-extend", "rate", "blocks/s", ours)


_numbers = count()


@contextmanager
def stream(buffer: Buffer, **spec: Any) -> Iterator[Any]:
    """A stream to write, deleted afterwards."""
    writer = buffer.collection("bench").create_stream(f"s{next(_numbers)}", **spec)
    with writer:
        yield writer
    buffer.store.delete_stream(writer.info.id)


@contextmanager
def buffers(directory: Path, segment_bytes: int, lanes: Sequence[str]) -> Iterator[dict[str, Buffer]]:
    """An embedded buffer, and one in a process of its own behind each lane."""
    with ExitStack() as stack:
        found: dict[str, Buffer] = {}
        if "embedded" in lanes:
            path = directory / "embedded"
            found["embedded"] = stack.enter_context(hiss.open(path, arena_bytes=1 * GiB, segment_bytes=segment_bytes))
        if served := [lane for lane in lanes if lane != "embedded"]:
            (directory / "served").mkdir()
            sizes = {"arena_bytes": 1 * GiB, "segment_bytes": segment_bytes}
            server = stack.enter_context(DataProcess(directory / "served", **sizes, backend="numba"))
            found |= {lane: stack.enter_context(server.connect(lane)) for lane in served}
        yield found
