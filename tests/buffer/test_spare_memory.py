"""Memory of acknowledged extents serves those that come, of whatever stream, and is bounded."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hiss
from hiss import limits
from hiss.limits import MiB
from hiss.spare_memory import SpareMemory
from hiss.testing.processes import DataProcess


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6)), max_size=60))
def test_nobody_is_given_what_another_one_has(steps: list[tuple[bool, int]]) -> None:
    spare = SpareMemory()
    used: list[np.ndarray] = []
    given_back = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "SPARE_BUFFERS_BYTES", 12)
        for take, size in steps:
            if take:
                buffer = spare.take(size)
                assert len(buffer) == size
                assert all(buffer is not other for other in used)
                used.append(buffer)
            elif used:
                spare.give(used.pop(0))
                given_back += 1
            kept = [buffer for free in spare._free.values() for buffer in free]
            assert sum(map(len, kept)) == spare._bytes <= 12
            assert len({id(buffer) for buffer in (*kept, *used)}) == len(kept) + len(used)


def test_what_was_given_is_taken_again() -> None:
    spare = SpareMemory()
    first, second = spare.take(5), spare.take(5)
    spare.give(first)
    spare.give(second)
    assert spare.take(7) is not first
    assert spare.take(5) is second
    assert spare.take(5) is first


def test_too_much_goes_the_least_used_size_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPARE_BUFFERS_BYTES", 20)
    spare = SpareMemory()
    small, large = spare.take(8), spare.take(15)
    spare.give(small)
    spare.give(large)
    assert spare.take(8) is not small
    assert spare.take(15) is large
    huge = spare.take(21)
    spare.give(huge)
    assert spare.take(21) is not huge


def test_stream_after_stream_finds_warm_memory(tmp_path) -> None:
    block = np.ones(MiB, "u1")
    with DataProcess(tmp_path, arena_bytes=64 * MiB) as server, server.connect("tcp") as buffer:
        kept = buffer.store.spare_memory
        made: list[int] = []
        real = kept.take

        def counted(size: int) -> np.ndarray:
            found = real(size)
            made.append(id(found))
            return found

        kept.take = counted  # type: ignore[method-assign]
        for k in range(4):
            with buffer.collection("c").create_stream(f"s{k}", dtype="u1", shape=block.shape) as s:
                for _ in range(3):
                    s.append(block)
                    s.flush()
        assert len(made) == 12
        assert len(set(made)) == 1, "each had all of its blocks in the same memory"
        assert kept._bytes == hiss.limits.EXTENT_BYTES_TARGET


def test_writers_that_are_closed_keep_nothing_beside_it(tmp_path) -> None:
    """However long their objects stay."""
    frames = np.zeros((8, MiB), "u1")
    with hiss.open(tmp_path / "buffer", arena_bytes=64 * MiB, segment_bytes=32 * MiB) as buffer:
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
        kept -= buffer.store.spare_memory._bytes
    assert kept < hiss.limits.EXTENT_BYTES_TARGET, f"{len(closed)} closed writers keep {kept} bytes"
