"""Hostile clients against a real server's process: it stays up, bounded in memory, threads and descriptors, and others
do not notice.

Each attack is held while somebody else writes a stream and reads it back, by a lane and by gRPC. What an attacker gets
without a token is connections; with one, that was handed out, he gets its share of the long calls and no more.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import hiss
from hiss import limits
from hiss.client import Buffer
from hiss.errors import HissError, TooManyStreams
from hiss.extent import Extent
from hiss.limits import MiB
from hiss.model import FrameSpec, StreamSpec
from hiss.process import allow_descriptors
from hiss.testing.conformance import wait_for
from hiss.testing.processes import DataProcess
from hiss.tokens import NewToken
from hiss.transport import RemoteStore
from hiss.transport.extent_wire import ExtentEncoder
from hiss.transport.lane_client import kind_of
from hiss.transport.lane_framing import VERSION, ExtentFramer, Head, Kind, frame
from hiss.transport.methods import STORE
from hiss.v1 import streams_pb2

THREADS_MORE = 2 * limits.LONG_CALLS_MAX + limits.SHORT_CALL_THREADS + 16
# For each call a message that is encoded, one that gRPC sends, what its buffers hold; malloc keeps that for the next
# ones (`process.settle_memory`).
MEMORY_MORE_BYTES = 5 * limits.LONG_CALLS_OF_TOKEN_MAX * limits.EXTENT_BYTES_TARGET
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes.fromhex("000000040000000000")


class Victim:
    """A server, its owner, and what the server takes of the machine."""

    def __init__(self, process: DataProcess) -> None:
        self.process = process
        self.buffer: Buffer = process.connect()
        self.host, _, port = process.config.address.rpartition(":")
        self.port = int(port)
        self.streams = 0
        scan = self.buffer.collection("hostile")
        with scan.create_stream("big", dtype="u1", shape=(MiB,), ack="written") as writer:
            for value in range(160):  # more than the windows of flow control grow to
                writer.append(np.full(MiB, value, "u1"))
        self.work()
        self.work("grpc")
        self.before = self.taken()

    @property
    def pid(self) -> int:
        assert self.process._process is not None
        return self.process._process.pid

    def taken(self) -> tuple[int, int, int]:
        """Threads, descriptors, resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        threads, kilobytes = (int(re.search(rf"{key}:\s+(\d+)", status)[1]) for key in ("Threads", "VmRSS"))  # type: ignore[index]
        return threads, len(os.listdir(f"/proc/{self.pid}/fd")), kilobytes << 10

    def work(self, lane: str | None = None) -> None:
        """What others do meanwhile."""
        self.streams += 1
        data = np.random.default_rng(self.streams).integers(0, 255, (40, 1000)).astype("u1")
        with self.process.connect(lane) as other:
            scan = other.collection("work")
            with scan.create_stream(f"s{self.streams}", dtype="u1", shape=(1000,), ack="durable") as writer:
                for block in data:
                    writer.append(block)
            assert writer.report().reconnects == 0
            assert np.array_equal(np.asarray(scan[f"s{self.streams}"]), data)
            assert other.status().streams > 0

    def check(self, descriptors: int) -> None:
        """While the attack lasts."""
        threads, open_files, memory = self.taken()
        assert threads <= self.before[0] + THREADS_MORE
        assert open_files <= self.before[1] + descriptors
        assert memory <= self.before[2] + MEMORY_MORE_BYTES

    def recovers(self) -> None:
        """When the attackers are gone, what they had is free again."""
        slack = 16  # channels of the server's own that come and go
        wait_for(lambda: self.taken()[1] <= self.before[1] + slack, 60)
        assert self.process._process is not None
        assert self.process._process.poll() is None, "it is the same process"

    def dial(self) -> socket.socket:
        connection = socket.create_connection((self.host, self.port))
        connection.settimeout(30)
        return connection

    def token(self, *rights: str) -> NewToken:
        return self.buffer.create_token("attacker", rights, prefix="hostile")

    def store(self, token: NewToken, lane: str | None = None) -> RemoteStore:
        return RemoteStore.connect(self.process.config.address, token.text, lane=lane)

    def new_stream(self, shape: int = 1000) -> str:
        self.streams += 1
        spec = StreamSpec(FrameSpec("u1", (shape,)))
        return self.buffer.store.create_stream("hostile", f"t{self.streams}", spec).id


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    directory = tmp_path_factory.mktemp("hostile") / "data"
    directory.mkdir()
    allow_descriptors(4 * limits.CONNECTIONS_MAX)  # the attackers are in this process
    with DataProcess(directory) as process:
        victim = Victim(process)
        yield victim
        victim.buffer.close()


def shut(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()


# ------------------------------------------------------------------------------------------------------ without a token


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE, PREFACE + SETTINGS], ids=["", "half", "preface", "idle"])
def test_connections_that_say_nothing_more_are_bounded(victim: Victim, said: bytes) -> None:
    """More than there are places; those who have theirs go on, and so do the Unix sockets of the server's own user."""
    established = victim.process.connect("grpc")
    assert established.status().streams > 0
    crowd = []
    for _ in range(limits.CONNECTIONS_MAX + 200):
        crowd.append(victim.dial())
        with contextlib.suppress(OSError):
            crowd[-1].sendall(said)
    assert established.status().streams > 0
    with hiss.connect(f"unix:{victim.process.config.data}/run/data.sock", token=victim.process.token) as own:
        assert own.status().streams > 0
    victim.check(limits.CONNECTIONS_MAX + 32)
    shut(crowd)
    victim.recovers()
    established.close()
    victim.work()


def test_random_bytes_on_every_door(victim: Victim) -> None:
    """gRPC, lanes and lines; among them HTTP/2 frames that lie of their length."""
    rng = random.Random(11)
    run = victim.process.config.data / "run"
    remote = victim.buffer.store
    offers = remote._lane_offers(victim.new_stream())  # type: ignore[attr-defined]
    (tcp,) = [each.address for each in offers if kind_of(each.address) == "tcp"]
    lies = [
        PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",  # 16 MiB of data on a stream that is not open
        PREFACE + SETTINGS + b"\x00\x40\x01\x01\x04\x00\x00\x00\x01" + bytes(0x4001),  # headers of zeros
        PREFACE + SETTINGS + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\xff\xff\xff\xff",  # a window that overflows
        struct.pack("<I", 2**32 - 1) * 16,
        b"hlan" + bytes(52),
    ]
    connections = []
    for number in range(150):
        unix = number % 3 and run / ("line.sock" if number % 2 else "lane.sock")
        if unix:
            connections.append(socket.socket(socket.AF_UNIX))
            connections[-1].connect(str(unix))
        else:
            host, _, port = tcp.rpartition(":")
            target = (host, int(port)) if number % 2 else (victim.host, victim.port)
            connections.append(socket.create_connection(target))
        text = lies[number % len(lies)] if number % 4 == 0 else rng.randbytes(rng.randrange(1, 4000))
        with contextlib.suppress(OSError):
            connections[-1].sendall(text)
    victim.work()
    victim.work("grpc")
    victim.check(len(connections) + 32)
    shut(connections)
    victim.recovers()


def test_calls_without_a_token_get_nothing(victim: Victim) -> None:
    """Hundreds of them at once, of every method, that send no body and one that never ends."""
    hold = threading.Event()

    def endless() -> Iterator[bytes]:
        while not hold.is_set():
            yield bytes(64 << 10)

    with grpc.insecure_channel(victim.process.config.address) as channel:
        calls = [
            channel.stream_stream(method.path)(endless(), metadata=(("authorization", "Bearer guess"),))
            for _ in range(4)
            for method in STORE.values()
        ]
        for call in calls:
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            code = caught.value.code()  # type: ignore[attr-defined]
            assert code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        hold.set()
    victim.work("grpc")
    victim.check(64)
    victim.recovers()


# ------------------------------------------------------------------------------------------------------ with a token


@contextlib.contextmanager
def raw_calls(victim: Victim, token: NewToken) -> Iterator[tuple[Any, tuple[tuple[str, str], ...]]]:
    options = (("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),)
    with grpc.insecure_channel(victim.process.config.address, options) as channel:
        yield channel, (("authorization", f"Bearer {token.text}"),)


def test_readers_that_never_take_what_they_asked_for(victim: Victim) -> None:
    """As many as one token may have: flow control stops each, and nothing is queued; one more is refused by name."""
    token = victim.token("read")
    big = victim.buffer["hostile/big"].info.id
    request = streams_pb2.ReadRequest(stream_id=big).SerializeToString()
    with raw_calls(victim, token) as (channel, metadata):
        read = channel.unary_stream(STORE["Streams.Read"].path)
        calls = [read(request, metadata=metadata) for _ in range(limits.LONG_CALLS_OF_TOKEN_MAX)]
        for call in calls:
            next(call)
        victim.work()
        victim.work("grpc")
        victim.check(64)
        with Buffer(victim.store(token)) as more, pytest.raises(TooManyStreams, match="as one token may"):
            np.asarray(more["hostile/big"])
        for call in calls:
            call.cancel()
    victim.recovers()


def test_one_tokens_idle_streams_leave_room_for_others(victim: Victim) -> None:
    """Follows and appends that do nothing, over gRPC and lanes, until the token's share is used up."""
    token = victim.token("read", "write")
    stores = [victim.store(token, lane) for lane in ("grpc", "unix", "tcp")]
    sessions = []
    for number in range(limits.LONG_CALLS_OF_TOKEN_MAX):
        store = stores[number % 3]
        sessions.append(store.open_append(victim.new_stream(), print, lambda error: None, print))
    for store in stores:
        with pytest.raises(TooManyStreams, match="as one token may"):
            store.open_append(victim.new_stream(), print, print, print)
    victim.work()
    victim.work("grpc")
    victim.check(limits.LONG_CALLS_OF_TOKEN_MAX * 2 + 32)
    victim.buffer.revoke_token(token.info.id)  # the operator's answer: all of it ends at once
    for store in stores:
        store.close()
    for session in sessions:
        with contextlib.suppress(HissError):
            session.close()
    victim.recovers()


def test_a_grpc_producer_that_never_takes_its_acks(victim: Victim) -> None:
    token = victim.token("write")
    stream_id = victim.new_stream()
    encoder = ExtentEncoder()
    sent = threading.Event()

    def requests() -> Iterator[bytes]:
        yield streams_pb2.AppendRequest(open=streams_pb2.AppendOpen(stream_id=stream_id)).SerializeToString()
        for index in range(3000):
            yield encoder.encode(Extent.of([index], np.zeros(1000, "u1"), [1000]))
        sent.set()

    with raw_calls(victim, token) as (channel, metadata):
        call = channel.stream_stream(STORE["Streams.Append"].path)(requests(), metadata=metadata)
        assert sent.wait(120), "its blocks are taken all the same"
        victim.work()
        victim.work("grpc")
        victim.check(64)
        call.cancel()
    victim.recovers()


def announced(stream_bytes: int, index: int) -> bytes:
    """An extent of one block up to its bytes, which are still to come."""
    parts = ExtentFramer().parts(Extent.of([index], np.zeros(stream_bytes, "u1"), [stream_bytes]))
    return bytes(parts[0])


@pytest.mark.parametrize("bytes_sent", [0, 1000])
def test_announced_blocks_that_do_not_come(victim: Victim, bytes_sent: int) -> None:
    """A dozen lanes that each announce as much as a block may have here, and stall: half of the arena at most waits for
    them, the others' blocks come the ordinary way."""
    size = 8 * MiB
    token = victim.token("write")
    remote = victim.store(token)
    connections = []
    for number in range(12):
        stream_id = victim.new_stream(size)
        kind = ("tcp", "unix")[number % 2]
        (offer,) = [each for each in remote._lane_offers(stream_id) if kind_of(each.address) == kind]
        if kind == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(offer.address.removeprefix("unix:"))
        else:
            host, _, port = offer.address.rpartition(":")
            connection = socket.create_connection((host, int(port)))
        connection.sendall(frame(Kind.HELLO, offer.ticket, VERSION) + announced(size, 0) + bytes(bytes_sent))
        connections.append(connection)
    victim.work()
    victim.work("grpc")
    victim.check(64)
    shut(connections)
    remote.close()
    victim.recovers()


def test_replayed_and_guessed_tickets_in_numbers(victim: Victim) -> None:
    token = victim.token("write")
    remote = victim.store(token)
    stream_id = victim.new_stream()
    offers = remote._lane_offers(stream_id)
    (tcp,) = [each for each in offers if kind_of(each.address) == "tcp"]
    host, _, port = tcp.address.rpartition(":")
    refused = 0
    for number in range(100):
        with socket.create_connection((host, int(port))) as connection:
            connection.settimeout(30)
            ticket = tcp.ticket if number % 2 == 0 else random.Random(number).randbytes(32)
            connection.sendall(frame(Kind.HELLO, ticket, VERSION))
            head = Head.unpack(connection.recv(24, socket.MSG_WAITALL), "reply")
            refused += head.kind == Kind.ERROR
    assert refused == 99, "it was good once"
    victim.work()
    victim.check(64)
    remote.close()
    victim.recovers()


def test_the_bounds_can_be_exceeded(victim: Victim) -> None:
    """The control of what is counted: descriptors that are held show, and a bound below them fails."""
    held = [victim.dial() for _ in range(50)]
    wait_for(lambda: victim.taken()[1] >= victim.before[1] + 40)
    with pytest.raises(AssertionError):
        victim.check(10)
    shut(held)
    victim.recovers()
