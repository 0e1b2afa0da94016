"""Segments that are ready before they are needed: made in the background, bounded, and never in the way."""

from __future__ import annotations

import pytest

from hiss import limits
from hiss.blocks.preparation import Preparer

from .bench_log import BenchLog, make_extent, stream_info
from .conftest import Opened
from .simulated_disk import SimulatedDisk
from .test_arena import wait_until

SEGMENT = 64 << 10


def made(disk=None, **options):
    log = BenchLog(disk or SimulatedDisk(), {}, **options)
    return log, log.add(stream_info())


def fill(log, info, first, count) -> None:
    for k in range(first, first + count):
        assert log.append(info, make_extent(info, [(k, 15_000)])).wait() is None


def test_the_next_segment_was_written_through_when_it_is_taken():
    log, info = made()
    wanted: list[int] = []
    log.pool.on_half_full = lambda: wanted.append(1)
    preparer = Preparer(log.pool, log.log.busy, pause=lambda seconds: False)
    fill(log, info, 0, 1)
    assert not wanted, "there is time yet"
    fill(log, info, 1, 1)
    assert wanted == [1], "it is half full"
    assert preparer.step()
    (spare,) = log.pool._spares
    inode = log.files.names[spare.path.name]
    assert not inode.dirty, "what was written is durable"
    assert len(inode.durable) == SEGMENT
    assert not preparer.step(), "one is enough"
    before = set(log.pool.segments)
    fill(log, info, 2, 3)
    assert set(log.pool.segments) == before, "it was used, and no other was made"
    assert log.log._active is spare
    assert preparer.prepared == 1
    log.close()


def test_what_was_prepared_is_found_empty_at_the_next_start():
    disk = SimulatedDisk()
    log, info = made(disk)
    fill(log, info, 0, 2)
    preparer = Preparer(log.pool, log.log.busy, pause=lambda seconds: True)
    assert not preparer.step(), "told to stop after the first piece"
    Preparer(log.pool, log.log.busy, pause=lambda seconds: False).step()
    streams, contents = dict(log.streams), log.contents(info)
    killed = disk.after_kill()
    log.stop_without_a_trace()
    again = BenchLog(killed, streams)
    assert not again.report.damages
    assert again.contents(info) == contents
    fill(again, info, 2, 6)
    assert len(again.contents(info)) == 8
    again.close()


@pytest.mark.parametrize("free", [0, SEGMENT * (limits.PREPARE_FREE_SEGMENTS - 1)])
def test_nothing_is_prepared_where_space_is_short(free):
    disk = SimulatedDisk()
    log, info = made(disk)
    fill(log, info, 0, 2)
    disk.free = free
    assert not Preparer(log.pool, log.log.busy, pause=lambda seconds: False).step()
    assert len(disk.names) == 1
    log.close()


def test_it_makes_way_for_blocks_that_are_on_their_way(monkeypatch):
    monkeypatch.setattr(limits, "PREPARE_BYTES", SEGMENT // 8)
    pauses: dict[bool, list[float]] = {True: [], False: []}
    for busy in (True, False):
        log, info = made()
        fill(log, info, 0, 2)
        preparer = Preparer(log.pool, lambda busy=busy: busy, pause=lambda s, busy=busy: bool(pauses[busy].append(s)))
        assert preparer.step()
        log.close()
    assert len(pauses[True]) == len(pauses[False]) == 8


def test_a_storage_prepares_by_itself_and_says_how_it_writes(tmp_path):
    opened = Opened(tmp_path / "buffer")
    info = opened.stream()
    for k in range(3):
        opened.storage.append(info.id, make_extent(info, [(k, 250_000)]), lambda error: None)
    wait_until(lambda: opened.storage.usage().prepared_segments == 1)
    mode, reason = opened.storage.io_mode
    assert mode == "page cache"
    assert "0011" in reason
    opened.storage.close()
