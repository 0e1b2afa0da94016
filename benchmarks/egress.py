"""Blocks out again: 8 MiB frames, from the arena and from the disk, embedded; from a server `egress_wire`.

Workload: random uint16 frames (they do not compress) in one stream. `arena`: as many as the arena keeps, read right
after they were written. `disk`: the buffer is closed, the page cache told to forget its files, and the buffer opened
again before each round; the clock runs over the reading alone. Every block's digest is compared on the way.

Peers: `copy` is numpy.copyto on warm pages, `direct-read` pread with O_DIRECT from a file of the same bytes, `h5py` a
file of one frame a chunk, the page cache told to forget it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import hiss
from benchmarks import disk_peers as peers
from benchmarks import egress_wire
from benchmarks.measure import Case, measure
from hiss.limits import GiB, MiB

_STREAM = "bench/frames"


def run(quick: bool, *, frame_bytes: int = 8 * MiB, arena_bytes: int = 1 * GiB) -> Iterator[dict[str, Any]]:
    yield from _embedded(quick, frame_bytes, arena_bytes)
    with tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder:
        yield from egress_wire.run(quick, Path(folder), arena_bytes)


def _embedded(quick: bool, frame_bytes: int, arena_bytes: int) -> Iterator[dict[str, Any]]:
    rounds, repeat = (2, 2) if quick else (5, 16)
    frames = np.random.default_rng(0).integers(0, 1 << 16, (8, frame_bytes // 2)).astype("u2")
    with tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder:
        directory = Path(folder)
        with hiss.open(directory / "arena", arena_bytes=arena_bytes) as buffer:
            few = max(1, arena_bytes // 4 // frames.nbytes)  # a quarter of it at least stays for readers
            _write(buffer, frames, few)
            stream = buffer[_STREAM]
            yield measure(
                Case(
                    "egress/embedded/arena/8MiB",
                    "throughput",
                    "GB/s",
                    lambda: _read(stream, frames.nbytes * few),
                    {"copy": lambda: peers.copy(frames, few)},
                ),
                rounds,
            )
        peers.direct_write(frames, repeat, directory / "raw", fresh=True)
        peers.h5py_write(frames, repeat, directory / "peer.h5")
        with hiss.open(directory / "disk", arena_bytes=arena_bytes) as buffer:
            _write(buffer, frames, repeat)
        yield measure(
            Case(
                "egress/embedded/disk/8MiB",
                "throughput",
                "GB/s",
                lambda: _read_cold(directory / "disk", frames.nbytes * repeat, arena_bytes),
                {
                    "copy": lambda: peers.copy(frames, repeat),
                    "direct-read": lambda: peers.direct_read(frames, repeat, directory / "raw"),
                    "h5py": lambda: peers.h5py_read(frames, repeat, directory / "peer.h5"),
                },
            ),
            rounds,
        )


def _write(buffer: hiss.Buffer, frames: np.ndarray, repeat: int) -> None:
    collection, _, name = _STREAM.partition("/")
    with buffer.collection(collection).create_stream(name, dtype="u2", shape=frames.shape[1:]) as s:
        for _ in range(repeat):
            for frame in frames:
                s.append(frame)


def _read(stream: hiss.Stream, size: int) -> float:
    begin = time.perf_counter()
    found = sum(block.data.nbytes for block in stream)
    seconds = time.perf_counter() - begin
    assert found == size
    return size / seconds / 1e9


def _read_cold(directory: Path, size: int, arena_bytes: int) -> float:
    peers.drop_cache(*(directory / "segments").iterdir())
    with hiss.open(directory, arena_bytes=arena_bytes) as buffer:
        peers.drop_cache(*(directory / "segments").iterdir())  # what opening it has read
        return _read(buffer[_STREAM], size)
