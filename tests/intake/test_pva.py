"""Images of an EPICS channel as a stream: pvapy's own server in a process beside, over the loopback interface only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiss.client import Buffer
from hiss.errors import InvalidInput, NotFound
from hiss.model import StreamState
from hiss.testing.processes import DataProcess, free_port

from .pva_server import content

pytest.importorskip("pvaccess")

PV = "TEST:Pva1:Image"


class Source:
    """The server of the channel, as a process."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("pva_server.py")), PV]
        self.process = subprocess.Popen(
            command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._line() == "ready"

    def publish(self, first: int, last: int, dtype: str = "u2", rows: int = 3, columns: int = 4, *more: str) -> None:
        assert self.process.stdin is not None
        print("image", first, last, dtype, rows, columns, *more, file=self.process.stdin, flush=True)
        assert self._line() == "done"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def environment() -> dict[str, str]:
    """Where client and server find each other, and nobody else: one TCP port and one UDP port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        broadcast = udp.getsockname()[1]
    port = free_port()
    return {
        **os.environ,
        "EPICS_PVA_SERVER_PORT": str(port),
        "EPICS_PVAS_SERVER_PORT": str(port),
        "EPICS_PVA_BROADCAST_PORT": str(broadcast),
        "EPICS_PVAS_BROADCAST_PORT": str(broadcast),
        "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_PVA_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{port}",
    }


class Scene:
    def __init__(self, server: DataProcess, collection: str) -> None:
        self.path = f"{collection}/camera"
        self.environment = {**environment(), "HISS_ADDRESS": server.config.address, "HISS_TOKEN": server.token}
        self.source = Source(self.environment)
        self.bridges: list[subprocess.Popen[str]] = []
        self.buffer: Buffer = server.connect()

    def bridge(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "hiss.cli", "bridge", f"pva://{PV}", self.path, *words]
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        self.bridges.append(process)
        return process

    def end(self, bridge: subprocess.Popen[str]) -> str:
        """Ctrl-C, and what it printed last."""
        bridge.send_signal(signal.SIGINT)
        said, _ = bridge.communicate(timeout=60)
        assert bridge.returncode == 0
        return said

    def close(self) -> None:
        for process in [*self.bridges, self.source.process]:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.buffer.close()

    def index(self, version: int | None = None) -> list[int]:
        """Of the stored blocks; each is compared with what was published under its number."""
        try:
            stream = self.buffer.stream(self.path, version)
        except NotFound:
            return []
        found = []
        for block in stream:
            expected = content(block.index, stream.dtype.str, *stream.info.frame.shape)
            np.testing.assert_array_equal(block.data, expected)
            assert block.time_ns == (1_700_000_000 + block.index) * 10**9 + 250_000_000
            assert block.columns["Sample"] == f"foam {block.index}".encode()
            found.append(block.index)
        return found

    def publish_until_one_comes(self, first: int, *form: Any) -> int:
        """The bridge's queue may be full when the last image of a burst comes; returns the one that is stored."""
        for number in range(first, first + 100):
            self.source.publish(number, number, *form)
            if wait_until(lambda number=number: self.newest() == number, 2.0, must=False):
                return number
        raise AssertionError("no image comes any more")

    def wait_for(self, last: int, version: int | None = None) -> None:
        wait_until(lambda: self.newest(version) == last)

    def newest(self, version: int | None = None) -> int | None:
        try:
            return self.buffer.stream(self.path, version).info.completeness.last_index
        except NotFound:
            return None


def wait_until(done: Callable[[], bool], timeout_s: float = 60.0, *, must: bool = True) -> bool:
    give_up_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > give_up_s:
            assert not must
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataProcess]:
    with DataProcess(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture
def scene(server: DataProcess, request: pytest.FixtureRequest) -> Iterator[Scene]:
    scene = Scene(server, request.node.name)
    yield scene
    scene.close()


def ledger(stream: Any) -> list[int]:
    return [index for entry in stream.ledger for index in range(entry.first, entry.last + 1)]


def test_images_and_what_was_dropped(scene: Scene) -> None:
    """All that came is stored, and all that did not is in the ledger: together they are every number."""
    scene.source.publish(7, 7, "u2", 512, 512, "Energy=12.5")
    bridge = scene.bridge("--queue", "2", "--json")
    scene.wait_for(7)
    scene.source.publish(8, 160, "u2", 512, 512, "Energy=12.5")
    last = scene.publish_until_one_comes(161, "u2", 512, 512, "Energy=12.5")
    said = scene.end(bridge)
    stream = scene.buffer[scene.path]
    stored = scene.index()
    assert stream.info.state is StreamState.SEALED
    assert sorted(stored + ledger(stream)) == list(range(7, last + 1))
    assert all(entry.reason == "declared missing" for entry in stream.ledger)
    assert f'"missed": {len(ledger(stream))}' in said
    assert stream.columns["Energy"].tolist() == [12.5] * len(stored)
    assert {column.name: column.dtype for column in stream.info.columns} == {
        "time_stamp": "<i8", "ColorMode": "<i8", "Energy": "<f8", "Sample": "|S64",
    }  # fmt: skip


def test_another_form_or_a_source_that_starts_anew_is_another_version(scene: Scene) -> None:
    scene.source.publish(1, 1)
    bridge = scene.bridge()
    scene.wait_for(1)
    for number, form in ((2, ("u2", 3, 4)), (3, ("f4", 3, 4)), (4, ("f4", 5, 4)), (5, ("f4", 5, 4, "Energy=1"))):
        scene.source.publish(number, number, *form)
        scene.wait_for(number)
    scene.source.kill()  # reconnects by itself
    scene.source.start()
    scene.source.publish(2, 2, "f4", 5, 4, "Energy=1")
    scene.wait_for(2, version=5)
    scene.end(bridge)
    assert [scene.index(version) for version in (1, 2, 3, 4, 5)] == [[1, 2], [3], [4], [5], [2]]


def test_a_bridge_that_was_killed_goes_on_where_it_was(scene: Scene) -> None:
    scene.source.publish(1, 1)
    bridge = scene.bridge()
    scene.wait_for(1)
    bridge.kill()
    bridge.wait()
    scene.source.publish(2, 5)
    said = scene.bridge("--count", "2")
    scene.wait_for(5)
    scene.source.publish(6, 6)
    assert said.wait(60) == 0
    stream = scene.buffer[scene.path]
    assert (scene.index(), stream.version, ledger(stream)) == ([1, 5, 6], 1, [2, 3, 4])


def test_a_stream_ends_when_nothing_comes(scene: Scene) -> None:
    scene.source.publish(1, 1)
    bridge = scene.bridge("--idle", "0.5")
    wait_until(lambda: scene.newest() == 1 and scene.buffer[scene.path].info.state is StreamState.SEALED)
    scene.source.publish(2, 2)
    scene.wait_for(2, version=2)
    scene.end(bridge)


@pytest.mark.parametrize("address", ["pva://", "ca://PV", "PV"])
def test_addresses_that_are_none(address: str) -> None:
    from threading import Event

    from hiss.intake.pva import Bridge

    with pytest.raises(InvalidInput, match="pva://PV"):
        Bridge(address, "c/s", lambda: None, Event())  # type: ignore[arg-type, return-value]


def test_compressed_images_are_refused() -> None:
    from hiss.intake.pva import image_of

    class Found(dict[str, Any]):
        def hasField(self, name: str) -> bool:
            return name in self

    with pytest.raises(InvalidInput, match="compressed by 'blosc'"):
        image_of(Found(codec={"name": "blosc"}, uniqueId=3))
