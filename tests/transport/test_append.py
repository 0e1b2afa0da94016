"""Appending over a real socket: acknowledgements, credit, refusals, fencing, feedback, and connections that are cut."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from hiss import limits
from hiss.errors import (
    BlockConflict,
    BlockTooLarge,
    DigestMismatch,
    HissError,
    InvalidInput,
    ProducerFenced,
    SpecMismatch,
    StreamFinal,
    StreamNotFound,
    Unavailable,
)
from hiss.extent import Extent
from hiss.model import Ack, BlockStatus, Feedback, FrameSpec, Selection, StreamInfo, StreamSpec
from hiss.transport import GrpcServer, RemoteStore
from hiss.transport.methods import STORE
from hiss.v1 import streams_pb2
from transport.conftest import TOKEN
from transport.memory_store import MemorySession, MemoryStore
from transport.proxy import CuttingProxy
from transport.waiting import LIMIT_S, wait_until

FRAME_BYTES = 8 * 16 * 2


@pytest.fixture(params=["grpc", "unix", "tcp"])
def remote(request: pytest.FixtureRequest, connect: Callable[..., RemoteStore]) -> RemoteStore:
    """A client that appends over gRPC, or over a lane."""
    return connect(lane=request.param)


class Producer:
    """What a session tells."""

    def __init__(self, remote: RemoteStore, stream_id: str) -> None:
        self.acks: list[Ack] = []
        self.errors: list[HissError] = []
        self.feedback: list[Feedback] = []
        self.session = remote.open_append(stream_id, self.acks.append, self.errors.append, self.feedback.append)


def frames_of(info: StreamInfo, first: int, count: int) -> Extent:
    """Frames whose content, time and column follow from their index."""
    index = np.arange(first, first + count)
    pixels = (index[:, None] * 7 + np.arange(FRAME_BYTES // 2)).astype("<u2")
    columns = np.zeros(count, info.columns_dtype)
    if "angle" in (columns.dtype.names or ()):
        columns["angle"] = index / 10
    data = pixels.view(np.uint8).reshape(-1)
    return Extent.of(index, data, np.full(count, FRAME_BYTES), time_ns=index * 1000, columns=columns)


@pytest.mark.parametrize("sizes", [[1], [1, 1, 1], [limits.EXTENT_BLOCKS_MAX], [5, 1, 100, 3]])
def test_what_is_appended_is_read(
    sizes: list[int], store: MemoryStore, remote: RemoteStore, frames: StreamInfo
) -> None:
    producer, total = Producer(remote, frames.id), sum(sizes)
    first = 0
    for size in sizes:
        producer.session.send(frames_of(frames, first, size))
        first += size
    producer.session.close()
    assert producer.acks[-1] == Ack(total, total, total)
    assert [ack.received for ack in producer.acks] == sorted(ack.received for ack in producer.acks)
    assert producer.errors == []
    wanted = frames_of(frames, 0, total)
    found = list(remote.read(frames.id, Selection()))
    for field in ("index", "time_ns", "length", "digest", "columns", "data", "source_digest"):
        joined = np.concatenate([getattr(extent, field) for extent in found])
        assert joined.tobytes() == getattr(wanted, field).tobytes(), field
    assert all(extent.received_ns.all() for extent in found)


def test_an_extent_above_the_limits_of_a_message_is_sent_in_parts(remote: RemoteStore, frames: StreamInfo) -> None:
    producer = Producer(remote, frames.id)
    count = limits.EXTENT_BLOCKS_MAX + 10
    producer.session.send(frames_of(frames, 0, count))
    producer.session.close()
    assert producer.acks[-1].received == count
    assert remote.stream("beam/scan/proj").completeness.blocks == count


def test_a_large_block_arrives_whole(remote: RemoteStore) -> None:
    remote.create_collection("c", {}, [])
    info = remote.create_stream("c", "large", StreamSpec(FrameSpec(None, ())))
    data = np.random.default_rng(1).integers(0, 256, 40 << 20, np.uint8)
    producer = Producer(remote, info.id)
    producer.session.send(Extent.of([0], data, [data.size]))
    producer.session.close()
    (found,) = remote.read(info.id, Selection())
    assert np.array_equal(found.data, data)


def test_a_block_above_the_largest_is_refused_here(remote: RemoteStore, frames: StreamInfo) -> None:
    producer = Producer(remote, frames.id)
    data = np.zeros(limits.BLOCK_BYTES_MAX + 1, np.uint8)
    with pytest.raises(BlockTooLarge):
        producer.session.send(Extent.of([0], data, [data.size], digest=np.zeros(1, np.uint64)))
    producer.session.send(frames_of(frames, 0, 1))
    producer.session.close()
    assert producer.acks[-1].received == 1


def test_blocks_of_variable_length_and_none_at_all(remote: RemoteStore) -> None:
    remote.create_collection("c", {}, [])
    info = remote.create_stream("c", "events", StreamSpec(FrameSpec("<u4", (None, 2))))
    length = np.array([16, 0, 8])
    producer = Producer(remote, info.id)
    producer.session.send(Extent.of([0, 1, 2], np.arange(24, dtype=np.uint8), length))
    producer.session.send(Extent.of([], np.zeros(0, np.uint8), []))
    producer.session.close()
    assert [extent.data.size for extent in remote.read(info.id, Selection())] == [16, 0, 8]
    assert producer.acks[-1].received == 3


def test_declared_gaps_are_gaps(remote: RemoteStore, frames: StreamInfo) -> None:
    producer = Producer(remote, frames.id)
    producer.session.send(frames_of(frames, 0, 2))
    columns = np.zeros(2, frames.columns_dtype)
    status = np.array([BlockStatus.DECLARED, BlockStatus.SHED])
    producer.session.send(Extent.of([2, 3], np.zeros(0, np.uint8), [0, 0], columns=columns, status=status))
    producer.session.close()
    completeness = remote.seal_stream(frames.id, 6).completeness
    assert (completeness.blocks, completeness.gaps) == (2, 4)
    assert [(e.first, e.last, e.reason) for e in completeness.ledger] == [
        (2, 3, "declared missing"),
        (4, 5, "never received"),
    ]


def test_a_producer_learns_where_the_stream_stands(store: MemoryStore, remote: RemoteStore, frames: StreamInfo) -> None:
    first = Producer(remote, frames.id)
    assert (first.session.start.next_index, first.session.start.gaps) == (0, ())
    first.session.send(frames_of(frames, 3, 2))
    first.session.send(frames_of(frames, 8, 1))
    first.session.close()
    start = Producer(remote, frames.id).session.start
    assert (start.next_index, start.gaps) == (9, ((5, 7),))
    assert (start.credit_bytes, start.boot_id) == (store.credit_bytes, store.boot_id)


# ------------------------------------------------------------------------------------------------------ refusals


def _no_columns(extent: Extent, info: StreamInfo) -> Extent:
    return Extent.of(extent.index, extent.data, extent.length)


def _wrong_bytes(extent: Extent, info: StreamInfo) -> Extent:
    data = extent.data.copy()
    data[5] ^= 1
    return Extent.of(extent.index, data, extent.length, columns=extent.columns, digest=extent.digest)


def _short(extent: Extent, info: StreamInfo) -> Extent:
    return Extent.of(extent.index[:1], extent.data[:10], [10], columns=extent.columns[:1])


def _other_content(extent: Extent, info: StreamInfo) -> Extent:
    return Extent.of(extent.index - 2, extent.data, extent.length, columns=extent.columns)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_no_columns, SpecMismatch),
        (_wrong_bytes, DigestMismatch),
        (_short, SpecMismatch),
        (_other_content, BlockConflict),
    ],
)
def test_what_the_store_refuses_ends_the_session_by_name(
    change: Callable[[Extent, StreamInfo], Extent], kind: type[HissError], remote: RemoteStore, frames: StreamInfo
) -> None:
    producer = Producer(remote, frames.id)
    producer.session.send(frames_of(frames, 0, 2))
    producer.session.send(change(frames_of(frames, 2, 2), frames))
    wait_until(lambda: producer.errors, "the producer is told")
    assert type(producer.errors[0]) is kind
    assert producer.acks[-1].received == 2, "what came before is acknowledged first"
    with pytest.raises(kind):
        producer.session.send(frames_of(frames, 4, 1))
    producer.session.close()
    assert len(producer.errors) == 1
    assert remote.stream("beam/scan/proj").completeness.blocks == 2


def test_a_session_that_the_store_refuses_does_not_begin(remote: RemoteStore, frames: StreamInfo) -> None:
    with pytest.raises(StreamNotFound):
        Producer(remote, "0" * 32)
    remote.seal_stream(frames.id)
    with pytest.raises(StreamFinal):
        Producer(remote, frames.id)


def test_what_goes_wrong_while_closing_is_raised(store: MemoryStore, remote: RemoteStore, frames: StreamInfo) -> None:
    gate = threading.Event()
    store.before_send = lambda extent: gate.wait(LIMIT_S) and None
    producer = Producer(remote, frames.id)
    producer.session.send(_no_columns(frames_of(frames, 0, 2), frames))
    raised: list[HissError] = []

    def close() -> None:
        try:
            producer.session.close()
        except HissError as error:
            raised.append(error)

    closer = threading.Thread(target=close)
    closer.start()
    wait_until(lambda: producer.session._closing, "closing begins")  # type: ignore[attr-defined]
    gate.set()
    closer.join(LIMIT_S)
    assert isinstance(raised[0], SpecMismatch)


def test_the_second_producer_fences_the_first(remote: RemoteStore, frames: StreamInfo) -> None:
    first = Producer(remote, frames.id)
    first.session.send(frames_of(frames, 0, 2))
    wait_until(lambda: first.acks, "an ack")
    second = Producer(remote, frames.id)
    wait_until(lambda: first.errors, "the first is told")
    assert isinstance(first.errors[0], ProducerFenced)
    with pytest.raises(ProducerFenced):
        first.session.send(frames_of(frames, 2, 2))
    second.session.send(frames_of(frames, 2, 2))
    second.session.close()
    first.session.close()
    assert remote.stream("beam/scan/proj").completeness.blocks == 4


def test_a_bug_in_the_store_ends_the_session_and_not_the_server(
    store: MemoryStore, remote: RemoteStore, frames: StreamInfo, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(extent: Extent) -> None:
        raise ZeroDivisionError("a secret")

    store.before_send = broken
    producer = Producer(remote, frames.id)
    producer.session.send(frames_of(frames, 0, 1))
    wait_until(lambda: producer.errors, "the producer is told")
    assert "secret" not in str(producer.errors[0])
    assert "a secret" in caplog.text
    producer.session.close()
    assert remote.status().node == "memory"


@pytest.mark.parametrize(
    "bodies",
    [
        [b""],
        [streams_pb2.AppendRequest(extent={"index": [1]}).SerializeToString()],
        [b"\x0a\x00" + b"\x7a" * 10_000],
    ],
    ids=["nothing", "an extent first", "long"],
)
def test_the_first_request_must_open(bodies: list[bytes], remote: RemoteStore) -> None:
    call = remote._connection.converse(STORE["Streams.Append"], iter(bodies))
    with pytest.raises(InvalidInput), remote._connection.errors():
        list(call)


def test_opening_twice_is_refused(remote: RemoteStore, frames: StreamInfo) -> None:
    opening = streams_pb2.AppendRequest(open={"stream_id": frames.id}).SerializeToString()
    call = remote._connection.converse(STORE["Streams.Append"], iter([opening, opening]))
    with pytest.raises(InvalidInput, match="without an extent"), remote._connection.errors():
        list(call)


# ------------------------------------------------------------------------------------------------------ flow control


def test_a_store_that_acknowledges_slowly_bounds_the_client(
    store: MemoryStore, remote: RemoteStore, frames: StreamInfo
) -> None:
    """Never more unacknowledged than the credit: looked at in the store, at each extent."""
    store.credit_bytes = 5 * FRAME_BYTES
    store.hold_acks = True
    acknowledged, most = 0, 0

    def look(extent: Extent) -> None:
        nonlocal most
        session = store._find(frames.id).session
        assert session is not None
        most = max(most, session.received + len(extent) - acknowledged)

    store.before_send = look
    producer, count = Producer(remote, frames.id), 60

    def send() -> None:
        for index in range(0, count, 2):
            producer.session.send(frames_of(frames, index, 2))

    sender = threading.Thread(target=send)
    sender.start()
    session = store._find(frames.id).session
    assert session is not None
    while acknowledged < count:
        full = min(acknowledged + 4, count)
        wait_until(partial(_received, session, full), lambda: f"{session.received} received")
        with store.changed:
            acknowledged = session.received
            session.acknowledge()
    sender.join(LIMIT_S)
    assert not sender.is_alive()
    producer.session.close()
    assert most == 4, "two extents of two frames fit into a credit of five frames"


def _received(session: MemorySession, least: int) -> bool:
    return session.received >= least


def test_one_extent_may_be_larger_than_the_credit(store: MemoryStore, remote: RemoteStore, frames: StreamInfo) -> None:
    store.credit_bytes = FRAME_BYTES
    producer = Producer(remote, frames.id)
    for index in range(0, 12, 4):
        producer.session.send(frames_of(frames, index, 4))
    producer.session.close()
    assert producer.acks[-1].received == 12


def test_a_client_that_waits_for_credit_wakes_when_the_session_dies(
    store: MemoryStore, remote: RemoteStore, frames: StreamInfo
) -> None:
    store.credit_bytes = FRAME_BYTES
    store.hold_acks = True
    producer = Producer(remote, frames.id)
    producer.session.send(frames_of(frames, 0, 1))
    raised: list[HissError] = []

    def send() -> None:
        try:
            producer.session.send(frames_of(frames, 1, 1))
        except HissError as error:
            raised.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: store._find(frames.id).session and store._find(frames.id).session.received, "received")
    Producer(remote, frames.id)
    sender.join(LIMIT_S)
    assert isinstance(raised[0], ProducerFenced)


def test_a_full_store_stops_the_client_and_its_acks_still_come(
    store: MemoryStore, remote: RemoteStore, frames: StreamInfo
) -> None:
    """The store's `send` blocks on the third extent until the client has seen the acknowledgement of the second."""
    seen = threading.Event()
    store.before_send = lambda extent: extent.index[0] < 2 or seen.wait(LIMIT_S)
    producer = Producer(remote, frames.id)
    for index in range(6):
        producer.session.send(frames_of(frames, index, 1))
    wait_until(lambda: producer.acks and producer.acks[-1].received == 2, "the acknowledgement of the second")
    seen.set()
    producer.session.close()
    assert producer.acks[-1].received == 6


# ------------------------------------------------------------------------------------------------------ feedback


def test_feedback_reaches_the_producer(remote: RemoteStore, frames: StreamInfo) -> None:
    assert remote.send_feedback(frames.id, {"a": 1}) is False
    producer = Producer(remote, frames.id)
    assert remote.send_feedback(frames.id, {"exposure": [0.1, None]}) is True
    wait_until(lambda: producer.feedback, "feedback")
    assert producer.feedback[0].data == {"exposure": [0.1, None]}
    assert producer.feedback[0].time_ns > 0
    producer.session.close()
    with pytest.raises(InvalidInput):
        remote.send_feedback(frames.id, "x" * limits.FEEDBACK_BYTES_MAX)


# ------------------------------------------------------------------------------------------------------ cuts


@pytest.fixture
def proxied(server: GrpcServer) -> Iterator[Callable[[Callable[[], int | None]], CuttingProxy]]:
    made: list[CuttingProxy] = []

    def make(cut_after: Callable[[], int | None]) -> CuttingProxy:
        made.append(CuttingProxy(server.ports[0], cut_after))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.mark.parametrize("remote", ["grpc"], indirect=True)
def test_a_cut_connection_is_told_and_what_arrived_stays(
    proxied: Any, store: MemoryStore, frames: StreamInfo, connect: Callable[..., RemoteStore]
) -> None:
    proxy = proxied(lambda: None)
    remote = connect(address=proxy.address, lane="grpc")
    producer = Producer(remote, frames.id)
    producer.session.send(frames_of(frames, 0, 3))
    wait_until(lambda: producer.acks, "an ack")
    proxy.cut_all()
    wait_until(lambda: producer.errors, "the producer is told")
    assert isinstance(producer.errors[0], Unavailable)
    with pytest.raises(Unavailable):
        producer.session.send(frames_of(frames, 3, 1))
    producer.session.close()
    wait_until(lambda: store._find(frames.id).session is None, "the server closes its side")
    assert sorted(store._find(frames.id).blocks) == [0, 1, 2]


@pytest.mark.parametrize("remote", ["grpc"], indirect=True)
def test_cuts_anywhere_lose_and_repeat_nothing(
    proxied: Any, store: MemoryStore, frames: StreamInfo, connect: Callable[..., RemoteStore]
) -> None:
    """Connections are cut after a random number of bytes, 200 times; a producer that asks and goes on loses nothing."""
    rng = random.Random(20)
    proxy = proxied(lambda: rng.choice([rng.randrange(400), rng.randrange(4_000), rng.randrange(30_000)]))
    count, handled = 20_000, 0
    acknowledged: set[int] = set()
    while proxy.cuts < 200 and handled < count:
        remote = RemoteStore.connect(proxy.address, TOKEN, lane="grpc")
        try:
            producer = Producer(remote, frames.id)
            start = producer.session.start
            assert not start.gaps, "a session's blocks arrive in order"
            assert all(index in store._find(frames.id).blocks for index in acknowledged)
            handled = start.next_index
            for first in range(handled, count, 8):
                producer.session.send(frames_of(frames, first, 8))
                acknowledged.update(range(handled, handled + producer.acks[-1].durable) if producer.acks else ())
            producer.session.close()
        except Unavailable:
            pass
        remote.close()
    assert proxy.cuts >= 200
    last = Producer(connect(), frames.id)
    for first in range(last.session.start.next_index, last.session.start.next_index + 80, 8):
        last.session.send(frames_of(frames, first, 8))
    last.session.close()
    blocks = store._find(frames.id).blocks
    assert sorted(blocks) == list(range(len(blocks)))
    assert acknowledged <= set(blocks)
    wanted = frames_of(frames, 0, len(blocks))
    assert b"".join(blocks[index].data.tobytes() for index in sorted(blocks)) == wanted.data.tobytes()
