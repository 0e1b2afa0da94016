"""A server over a socket, as the views of other libraries reach it."""

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
from hiss.transport.server import GrpcServer
from hiss.views.cache import MEMORY


class Served:
    """A server's address, its token, and a buffer connected to it."""

    def __init__(self, node: Node, port: int, token: str) -> None:
        self.node, self.port, self.token = node, port, token
        self.address = f"127.0.0.1:{port}"
        self.url = f"hiss://{self.address}"
        self.options = {"token": token}

    def connect(self) -> Buffer:
        return hiss.connect(self.address, self.token)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    node = Node(tmp_path / "data", StorageOptions(arena_bytes=16 * MiB, segment_bytes=16 * MiB), backend="numpy")
    tokens = Access.of_directory(tmp_path / "data")
    server = GrpcServer(
        ["127.0.0.1:0"],
        store_for=lambda caller: LocalStore(node, caller),
        authenticate=lambda token, peer: tokens.authenticate(token, 0, peer),
        meow=None,
    )
    server.start()
    MEMORY.clear()
    yield Served(node, server.ports[0], tokens.owner_token)
    server.stop(5.0)
    node.close()


@pytest.fixture
def buffer(served: Served) -> Iterator[Buffer]:
    with served.connect() as buffer:
        yield buffer
