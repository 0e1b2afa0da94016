"""Lanes over real sockets: tickets, broken and hostile peers, cuts, and which way a client goes."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiss import errors, limits
from hiss.errors import HissError, InvalidInput, LimitExceeded, PermissionRefused, TooManyStreams, Unavailable
from hiss.extent import Extent
from hiss.model import (
    Ack,
    AckLevel,
    AppendStart,
    Caller,
    Column,
    Feedback,
    FrameSpec,
    StreamInfo,
    StreamSpec,
    columns_dtype,
)
from hiss.transport import GrpcServer, RemoteStore
from hiss.transport.lane_client import LaneAppend, kind_of
from hiss.transport.lane_framing import (
    HEAD_BYTES,
    HELLO_BYTES,
    MAGIC,
    VERSION,
    ExtentFramer,
    ExtentUnframer,
    Head,
    Kind,
    ack_frame,
    decode_reply,
    error_frame,
    feedback_frame,
    frame,
    start_frame,
)
from hiss.transport.lane_tickets import HERE, Grant, Tickets, host_of
from hiss.transport.shared_memory import SIZE
from transport.memory_store import MemoryStore
from transport.proxy import CuttingProxy
from transport.test_append import Producer, frames_of
from transport.waiting import LIMIT_S, wait_until

KINDS = ["unix", "tcp"]


def offer(remote: RemoteStore, stream_id: str, kind: str) -> tuple[str, bytes]:
    (found,) = [each for each in remote._lane_offers(stream_id) if kind_of(each.address) == kind]
    return found.address, found.ticket


def dial(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host, int(port)))
    connection.settimeout(LIMIT_S)
    return connection


def hello(ticket: bytes) -> bytes:
    return frame(Kind.HELLO, ticket, VERSION)


def said(connection: socket.socket) -> list[Any]:
    """All that the server says until it ends the connection."""
    stream = b""
    try:
        while found := connection.recv(65536):
            stream += found
    except ConnectionResetError:
        pass
    return replies_in(stream)


def replies_in(stream: bytes) -> list[Any]:
    """What the frames of a server say, all of them whole."""
    replies = []
    while stream:
        head = Head.unpack(stream[:HEAD_BYTES], "reply")
        end = HEAD_BYTES + head.body_bytes
        replies.append(decode_reply(head, stream[HEAD_BYTES:end]))
        stream = stream[end:]
    return replies


def lane_of(remote: RemoteStore, stream_id: str, kind: str) -> tuple[LaneAppend, list[Ack], list[HissError]]:
    acks: list[Ack] = []
    told: list[HissError] = []
    return LaneAppend(*offer(remote, stream_id, kind), stream_id, acks.append, told.append, lambda _: None), acks, told


def extent_bytes(extent: Extent) -> bytes:
    return b"".join(bytes(part) for part in ExtentFramer().parts(extent))


def idle(server: GrpcServer) -> None:
    """Wait until no lane is open and no place is taken."""
    assert server.lanes is not None
    lanes = server.lanes
    wait_until(lambda: not lanes._calls and not lanes._newcomers and not server._long_calls.inside, "lanes end")


# ------------------------------------------------------------------------------------------------------ tickets


@pytest.mark.parametrize("kind", KINDS)
def test_a_ticket_is_good_once(kind: str, server: GrpcServer, remote: RemoteStore, frames: StreamInfo) -> None:
    address, ticket = offer(remote, frames.id, kind)
    with dial(address) as first:
        first.sendall(hello(ticket))
        first.shutdown(socket.SHUT_WR)
        assert isinstance(said(first)[0], AppendStart)
    with dial(address) as second:
        second.sendall(hello(ticket))
        (error,) = said(second)
    assert isinstance(error, PermissionRefused)
    assert "used before" in str(error)
    idle(server)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_ticket_and_one_for_another_lane_are_refused(
    kind: str, server: GrpcServer, remote: RemoteStore, frames: StreamInfo
) -> None:
    address, _ = offer(remote, frames.id, kind)
    _, foreign = offer(remote, frames.id, KINDS[1 - KINDS.index(kind)])
    for ticket in (bytes(32), foreign):
        with dial(address) as connection:
            connection.sendall(hello(ticket))
            (error,) = said(connection)
        assert isinstance(error, PermissionRefused)
    idle(server)


def test_tickets_run_out_are_bound_to_their_host_and_are_bounded_in_number() -> None:
    now = [0.0]
    tickets = Tickets(lambda: now[0])
    grant = Grant(Caller("a.1", "scan"), "id", "tcp", HERE)
    ticket = tickets.issue(grant)
    assert tickets.redeem(ticket, "tcp", host_of("127.0.0.9")) == grant
    old = tickets.issue(grant)
    now[0] = limits.LANE_TICKET_S + 1
    with pytest.raises(PermissionRefused, match="older than"):
        tickets.redeem(old, "tcp", HERE)
    for kind, host in (("unix", HERE), ("tcp", "10.0.0.1")):
        ticket = tickets.issue(grant)
        with pytest.raises(PermissionRefused, match="not for a"):
            tickets.redeem(ticket, kind, host)
        with pytest.raises(PermissionRefused, match="not known"):
            tickets.redeem(ticket, "tcp", HERE)
    many = [tickets.issue(grant) for _ in range(limits.LANE_TICKETS_MAX + 1)]
    assert len(tickets._grants) == limits.LANE_TICKETS_MAX
    with pytest.raises(PermissionRefused):
        tickets.redeem(many[0], "tcp", HERE)
    assert tickets.redeem(many[-1], "tcp", HERE) == grant


def test_a_lane_has_the_rights_of_whoever_asked_for_it(
    store: MemoryStore, connect: Callable[..., RemoteStore], frames: StreamInfo
) -> None:
    remote = connect(attempt="job.7", lane="tcp")
    producer = Producer(remote, frames.id)
    assert isinstance(producer.session, LaneAppend)
    assert store.callers[-1] == Caller("job.7")
    producer.session.close()


def test_no_ticket_without_a_token(connect: Callable[..., RemoteStore], frames: StreamInfo) -> None:
    with pytest.raises(PermissionRefused):
        connect("guess")._lane_offers(frames.id)


# ------------------------------------------------------------------------------------------------------ hostile peers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(HELLO_BYTES), MAGIC + bytes(60)])
def test_what_is_no_hello_is_answered_by_name(
    kind: str, garbage: bytes, server: GrpcServer, remote: RemoteStore, frames: StreamInfo
) -> None:
    address, _ = offer(remote, frames.id, kind)
    with dial(address) as connection:
        connection.sendall(garbage)
        (error,) = said(connection)
    assert isinstance(error, InvalidInput)
    idle(server)


def lying(kind: int = Kind.EXTENT, flags: int = 0, blocks: int = 1, body: int = 20, data: int = 4) -> bytes:
    return Head(kind, flags, blocks, body, data).pack()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"x" * HEAD_BYTES, InvalidInput),
        (lying(kind=99), InvalidInput),
        (lying(kind=Kind.START), InvalidInput),
        (lying(blocks=0, body=0), LimitExceeded),
        (lying(blocks=2**32 - 1, body=2**32 - 1), LimitExceeded),
        (lying(body=2**32 - 1), InvalidInput),
        (lying(flags=8), InvalidInput),
        (lying(data=2**63), LimitExceeded),
        (lying(data=5) + struct.pack("<qQI", 0, 0, 4), InvalidInput),
        (lying(blocks=2, body=40, data=8) + struct.pack("<qqQQII", 3, 3, 0, 0, 4, 4), InvalidInput),
        (lying(flags=2, body=21) + struct.pack("<qQIB", 0, 0, 4, 3), InvalidInput),
        (lying(flags=2, body=21) + struct.pack("<qQIB", 0, 0, 4, 99), InvalidInput),
        (lying(kind=Kind.COLUMNS, body=2**31), LimitExceeded),
        (frame(Kind.COLUMNS, b"[[1, 2]]"), InvalidInput),
        (frame(Kind.COLUMNS, b"{]"), InvalidInput),
        (frame(Kind.COLUMNS, b'[["a", "<f8"], ["a", "<f8"]]'), InvalidInput),
        (frame(Kind.COLUMNS, b'[["a", "O"]]'), InvalidInput),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_lying_frames_end_the_lane_by_name(
    kind: str, message: bytes, error: type[HissError], server: GrpcServer, remote: RemoteStore, frames: StreamInfo
) -> None:
    address, ticket = offer(remote, frames.id, kind)
    with dial(address) as connection:
        connection.sendall(hello(ticket) + message)
        start, *_, answer = said(connection)
    assert isinstance(start, AppendStart)
    assert type(answer) is error, answer
    idle(server)
    producer = Producer(remote, frames.id)
    producer.session.send(frames_of(frames, 0, 1))
    producer.session.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_that_stalls_in_a_frame_is_dropped_and_one_that_is_idle_is_not(
    kind: str,
    server: GrpcServer,
    remote: RemoteStore,
    frames: StreamInfo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LANE_STALL_S", 0.2)
    address, ticket = offer(remote, frames.id, kind)
    whole = extent_bytes(frames_of(frames, 0, 2))
    with dial(address) as connection:
        connection.sendall(hello(ticket))
        assert connection.recv(65536), "the start"
        wait_until(lambda: server.lanes and server.lanes._calls, "the lane is open")
        for _ in range(3):  # idle for longer than the patience of one receive, between two frames
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        connection.settimeout(LIMIT_S)
        connection.sendall(whole)
        assert isinstance(decode_one(connection), tuple), "an ack"
        connection.sendall(whole[:-1])
        error = said(connection)[-1]
    assert isinstance(error, Unavailable)
    assert "stalled" in str(error)
    idle(server)


def decode_one(connection: socket.socket) -> Any:
    head = Head.unpack(connection.recv(HEAD_BYTES, socket.MSG_WAITALL), "reply")
    return decode_reply(head, connection.recv(head.body_bytes, socket.MSG_WAITALL))


def test_connections_without_a_ticket_are_bounded_and_given_up(
    server: GrpcServer, remote: RemoteStore, frames: StreamInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are places: the oldest go, and a lane with a ticket is still opened."""
    address, _ = offer(remote, frames.id, "tcp")
    crowd = [dial(address) for _ in range(limits.LANE_HELLOS_MAX + 5)]
    try:
        assert crowd[0].recv(1) == b""
        session, _, _ = lane_of(remote, frames.id, "tcp")
        session.close()
    finally:
        for one in crowd:
            one.close()
    idle(server)
    monkeypatch.setattr(limits, "HANDSHAKE_S", 0.0)
    with dial(address) as slow:
        slow.sendall(hello(bytes(32))[:10])
        assert said(slow) == []
    idle(server)


@pytest.mark.parametrize("kind", KINDS)
def test_a_producer_that_never_takes_its_acks_is_dropped(
    kind: str,
    server: GrpcServer,
    remote: RemoteStore,
    frames: StreamInfo,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LANE_STALL_S", 0.2)
    address, ticket = offer(remote, frames.id, kind)
    with dial(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.sendall(hello(ticket))
        wait_until(lambda: server.lanes and server.lanes._calls, "the lane is open")
        big = "x" * (limits.FEEDBACK_BYTES_MAX - 100)
        wait_until(lambda: not remote.send_feedback(frames.id, big), "the lane is given up")
    idle(server)


def test_lanes_and_long_calls_share_their_places(
    server: GrpcServer, remote: RemoteStore, frames: StreamInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _, _ = lane_of(remote, frames.id, "tcp")
    wait_until(lambda: server._long_calls.inside == 1, "one place is taken")
    monkeypatch.setattr(server._long_calls, "_limit", 1)
    with pytest.raises(TooManyStreams):
        lane_of(remote, frames.id, "unix")
    session.close()
    idle(server)


# ------------------------------------------------------------------------------------------------------ ends


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_stops_finishes_what_came_and_says_so(
    kind: str, server: GrpcServer, store: MemoryStore, remote: RemoteStore, frames: StreamInfo
) -> None:
    session, acks, told = lane_of(remote, frames.id, kind)
    session.send(frames_of(frames, 0, 3))
    wait_until(lambda: acks, "an ack")
    server.stop(5.0)
    wait_until(lambda: told, "the producer is told")
    assert type(told[0]) is errors.Stopping
    assert sorted(store._find(frames.id).blocks) == [0, 1, 2]
    assert store._find(frames.id).session is None
    with pytest.raises(Unavailable):
        session.send(frames_of(frames, 3, 1))
    session.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_producer_that_dies_anywhere_leaves_what_came_whole(
    kind: str, server: GrpcServer, store: MemoryStore, remote: RemoteStore, frames: StreamInfo
) -> None:
    """Cut after every byte of a hello and of a short extent that follows a whole one."""
    first = extent_bytes(frames_of(frames, 0, 1))
    second = b"".join(bytes(part) for part in ExtentFramer().parts(frames_of(frames, 1, 1)))
    everything = len(first) + len(second) + HELLO_BYTES
    for length in [*range(HELLO_BYTES + 60), *range(HELLO_BYTES + 60, everything, 7)]:
        address, ticket = offer(remote, frames.id, kind)
        with dial(address) as connection:
            connection.sendall((hello(ticket) + first + second)[:length])
    idle(server)
    assert store._find(frames.id).session is None
    assert sorted(store._find(frames.id).blocks) == [0], "nothing of the one that was always cut"


@pytest.fixture
def proxied(server: GrpcServer) -> Iterator[Callable[[str, Callable[[], int | None]], CuttingProxy]]:
    made: list[CuttingProxy] = []

    def make(kind: str, cut_after: Callable[[], int | None]) -> CuttingProxy:
        """Puts itself before the lane of that kind."""
        assert server.lanes is not None
        (listener,) = [each for each in server.lanes._listeners if each.kind == kind]
        target = listener.address if kind == "unix" else int(listener.address.rpartition(":")[2])
        made.append(CuttingProxy(target, cut_after))
        listener.address = made[-1].address
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.mark.parametrize("kind", KINDS)
def test_cuts_anywhere_lose_and_repeat_nothing(
    kind: str, server: GrpcServer, proxied: Any, store: MemoryStore, remote: RemoteStore, frames: StreamInfo
) -> None:
    """A lane is cut after a random number of bytes, 100 times; a producer that asks and goes on loses nothing."""
    rng = random.Random(21)
    proxy = proxied(kind, lambda: rng.choice([rng.randrange(80), rng.randrange(3_000), rng.randrange(30_000)]))
    acknowledged: set[int] = set()
    while proxy.cuts < 100:
        try:
            session, acks, _ = lane_of(remote, frames.id, kind)
        except Unavailable:
            continue
        assert all(index in store._find(frames.id).blocks for index in acknowledged)
        handled = session.start.next_index
        assert not session.start.gaps, "a session's blocks arrive in order"
        try:
            for first in range(handled, handled + 10_000, 8):
                session.send(frames_of(frames, first, 8))
                acknowledged.update(range(handled, handled + acks[-1].durable) if acks else ())
        except Unavailable:
            session.close()
    idle(server)
    blocks = store._find(frames.id).blocks
    assert acknowledged <= set(blocks)
    assert sorted(blocks) == list(range(len(blocks)))
    wanted = frames_of(frames, 0, len(blocks))
    assert b"".join(blocks[index].data.tobytes() for index in sorted(blocks)) == wanted.data.tobytes()


# ------------------------------------------------------------------------------------------------------ the choice


WAYS = [(None, "shm"), ("shm", "shm"), ("shm:trusted", "shm"), ("unix", "unix"), ("tcp", "tcp"), ("grpc", None)]


@pytest.mark.parametrize(("wanted", "kind"), WAYS)
def test_the_client_goes_the_way_that_it_is_told(
    wanted: str | None, kind: str | None, connect: Callable[..., RemoteStore], frames: StreamInfo
) -> None:
    session = Producer(connect(lane=wanted), frames.id).session
    assert getattr(session, "kind", None) == kind
    session.close()


def test_a_lane_that_cannot_be_opened_is_passed_over(
    server: GrpcServer, connect: Callable[..., RemoteStore], frames: StreamInfo, tmp_path: Path
) -> None:
    assert server.lanes is not None
    unix, tcp = server.lanes._listeners
    unix.address = f"unix:{tmp_path / 'nobody'}"
    session = Producer(connect(), frames.id).session
    assert isinstance(session, LaneAppend)
    assert session.kind == "tcp"
    session.close()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        tcp.address = f"127.0.0.1:{gone.getsockname()[1]}"
    for lane in (None, "shm", "unix", "tcp"):
        session = Producer(connect(lane=lane), frames.id).session
        assert not isinstance(session, LaneAppend)
        session.close()


def test_a_lane_that_breaks_before_it_carried_anything_is_passed_over_once(
    server: GrpcServer, proxied: Any, store: MemoryStore, connect: Callable[..., RemoteStore], frames: StreamInfo
) -> None:
    proxied("unix", lambda: HELLO_BYTES + 10)
    remote = connect()
    kinds = []
    for _ in range(4):
        producer = Producer(remote, frames.id)
        kinds.append(getattr(producer.session, "kind", None))
        if kinds[-1] in ("shm", "unix"):
            with contextlib.suppress(Unavailable):
                producer.session.send(frames_of(frames, 0, 1))
            wait_until(lambda told=producer.errors: told, "the producer is told")
        producer.session.close()
    assert kinds == ["shm", "unix", "tcp", "shm"]


def test_an_unknown_lane_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'pigeon'"):
        RemoteStore.connect("127.0.0.1:1", lane="pigeon")


def test_a_server_without_lanes_is_reached_over_grpc(store: MemoryStore) -> None:
    server = GrpcServer(["127.0.0.1:0"], store.for_caller, lambda token, peer: Caller())
    server.start()
    remote = RemoteStore.connect(server.addresses[0], lane="unix")
    remote.create_collection("c", {}, [])
    info = remote.create_stream("c", "s", StreamSpec(FrameSpec(None, ())))
    session = Producer(remote, info.id).session
    assert not isinstance(session, LaneAppend)
    session.close()
    remote.close()
    server.stop(0)


def test_lanes_listen_on_loopback_only(store: MemoryStore) -> None:
    server = GrpcServer(["127.0.0.1:0"], store.for_caller, lambda token, peer: Caller(), lanes=["0.0.0.0:0"])
    with pytest.raises(InvalidInput, match="loopback"):
        server.start()
    server.stop(0)


# ------------------------------------------------------------------------------------------------------ the format

COLUMNS = (Column.parse("angle", "f8 deg"), Column.parse("n", "i2"))


@given(st.binary(max_size=200))
@settings(max_examples=2000, deadline=None)
def test_no_bytes_make_the_parsers_raise_anything_but_named_errors(text: bytes) -> None:
    unframer = ExtentUnframer("fuzz")
    for kind in range(32):
        with contextlib.suppress(HissError):
            decode_reply(Head(kind), text)
    with contextlib.suppress(HissError):
        unframer.name_columns(text)
    with contextlib.suppress(HissError):
        head = Head.unpack(text[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0"), "fuzz")
        unframer.check(head)
        unframer.vectors(head, bytearray(text[HEAD_BYTES:].ljust(head.body_bytes, b"")[: head.body_bytes]))


@given(
    st.lists(st.integers(0, 2**62), min_size=1, max_size=20, unique=True),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None)
def test_extents_come_back(index: list[int], times: bool, gaps: bool, columns: bool) -> None:
    count = len(index)
    length = np.arange(count) % 5
    status = (np.arange(count) % 5 == 0) * 4 if gaps else np.zeros(count)
    rows = np.ones(count, columns_dtype(COLUMNS)) if columns else None
    data = np.arange(length.sum(), dtype=np.uint8)
    sent = Extent.of(index, data, length, time_ns=np.full(count, 7 * times), columns=rows, status=status)
    stream = b"".join(bytes(part) for part in ExtentFramer().parts(sent))
    unframer = ExtentUnframer("test")
    head = Head.unpack(stream[:HEAD_BYTES], "test")
    if columns:
        assert head.kind == Kind.COLUMNS
        unframer.name_columns(stream[HEAD_BYTES : HEAD_BYTES + head.body_bytes])
        stream = stream[HEAD_BYTES + head.body_bytes :]
        head = Head.unpack(stream[:HEAD_BYTES], "test")
    unframer.check(head)
    body = bytearray(stream[HEAD_BYTES : HEAD_BYTES + head.body_bytes])
    found = Extent(**unframer.vectors(head, body), data=np.frombuffer(stream[HEAD_BYTES + head.body_bytes :], np.uint8))
    for field in ("index", "time_ns", "length", "digest", "columns", "data", "status", "source_digest"):
        assert getattr(found, field).tobytes() == getattr(sent, field).tobytes(), field


def test_replies_come_back() -> None:
    start = AppendStart(5, 9, ((1, 2), (5, 5)), "boot", AckLevel.DURABLE)
    error = errors.BlockConflict("block 3 is there", index=3)
    for message, wanted in [
        (start_frame(start), start),
        (ack_frame(Ack(4, 3, 2, 1), 77), (Ack(4, 3, 2, 1), 77)),
        (feedback_frame(Feedback({"a": [1, None]}, 5)), Feedback({"a": [1, None]}, 5)),
        (frame(Kind.END), None),
    ]:
        assert decode_reply(Head.unpack(message[:HEAD_BYTES], "test"), message[HEAD_BYTES:]) == wanted
    message = error_frame(error)
    found = decode_reply(Head.unpack(message[:HEAD_BYTES], "test"), message[HEAD_BYTES:])
    assert (type(found), str(found), found.details) == (errors.BlockConflict, "block 3 is there", {"index": "3"})


def test_the_example_in_the_document_is_what_is_sent() -> None:
    document = (Path(__file__).parents[2] / "docs" / "lanes.md").read_text()
    rows = re.findall(r"^    ((?:[0-9a-f]{2} )*[0-9a-f]{2})  ", document, re.MULTILINE)
    columns = np.array([(1.5,)], columns_dtype((Column.parse("angle", "f8 deg"),)))
    extent = Extent.of([7], np.array([1, 2, 3, 4], np.uint8), [4], columns=columns)
    framer = ExtentFramer()
    wanted = hello(bytes(range(32))) + b"".join(bytes(part) for part in framer.parts(extent))
    wanted += frame(Kind.MEMORY, SIZE.pack(1 << 16)) + b"".join(bytes(part) for part in framer.parts(extent, 8192))
    assert bytes.fromhex("".join(rows)) == wanted
