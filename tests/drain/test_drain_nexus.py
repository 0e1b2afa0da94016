"""What a drained file promises: whole or not there, every block as it was, and readable by others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from memory_store import MemoryStore

from hiss.drain import drain, targets
from hiss.drain.compression import filters
from hiss.errors import AlreadyExists, BlockDamaged, Damaged, InvalidInput, NotFound, StreamNotFinal
from hiss.model import FrameSpec, KernelKind, LedgerEntry, StageInfo, StreamState, digest_of

FRAME = FrameSpec("uint16", (6, 5))


def frames(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60000, (count, 6, 5), np.uint16)


def stage() -> StageInfo:
    params = {
        "gain": {"scalar": 2.5, "dtype": None},
        "dark": {"stream": "beam/scan1/dark", "version": 1, "reduce": "mean", "digest": "ab"},
    }
    return StageInfo("flatfield", KernelKind.MAP, "cafe", "def flatfield(frame): ...", params, 1.0)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_stream_comes_back_as_it_was(tmp_path: Path) -> None:
    store = MemoryStore()
    data = frames(7)
    index = [0, 1, 2, 5, 6, 7, 9]
    ledger = (LedgerEntry(3, 4, "transport", "never received"), LedgerEntry(8, 8, "enough", "vetoed"))
    angles = np.linspace(0, 180, 7)
    info = store.add(
        "proj", data, frame=FRAME, index=index, ledger=ledger,
        columns={"angle": ("f8 deg", angles), "shot": ("S4", [b"a"] * 7)},
        attrs={"sample": "foam 3", "units": "counts", "numbers": [1, 2], "big": 2**70, "odd/key": "a\0b"},
    )  # fmt: skip
    report = drain(store, "beam/scan1/proj", tmp_path / "scan.nxs")

    assert (report.blocks, report.bytes) == (7, data.nbytes)
    assert report.file_bytes == (tmp_path / "scan.nxs").stat().st_size
    assert leftovers(tmp_path) == []
    with h5py.File(tmp_path / "scan.nxs") as file:
        entry = file["entry"]
        group = entry[entry.attrs["default"]]
        assert group.attrs["NX_class"] == "NXdata"
        assert list(group.attrs["axes"]) == ["angle", ".", "."]
        np.testing.assert_array_equal(group["data"], data)
        assert group["data"].dtype == np.uint16
        assert group["data"].attrs["units"] == "counts"
        assert entry["instrument/proj"].attrs["NX_class"] == "NXdetector"
        assert entry["instrument/proj/data"] == group["data"]
        np.testing.assert_array_equal(group["angle"], angles)
        assert group["angle"].attrs["units"] == "deg"
        np.testing.assert_array_equal(group["index"], index)
        assert group["time_ns"][3] == 1_700_000_000_000_000_005
        assert group["attributes/sample"][()] == b"foam 3"
        assert json.loads(group["attributes/numbers"][()]) == [1, 2]
        assert json.loads(group["attributes/big"][()]) == 2**70
        assert json.loads(group["attributes/odd_key"][()]) == "a\0b"
        record = entry["hiss/proj"]
        assert record["completeness"][()].decode() == str(info.completeness)
        assert list(record["ledger/first"]) == [3, 8]
        assert [text.decode() for text in record["ledger/reason"]] == ["never received", "vetoed"]
        assert list(record["block_digest"]) == [digest_of(block.tobytes()) for block in data]


def test_a_collection_holds_all_its_streams_kernels_and_marks(tmp_path: Path) -> None:
    store = MemoryStore(attrs={"title": "a scan"})
    store.add("dark", frames(2, 2), frame=FRAME)
    raw = store.add("proj.raw", frames(4), frame=FRAME)
    store.add(
        "proj", np.ones((4, 6, 5), np.float32), frame=FrameSpec("float32", (6, 5)), stages=(stage(),), raw_id=raw.id
    )
    store.add("broken-run", frames(1), frame=FRAME, state=StreamState.ABORTED, abort_reason="shutter closed")
    report = drain(store, "beam/scan1", tmp_path / "scan.nxs")
    assert {stream.path: stream.state for stream in report.streams}["beam/scan1/broken-run"] == "aborted"
    with h5py.File(tmp_path / "scan.nxs") as file:
        entry = file["entry"]
        assert entry["title"][()] == b"a scan"
        assert entry.attrs["default"] == "proj"
        assert entry["broken_run"].attrs["hiss_path"] == "beam/scan1/broken-run"
        assert entry["hiss/broken_run/abort_reason"][()] == b"shutter closed"
        process = entry["process_1_proj"]
        assert process["version"][()] == b"cafe"
        assert process["parameters/gain"][()] == 2.5
        assert json.loads(process["parameters/dark"][()])["reduce"] == "mean"
        assert process["source/data"][()] == b"def flatfield(frame): ..."


def test_tomography_shows_one_stack_with_image_keys(tmp_path: Path) -> None:
    store = MemoryStore(attrs={"definition": "NXtomo", "sample": "foam 3"})
    dark, flat, raw = frames(2, 2), frames(3, 3), frames(4)
    angle = {"angle": ("f8 deg", [0.0, 45.0, 90.0, 135.0])}
    store.add("flat", flat, frame=FRAME, attrs={"image_key": 1})
    store.add("dark", dark, frame=FRAME, attrs={"image_key": 2})
    companion = store.add("proj.raw", raw, frame=FRAME, attrs={"image_key": 0}, columns=angle, raw_of="x")
    store.add("proj", raw * np.float32(2), frame=FrameSpec("float32", (6, 5)), attrs={"image_key": 0},
              columns=angle, stages=(stage(),), raw_id=companion.id)  # fmt: skip
    drain(store, "beam/scan1", tmp_path / "scan.nxs", compression="gzip")
    with h5py.File(tmp_path / "scan.nxs") as file:
        entry = file["entry"]
        assert entry["definition"][()] == b"NXtomo"
        np.testing.assert_array_equal(entry["instrument/detector/data"], np.concatenate([dark, flat, raw]))
        assert list(entry["instrument/detector/image_key"]) == [2, 2, 1, 1, 1, 0, 0, 0, 0]
        assert list(entry["sample/rotation_angle"])[-4:] == [0.0, 45.0, 90.0, 135.0]
        assert entry["sample/rotation_angle"].attrs["units"] == "degree"
        assert entry["sample/name"][()] == b"foam 3"


def test_tomography_without_projections_is_refused(tmp_path: Path) -> None:
    store = MemoryStore(attrs={"definition": "NXtomo"})
    store.add("flat", frames(1), frame=FRAME, attrs={"image_key": 1})
    with pytest.raises(InvalidInput, match="image_key = 0"):
        drain(store, "beam/scan1", tmp_path / "scan.nxs")
    assert list(tmp_path.iterdir()) == []


def test_nexusformat_opens_it_and_finds_what_to_plot(tmp_path: Path) -> None:
    nexusformat = pytest.importorskip("nexusformat.nexus", reason="nexusformat is not installed")
    store = MemoryStore(attrs={"definition": "NXtomo"})
    data = frames(4)
    store.add("proj", data, frame=FRAME, columns={"angle": ("f8 deg", range(4))}, attrs={"image_key": 0})
    drain(store, "beam/scan1/proj", tmp_path / "stream.nxs")
    drain(store, "beam/scan1", tmp_path / "scan.nxs")
    for name in ("stream.nxs", "scan.nxs"):
        plot = nexusformat.nxload(tmp_path / name).plottable_data
        np.testing.assert_array_equal(np.asarray(plot.nxsignal.nxvalue), data)
        np.testing.assert_array_equal(np.asarray(plot.nxaxes[0].nxvalue), range(4))


def test_variable_length_blocks_keep_their_rows(tmp_path: Path) -> None:
    store = MemoryStore()
    events = [np.arange(2 * n, dtype=np.uint32).reshape(n, 2) for n in (3, 0, 5, 1)]
    store.add("events", events, frame=FrameSpec("uint32", (None, 2)))
    drain(store, "beam/scan1/events", tmp_path / "e.nxs")
    with h5py.File(tmp_path / "e.nxs") as file:
        group = file["entry/events"]
        assert list(group["offset"]) == [0, 3, 3, 8, 9]
        np.testing.assert_array_equal(group["data"], np.concatenate(events))


def test_an_open_stream_is_not_drained(tmp_path: Path) -> None:
    store = MemoryStore()
    store.add("proj", frames(1), frame=FRAME, state=StreamState.OPEN)
    with pytest.raises(StreamNotFinal, match="seal or abort"):
        drain(store, "beam/scan1", tmp_path / "scan.nxs")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="beam/scan2"):
        drain(MemoryStore(), "beam/scan2", tmp_path / "scan.nxs")


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    store = MemoryStore()
    store.add("proj", frames(2), frame=FRAME)
    target = tmp_path / "scan.nxs"
    target.write_bytes(b"precious")
    with pytest.raises(AlreadyExists):
        drain(store, "beam/scan1/proj", target)
    assert target.read_bytes() == b"precious"
    drain(store, "beam/scan1/proj", target, overwrite=True)
    assert h5py.is_hdf5(target)
    assert leftovers(tmp_path) == []


def test_a_damaged_block_is_found_before_the_file_has_its_name(tmp_path: Path) -> None:
    store = MemoryStore()
    info = store.add("proj", frames(4), frame=FRAME)
    extent = store.extents[info.id][1]
    flipped = extent.data.copy()
    flipped[7] ^= 1
    store.extents[info.id][1] = replace(extent, data=flipped)
    with pytest.raises(BlockDamaged, match="block 3 of beam/scan1/proj"):
        drain(store, "beam/scan1/proj", tmp_path / "scan.nxs")
    assert list(tmp_path.iterdir()) == []


def test_missing_blocks_are_found(tmp_path: Path) -> None:
    store = MemoryStore()
    info = store.add("proj", frames(4), frame=FRAME)
    store.extents[info.id].pop()
    with pytest.raises(Damaged, match="3 blocks came out"):
        drain(store, "beam/scan1/proj", tmp_path / "scan.nxs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compression", ["none", "gzip", "auto"])
def test_a_disk_that_changes_a_byte_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    """Between writing and reading back, one byte of one frame changes on the disk."""
    store = MemoryStore()
    store.add("proj", frames(4), frame=FRAME)

    def sync_and_flip(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["entry/proj/data"][2, 1, 1] ^= 1

    monkeypatch.setattr(targets, "sync_tree", sync_and_flip)
    with pytest.raises(BlockDamaged, match="block 2 of beam/scan1/proj read back"):
        drain(store, "beam/scan1/proj", tmp_path / "scan.nxs", compression=compression)
    assert list(tmp_path.iterdir()) == []


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    store = MemoryStore()
    data = frames(5)
    store.add("proj", data, frame=FRAME)
    seen: list[tuple[int, int]] = []
    drain(store, "beam/scan1/proj", tmp_path / "s.nxs", on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * data.nbytes, 2 * data.nbytes)
    assert seen == sorted(seen)


def test_frames_have_chunks_of_their_own(tmp_path: Path) -> None:
    store = MemoryStore()
    large = FrameSpec("uint16", (200, 300))
    store.add("large", np.zeros((2, 200, 300), np.uint16), frame=large)
    drain(store, "beam/scan1/large", tmp_path / "l.nxs")
    with h5py.File(tmp_path / "l.nxs") as file:
        assert file["entry/large/data"].chunks == (1, 200, 300)


def test_unknown_compression_names_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="bitshuffle-lz4"):
        filters("zip")
