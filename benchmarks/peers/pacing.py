"""One end of a measurement, in a process of its own and in whatever environment: `serve` does the tasks that its input
names, one a line of JSON, and says when each began and ended. Nothing but the standard library and NumPy is needed.

    {"size": 8388608, "count": 64, …}   ->   "ready"
    go                                   ->   {"begin", "end", "bytes"}, seconds of the machine's monotonic clock
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

POOL_BYTES = 64 << 20
Work = Callable[[], int | tuple[int, float]]


def serve(prepared: Callable[[dict[str, Any]], AbstractContextManager[Work]]) -> None:
    """Tasks until the input ends. `prepared` gives the work that is timed; it returns how many bytes arrived, and when
    the last of them did where that was before it returned."""
    for line in sys.stdin:
        with prepared(json.loads(line)) as work:
            print('"ready"', flush=True)
            sys.stdin.readline()
            begin = time.monotonic()
            done = work()
            end = time.monotonic()
            if isinstance(done, tuple):
                done, end = done
        print(json.dumps({"begin": begin, "end": end, "bytes": done}), flush=True)


_pools: dict[int, np.ndarray] = {}


def pool(size: int, pool_bytes: int = POOL_BYTES) -> np.ndarray:
    """Distinct blocks of this size, so many bytes of them or one block; the same in every process."""
    if size not in _pools:
        _pools.clear()
        count = max(1, pool_bytes // size)
        _pools[size] = np.frombuffer(np.random.default_rng(0).bytes(count * size), np.uint8).reshape(count, size)
    return _pools[size]


def blocks(size: int, count: int) -> Iterator[np.ndarray]:
    """So many blocks, the pool's over and over."""
    found = pool(size)
    for number in range(count):
        yield found[number % len(found)]
