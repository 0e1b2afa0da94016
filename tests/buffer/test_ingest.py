"""The way of the data when something goes wrong on it: memory comes back, nothing is half there or there twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hiss
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.errors import BlockTooLarge, DigestMismatch, HissError, InvalidInput, SpaceExhausted, SpecMismatch
from hiss.extent import Extent
from hiss.ingest import Ingest
from hiss.kernels import Pipeline
from hiss.landing import Landed
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.model import Ack, BlockStatus, FrameSpec, Keep, Selection, StreamInfo, StreamSpec
from hiss.node import Node
from hiss.session import Session
from hiss.testing.conformance import bright, double, frames, wait_for


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "data", StorageOptions(arena_bytes=8 * MiB, segment_bytes=8 * MiB), backend="numpy")
    yield node
    assert node.storage.usage().arena_free_bytes == node.storage.arena.capacity, "every region came back"
    node.close()


@pytest.fixture
def store(node: Node) -> LocalStore:
    store = LocalStore(node)
    store.create_collection("c", {}, [])
    return store


class Producer:
    """A session with all that it was told."""

    def __init__(self, store: LocalStore, info: StreamInfo) -> None:
        self.acks: list[Ack] = []
        self.errors: list[HissError] = []
        self.session: Session = store.open_append(info.id, self.acks.append, self.errors.append, lambda _: None)


def create(store: LocalStore, frame: FrameSpec, **spec: Any) -> StreamInfo:
    return store.create_stream("c", "s", StreamSpec(frame, **spec))


def extent(data: np.ndarray, first: int = 0) -> Extent:
    size = data[0].nbytes
    return Extent.of(
        np.arange(first, first + len(data)), data.reshape(-1).view(np.uint8), np.full(len(data), size, np.int64)
    )


def stored(store: LocalStore, info: StreamInfo) -> np.ndarray:
    parts = [found.frames(info.frame) for found in store.read(info.id, Selection())]
    return np.concatenate(parts)


FRAME = FrameSpec("u2", (4, 6))


def test_an_ack_counts_blocks_in_the_order_they_were_sent(store: LocalStore) -> None:
    info = create(store, FRAME)
    producer = Producer(store, info)
    producer.session.send(extent(frames(3)))
    producer.session.send(extent(frames(4), 3))
    producer.session.close()
    assert producer.acks[-1] == Ack(7, 7, 7)
    for ack in producer.acks:
        assert ack.durable <= ack.written <= ack.received
    for before, after in zip(producer.acks, producer.acks[1:], strict=False):
        assert (before.received, before.written, before.durable) <= (after.received, after.written, after.durable)


def test_bytes_that_changed_on_the_way_are_refused(store: LocalStore) -> None:
    info = create(store, FRAME)
    producer = Producer(store, info)
    bad = extent(frames(3))
    bad.digest[1] += np.uint64(1)
    with pytest.raises(DigestMismatch, match="block 1"):
        producer.session.send(bad)
    producer.session.close()
    assert not producer.acks
    assert store.stream("c/s").completeness.blocks == 0


def test_what_a_producer_may_not_say(store: LocalStore) -> None:
    info = create(store, FRAME)
    good = extent(frames(2))
    wrong: list[tuple[type[HissError], Callable[[], Extent]]] = [
        (InvalidInput, lambda: changed(good, index=np.array([0, 0]))),
        (InvalidInput, lambda: changed(good, index=np.array([-1, 0]))),
        (InvalidInput, lambda: changed(good, status=np.array([0, BlockStatus.VETOED], "u1"))),
        (SpecMismatch, lambda: changed(good, status=np.array([0, BlockStatus.SHED], "u1"))),
        (SpecMismatch, lambda: changed(good, length=np.array([47, 49]))),
        (SpecMismatch, lambda: changed(good, length=np.array([48, 47]))),
        (SpecMismatch, lambda: changed(good, length=np.array([-1, 97]))),
        (SpecMismatch, lambda: changed(good, time_ns=np.zeros(3, np.int64))),
        (SpecMismatch, lambda: changed(good, columns=np.zeros(2, [("x", "f8")]))),
    ]
    for kind, make in wrong:
        producer = Producer(store, info)
        with pytest.raises(kind):
            producer.session.send(make())
        producer.session.close()
    assert store.stream("c/s").completeness.first_index is None


def changed(original: Extent, **parts: Any) -> Extent:
    return replace(original, **parts)


def test_an_extent_larger_than_its_share_lands_in_pieces(store: LocalStore, node: Node) -> None:
    data = frames(10, (512, 512))  # 5 MiB, of an arena of 8 MiB
    info = create(store, FrameSpec("u2", (512, 512)), kernels=(double.bind(),))
    producer = Producer(store, info)
    producer.session.send(extent(data))
    producer.session.close()
    assert producer.acks[-1] == Ack(10, 10, 10)
    assert np.array_equal(stored(store, info), data * 2)


def test_a_block_that_the_arena_cannot_hold_is_refused_when_the_stream_is_created(store: LocalStore) -> None:
    with pytest.raises(BlockTooLarge, match="larger arena"):
        create(store, FrameSpec("u1", (3 * MiB,)))
    with pytest.raises(BlockTooLarge, match="larger arena"):
        create(store, FrameSpec("u1", (MiB,)), kernels=(bright.bind(), double.bind(gain=np.uint64(2))))
    info = create(store, FrameSpec(None, ()))
    producer = Producer(store, info)
    with pytest.raises(BlockTooLarge, match="block 0"):
        producer.session.send(Extent.of([0], np.zeros(3 * MiB, "u1"), [3 * MiB]))
    producer.session.close()


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
def test_a_failure_between_the_raw_block_and_its_result(
    store: LocalStore, node: Node, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Whichever record fails, what is sent again ends as if nothing had happened."""
    data = frames(8)
    info = create(store, FRAME, kernels=(double.bind(),), keep=Keep.BOTH)
    producer = Producer(store, info)
    real, calls = node.storage.append, iter(range(100))

    def append(*args: Any) -> None:
        if next(calls) == fails_at:
            raise SpaceExhausted("no space left on the device")
        real(*args)

    monkeypatch.setattr(node.storage, "append", append)
    try:
        producer.session.send(extent(data[:4]))
        producer.session.send(extent(data[4:], 4))
    except SpaceExhausted:
        pass  # the first extent had failed before the second was sent
    producer.session.close()
    assert [type(error) for error in producer.errors] == [SpaceExhausted]
    assert all(ack.written <= 4 * (fails_at // 2) for ack in producer.acks)

    monkeypatch.setattr(node.storage, "append", real)
    again = Producer(store, info)
    again.session.send(extent(data[:4]))
    again.session.send(extent(data[4:], 4))
    again.session.close()
    assert again.acks[-1] == Ack(8, 8, 8)
    final = store.seal_stream(info.id)
    raw = store.stream("c/s.raw")
    assert np.array_equal(stored(store, final), data * 2)
    assert np.array_equal(stored(store, raw), data)


def test_a_bug_in_a_kernels_back_end_is_an_error_of_the_session_and_not_of_the_server(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = create(store, FRAME, kernels=(double.bind(),))
    monkeypatch.setattr(Pipeline, "run", lambda *_: 1 / 0)
    producer = Producer(store, info)
    producer.session.send(extent(frames(2)))
    wait_for(lambda: producer.errors)
    producer.session.close()
    assert "ZeroDivisionError" in str(producer.errors[0])
    assert store.status().streams_open == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), min_size=1, max_size=12))
def test_however_blocks_are_cut_and_sent_again_each_is_there_once(
    store: LocalStore, runs: list[tuple[int, int]]
) -> None:
    """Any overlapping, repeated, reordered runs: the result is the set of all that was sent, in order."""
    source = frames(40)
    info = store.create_stream("c", "s", StreamSpec(FRAME, kernels=(double.bind(),)), new_version=True)
    producer = Producer(store, info)
    for first, count in runs:
        producer.session.send(extent(source[first : first + count], first))
    producer.session.close()
    want = sorted({index for first, count in runs for index in range(first, first + count)})
    final = store.seal_stream(info.id)
    assert np.array_equal(stored(store, final), source[want] * 2)
    gaps = {i for entry in final.completeness.ledger for i in range(entry.first, entry.last + 1)}
    assert gaps == set(range(want[0], want[-1] + 1)) - set(want)


def test_a_buffer_reopens_with_all_that_it_had(tmp_path: Path) -> None:
    def opened() -> Buffer:
        return hiss.open(tmp_path / "b", arena_bytes=8 * MiB, segment_bytes=8 * MiB, backend="numpy")

    data = frames(9)
    with opened() as buffer:
        scan = buffer.collection("c", attrs={"a": 1})
        s = scan.create_stream("s", dtype="u2", shape=(4, 6), kernels=[double], keep="both")
        s.extend(data[:5])
        s.detach()
    with opened() as buffer:
        with buffer["c"].create_stream("s", dtype="u2", shape=(4, 6), kernels=[double], keep="both", resume=True) as s:
            assert s.next_index == 5
            s.extend(data[5:])
        assert np.array_equal(np.asarray(buffer["c/s"]), data * 2)
        assert np.array_equal(np.asarray(buffer["c/s"].raw), data)


def test_a_producer_that_is_fenced_while_its_extent_arrives_keeps_nobody_waiting(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one closes the session in the middle of its `send`: what is put in behind the end would never settle."""
    info = create(store, FRAME)
    first = Producer(store, info)
    arrives, goes_on = threading.Event(), threading.Event()
    receive = Ingest.receive

    def slow(self: Ingest, *args: Any, **more: Any) -> Iterator[Landed]:
        arrives.set()
        assert goes_on.wait(60)
        return receive(self, *args, **more)

    monkeypatch.setattr(Ingest, "receive", slow)
    sender = threading.Thread(target=first.session.send, args=(extent(frames(2)),))
    sender.start()
    assert arrives.wait(60)
    taken: list[Producer] = []
    other = threading.Thread(target=lambda: taken.append(Producer(store, info)), daemon=True)
    other.start()
    wait_for(lambda: first.session._closed)
    goes_on.set()
    sender.join(60)
    other.join(60)
    assert taken, "the producer that took over has begun"
    taken[0].session.send(extent(frames(4)))
    taken[0].session.close()
    assert np.array_equal(stored(store, info), frames(4))
