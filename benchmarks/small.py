"""Small things: 4 KiB blocks, 10,000 short streams, and what ten million blocks leave in memory. Embedded.

Workloads. `4KiB-extend`: an array of blocks in one call; `4KiB-append`: one call for each block; both durable, the
clock from the first call to the last acknowledgement, in a log that was written through. `streams`: so many streams of
ten blocks of 4 KiB, each made, filled and sealed durably, one after another or by 32 threads. `index`: bytes of the
index for each block of a typed stream. `memory`: growth of the process between the first million blocks (of 16 bytes)
and the last, in a process of its own, arena and page cache not counted.

Peers write the same blocks: `direct-write` as whole extents of 8 MiB with O_DIRECT, `h5py` one block a chunk, flushed
for each, `sqlite` one row a block, each a durable transaction; the latter two fewer of them, as they take so long. For
`streams`, `syncs-alone` makes the three syncs that each stream needs, or that those in flight share, and nothing else:
what the disk allows. `sqlite` is the same streams as rows of one database.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import hiss
from benchmarks import disk_peers as peers
from benchmarks import stream_peers
from benchmarks.measure import Case, measure
from hiss.limits import KiB, MiB

_BLOCK_BYTES = 4 * KiB
_BLOCKS_A_STREAM = 10
_IN_FLIGHT = 32
_numbers = count()


def run(quick: bool, *, scale: float = 1.0) -> Iterator[dict[str, Any]]:
    """`scale` below 1 makes everything smaller, for a test."""
    rounds = 2 if quick else 5
    blocks = int((20_000 if quick else 200_000) * scale)
    streams = int((300 if quick else 10_000) * scale)
    many = int((300_000 if quick else 10_000_000) * scale)
    data = np.random.default_rng(0).integers(0, 256, (blocks, _BLOCK_BYTES)).astype("u1")
    with tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder:
        directory = Path(folder)
        with hiss.open(directory / "buffer") as buffer:
            _extend(buffer, data)  # the log is written through
            yield measure(_blocks_case(buffer, "extend", data, directory), rounds)
            yield measure(_blocks_case(buffer, "append", data[: blocks // 4], directory), rounds)
            for in_flight in (1, _IN_FLIGHT):
                name = "in-flight" if in_flight > 1 else "in-turn"
                title = f"small/streams/{streams}x{_BLOCKS_A_STREAM}/{in_flight}-{name}"
                yield measure(_streams_case(title, buffer, streams, in_flight, directory), min(rounds, 3))
        index_bytes, growth = _memory(directory / "memory", many)
        yield measure(_fixed(f"small/index/{many}-blocks", "index", "B/block", index_bytes), 1)
        yield measure(_fixed(f"small/memory/{many}-blocks", "growth", "MiB", growth / MiB), 1)


def _fixed(name: str, metric: str, unit: str, value: float) -> Case:
    return Case(name, metric, unit, lambda: value, less_is_better=True)


def _blocks_case(buffer: hiss.Buffer, how: str, data: np.ndarray, directory: Path) -> Case:
    run_ours = {"extend": _extend, "append": _append}[how]
    few = data[: max(64, len(data) // 50)]
    whole = -(-data.nbytes // (8 * MiB))  # extents
    extents = np.resize(data.reshape(-1), (whole, min(8 * MiB, data.nbytes)))

    def rate(bytes_a_s: float) -> float:
        return bytes_a_s * 1e9 / _BLOCK_BYTES

    return Case(
        f"small/embedded/durable/4KiB-{how}",
        "rate",
        "blocks/s",
        lambda: run_ours(buffer, data),
        {
            "direct-write": lambda: rate(peers.direct_write(extents, 1, directory / f"raw-{how}", fresh=False)),
            "h5py": lambda: rate(peers.h5py_write(few, 1, directory / "peer.h5")),
            "sqlite": lambda: rate(peers.sqlite_write(few, 1, directory / "peer.db")),
        },
    )


def _extend(buffer: hiss.Buffer, data: np.ndarray) -> float:
    return _timed(buffer, data, lambda s: s.extend(data))


def _append(buffer: hiss.Buffer, data: np.ndarray) -> float:
    def each(s: Any) -> None:
        for block in data:
            s.append(block)

    return _timed(buffer, data, each)


def _timed(buffer: hiss.Buffer, data: np.ndarray, write: Any) -> float:
    writer = buffer.collection("bench").create_stream(
        f"s{next(_numbers)}", dtype="u1", shape=data.shape[1:], ack="durable"
    )
    with writer:
        begin = time.perf_counter()
        write(writer)
        writer.flush()
        seconds = time.perf_counter() - begin
    buffer.store.delete_stream(writer.info.id)
    return len(data) / seconds


def _streams_case(title: str, buffer: hiss.Buffer, number: int, in_flight: int, directory: Path) -> Case:
    blocks = np.zeros((_BLOCKS_A_STREAM, _BLOCK_BYTES), "u1")
    return Case(
        title,
        "rate",
        "streams/s",
        lambda: _streams(buffer, number, in_flight),
        {
            "syncs-alone": lambda: stream_peers.syncs(blocks, number, in_flight, directory),
            "sqlite": lambda: stream_peers.sqlite_streams(blocks, number, in_flight, directory / "streams.db"),
        },
    )


def _streams(buffer: hiss.Buffer, number: int, in_flight: int) -> float:
    collection = buffer.collection(f"streams{next(_numbers)}")
    blocks = np.zeros((_BLOCKS_A_STREAM, _BLOCK_BYTES), "u1")

    def one(k: int) -> None:
        with collection.create_stream(f"s{k}", dtype="u1", shape=blocks.shape[1:], ack="durable") as s:
            s.extend(blocks)

    begin = time.perf_counter()
    if in_flight == 1:
        for k in range(number):
            one(k)
    else:
        with ThreadPoolExecutor(in_flight) as pool:
            list(pool.map(one, range(number)))
    seconds = time.perf_counter() - begin
    buffer.store.delete_collection(collection.path)
    return number / seconds


def _memory(directory: Path, blocks: int) -> tuple[float, float]:
    """Bytes of the index for each block, and by how many bytes the process grew."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_fill, args=(directory, blocks, theirs))
    child.start()
    theirs.close()
    try:
        return ours.recv()  # type: ignore[no-any-return]
    finally:
        child.join()
        ours.close()


def _fill(directory: Path, blocks: int, answer: Any) -> None:
    part = np.arange(4 * min(100_000, max(10, blocks // 20)), dtype="u4").reshape(-1, 4)
    with hiss.open(directory, arena_bytes=64 * MiB) as buffer:
        writer = buffer.collection("bench").create_stream("many", dtype="u4", shape=(4,), ack="durable")
        written, first = 0, 0
        with writer:
            while written < blocks:
                writer.extend(part)
                written += len(part)
                if not first and written >= blocks // 10:
                    writer.flush()
                    first = resident_bytes()
            writer.flush()
            growth = resident_bytes() - first
            index = buffer.store._node.storage.index(writer.info.id)  # type: ignore[attr-defined]
            answer.send((index.nbytes / written, float(growth)))


def resident_bytes() -> int:
    """Of this process; pages of files that it has mapped are not counted."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * KiB
    raise OSError("/proc/self/status says nothing of RssAnon")
