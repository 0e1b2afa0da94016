"""Opening a buffer again: 300,000 records of one 100-byte block each, in ten streams, the process killed before.

Workload: the log is written once, in segments of 32 MiB, and the buffer not closed; then it is opened in turn with the
indexes at the segments' ends (ours) and with them taken away, so that every record's header is read (`scan`). The
clock runs over the opening alone; the pages of the log are in the page cache for both.
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

from benchmarks.measure import Case, measure
from hiss.blocks import Storage, StorageOptions
from hiss.extent import Extent
from hiss.limits import KiB, MiB
from hiss.model import AckLevel, Completeness, FrameSpec, Keep, StreamInfo, StreamState

_STREAMS = 10
_BLOCK_BYTES = 100
_OPTIONS = StorageOptions(arena_bytes=64 * MiB, segment_bytes=32 * MiB)


def run(quick: bool) -> Iterator[dict[str, Any]]:
    records = 30_000 if quick else 300_000
    with tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder:
        directory = Path(folder) / "buffer"
        _fill(directory, records)

        def scan() -> float:
            with _without_indexes(directory):
                return _open(directory, records)

        case = Case(
            f"recovery/{records // 1000}k-records",
            "time",
            "s",
            lambda: _open(directory, records),
            {"scan": scan},
            less_is_better=True,
        )
        yield measure(case, 2 if quick else 3)


def _fill(directory: Path, records: int) -> None:
    """Written by a process of its own that ends without closing anything."""
    child = multiprocessing.get_context("spawn").Process(target=_append, args=(directory, records))
    child.start()
    child.join()
    assert child.exitcode == 0


def _append(directory: Path, records: int) -> None:
    storage = Storage(directory, _OPTIONS)
    storage.catalog.create_collection("bench", {}, [])
    infos = storage.catalog.add_streams([_info(f"s{k}") for k in range(_STREAMS)], new_version=False, attempt=None)
    data = np.random.default_rng(0).integers(0, 256, _BLOCK_BYTES).astype("u1")
    length = np.array([_BLOCK_BYTES])
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


def _open(directory: Path, records: int) -> float:
    begin = time.perf_counter()
    storage = Storage(directory, _OPTIONS)
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
