"""A producer in the process of its buffer gathers its blocks in the arena: they are copied once, and every place comes
back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

import hiss
from hiss import landing, limits
from hiss.blocks import Arena, Region, Storage
from hiss.client import Buffer
from hiss.errors import HissError, ProducerFenced
from hiss.extent import Extent
from hiss.gathering import Buffers
from hiss.landing import Landed, Spaces
from hiss.limits import KiB, MiB
from hiss.testing.conformance import wait_for
from hiss.writer import StreamWriter

SLOT = 512 * KiB
SHAPE = (2, 1024, 1024)  # of uint16: a block of 4 MiB, half of a slot


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    with hiss.open(tmp_path / "data", arena_bytes=64 * MiB, segment_bytes=64 * MiB, backend="numpy") as buffer:
        yield buffer


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 1 << 16, (count, *SHAPE)).astype("u2")


def producer(buffer: Buffer, name: str = "s", **spec: Any) -> StreamWriter:
    return buffer.collection("c").create_stream(name, dtype="u2", shape=SHAPE, **spec)


def storage(buffer: Buffer) -> Storage:
    return buffer.store._node.storage  # type: ignore[attr-defined]


def all_is_free(buffer: Buffer) -> bool:
    return storage(buffer).usage().arena_free_bytes == buffer.store.status().arena_bytes


def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many bytes each, into the arena, from now on."""
    made: list[int] = []
    real = landing._copy

    def counted(piece: Extent, region: Region | None, received_ns: int) -> Extent:
        made.append(piece.data.size)
        return real(piece, region, received_ns)

    monkeypatch.setattr(landing, "_copy", counted)
    return made


@pytest.mark.parametrize("ack", ["received", "durable"])
def test_what_is_appended_has_landed(buffer: Buffer, monkeypatch: pytest.MonkeyPatch, ack: str) -> None:
    """Copied once, and digested once: by the producer."""
    made, checked, real = copies(monkeypatch), [], landing.block_digests
    monkeypatch.setattr(landing, "block_digests", lambda *blocks: (checked.append(1), real(*blocks))[1])
    data = frames(40)  # more than the arena has
    with producer(buffer, ack=ack) as s:
        for block in data[:20]:
            s.append(block)
        s.extend(data[20:])
    assert not made
    assert not checked
    assert np.array_equal(np.asarray(buffer["c/s"]), data)
    with producer(buffer, "lent") as s:
        s.append(data[0], copy=False)
    assert made == [data[0].nbytes], "else this test sees nothing"
    assert checked == [1]


def test_blocks_that_fill_extents_have_landed_too(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the first of them, from whose size the writer knows what follows."""
    made = copies(monkeypatch)
    data = np.random.default_rng(0).integers(0, 256, (200, limits.DIRECT_BYTES)).astype("u1")
    with buffer.collection("c").create_stream("s", dtype="u1", shape=data.shape[1:], linger_s=60.0) as s:
        for block in data:
            s.append(block)
    assert made == [8 * MiB, 2 * MiB], "the first, and the last, which is small"
    assert np.array_equal(np.asarray(buffer["c/s"]), data)
    frames = np.concatenate([data, data]).reshape(-1, 2 * limits.DIRECT_BYTES)[:160]
    with buffer.collection("c").create_stream("t", dtype="u1", shape=frames.shape[1:], linger_s=60.0) as s:
        for frame in frames:
            s.append(frame)
    assert len(made) == 2, "not even the first of blocks that are not small"
    assert np.array_equal(np.asarray(buffer["c/t"]), frames)


def test_small_extents_are_copied_out_of_their_slots(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would keep the place of large ones until they are durable."""
    made = copies(monkeypatch)
    data = frames(3)
    with buffer.collection("c").create_stream("s") as s:
        for block in data:
            s.append(block.tobytes())
            s.flush()
            s.append(b"small")
            s.flush()
    assert made == [5, 5, 5]
    assert [bytes(block) for block in buffer["c/s"][:]] == [x for block in data for x in (block.tobytes(), b"small")]


def test_the_main_thread_leaves_the_arena_alone(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C raises there between any two steps, also between those that keep the arena's books."""
    touched: set[threading.Thread] = set()

    def watched(name: str, real: Any) -> Any:
        def watch(*args: Any, **more: Any) -> Any:
            touched.add(threading.current_thread())
            return real(*args, **more)

        return watch

    with producer(buffer) as s:
        monkeypatch.setattr(Arena, "allocate", watched("allocate", Arena.allocate))
        monkeypatch.setattr(Region, "hold", watched("hold", Region.hold))
        monkeypatch.setattr(Region, "release", watched("release", Region.release))
        for block in frames(6):
            s.append(block)
        s.flush()
        s.detach()
    assert touched
    assert threading.main_thread() not in touched
    buffer.store.seal_stream(s.info.id)


@pytest.mark.parametrize("end", ["seal", "abort", "detach", "error"])
def test_every_place_comes_back(buffer: Buffer, end: str) -> None:
    s = producer(buffer)
    s.append(frames(1)[0])
    s.flush()
    s.append(frames(1)[0])
    if end == "error":
        producer(buffer, resume=True).seal()
        with pytest.raises(HissError):
            s.seal()
    elif end == "abort":
        s.abort("enough")
    else:
        getattr(s, end)()
    wait_for(lambda: all_is_free(buffer))


def test_a_writer_that_failed_keeps_no_memory(buffer: Buffer) -> None:
    """Closed or forgotten."""
    s = producer(buffer)
    s.append(frames(1)[0])
    s.flush()
    producer(buffer, resume=True).seal()
    wait_for(lambda: s._error is not None)
    wait_for(lambda: all_is_free(buffer))
    with pytest.raises(ProducerFenced):
        s.append(frames(1)[0])
    with pytest.raises(ProducerFenced):
        s.extend(frames(1))
    assert all_is_free(buffer)


def test_a_slot_that_comes_back_late_is_nobodys_spare_memory(buffer: Buffer) -> None:
    """It is the arena's again, and another stream's by then."""
    store = buffer.store
    buffers = Buffers(SLOT, store.spare_memory)
    buffers.slots = Spaces(storage(buffer).arena).slots(SLOT, lambda: True)
    assert buffers.slots is not None
    buffers.slots.prepare()
    slot = buffers.take(SLOT)
    buffers.close()
    buffers.give(slot)
    assert all_is_free(buffer)
    assert store.spare_memory.take(SLOT) is not slot


def test_memory_that_is_being_filled_is_nobody_elses(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the writer fails in the middle of a copy."""
    filling, go_on = threading.Event(), threading.Event()

    class Slow(np.ndarray):
        def view(self, *form: Any) -> Any:  # as the copy begins
            filling.set()
            go_on.wait(60)
            return super().view(*form)

    s = producer(buffer)
    s.append(frames(1)[0])
    s.flush()
    take = s._buffers.take
    monkeypatch.setattr(s._buffers, "take", lambda size: take(size).view(Slow))
    failed: list[HissError] = []

    def work() -> None:
        try:
            s.extend(frames(1))
            s.flush()
        except HissError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert filling.wait(60)
    s._on_error(s._generation, ProducerFenced("another one"))
    assert s._sender is not None
    s._sender.join(0.3)
    assert s._sender.is_alive(), "it does not let go yet"
    assert not all_is_free(buffer)
    go_on.set()
    thread.join(60)
    assert isinstance(failed[0], ProducerFenced)
    wait_for(lambda: all_is_free(buffer))


def test_producers_that_do_nothing_leave_room_for_the_others(buffer: Buffer) -> None:
    idle = [producer(buffer, f"idle{k}") for k in range(12)]
    for writer in idle:
        writer.append(frames(1)[0])
        writer.flush()
    data = frames(20)
    with producer(buffer, "busy", ack="received") as s:
        for block in data:
            s.append(block)
    largest = np.ones(storage(buffer).arena.largest_bytes, "u1")
    with buffer.collection("c").create_stream("large", dtype="u1", shape=largest.shape) as s:
        for _ in range(4):
            s.append(largest)
    assert np.array_equal(np.asarray(buffer["c/busy"]), data)
    for writer in idle:
        writer.seal()
    wait_for(lambda: all_is_free(buffer))


def test_while_room_is_promised_nobody_has_any_in_hand(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = copies(monkeypatch)
    data = frames(2)
    reservation = buffer.collection("other").reserve(MiB, hours=1)
    with producer(buffer) as s:
        s.append(data[0])
        s.flush()
        assert made == [data[0].nbytes]
        buffer.store.release(reservation.id)
        s.append(data[1])
    assert len(made) == 1
    assert np.array_equal(np.asarray(buffer["c/s"]), data)


@pytest.mark.parametrize("overload", ["wait", "drop"])
def test_a_full_arena_is_back_pressure(buffer: Buffer, monkeypatch: pytest.MonkeyPatch, overload: str) -> None:
    """With a policy the producer waits for nothing but its credit, for as long as it said."""
    go_on, real = threading.Event(), Storage.append

    def stuck(*args: Any) -> None:
        go_on.wait(60)
        real(*args)

    monkeypatch.setattr(Storage, "append", stuck)
    data = frames(40)
    with producer(buffer, ack="received", overload=overload, patience_s=0.0 if overload == "drop" else None) as s:

        def work() -> None:
            for block in data:
                s.append(block)

        thread = threading.Thread(target=work)
        thread.start()
        if overload == "wait":
            arena = storage(buffer).arena
            wait_for(lambda: bool(arena._waiting) or arena.free_bytes < arena.largest_bytes)
            assert thread.is_alive()
        else:
            thread.join(60)
        go_on.set()
        thread.join(60)
        assert not thread.is_alive()
    found = buffer["c/s"]
    assert found.info.completeness.blocks == len(data) - s.shed_blocks
    assert (s.shed_blocks > 0) is (overload == "drop")
    assert np.array_equal(np.asarray(found[:]), data[found.index])


class SlotsMachine(RuleBasedStateMachine):
    """Slots between a producer and the engine: whatever comes in whatever order, nobody's bytes are given to others,
    and nothing stays."""

    taken = Bundle("taken")

    @initialize()
    def begin(self) -> None:
        self.arena = Arena(16 * SLOT)
        self.spaces = Spaces(self.arena)
        slots = self.spaces.slots(SLOT, lambda: True)
        assert slots is not None
        self.slots = slots
        self.number = 0
        self.held: dict[int, Extent] = {}  # by the producer
        self.under_way: dict[int, list[Landed]] = {}
        self.closed = False

    def extent(self, number: int, buffer: np.ndarray, part: float) -> Extent:
        data = buffer[: max(1, int(part * len(buffer)))]
        data[:] = number % 251
        return Extent.of([number], data, [len(data)])

    @precondition(lambda self: not self.closed)
    @rule()
    def prepare(self) -> None:
        self.slots.prepare(0.0)

    @precondition(lambda self: not self.closed)
    @rule(target=taken, part=st.sampled_from([0.3, 0.5, 1.0]))
    def take(self, part: float) -> int:
        self.number += 1
        buffer = self.slots.take()
        if buffer is not None:
            self.held[self.number] = self.extent(self.number, buffer, part)
        else:
            assert self.slots.lacks(SLOT)
        return self.number

    @rule(number=taken)
    def land(self, number: int) -> None:
        if number in self.held:
            landed = self.slots.land(self.held[number], 7, lambda *_: None)
            assert (landed is None) is (2 * self.held[number].data.size < SLOT)
            if landed is not None:
                self.under_way.setdefault(number, []).append(landed)

    @rule(number=taken)
    def settle(self, number: int) -> None:
        for landed in self.under_way.pop(number, []):
            landed.done()

    @rule(number=consumes(taken))
    def give(self, number: int) -> None:
        if number in self.held:
            place = self.held.pop(number).data
            assert self.slots.give(place)
            assert not self.slots.give(place), "twice is once"

    @rule()
    def give_something_else(self) -> None:
        assert not self.slots.give(np.zeros(SLOT, "u1"))

    @rule()
    def close(self) -> None:
        self.slots.close()
        self.held.clear()
        self.closed = True
        assert self.slots.take() is None

    @invariant()
    def bytes_are_whose_they_were(self) -> None:
        if not hasattr(self, "arena"):
            return
        for number, extent in self.held.items():
            assert (extent.data == number % 251).all()
        for number, several in self.under_way.items():
            for landed in several:
                assert (landed.extent.data == number % 251).all()
        places = {extent.data.ctypes.data for extent in self.held.values()}
        places |= {each.extent.data.ctypes.data for several in self.under_way.values() for each in several}
        assert len(self.arena.live()) == len(places) + len(self.slots._ready)
        assert len(self.slots._ready) <= limits.ARENA_SLOTS_READY

    def teardown(self) -> None:
        if hasattr(self, "arena"):
            self.slots.close()
            for several in self.under_way.values():
                for landed in several:
                    landed.done()
            assert not self.arena.live()
            assert self.spaces._waiting_bytes == 0


TestSlotsMachine = SlotsMachine.TestCase
TestSlotsMachine.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
