"""A real server on a real socket, in front of a store in memory; and no thread left behind by any test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hiss.errors import PermissionRefused
from hiss.model import Caller, Column, FrameSpec, StreamInfo, StreamSpec
from hiss.transport import GrpcServer, RemoteStore
from transport.memory_store import MemoryStore
from transport.waiting import wait_until

TOKEN = "the-token"


def authenticate(token: str | None, peer: str | None) -> Caller:
    if token != TOKEN:
        raise PermissionRefused("this token is not known here")
    return Caller()


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before, lambda: f"threads left: {threading.enumerate()}")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def server(store: MemoryStore, tmp_path: Path) -> Iterator[GrpcServer]:
    lanes = [f"unix:{tmp_path / 'lane.sock'}", "127.0.0.1:0"]
    server = GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate, lanes=lanes)
    server.start()
    yield server
    server.stop(0)


@pytest.fixture
def connect(server: GrpcServer) -> Iterator[Callable[..., RemoteStore]]:
    """Makes clients of the server; they are closed at the end."""
    made: list[RemoteStore] = []

    def make(
        token: str | None = TOKEN, *, address: str | None = None, attempt: str | None = None, lane: str | None = None
    ) -> RemoteStore:
        made.append(RemoteStore.connect(address or server.addresses[0], token, attempt=attempt, lane=lane))
        return made[-1]

    yield make
    for remote in made:
        remote.close()


@pytest.fixture
def remote(connect: Callable[..., RemoteStore]) -> RemoteStore:
    return connect()


@pytest.fixture
def frames(remote: RemoteStore) -> StreamInfo:
    """An open stream of 8 x 16 frames with a column."""
    remote.create_collection("beam/scan", {}, [])
    spec = StreamSpec(FrameSpec("uint16", (8, 16)), (Column.parse("angle", "f8 deg"),))
    return remote.create_stream("beam/scan", "proj", spec)
