"""`kill -9` of the server and of the producer: every acknowledged block is there once, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiss.model import StreamState
from hiss.testing.processes import DataProcess
from hiss.testing.producer import block, result

BLOCKS = 60


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DataProcess]:
    (tmp_path / "data").mkdir()
    with DataProcess(tmp_path / "data") as server:
        yield server


def crash_round(server: DataProcess, seed: int) -> int:
    """One stream, with a few kills at moments and of victims that follow from the seed; how many of its blocks were
    acknowledged to producers that were killed, or saw the server killed."""
    rng = random.Random(seed)
    path = f"crash/s{seed}"
    acknowledged = -1
    for _ in range(rng.randint(1, 3)):
        kill_at, victim = rng.randrange(BLOCKS), rng.choice(["server", "producer", "both"])
        with server.producer(path, seed, BLOCKS) as producer:
            assert producer.stdout is not None
            for line in producer.stdout:
                acknowledged = max(acknowledged, int(line))
                if acknowledged >= kill_at:
                    break
            else:
                break  # it finished before its moment came
            if victim != "server":
                producer.kill()
            if victim != "producer":
                server.kill()
                server.start()
            check_prefix(server, path, seed, acknowledged)
            if victim == "server":  # the producer reconnects by itself and finishes
                acknowledged = max([acknowledged, *(int(line) for line in producer.stdout)])
                assert producer.wait(120) == 0
    check_prefix(server, path, seed, acknowledged)
    finish(server, path, seed)
    return acknowledged + 1


def check_prefix(server: DataProcess, path: str, seed: int, acknowledged: int) -> None:
    """All up to the last acknowledged index is there once, in order, with its bytes and its columns."""
    if acknowledged < 0:
        return
    with server.connect() as buffer:
        stream = buffer[path]
        found = [(block.index, block) for block in stream if block.index <= acknowledged]
        assert [index for index, _ in found] == list(range(acknowledged + 1))
        for index, stored in found:
            assert np.array_equal(stored.data, result(seed, index))
            assert stored.columns["angle"] == index / 8


def finish(server: DataProcess, path: str, seed: int) -> None:
    """A last producer completes what the killed ones began."""
    with server.connect() as buffer:
        collection = buffer["crash"] if buffer.collections("crash") else None
        done = collection is not None and path.split("/")[1] in collection
        if not (done and buffer[path].info.state is StreamState.SEALED):
            producer = server.producer(path, seed, BLOCKS)
            producer.communicate(timeout=120)
            assert producer.returncode == 0
        stream = buffer[path]
        assert stream.info.state is StreamState.SEALED
        assert stream.info.completeness.gaps == 0
        assert np.array_equal(np.asarray(stream), np.stack([result(seed, index) for index in range(BLOCKS)]))
        assert np.array_equal(np.asarray(stream.raw), np.stack([block(seed, index) for index in range(BLOCKS)]))


@pytest.mark.parametrize("seed", range(6))
def test_nothing_acknowledged_is_lost(server: DataProcess, seed: int, tally: Any) -> None:
    tally("server and producer", rounds=1, acknowledged=crash_round(server, seed))


@pytest.mark.torture
def test_nothing_acknowledged_is_lost_in_200_rounds(server: DataProcess, tally: Any) -> None:
    for seed in range(1000, 1200):
        tally("server and producer", rounds=1, acknowledged=crash_round(server, seed))


def test_a_second_server_on_the_same_directory_and_port_says_why(server: DataProcess) -> None:
    import subprocess
    import sys

    other = subprocess.run(
        [sys.executable, "-m", "hiss.server", "data", server.config.to_json()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert other.returncode == 3
    assert "another process" in other.stderr


def test_the_server_stops_cleanly_on_sigterm(server: DataProcess) -> None:
    with server.connect() as buffer, buffer.collection("c").create_stream("s", dtype="u1", shape=(1,)) as s:
        s.append(np.zeros(1, "u1"))
    assert server.stop() == 0


def test_blocks_acknowledged_as_received_and_lost_in_a_crash_are_in_the_ledger(server: DataProcess) -> None:
    """Whatever was acknowledged below durable is either stored or in the ledger as lost; nothing else is missing."""
    with server.connect() as buffer:
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(100_000,), ack="received")
        rng = np.random.default_rng(0)
        data = rng.integers(0, 255, (200, 100_000)).astype("u1")
        for frame in data[:100]:
            s.append(frame)
        s.flush()
        server.kill()
        server.start()
        for frame in data[100:]:
            s.append(frame)
        s.close()
        stream = buffer["c/s"]
        assert {entry.reason for entry in stream.ledger} <= {"lost in a crash"}
        assert len(stream) + stream.info.completeness.gaps == 200
        for stored in stream:
            assert np.array_equal(stored.data, data[stored.index])
