"""A stream out to a NeXus file, with each compression, beside h5py writing the same frames the usual way.

Workload: 5 real PILATUS 6M frames (uint32, 24.9 MB each) from the test data, over and over, or Poisson noise of one
count where they are missing; 20 frames in a sealed stream of a buffer opened in this process (5 with --quick). GB/s of
frames, before compression, until the file is synced. Ours reads every block from the log with its digest, compresses,
writes, syncs, drops the page cache, reads all back, compares, and gives the file its name. `h5py` writes the frames
from memory, one a chunk, with the same filter, and syncs; `h5py-read-back` also drops the page cache, reads all back
and compares digests, as ours does; `direct-write` is write and one fsync of the bare frames, `direct-read-back` reads
and compares them as well.

`readthrough/8MiB`: milliseconds until an 8 MiB block of an evicted stream is there that nobody has read before, from
its archive and compared with its digest; the process that reads archives runs already. `h5py` opens the file and reads
the block, `h5py-open` reads it from an open file. The page cache is dropped before each read. Blocks are parts of the
same frames, with the filter that a drain takes by itself. The first read of all, with the start of that process and the
table of the stream, is `readthrough/start`.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import hiss
from benchmarks.measure import Case, measure
from hiss.client import Buffer
from hiss.drain import drain
from hiss.drain.compression import filters
from hiss.drain.publish import sync_file
from hiss.limits import MiB
from hiss.model import digest_of

Frames = list[np.ndarray]
_SHAPE = (1024, 2048)  # of a block of 8 MiB of uint32


def run(quick: bool) -> Iterator[dict[str, Any]]:
    rounds, count = (1, 5) if quick else (5, 20)
    plugin = importlib.util.find_spec("hdf5plugin") is not None
    source = _frames()
    frames = [source[number % len(source)] for number in range(count)]
    with tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder, hiss.open(Path(folder) / "buffer") as buffer:
        directory = Path(folder)
        spec = {"dtype": frames[0].dtype, "shape": frames[0].shape}
        with buffer.collection("bench").create_stream("frames", **spec) as stream:
            for frame in frames:
                stream.append(frame)
        for compression in ("bitshuffle-lz4", "zstd", "gzip", "none"):
            if compression in ("bitshuffle-lz4", "zstd") and not plugin:
                print(f"drain/nexus/{compression} absent: pip install 'hiss[hdf5]'")
                continue
            yield measure(_case(buffer.store, frames, compression, directory), rounds)
        yield from read_through(buffer, frames, directory, 3 if quick else 15)


def _frames() -> Frames:
    data = Path(os.environ.get("HISS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if (data / "pilatus6m_gridscan_5f.h5").is_file():
        with h5py.File(data / "pilatus6m_gridscan_5f.h5") as file:
            return list(file["frames"][()])
    return list(np.random.default_rng(0).poisson(1.0, (5, 2527, 2463)).astype(np.uint32))


def _case(store: Any, frames: Frames, compression: str, directory: Path) -> Case:
    peers: dict[str, Callable[[], float]] = {
        "h5py": lambda: _h5py(frames, compression, directory, read_back=False),
        "h5py-read-back": lambda: _h5py(frames, compression, directory, read_back=True),
    }
    if compression == "none":
        peers["direct-write"] = lambda: _direct(frames, directory, read_back=False)
        peers["direct-read-back"] = lambda: _direct(frames, directory, read_back=True)
    return Case(
        f"drain/nexus/{compression}", "throughput", "GB/s", lambda: _ours(store, frames, compression, directory), peers
    )


def read_through(
    buffer: Buffer, frames: Frames, directory: Path, rounds: int, shape: tuple[int, int] = _SHAPE
) -> Iterator[dict[str, Any]]:
    """An evicted stream of 8 MiB blocks, each of them read once."""
    content = np.concatenate([frame.reshape(-1).view(np.uint8) for frame in frames])
    data = np.resize(content, (3 * rounds + 2, shape[0], 4 * shape[1])).view(np.uint32)
    file = directory / "evicted.nxs"
    with buffer.collection("bench").create_stream("evicted", dtype=data.dtype, shape=data.shape[1:]) as stream:
        stream.extend(data)
    drain(buffer.store, "bench/evicted", file)
    buffer.evict("bench/evicted")
    evicted = buffer["bench/evicted"]
    path = evicted.info.archives[-1].location.rpartition("::")[2]

    def ours(places: Iterator[int]) -> Callable[[], float]:
        return lambda: _milliseconds(file, lambda: evicted[next(places)])

    def theirs(places: Iterator[int]) -> float:
        with h5py.File(file) as opened:
            return np.asarray(opened[path][next(places)])

    yield measure(Case("readthrough/start", "latency", "ms", ours(iter([0])), less_is_better=True), 1)
    assert np.array_equal(evicted[1], data[1])
    places = iter(range(2, len(data)))
    with h5py.File(file) as opened:
        peers = {
            "h5py": lambda: _milliseconds(file, lambda: theirs(places)),
            "h5py-open": lambda: _milliseconds(file, lambda: opened[path][next(places)]),
        }
        yield measure(Case("readthrough/8MiB", "latency", "ms", ours(places), peers, less_is_better=True), rounds)


def _milliseconds(file: Path, read: Callable[[], Any]) -> float:
    sync_file(file)
    began = time.perf_counter()
    read()
    return 1000 * (time.perf_counter() - began)


def _ours(store: Any, frames: Frames, compression: str, directory: Path) -> float:
    file = directory / "ours.nxs"
    began = time.perf_counter()
    drain(store, "bench/frames", file, compression=compression)
    return _rate(frames, began, file)


def _h5py(frames: Frames, compression: str, directory: Path, *, read_back: bool) -> float:
    path = directory / "theirs.h5"
    digests = [digest_of(frame.data) for frame in frames]
    began = time.perf_counter()
    shape = (len(frames), *frames[0].shape)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", shape, frames[0].dtype, chunks=(1, *shape[1:]), **filters(compression)[1])
        for place, frame in enumerate(frames):
            data[place] = frame
    sync_file(path)
    if read_back:
        with h5py.File(path) as file:
            for place, digest in enumerate(digests):
                assert digest_of(file["data"][place].data) == digest
    return _rate(frames, began, path)


def _direct(frames: Frames, directory: Path, *, read_back: bool) -> float:
    path = directory / "direct.bin"
    digests = [digest_of(frame.data) for frame in frames]
    began = time.perf_counter()
    with path.open("wb", buffering=8 * MiB) as file:
        for frame in frames:
            file.write(frame.data)
    sync_file(path)
    if read_back:
        block = np.empty_like(frames[0])
        with path.open("rb", buffering=0) as file:
            for digest in digests:
                file.readinto(block.data)
                assert digest_of(block.data) == digest
    return _rate(frames, began, path)


def _rate(frames: Frames, began: float, file: Path) -> float:
    rate = len(frames) * frames[0].nbytes / (time.perf_counter() - began) / 1e9
    file.unlink()
    return rate
