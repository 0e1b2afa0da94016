"""The suite on a buffer behind gRPC, over a TCP socket and a Unix socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import hiss
from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.errors import PermissionRefused
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.node import Node
from hiss.testing.conformance import BufferConformance
from hiss.testing.consumers import SharingConformance
from hiss.transport.server import GrpcServer

OPTIONS = StorageOptions(arena_bytes=32 * MiB, segment_bytes=16 * MiB)


@pytest.fixture(params=["tcp", "unix"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Access]]:
    """The address of a server, and its tokens."""
    node = Node(tmp_path / "data", OPTIONS, backend="numpy")
    tokens = Access.of_directory(tmp_path / "data")
    address = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path / 'sock'}"
    server = GrpcServer(
        [address],
        store_for=lambda caller: LocalStore(node, caller),
        authenticate=lambda token, peer: tokens.authenticate(token, 0, peer),
        meow=None,
    )
    server.start()
    yield (f"127.0.0.1:{server.ports[0]}" if request.param == "tcp" else address), tokens
    server.stop(5.0)
    node.close()


class TestGrpc(BufferConformance, SharingConformance):
    @pytest.fixture
    def buffer(self, served: tuple[str, Access]) -> Iterator[Buffer]:
        address, tokens = served
        with hiss.connect(address, token=tokens.owner_token) as buffer:
            yield buffer


def test_no_token_and_a_wrong_one_are_refused(served: tuple[str, Access], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HISS_TOKEN", raising=False)
    for token in (None, "guess", "hissjob.e30=.00"):
        with hiss.connect(served[0], token=token) as buffer, pytest.raises(PermissionRefused):
            buffer.collections()


def test_a_jobs_token_writes_below_its_prefix_only(served: tuple[str, Access]) -> None:
    address, tokens = served
    with hiss.connect(address, token=tokens.job_token("j.1", "scan", until_ns=1)) as buffer:
        buffer.collection("scan/results")
        with pytest.raises(PermissionRefused, match="'scan'"):
            buffer.collection("scans")


def test_a_job_attaches_no_kernels(served: tuple[str, Access]) -> None:
    address, tokens = served
    with hiss.connect(address, token=tokens.job_token("j.1", "scan", until_ns=1)) as buffer:
        scan = buffer.collection("scan")
        with pytest.raises(PermissionRefused, match="attaches kernels"):
            scan.attach("mean")
        with pytest.raises(PermissionRefused, match="detaches kernels"):
            scan.detach("mean")


def test_a_jobs_token_runs_out(served: tuple[str, Access]) -> None:
    address, tokens = served
    with (
        hiss.connect(address, token=tokens.job_token("j.1", "scan", until_ns=-1)) as buffer,
        pytest.raises(PermissionRefused, match="run out"),
    ):
        buffer.collections()
