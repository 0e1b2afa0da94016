"""Data in and out by the command line: what goes in comes out, and what is wrong is said in one sentence."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest

import hiss as hiss_package
from hiss.cli.failure import exit_status
from hiss.errors import _classes

FRAMES = np.random.default_rng(5).integers(0, 60000, (7, 4, 6), np.uint16)


@pytest.fixture
def scan(hiss, outside: Path):
    """A buffer with the stream `beam/scan1/proj` of 7 frames."""
    with h5py.File("scan.h5", "w") as file:
        file["entry/data"] = FRAMES
        file["entry/angle"] = np.arange(7) * 0.5
    said = hiss("put", "scan.h5::entry/data", "beam/scan1/proj", "--column", "angle=entry/angle deg", "--attr", "n=3")
    assert said.status == 0, said.err
    return hiss


def test_what_was_put_is_told_by_ls_and_stat(scan) -> None:
    assert scan("ls", "--json").json["collections"][0]["path"] == "beam/scan1"
    stream = scan("ls", "beam/scan1", "--json").json["streams"][0]
    assert (stream["name"], stream["state"], stream["completeness"]["blocks"]) == ("proj", "sealed", 7)
    info = scan("stat", "beam/scan1/proj", "--json").json
    assert info["columns"] == [{"name": "angle", "dtype": "<f8", "unit": "deg"}]
    assert info["attrs"] == {"source_file": "scan.h5", "n": 3}
    assert "complete: 7 blocks" in scan("stat", "beam/scan1/proj").out
    assert "proj" in scan("ls", "beam/scan1").out
    assert "beam/scan1" in scan("ls", "beam").out


def test_get_gives_back_the_array(scan) -> None:
    assert scan("get", "beam/scan1/proj", "out.npy").status == 0
    np.testing.assert_array_equal(np.load("out.npy"), FRAMES)
    piped = scan("get", "beam/scan1/proj", "--start", "2", "--stop", "5")
    np.testing.assert_array_equal(np.load(BytesIO(piped.raw)), FRAMES[2:5])
    assert scan("get", "beam/scan1/proj", "--index", "6", "--format", "raw").raw == FRAMES[6].tobytes()
    assert scan("get", "beam/scan1/proj", "--newest", "--format", "raw").raw == FRAMES[6].tobytes()
    assert np.load(BytesIO(scan("get", "beam/scan1/proj", "--start", "50").raw)).shape == (0, 4, 6)


def test_get_does_not_overwrite_unless_told(scan) -> None:
    Path("out.npy").write_bytes(b"precious")
    assert scan("get", "beam/scan1/proj", "out.npy").status == 4
    assert Path("out.npy").read_bytes() == b"precious"
    assert scan("get", "beam/scan1/proj", "out.npy", "--force").status == 0
    np.testing.assert_array_equal(np.load("out.npy"), FRAMES)


def test_tail_shows_the_newest(scan) -> None:
    lines = scan("tail", "beam/scan1/proj", "-n", "2").out.splitlines()
    assert [line.split()[0] for line in lines] == ["5", "6"]
    assert "angle=3.0" in lines[1]
    assert scan("tail", "beam/scan1/proj", "-n", "0").out == ""
    assert len(scan("tail", "beam/scan1/proj", "-n", "100", "--json").out.splitlines()) == 7


@pytest.mark.parametrize(
    ("array", "options", "shape"),
    [
        (np.arange(24.0).reshape(2, 3, 4), (), [3, 4]),
        (np.arange(24.0).reshape(2, 3, 4), ("--whole",), [2, 3, 4]),
        (np.arange(6, dtype=np.int8).reshape(2, 3), (), [2, 3]),
        (np.arange(5, dtype=np.complex64), (), [5]),
        (np.float32(3), (), []),
    ],
)
def test_npy_files_become_blocks(hiss, array: np.ndarray, options: tuple[str, ...], shape: list[int]) -> None:
    np.save("a.npy", array)
    said = hiss("put", "a.npy", "c/a", "--json", *options)
    assert said.json["frame"]["shape"] == shape
    hiss("get", "c/a", "b.npy")
    np.testing.assert_array_equal(np.load("b.npy").reshape(array.shape), array)


def test_a_series_and_the_modules_of_a_detector(hiss, outside: Path) -> None:
    for number in range(4):
        np.save(f"f{9 + number}.npy", FRAMES[number])
    said = hiss("put", "f10.npy", "f9.npy", "f12.npy", "f11.npy", "c/m1", "--join", "det", "--json")
    assert said.json["completeness"]["blocks"] == 4
    hiss("get", "c/m1", "b.npy")
    np.testing.assert_array_equal(np.load("b.npy"), FRAMES[:4])
    np.savez("two.npz", m2=FRAMES[:4], m3=FRAMES[:4])
    assert [info["name"] for info in hiss("put", "two.npz", "c/", "--join", "det", "--json").json] == ["m2", "m3"]
    with hiss_package.open(outside.parent / "data") as buffer:
        assert [module.path for module in buffer["c"].join("det").modules] == ["c/m1", "c/m2", "c/m3"]


def test_any_file_is_bytes(hiss) -> None:
    content = bytes(range(256)) * 33
    Path("packets.tpx3").write_bytes(content)
    assert hiss("put", "packets.tpx3", "c/packets").status == 0
    assert hiss("get", "c/packets").raw == content


def test_drain_writes_a_nexus_file(scan) -> None:
    report = scan("drain", "beam/scan1", "scan.nxs", "--json").json
    assert (report["blocks"], report["bytes"]) == (7, FRAMES.nbytes)
    with h5py.File("scan.nxs") as file:
        np.testing.assert_array_equal(file["entry/proj/data"], FRAMES)
    assert scan("drain", "beam/scan1", "scan.nxs").status == 4
    assert scan("drain", "beam/scan1/proj", "scan.nxs", "--force").status == 0


def test_seal_and_rm(scan, outside: Path) -> None:
    with hiss_package.open(outside.parent / "data") as buffer:
        stream = buffer.collection("beam/scan1").create_stream("late", dtype="u1", shape=(3,))
        stream.append(np.zeros(3, np.uint8))
        stream.detach()
    assert scan("seal", "beam/scan1").status == 4
    sealed = scan("seal", "beam/scan1/late", "--end-index", "3", "--json").json
    assert (sealed["state"], sealed["completeness"]["gaps"]) == ("sealed", 2)
    assert "1 to 2: never received" in scan("stat", "beam/scan1/late").out
    assert scan("seal", "beam/scan1").status == 0
    assert "stream.sealed" in scan("events").out
    assert scan("events", "--kind", "collection.sealed", "--json").out.count("\n") == 1
    assert scan("rm", "beam/scan1/late", input="n\n").status == 1
    assert scan("rm", "beam/scan1/late", "--yes").status == 0
    assert scan("stat", "beam/scan1/late").status == 3
    assert scan("rm", "beam/scan1", "--yes").status == 0
    assert scan("ls", "--json").json["collections"] == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("stat", "beam/none"), 3, "beam/none"),
        (("ls", "nowhere"), 3, "nowhere"),
        (("get", "beam/scan1/proj", "--index", "99"), 3, "indices go from 0 to 6"),
        (("put", "missing.npy", "c/s"), 2, "no such file"),
        (("put", "scan.h5::entry/none", "c/s"), 2, "entry/data"),
        (("put", "scan.h5::entry/data", "c/s", "--column", "a=entry/data"), 2, "one value for each"),
        (("put", "scan.h5", "c/s", "--bytes", "--column", "a=entry/data"), 2, "FILE::DATASET"),
        (("put", "scan.h5::entry/data", "no-collection"), 2, "COLLECTION/STREAM"),
        (("put", "scan.h5::entry/data", "beam/scan1/proj"), 4, "exists"),
        (("put", "scan.h5::entry/data", "c/s", "--attr", "novalue"), 2, "KEY=VALUE"),
        (("drain", "beam/none", "x.nxs"), 3, "beam/none"),
        (("drain", "beam/scan1", "no/such/x.nxs"), 2, "no directory"),
        (("kernel", "show", "nothing"), 3, "nothing"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_a_status(scan, words: tuple[str, ...], status: int, said: str) -> None:
    found = scan(*words)
    assert found.status == status
    assert said in found.err
    assert found.err.startswith("error: ")
    assert "Traceback" not in found.err


def test_errors_are_json_where_that_was_asked_for(scan) -> None:
    import json

    found = json.loads(scan("stat", "beam/none", "--json").err)
    assert found["error"] == "NotFound"
    assert "beam/none" in found["message"]


def test_no_server_is_said_plainly(hiss) -> None:
    found = hiss("ls", "--address", "127.0.0.1:1", embedded=False)
    assert found.status == 5
    assert "127.0.0.1:1" in found.err


def test_every_kind_of_error_has_a_status() -> None:
    from hiss.errors import HissError

    bare = [kind for kind in _classes(HissError).values() if exit_status(kind("x")) == 1]
    assert bare == [HissError]


def test_consumer_groups_are_shown_and_removed(hiss) -> None:
    np.save("frames.npy", np.zeros((4, 2, 2), "u1"))
    assert hiss("put", "frames.npy", "c/s").status == 0
    with hiss_package.open(Path("..") / "data") as buffer, buffer["c/s"].share("fit") as share:
        assert next(share).done()
        next(share)
        (found,) = buffer.store.consumer_groups(buffer["c/s"].info.id)
        assert (found.name, found.acknowledged, found.held, found.left, found.members) == ("fit", 1, 1, 3, 1)
    said = hiss("group", "ls", "c/s")
    assert said.out.split() == ["GROUP", "ACKNOWLEDGED", "HELD", "LEFT", "MEMBERS", "fit", "1", "0", "3", "0"]
    assert hiss("group", "rm", "c/s", "fit").out == "fit: removed from c/s\n"
    assert hiss("group", "ls", "c/s", "--json").json == []
    assert hiss("group", "rm", "c/s", "fit").status == 3
