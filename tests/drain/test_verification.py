"""What a verification promises: whatever is not as it was written is named, the rest is still read and compared."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from memory_store import MemoryStore

import hiss
from hiss.drain import drain, verify_file, verify_streams
from hiss.drain.contents import object_digests
from hiss.errors import Damaged, HissError, InvalidInput, NotFound
from hiss.limits import MiB
from hiss.model import FrameSpec, LedgerEntry

FRAMES = np.random.default_rng(3).integers(0, 60000, (9, 120, 300), np.uint16)  # 72 kB: a chunk each
PACKETS = [b"abc", b"", b"defghi", b"j"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return drained(tmp_path, "gzip")


def drained(folder: Path, compression: str) -> Path:
    store = MemoryStore(attrs={"title": "a scan"})
    ledger = (LedgerEntry(4, 4, "transport", "never received"),)
    store.add("proj", FRAMES, frame=FrameSpec("uint16", (120, 300)), index=[0, 1, 2, 3, 5, 6, 7, 8, 9],
              columns={"angle": ("f8 deg", range(9))}, attrs={"sample": "foam"}, ledger=ledger)  # fmt: skip
    store.add("packets", PACKETS, frame=FrameSpec(None, ()))
    drain(store, "beam/scan1", folder / "scan.nxs", compression=compression)
    return folder / "scan.nxs"


def flip(file: Path, position: int, bit: int = 1) -> None:
    with file.open("r+b") as raw:
        raw.seek(position)
        value = raw.read(1)[0]
        raw.seek(position)
        raw.write(bytes([value ^ bit]))


def test_a_file_is_checked_by_itself(file: Path) -> None:
    found = verify_file(file)
    assert found.ok
    assert (found.blocks, found.bytes) == (13, FRAMES.nbytes + 10)
    assert [(stream.path, stream.blocks) for stream in found.streams] == [
        ("beam/scan1/packets", 4),
        ("beam/scan1/proj", 9),
    ]
    assert "all good" in str(found)


@pytest.mark.parametrize("compression", ["none", "gzip", "auto"])
@pytest.mark.parametrize("place", range(9))
def test_one_flipped_bit_names_its_block_and_no_other(tmp_path: Path, compression: str, place: int) -> None:
    file = drained(tmp_path, compression)
    with h5py.File(file) as opened:
        chunk = opened["entry/proj/data"].id.get_chunk_info(place)
        row = chunk.chunk_offset[0]
        index = int(opened["entry/proj/index"][row])
    flip(file, chunk.byte_offset + chunk.size // 2, 1 << (place % 8))
    found = verify_file(file)
    damage = {stream.path: [(one.first, one.last) for one in stream.damage] for stream in found.streams}
    assert damage == {"beam/scan1/proj": [(index, index)], "beam/scan1/packets": []}
    assert found.blocks == 12
    assert f"block {index}" in str(found)


def test_wherever_a_bit_flips_a_file_that_is_good_says_the_same_as_before(file: Path) -> None:
    content = file.read_bytes()
    with h5py.File(file) as opened:
        before = object_digests(opened, [])
    outcomes = []
    for position in range(11, len(content), len(content) // 60):
        flip(file, position, 1 << (position % 8))
        try:
            good = verify_file(file).ok
        except HissError as error:
            assert isinstance(error, Damaged | InvalidInput)  # noqa: PT017
            good = False
        if good:
            with h5py.File(file) as opened:
                assert object_digests(opened, []) == before, position
        outcomes.append(good)
        file.write_bytes(content)
    assert not all(outcomes)


@pytest.mark.parametrize(
    ("path", "value"), [("entry/proj/angle", 3.5), ("entry/hiss/proj/block_digest", 1), ("entry/packets/offset", 1)]
)
def test_what_else_was_changed_is_named(file: Path, path: str, value: float) -> None:
    with h5py.File(file, "r+") as opened:
        opened[path][2] = value
    found = verify_file(file)
    assert not found.ok
    assert f"/{path}" in found.changed


def test_changed_and_lost_attributes_are_named_and_additions_are_none(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["entry"].create_group("notes").attrs["author"] = "somebody later"
        opened["entry/proj/angle"].attrs["units"] = "rad"
        del opened["entry/proj/attributes/sample"]
    found = verify_file(file)
    assert set(found.changed) == {"/entry/proj/angle", "/entry/proj/attributes/sample"}
    assert found.blocks == 13


def test_what_is_no_drained_file_says_so(tmp_path: Path, file: Path) -> None:
    with pytest.raises(NotFound):
        verify_file(tmp_path / "none.nxs")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = 1
    with pytest.raises(InvalidInput, match="hiss drain"):
        verify_file(tmp_path / "other.h5")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(Damaged, match="cannot be opened"):
        verify_file(file)


def test_a_buffer_is_read_through_beyond_what_is_damaged(tmp_path: Path) -> None:
    with hiss.open(tmp_path / "buffer", backend="numpy", segment_bytes=16 * MiB, arena_bytes=16 * MiB) as buffer:
        scan = buffer.collection("beam/scan1")
        for name in ("proj", "other"):
            with scan.create_stream(name, dtype="uint16", shape=(120, 300)) as stream:
                stream.extend(FRAMES)
        infos = buffer.store.streams("beam/scan1")
        assert verify_streams(buffer.store, "buffer", infos).ok
        for place in (2, 3, 7):
            needle = FRAMES[place].tobytes()
            segment, position = next(
                (path, found)
                for path in sorted((tmp_path / "buffer").rglob("*"))
                if path.is_file() and (found := path.read_bytes().find(needle)) >= 0
            )
            flip(segment, position + 1000)
        found = verify_streams(buffer.store, "buffer", infos)
        damage = {stream.path: [one.first for one in stream.damage] for stream in found.streams}
        assert damage == {"beam/scan1/proj": [2, 3, 7], "beam/scan1/other": []}
        assert [stream.blocks for stream in found.streams] == [6, 9]
        assert found.bytes == 15 * FRAMES[0].nbytes
