"""Producers that share memory with a server in its own process: what they announce lands as it was, and whatever they
do to the memory changes nothing that was acknowledged, stops nobody else and leaves nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss.client import Buffer
from hiss.errors import (
    BlockDamaged,
    DigestMismatch,
    HissError,
    InvalidInput,
    LimitExceeded,
    Unavailable,
)
from hiss.extent import Extent
from hiss.limits import MiB
from hiss.model import AppendStart, FrameSpec, Selection, StreamInfo, StreamSpec
from hiss.testing.conformance import double, wait_for
from hiss.testing.processes import DataProcess
from hiss.transport import RemoteStore
from hiss.transport.lane_client import kind_of
from hiss.transport.lane_framing import HEAD_BYTES, TRUSTED, VERSION, ExtentFramer, Head, Kind, decode_reply, frame
from hiss.transport.shared_memory import SIZE, make_memory
from hiss.transport.shm_client import ShmAppend, Slots

SIZE_BYTES = 1 << 20  # of the attackers' memory
BLOCK = 1 << 16


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataProcess]:
    data = tmp_path_factory.mktemp("shm") / "data"
    data.mkdir()
    with DataProcess(data) as process:
        threads = thread_count(process)
        yield process
        assert thread_count(process) < threads + 40, "of a hundred lanes and more none left one"


@pytest.fixture
def buffer(process: DataProcess) -> Iterator[Buffer]:
    """After each test the server is the same one, holds nothing more than before, and still takes blocks."""
    before, pid = held(process), process._process.pid
    with process.connect("shm") as buffer:
        yield buffer
        assert process._process.pid == pid
        assert process._process.poll() is None, process.log.read_text()[-2000:]
        with buffer.collection("after").create_stream("s", dtype="u1", shape=(BLOCK,), new_version=True) as s:
            s.append(np.ones(BLOCK, "u1"))
        assert s.report().completeness.blocks == 1
    wait_for(lambda: held(process) == before)


def thread_count(process: DataProcess) -> int:
    return len(list(Path(f"/proc/{process._process.pid}/task").iterdir()))


@dataclass(frozen=True)
class Held:
    """What a server's process holds on behalf of its lanes."""

    memories: int
    mapped: int
    arena_bytes: int


def held(process: DataProcess) -> Held:
    """Counted from outside."""
    place = Path(f"/proc/{process._process.pid}")
    open_files = []
    for entry in (place / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            open_files.append(os.readlink(entry))
    with process.connect("grpc") as buffer:
        status = buffer.status()
    return Held(
        sum("memfd:" in name for name in open_files),
        (place / "maps").read_text().count("memfd:"),
        status.arena_bytes - status.arena_free_bytes,
    )


class Attacker:
    """A producer on a lane that is written by hand."""

    def __init__(self, process: DataProcess, name: str, lane: str = "shm", **spec: Any) -> None:
        self.remote = RemoteStore.connect(process.config.address, process.token, lane="grpc")
        self.remote.create_collection("attack", {}, [])
        self.info: StreamInfo = self.remote.create_stream(
            "attack", name, StreamSpec(FrameSpec("u1", (BLOCK,)), **spec), new_version=True
        )
        (offer,) = [each for each in self.remote._lane_offers(self.info.id) if kind_of(each.address) == lane]
        if lane == "tcp":
            host, _, port = offer.address.rpartition(":")
            self.connection = socket.create_connection((host, int(port)))
        else:
            self.connection = socket.socket(socket.AF_UNIX)
            self.connection.connect(offer.address.partition(":")[2])
        self.connection.settimeout(60)
        self.connection.sendall(frame(Kind.HELLO, offer.ticket, VERSION))
        assert isinstance(self.hear(), AppendStart)
        self.framer = ExtentFramer()

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.remote.close()

    def hear(self) -> Any:
        """The next that is said, or None at the end."""
        head = self.connection.recv(HEAD_BYTES, socket.MSG_WAITALL)
        if not head:
            return None
        found = Head.unpack(head, "reply")
        return decode_reply(found, self.connection.recv(found.body_bytes, socket.MSG_WAITALL))

    def answer(self) -> HissError | None:
        """How the lane ends, once nothing more is sent."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        last = None
        with contextlib.suppress(ConnectionError):
            while (said := self.hear()) is not None:
                last = said
        return last if isinstance(last, HissError) else None

    def announce(self, *descriptors: int, size: int = SIZE_BYTES, flags: int = 0) -> None:
        with contextlib.suppress(BrokenPipeError):  # it was refused by its head already; `answer` says why
            self.connection.sendall(Head(Kind.MEMORY, flags, 0, SIZE.size).pack())
            socket.send_fds(self.connection, [SIZE.pack(size)], descriptors)

    def say(self, extent: Extent, place: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended already; `answer` says why
            self.connection.sendall(b"".join(bytes(part) for part in self.framer.parts(extent, place)))

    def stored(self) -> dict[int, bytes]:
        """What can be read back, every block checked against its digest on the way."""
        found = list(self.remote.read(self.info.id, Selection()))
        return {int(e.index[i]): e.data[a : a + BLOCK].tobytes() for e in found for i, a in enumerate(e.offsets[:-1])}


@pytest.fixture
def attack(process: DataProcess, buffer: Buffer, request: pytest.FixtureRequest) -> Iterator[Callable[..., Attacker]]:
    with contextlib.ExitStack() as stack:
        number = iter(range(1000))

        def make(**spec: Any) -> Attacker:
            name = f"{request.node.name.partition('[')[0]}-{next(number)}"
            return stack.enter_context(Attacker(process, name, **spec))

        yield make


@pytest.fixture
def memory() -> Iterator[tuple[int, np.ndarray]]:
    """Sealed memory and its bytes, random."""
    descriptor = make_memory("attacker", SIZE_BYTES)
    view = np.frombuffer(mmap.mmap(descriptor, SIZE_BYTES), np.uint8)
    view[:] = np.random.default_rng(3).integers(0, 255, SIZE_BYTES)
    yield descriptor, view
    os.close(descriptor)


def block_of(index: int, data: np.ndarray) -> Extent:
    return Extent.of([index], data, [data.size])


# ------------------------------------------------------------------------------------------------- what it is for


def test_blocks_travel_by_their_places_and_their_memory_is_used_again(
    process: DataProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted: nearly nothing goes through the socket, the blocks are appended straight into the shared memory."""
    sent: list[int] = []
    real = ShmAppend._parts

    def counted(session: ShmAppend, part: Extent) -> Any:
        parts = real(session, part)
        sent.append(sum(len(each) for each in parts))
        return parts

    monkeypatch.setattr(ShmAppend, "_parts", counted)
    data = np.random.default_rng(1).integers(0, 255, (80, 300, 1000)).astype("u1")
    before = open_memories()
    buffer = process.connect("shm")
    with buffer.collection("c").create_stream("s", dtype="u1", shape=(300, 1000), columns={"angle": "f8 deg"}) as s:
        for k, image in enumerate(data[:40]):
            s.append(image, angle=k)
        s.extend(data[40:], angle=np.arange(40.0))
        slots = s._buffers.slots
        assert isinstance(slots, Slots)
        assert all(slots.place_of(packet.extent.data) is not None for packet in s._sent)
        s.flush()
        assert len(slots._warm) * slots._slot_bytes <= hiss.limits.SPARE_BUFFERS_BYTES
        assert len(slots._warm) + len(slots._cold) == 64, "all of them are free again"
    assert sum(sent) < data.nbytes / 100
    assert np.array_equal(np.asarray(buffer["c/s"]), data)
    assert np.array_equal(buffer["c/s"].columns["angle"], np.tile(np.arange(40.0), 2))
    buffer.close()
    assert open_memories() == before, "it goes with the connection"


def open_memories() -> tuple[int, int]:
    names = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    return sum("hiss producer" in name for name in names), Path("/proc/self/maps").read_text().count("hiss producer")


def test_what_finds_no_slot_goes_through_the_socket(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiss.limits, "SHARED_SLOTS_MAX", 1)
    rng = np.random.default_rng(2)
    blocks = [rng.integers(0, 255, size).astype("u1").tobytes() for size in (5, 3 * MiB, 70_000, 20_000, 2 * MiB, 1)]
    with buffer.collection("c").create_stream("mixed", extent_bytes=100_000) as s:
        for block in blocks:
            s.append(block)
        assert isinstance(s._session, ShmAppend)
    assert [block.data for block in buffer["c/mixed"]] == blocks


def test_without_such_memory_it_is_a_unix_lane(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> int:
        raise OSError(38, "no such call")

    monkeypatch.setattr(os, "memfd_create", none)
    with buffer.collection("c").create_stream("none", dtype="u1", shape=(9,)) as s:
        s.append(np.arange(9, dtype="u1"))
        assert isinstance(s._session, ShmAppend)
        assert s._buffers.slots is None
    assert np.array_equal(buffer["c/none"][0], np.arange(9))


def test_a_writer_that_was_forgotten_leaves_no_memory(buffer: Buffer) -> None:
    before = open_memories()
    slots = Slots(3 * MiB)
    view = slots.take()
    assert view is not None
    view[:] = 7
    assert open_memories() != before
    del slots
    gc.collect()
    assert view.sum() == 7 * 3 * MiB, "what is still held stays"
    del view
    gc.collect()
    assert open_memories() == before


# ------------------------------------------------------------------------------------------------- changes it


def test_what_is_changed_after_its_digest_is_refused(attack: Callable[..., Attacker], memory: Any) -> None:
    descriptor, view = memory
    with attack() as attacker:
        attacker.announce(descriptor)
        good = view[:BLOCK].tobytes()
        attacker.say(block_of(0, view[:BLOCK]), 0)
        while not isinstance(attacker.hear(), tuple):
            pass
        told = block_of(1, view[BLOCK : 2 * BLOCK])
        view[: 2 * BLOCK] ^= 1  # the first was taken, the second was not
        attacker.say(told, BLOCK)
        error = attacker.answer()
        assert isinstance(error, DigestMismatch)
        assert error.details["index"] == "1"
        assert attacker.stored() == {0: good}


def test_what_is_changed_while_it_is_taken_is_stored_as_it_was_or_not_at_all(
    attack: Callable[..., Attacker], memory: Any
) -> None:
    """A thread keeps flipping the bytes. Whatever is acknowledged has the digest that was sent."""
    descriptor, view = memory
    refused, stop = 0, threading.Event()
    original = view[:BLOCK].copy()

    def flip() -> None:
        while not stop.is_set():
            view[:BLOCK] ^= 255

    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        for _ in range(40):
            with attack() as attacker:
                attacker.announce(descriptor)
                for index in range(5):
                    attacker.say(block_of(index, original), 0)
                error = attacker.answer()
                assert error is None or isinstance(error, DigestMismatch), error
                refused += error is not None
                assert set(attacker.stored().values()) <= {original.tobytes()}
            if refused >= 3:
                break
    finally:
        stop.set()
        flipper.join()
    assert refused, "it was changed at least once, so the check was needed"


def test_holes_are_zeros_and_no_end_of_the_server(attack: Callable[..., Attacker], memory: Any) -> None:
    descriptor, view = memory
    told = block_of(0, view[:BLOCK].copy())
    with attack() as attacker:
        attacker.announce(descriptor)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        assert libc.fallocate(descriptor, 1 | 2, 0, SIZE_BYTES) == 0, "keep the size, punch a hole"
        assert not view.any()
        attacker.say(told, 0)
        assert isinstance(attacker.answer(), DigestMismatch)
    with attack() as attacker:
        attacker.announce(descriptor)
        attacker.say(block_of(0, np.zeros(BLOCK, "u1")), 0)
        assert attacker.answer() is None


# ------------------------------------------------------------------------------------------------- its size


def sealed(seals: int, size: int = SIZE_BYTES, flags: int = 0) -> int:
    descriptor = os.memfd_create("attacker", os.MFD_ALLOW_SEALING | flags)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


@pytest.mark.parametrize("change", [0, SIZE_BYTES - 1, SIZE_BYTES + 1, 16 * SIZE_BYTES])
def test_memory_that_was_announced_cannot_be_resized(attack: Callable[..., Attacker], memory: Any, change: int) -> None:
    """Not by its descriptor, nor by a new one through /proc; control: memory without the seals can."""
    descriptor, view = memory
    with attack() as attacker:
        attacker.announce(descriptor)
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
        for each in (descriptor, again):
            with pytest.raises(PermissionError):
                os.ftruncate(each, change)
        os.close(again)
        attacker.say(block_of(0, view[:BLOCK]), 0)
        assert attacker.answer() is None
        assert attacker.stored() == {0: view[:BLOCK].tobytes()}
    control = sealed(0)
    os.ftruncate(control, change)
    os.close(control)


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE, fcntl.F_SEAL_SEAL])
def test_memory_whose_size_is_not_sealed_is_refused(attack: Callable[..., Attacker], seals: int) -> None:
    descriptor = sealed(seals)
    with attack() as attacker:
        attacker.announce(descriptor)
        error = attacker.answer()
    os.close(descriptor)
    assert isinstance(error, InvalidInput)
    assert "seals" in str(error)


def test_huge_pages_are_refused_since_there_may_be_none(attack: Callable[..., Attacker]) -> None:
    try:
        descriptor = sealed(fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW, 2 * MiB, os.MFD_HUGETLB)
    except OSError as error:
        pytest.skip(f"no huge pages here: {error}")
    with attack() as attacker:
        attacker.announce(descriptor, size=2 * MiB)
        error = attacker.answer()
    os.close(descriptor)
    assert isinstance(error, InvalidInput)
    assert "huge" in str(error)


@pytest.mark.parametrize("what", ["file", "pipe", "socket", "directory"])
def test_what_is_no_memory_is_refused(attack: Callable[..., Attacker], tmp_path: Path, what: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE_BYTES))
    ends = {"pipe": os.pipe, "socket": lambda: [end.detach() for end in socket.socketpair()]}
    made = ends[what]() if what in ends else [os.open(path if what == "file" else tmp_path, os.O_RDONLY)]
    with attack() as attacker:
        attacker.announce(made[0])
        error = attacker.answer()
    for descriptor in made:
        os.close(descriptor)
    assert isinstance(error, InvalidInput)
    assert "memfd" in str(error)


# ------------------------------------------------------------------------------------------------- lies


@pytest.mark.parametrize(
    "place", [SIZE_BYTES, SIZE_BYTES - BLOCK + 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - BLOCK]
)
def test_blocks_behind_the_end_are_refused(attack: Callable[..., Attacker], memory: Any, place: int) -> None:
    with attack() as attacker:
        attacker.announce(memory[0])
        attacker.say(block_of(0, memory[1][:BLOCK]), place)
        error = attacker.answer()
        assert isinstance(error, InvalidInput)
        assert str(place) in str(error)
        assert attacker.stored() == {}


@pytest.mark.parametrize("length", [0, BLOCK - 1, BLOCK + 1, SIZE_BYTES])
def test_lengths_that_are_no_block_are_refused(attack: Callable[..., Attacker], memory: Any, length: int) -> None:
    with attack() as attacker:
        attacker.announce(memory[0])
        attacker.say(block_of(0, memory[1][:length]), 0)
        assert isinstance(attacker.answer(), HissError)
        assert attacker.stored() == {}


@pytest.mark.parametrize(
    ("size", "error"),
    [
        (0, LimitExceeded),
        (SIZE_BYTES - 1, InvalidInput),
        (SIZE_BYTES + 1, InvalidInput),
        (16 * SIZE_BYTES, InvalidInput),
        (2**63, LimitExceeded),
        (2**64 - 1, LimitExceeded),
    ],
)
def test_sizes_that_are_not_so_are_refused(
    attack: Callable[..., Attacker], memory: Any, size: int, error: type[HissError]
) -> None:
    with attack() as attacker:
        attacker.announce(memory[0], size=size)
        assert type(attacker.answer()) is error


def test_memory_above_the_limit_is_refused(attack: Callable[..., Attacker]) -> None:
    size = hiss.limits.SHARED_MEMORY_BYTES_MAX + 1
    descriptor = make_memory("attacker", size)  # takes none
    with attack() as attacker:
        attacker.announce(descriptor, size=size)
        assert isinstance(attacker.answer(), LimitExceeded)
    os.close(descriptor)


def test_announcements_that_are_none(attack: Callable[..., Attacker], memory: Any) -> None:
    descriptor, view = memory
    told = block_of(0, view[:BLOCK])

    def twice(attacker: Attacker) -> None:
        attacker.announce(descriptor)
        attacker.announce(descriptor)

    def without_body(attacker: Attacker) -> None:
        attacker.connection.sendall(Head(Kind.MEMORY, 0, 0, 0).pack())

    cases: list[tuple[type[HissError], Callable[[Attacker], None]]] = [
        (Unavailable, lambda attacker: attacker.announce()),
        (InvalidInput, lambda attacker: attacker.announce(descriptor, flags=2)),
        (InvalidInput, lambda attacker: attacker.say(told, 0)),
        (InvalidInput, twice),
        (InvalidInput, without_body),
    ]
    for error, act in cases:
        with attack() as attacker:
            act(attacker)
            assert type(attacker.answer()) is error


@pytest.mark.parametrize("lane", ["unix", "tcp"])
def test_other_lanes_take_no_memory(attack: Callable[..., Attacker], memory: Any, lane: str) -> None:
    with attack(lane=lane) as attacker:
        if lane == "unix":
            attacker.announce(memory[0])
        else:
            attacker.connection.sendall(frame(Kind.MEMORY, SIZE.pack(SIZE_BYTES)))
        assert isinstance(attacker.answer(), InvalidInput)
    with attack(lane=lane) as attacker:
        attacker.say(block_of(0, memory[1][:BLOCK]), 0)
        assert isinstance(attacker.answer(), InvalidInput)


def test_descriptors_that_nobody_asked_for_are_not_kept(
    process: DataProcess, attack: Callable[..., Attacker], memory: Any
) -> None:
    """Several with one announcement, and some with each frame of another kind."""
    descriptor, view = memory
    before = held(process)
    with attack() as attacker:
        attacker.announce(*[descriptor] * 20)
        for index in range(20):
            head, data = attacker.framer.parts(block_of(index, view[:BLOCK]))
            socket.send_fds(attacker.connection, [bytes(head)], [descriptor] * 10)
            attacker.connection.sendall(data.data)
        while not (isinstance(said := attacker.hear(), tuple) and said[0].durable == 20):
            pass
        now = held(process)
        assert now.memories - before.memories == 1, "its own"
        assert now.mapped - before.mapped == 1
        assert attacker.answer() is None


# ------------------------------------------------------------------------------------------------- trust


def test_trusted_blocks_are_not_hashed_and_never_served_as_good(attack: Callable[..., Attacker], memory: Any) -> None:
    descriptor, view = memory
    with attack() as attacker:
        attacker.announce(descriptor, flags=TRUSTED)
        attacker.say(block_of(0, view[:BLOCK]), 0)
        told = block_of(1, view[BLOCK : 2 * BLOCK])
        bad = replace(told, digest=told.digest ^ np.uint64(1), source_digest=told.digest ^ np.uint64(1))
        attacker.say(bad, BLOCK)
        assert attacker.answer() is None
        reader = attacker.remote.read(attacker.info.id, Selection(0, 1))
        assert next(reader).data.tobytes() == view[:BLOCK].tobytes()
        with pytest.raises(BlockDamaged, match="segment"):  # the server finds out, when it reads it from the log
            list(attacker.remote.read(attacker.info.id, Selection(1, 2)))


def test_trusted_blocks_that_kernels_change_are_hashed(attack: Callable[..., Attacker], memory: Any) -> None:
    descriptor, view = memory
    with attack(kernels=(double.bind(),)) as attacker:
        attacker.announce(descriptor, flags=TRUSTED)
        told = block_of(0, view[:BLOCK])
        attacker.say(replace(told, digest=told.digest ^ np.uint64(1)), 0)
        assert isinstance(attacker.answer(), DigestMismatch)


def test_a_trusted_writer(process: DataProcess, buffer: Buffer) -> None:
    data = np.random.default_rng(7).integers(0, 255, (20, 300, 1000)).astype("u1")
    with process.connect("shm:trusted") as trusted:
        with trusted.collection("c").create_stream("trusted", dtype="u1", shape=(300, 1000)) as s:
            for image in data:
                s.append(image)
        assert np.array_equal(np.asarray(trusted["c/trusted"]), data)


# ------------------------------------------------------------------------------------------------- deaths

_PRODUCER = """
import sys, numpy as np, hiss
with hiss.connect(sys.argv[1], lane=sys.argv[3]) as buffer:
    s = buffer.collection("c").create_stream(sys.argv[2], dtype="u1", shape=(500_000,), resume=True, linger_s=0)
    block = np.random.default_rng(0).integers(0, 255, 500_000).astype("u1")
    for index in range(s.next_index, 1_000_000):
        block[:8] = np.frombuffer(index.to_bytes(8, "little"), "u1")
        s.append(block)
        print(s.acknowledged, flush=True)
"""


@pytest.mark.parametrize("lane", ["shm", "shm:trusted"])
def test_a_producer_that_is_killed_leaves_nothing_and_loses_nothing(
    process: DataProcess, buffer: Buffer, lane: str
) -> None:
    """kill -9 at moments that follow from a seed; the same stream is gone on with."""
    rng, before = np.random.default_rng(11), held(process)
    name, acknowledged = f"killed-{lane.partition(':')[2]}", 0
    environment = {"HISS_TOKEN": process.token, "PYTHONUNBUFFERED": "1"}
    for _ in range(3):
        command = [sys.executable, "-c", _PRODUCER, process.config.address, name, lane]
        lines, already = int(rng.integers(30, 60)), acknowledged
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as producer:
            assert producer.stdout is not None
            for _ in range(lines):
                acknowledged = already + int(producer.stdout.readline())
            producer.send_signal(signal.SIGKILL)
        wait_for(lambda: held(process) == before)
        assert len(buffer["c/" + name]) >= acknowledged
    index = buffer[f"c/{name}"].index
    assert np.array_equal(index, np.arange(len(index)))
    for block in buffer[f"c/{name}"]:
        assert int(block.data[:8].view("<u8")[0]) == block.index


def test_a_producer_that_dies_in_its_announcement(attack: Callable[..., Attacker], memory: Any) -> None:
    """Cut behind every byte that may come; the server is what it was (see `buffer`)."""
    told = b"".join(bytes(part) for part in ExtentFramer().parts(block_of(0, memory[1][:BLOCK]), 0))
    head = Head(Kind.MEMORY, 0, 0, SIZE.size).pack()
    for length in (1, HEAD_BYTES - 1, HEAD_BYTES):
        with attack() as attacker:
            attacker.connection.sendall(head[:length])
    for length in (1, SIZE.size - 1):
        with attack() as attacker:
            attacker.connection.sendall(head)
            socket.send_fds(attacker.connection, [SIZE.pack(SIZE_BYTES)[:length]], [memory[0]])
    for length in range(1, len(told), 7):
        with attack() as attacker:
            attacker.announce(memory[0])
            attacker.connection.sendall(told[:length])


def test_acknowledged_means_copied(attack: Callable[..., Attacker], memory: Any) -> None:
    """The place may be written again as soon as its blocks count as received."""
    descriptor, view = memory
    wanted = {}
    with attack() as attacker:
        attacker.announce(descriptor)
        for index in range(50):
            view[:BLOCK] = np.random.default_rng(index).integers(0, 255, BLOCK)
            wanted[index] = view[:BLOCK].tobytes()
            attacker.say(block_of(index, view[:BLOCK]), 0)
            while not (isinstance(said := attacker.hear(), tuple) and said[0].received == index + 1):
                pass
            view[:BLOCK] = 0
        assert attacker.answer() is None
        assert attacker.stored() == wanted
