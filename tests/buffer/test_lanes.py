"""The suite on a buffer behind a lane, over a TCP socket and a Unix socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import hiss
from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.node import Node
from hiss.testing.conformance import BufferConformance
from hiss.transport import GrpcServer
from hiss.transport.lane_client import LaneAppend

OPTIONS = StorageOptions(arena_bytes=32 * MiB, segment_bytes=16 * MiB)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "data", OPTIONS, backend="numpy")
    yield node
    node.close()


@pytest.fixture
def server(node: Node, tmp_path: Path) -> Iterator[GrpcServer]:
    tokens = Access.of_directory(node.directory)
    server = GrpcServer(
        ["127.0.0.1:0"],
        store_for=lambda caller: LocalStore(node, caller),
        authenticate=lambda token: tokens.authenticate(token, 0),
        lanes=[f"unix:{tmp_path / 'lane.sock'}", "127.0.0.1:0"],
    )
    server.start()
    yield server
    server.stop(5.0)


def connected(server: GrpcServer, node: Node, lane: str | None) -> Buffer:
    token = Access.of_directory(node.directory).owner_token
    return hiss.connect(server.addresses[0], token=token, lane=lane)


class OnLane(BufferConformance):
    __test__ = False
    lane = ""

    @pytest.fixture
    def buffer(self, server: GrpcServer, node: Node) -> Iterator[Buffer]:
        with connected(server, node, self.lane) as buffer:
            yield buffer

    def test_it_is_that_lane(self, buffer: Buffer) -> None:
        with buffer.collection("c").create_stream("s", dtype="u1", shape=(1,)) as s:
            assert isinstance(s._session, LaneAppend)
            assert s._session.kind == self.lane


class TestUnixLane(OnLane):
    __test__ = True
    lane = "unix"


class TestTcpLane(OnLane):
    __test__ = True
    lane = "tcp"
