"""`hiss verify` by the command line: a report, and a status that a script can ask for."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hiss.testing.processes import DataProcess

FRAMES = np.random.default_rng(5).integers(0, 60000, (5, 4, 6), np.uint16)


@pytest.fixture
def scan(hiss):
    """A buffer with the streams `beam/scan1/a` and `beam/scan2/b`, and the file `scan.nxs` of the first."""
    np.save("frames.npy", FRAMES)
    for path in ("beam/scan1/a", "beam/scan2/b"):
        assert hiss("put", "frames.npy", path).status == 0
    assert hiss("drain", "beam/scan1", "scan.nxs").status == 0
    return hiss


def test_a_file_needs_no_buffer(scan) -> None:
    said = scan("verify", "scan.nxs", "--json", embedded=False)
    assert said.status == 0
    assert (said.json["ok"], said.json["blocks"]) == (True, 5)
    assert "all good" in scan("verify", "scan.nxs", embedded=False).out


def test_damage_is_named_and_has_a_status_of_its_own(scan) -> None:
    with h5py.File("scan.nxs", "r+") as file:
        file["entry/a/data"][3, 2, 2] ^= 1
    said = scan("verify", "scan.nxs", embedded=False)
    assert said.status == 7
    assert "beam/scan1/a: block 3" in said.out
    assert scan("verify", "scan.nxs", "--json", embedded=False).json["streams"][0]["damage"][0]["first"] == 3


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ((), ["beam/scan1/a", "beam/scan2/b"]),
        (("beam",), ["beam/scan1/a", "beam/scan2/b"]),
        (("beam/scan1",), ["beam/scan1/a"]),
        (("beam/scan2/b", "--version", "1"), ["beam/scan2/b"]),
    ],
)
def test_a_buffer_is_verified_as_far_as_it_is_named(scan, words: tuple[str, ...], paths: list[str]) -> None:
    said = scan("verify", *words, "--json")
    assert said.status == 0
    assert [stream["path"] for stream in said.json["streams"]] == paths
    assert said.json["bytes"] == len(paths) * FRAMES.nbytes


def test_what_is_not_there_is_said(scan) -> None:
    said = scan("verify", "beam/none")
    assert (said.status, "hiss ls" in said.err) == (3, True)
    Path("other.h5").write_bytes(b"no HDF5")
    assert scan("verify", "other.h5", embedded=False).status == 7


def test_a_directory_of_zarr_is_drained_and_verified(scan) -> None:
    pytest.importorskip("zarr", reason="zarr is not installed: pip install 'hiss[zarr]'")
    assert scan("drain", "beam/scan1", "scan.zarr", "--json").json["blocks"] == 5
    assert scan("verify", "scan.zarr", embedded=False).status == 0
    (Path("scan.zarr") / "a" / "zarr.json").write_text("{}")
    said = scan("verify", "scan.zarr", embedded=False)
    assert (said.status, "a/zarr.json" in said.out) == (7, True)


def test_a_live_server_is_verified_from_its_disk(hiss, tmp_path: Path) -> None:
    """What has just been written is still in the server's memory; the damage is on the disk, and is found there."""
    (tmp_path / "served").mkdir()
    with DataProcess(tmp_path / "served") as server:
        with server.connect() as buffer, buffer.collection("c").create_stream("s", dtype="u2", shape=(300, 400)) as s:
            frames = np.random.default_rng(3).integers(0, 60000, (6, 300, 400), np.uint16)
            s.extend(frames)
        at = ("--address", server.config.address)
        good = hiss("verify", "c/s", *at, "--json", embedded=False)
        assert (good.status, good.json["blocks"]) == (0, 6)
        needle = frames[4].tobytes()
        for segment in sorted((tmp_path / "served" / "segments").iterdir()):
            place = segment.read_bytes().find(needle)
            if place >= 0:
                with segment.open("r+b") as file:
                    file.seek(place + 7)
                    file.write(bytes([needle[7] ^ 1]))
        said = hiss("verify", "c/s", *at, "--json", embedded=False)
        assert said.status == 7
        assert [damage["first"] for damage in said.json["streams"][0]["damage"]] == [4]
        assert said.json["blocks"] == 5
