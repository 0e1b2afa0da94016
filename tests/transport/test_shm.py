"""The lane of shared memory over a real socket: who is trusted, and what a client does where it cannot be had."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import hiss
from hiss.client import Buffer
from hiss.errors import PermissionRefused, Unavailable
from hiss.model import StreamInfo
from hiss.transport import GrpcServer, RemoteStore, shm_server
from hiss.transport.shm_client import ShmAppend, Slots
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


@pytest.fixture
def nothing_left(server: GrpcServer) -> Iterator[None]:
    """No descriptor of either side outlives the lanes; both are in this process."""
    yield
    idle(server)
    gc.collect()  # errors refer to what was sent when they came
    assert not memories()
    assert "memfd:hiss" not in Path("/proc/self/maps").read_text()


def test_a_lane_whose_memory_is_refused_falls_back_without_loss(
    server: GrpcServer,
    connect: Callable[..., RemoteStore],
    store: MemoryStore,
    nothing_left: None,
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
    server: GrpcServer, connect: Callable[..., RemoteStore], store: MemoryStore, nothing_left: None
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
                wait_until(lambda: server.lanes and server.lanes._calls, "a lane is open")
                for call in list(server.lanes._calls.values()):
                    call.cut()
                cuts += 1
                wait_until(lambda cuts=cuts: s._reconnects >= cuts, "the writer is back")
        s.flush()
        assert isinstance(s._session, ShmAppend)
        assert s._buffers.slots is slots, "one memory for each producer"
    assert np.array_equal(np.asarray(buffer["c/s"]), data)
    assert slots._bytes.size == 0


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
    connect: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch, nothing_left: None
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
    assert os.stat(slots.descriptor).st_blocks * 20 == used * hiss.limits.SPARE_BUFFERS_MAX
    again = slots.take()
    assert again is not None
    assert again.all(), "a warm one"
    slots.close()
    assert slots.take() is None
    assert slots.place_of(again) is None
    assert again.all()


def test_memory_of_both_sides_goes_with_its_lane(
    connect: Callable[..., RemoteStore], server: GrpcServer, nothing_left: None
) -> None:
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
