"""Opening a buffer again whose process was killed: many small records, and 20 GB in large and in middle-sized ones.

Workloads. `300k-records`: one 100-byte block each, in ten streams, in segments of 32 MiB; opened in turn with the
indexes at the segments' ends (ours) and with them taken away, so that every record's header is read (`scan`).
`20GB/8MiB`, `20GB/64KiB`: so many bytes in records of one block of that size, in ten streams, in segments of the usual
size, and the page cache told to forget them; the peer `read` is what reading 1/16 of these bytes takes with O_DIRECT,
the most that indexes may be. The log is written once, and the buffer not closed; the clock runs over the opening alone.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import disk_peers
from benchmarks.measure import Case, measure
from hiss.blocks import Storage, StorageOptions
from hiss.extent import Extent
from hiss.limits import KiB, MiB
from hiss.model import AckLevel, Completeness, FrameSpec, Keep, StreamInfo, StreamState

_STREAMS = 10
_BLOCK_BYTES = 100
_OPTIONS = StorageOptions(arena_bytes=64 * MiB, segment_bytes=32 * MiB)
_LARGE_OPTIONS = StorageOptions(arena_bytes=64 * MiB)


def run(quick: bool, *, log_bytes: int | None = None, records: int | None = None) -> Iterator[dict[str, Any]]:
    """`log_bytes` instead of 20 GB (or 1 GB, where it is to be quick), and `records` small ones, for a test."""
    yield from _small_records(quick, records or (30_000 if quick else 300_000))
    log_bytes = log_bytes or (1 if quick else 20) * 10**9
    name = f"{log_bytes // 10**9}GB" if log_bytes >= 10**9 else f"{log_bytes // 10**6}MB"
    for block_bytes, size in ((8 * MiB, "8MiB"), (64 * KiB, "64KiB")):
        with tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder:
            yield measure(
                _large_case(f"recovery/{name}/{size}", Path(folder), log_bytes, block_bytes), 2 if quick else 5
            )


def _large_case(name: str, folder: Path, log_bytes: int, block_bytes: int) -> Case:
    directory = folder / "buffer"
    blocks = max(_STREAMS, log_bytes // block_bytes)
    _fill(directory, blocks, block_bytes, _LARGE_OPTIONS)
    some = np.zeros((4, 4 * MiB), "u1")
    repeat = max(1, log_bytes // 16 // some.nbytes)
    disk_peers.direct_write(some, repeat, folder / "raw", fresh=True)

    def ours() -> float:
        disk_peers.drop_cache(*(directory / "segments").iterdir())
        return _open(directory, blocks, _LARGE_OPTIONS)

    def read() -> float:
        return some.nbytes * repeat / 1e9 / disk_peers.direct_read(some, repeat, folder / "raw")

    return Case(name, "time", "s", ours, {"read": read}, less_is_better=True)


def _small_records(quick: bool, records: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder:
        directory = Path(folder) / "buffer"
        _fill(directory, records, _BLOCK_BYTES, _OPTIONS)

        def scan() -> float:
            with _without_indexes(directory):
                return _open(directory, records, _OPTIONS)

        case = Case(
            f"recovery/{records / 1000:g}k-records",
            "time",
            "s",
            lambda: _open(directory, records, _OPTIONS),
            {"scan": scan},
            less_is_better=True,
        )
        yield measure(case, 2 if quick else 3)


def _fill(directory: Path, records: int, block_bytes: int, options: StorageOptions) -> None:
    """Written by a process of its own that ends without closing anything."""
    child = multiprocessing.get_context("spawn").Process(
        target=_append, args=(directory, records, block_bytes, options)
    )
    child.start()
    child.join()
    assert child.exitcode == 0


def _append(directory: Path, records: int, block_bytes: int, options: StorageOptions) -> None:
    storage = Storage(directory, options)
    storage.catalog.create_collection("bench", {}, [])
    infos = storage.catalog.add_streams([_info(f"s{k}") for k in range(_STREAMS)], new_version=False, attempt=None)
    data = np.random.default_rng(0).integers(0, 256, block_bytes).astype("u1")
    length = np.array([block_bytes])
    for number in range(records):
        extent = Extent.of(np.array([number // _STREAMS]), data, length)
        storage.append(infos[number % _STREAMS].id, extent, lambda error: None)
    storage.sync()
    os._exit(0)


def _info(name: str) -> StreamInfo:
    return StreamInfo(
        id=uuid.uuid4().hex,
        collection="bench",
        name=name,
        version=1,
        frame=FrameSpec(None, ()),
        columns=(),
        ack=AckLevel.DURABLE,
        keep=Keep.RESULT,
        attrs={},
        stages=(),
        state=StreamState.OPEN,
        completeness=Completeness(0, 0, 0, None, None),
        digest="",
        created_ns=1,
        final_ns=0,
    )


def _open(directory: Path, records: int, options: StorageOptions) -> float:
    begin = time.perf_counter()
    storage = Storage(directory, options)
    seconds = time.perf_counter() - begin
    try:
        assert storage.recovery.blocks == records
    finally:
        storage.close()
    return seconds


@contextmanager
def _without_indexes(directory: Path) -> Iterator[None]:
    """The last page of every segment zero while it is entered."""
    kept = {}
    for path in (directory / "segments").iterdir():
        with open(path, "r+b") as file:
            file.seek(-4 * KiB, os.SEEK_END)
            kept[path] = file.read()
            file.seek(-4 * KiB, os.SEEK_END)
            file.write(bytes(4 * KiB))
    try:
        yield
    finally:
        for path, page in kept.items():
            with open(path, "r+b") as file:
                file.seek(-4 * KiB, os.SEEK_END)
                file.write(page)
