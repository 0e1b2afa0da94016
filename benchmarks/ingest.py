"""Blocks in and out: each lane and ack level, 8 MiB frames and 4 KiB blocks, beside memory copy, a bare socket, the
raw disk.

Workload: one producer, random uint16 frames made once (they do not compress), one stream for each round, deleted
afterwards. The clock runs from the first `append` to the last ack. The server is a process of its own on the same
machine, reached by each lane in turn. Each log is written through before the first figure, so that what is measured
goes into recycled segments, as in a buffer that has run for a while; `ingest/fresh` is the same into a new one.

Peers and limits: `bare-socket` sends the same bytes to a process that throws them away, over a Unix socket where the
lane is one, else over TCP; `direct-write` is pwrite with O_DIRECT and one fdatasync at the end, to a preallocated file
that was written before (`ingest/fresh`: to one that was not); `h5py` is one frame a chunk, flushed for each; `sqlite`
one blob a frame, each a durable transaction; `copy` is numpy.copyto on warm pages.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import hiss
from benchmarks import disk_peers
from benchmarks.measure import Case, measure
from hiss.client import Buffer
from hiss.limits import SEGMENT_BYTES, GiB, KiB
from hiss.testing.processes import DataProcess

Sink = str | tuple[str, int]  # a Unix socket's path, or host and port

_SINK = """
import socket, sys
if len(sys.argv) > 1: server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen()
else: server = socket.create_server(("127.0.0.1", 0))
print("0" if len(sys.argv) > 1 else server.getsockname()[1], flush=True)
while True:
    peer, _ = server.accept(); buffer = bytearray(8 << 20); left = int.from_bytes(peer.recv(8), "big")
    while left: left -= peer.recv_into(buffer, min(left, len(buffer)))
    peer.sendall(b"k"); peer.close()
"""


LANES = ("embedded", "shm", "shm:trusted", "unix", "tcp", "grpc")


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
        with (
            _sink() as tcp,
            _sink(directory / "sink") as unix,
            buffers(directory, segment_bytes, lanes) as found,
        ):
            for lane in [lane for lane in ("embedded", "unix") if lane in found]:
                yield measure(_fresh(lane, found[lane], big, repeat, directory), 1)
            for lane, buffer in found.items():
                warm(buffer, big, segment_bytes)
                sink = {"embedded": None, "shm": unix, "shm:trusted": unix, "unix": unix}.get(lane, tcp)
                for ack in ("received", "written", "durable"):
                    yield measure(_big(lane, ack, buffer, big, repeat, sink, directory), rounds)
                with _stored(buffer, big, repeat) as stored:
                    yield measure(_read(lane, stored, big, repeat), rounds)
                for ack in ("received", "written", "durable"):
                    yield measure(_small(lane, ack, buffer, small), rounds)
                yield measure(_small_extend(lane, buffer, small), rounds)


def _big(
    lane: str, ack: str, buffer: Buffer, frames: np.ndarray, repeat: int, sink: Sink | None, directory: Path
) -> Case:
    size = frames.nbytes * repeat

    def ours() -> float:
        with stream(buffer, dtype="u2", shape=frames.shape[1:], ack=ack) as s:
            begin = time.perf_counter()
            for _ in range(repeat):
                for frame in frames:
                    s.append(frame)
            s.flush()
            return size / (time.perf_counter() - begin) / 1e9

    peers: dict[str, Callable[[], float]] = {"copy": lambda: disk_peers.copy(frames, repeat)}
    if sink is not None:
        peers["bare-socket"] = lambda: _bare_socket(frames, repeat, sink)
    if ack == "durable":
        peers["direct-write"] = lambda: disk_peers.direct_write(frames, repeat, directory / "raw", fresh=False)
    if ack == "durable" and lane == "embedded":
        few = min(repeat, 2)
        peers["h5py"] = lambda: disk_peers.h5py_write(frames, few, directory / "peer.h5")
        peers["sqlite"] = lambda: disk_peers.sqlite_write(frames, few, directory / "peer.db")
    return Case(f"ingest/{lane}/{ack}/8MiB", "throughput", "GB/s", ours, peers)


def _fresh(lane: str, buffer: Buffer, frames: np.ndarray, repeat: int, directory: Path) -> Case:
    case = _big(lane, "durable", buffer, frames, repeat, None, directory)
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


def _read(lane: str, stored: hiss.Stream, frames: np.ndarray, repeat: int) -> Case:
    size = frames.nbytes * repeat

    def ours() -> float:
        begin = time.perf_counter()
        assert sum(block.data.nbytes for block in stored) == size
        return size / (time.perf_counter() - begin) / 1e9

    return Case(f"read/{lane}/8MiB", "throughput", "GB/s", ours, {"copy": lambda: disk_peers.copy(frames, repeat)})


@contextmanager
def _stored(buffer: Buffer, frames: np.ndarray, repeat: int) -> Iterator[hiss.Stream]:
    """A stream to read, and its space given back: what stays in the log keeps its segment from being used again."""
    name = f"read-{next(_numbers)}"
    with buffer.collection("bench").create_stream(name, dtype="u2", shape=frames.shape[1:]) as s:
        for _ in range(repeat):
            s.extend(frames)
    yield buffer[f"bench/{name}"]
    buffer.store.delete_stream(s.info.id)


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
            server = stack.enter_context(
                DataProcess(directory / "served", arena_bytes=1 * GiB, segment_bytes=segment_bytes)
            )
            found |= {lane: stack.enter_context(server.connect(lane)) for lane in served}
        yield found


# ---- peers and limits


@contextmanager
def _sink(path: Path | None = None) -> Iterator[Sink]:
    command = [sys.executable, "-c", _SINK, *([] if path is None else [str(path)])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield ("127.0.0.1", port) if path is None else str(path)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _bare_socket(frames: np.ndarray, repeat: int, sink: Sink) -> float:
    size = frames.nbytes * repeat
    with socket.socket(socket.AF_UNIX if isinstance(sink, str) else socket.AF_INET) as peer:
        peer.connect(sink)
        begin = time.perf_counter()
        peer.sendall(size.to_bytes(8, "big"))
        for _ in range(repeat):
            for frame in frames:
                peer.sendall(frame.data)
        peer.recv(1)
        return size / (time.perf_counter() - begin) / 1e9
