"""Streams that were evicted, read from their archives: the same as before, or a named error; and nobody else waits."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiss import archives, limits
from hiss.archive_readers import ArchiveReaders
from hiss.archives import _Kept
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.drain import archive_process, drain
from hiss.errors import ArchiveUnreachable, BlockDamaged, Damaged, StreamEvicted
from hiss.extent import Extent
from hiss.limits import KiB, MiB
from hiss.local import LocalStore
from hiss.model import ColumnRange, Selection, digest_of
from hiss.node import Node

DATA = np.random.default_rng(3).integers(0, 999, (40, 30, 20)).astype("u2")
INDEX = np.concatenate([np.arange(20), np.arange(25, 45)])


@pytest.fixture(scope="module")
def shared() -> Iterator[ArchiveReaders]:
    """Processes for all tests that do not harm them: each takes a second to start."""
    readers = ArchiveReaders()
    yield readers
    readers.close()


@pytest.fixture
def node(request: pytest.FixtureRequest, tmp_path: Path, shared: ArchiveReaders) -> Iterator[Node]:
    """With processes of its own where the test is marked so."""
    node = Node(tmp_path / "data", StorageOptions(arena_bytes=16 * MiB, segment_bytes=8 * MiB), backend="numpy")
    own = node.archives._readers
    if "own" not in request.fixturenames:
        node.archives._readers = shared
    yield node
    node.archives._readers = own
    node.close()


@pytest.fixture
def own() -> None:
    """The node has processes of its own."""


@pytest.fixture
def buffer(node: Node) -> Buffer:
    return Buffer(LocalStore(node))


def write(buffer: Buffer, path: str, data: Any = DATA, index: Any = INDEX) -> None:
    collection, _, name = path.rpartition("/")
    with buffer.collection(collection).create_stream(
        name, dtype=data.dtype, shape=data.shape[1:], columns={"angle": "f8 deg"}
    ) as s:
        s.extend(data, index=index, angle=np.arange(len(data)) * 0.5, time_ns=np.arange(len(data)) * 10 + 1)


def evicted(buffer: Buffer, path: str, *files: Path, data: Any = DATA, index: Any = INDEX) -> None:
    """A stream that is in these archives only, the last the newest."""
    write(buffer, path, data, index)
    for file in files:
        drain(buffer.store, path, file)
    buffer.evict(path)


def same(found: list[Extent], expected: list[Extent]) -> None:
    """Whatever the extents: the same blocks, with all that is known of them."""
    for name in ("index", "time_ns", "received_ns", "length", "digest", "source_digest", "columns", "status", "data"):
        one, other = (
            np.concatenate([np.zeros(0, getattr(Extent.of([], np.zeros(0, "u1"), []), name).dtype)]
                           * (not extents) + [getattr(extent, name) for extent in extents])
            for extents in (found, expected)
        )  # fmt: skip
        assert one.tobytes() == other.tobytes(), name


SELECTIONS = st.builds(
    Selection,
    start=st.none() | st.integers(0, 50),
    stop=st.none() | st.integers(0, 50),
    step=st.integers(1, 4),
    newest=st.booleans(),
    data=st.booleans(),
    time_ns=st.tuples(st.none() | st.integers(0, 400), st.none() | st.integers(0, 400)),
    where=st.lists(
        st.builds(ColumnRange, st.just("angle"), st.none() | st.floats(0, 20), st.none() | st.floats(0, 20)), max_size=1
    ).map(tuple),
    from_disk=st.booleans(),
)


@pytest.mark.parametrize(("suffix", "piece"), [(".nxs", 1), (".nxs", 3000), (".nxs", 8 * MiB), (".zarr", 3000)])
def test_every_selection_gives_what_it_gave_before(
    buffer: Buffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, piece: int
) -> None:
    """Against a twin of the stream that is still in the log, with all that stands beside the blocks."""
    write(buffer, "c/s")
    ids = buffer["c/s"].info.id
    whole = list(buffer.store.read(ids, Selection()))
    drain(buffer.store, "c/s", tmp_path / f"s{suffix}")
    write(buffer, "c/twin")
    twin = buffer["c/twin"].info.id
    received = np.concatenate([extent.received_ns for extent in whole])
    buffer.evict("c/s")
    monkeypatch.setattr(limits, "EXTENT_BYTES_TARGET", piece)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(selection=SELECTIONS)
    def compare(selection: Selection) -> None:
        found = list(buffer.store.read(ids, selection))
        expected = list(buffer.store.read(twin, selection))
        for extents in (found, expected):
            for extent in extents:
                rows = np.searchsorted(INDEX, extent.index)
                extent.received_ns[...] = received[rows] if extents is expected else extent.received_ns
        same(found, expected)

    compare()


@pytest.mark.parametrize("suffix", [".nxs", ".zarr"])
def test_blocks_of_any_length(buffer: Buffer, tmp_path: Path, suffix: str) -> None:
    scan = buffer.collection("c")
    packets = [np.arange(3 * n, dtype="<i4").reshape(n, 3) for n in (0, 1, 5, 0, 700)]
    parts = [b"", b"x", b"hello" * 1000]
    with scan.create_stream("packets", dtype="i4", shape=(None, 3)) as s:
        for packet in packets:
            s.append(packet)
    with scan.create_stream("bytes") as s:
        for part in parts:
            s.append(part)
    with scan.create_stream("truths", dtype="?", shape=(2,)) as s:
        s.append(np.array([True, False]))
    with scan.create_stream("none", dtype="f4", shape=(2,)):
        pass
    drain(buffer.store, "c", tmp_path / f"c{suffix}")
    assert len(buffer.evict("c")) == 4
    assert all(np.array_equal(a, b) for a, b in zip(scan["packets"][:], packets, strict=True))
    assert scan["packets"][4].shape == (700, 3)
    assert scan["bytes"][:] == parts
    assert scan["truths"][0].tolist() == [True, False]
    assert np.asarray(scan["none"]).shape == (0, 2)
    assert scan["none"].latest() is None


NAMES = (
    "data",
    "column_data",
    "time-ns",
    "a-b",
    "a_b",
    "a.b",
    "a_b_2",
    "errors",
    "title",
    "offset",
    "digest",
    "hiss-manifest.json",
)


@pytest.mark.parametrize("suffix", [".nxs", ".zarr"])
@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_columns_of_any_name_keep_their_values(
    buffer: Buffer, tmp_path: Path, suffix: str, timed: bool, turned: bool
) -> None:
    """Names that a format has itself, or must write otherwise, in either order."""
    names = NAMES[::-1] if turned else NAMES
    values = {name: np.arange(3) + 10 * place for place, name in enumerate(names)}
    with buffer.collection("c").create_stream("s", dtype="u1", shape=(2,), columns=dict.fromkeys(names, "i4")) as s:
        s.extend(np.zeros((3, 2), "u1"), time_ns=np.arange(3) + 1 if timed else None, **values)
    drain(buffer.store, "c/s", tmp_path / f"s{suffix}")
    buffer.evict("c/s")
    found = buffer["c/s"].columns
    assert {name: found[name].tolist() for name in names} == {name: values[name].tolist() for name in names}


def test_the_archive_before_serves_where_the_newest_is_gone(buffer: Buffer, tmp_path: Path) -> None:
    evicted(buffer, "c/s", tmp_path / "a.nxs", tmp_path / "b.nxs")
    (tmp_path / "b.nxs").unlink()
    assert np.array_equal(np.asarray(buffer["c/s"]), DATA)


def test_an_archive_that_comes_late_is_read_then(buffer: Buffer, tmp_path: Path) -> None:
    evicted(buffer, "c/s", tmp_path / "a.nxs")
    (tmp_path / "a.nxs").rename(tmp_path / "away")
    with pytest.raises(ArchiveUnreachable):
        buffer["c/s"][0]
    (tmp_path / "away").rename(tmp_path / "a.nxs")
    assert np.array_equal(buffer["c/s"][0], DATA[0])


def test_a_stream_that_is_archived_nowhere_is_evicted(buffer: Buffer) -> None:
    with buffer.collection("c").create_stream("s", dtype="u1", shape=(2,), expendable=True) as s:
        s.append(np.ones(2, "u1"))
    buffer.evict("c/s")
    with pytest.raises(StreamEvicted, match="archived nowhere"):
        buffer["c/s"].latest()


@pytest.mark.parametrize("other", ["another stream", "no drained file", "no HDF5 at all"])
def test_something_else_at_its_place_is_not_taken_for_it(buffer: Buffer, tmp_path: Path, other: str) -> None:
    evicted(buffer, "c/s", tmp_path / "s.nxs")
    if other == "another stream":
        write(buffer, "d/s", DATA + 1)
        drain(buffer.store, "d/s", tmp_path / "s.nxs", overwrite=True)
        expected: type[Exception] = Damaged
    else:
        (tmp_path / "s.nxs").write_bytes(b"text" if other == "no HDF5 at all" else b"")
        expected = ArchiveUnreachable
    with pytest.raises(expected, match=r"s\.nxs"):
        buffer["c/s"][0]


@pytest.mark.parametrize("compared", [True, pytest.param(False, marks=pytest.mark.control)])
def test_a_flipped_bit_is_never_served(
    buffer: Buffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: bool
) -> None:
    """With the control: without the comparison it is served."""
    write(buffer, "c/s")
    drain(buffer.store, "c/s", tmp_path / "s.nxs", compression="none")
    buffer.evict("c/s")
    content = bytearray((tmp_path / "s.nxs").read_bytes())
    place = content.find(DATA[7].tobytes())
    content[place + 100] ^= 4
    (tmp_path / "s.nxs").write_bytes(content)
    if not compared:
        digests = np.array([digest_of(frame.tobytes()) for frame in DATA], np.uint64)
        monkeypatch.setattr(archives, "block_digests", lambda data, length: digests)
        assert not np.array_equal(np.asarray(buffer["c/s"]), DATA)
        return
    with pytest.raises(BlockDamaged, match="block 7 of c/s"):
        np.asarray(buffer["c/s"])


def test_a_digest_that_was_changed_beside_its_block_is_found(buffer: Buffer, tmp_path: Path) -> None:
    """Block and digest are changed together: the stream's own digest is in the catalog."""
    import h5py

    evicted(buffer, "c/s", tmp_path / "s.nxs")
    with h5py.File(tmp_path / "s.nxs", "r+") as file:
        file["entry/hiss/s/block_digest"][3] += 1
    with pytest.raises(Damaged, match="give the digest"):
        buffer["c/s"][0]


# ---- the processes


def readers(node: Node) -> list[Any]:
    return node.archives._readers._idle


def test_an_archive_that_hangs_holds_nobody_up(
    own: None, node: Node, buffer: Buffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named pipe in the place of the file: whoever opens it waits for ever, as for a file system that is away."""
    monkeypatch.setattr(limits, "ARCHIVE_READ_S", 2.5)
    evicted(buffer, "c/s", tmp_path / "s.nxs")
    evicted(buffer, "c/other", tmp_path / "other.nxs", data=DATA + 1)
    (tmp_path / "s.nxs").unlink()
    os.mkfifo(tmp_path / "s.nxs")
    failure: list[Exception] = []

    def read() -> None:
        try:
            buffer["c/s"][0]
        except ArchiveUnreachable as error:
            failure.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    with buffer.collection("c").create_stream("meanwhile", dtype="u2", shape=(30, 20)) as s:
        s.extend(DATA)
    assert buffer["c/meanwhile"].info.state.final
    reading.join(60)
    assert "no answer within 2.5 s" in str(failure[0])
    with pytest.raises(ArchiveUnreachable, match="a moment ago"):
        buffer["c/s"][0]
    monkeypatch.setattr(limits, "ARCHIVE_READ_S", 60.0)
    assert np.array_equal(np.asarray(buffer["c/other"]), DATA + 1), "others are read as ever"


def test_a_reader_that_dies_is_replaced_and_one_of_a_closed_buffer_ends(
    own: None, node: Node, buffer: Buffer, tmp_path: Path
) -> None:
    evicted(buffer, "c/s", tmp_path / "s.nxs")
    assert np.array_equal(buffer["c/s"][0], DATA[0])
    (reader,) = readers(node)
    reader._process.kill()
    reader._process.wait()
    node.archives._pieces = _Kept(MiB)
    assert np.array_equal(buffer["c/s"][1], DATA[1])
    assert readers(node) != [reader]
    (reader,) = readers(node)
    node.archives.close()
    assert reader._process.returncode is not None
    with pytest.raises(ArchiveUnreachable, match="closing"):
        next(node.archives.read(buffer["c/s"].info, from_disk=True))


def test_more_than_may_wait_are_refused(
    node: Node, buffer: Buffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that reads of an archive that hangs never take the threads of all calls."""
    monkeypatch.setattr(limits, "ARCHIVE_WAITING_MAX", -limits.ARCHIVE_READERS_MAX)
    evicted(buffer, "c/s", tmp_path / "s.nxs")
    with pytest.raises(ArchiveUnreachable, match="are waiting"):
        buffer["c/s"][0]
    monkeypatch.undo()
    assert np.array_equal(buffer["c/s"][0], DATA[0])


def test_a_reader_that_nobody_asks_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ARCHIVE_IDLE_S", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        serving = threading.Thread(target=archive_process.serve, args=(theirs,))
        serving.start()
        serving.join(60)
        assert not serving.is_alive()


def test_what_is_kept_is_bounded_and_spares_reading(
    node: Node, buffer: Buffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evicted(buffer, "c/s", tmp_path / "s.nxs")
    monkeypatch.setattr(limits, "EXTENT_BYTES_TARGET", 2 * KiB)
    node.archives._pieces = _Kept(10 * KiB)
    asked: list[str] = []
    ask = node.archives._readers.ask

    def counted(location: str, **request: Any) -> Any:
        asked.append(location)
        return ask(location, **request)

    monkeypatch.setattr(node.archives._readers, "ask", counted)
    assert np.array_equal(np.asarray(buffer["c/s"]), DATA)
    everything = len(asked)
    assert node.archives._pieces._size <= 10 * KiB
    assert np.array_equal(buffer["c/s"][44], DATA[39])
    assert len(asked) == everything, "what was read last is kept"
    assert np.array_equal(buffer["c/s"][0], DATA[0])
    assert len(asked) == everything + 1
    list(buffer.store.read(buffer["c/s"].info.id, Selection(0, 1, from_disk=True)))
    assert len(asked) == everything + 2


def test_the_data_process_never_loads_hdf5() -> None:
    code = "import sys, hiss.node, hiss.local, hiss.transport.server; print('h5py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


# ---- S3


@pytest.fixture
def bucket(own: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket of moto's server, and the environment that leads there."""
    from moto.server import ThreadedMotoServer
    from obstore.store import S3Store

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/archive", method="PUT")).close()
    yield S3Store("archive")
    server.stop()


def test_archives_in_a_bucket(buffer: Buffer, tmp_path: Path, bucket: Any) -> None:
    for name, suffix in (("a", ".nxs"), ("b", ".zarr")):
        write(buffer, f"c/{name}")
        target = tmp_path / f"{name}{suffix}"
        drain(buffer.store, f"c/{name}", target)
        for file in [target] if target.is_file() else [each for each in target.rglob("*") if each.is_file()]:
            bucket.put(f"scans/{file.relative_to(tmp_path)}", file.read_bytes())
        info = buffer[f"c/{name}"].info
        path = info.archives[0].location.rpartition("::")[2]
        buffer.store.record_archive(info.id, f"s3://archive/scans/{name}{suffix}::{path}", info.digest)
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        buffer.evict(f"c/{name}")
        assert np.array_equal(np.asarray(buffer[f"c/{name}"]), DATA)
        assert buffer[f"c/{name}"].columns["angle"][1] == 0.5
    write(buffer, "c/lost")
    info = buffer["c/lost"].info
    buffer.store.record_archive(info.id, "s3://nothing/s.nxs::/entry/instrument/s/data", info.digest)
    buffer.evict("c/lost")
    with pytest.raises(ArchiveUnreachable, match="s3://nothing/s"):
        buffer["c/lost"][0]
