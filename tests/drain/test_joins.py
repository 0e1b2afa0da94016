"""Modules of one detector are one dataset in the file, by block index, with the gaps of each."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_store import MemoryStore

import hiss
from hiss.drain import drain, verify_file
from hiss.limits import MiB
from hiss.model import FrameSpec

FRAME = FrameSpec("int16", (3, 4))


def frame(module: int, index: int) -> np.ndarray:
    return np.full((3, 4), 100 * module + index, np.int16)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.integers(0, 12)), min_size=1, max_size=4))
def test_each_block_is_where_its_index_and_module_are(tmp_path: Path, modules: list[set[int]]) -> None:
    names = tuple(f"m{number}" for number in range(len(modules)))
    store = MemoryStore(joins={"det": names})
    for number, (name, indices) in enumerate(zip(names, modules, strict=True), 1):
        found = sorted(indices)
        store.add(name, [frame(number, index) for index in found], frame=FRAME, index=found)
    report = drain(store, "beam/scan1", tmp_path / "s.nxs", overwrite=True)
    assert report.left_out == ()
    with h5py.File(tmp_path / "s.nxs") as file:
        group = file["entry/det"]
        assert list(group["index"]) == sorted(set().union(*modules))
        assert [path.decode() for path in group["module"]] == [f"beam/scan1/{name}" for name in names]
        for row, index in enumerate(group["index"]):
            for place, indices in enumerate(modules):
                expected = frame(place + 1, index) if index in indices else np.zeros((3, 4))
                np.testing.assert_array_equal(group["data"][row, place], expected)
                assert group["present"][row, place] == (index in indices)


def test_a_join_that_is_no_dataset_is_left_out_and_said(tmp_path: Path) -> None:
    store = MemoryStore(joins={"det": ("m1", "m2"), "gone": ("m1", "m3")})
    store.add("m1", [frame(1, 0)], frame=FRAME)
    store.add("m2", [np.zeros((2, 2), np.int16)], frame=FrameSpec("int16", (2, 2)))
    report = drain(store, "beam/scan1", tmp_path / "s.nxs")
    assert [why.partition(":")[0] for why in report.left_out] == ["join det", "join gone"]
    assert "m3" in str(report)
    with h5py.File(tmp_path / "s.nxs") as file:
        assert "det" not in file["entry"]


def test_the_real_modules_of_a_detector(tmp_path: Path, data_dir: Path) -> None:
    """Three LAMBDA modules, as their files have them, with a frame withheld from the second."""
    with hiss.open(tmp_path / "buffer", backend="numpy", segment_bytes=64 * MiB, arena_bytes=64 * MiB) as buffer:
        scan = buffer.collection("beam/scan1")
        frames = {}
        for number in (1, 2, 3):
            with h5py.File(data_dir / f"lambda_asapo_m{number}_part00000.nxs") as file:
                frames[number] = file["entry/instrument/detector/data"][:4]
            with scan.create_stream(f"m{number}", dtype="int16", shape=frames[number].shape[1:]) as stream:
                for index, one in enumerate(frames[number]):
                    if (number, index) != (2, 1):
                        stream.append(one, index=index)
        join = scan.join("det", ["m1", "m2", "m3"])
        drain(buffer.store, "beam/scan1", tmp_path / "scan.nxs")
        with h5py.File(tmp_path / "scan.nxs") as file:
            group = file["entry/det"]
            for row, (_, expected) in enumerate(join):
                np.testing.assert_array_equal(group["data"][row], expected.filled(0))
            assert group["present"][()].tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 1], [1, 1, 1]]
    assert verify_file(tmp_path / "scan.nxs").ok


def test_nexusformat_shows_a_join(tmp_path: Path) -> None:
    nexusformat = pytest.importorskip("nexusformat.nexus", reason="nexusformat is not installed")
    store = MemoryStore(joins={"det": ("m1", "m2")})
    for number, indices in ((1, (0, 1, 2)), (2, (0, 2))):
        store.add(f"m{number}", [frame(number, index) for index in indices], frame=FRAME, index=indices)
    drain(store, "beam/scan1", tmp_path / "s.nxs")
    shown = nexusformat.nxload(tmp_path / "s.nxs")["entry/det"]
    np.testing.assert_array_equal(np.asarray(shown.nxaxes[0].nxvalue), [0, 1, 2])
    assert shown.nxsignal.nxdata[2, 1, 0, 0] == 202
