"""What every format of drained data promises, and what xarray and zarr-python see of a Zarr directory."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from memory_store import MemoryStore

from hiss.drain import drain, targets, verify_file
from hiss.drain.zarr_format import MANIFEST
from hiss.errors import AlreadyExists, BlockDamaged, Damaged, InvalidInput, MissingExtra
from hiss.model import FrameSpec, LedgerEntry, digest_of

zarr = pytest.importorskip("zarr", reason="zarr is not installed: pip install 'hiss[zarr]'")

Opened = Callable[[Path, str], dict[str, Any]]
FRAMES = np.random.default_rng(1).integers(0, 60000, (7, 120, 300), np.uint16)


def from_nexus(path: Path, name: str) -> dict[str, Any]:
    with h5py.File(path) as file:
        members = {key: item[()] for key, item in file[f"entry/{name}"].items() if isinstance(item, h5py.Dataset)}
        return members | {"digest": file[f"entry/hiss/{name}/block_digest"][()]}


def from_zarr(path: Path, name: str) -> dict[str, Any]:
    return {key: array[...] for key, array in zarr.open_group(path / name, mode="r").arrays()}


FORMATS = [pytest.param(".nxs", from_nexus, id="nexus"), pytest.param(".zarr", from_zarr, id="zarr")]
suite = pytest.mark.parametrize(("suffix", "opened"), FORMATS)


def scan(data: Any = FRAMES) -> MemoryStore:
    store = MemoryStore(attrs={"title": "a scan"})
    store.add("proj", data, frame=FrameSpec("uint16", (120, 300)), index=[0, 1, 2, 5, 6, 7, 9],
              columns={"angle": ("f8 deg", np.arange(7) * 0.5), "shot": ("S3", [b"ab"] * 7)},
              attrs={"sample": "foam", "units": "counts"},
              ledger=(LedgerEntry(3, 4, "transport", "never received"),))  # fmt: skip
    return store


@suite
def test_blocks_and_what_stands_beside_them_come_back(tmp_path: Path, suffix: str, opened: Opened) -> None:
    target = tmp_path / f"scan{suffix}"
    report = drain(scan(), "beam/scan1", target)
    assert (report.blocks, report.bytes) == (7, FRAMES.nbytes)
    found = opened(target, "proj")
    np.testing.assert_array_equal(found["data"], FRAMES)
    assert list(found["index"]) == [0, 1, 2, 5, 6, 7, 9]
    np.testing.assert_array_equal(found["angle"], np.arange(7) * 0.5)
    assert found["time_ns"][3] == 1_700_000_000_000_000_005
    assert list(found["digest"]) == [digest_of(frame.data) for frame in FRAMES]
    assert verify_file(target).ok
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@suite
@pytest.mark.parametrize("compression", ["auto", "none", "gzip", "zstd", "bitshuffle-lz4"])
def test_every_compression(tmp_path: Path, suffix: str, opened: Opened, compression: str) -> None:
    if suffix == ".nxs" and compression in ("zstd", "bitshuffle-lz4"):
        pytest.importorskip("hdf5plugin", reason="hdf5plugin is not installed")
    target = tmp_path / f"s{suffix}"
    drain(scan(), "beam/scan1/proj", target, compression=compression)
    np.testing.assert_array_equal(opened(target, "proj")["data"], FRAMES)
    found = verify_file(target)
    assert (found.ok, found.blocks, found.bytes) == (True, 7, FRAMES.nbytes)


@suite
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["bool", "uint8", "int16", "uint32", "int64", "float16", "float64", "complex64"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
    count=st.integers(0, 7),
    compression=st.sampled_from(["auto", "none", "gzip"]),
)
def test_every_element_type(
    tmp_path: Path, suffix: str, opened: Opened, dtype: str, shape: tuple[int, ...], count: int, compression: str
) -> None:
    data = np.random.default_rng(count).integers(0, 2 if dtype == "bool" else 100, (count, *shape)).astype(dtype)
    store = MemoryStore()
    store.add("s", data, frame=FrameSpec(dtype, shape))
    target = tmp_path / f"s{suffix}"
    drain(store, "beam/scan1/s", target, compression=compression, overwrite=True)
    np.testing.assert_array_equal(opened(target, "s")["data"].astype(dtype), data)
    assert verify_file(target).blocks == count


@suite
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.lists(st.binary(max_size=50), max_size=8))
def test_opaque_blocks_are_bytes_with_offsets(tmp_path: Path, suffix: str, opened: Opened, blocks: list[bytes]) -> None:
    store = MemoryStore()
    store.add("packets", blocks, frame=FrameSpec(None, ()))
    target = tmp_path / f"p{suffix}"
    drain(store, "beam/scan1/packets", target, overwrite=True)
    found = opened(target, "packets")
    assert [found["data"][a:b].tobytes() for a, b in itertools.pairwise(found["offset"])] == blocks
    assert verify_file(target).blocks == len(blocks)


@suite
def test_a_damaged_block_is_found_before_there_is_a_name(tmp_path: Path, suffix: str, opened: Opened) -> None:
    store = scan()
    extents = next(iter(store.extents.values()))
    flipped = extents[1].data.copy()
    flipped[7] ^= 1
    extents[1] = replace(extents[1], data=flipped)
    with pytest.raises(BlockDamaged, match="block 5 of beam/scan1/proj"):
        drain(store, "beam/scan1/proj", tmp_path / f"s{suffix}")
    extents.pop()
    extents[1] = replace(extents[1], digest=np.array([digest_of(b) for b in flipped.reshape(3, -1)], np.uint64))
    with pytest.raises(Damaged, match="6 blocks came out"):
        drain(store, "beam/scan1/proj", tmp_path / f"s{suffix}")
    assert list(tmp_path.iterdir()) == []


@suite
def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path, suffix: str, opened: Opened) -> None:
    target = tmp_path / f"s{suffix}"
    drain(scan(), "beam/scan1/proj", target)
    other = scan(FRAMES[::-1])
    with pytest.raises(AlreadyExists):
        drain(other, "beam/scan1/proj", target)
    np.testing.assert_array_equal(opened(target, "proj")["data"], FRAMES)
    drain(other, "beam/scan1/proj", target, overwrite=True)
    np.testing.assert_array_equal(opened(target, "proj")["data"], FRAMES[::-1])
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    (folder / "precious").touch()
    with pytest.raises(InvalidInput, match="directory"):
        drain(scan(), "beam/scan1/proj", folder, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {target.name, folder.name}


def shard(path: Path) -> Path:
    return next(file for file in sorted((path / "proj" / "data" / "c").rglob("*")) if file.is_file())


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("compression", ["auto", "none", "gzip", "zstd"])
def test_a_flipped_bit_in_a_shard_names_its_block(tmp_path: Path, compression: str) -> None:
    target = tmp_path / "s.zarr"
    drain(scan(), "beam/scan1/proj", target, compression=compression)
    flip(shard(target), shard(target).stat().st_size // 2)
    found = verify_file(target)
    assert [damage.first for damage in found.streams[0].damage] == [5]
    assert (found.blocks, found.changed) == (6, ())


@pytest.mark.parametrize("name", ["zarr.json", "proj/zarr.json", "proj/angle/c/0", MANIFEST])
def test_a_change_of_anything_else_names_the_file(tmp_path: Path, name: str) -> None:
    target = tmp_path / "s.zarr"
    drain(scan(), "beam/scan1/proj", target)
    file = target / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    found = verify_file(target)
    assert not found.ok
    assert name in found.changed


def test_a_disk_that_changes_a_byte_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "sync_tree", lambda path: flip(shard(path), 1000))
    with pytest.raises(BlockDamaged, match="read back"):
        drain(scan(), "beam/scan1/proj", tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


def test_xarray_shows_frames_over_their_index(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    drain(scan(), "beam/scan1", tmp_path / "s.zarr")
    with xarray.open_zarr(tmp_path / "s.zarr", group="proj", consolidated=False, chunks=None) as found:
        assert found["data"].dims == ("index", "dim_1", "dim_2")
        np.testing.assert_array_equal(found["data"].sel(index=5), FRAMES[3])
        np.testing.assert_array_equal(found["angle"], np.arange(7) * 0.5)
        assert found["angle"].attrs["units"] == "deg"
        assert found["shot"].values.tobytes() == b"ab\0" * 7
        assert found.attrs["hiss"]["ledger"] == [[3, 4, "transport", "never received"]]
        assert found.attrs["attributes"] == {"sample": "foam", "units": "counts"}


def test_shards_hold_many_frames_and_chunks_one(tmp_path: Path) -> None:
    drain(scan(), "beam/scan1/proj", tmp_path / "s.zarr")
    data = zarr.open_array(tmp_path / "s.zarr" / "proj" / "data", mode="r")
    assert (data.chunks, data.shards) == ((1, 120, 300), (7, 120, 300))
    assert json.loads((tmp_path / "s.zarr" / "zarr.json").read_text())["zarr_format"] == 3


def test_what_was_not_drained_is_not_verified(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    with pytest.raises(InvalidInput, match="hiss drain"):
        verify_file(tmp_path / "other.zarr")


def test_without_zarr_the_line_that_installs_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hiss\[zarr\]'"):
        drain(scan(), "beam/scan1/proj", tmp_path / "s.zarr")
    with pytest.raises(InvalidInput, match="nexus"):
        drain(scan(), "beam/scan1/proj", tmp_path / "s.zarr", form="tiff")


def raw_frames(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes(), np.uint16).reshape(-1, 120, 300)


@pytest.mark.parametrize(("form", "opened"), [("npy", np.load), ("raw", raw_frames)])
def test_bare_blocks_are_compared_before_they_have_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, opened: Callable[[Path], np.ndarray]
) -> None:
    target = tmp_path / "s.bin"
    report = drain(scan(), "beam/scan1/proj", target, form=form)
    assert (report.blocks, report.bytes, report.compression) == (7, FRAMES.nbytes, "none")
    np.testing.assert_array_equal(opened(target), FRAMES)
    with pytest.raises(InvalidInput, match="as they are"):
        drain(scan(), "beam/scan1/proj", tmp_path / "t", form=form, compression="gzip")
    two = scan()
    two.add("dark", FRAMES, frame=FrameSpec("uint16", (120, 300)))
    with pytest.raises(InvalidInput, match="one stream"):
        drain(two, "beam/scan1", tmp_path / "t", form=form)
    monkeypatch.setattr(targets, "sync_tree", lambda path: flip(path, 100_000))
    with pytest.raises(BlockDamaged, match=r"block 1 .*read back"):
        drain(scan(), "beam/scan1/proj", tmp_path / "t", form=form)
    monkeypatch.setattr(targets, "sync_tree", lambda path: path.write_bytes(path.read_bytes() + b"x"))
    with pytest.raises(Damaged):
        drain(scan(), "beam/scan1/proj", tmp_path / "t", form=form)
    assert [path.name for path in tmp_path.iterdir()] == ["s.bin"]


def test_an_object_comes_out_as_it_was_put_in(tmp_path: Path) -> None:
    store = MemoryStore()
    store.add("packets", [b"abc", b"", b"defg"], frame=FrameSpec(None, ()))
    drain(store, "beam/scan1/packets", tmp_path / "p.tpx3", form="raw")
    assert (tmp_path / "p.tpx3").read_bytes() == b"abcdefg"
    with pytest.raises(InvalidInput, match="raw"):
        drain(store, "beam/scan1/packets", tmp_path / "p.npy")
