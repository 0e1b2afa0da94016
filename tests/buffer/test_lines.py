"""The suite on a buffer behind a line, which carries the short calls, with lanes and gRPC for the others."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.errors import InvalidInput, PermissionRefused, ServerUnreachable, StreamNotFound, Unavailable
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.node import Node
from hiss.testing.conformance import BufferConformance
from hiss.transport.line_framing import Kind, receive_reply, receive_request, send_request
from hiss.transport.remote import RemoteStore
from hiss.transport.server import GrpcServer

OPTIONS = StorageOptions(arena_bytes=32 * MiB, segment_bytes=16 * MiB)


class Site:
    def __init__(self, directory: Path) -> None:
        self.node = Node(directory / "data", OPTIONS, backend="numpy")
        self.tokens = Access.of_directory(directory / "data")
        self.line = str(directory / "line")
        self.address = f"unix:{directory / 'sock'}"
        self.server = GrpcServer(
            [self.address],
            store_for=lambda caller: LocalStore(self.node, caller),
            authenticate=lambda token, peer: self.tokens.authenticate(token, 0, peer),
            lanes=[f"unix:{directory / 'lane'}"],
            line=f"unix:{self.line}",
        )
        self.server.start()

    def connect(self, token: str | None) -> Buffer:
        return Buffer(RemoteStore.connect(self.address, token, line=self.line))

    def close(self) -> None:
        self.server.stop(5.0)
        self.node.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


class TestLine(BufferConformance):
    @pytest.fixture
    def buffer(self, site: Site) -> Iterator[Buffer]:
        with site.connect(site.tokens.owner_token) as buffer:
            yield buffer


def test_short_calls_and_reads_need_no_grpc(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise AssertionError(f"a gRPC channel to {address} was opened")

    monkeypatch.setattr("hiss.transport.remote.open_channel", refuse)
    frames = np.arange(24, dtype="u2").reshape(2, 3, 4)
    with site.connect(site.tokens.owner_token) as buffer:
        with buffer.collection("c").create_stream("s", dtype="u2", shape=(3, 4)) as stream:
            stream.extend(frames)
        assert np.asarray(buffer["c/s"]).tolist() == frames.tolist()
        with pytest.raises(StreamNotFound):
            buffer.stream("c/other")


def test_tokens_are_those_of_grpc(site: Site) -> None:
    for token in (None, "guess", "hissjob.e30=.00"):
        with site.connect(token) as buffer, pytest.raises(PermissionRefused):
            buffer.collections()
    with site.connect(site.tokens.job_token("j.1", "scan", until_ns=1)) as buffer:
        buffer.collection("scan/results")
        with pytest.raises(PermissionRefused):
            buffer.collection("elsewhere")


def test_a_server_that_goes_away(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.connect(site.tokens.owner_token) as buffer:
        buffer.collection("c")
        site.close()
        with pytest.raises(Unavailable):
            buffer.collections()
        with pytest.raises(ServerUnreachable):
            buffer.collections()


def test_what_is_no_request_ends_its_connection_only(site: Site) -> None:
    for junk in (b"GET / HTTP/1.1\r\n\r\n" * 4, b"\xff" * 64, b"\x00" * 7):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(site.line)
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(site.line)
        send_request(connection, "/hiss.v1.Streams/NoSuchCall", {}, b"")
        assert receive_reply(connection)[0] is Kind.ERROR
    with site.connect(site.tokens.owner_token) as buffer:
        assert buffer.collections() == []


def test_a_frame_is_no_longer_than_a_message_may_be() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\x01\x00\x02\x00\xff\xff\xff\xff")
        with pytest.raises(InvalidInput, match="4294967295 bytes"):
            receive_request(ours)
