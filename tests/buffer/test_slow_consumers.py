"""Consumers that do not read hold up nobody: a producer streams several times the server's memory past them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hiss.client import Buffer
from hiss.limits import MiB
from hiss.testing.processes import DataProcess

ARENA = 16 * MiB
BLOCKS, SHAPE = 96, (512, 1024)  # of half a MiB each: three times the arena


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataProcess]:
    folder = tmp_path_factory.mktemp("slow")
    with DataProcess(folder / "data", arena_bytes=ARENA, segment_bytes=16 * MiB) as server:
        yield server


@pytest.fixture
def buffer(server: DataProcess) -> Iterator[Buffer]:
    with server.connect() as buffer:
        yield buffer


def block(index: int) -> Any:
    return np.full(SHAPE, index, "u1")


@pytest.mark.parametrize("many", [1, 8])
def test_followers_that_stand_still(buffer: Buffer, many: int) -> None:
    s = buffer.collection(f"follow{many}").create_stream("s", dtype="u1", shape=SHAPE, ack="written")
    stream = buffer[f"follow{many}/s"]
    s.append(block(0))
    followers = [stream.follow() for _ in range(many)]
    assert [next(follower).index for follower in followers] == [0] * many
    for index in range(1, BLOCKS):
        s.append(block(index))
        if index % 32 == 0:
            s.flush(60)
            live = stream.latest()
            assert live is not None
            assert live.index == index, "a display skips to the newest block"
    s.flush(60)
    s.close()
    for follower in followers:
        seen = [(each.index, int(each.data[0, 0]), int(each.data[-1, -1])) for each in follower]
        assert seen == [(index, index, index) for index in range(1, BLOCKS)], "and misses nothing"


def test_members_that_do_not_acknowledge(buffer: Buffer) -> None:
    s = buffer.collection("share").create_stream("s", dtype="u1", shape=SHAPE, ack="written")
    stream = buffer["share/s"]
    s.append(block(0))
    idle = [stream.share("g", timeout_s=3600.0, blocks=4) for _ in range(4)]
    waiting = threading.Thread(target=lambda: [next(each) for each in idle])
    waiting.start()
    for index in range(1, BLOCKS):
        s.append(block(index))
    s.flush(60)
    waiting.join(60)
    assert not waiting.is_alive()
    s.close()
    (group,) = buffer.store.consumer_groups(s.info.id)
    assert (group.acknowledged, group.left, group.members) == (0, BLOCKS, 4)
    for each in idle:
        each.close()
    with stream.share("g", blocks=16) as share:
        indices = [each.index for batch in share.batches() if not share.done(*batch) for each in batch]
    assert indices == list(range(BLOCKS))
