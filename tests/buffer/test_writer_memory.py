"""A producer that is done keeps no memory, however long its object stays."""

from __future__ import annotations

import tracemalloc

import numpy as np

import hiss
from hiss.limits import EXTENT_BYTES_TARGET


def test_writers_that_are_closed_keep_no_extents(tmp_path):
    frames = np.zeros((8, 1 << 20), "u1")
    with hiss.open(tmp_path / "buffer", arena_bytes=64 << 20, segment_bytes=32 << 20) as buffer:
        closed = []
        tracemalloc.start()
        try:
            for k in range(6):
                with buffer.collection("c").create_stream(f"s{k}", dtype="u1", shape=frames.shape[1:]) as s:
                    for frame in (*frames, *frames):
                        s.append(frame)
                closed.append(s)
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept < EXTENT_BYTES_TARGET, f"{len(closed)} closed writers keep {kept} bytes"
