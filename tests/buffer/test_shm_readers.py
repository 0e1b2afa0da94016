"""Readers on the server's host: what they get are views of memory that the server lends, and whatever they do or suffer
changes nothing for others, shows them nothing of others, and leaves nothing behind in the server, another process."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_lanes import lies_in_lent_memory
from test_shm import Held, held, thread_count

from hiss import limits
from hiss.client import Buffer
from hiss.errors import HissError, InvalidInput, PermissionRefused, StreamNotFound
from hiss.limits import MiB
from hiss.model import Selection
from hiss.testing.conformance import wait_for
from hiss.testing.processes import DataProcess
from hiss.transport import RemoteStore, wire
from hiss.transport.lane_framing import HEAD_BYTES, VERSION, Head, Kind, decode_reply, frame
from hiss.transport.read_client import ReadLane
from hiss.transport.shared_memory import LENT, NUMBER
from hiss.v1 import streams_pb2

BLOCK = 1 * MiB
BLOCKS = 48  # six extents


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataProcess]:
    """A server with a stream in each of two collections: blocks of 1 and 2, of 101 and 102, and so on."""
    data = tmp_path_factory.mktemp("shm") / "data"
    data.mkdir()
    with DataProcess(data) as process:
        with process.connect() as buffer:
            for number, name in enumerate(("one", "two")):
                with buffer.collection(name).create_stream("s", dtype="u1", shape=(BLOCK,)) as s:
                    s.extend(np.repeat(wanted(number), BLOCK).reshape(BLOCKS, BLOCK))
        threads = thread_count(process)
        yield process
        assert thread_count(process) < threads + 40


def wanted(number: int) -> np.ndarray:
    return (100 * number + 1 + np.arange(BLOCKS)).astype("u1")


@pytest.fixture
def before(process: DataProcess) -> Iterator[Held]:
    """After each test the server is the same one, holds nothing more than before, and still serves."""
    before, pid = held(process), process._process.pid
    yield before
    assert process._process.pid == pid
    assert process._process.poll() is None, process.log.read_text()[-2000:]
    with process.connect("shm") as buffer:
        assert np.array_equal(buffer["two/s"][40:][:, 0], wanted(1)[40:])
    wait_for(lambda: held(process) == before)


@pytest.fixture
def buffer(process: DataProcess, before: Held) -> Iterator[Buffer]:
    with process.connect("shm") as buffer:
        yield buffer


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("hiss reader")


# ------------------------------------------------------------------------------------------------- what it is for


def test_blocks_are_views_of_lent_memory_and_it_is_used_again(buffer: Buffer) -> None:
    """A reader that lets go of what it has seen needs two or three extents' memory, however long the stream."""
    seen = most = 0
    for block in buffer["one/s"]:
        assert lies_in_lent_memory(block.data)
        assert (block.data == wanted(0)[block.index]).all()
        seen, most = seen + 1, max(most, mappings())
    assert seen == BLOCKS
    assert most <= 3


def test_what_is_read_cannot_be_written(buffer: Buffer) -> None:
    block = next(iter(buffer["one/s"]))
    with pytest.raises(ValueError, match="read-only"):
        block.data[0] = 9
    with pytest.raises(ValueError, match="WRITEABLE"):
        block.data.flags.writeable = True
    assert block.data[0] == 1


def test_arrays_outlive_everything_and_never_change(process: DataProcess, before: Held) -> None:
    """All are held: past the read, past others of the same lane, past the client."""
    with process.connect("shm") as buffer:
        stream = buffer["one/s"]
        blocks = [block for _ in range(2) for block in stream]
        views = [block.data.reshape(1024, -1)[::7, 5:9] for block in stream]  # all that is left of the third
        latest = [stream.latest(), *stream.follow()]
    gc.collect()
    for place, block in enumerate(blocks):
        assert (block.data == wanted(0)[place % BLOCKS]).all()
    for place, view in enumerate(views):
        assert (view == wanted(0)[place]).all()
    assert [int(block.data[-1]) for block in latest if block is not None] == [BLOCKS, *wanted(0).tolist()]
    assert mappings() >= 6
    del blocks, views, latest, block, view
    gc.collect()
    assert mappings() == 0, "and go with the last of them"


def test_what_is_beyond_the_memory_that_may_be_lent_is_sent(buffer: Buffer, process: DataProcess) -> None:
    """More extents than a reader may have at once, all of them held."""
    blocks = [block for _ in range(3) for block in buffer["one/s"].follow()]
    lent = sum(lies_in_lent_memory(block.data) for block in blocks)
    assert 0 < lent <= len(blocks)
    assert [int(block.data[0]) for block in blocks] == 3 * wanted(0).tolist()


def test_a_lane_is_kept_for_the_next_read(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = ReadLane.__init__

    def counted(lane: ReadLane, *args: Any) -> None:
        opened.append(1)
        real(lane, *args)

    monkeypatch.setattr(ReadLane, "__init__", counted)
    monkeypatch.setattr(limits, "SHARED_READ_WORTH_BYTES", 1)
    stream = buffer["one/s"]
    for _ in range(20):
        block = stream.latest()
        assert block is not None
        assert lies_in_lent_memory(block.data)
        assert block.data[0] == BLOCKS
    assert len(opened) == 1
    assert mappings() <= 3
    next(iter(stream))  # not to its end: that lane is over
    assert stream.block(3).data[0] == 4
    assert len(opened) == 2


def test_small_reads_take_no_lane(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a lane for a small read")

    stream = buffer["one/s"]
    with monkeypatch.context() as patch:
        patch.setattr(ReadLane, "__init__", never)
        assert stream[7][0] == 8
        assert stream.block(3).data[0] == 4
        assert len(stream.index) == BLOCKS
        with pytest.raises(AssertionError, match="small read"):
            next(iter(stream))


@pytest.mark.parametrize("lane", ["grpc", "unix", "tcp"])
def test_other_lanes_read_over_grpc(process: DataProcess, before: Held, lane: str) -> None:
    with process.connect(lane) as buffer:
        block = next(iter(buffer["one/s"]))
        assert block.data[0] == 1
        assert not lies_in_lent_memory(block.data)


def test_a_follow_goes_on_while_blocks_come_and_ends_when_told(buffer: Buffer) -> None:
    s = buffer.collection("live").create_stream("s", dtype="u1", shape=(BLOCK,), linger_s=0, new_version=True)
    stop, found = threading.Event(), []
    extents = buffer.store.follow(s.info.id, None, stop)

    def read() -> None:
        for extent in extents:
            assert lies_in_lent_memory(extent.data)
            found.extend(extent.index.tolist())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(12):
        s.append(np.full(BLOCK, number, "u1"))
        s.flush()
        wait_for(lambda number=number: number in found)
    stop.set()
    reader.join(60)
    assert not reader.is_alive()
    assert found == list(range(12))
    s.abort("enough")


def test_errors_are_told_by_name(buffer: Buffer, process: DataProcess) -> None:
    told = []
    with process.connect("grpc") as other:
        for each in (buffer, other):
            with pytest.raises(HissError) as caught:
                each["one/s"].read(where={"angle": (0, 1)})
            told.append((type(caught.value), str(caught.value)))
    assert told[0] == told[1]
    with process.connect("grpc") as other:
        with other.collection("gone").create_stream("s", dtype="u1", shape=(BLOCK,), new_version=True) as s:
            s.extend(np.ones((8, BLOCK), "u1"))
        gone = buffer["gone/s"]
        other.store.delete_stream(s.info.id)
    with pytest.raises(StreamNotFound):
        list(gone)


# ------------------------------------------------------------------------------------------------- hostile readers


class Reader:
    """A read lane that is written by hand; keeps the descriptors that it is given."""

    def __init__(self, process: DataProcess, path: str, *, read: bool = True) -> None:
        self.remote = RemoteStore.connect(process.config.address, process.token)
        self.stream_id = self.remote.stream(path).id
        offer = self.remote._lane_offers(self.stream_id, read=read)[0]
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(offer.address.partition(":")[2])
        self.connection.settimeout(60)
        self.connection.sendall(frame(Kind.HELLO, offer.ticket, VERSION))
        self.memories: dict[int, tuple[int, int]] = {}  # by number: descriptor and size

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.remote.close()
        for descriptor, _ in self.memories.values():
            os.close(descriptor)

    def ask(self, stream_id: str | None = None, kind: Kind = Kind.READ) -> None:
        selection = wire.encode_selection(Selection())
        request = streams_pb2.ReadRequest(stream_id=stream_id or self.stream_id, selection=selection)
        self.connection.sendall(frame(kind, request.SerializeToString()))

    def hear(self) -> tuple[Head, bytes] | None:
        head_bytes = self.connection.recv(HEAD_BYTES, socket.MSG_WAITALL)
        if not head_bytes:
            return None
        head = Head.unpack(head_bytes, "reply")
        if head.kind == Kind.LENT:
            body, descriptors, _, _ = socket.recv_fds(self.connection, head.body_bytes, 1, socket.MSG_WAITALL)
            number, _, size = LENT.unpack(body)
            self.memories[number] = descriptors[0], size
            return head, body
        return head, self.connection.recv(head.body_bytes, socket.MSG_WAITALL) if head.body_bytes else b""

    def until(self, kind: Kind) -> bytes:
        """The body of the next frame of that kind."""
        while (heard := self.hear()) is not None:
            if heard[0].kind == kind:
                return heard[1]
            assert heard[0].kind != Kind.ERROR, heard[1]
        raise AssertionError(f"the lane ended before {kind.name}")

    def to_the_end(self) -> None:
        """Take a whole read, giving nothing back."""
        while (heard := self.hear()) is not None and heard[0].kind != Kind.END:
            assert heard[0].kind != Kind.ERROR, heard[1]
            if heard[0].kind == Kind.BLOCKS:
                self.connection.sendall(frame(Kind.GIVE_BACK))

    def error(self) -> HissError:
        while (heard := self.hear()) is not None:
            if heard[0].kind == Kind.ERROR:
                found = decode_reply(*heard)
                assert isinstance(found, HissError)
                return found
        raise AssertionError("the lane ended without a word")


def test_a_reader_cannot_write_what_it_is_lent(process: DataProcess, before: Held) -> None:
    """Not by the descriptor, nor by one that is opened again through /proc; the server goes on with that memory."""
    with Reader(process, "one/s") as reader:
        reader.ask()
        reader.until(Kind.BLOCKS)
        (descriptor, size), *_ = reader.memories.values()
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
        for each in (descriptor, again):
            for attempt in (
                lambda each=each: os.pwrite(each, b"x", 0),
                lambda each=each: os.ftruncate(each, 0),
                lambda each=each: os.ftruncate(each, 2 * size),
                lambda each=each: mmap.mmap(each, size),
            ):
                with pytest.raises(PermissionError):
                    attempt()
        os.close(again)
        mapped = np.frombuffer(mmap.mmap(descriptor, size, prot=mmap.PROT_READ), np.uint8)
        assert (mapped[: 8 * BLOCK].reshape(8, -1) == wanted(0)[:8, None]).all()


def test_a_reader_sees_only_its_own_collection(process: DataProcess, before: Held) -> None:
    """All bytes of all memory that readers of two collections get, the ends behind the blocks too."""
    with Reader(process, "one/s") as one, Reader(process, "two/s") as two:
        for reader in (one, two):
            reader.ask()
            reader.to_the_end()
        for number, reader in enumerate((one, two)):
            allowed = {0, *wanted(number).tolist()}
            assert reader.memories
            for descriptor, size in reader.memories.values():
                mapped = np.frombuffer(mmap.mmap(descriptor, size, prot=mmap.PROT_READ), np.uint8)
                assert set(np.unique(mapped).tolist()) <= allowed
        inodes = [{os.fstat(fd).st_ino for fd, _ in reader.memories.values()} for reader in (one, two)]
        assert not inodes[0] & inodes[1], "no memory is of both"


def test_a_lane_reads_no_other_stream(process: DataProcess, before: Held) -> None:
    with Reader(process, "one/s") as reader:
        reader.ask(reader.remote.stream("two/s").id)
        assert "another" in str(reader.error())
        assert not reader.memories
    with Reader(process, "one/s") as reader:
        reader.ask()
        reader.to_the_end()
        reader.ask(reader.remote.stream("two/s").id)  # nor later
        assert isinstance(reader.error(), InvalidInput)


def test_tickets_to_read_and_to_append_are_two_things(process: DataProcess, before: Held) -> None:
    with process.connect("grpc") as buffer:
        s = buffer.collection("live").create_stream("t", dtype="u1", shape=(BLOCK,), new_version=True)
        with Reader(process, "live/t", read=False) as reader:
            reader.ask()
            assert isinstance(reader.error(), InvalidInput)
        s.abort("fenced by that")
    with Reader(process, "one/s") as reader:
        reader.connection.sendall(Head(Kind.EXTENT, 0, 1, 20, 4).pack() + bytes(24))
        with contextlib.suppress(ConnectionResetError):
            assert reader.hear() is None


def test_a_ticket_to_read_is_good_once(process: DataProcess, before: Held) -> None:
    with contextlib.closing(RemoteStore.connect(process.config.address, process.token)) as remote:
        (offer,) = remote._lane_offers(remote.stream("one/s").id, read=True)
        with contextlib.closing(ReadLane(offer.address, offer.ticket, "first")):
            second = ReadLane(offer.address, offer.ticket, "second")
            with pytest.raises(PermissionRefused, match="used before"):
                second.begin(Kind.READ, b"")


@pytest.mark.parametrize(
    "message",
    [
        frame(Kind.READ, b"\xff" * 40),
        Head(Kind.READ, 0, 0, 2**32 - 1).pack(),
        Head(Kind.GIVE_BACK, 0, 0, 2**31).pack(),
        frame(Kind.GIVE_BACK, b"abc"),
        frame(Kind.COLUMNS, b"[]"),
        b"x" * HEAD_BYTES,
        b"".join(frame(Kind.FOLLOW) for _ in range(50)),
    ],
)
def test_frames_that_no_reader_says_end_the_lane(process: DataProcess, before: Held, message: bytes) -> None:
    with Reader(process, "one/s") as reader:
        reader.connection.sendall(message)
        with contextlib.suppress(ConnectionError):
            while (heard := reader.hear()) is not None:
                assert heard[0].kind in (Kind.ERROR, Kind.ALIVE)


def test_who_asks_again_before_the_end_is_cut_and_leaves_nothing(process: DataProcess, before: Held) -> None:
    """While the server waits for it to give back what the first read lent: no thread of the server's waits on."""
    threads = thread_count(process)
    for _ in range(5):
        with Reader(process, "one/s") as reader:
            reader.ask()
            for _ in range(limits.SHARED_READ_AHEAD):
                reader.until(Kind.BLOCKS)
            reader.ask()
            with contextlib.suppress(ConnectionError):
                assert reader.hear() is None
    wait_for(lambda: thread_count(process) <= threads + 4)


def test_giving_back_what_one_does_not_have_harms_nobody(process: DataProcess, before: Held) -> None:
    with Reader(process, "one/s") as reader:
        reader.connection.sendall(frame(Kind.GIVE_BACK, b"".join(NUMBER.pack(n) for n in range(5000))))
        reader.ask()
        reader.connection.sendall(frame(Kind.GIVE_BACK, b"".join(NUMBER.pack(0) for _ in range(5000))))
        reader.to_the_end()


# ------------------------------------------------------------------------------------------------- deaths

_READER = """
import sys, hiss
with hiss.connect(sys.argv[1]) as buffer:
    held = []
    for block in getattr(buffer["one/s"], sys.argv[2])():
        held.append(block)
        print(len(held), flush=True)
    print("all", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("how", "lines"), [("__iter__", 1), ("__iter__", BLOCKS), ("follow", 20)])
def test_a_reader_that_is_killed_leaves_nothing(process: DataProcess, before: Held, how: str, lines: int) -> None:
    """kill -9 while it holds leases: at its first block, in the middle, when it has them all."""
    environment = {"HISS_TOKEN": process.token, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", _READER, process.config.address, how]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as reader:
        for _ in range(lines):
            assert reader.stdout.readline()
        assert held(process).memories > before.memories
        reader.send_signal(signal.SIGKILL)
    wait_for(lambda: held(process) == before)


def test_a_reader_that_goes_in_the_middle_leaves_nothing(process: DataProcess, before: Held) -> None:
    """Closed after each frame that the server says."""
    number: Callable[[], int] = iter(range(100)).__next__
    while True:
        with Reader(process, "one/s") as reader:
            reader.ask()
            reader.connection.sendall(BLOCKS * frame(Kind.GIVE_BACK))
            heard = [reader.hear() for _ in range(number())]
            if heard and heard[-1] is not None and heard[-1][0].kind == Kind.END:
                break
