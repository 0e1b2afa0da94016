"""Producers on every lane behind a bad network, and a server that is killed: every block is there once.

All that goes over the network goes through `BadNetwork`: the lanes and gRPC itself, so that no way round is a good one.
Server and client ask each other for signs of life every second here, not every 20, and give up after another; a frame
of which a part is lost is given up after five, not thirty.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss import limits
from hiss.client import Buffer
from hiss.errors import HissError, Unavailable
from hiss.extent import Extent
from hiss.model import StreamState
from hiss.testing.processes import DataProcess
from hiss.transport import RemoteStore, lane_client
from hiss.transport.lane_choice import Offer
from hiss.transport.lane_client import kind_of
from hiss.writer import StreamWriter
from transport.bad_network import BadNetwork, Weather
from transport.waiting import wait_until

WAYS = ("grpc", "unix", "tcp")  # descriptors of shared memory pass no network; TLS is cut in `test_tls`
SPANS = (100, 2_000, 20_000)  # most break in the middle of something; the first even in a hello
GRPC_SPANS = (4_000, 40_000)  # gRPC's channels wait longer and longer where they never get through
BATCH = 20
ALIVE_S = 1.0
_QUICK = f"""
import runpy, sys
from hiss import limits
limits.KEEPALIVE_S = {ALIVE_S}
limits.LANE_STALL_S = {5 * ALIVE_S}
sys.argv[0] = "hiss.server"
runpy.run_module("hiss.server", run_name="__main__")
"""
_POOL = np.random.default_rng(0).bytes(1 << 16)


def block_of(seed: int, index: int) -> bytes:
    """Up to 1.5 kB that follow from stream and index."""
    number = (seed * 7919 + index * 104729) % 65521
    return index.to_bytes(8, "little") + _POOL[number : number + number % 1500]


class QuickServer(DataProcess):
    """One that looks for signs of life every second."""

    program = ("-c", _QUICK)


@dataclass
class Found:
    """What came of a stream, for the table."""

    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong: int = 0
    unexplained: int = 0

    def look(self, buffer: Buffer, path: str, seed: int, count: int) -> None:
        stream = buffer[path]
        assert stream.info.state is StreamState.SEALED
        blocks = [(block.index, bytes(block.data)) for block in stream]
        indices = [index for index, _ in blocks]
        self.acknowledged += count
        self.duplicates += len(indices) - len(set(indices))
        self.lost += len(set(range(count)) - set(indices))
        self.wrong += sum(data != block_of(seed, index) for index, data in blocks)
        self.unexplained += len(set(indices) - set(range(count))) + stream.info.completeness.gaps

    @property
    def broken(self) -> int:
        return self.lost + self.duplicates + self.wrong + self.unexplained


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEEPALIVE_S", ALIVE_S)
    monkeypatch.setattr(limits, "CONNECT_S", 2 * ALIVE_S)
    monkeypatch.setattr(lane_client, "_SILENCE_S", 2 * ALIVE_S)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QuickServer]:
    (tmp_path / "data").mkdir()
    with QuickServer(tmp_path / "data") as server:
        yield server


class Behind:
    """A producer that sees the server only through bad networks, one for the lanes and one for gRPC."""

    def __init__(self, server: DataProcess, way: str, folder: Path, seed: int, holes: float) -> None:
        folder.mkdir(parents=True)
        self.way, self.seed = way, seed
        self.path = f"net/{way.replace(':', '-')}-{seed}"
        self.lanes = BadNetwork(folder, seed, SPANS, holes)
        self.grpc = BadNetwork(folder, seed + 1, GRPC_SPANS, holes)
        address = self.grpc.towards(server.config.address, "grpc")
        self.buffer = hiss.connect(address, server.token, lane=way)
        store: Any = self.buffer.store
        offers = store._lane_offers
        store._lane_offers = lambda *asked, **how: [self._moved(offer) for offer in offers(*asked, **how)]
        self.batches = self.blocks = self.reconnects = 0

    @property
    def cuts(self) -> int:
        return self.lanes.cuts + self.grpc.cuts

    def count(self, how: str) -> int:
        return self.lanes.counts[how] + self.grpc.counts[how]

    def close(self) -> None:
        self.buffer.close()
        self.lanes.close()
        self.grpc.close()

    def _moved(self, offer: Offer) -> Offer:
        return Offer(self.lanes.towards(offer.address, kind_of(offer.address)), offer.ticket)

    def produce(self, enough: Callable[[], bool]) -> None:
        """Append batches until that is enough, then let the network be, and seal."""
        collection, _, name = self.path.partition("/")
        writer = persist(
            lambda: self.buffer.collection(collection).create_stream(
                name, ack="durable", resume=True, extent_bytes=5_000, linger_s=0.001
            )
        )
        with writer:
            while not enough():
                for index in range(self.blocks, self.blocks + BATCH):
                    writer.append(block_of(self.seed, index), index=index)
                self.blocks += BATCH
                writer.flush()
                self.batches += 1
            self.lanes.calm = self.grpc.calm = True
        self.reconnects = writer._reconnects


def persist(call: Callable[[], StreamWriter]) -> StreamWriter:
    found: list[StreamWriter] = []

    def tried() -> bool:
        try:
            found.append(call())
        except Unavailable:
            return False
        return True

    wait_until(tried, "the stream is created")
    return found[0]


def run(
    server: DataProcess,
    folder: Path,
    tally: Any,
    *,
    cuts: int,
    kills: int = 0,
    holes: float = 0.0,
    seed: int,
    producers: int = 1,
    ways: Sequence[str] = WAYS,
) -> Found:
    """Producers on each way at once, until each way has been cut so often and the server killed so often."""
    found, killed = Found(), 0
    with ExitStack() as stack:
        made = {
            way: [Behind(server, way, folder / f"{way}{n}", seed + n, holes) for n in range(producers)] for way in ways
        }
        every = [each for group in made.values() for each in group]
        for each in every:
            stack.callback(each.close)

        def enough(group: list[Behind]) -> bool:
            done = sum(each.cuts for each in group) >= cuts and killed == kills
            return done or given_up.is_set()

        given_up = threading.Event()
        pool = stack.enter_context(ThreadPoolExecutor(len(every)))
        stack.callback(given_up.set)
        done = [pool.submit(each.produce, partial(enough, group)) for group in made.values() for each in group]
        for _ in range(kills):
            before = [each.batches for each in every]
            wait_until(lambda before=before: moved(every, before) or any(d.done() for d in done), "all get on")
            server.kill()
            server.start()
            killed += 1
        for each in done:
            each.result()
        with server.connect() as buffer:
            for each in every:
                found.look(buffer, each.path, each.seed, each.blocks)
        broken = {f"{how}s": sum(each.count(how) for each in every) for how in ("reset", "end", "hole")}
        tally("bad network", found, **broken, kills=kills)
        assert sum(each.reconnects for each in every) > 0
    return found


def moved(made: list[Behind], before: list[int]) -> bool:
    return all(each.batches > batches for each, batches in zip(made, before, strict=True))


@pytest.mark.parametrize("lost", [(True, True), (True, False), (False, True)], ids=["both", "up", "down"])
def test_a_connection_that_loses_a_way_is_given_up(
    server: QuickServer, tmp_path: Path, lost: tuple[bool, bool]
) -> None:
    """gRPC has pings of its own under way when it happens, which must not be waited for any longer."""
    network = BadNetwork(tmp_path, 0, SPANS)
    network.weather = Weather((5_000, None), "hole", lost)
    told: list[HissError] = []
    with server.connect() as buffer:
        writer = buffer.collection("c").create_stream("s", resume=True)
        writer.detach()
    remote = RemoteStore.connect(network.towards(server.config.address, "grpc"), server.token, lane="grpc")
    try:
        session = remote.open_append(writer.info.id, lambda _: None, told.append, lambda _: None)
        data = np.zeros(1_000, np.uint8)
        for index in range(10):
            session.send(Extent.of([index], data, [data.size]))
        wait_until(lambda: network.counts["hole"], "the connection breaks")
        wait_until(lambda: told, "the producer is told")
        assert isinstance(told[0], Unavailable)
    finally:
        remote.close()
        network.close()


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_a_lane_that_is_heard_and_does_not_hear_is_given_up(server: QuickServer, tmp_path: Path, way: str) -> None:
    """The server says that it is alive, and waits: for what was lost between two frames."""
    behind = Behind(server, way, tmp_path / "net", 0, 0.0)
    behind.lanes.calm = behind.grpc.calm = True
    try:
        with behind.buffer.collection("net").create_stream("s") as writer:
            assert writer._session.kind == way  # type: ignore[attr-defined]
            writer.append(b"heard")
            writer.flush()
            behind.lanes.deaf = True
            writer.append(b"not heard")
            wait_until(lambda: writer._broken is not None or writer._reconnects, "the producer finds out")
            behind.lanes.deaf = False
            writer.flush()
            assert writer._reconnects > 0
            behind.lanes.deaf = True  # nor is the end, at which nobody has to wait for ever
        assert [bytes(block.data) for block in behind.buffer["net/s"]] == [b"heard", b"not heard"]
    finally:
        behind.close()


def test_a_producer_that_is_silent_is_not_given_up(server: QuickServer) -> None:
    """Nor is a server that has nothing to say, however often."""
    with server.connect("tcp") as buffer, buffer.collection("c").create_stream("s") as writer:
        session: Any = writer._session
        heard: list[bool] = []
        check = session._check_heard
        session._check_heard = lambda waits: (heard.append(waits), check(waits))
        for index in range(3):
            writer.append(b"now and then")
            writer.flush()
            wait_until(lambda index=index: len(heard) >= 2 * index + 2, "two signs of life")
        assert all(heard)
        assert writer._reconnects == 0


def test_cut_two_hundred_times_on_every_lane(server: QuickServer, tmp_path: Path, tally: Any) -> None:
    assert run(server, tmp_path, tally, cuts=200, seed=1, producers=4).broken == 0


def test_killed_five_times_behind_a_network_that_loses_one_way_or_both(
    server: QuickServer, tmp_path: Path, tally: Any
) -> None:
    assert run(server, tmp_path, tally, cuts=10, kills=5, holes=0.1, seed=2).broken == 0


@pytest.mark.torture
@pytest.mark.parametrize("way", WAYS)
def test_cut_two_thousand_times(server: QuickServer, tmp_path: Path, tally: Any, way: str) -> None:
    found = run(server, tmp_path, tally, cuts=2_000, kills=5, holes=0.02, seed=3, producers=8, ways=[way])
    assert found.broken == 0


@pytest.mark.control
def test_a_producer_that_forgets_what_was_not_acknowledged_is_found(
    server: QuickServer, tmp_path: Path, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without sending again, blocks are missing, and the count says so."""
    real = StreamWriter._open

    def forgetful(self: StreamWriter) -> Any:
        session = real(self)
        with self._cond:
            for packet in getattr(self, "_sent", ()):
                self._held_bytes -= packet.extent.data.size
            self._sent = deque()
            self._cond.notify_all()
        return session

    monkeypatch.setattr(StreamWriter, "_open", forgetful)
    found = run(server, tmp_path, lambda *_, **__: None, cuts=20, seed=4, ways=["tcp"])
    assert found.lost > 0
    tally.control("bad network")
