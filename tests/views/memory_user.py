"""A user with a stream larger than its share of memory: `python memory_user.py ADDRESS PATH` prints the mean
by dask, by how many bytes its peak of memory rose, and the same of NumPy. The token is in HISS_TOKEN."""

from __future__ import annotations

import sys
from pathlib import Path

import dask
import numpy as np

import hiss


def peak() -> int:
    """Bytes of memory that were resident at once, at most, until now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def main(address: str, path: str) -> None:
    with hiss.connect(address) as buffer, dask.config.set(scheduler="threads", num_workers=2):
        stream = buffer[path]
        warm = stream.to_dask(chunk_bytes=4 << 20)[:4].mean().compute()
        assert warm >= 0
        for mean in (lambda: stream.to_dask(chunk_bytes=4 << 20).mean().compute(), lambda: np.asarray(stream).mean()):
            before = peak()
            print(float(mean()), peak() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
