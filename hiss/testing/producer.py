"""A producer that can be killed at any moment: `python -m hiss.testing.producer ADDRESS COLLECTION/STREAM SEED
BLOCKS`.

It resumes the stream where it stands, sends blocks that follow from (seed, index) alone, prints an index whenever all
blocks up to it are acknowledged as durable, and seals the stream at the end. Odd seeds have a kernel on the way, every
other of them a scan, and keep the raw blocks too.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

import hiss
from hiss.client import connect
from hiss.model import split_stream_path

SHAPE = (31, 33)


def block(seed: int, index: int) -> npt.NDArray[Any]:
    """The block of an index: uint16 of `SHAPE`."""
    return np.random.default_rng([seed, index]).integers(0, 1 << 16, SHAPE).astype("u2")


@hiss.kernel
def inverted(frame):  # type: ignore[no-untyped-def]
    return ~frame


@hiss.scan
class total:
    def init(frame):  # type: ignore[no-untyped-def]
        return np.zeros_like(frame), 0

    def step(state, frame):  # type: ignore[no-untyped-def]
        so_far, count = state  # type: ignore[misc]
        return (so_far + frame, count + 1), so_far + frame + (count % 5).astype(np.uint16)  # type: ignore[has-type]


KERNELS: dict[int, list[Any]] = {0: [], 1: [inverted], 2: [], 3: [total]}  # by the seed modulo 4


def result(seed: int, index: int) -> npt.NDArray[Any]:
    """What is stored of it."""
    if seed % 4 == 3:
        blocks = np.stack([block(seed, before) for before in range(index + 1)])
        return np.asarray(np.sum(blocks, axis=0, dtype=np.uint16) + np.uint16(index % 5))
    return ~block(seed, index) if seed % 2 else block(seed, index)


def main(address: str, path: str, seed: int, blocks: int) -> None:
    collection, name = split_stream_path(path)
    with connect(address) as buffer:
        stream = buffer.collection(collection).create_stream(
            name,
            dtype="u2",
            shape=SHAPE,
            ack="durable",
            columns={"angle": "f8 deg"},
            kernels=KERNELS[seed % 4],
            keep="both",
            resume=True,
        )
        with stream:
            for index in range(stream.next_index, blocks):
                stream.append(block(seed, index), index=index, angle=index / 8)
                if index % 7 == seed % 7:
                    stream.flush()
                    print(index, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
