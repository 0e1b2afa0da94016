"""One data directory: what is appended is read, by range, by arrival, after a restart, until it is deleted."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import xxhash

from hiss import limits
from hiss.blocks import Storage, StorageOptions
from hiss.errors import (
    BlockConflict,
    BlockDamaged,
    CatalogDamaged,
    DataDirectoryLocked,
    InvalidInput,
    SpecMismatch,
    Stopping,
    StreamNotFound,
)
from hiss.extent import Extent
from hiss.model import BlockStatus, Completeness, StreamState

from .bench_log import Outcome, block_bytes, make_extent, stream_info
from .conftest import OPTIONS


def append(storage: Storage, info, blocks, status=None) -> None:
    outcome = Outcome()
    storage.append(info.id, make_extent(info, blocks, status), outcome)
    assert outcome.wait() is None


def read(storage: Storage, info, *range_) -> dict[int, bytes]:
    return {
        int(index): bytes(extent.data[start:stop])
        for extent in storage.read(info.id, *range_)
        for index, start, stop in zip(extent.index, extent.offsets[:-1], extent.offsets[1:], strict=True)
    }


def expected(info, blocks) -> dict[int, bytes]:
    return {index: block_bytes(info.id, index, size) for index, size in blocks}


def test_what_is_appended_is_read_with_all_its_properties(opened):
    info = opened.stream()
    extent = make_extent(info, [(5, 10), (6, 4000), (8, 0)])
    outcome = Outcome()
    opened.storage.append(info.id, extent, outcome)
    for storage in (opened.storage, None):
        if storage is None:
            assert outcome.wait() is None
            storage = opened.again()
            assert storage.recovery.blocks == 3
        (found,) = storage.read(info.id)
        for name in (
            "index",
            "time_ns",
            "received_ns",
            "length",
            "digest",
            "source_digest",
            "status",
            "cause",
            "columns",
            "data",
        ):
            assert getattr(found, name).tobytes() == getattr(extent, name).tobytes(), name
        assert found.columns.dtype == info.columns_dtype


def test_ranges_and_steps_are_those_of_a_list(opened):
    info = opened.stream()
    rng = random.Random(3)
    blocks = [(index, rng.randint(0, 50)) for index in range(7, 90) if index % 11]
    cuts = sorted(rng.sample(range(1, len(blocks)), 9))
    parts = [blocks[a:b] for a, b in zip([0, *cuts], [*cuts, len(blocks)], strict=True)]
    rng.shuffle(parts)
    vetoed = {index: int(BlockStatus.VETOED) for index in range(30, 60, 7)}
    for part in parts:
        append(opened.storage, info, part, vetoed)
    stored = [block for block in blocks if block[0] not in vetoed]
    assert read(opened.storage, info) == expected(info, stored)
    for start in (None, 0, 7, 8, 31, 89, 200):
        for stop in (None, 0, 8, 31, 90, 200):
            for step in (1, 2, 5, 100):
                base = 7 if start is None else start
                wanted = range(base, 1000 if stop is None else stop, step)
                found = read(opened.storage, info, start, stop, step)
                assert list(found) == [index for index, _ in stored if index in wanted], (start, stop, step)
    with pytest.raises(InvalidInput, match="step"):
        opened.storage.read(info.id, step=0)


def test_small_blocks_come_many_in_an_extent_and_large_ones_within_bounds(opened, monkeypatch):
    monkeypatch.setattr("hiss.blocks.extent_reader.EXTENT_BYTES_TARGET", 10_000)
    monkeypatch.setattr("hiss.blocks.extent_reader.EXTENT_BLOCKS_MAX", 40)
    info = opened.stream()
    blocks = [(k, 10) for k in range(100)] + [(100 + k, 4000) for k in range(7)] + [(107, 30_000)]
    for k in range(0, len(blocks), 3):
        append(opened.storage, info, blocks[k : k + 3])
    extents = list(opened.storage.read(info.id))
    assert all(len(extent) <= 40 for extent in extents)
    assert all(extent.data.size <= 10_000 or len(extent) == 1 for extent in extents)
    assert len(extents) == 7
    assert read(opened.storage, info) == expected(info, blocks)


def test_newest_and_arrivals(opened):
    info = opened.stream()
    assert opened.storage.newest(info.id) is None
    assert opened.storage.arrivals(info.id, 0) == ([], 0)
    assert not opened.storage.wait_arrival(info.id, 0, 0.0)
    append(opened.storage, info, [(10, 3), (11, 4)])
    append(opened.storage, info, [(2, 5), (3, 6)], {3: int(BlockStatus.VETOED)})
    append(opened.storage, info, [(12, 0)], {12: int(BlockStatus.SHED)})
    newest = opened.storage.newest(info.id)
    assert newest is not None
    assert newest.index.tolist() == [11]
    assert bytes(newest.data) == block_bytes(info.id, 11, 4)
    extents, cursor = opened.storage.arrivals(info.id, 0)
    assert [extent.index.tolist() for extent in extents] == [[10, 11], [2, 3], [12]]
    assert [extent.status.tolist() for extent in extents] == [[0, 0], [0, 1], [3]]
    assert opened.storage.arrivals(info.id, cursor) == ([], cursor)
    seen = []
    waiter = threading.Thread(target=lambda: seen.append(opened.storage.wait_arrival(info.id, cursor, 60)))
    waiter.start()
    append(opened.storage, info, [(13, 1)])
    waiter.join(60)
    assert seen == [True]
    assert [extent.index.tolist() for extent in opened.storage.arrivals(info.id, cursor)[0]] == [[13]]


def test_arrivals_are_bounded(opened, monkeypatch):
    monkeypatch.setattr(limits, "EXTENT_BYTES_TARGET", 10_000)
    info = opened.stream()
    for k in range(12):
        append(opened.storage, info, [(k, 3000)])
    cursor, got = 0, []
    while True:
        extents, after = opened.storage.arrivals(info.id, cursor)
        if after == cursor:
            break
        assert len(extents) <= 4
        got += [index for extent in extents for index in extent.index.tolist()]
        cursor = after
    assert got == list(range(12))


@pytest.mark.parametrize("seed", range(6))
def test_the_digest_of_a_stream_does_not_depend_on_how_it_was_cut(opened, seed):
    rng = random.Random(seed)
    one, two = opened.stream("one"), opened.stream("two")
    blocks = [(index, rng.randint(1, 60)) for index in range(50)]
    vetoed = {index: int(BlockStatus.VETOED) for index in range(0, 50, 9)}
    payload = {index: bytes(rng.randbytes(size)) for index, size in blocks}

    def put(info, part) -> None:
        extent = make_extent(info, part, vetoed)
        data = np.frombuffer(b"".join(payload[i] for i, _ in part if i not in vetoed), np.uint8)
        fresh = Extent.of(extent.index, data, extent.length, columns=extent.columns, status=extent.status)
        opened.storage.append(info.id, fresh, lambda error: None)

    put(one, blocks)
    cuts = sorted(rng.sample(range(1, 50), 6))
    parts = [blocks[a:b] for a, b in zip([0, *cuts], [*cuts, 50], strict=True)]
    if seed % 2:
        rng.shuffle(parts)
    for part in parts:
        put(two, part)
    digest = opened.storage.stream_digest(one.id)
    assert len(digest) == 16
    assert opened.storage.stream_digest(two.id) == digest
    storage = opened.again()
    assert storage.stream_digest(one.id) == storage.stream_digest(two.id) == digest
    put_more = make_extent(two, [(60, 5)])
    storage.append(two.id, put_more, lambda error: None)
    assert storage.stream_digest(two.id) != digest


def test_the_digest_of_nothing():
    assert f"{xxhash.xxh3_64_intdigest(b''):016x}" == "2d06800538d394c2"


def test_wrong_extents_are_refused_and_leave_nothing(opened):
    info = opened.stream()
    append(opened.storage, info, [(1, 5)])
    good = make_extent(info, [(2, 5)])
    with pytest.raises(BlockConflict, match="block 1"):
        opened.storage.append(info.id, make_extent(info, [(1, 5), (2, 5)]), lambda error: None)
    with pytest.raises(SpecMismatch, match="columns"):
        opened.storage.append(info.id, replace(good, columns=np.zeros(1, [("x", "<i2")])), lambda error: None)
    with pytest.raises(InvalidInput, match="lengths"):
        opened.storage.append(info.id, replace(good, data=good.data[:-1]), lambda error: None)
    with pytest.raises(StreamNotFound):
        opened.storage.append("0" * 32, good, lambda error: None)
    assert read(opened.storage, info) == expected(info, [(1, 5)])


def test_completeness_of_an_open_stream(opened):
    info = opened.stream()
    assert opened.storage.completeness(info.id, None, []) == Completeness(0, 0, 0, None, None)
    assert opened.storage.completeness(info.id, 4, []).gaps == 4
    append(opened.storage, info, [(3, 5), (4, 6), (7, 7)], {4: int(BlockStatus.VETOED)})
    whole = opened.storage.completeness(info.id, 10, ["enough"])
    assert (whole.blocks, whole.bytes, whole.gaps, whole.first_index, whole.last_index) == (2, 12, 5, 3, 9)
    assert [(entry.first, entry.last, entry.stage, entry.reason) for entry in whole.ledger] == [
        (4, 4, "enough", "vetoed"),
        (5, 6, "transport", "never received"),
        (8, 9, "transport", "never received"),
    ]


def test_a_deleted_stream_frees_its_space_and_readers_are_told(opened):
    keep, gone = opened.stream("keep"), opened.stream("gone")
    append(opened.storage, keep, [(0, 5)])
    for k in range(12):
        append(opened.storage, gone, [(k, 500_000)])
    before = opened.storage.usage()
    reader = opened.storage.read(gone.id)
    opened.storage.delete(gone.id)
    opened.storage.delete(gone.id)
    with pytest.raises(StreamNotFound):
        list(reader)
    with pytest.raises(StreamNotFound):
        opened.storage.read(gone.id)
    assert opened.storage.usage().live_bytes < before.live_bytes - 12 * 500_000
    for k in range(12):
        append(opened.storage, keep, [(1 + k, 500_000)])
    assert opened.storage.usage().segments <= before.segments + 1, "its segments were used again"
    storage = opened.again()
    assert set(read(storage, keep)) == set(range(13))
    assert not storage.recovery.damages


def test_a_directory_is_open_once(opened):
    with pytest.raises(DataDirectoryLocked, match="another process"):
        Storage(opened.directory, OPTIONS)
    code = f"from hiss.blocks import Storage; from pathlib import Path; Storage(Path({str(opened.directory)!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode
    assert "DataDirectoryLocked" in found.stderr
    opened.again()


def test_a_closed_storage_says_so(opened):
    info = opened.stream()
    append(opened.storage, info, [(1, 5)])
    opened.storage.close()
    opened.storage.close()
    with pytest.raises(Stopping):
        opened.storage.append(info.id, make_extent(info, [(2, 5)]), lambda error: None)
    with pytest.raises(Stopping):
        list(opened.storage.read(info.id))
    with pytest.raises(Stopping):
        opened.storage.catalog.collections()


def test_a_damaged_catalog_is_named_and_nothing_is_changed(opened):
    info = opened.stream()
    append(opened.storage, info, [(1, 5)])
    opened.storage.close()
    path = opened.directory / "catalog.db"
    good = path.read_bytes()
    for bad in (b"this is no database" * 300, good[:3000], good[:4096] + bytes(len(good) - 4096)):
        path.write_bytes(bad)
        with pytest.raises(CatalogDamaged, match=r"catalog\.db") as caught:
            Storage(opened.directory, OPTIONS)
        assert caught.value.details["path"] == str(path)
        assert path.read_bytes() == bad
    path.unlink()
    with pytest.raises(CatalogDamaged, match="put it back"):
        Storage(opened.directory, OPTIONS)
    assert not path.exists()
    path.write_bytes(good)
    opened.storage = Storage(opened.directory, OPTIONS)
    assert read(opened.storage, info) == expected(info, [(1, 5)])


def test_another_buffers_catalog_is_refused(opened, tmp_path):
    info = opened.stream()
    append(opened.storage, info, [(1, 5)])
    opened.storage.close()
    Storage(tmp_path / "other", OPTIONS).close()
    (opened.directory / "catalog.db").write_bytes((tmp_path / "other" / "catalog.db").read_bytes())
    with pytest.raises(CatalogDamaged, match="belongs to buffer"):
        Storage(opened.directory, OPTIONS)


def test_a_newer_format_is_refused(opened):
    opened.storage.close()
    with sqlite3.connect(opened.directory / "catalog.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(CatalogDamaged, match="version 99"):
        Storage(opened.directory, OPTIONS)


def test_a_damaged_block_of_a_sealed_stream_is_named_and_the_others_are_read(opened):
    info = opened.stream()
    blocks = [(k, 5000) for k in range(10)]
    for k in range(0, 10, 2):
        append(opened.storage, info, blocks[k : k + 2])
    whole = opened.storage.completeness(info.id, None, [])
    digest = opened.storage.stream_digest(info.id)
    opened.storage.catalog.finalise([info.id], StreamState.SEALED, {info.id: whole}, {info.id: digest})
    opened.storage.close()
    (path,) = (opened.directory / "segments").glob("*.seg")
    data = bytearray(path.read_bytes())
    data[data.index(block_bytes(info.id, 5, 5000)) + 77] ^= 1
    path.write_bytes(data)
    storage = opened.storage = Storage(opened.directory, OPTIONS)
    with pytest.raises(BlockDamaged, match="block 5 ") as caught:
        list(storage.read(info.id))
    assert caught.value.details["index"] == "5"
    assert set(read(storage, info, 0, 5)) == {0, 1, 2, 3, 4}
    assert set(read(storage, info, 6)) == {6, 7, 8, 9}
    assert storage.stream_digest(info.id) == digest


def test_options_are_checked():
    for wrong in (
        {"arena_bytes": 10},
        {"segment_bytes": 10},
        {"segment_bytes": (1 << 20) + 1},
        {"unsynced_bytes_max": 0},
        {"space_wait_s": -1},
    ):
        with pytest.raises(InvalidInput):
            StorageOptions(**wrong)
    default = StorageOptions()
    assert limits.ARENA_BYTES_MIN <= default.arena_bytes <= limits.ARENA_BYTES_DEFAULT


def test_readers_and_deletes_side_by_side(opened):
    """Readers of a stream that is deleted and written over get its blocks, or are told; never others."""
    failures: list[BaseException] = []
    stop = threading.Event()

    def follow(info) -> None:
        try:
            while not stop.is_set():
                for index, data in read(opened.storage, info).items():
                    assert data == block_bytes(info.id, index, 60_000)
        except StreamNotFound:
            pass
        except BaseException as error:
            failures.append(error)

    for round_ in range(6):
        info = opened.stream(f"r{round_}")
        append(opened.storage, info, [(k, 60_000) for k in range(10)])
        readers = [threading.Thread(target=follow, args=(info,)) for _ in range(3)]
        for reader in readers:
            reader.start()
        for k in range(10, 30, 5):
            append(opened.storage, info, [(k + j, 60_000) for j in range(5)])
        opened.storage.delete(info.id)
        other = opened.stream(f"o{round_}")
        append(opened.storage, other, [(k, 60_000) for k in range(40)])
        stop.set()
        for reader in readers:
            reader.join(60)
        stop.clear()
        opened.storage.delete(other.id)
    assert not failures, failures[0]


def test_stream_info_of_a_test_is_one_of_a_stream():
    assert stream_info().columns_dtype.itemsize == 8
