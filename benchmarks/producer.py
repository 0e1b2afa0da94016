"""Our producer, in a process of its own: `python -m benchmarks.producer ADDRESS LANE`, with HISS_TOKEN.

Tasks are `pacing`'s, with `ack`, and `how`: "append", "lent" (`copy=False`), "extend", or "latency", whose
seconds for each block go into the file `out`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

import hiss
from benchmarks.peers import pacing
from hiss.limits import EXTENT_BYTES_TARGET

_numbers = count()


def main(address: str, lane: str) -> None:
    with hiss.connect(address, lane=lane) as buffer:
        collection = buffer.collection("bench")

        @contextmanager
        def prepared(task: dict[str, Any]) -> Iterator[pacing.Work]:
            size = task["size"]
            pacing.pool(size, task.get("pool", pacing.POOL_BYTES))
            alone = task["how"] == "latency"  # a block is sent when it comes, and does not wait for others
            writer = collection.create_stream(
                f"p{os.getpid()}-{next(_numbers)}",
                dtype="u1",
                shape=(size,),
                ack=task["ack"],
                extent_bytes=size if alone else EXTENT_BYTES_TARGET,
            )
            with writer:
                yield lambda: _WORK[task["how"]](writer, task)
            buffer.store.delete_stream(writer.info.id)

        pacing.serve(prepared)


def _append(writer: Any, task: dict[str, Any]) -> int:
    for block in pacing.blocks(task["size"], task["count"]):
        writer.append(block, copy=task["how"] != "lent")
    writer.flush()
    return int(task["size"] * task["count"])


def _extend(writer: Any, task: dict[str, Any]) -> int:
    found = pacing.pool(task["size"])
    for first in range(0, task["count"], len(found)):
        writer.extend(found[: task["count"] - first])
    writer.flush()
    return int(task["size"] * task["count"])


def _latency(writer: Any, task: dict[str, Any]) -> int:
    seconds = []
    for block in pacing.blocks(task["size"], task["count"]):
        begin = time.perf_counter()
        writer.append(block)
        writer.flush()
        seconds.append(time.perf_counter() - begin)
    np.save(task["out"], seconds)
    return int(task["size"] * task["count"])


_WORK = {"append": _append, "lent": _append, "extend": _extend, "latency": _latency}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
