"""Scans in a buffer: what they remember outlives the session and the process, or the scan stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss import limits
from hiss.errors import InvalidInput
from hiss.kernels import Memory
from hiss.limits import MiB
from hiss.scan_memory import FOLDER, ScanMemory
from hiss.testing.producer import total

FRAMES = np.random.default_rng(0).integers(0, 1 << 16, (40, 5, 7)).astype(np.uint16)
EXPECTED = np.cumsum(FRAMES, axis=0, dtype=np.uint16) + (np.arange(40) % 5).astype(np.uint16)[:, None, None]


def _open(directory: Path) -> Any:
    return hiss.open(directory, arena_bytes=8 * MiB, segment_bytes=8 * MiB, backend="numpy")


def _stream(buffer: Any, **options: Any) -> Any:
    spec = {"dtype": "u2", "shape": (5, 7), "kernels": [total], "keep": "result", "resume": True} | options
    return buffer.collection("c").create_stream("s", **spec)


def _snapshots(directory: Path) -> list[Path]:
    return sorted((directory / FOLDER).glob("*/*.memory"))


def _part(directory: Path, first: int, last: int) -> None:
    """One process's life: it sends some blocks and goes away with the stream open."""
    with _open(directory) as buffer:
        stream = _stream(buffer)
        for index in range(first, last):
            stream.append(FRAMES[index], index=index)
        stream.flush()
        stream.detach()


def _finish(directory: Path, first: int) -> Any:
    with _open(directory) as buffer:
        with _stream(buffer) as stream:
            for index in range(first, len(FRAMES)):
                stream.append(FRAMES[index], index=index)
        return np.asarray(buffer["c/s"]), buffer["c/s"].info


def test_a_restart_goes_on_where_the_log_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SCAN_SNAPSHOTS_MAX", 3)
    for first, last in ((0, 9), (9, 10), (10, 31)):
        _part(tmp_path, first, last)
        assert 1 <= len(_snapshots(tmp_path)) <= 3
    result, info = _finish(tmp_path, 31)
    np.testing.assert_array_equal(result, EXPECTED)
    assert info.completeness.gaps == 0
    assert not _snapshots(tmp_path), "a final stream needs none"


def test_blocks_sent_again_and_late_ones(tmp_path: Path) -> None:
    """Sent again they change nothing. A block that comes after later ones is a gap, its raw block kept."""
    _part(tmp_path, 0, 12)
    with _open(tmp_path) as buffer:
        with _stream(buffer) as stream:
            for index in (*range(5, 20), *range(21, 40), 20):
                stream.append(FRAMES[index], index=index)
                stream.flush()
        done = buffer["c/s"]
        assert [(entry.first, entry.last, entry.reason) for entry in done.info.completeness.ledger] == [
            (20, 20, "kernel-failed")
        ]
        assert np.array_equal(next(iter(done.raw)).data, FRAMES[20])
        np.testing.assert_array_equal(next(iter(done)).data, EXPECTED[0])


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut"])
def test_without_its_memory_a_scan_stops(damage: str, tmp_path: Path) -> None:
    """It does not begin anew as if nothing had been: its blocks are kept raw, and gaps in the result."""
    _part(tmp_path, 0, 9)
    (*_, newest) = _snapshots(tmp_path)
    if damage == "missing":
        newest.unlink()
    else:
        data = bytearray(newest.read_bytes())
        data[len(data) // 2] ^= 1
        newest.write_bytes(data if damage == "flipped" else data[:-7])
    _, info = _finish(tmp_path, 9)
    assert [stage.quarantined for stage in info.stages] == [True]
    assert (info.completeness.blocks, info.completeness.gaps) == (9, 31)


def test_snapshots_that_are_ahead_of_the_log_are_dropped(tmp_path: Path) -> None:
    """A crash between a snapshot and its results: the blocks come again, from the snapshot before."""
    synced: list[int] = []
    memory = ScanMemory(tmp_path, "s", lambda: synced.append(1))
    states = [(np.full((2, 3), k), np.array(k * 0.5)) for k in range(3)]
    for frontier, state in zip((4, 9, 12), states, strict=True):
        memory.keep(Memory(frontier, (state, None)))
    again = ScanMemory(tmp_path, "s", lambda: None)
    found = again.after(9)
    assert found is not None
    assert found.frontier == 9
    first, second = found.states
    assert second is None
    assert first is not None
    for part, expected in zip(first, states[1], strict=True):
        np.testing.assert_array_equal(part, expected)
        assert part.dtype == expected.dtype
    assert again.after(12) is None
    assert again.after(None) is None
    assert not synced


def test_a_scan_needs_a_stored_result(tmp_path: Path) -> None:
    with _open(tmp_path) as buffer, pytest.raises(InvalidInput, match="a scan needs those before it"):
        _stream(buffer, keep="raw")


def test_a_scan_on_the_way_out(tmp_path: Path) -> None:
    """A read with a scan begins at its first block."""
    with _open(tmp_path) as buffer:
        with buffer.collection("c").create_stream("s", dtype="u2", shape=(5, 7)) as stream:
            for frame in FRAMES:
                stream.append(frame)
        np.testing.assert_array_equal(buffer["c/s"].read(kernels=[total]), EXPECTED)
