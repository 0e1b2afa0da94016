"""Streams as files of fsspec, on a real server: names, reading at any place, writing, and what other libraries make of
them."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import dask.bytes
import fsspec
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiss import errors, limits
from hiss.client import Buffer
from hiss.limits import KiB
from hiss.model import Selection, StreamState
from hiss.testing.conformance import double, frames
from hiss.views.cache import MEMORY, DiskCache, MemoryCache, Piece
from hiss.views.content import Content
from hiss.views.source import Source, parse_url


@pytest.fixture
def fs(served: Any) -> Any:
    return fsspec.filesystem("hiss", address=served.address, token=served.token)


def put(buffer: Buffer, path: str, parts: list[bytes]) -> None:
    collection, _, name = path.rpartition("/")
    with buffer.collection(collection).create_stream(name, new_version=True) as s:
        for part in parts:
            s.append(part)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Selection]:
    """What the server is asked to read: blocks with their bytes."""
    from hiss.transport.remote import RemoteStore

    asked: list[Selection] = []
    read = RemoteStore.read

    def counted(store: RemoteStore, stream_id: str, selection: Selection) -> Any:
        if selection.data:
            asked.append(selection)
        return read(store, stream_id, selection)

    monkeypatch.setattr(RemoteStore, "read", counted)
    return asked


# ---- names


def test_collections_are_directories_and_streams_are_files(buffer: Buffer, fs: Any) -> None:
    put(buffer, "beam/scan/raw", [b"abc", b"", b"de"])
    scan = buffer.collection("beam/scan")
    with scan.create_stream("proj", dtype="<u2", shape=(4, 6)) as s:
        s.extend(frames(3))
    with scan.create_stream("events", dtype="<u4", shape=(None,)) as s:
        s.append(np.arange(5, dtype="<u4"))
    buffer.collection("beam/scan/deeper/still")
    assert fs.ls("/", detail=False) == ["/beam"]
    assert fs.ls("hiss://somewhere/beam", detail=False) == ["/beam/scan"]
    names = ["/beam/scan/deeper", "/beam/scan/events", "/beam/scan/proj.npy", "/beam/scan/raw"]
    assert sorted(fs.ls("beam/scan", detail=False)) == names
    assert sorted(fs.find("/beam")) == names[1:]
    assert fs.glob("/beam/*/proj*") == ["/beam/scan/proj.npy"]
    sizes = {each["name"]: each["size"] for each in fs.ls("/beam/scan")}
    assert sizes == {names[0]: 0, names[1]: 20, names[2]: 128 + 3 * 48, names[3]: 5}
    assert fs.isdir("/beam")
    assert fs.isdir("/")
    assert fs.isfile("/beam/scan/raw")
    assert not fs.exists("/beam/scan/raw.npy"), "bytes without a dtype are no array"
    assert fs.cat("/beam/scan/proj") == frames(3).tobytes(), "by its bare name a stream is its blocks"
    assert fs.cat("/beam/scan/events") == np.arange(5, dtype="<u4").tobytes()
    assert fs.info("/beam/scan/raw")["digest"] == buffer["beam/scan/raw"].info.digest
    assert fs.unstrip_protocol("/beam") == f"hiss://{fs.source.address}/beam"


def test_a_streams_own_name_goes_first(buffer: Buffer, fs: Any) -> None:
    put(buffer, "c/s.npy", [b"not an array"])
    with buffer.collection("c").create_stream("s", dtype="u1", shape=(2,)) as s:
        s.append(np.zeros(2, "u1"))
    assert fs.cat("/c/s.npy") == b"not an array"
    assert sorted(fs.ls("/c", detail=False)) == ["/c/s", "/c/s.npy"]


def test_what_is_not_there(fs: Any, buffer: Buffer) -> None:
    buffer.collection("c")
    for path in ("/nothing", "/c/s", "/c/s.npy", "/c/s@2"):
        assert not fs.exists(path)
        with pytest.raises(FileNotFoundError):
            fs.open(path)
        with pytest.raises(FileNotFoundError):
            fs.ls(path)
    with pytest.raises(FileNotFoundError):
        fs.rm("/c/s")


def test_urls() -> None:
    assert parse_url("hiss://localhost/beamtime42/scan7") == ("localhost:5001", "beamtime42/scan7")
    assert parse_url("hiss://daq.lab:7000/a/b/") == ("daq.lab:7000", "a/b")
    assert parse_url("hiss://[::1]:7000/a") == ("[::1]:7000", "a")
    assert parse_url("hiss:///a/b") == (None, "a/b")
    for wrong in ("http://a/b", "hiss://a:port/b", "hiss://a:99999/b"):
        with pytest.raises(errors.InvalidInput):
            parse_url(wrong)


def test_a_token_that_is_wrong_is_refused(served: Any) -> None:
    with pytest.raises(PermissionError):
        fsspec.filesystem("hiss", address=served.address, token="guess").ls("/")


# ---- reading


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 40), max_size=12),
    piece=st.integers(1, 50),
    ranges=st.lists(st.tuples(st.integers(-5, 300), st.integers(-5, 300)), max_size=8),
)
def test_any_range_is_that_of_the_bytes(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch, lengths: list[int], piece: int, ranges: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(limits, "VIEW_PIECE_BYTES", piece)
    rng = np.random.default_rng(len(lengths))
    parts = [rng.bytes(length) for length in lengths]
    put(buffer, "c/s", parts)
    info = buffer["c/s"].info
    MEMORY.clear()
    content = Content(Source.of(buffer.store), info, npy=False)
    whole = b"".join(parts)
    assert content.size == len(whole)
    assert content.read(0, content.size) == whole
    for start, stop in ranges:
        assert content.read(start, stop) == whole[max(0, start) : max(0, stop)]


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("cut", [1, 100, 10_000])
def test_an_array_is_a_npy_file(buffer: Buffer, fs: Any, monkeypatch: pytest.MonkeyPatch, gaps: bool, cut: int) -> None:
    monkeypatch.setattr(limits, "VIEW_PIECE_BYTES", cut)
    data = frames(40)
    index = np.arange(40) * (1 + gaps) + 7
    with buffer.collection("c").create_stream("s", dtype="<u2", shape=(4, 6)) as s:
        s.extend(data, index=index)
    with fs.open("/c/s.npy") as file:
        assert np.array_equal(np.load(file), data)
        whole = fs.cat("/c/s.npy")
        assert len(whole) == file.size == fs.size("/c/s.npy")
        file.seek(-96, 2)
        assert file.tell() == len(whole) - 96
        assert file.read(48) == data[38].tobytes()
        file.seek(1)
        assert file.read(5) == b"NUMPY"
    assert fs.cat_file("/c/s.npy", -48) == data[39].tobytes()


def test_a_range_costs_the_blocks_that_it_touches(
    buffer: Buffer, fs: Any, reads: list[Selection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VIEW_PIECE_BYTES", 1 * KiB)
    data = np.random.default_rng(0).integers(0, 255, (50, 1000), np.uint8)
    with buffer.collection("c").create_stream("s", dtype="u1", shape=(1000,)) as s:
        s.extend(data, index=np.arange(100, 150))
    with fs.open("/c/s.npy") as file:
        assert not reads, "the header is computed"
        file.read(100)
        assert not reads
        file.seek(128 + 20_500)
        assert file.read(10) == data[20, 500:510].tobytes()
        assert file.read(10) == data[20, 510:520].tobytes()
        assert [(each.start, each.stop) for each in reads] == [(120, 121)], "once, and then it is kept"
    again = fsspec.filesystem("hiss", address=fs.source.address, token=fs.storage_options["token"])
    assert again.cat_file("/c/s", 20_000, 21_000) == data[20].tobytes()
    assert len(reads) == 1


def test_ranges_of_several_files_come_together(buffer: Buffer, fs: Any) -> None:
    parts = [bytes([number]) * 100 for number in range(8)]
    for number in range(3):
        put(buffer, f"c/s{number}", parts)
    paths = ["/c/s0", "/c/s1", "/c/s2", "/c/gone"]
    found = fs.cat_ranges(paths, [0, 150, 790, 0], [10, 250, 800, 5])
    assert found[:3] == [bytes(10), b"\1" * 50 + b"\2" * 50, b"\7" * 10]
    assert isinstance(found[3], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(paths, 0, 1, on_error="raise")


def test_an_open_stream_is_as_long_as_it_was(buffer: Buffer, fs: Any) -> None:
    s = buffer.collection("c").create_stream("s", dtype="u1", shape=(4,))
    for index in (0, 1, 4):
        s.append(np.full(4, index, "u1"), index=index)
    s.flush()
    with fs.open("/c/s.npy") as file:
        s.append(np.full(4, 2, "u1"), index=2)
        s.append(np.full(4, 5, "u1"), index=5)
        s.flush()
        assert np.load(file)[:, 0].tolist() == [0, 1, 4]
    with fs.open("/c/s.npy") as file:
        assert np.load(file)[:, 0].tolist() == [0, 1, 2, 4, 5]
    s.seal()


def test_results_that_are_computed_are_read_as_they_come_out(buffer: Buffer, fs: Any) -> None:
    data = frames(6)
    with buffer.collection("c").create_stream("s", dtype="<u2", shape=(4, 6), keep="raw", kernels=[double]) as s:
        s.extend(data)
    with fs.open("/c/s.npy") as file:
        assert np.array_equal(np.load(file), data * 2)


# ---- the caches


def test_what_is_kept_in_memory_is_bounded() -> None:
    cache = MemoryCache(100)
    for number in range(10):
        cache.put(Piece("id", "digest", number), bytes(30))
    assert cache.size == 90
    assert cache.get(Piece("id", "digest", 0)) is None
    assert cache.get(Piece("id", "digest", 9)) == bytes(30)
    cache.put(Piece("id", "digest", 10), bytes(500))
    assert cache.size == 500, "the newest stays"


def test_a_piece_on_disk_that_was_changed_is_read_again(
    buffer: Buffer, served: Any, tmp_path: Path, reads: list[Selection]
) -> None:
    put(buffer, "c/s", [b"x" * 1000, b"y" * 1000])
    fs = fsspec.filesystem("hiss", address=served.address, token=served.token, cache_dir=str(tmp_path / "cache"))
    whole = b"x" * 1000 + b"y" * 1000

    def again() -> int:
        MEMORY.clear()
        before = len(reads)
        assert fs.cat("/c/s") == whole
        return len(reads) - before

    assert [again(), again()] == [1, 0]
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.name.startswith(buffer["c/s"].info.id)
    content = bytearray(kept.read_bytes())
    content[500] ^= 1
    kept.write_bytes(content)
    assert [again(), again()] == [1, 0], "one flipped bit: fetched again, and kept again"
    kept.write_bytes(b"")
    assert again() == 1
    put(buffer, "c/s", [b"z"])
    assert fs.cat("/c/s") == b"z", "a new version is another stream"


def test_the_directory_stays_within_its_bound(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 1000)
    for number in range(50):
        cache.put(Piece("id", "digest", number), bytes([number]) * 92)
    files = list((tmp_path / "cache").iterdir())
    assert len(files) <= 10
    assert cache.get(Piece("id", "digest", 49)) == bytes([49]) * 92
    cache.put(Piece("id", "digest", 50), bytes(2000))
    assert cache.get(Piece("id", "digest", 50)) is None, "larger than all"
    assert DiskCache(tmp_path / "cache", 1000).get(Piece("id", "digest", 49)) is not None


# ---- writing


def test_a_written_file_is_a_sealed_stream(buffer: Buffer, fs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VIEW_PIECE_BYTES", 1000)
    data = np.random.default_rng(0).bytes(12_345)
    with fs.open("/new/collection/file.bin", "wb", block_size=2500) as file:
        for first in range(0, len(data), 777):
            file.write(data[first : first + 777])
    stream = buffer["new/collection/file.bin"]
    assert stream.info.state is StreamState.SEALED
    assert stream.info.frame.opaque
    assert b"".join(stream[:]) == data == fs.cat("/new/collection/file.bin")
    with fs.open("/new/collection/file.bin", "w") as text:
        text.write("other")
    assert fs.cat("/new/collection/file.bin") == b"other"
    assert fs.cat("/new/collection/file.bin@1") == data, "the version before it is there"
    fs.pipe("/new/empty", b"")
    assert fs.size("/new/empty") == 0
    assert fs.cat("/new/empty") == b""
    with pytest.raises(FileExistsError):
        fs.open("/new/empty", "xb")
    with pytest.raises(NotImplementedError):
        fs.open("/new/empty", "ab")


def test_what_is_not_finished_leaves_nothing(buffer: Buffer, fs: Any) -> None:
    fs.pipe("/c/s", b"before")

    def written() -> None:
        with fs.open("/c/s", "wb", block_size=10) as file:
            file.write(b"a" * 100)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written()
    file = fs.open("/c/s", "wb", block_size=10)
    file.write(b"b" * 100)
    del file
    assert fs.cat("/c/s") == b"before"
    assert len(buffer.store.streams("c", all_versions=True)) == 1


def test_a_transaction_shows_all_or_nothing(buffer: Buffer, fs: Any) -> None:
    with fs.transaction:
        fs.pipe({"/c/one": b"1", "/c/two": b"2"})
        assert not buffer["c/one"].info.state.final
    assert fs.cat(["/c/one", "/c/two"]) == {"/c/one": b"1", "/c/two": b"2"}

    def broken() -> None:
        with fs.transaction:
            fs.pipe("/c/three", b"3")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert not fs.exists("/c/three")


def test_directories_are_made_moved_and_removed(buffer: Buffer, fs: Any) -> None:
    fs.mkdir("/a/b")
    with pytest.raises(FileExistsError):
        fs.mkdir("/a/b")
    fs.makedirs("/a/b", exist_ok=True)
    fs.pipe({"/a/b/one": b"1", "/a/b/two": b"2", "/a/b/c/three": b"3"})
    fs.cp("/a/b/one", "/a/b/c/four")
    assert fs.cat("/a/b/c/four") == b"1"
    fs.mv("/a/b/two", "/a/b/c/two")
    assert sorted(fs.find("/a")) == ["/a/b/c/four", "/a/b/c/three", "/a/b/c/two", "/a/b/one"]
    with pytest.raises(OSError, match="has streams"):
        fs.rmdir("/a/b")
    with pytest.raises(IsADirectoryError):
        fs.rm("/a/b")
    fs.rm("/a/b/c/t*")
    assert fs.find("/a/b/c") == ["/a/b/c/four"]
    with buffer.collection("a/b/c").create_stream("k", dtype="u1", shape=(2,), keep="both", kernels=[double]) as s:
        s.append(np.ones(2, "u1"))
    fs.rm("/a/b", recursive=True)
    assert not fs.exists("/a/b")
    fs.mkdir("/a/b")
    fs.rmdir("/a/b")
    assert not fs.exists("/a/b")


def test_files_go_up_and_down(fs: Any, buffer: Buffer, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"x" * 10_000)
    buffer.collection("c")
    fs.put(str(tmp_path / "up"), "/c/s")
    fs.get("/c/s", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == b"x" * 10_000


# ---- what others make of it


def test_pandas(served: Any, buffer: Buffer) -> None:
    table = pd.DataFrame({"angle": [0.0, 0.5, 1.0], "counts": [3, 1, 4]})
    table.to_csv(f"{served.url}/c/table.csv", index=False, storage_options=served.options)
    assert pd.read_csv(f"{served.url}/c/table.csv", storage_options=served.options).equals(table)
    assert bytes(buffer["c/table.csv"][0]).startswith(b"angle,counts")


def test_h5py_opens_a_stored_file_and_reads_what_it_needs(
    served: Any, buffer: Buffer, fs: Any, tmp_path: Path, reads: list[Selection]
) -> None:
    data = np.random.default_rng(0).integers(0, 1 << 16, (20, 512, 512), np.uint16)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("entry/data", data=data, chunks=(1, 512, 512))
    fs.put(str(tmp_path / "scan.h5"), "/c/scan.h5")
    with fsspec.open(f"{served.url}/c/scan.h5", **served.options) as remote, h5py.File(remote) as file:
        assert np.array_equal(file["entry/data"][13], data[13])
    assert len(buffer["c/scan.h5"]) == 3, "10 MiB in blocks of 4"
    assert len({each.start for each in reads}) == 2, "the head, and the block with the frame"


def test_zarr_keeps_arrays_in_it(served: Any, fs: Any) -> None:
    data = frames(10, (8, 8))
    zarr.save_array(f"{served.url}/c/array.zarr", data, storage_options=served.options, zarr_format=3)
    group = zarr.open(f"{served.url}/c/array.zarr", mode="r+", storage_options=served.options)
    assert np.array_equal(group[...], data)
    group[3] = 1
    again = zarr.open(f"{served.url}/c/array.zarr", mode="r", storage_options=served.options)
    assert np.array_equal(again[2:5], np.stack([data[2], np.ones((8, 8), "u2"), data[4]]))


def test_dask_reads_bytes_in_parts(served: Any, fs: Any) -> None:
    text = b"".join(b"%d\n" % number for number in range(5000))
    fs.pipe("/c/lines.txt", text)
    _, parts = dask.bytes.read_bytes(f"{served.url}/c/lines.txt", delimiter=b"\n", blocksize="4 KiB", **served.options)
    assert b"".join(part.compute(scheduler="threads") for part in parts[0]) == text
    assert len(parts[0]) > 4


def test_in_an_event_loop(fs: Any) -> None:
    fs.pipe("/c/s", b"hello")

    async def use() -> bytes:
        beside = AsyncFileSystemWrapper(fs, asynchronous=True)
        await beside._pipe_file("/c/t", b"other")
        first, second = await asyncio.gather(beside._cat_file("/c/s"), beside._cat_file("/c/t"))
        return bytes(first + second)

    assert asyncio.run(use()) == b"helloother"


def test_it_travels(fs: Any) -> None:
    fs.pipe("/c/s", b"x" * 100)
    with fs.open("/c/s") as file:
        file.seek(90)
        again = pickle.loads(pickle.dumps(file))
        assert again.read() == b"x" * 10
    assert pickle.loads(pickle.dumps(fs)).cat("/c/s") == b"x" * 100
    assert fs.ukey("/c/s") == fs.ukey("/c/s")
