"""The suite on a buffer behind a lane: through shared memory, over a Unix socket, a TCP socket and TLS; what lands,
lands once, and all memory comes back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import hiss
from hiss import landing, limits
from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.blocks.files import OsFiles
from hiss.client import Buffer
from hiss.errors import BlockTooLarge, DigestMismatch, HissError, SpecMismatch, Unavailable
from hiss.extent import Extent
from hiss.landing import Spaces
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.model import Ack, FrameSpec, Selection, StreamInfo, StreamSpec
from hiss.node import Node
from hiss.testing.certificates import certificates
from hiss.testing.conformance import BufferConformance, double, frames, wait_for
from hiss.testing.processes import DataProcess
from hiss.transport import GrpcServer, RemoteStore, lane_client
from hiss.transport.lane_client import LaneAppend
from hiss.transport.lane_framing import Connection, FrameReader, Part, send_parts
from hiss.writer import StreamWriter

OPTIONS = StorageOptions(arena_bytes=32 * MiB, segment_bytes=16 * MiB)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "data", OPTIONS, backend="numpy")
    yield node
    assert node.storage.usage().arena_free_bytes == node.storage.arena.capacity, "every region came back"
    assert node.spaces._waiting_bytes == 0
    assert (node.reservations._pending, node.reservations._open_bytes) == (0, 0), "every charge was settled"
    node.close()


@pytest.fixture
def server(node: Node, tmp_path: Path) -> Iterator[GrpcServer]:
    """Over TLS at its first address, and over a Unix socket, behind which its plain lanes are offered."""
    tokens = Access.of_directory(node.directory)
    server = GrpcServer(
        ["localhost:0", f"unix:{tmp_path / 'sock'}"],
        store_for=lambda caller: LocalStore(node, caller),
        authenticate=lambda token, peer: tokens.authenticate(token, 0, peer),
        lanes=[f"unix:{tmp_path / 'lane.sock'}", "127.0.0.1:0", "tls:localhost:0"],
        tls=certificates().server,
    )
    server.start()
    yield server
    server.stop(5.0)
    assert server.lanes is not None
    assert not server.lanes._calls, "every lane ended"


def remote_by(server: GrpcServer, node: Node, lane: str | None) -> RemoteStore:
    tls = certificates().client if lane == "tls" else None
    token = Access.of_directory(node.directory).owner_token
    return RemoteStore.connect(server.addresses[0 if tls else 1], token, lane=lane, tls=tls)


def connected(server: GrpcServer, node: Node, lane: str | None) -> Buffer:
    return Buffer(remote_by(server, node, lane))


def lies_in_lent_memory(data: np.ndarray) -> bool:
    """Whether the bytes of an array of this process lie in memory that a server lent to it, to be read only."""
    place = data.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= place < last:
            return "memfd:hiss reader" in line and line.split()[1].startswith("r--")
    return False


class OnLane(BufferConformance):
    __test__ = False
    lane = ""

    @pytest.fixture
    def buffer(self, server: GrpcServer, node: Node) -> Iterator[Buffer]:
        with connected(server, node, self.lane) as buffer:
            yield buffer

    def test_it_is_that_lane(self, buffer: Buffer) -> None:
        with buffer.collection("c").create_stream("s", dtype="u1", shape=(1,)) as s:
            assert isinstance(s._session, LaneAppend)
            assert s._session.kind == self.lane


class TestUnixLane(OnLane):
    __test__ = True
    lane = "unix"


class TestSharedMemoryLane(OnLane):
    """Reads, the smallest too, go through shared memory as well."""

    __test__ = True
    lane = "shm"

    @pytest.fixture(autouse=True)
    def _every_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "SHARED_READ_WORTH_BYTES", 0)
        monkeypatch.setattr(limits, "SHARED_READ_FROM_BYTES", 1)

    def test_reads_go_that_way(self, buffer: Buffer) -> None:
        with buffer.collection("c").create_stream("s", dtype="u1", shape=(3,)) as s:
            s.append(np.array([1, 2, 3], "u1"))
        for block in (buffer["c/s"].block(0), buffer["c/s"].latest(), next(iter(buffer["c/s"].follow()))):
            assert block is not None
            assert block.data.tolist() == [1, 2, 3]
            assert lies_in_lent_memory(block.data)


class TestTcpLane(OnLane):
    __test__ = True
    lane = "tcp"


class TestTlsLane(OnLane):
    __test__ = True
    lane = "tls"


# ---------------------------------------------------------------------------------------------------------- landing

KINDS = ["unix", "tcp", "tls"]


def producer(
    server: GrpcServer, node: Node, kind: str, frame: FrameSpec, **spec: object
) -> tuple[RemoteStore, StreamInfo, LaneAppend, list[Ack], list[HissError]]:
    """A stream and its producer's lane, with what it is told."""
    remote = remote_by(server, node, kind)
    remote.create_collection("c", {}, [])
    info = remote.create_stream("c", "s", StreamSpec(frame, **spec))  # type: ignore[arg-type]
    acks: list[Ack] = []
    told: list[HissError] = []
    session = remote.open_append(info.id, acks.append, told.append, lambda _: None)
    assert isinstance(session, LaneAppend)
    return remote, info, session, acks, told


def extent(data: np.ndarray, first: int = 0) -> Extent:
    return Extent.of(
        np.arange(first, first + len(data)), data.reshape(-1).view(np.uint8), np.full(len(data), data[0].nbytes)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernels", [(), (double.bind(),)])
def test_an_extent_is_received_where_it_stays(
    server: GrpcServer, node: Node, kind: str, kernels: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not claimed: nothing is copied into the arena, and what is written lies in it."""
    monkeypatch.setattr(landing, "land", lambda *_: 1 / 0)
    written: list[np.ndarray] = []
    real = node.storage.append
    monkeypatch.setattr(node.storage, "append", lambda *args: (written.append(args[1].data), real(*args)))
    data = frames(6, (64, 64))
    remote, info, session, acks, _ = producer(server, node, kind, FrameSpec("u2", (64, 64)), kernels=kernels)
    session.send(extent(data[:2]))
    session.send(extent(data[2:], 2))
    session.close()
    assert acks[-1] == Ack(6, 6, 6)
    assert all(np.may_share_memory(each, node.storage.arena._bytes) for each in written)
    found = np.concatenate([each.frames(info.frame) for each in remote.read(info.id, Selection())])
    assert np.array_equal(found, data * 2 if kernels else data)
    remote.close()


@pytest.mark.parametrize("kind", KINDS)
def test_an_extent_above_its_share_comes_the_ordinary_way(server: GrpcServer, node: Node, kind: str) -> None:
    data = frames(10, (1024, 1024))  # 20 MiB, of an arena of 32 MiB
    remote, info, session, acks, _ = producer(server, node, kind, FrameSpec("u2", (1024, 1024)))
    session.send(extent(data))
    session.close()
    assert acks[-1] == Ack(10, 10, 10)
    found = np.concatenate([each.frames(info.frame) for each in remote.read(info.id, Selection())])
    assert np.array_equal(found, data)
    remote.close()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused_gives_its_memory_back(server: GrpcServer, node: Node, kind: str) -> None:
    def changed(good: Extent) -> Extent:
        bad = extent(frames(2), 2)
        bad.data[0] ^= 1
        return bad

    refused = [
        (DigestMismatch, changed),
        (SpecMismatch, lambda _: extent(frames(2, (4, 5)), 2)),
        (BlockTooLarge, lambda _: Extent.of([2], np.zeros(9 << 20, "u1"), [9 << 20])),
    ]
    for error, make in refused:
        opaque = error is BlockTooLarge
        frame = FrameSpec(None, ()) if opaque else FrameSpec("u2", (4, 6))
        remote, info, session, acks, told = producer(server, node, kind, frame)
        if not opaque:
            session.send(extent(frames(2)))
            wait_for(lambda acks=acks: acks and acks[-1].written == 2)
        session.send(make(extent(frames(2))))
        wait_for(lambda told=told: told)
        assert type(told[0]) is error
        session.close()
        assert remote.stream("c/s").completeness.blocks == (0 if opaque else 2)
        remote.abort_stream(info.id, "a bad one")
        remote.delete_collection("c")
        remote.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_producer_that_dies_in_its_payload_gives_the_memory_back(server: GrpcServer, node: Node, kind: str) -> None:
    remote, _, session, _, _ = producer(server, node, kind, FrameSpec("u1", (1 << 20,)))
    parts = session._framer.parts(extent(np.ones((1, 1 << 20), "u1")))
    session._connection.sendmsg([parts[0], memoryview(parts[1])[: 1 << 19]])
    wait_for(lambda: node.storage.usage().arena_free_bytes < node.storage.arena.capacity)
    assert node.spaces._waiting_bytes == 1 << 20
    session.cut()
    with contextlib.suppress(Unavailable):
        session.close()
    wait_for(lambda: node.storage.usage().arena_free_bytes == node.storage.arena.capacity)
    assert remote.stream("c/s").completeness.blocks == 0
    remote.close()


def test_what_waits_for_its_bytes_leaves_half_of_the_arena(node: Node) -> None:
    share = landing.share_of(node.storage.arena)
    spaces = Spaces(node.storage.arena)
    held = [spaces.reserve(share, 0) for _ in range(limits.CREDIT_FRACTION // limits.LANDING_FRACTION)]
    assert None not in held
    assert spaces.reserve(1, 0) is None
    assert spaces.reserve(0, 0) is None
    held[0].release()
    held[0].release()
    assert spaces.reserve(share + 1, 0) is None
    again = spaces.reserve(share // 2, share // 2)
    assert again is not None
    regions = again.take()
    assert [len(region.data) for region in regions] == [share // 2] * 2
    for space in (*held, again):
        space.release()
    assert spaces._waiting_bytes == 0
    for region in regions:
        region.release()


def test_producers_on_every_lane_at_once(server: GrpcServer, node: Node) -> None:
    data = frames(300, (64, 64))
    buffers = [connected(server, node, lane) for lane in ("shm:trusted", *KINDS, "grpc", None) for _ in range(2)]
    scans = [buffer.collection("c") for buffer in buffers]
    writers = [scan.create_stream(f"s{n}", dtype="u2", shape=(64, 64), ack="written") for n, scan in enumerate(scans)]
    for frame in data:
        for writer in writers:
            writer.append(frame)
    for writer in writers:
        writer.close()
    for n, buffer in enumerate(buffers):
        assert np.array_equal(np.asarray(buffer[f"c/s{n}"]), data)
        buffer.close()


# ---------------------------------------------------------------------------------------------------------- kill -9


@pytest.mark.parametrize("kind", ["shm", *KINDS[:2]])
def test_a_server_killed_under_a_lane_loses_nothing(tmp_path: Path, kind: str) -> None:
    """Killed at moments that follow from a seed, three times; the producer reconnects by itself."""
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(5)
    data = rng.integers(0, 255, (240, 50_000)).astype("u1")
    kills = set(rng.choice(np.arange(20, 220), 3, replace=False).tolist())
    with (
        DataProcess(tmp_path / "data") as process,
        hiss.connect(process.config.address, process.token, lane=kind) as buffer,
    ):
        with buffer.collection("c").create_stream("s", dtype="u1", shape=(50_000,)) as s:
            for index, frame in enumerate(data):
                s.append(frame)
                if index in kills:
                    assert isinstance(s._session, LaneAppend)
                    process.kill()
                    process.start()
                    s.flush()
        assert s.report().reconnects >= 3
        assert np.array_equal(np.asarray(buffer["c/s"]), data)
        assert not buffer["c/s"].ledger


def test_a_lane_of_a_server_that_is_gone_is_unavailable(server: GrpcServer, node: Node) -> None:
    remote, _, session, _, told = producer(server, node, "tcp", FrameSpec("u1", (1,)))
    server.stop(0)
    wait_for(lambda: told)
    assert isinstance(told[0], Unavailable)
    session.close()
    remote.close()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_socket_filled_is_what_the_disk_is_given(
    server: GrpcServer, node: Node, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of a payload in this process, counted by address: the socket's bytes go where the log writes from."""
    filled: list[tuple[int, int]] = []
    written: list[tuple[int, int]] = []
    fill, pwritev = FrameReader.fill, OsFiles.pwritev

    def place(view: object) -> tuple[int, int]:
        array = np.frombuffer(view, np.uint8)  # type: ignore[call-overload]
        return array.ctypes.data, array.size

    def filling(self: FrameReader, view: memoryview) -> None:
        filled.append(place(view))
        fill(self, view)

    def writing(self: OsFiles, fd: int, buffers: Sequence[object], offset: int) -> int:
        written.extend(place(buffer) for buffer in buffers)
        return pwritev(self, fd, buffers, offset)  # type: ignore[arg-type]

    monkeypatch.setattr(FrameReader, "fill", filling)
    monkeypatch.setattr(OsFiles, "pwritev", writing)
    data = frames(6, (256, 256))
    remote, info, session, acks, _ = producer(server, node, kind, FrameSpec("u2", (256, 256)))
    for first in range(0, 6, 2):
        session.send(extent(data[first : first + 2], first))
    session.close()
    assert acks[-1] == Ack(6, 6, 6)
    payloads = [each for each in filled if each[1] == data[:2].nbytes]
    assert len(payloads) == 3
    assert payloads == [each for each in written if each[1] >= data[0].nbytes]
    found = np.concatenate([each.frames(info.frame) for each in remote.read(info.id, Selection())])
    assert np.array_equal(found, data)
    remote.close()


# ---------------------------------------------------------------------------------------------------------- who sends

WAYS = ["shm", *KINDS, "grpc"]


def writes(writer: StreamWriter) -> list[str]:
    """The threads of a producer that send."""
    return [thread.name for thread in threading.enumerate() if thread.name == f"writer {writer.info.path}"]


@pytest.mark.parametrize("way", WAYS)
def test_a_producer_of_one_block_at_a_time_sends_itself(server: GrpcServer, node: Node, way: str) -> None:
    data = frames(30, (64, 64))
    with connected(server, node, way) as buffer:
        collection = buffer.collection("c")
        for how in ("append", "extend", "lend", "flush"):
            spec = {"dtype": "u2", "shape": (64, 64), "extent_bytes": MiB if how == "flush" else data[0].nbytes}
            with collection.create_stream(how, linger_s=60.0 if how == "flush" else 0.02, **spec) as s:
                for block in data:
                    if how == "extend":
                        s.extend(block[None])
                    else:
                        s.append(block, copy=how != "lend")
                    s.flush()
                assert writes(s) == ([f"writer c/{how}"] if how == "flush" else []), "one for what lingers"
            assert np.array_equal(np.asarray(buffer[f"c/{how}"]), data)


@pytest.mark.parametrize("way", ["shm", "unix", "tcp", "grpc"])
def test_a_server_that_stands_still_stops_nobody_who_has_credit(tmp_path: Path, way: str) -> None:
    data = frames(100, (128, 512))  # more than a socket takes
    with DataProcess(tmp_path / "data") as process:
        token = process.token
        with hiss.connect(process.address, token, lane=way) as buffer:
            s = buffer.collection("c").create_stream("s", dtype="u2", shape=(128, 512), extent_bytes=data[0].nbytes)
            process.pause()
            try:
                for block in data:
                    s.append(block)
                assert s.acknowledged == 0
            finally:
                process.go_on()
            s.seal()
            assert np.array_equal(np.asarray(buffer["c/s"]), data)


@pytest.mark.parametrize("way", KINDS)
@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_an_interrupt_while_it_sends_itself_loses_and_repeats_nothing(
    server: GrpcServer, node: Node, way: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a notebook: what of the extent went out nobody knows, so the producer begins again with it."""
    data = frames(6, (64, 64))
    due: list[int] = []

    def interrupted(connection: Connection, parts: Sequence[Part]) -> None:
        if not due or len(parts) < 2 or threading.current_thread() is not threading.main_thread():
            send_parts(connection, parts)
            return
        due.clear()
        if when == "after":
            send_parts(connection, parts)
        elif when == "within":
            send_parts(connection, [b"".join(bytes(part) for part in parts)[:1000]])
        raise KeyboardInterrupt

    monkeypatch.setattr(lane_client, "send_parts", interrupted)
    with connected(server, node, way) as buffer:
        s = buffer.collection("c").create_stream("s", dtype="u2", shape=(64, 64), extent_bytes=data[0].nbytes)
        for number, block in enumerate(data):
            if number == 3:
                due.append(number)
                with pytest.raises(KeyboardInterrupt):
                    s.append(block)
                assert s.next_index == 4, "it was added"
            else:
                s.append(block)
            s.flush()
        s.seal()
        assert s.report().reconnects == 1
        assert buffer["c/s"].index.tolist() == list(range(6))
        assert np.array_equal(np.asarray(buffer["c/s"]), data)
