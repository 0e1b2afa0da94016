"""Bytes of the catalog that go bad, or are missing: the storage says so, or serves what was stored.

SQLite has no digests of its pages. What is promised whatever became of the catalog is that no block is served whose
bytes are not those that were sent, that nothing dies of anything but an error of ours, and that nothing was changed
where the directory was refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from hiss.blocks import Storage
from hiss.errors import HissError
from hiss.model import StreamState

from .bench_log import Outcome, block_bytes, make_extent, stream_info
from .conftest import OPTIONS

MASKS = (0x01, 0x80, 0xFF)
BLOCKS = [(0, 10), (1, 700), (5, 3000)]


class Buffer:
    """A small closed buffer with a sealed and an open stream, and copies of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.good, self.copy = folder, folder / "good", folder / "copy"
        storage = Storage(self.good, OPTIONS)
        storage.catalog.create_collection("test/run", {"sample": "foam"}, [])
        self.ids = []
        for name in ("sealed", "open"):
            (info,) = storage.catalog.add_streams([stream_info(name)], new_version=False, attempt=None)
            outcome = Outcome()
            storage.append(info.id, make_extent(info, BLOCKS), outcome)
            assert outcome.wait() is None
            self.ids.append(info.id)
        whole = storage.completeness(self.ids[0], None, [])
        digest = storage.stream_digest(self.ids[0])
        ids = self.ids[:1]
        storage.catalog.finalise(ids, StreamState.SEALED, {ids[0]: whole}, {ids[0]: digest})
        storage.close()
        self.catalog = (self.good / "catalog.db").read_bytes()
        shutil.copytree(self.good, self.copy)

    def used(self) -> list[int]:
        return [place for place, byte in enumerate(self.catalog) if byte]

    def try_out(self, catalog: bytes) -> str:
        """What is served of the blocks where the catalog is this one.

        `refused`, `good`, `reported` where blocks are missing and it says so, `less` where it does not.
        """
        path = self.copy / "catalog.db"
        path.write_bytes(catalog)
        for name in ("catalog.db-wal", "catalog.db-shm"):
            (self.copy / name).unlink(missing_ok=True)
        try:
            storage = Storage(self.copy, OPTIONS)
        except HissError:
            return "refused"
        self.told = False
        try:
            if sum(self.served(storage, stream_id) for stream_id in self.ids) == len(self.ids) * len(BLOCKS):
                return "good"
            report = storage.recovery
            return "reported" if self.told or report.damages_count or report.stray_records else "less"
        finally:
            storage.close()
            self.put_back()

    def served(self, storage: Storage, stream_id: str) -> int:
        count = 0
        try:
            for extent in storage.read(stream_id):
                for row, index in enumerate(extent.index.tolist()):
                    data = bytes(extent.data[extent.offsets[row] : extent.offsets[row + 1]])
                    assert data == block_bytes(stream_id, index, dict(BLOCKS)[index]), "wrong bytes were served"
                    count += 1
        except HissError:
            self.told = True
        return count

    def put_back(self) -> None:
        for path in (self.good / "segments").iterdir():
            shutil.copyfile(path, self.copy / "segments" / path.name)


@pytest.fixture
def buffer(memory_dir: Path) -> Buffer:
    return Buffer(memory_dir)


def flips(buffer: Buffer, places: Iterable[int], tally) -> None:
    outcomes = {"refused": 0, "good": 0, "reported": 0, "less": 0}
    for place in places:
        for mask in MASKS:
            bad = bytearray(buffer.catalog)
            bad[place] ^= mask
            outcomes[buffer.try_out(bytes(bad))] += 1
    assert outcomes["refused"] > 0
    assert not outcomes["less"], "blocks are missing, and nothing says so"
    tally("flips of the catalog", None, flips=sum(outcomes.values()), **outcomes)


def test_no_flipped_byte_of_the_catalog_makes_a_wrong_block(buffer, tally):
    used = buffer.used()
    flips(buffer, [*range(0, 100, 7), *used[:: max(1, len(used) // 60)]], tally)


@pytest.mark.torture
@pytest.mark.parametrize("part", range(20))
def test_no_flipped_byte_of_the_catalog_makes_a_wrong_block_at_length(buffer, tally, part):
    flips(buffer, buffer.used()[part::20], tally)


def test_a_truncated_catalog_is_refused_or_serves_nothing_wrong(buffer, tally):
    outcomes = [buffer.try_out(buffer.catalog[:cut]) for cut in range(512, len(buffer.catalog), 2048)]
    assert outcomes.count("refused") > len(outcomes) // 2
    assert buffer.try_out(buffer.catalog) == "good"
    tally("flips of the catalog", None, truncations=len(outcomes))
