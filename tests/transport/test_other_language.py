"""A producer and consumer in C++, of generated code alone: `examples/cpp` is compiled, and bytes compared both ways."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hiss.client import Buffer
from hiss.model import StreamState, digest_of
from hiss.testing.processes import DataProcess
from transport.proxy import CuttingProxy

SOURCES = Path(__file__).parents[2] / "examples" / "cpp"
INSTALL = "apt-get install g++ make pkg-config libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libxxhash-dev"
BLOCK_BYTES = 5_000
COUNT = 300


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Compiled once, whichever of the test processes needs it first."""
    tools = all(shutil.which(tool) for tool in ("g++", "make", "pkg-config", "protoc", "grpc_cpp_plugin"))
    if not tools or subprocess.run(["pkg-config", "--exists", "grpc++", "libxxhash"], check=False).returncode:
        pytest.skip(INSTALL)
    own = tmp_path_factory.getbasetemp()
    build = (own if worker_id == "master" else own.parent) / "cpp"
    build.mkdir(exist_ok=True)
    command = ["make", "-j2", "-C", str(SOURCES), f"BUILD={build}", "CXXFLAGS=-O0 -Werror"]
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-4000:]
    return build / "hiss-file"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataProcess]:
    with DataProcess(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture
def buffer(server: DataProcess) -> Iterator[Buffer]:
    with server.connect() as buffer:
        yield buffer


def ran(program: Path, token: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(program), *map(str, arguments)]
    environment = {**os.environ, "HISS_TOKEN": token}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def made_file(path: Path, seed: int) -> np.ndarray:
    data = np.random.default_rng(seed).integers(0, 256, (COUNT, BLOCK_BYTES), np.uint8)
    path.write_bytes(data.tobytes())
    return data


def check_stream(buffer: Buffer, path: str, data: np.ndarray) -> None:
    stream = buffer[path]
    assert stream.info.state is StreamState.SEALED
    assert stream.info.completeness.gaps == 0
    found = list(stream)
    assert [block.index for block in found] == list(range(len(data)))
    for block in found:
        assert np.array_equal(block.data, data[block.index])
        assert block.time_ns == 1000 * block.index
        assert block.columns["angle"] == block.index / 4


def test_what_it_writes_is_read_here(program: Path, server: DataProcess, buffer: Buffer, tmp_path: Path) -> None:
    data = made_file(tmp_path / "in", 1)
    file = tmp_path / "in"
    done = ran(program, server.token, "write", server.config.address, "cpp/out", file, BLOCK_BYTES)
    assert done.returncode == 0, done.stderr
    check_stream(buffer, "cpp/out", data)
    assert done.stdout == f"sealed {COUNT} blocks, digest {buffer['cpp/out'].info.digest}\n"


def test_what_is_written_here_it_reads(program: Path, server: DataProcess, buffer: Buffer, tmp_path: Path) -> None:
    """Messages that are put together by hand here are read by protobuf's own parser there: typed and packed columns,
    blocks of any length, a gap."""
    rng = np.random.default_rng(2)
    blocks = {index: rng.bytes(int(rng.integers(0, 9_000))) for index in range(COUNT) if index % 50 != 49}
    columns = {"angle": "f8 deg", "shot": "i2"}
    with buffer.collection("cpp").create_stream("in", columns=columns) as stream:
        for index, block in blocks.items():
            stream.append(block, index=index, time_ns=7 * index, angle=index / 8, shot=-index)
    done = ran(program, server.token, "read", server.config.address, "cpp/in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == b"".join(blocks.values())
    record = np.dtype([("angle", "<f8"), ("shot", "<i2")])
    wanted = [
        f"{index} {7 * index} {digest_of(block):016x} {np.array((index / 8, -index), record).tobytes().hex()}"
        for index, block in blocks.items()
    ]
    assert done.stdout.splitlines() == wanted


def test_it_goes_on_where_the_connection_broke(
    program: Path, server: DataProcess, buffer: Buffer, tmp_path: Path
) -> None:
    """Cut again and again, each time a little later; each block is there once."""
    rng, data = random.Random(3), made_file(tmp_path / "in", 3)
    cuts = iter([rng.randrange(1, 100_000 * (n + 1)) for n in range(8)])
    proxy = CuttingProxy(server.config.port, lambda: next(cuts, None))
    try:
        done = ran(program, server.token, "write", proxy.address, "cpp/cut", tmp_path / "in", BLOCK_BYTES)
    finally:
        proxy.close()
    assert done.returncode == 0, done.stderr
    assert proxy.cuts == 8
    check_stream(buffer, "cpp/cut", data)


def test_it_is_told_errors_by_name(program: Path, server: DataProcess, tmp_path: Path) -> None:
    made_file(tmp_path / "in", 4)
    address = server.config.address
    for token, path, wanted in [
        ("guess", "cpp/none", "PermissionRefused"),
        (server.token, "cpp/none", "StreamNotFound"),
    ]:
        done = ran(program, token, "read", address, path, tmp_path / "out")
        assert done.returncode == 1
        assert done.stderr.startswith(f"{wanted}: "), done.stderr
