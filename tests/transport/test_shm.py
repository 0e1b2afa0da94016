"""The lane of shared memory over a real socket: who is trusted, and what a client does where it cannot be had."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import hiss
from hiss import limits
from hiss.client import Buffer
from hiss.errors import BlockDamaged, PermissionRefused, Stopping, Unavailable
from hiss.extent import Extent
from hiss.model import FrameSpec, Selection, StreamInfo, StreamSpec
from hiss.transport import GrpcServer, RemoteStore, shm_server
from hiss.transport.lane_choice import Offer
from hiss.transport.read_call import ReadCall
from hiss.transport.shm_client import ShmAppend, Slots, SpareSlots
from transport.memory_store import MemoryStore
from transport.test_append import Producer, frames_of
from transport.test_lanes import idle
from transport.waiting import wait_until

BLOCK = 10_000


def memories() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [each for each in found if "memfd:hiss" in each]


@pytest.fixture(autouse=True)
def _nothing_left(server: GrpcServer) -> Iterator[None]:
    """No descriptor of either side outlives the lanes and clients; both are in this process."""
    yield
    idle(server)
    gc.collect()  # errors refer to what was sent when they came
    assert not memories()
    assert "memfd:hiss" not in Path("/proc/self/maps").read_text()


def test_a_lane_whose_memory_is_refused_falls_back_without_loss(
    server: GrpcServer,
    connect: Callable[..., RemoteStore],
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where the server has no descriptor left: the writer goes on over the Unix socket by itself."""

    def none(connection: object, view: object, what: str) -> int:
        raise Unavailable(f"{what}: no descriptor")

    monkeypatch.setattr(shm_server, "receive_descriptor", none)
    data = np.random.default_rng(0).integers(0, 255, (300, BLOCK)).astype("u1")
    buffer = Buffer(connect())
    with buffer.collection("c").create_stream("s", dtype="u1", shape=(BLOCK,), extent_bytes=50_000) as s:
        for block in data:
            s.append(block)
        s.flush()
        assert s._session.kind == "unix"  # type: ignore[attr-defined]
    assert s.report().reconnects == 1
    assert np.array_equal(np.asarray(buffer["c/s"]), data)


def test_memory_outlives_the_lane_and_is_announced_again(
    server: GrpcServer, connect: Callable[..., RemoteStore], store: MemoryStore
) -> None:
    """Lanes are cut while extents are under way; what was not acknowledged is sent again from where it lies."""
    data = np.random.default_rng(0).integers(0, 255, (400, BLOCK)).astype("u1")
    buffer = Buffer(connect(lane="shm"))
    assert server.lanes is not None
    s = buffer.collection("c").create_stream("s", dtype="u1", shape=(BLOCK,), extent_bytes=50_000)
    with s:
        slots, cuts = s._buffers.slots, 0
        assert isinstance(slots, Slots)
        for number, block in enumerate(data):
            s.append(block)
            if number % 100 == 50:
                wait_until(lambda: s._session.acknowledged, "the lane carried something")  # type: ignore[attr-defined]
                for call in list(server.lanes._calls.values()):
                    call.cut()
                cuts += 1
                wait_until(lambda cuts=cuts: s._reconnects >= cuts, "the writer is back")
        s.flush()
        assert isinstance(s._session, ShmAppend)
        assert s._buffers.slots is slots, "one memory for each producer"
    assert np.array_equal(np.asarray(buffer["c/s"]), data)
    with buffer.collection("c").create_stream("t", dtype="u1", shape=(BLOCK,), extent_bytes=50_000) as t:
        assert t._buffers.slots is slots, "it is warm"
        with buffer.collection("c").create_stream("u", dtype="u1", shape=(BLOCK,), extent_bytes=50_000) as u:
            assert u._buffers.slots is not slots
            for block in data:
                t.append(block)
                u.append(255 - block)
    assert np.array_equal(np.asarray(buffer["c/t"]), data)
    assert np.array_equal(np.asarray(buffer["c/u"]), 255 - data)
    buffer.close()
    assert slots._bytes.size == 0


def test_memory_in_which_something_is_unacknowledged_is_kept_for_nobody(
    server: GrpcServer, connect: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may still look at it for the one who had it."""
    buffer = Buffer(connect(lane="shm"))
    s = buffer.collection("c").create_stream("s", dtype="u1", shape=(BLOCK,), extent_bytes=50_000)
    slots = s._buffers.slots
    assert isinstance(slots, Slots)
    monkeypatch.setattr(s._buffers, "give", lambda _: None)
    s.append(np.zeros(BLOCK, "u1"))
    s.seal()
    assert slots._bytes.size == 0
    with buffer.collection("c").create_stream("t", dtype="u1", shape=(BLOCK,), extent_bytes=50_000) as t:
        assert t._buffers.slots is not slots
        t.append(np.zeros(BLOCK, "u1"))


def test_spare_memory_of_both_sides_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiss.limits, "SPARE_MEMORIES_MAX", 3)
    monkeypatch.setattr(hiss.limits, "SPARE_BUFFERS_BYTES", 40_000)
    spare = SpareSlots()

    def used(slot_bytes: int, count: int) -> Slots:
        slots = spare.slots(slot_bytes)
        for buffer in [slots.take() for _ in range(count)]:
            assert buffer is not None
            slots.give(buffer)
        return slots

    made = [used(4096, 1), used(8192, 2), used(4096, 1), used(16384, 1)]
    for slots in made:
        slots.close()
    assert [slots._closed for slots in made] == [True, False, False, False], "the oldest goes where there are too many"
    assert spare.slots(4096) is made[2]
    assert spare.slots(4096) not in made, "one is for one"
    large = used(32768, 1)
    large.close()
    assert [slots._closed for slots in (made[1], made[3], large)] == [True, True, False], "and where they are too large"
    spare.close()
    made[2].close()
    assert large._closed
    assert made[2]._closed


def test_trusted_are_producers_of_the_servers_own_user(
    server: GrpcServer, connect: Callable[..., RemoteStore], frames: StreamInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shm_server, "peer_user", lambda _: os.geteuid() + 1)
    for lane, refused in (("shm", False), ("shm:trusted", True)):
        producer = Producer(connect(lane=lane), frames.id)
        assert isinstance(producer.session, ShmAppend)
        slots = producer.session.share(1 << 16, None)
        assert slots is not None
        if refused:
            wait_until(lambda told=producer.errors: told, "the producer is told")
            assert type(producer.errors[0]) is PermissionRefused
        else:
            producer.session.send(frames_of(frames, 0, 3))
        producer.session.close()
        slots.close()
    idle(server)


def test_a_trusted_writer_that_is_not_says_so(
    connect: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shm_server, "peer_user", lambda _: os.geteuid() + 1)
    buffer = Buffer(connect(lane="shm:trusted"))
    s = buffer.collection("c").create_stream("s", dtype="u1", shape=(9,))
    wait_until(lambda: s._error is not None, "the writer is told")
    with pytest.raises(PermissionRefused, match="own user"):
        s.append(np.zeros(9, "u1"))
    with pytest.raises(PermissionRefused):
        s.detach()


def test_slots_are_pages_of_one_memory_and_cold_ones_take_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiss.limits, "SHARED_SLOTS_MAX", 20)
    slots = Slots(100_001)
    monkeypatch.setattr(hiss.limits, "SPARE_BUFFERS_BYTES", 8 * slots._slot_bytes)
    taken = [slots.take() for _ in range(21)]
    assert taken.pop() is None
    buffers = [each for each in taken if each is not None]
    starts = {slots.place_of(each) for each in buffers}
    assert len(starts) == 20
    assert all(start is not None and start % 4096 == 0 for start in starts)
    for each in buffers:
        assert each.size == 100_001
        each[:] = 1
    used = os.stat(slots.descriptor).st_blocks
    assert not slots.give(np.zeros(100_001, "u1")), "not ours"
    for each in buffers:
        assert slots.give(each)
    assert os.stat(slots.descriptor).st_blocks * 20 == used * 8
    again = slots.take()
    assert again is not None
    assert again.all(), "a warm one"
    slots.close()
    assert slots.take() is None
    assert slots.place_of(again) is None
    assert again.all()


def test_memory_of_both_sides_goes_with_its_lane(connect: Callable[..., RemoteStore], server: GrpcServer) -> None:
    buffer = Buffer(connect())

    def write(number: int) -> None:
        with buffer.collection("c").create_stream(f"s{number}", dtype="u1", shape=(BLOCK,)) as s:
            s.append(np.full(BLOCK, number, "u1"))
            s.flush()
            assert memories()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(16):
        assert (buffer[f"c/s{number}"][0] == number).all()


# ------------------------------------------------------------------------------------------------- readers

SIZE = 100_000


@pytest.fixture
def stream(connect: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch) -> StreamInfo:
    """Twelve blocks in as many extents, and a client to which each read is worth a lane."""
    monkeypatch.setattr(limits, "SHARED_READ_WORTH_BYTES", 0)
    remote = connect(lane="grpc")
    remote.create_collection("c", {}, [])
    info = remote.create_stream("c", "s", StreamSpec(FrameSpec("u1", (SIZE,))))
    producer = Producer(remote, info.id)
    for index in range(12):
        producer.session.send(Extent.of([index], np.full(SIZE, index, "u1"), [SIZE]))
    producer.session.close()
    return info


def read_of(remote: RemoteStore, info: StreamInfo, selection: Selection | None = None) -> Iterator[Extent]:
    remote.stream("c/s")  # so that its size is known
    return remote.read(info.id, selection or Selection())


def lent(extent: Extent) -> bool:
    return isinstance(extent.data.base, mmap.mmap | memoryview)


def test_a_lease_that_ran_out_replaces_the_memory(
    stream: StreamInfo, connect: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All leases run out at once and there are two memories: what is held stays as it is, and none is sent instead."""
    monkeypatch.setattr(limits, "SHARED_LEASE_S", -1.0)
    monkeypatch.setattr(limits, "SHARED_READ_MEMORIES_MAX", 2)
    held = list(read_of(connect(), stream))
    assert all(map(lent, held))
    assert [set(extent.data.tolist()) for extent in held] == [{index} for index in range(12)]


def test_leases_that_run_are_respected(
    stream: StreamInfo, connect: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: while they run, the two memories are not replaced, and the other blocks are sent."""
    monkeypatch.setattr(limits, "SHARED_READ_MEMORIES_MAX", 2)
    held = list(read_of(connect(), stream))
    assert [lent(extent) for extent in held] == [True] * 2 + [False] * 10
    assert [set(extent.data.tolist()) for extent in held] == [{index} for index in range(12)]
    assert not any(extent.data.flags.writeable for extent in held)


def test_the_server_is_little_ahead_of_its_reader(
    stream: StreamInfo, server: GrpcServer, connect: Callable[..., RemoteStore]
) -> None:
    reading = read_of(connect(), stream)
    next(reading)
    assert server.lanes is not None
    (call,) = server.lanes._calls.values()
    assert isinstance(call, ReadCall)
    wait_until(lambda: not call._wanted._value, "it waits")
    assert len(call._lent._leases) == limits.SHARED_READ_AHEAD
    reading.close()  # type: ignore[attr-defined]


def test_all_readers_together_are_lent_a_bounded_amount(
    stream: StreamInfo, server: GrpcServer, connect: Callable[..., RemoteStore]
) -> None:
    assert server.lanes is not None
    server.lanes._lent._left = 3 * limits.MiB  # of what each block takes one
    remote = connect()
    reads = [list(read_of(remote, stream)) for _ in range(2)]
    assert sum(map(lent, (extent for read in reads for extent in read))) <= 6
    for read in reads:
        assert [int(extent.data[-1]) for extent in read] == list(range(12))


def test_a_refused_lane_is_read_over_grpc(
    stream: StreamInfo, server: GrpcServer, connect: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.lanes is not None
    monkeypatch.setattr(server.lanes._read_lanes, "_limit", 0)
    found = list(read_of(connect(), stream))
    assert [int(extent.data[0]) for extent in found] == list(range(12))
    assert not any(map(lent, found))


def test_a_client_that_is_closed_meanwhile_opens_no_lane(
    stream: StreamInfo, server: GrpcServer, connect: Callable[..., RemoteStore]
) -> None:
    """Nobody would cut that lane, and its thread would wait for the server for ever."""
    remote = connect()
    offers = remote._lane_offers

    def closing(stream_id: str, *, read: bool = False) -> list[Offer]:
        found = offers(stream_id, read=read)
        remote._reads.close()
        return found

    remote._reads._ask = closing
    follower = remote.follow(stream.id, None, threading.Event())
    assert not lent(next(follower))
    follower.close()  # type: ignore[attr-defined]
    idle(server)


def test_an_idle_lane_that_broke_is_opened_again(
    stream: StreamInfo, server: GrpcServer, connect: Callable[..., RemoteStore]
) -> None:
    remote = connect()
    assert server.lanes is not None
    for _ in range(3):
        assert lent(next(read_of(remote, stream, Selection(newest=True))))
        for call in list(server.lanes._calls.values()):
            call.cut()
        idle(server)


def test_idle_lanes_are_few_and_take_no_place(
    stream: StreamInfo, server: GrpcServer, connect: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = connect()
    monkeypatch.setattr(limits, "READ_LANES_IDLE_MAX", 2)
    for number in range(5):
        info = remote.create_stream("c", f"s{number}", StreamSpec(FrameSpec("u1", (SIZE,))))
        producer = Producer(remote, info.id)
        producer.session.send(Extent.of([0], np.full(SIZE, number, "u1"), [SIZE]))
        producer.session.close()
        remote.stream(f"c/s{number}")
        assert int(next(remote.read(info.id, Selection(newest=True))).data[0]) == number
    assert server.lanes is not None
    wait_until(lambda: server.lanes and len(server.lanes._calls) == 2, "the oldest ones went")
    wait_until(lambda: not server._long_calls.inside, "none takes a place")
    monkeypatch.setattr(limits, "SHARED_READ_IDLE_S", 0.0)
    remote.close()
    idle(server)


def test_damaged_blocks_are_told(stream: StreamInfo, store: MemoryStore, connect: Callable[..., RemoteStore]) -> None:
    """What is lent is hashed by its reader like what is sent."""
    block = store._find(stream.id).blocks[5]
    block.data[3] ^= 1
    found = []
    with pytest.raises(BlockDamaged, match="block 5"):
        found.extend(extent.index[0] for extent in read_of(connect(), stream))


@pytest.mark.parametrize("follow", [False, True])
def test_a_server_that_stops_ends_reads_by_name(
    stream: StreamInfo, server: GrpcServer, connect: Callable[..., RemoteStore], follow: bool
) -> None:
    remote = connect()
    reading = remote.follow(stream.id, None, threading.Event()) if follow else read_of(remote, stream)
    first = next(reading)
    stopper = threading.Thread(target=server.stop, args=(20.0,))
    stopper.start()
    if follow:
        with pytest.raises(Stopping):
            list(reading)
    else:
        assert len(list(reading)) == 11, "a read runs to its end"
    stopper.join()
    assert first.data[0] == 0


def test_a_client_that_closes_ends_its_reads(
    stream: StreamInfo, server: GrpcServer, connect: Callable[..., RemoteStore]
) -> None:
    remote = connect()
    reading = remote.follow(stream.id, None, threading.Event())
    first = next(reading)
    remote.close()
    with pytest.raises(Unavailable):
        list(reading)
    idle(server)
    assert first.data[0] == 0
