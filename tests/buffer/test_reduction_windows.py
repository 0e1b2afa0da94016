"""Reductions with a result for each so many indices: a stream of their own, whatever was vetoed, late or cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss.errors import InvalidInput
from hiss.limits import MiB

FRAMES = np.random.default_rng(0).integers(0, 1 << 12, (47, 3, 5)).astype(np.uint16)


@hiss.filter
def even(frame):  # type: ignore[no-untyped-def]
    return frame[0, 0] % 2 == 0


@hiss.reduce
class largest:
    def init(frame):  # type: ignore[no-untyped-def]
        return frame

    def step(state, frame):  # type: ignore[no-untyped-def]
        return np.maximum(state, frame)

    def finish(state):  # type: ignore[no-untyped-def]
        return state


def _buffer(directory: Path) -> Any:
    return hiss.open(directory, arena_bytes=8 * MiB, segment_bytes=8 * MiB, backend="numpy")


def _write(buffer: Any, kernels: list[Any], order: Any) -> Any:
    with buffer.collection("c").create_stream("s", dtype="u2", shape=(3, 5), kernels=kernels) as stream:
        for index in order:
            stream.append(FRAMES[index], index=int(index))
            if index % 4 == 0:
                stream.flush()
    return buffer["c/s.largest"]


@pytest.mark.parametrize("every", [1, 10, 47, 100])
def test_one_result_for_each_window(every: int, tmp_path: Path) -> None:
    with _buffer(tmp_path) as buffer:
        found = _write(buffer, [largest.bind(every=every)], range(47))
        expected = [FRAMES[first : first + every].max(axis=0) for first in range(0, 47, every)]
        np.testing.assert_array_equal(np.asarray(found), expected)
        assert found.info.attrs["reduction_every"] == every
        assert buffer["c/s"].info.stages[0].every == every


def test_vetoed_and_late_blocks(tmp_path: Path) -> None:
    """A window without a stored block has no result; late blocks are in the window of their index."""
    kept = FRAMES[:, 0, 0] % 2 == 0
    order = [*range(20), *range(24, 47), 23, 21, 22, 20]
    with _buffer(tmp_path) as buffer:
        found = _write(buffer, [even, largest.bind(every=3)], order)
        windows = [k for k in range(16) if kept[3 * k : 3 * k + 3].any()]
        assert 0 < len(windows) < 16
        assert [block.index for block in found] == windows
        for block in found:
            part = slice(3 * block.index, 3 * block.index + 3)
            np.testing.assert_array_equal(block.data, FRAMES[part][kept[part]].max(axis=0))


def test_nothing_stored_gives_no_stream(tmp_path: Path) -> None:
    @hiss.filter
    def none(frame):  # type: ignore[no-untyped-def]
        return np.max(frame) > 60000

    with _buffer(tmp_path) as buffer:
        with buffer.collection("c").create_stream("s", dtype="u2", shape=(3, 5), kernels=[none, largest]) as stream:
            stream.append(FRAMES[0])
        assert "s.largest" not in buffer["c"]


def test_it_is_of_reductions_only() -> None:
    for bad in (lambda: even.bind(every=3), lambda: largest.bind(every=-1)):
        with pytest.raises(InvalidInput, match="every="):
            bad()
