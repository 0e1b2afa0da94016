"""Compaction: what is alive moves on, the rest of the segment is used again, and nobody notices.

The crash states stand in `test_compaction_crashes`.
"""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiss import limits
from hiss.blocks import Storage, StorageOptions
from hiss.blocks.compaction import Compactor
from hiss.blocks.record import BlockTable
from hiss.errors import SpaceExhausted, StreamNotFound

from .bench_log import BenchLog, block_bytes, make_extent, stream_info
from .conftest import Opened
from .simulated_disk import SimulatedDisk
from .test_arena import wait_until

SEGMENT = 64 << 10


def interleaved(log: BenchLog, streams: int, rounds: int, size: int = 1500):
    """Streams that take turns, one block each; what each holds."""
    infos = [log.add(stream_info(f"t{k}")) for k in range(streams)]
    blocks = [(index, size) for index in range(rounds)]
    for block in blocks:
        outcomes = [log.append(info, make_extent(info, [block])) for info in infos]
        assert [outcome.wait() for outcome in outcomes] == [None] * streams
    return infos, {info.id: {i: block_bytes(info.id, i, n) for i, n in blocks} for info in infos}


def all_steps(compactor: Compactor) -> int:
    steps = 0
    while compactor.step():
        steps += 1
        assert steps < 1000, "compaction does not come to an end"
    return steps


def sparse(log: BenchLog) -> list[int]:
    return [segment.number for segment in log.pool.segments.values() if segment.sparse]


def test_what_few_streams_pin_comes_back():
    disk = SimulatedDisk()
    log = BenchLog(disk, {})
    infos, contents = interleaved(log, streams=20, rounds=30)
    in_use = len(log.pool.segments)
    for info in infos[2:]:
        log.delete(info)
    assert len(sparse(log)) >= in_use // 2, "each of them holds a little of the two that stay"
    assert all_steps(log.compactor) >= in_use // 2
    assert not sparse(log)
    live = sum(segment.live_bytes for segment in log.pool.segments.values())
    spares = len(log.pool._spares)
    assert (len(log.pool.segments) - spares) * SEGMENT <= 4 * live + 2 * SEGMENT
    for info in infos[:2]:
        assert log.contents(info) == contents[info.id]
    done = log.compactor.done
    assert done.segments >= in_use // 2
    assert done.records >= done.segments
    assert not done.kept
    streams = dict(log.streams)
    log.close()
    again = BenchLog(disk, streams)
    assert not again.report.damages
    for info in infos[:2]:
        assert again.contents(info) == contents[info.id]
    again.close()


def test_nine_of_ten_streams_are_deleted_and_their_space_is_used_again(tmp_path):
    """The whole storage, with its own thread: the log does not grow while nine tenths of all that comes is deleted."""
    opened = Opened(tmp_path / "buffer", StorageOptions(arena_bytes=8 << 20, segment_bytes=1 << 20))
    try:
        kept = []
        for round_ in range(5):
            infos = [opened.stream(f"r{round_}s{k}") for k in range(20)]
            for index in range(20):
                for info in infos:
                    opened.storage.append(info.id, make_extent(info, [(index, 9000)]), lambda error: None)
            opened.storage.sync()
            for info in infos[2:]:
                opened.storage.delete(info.id)
            kept += infos[:2]
        wait_until(lambda: not any(segment.sparse for segment in list(opened.storage._pool.segments.values())))
        usage = opened.storage.usage()
        assert usage.compaction.segments > 0
        assert usage.live_bytes < 10 * 20 * (9000 + 4096)
        spares = len(opened.storage._pool._spares)
        assert (usage.segments - spares) * (1 << 20) <= 4 * usage.live_bytes + 3 * (1 << 20)
        for again in (False, True):
            storage = opened.again() if again else opened.storage
            for info in kept:
                found = [bytes(extent.data) for i in range(20) for extent in storage.read(info.id, i, i + 1)]
                assert found == [block_bytes(info.id, index, 9000) for index in range(20)]
    finally:
        opened.storage.close()


def test_a_segment_with_a_quarter_alive_is_left_alone():
    log = BenchLog(SimulatedDisk(), {})
    infos, _ = interleaved(log, streams=4, rounds=12)
    log.log.sync()
    for info in infos[2:]:
        log.delete(info)
    assert all_steps(log.compactor) == 0
    log.close()


def test_a_damaged_record_stays_with_its_segment_and_is_reported(caplog):
    disk = SimulatedDisk()
    log = BenchLog(disk, {})
    infos, contents = interleaved(log, streams=12, rounds=12)
    wait_until(lambda: log.pool.segments[1].closed)
    for info in infos[1:]:
        log.delete(info)
    inode = disk.names["00000001.seg"]
    place = bytes(inode.cached).index(block_bytes(infos[0].id, 0, 1500))
    inode.cached[place + 5] ^= 1
    assert log.pool.segments[1].sparse
    all_steps(log.compactor)
    (why,) = log.compactor.done.kept
    assert "00000001.seg" in why
    assert "block 0" in why
    assert "compaction leaves a segment as it is" in caplog.text
    assert log.pool.segments[1].live_records >= 1
    assert "00000001.seg" in disk.names
    inode.cached[place + 5] ^= 1
    assert log.contents(infos[0]) == contents[infos[0].id], "nothing of it was lost"
    log.delete(infos[0])
    assert 1 not in log.pool.segments or not log.pool.segments[1].live_records, "its streams are deleted: it is free"
    log.close()


def test_a_retired_segment_is_emptied_whatever_is_alive_in_it():
    disk = SimulatedDisk()
    log = BenchLog(disk, {})
    infos, contents = interleaved(log, streams=2, rounds=4)
    log.pool.retire(log.pool.segments[1], OSError("it failed"))
    assert log.pool.segments[1].sparse
    assert log.compactor.step()
    assert not [name for name in disk.names if name.endswith(".retired")]
    assert [log.contents(info) for info in infos] == [contents[info.id] for info in infos]
    log.close()


def test_a_full_disk_is_compacted_into_the_segment_that_is_kept_for_it():
    """No byte of disk is left and every segment holds something: the kept one is enough to get all of them back."""
    disk = SimulatedDisk(free=8 * SEGMENT)
    log = BenchLog(disk, {}, kept_spares=1)
    infos = [log.add(stream_info(f"t{k}")) for k in range(10)]
    index, full = 0, False
    while not full:  # to the brim
        for info in infos:
            try:
                assert log.append(info, make_extent(info, [(index, 3000)])).wait() is None
            except SpaceExhausted:
                full = True
        index += 1
    held = log.contents(infos[0])
    assert disk.free < SEGMENT
    assert len(log.pool._spares) == 1
    for info in infos[1:]:
        log.delete(info)
    assert all_steps(log.compactor) > 1
    more = [(1000 + k, 15_000) for k in range(16)]
    for block in more:
        assert log.append(infos[0], make_extent(infos[0], [block])).wait() is None
    there = set(log.contents(infos[0]))
    assert there == {*held, *(i for i, _ in more)}
    assert len(disk.names) == 8
    log.close()


def test_what_waits_for_space_goes_on_when_segments_were_compacted():
    """Producers that wait on a full disk are served by compaction, and do not take the segment that it needs."""
    disk = SimulatedDisk(free=8 * SEGMENT)
    log = BenchLog(disk, {}, kept_spares=1, space_wait_s=60.0)
    infos = [log.add(stream_info(f"t{k}")) for k in range(10)]
    for index in range(4):
        for info in infos:
            assert log.append(info, make_extent(info, [(index, 7000)])).wait() is None
    outcomes = []
    thread = threading.Thread(
        target=lambda: outcomes.extend(
            log.append(infos[0], make_extent(infos[0], [(100 + k, 15_000)])) for k in range(12)
        )
    )
    thread.start()
    wait_until(lambda: log.pool.pressed)
    log.compactor.start()
    for info in infos[1:]:
        log.delete(info)
    thread.join(60)
    assert [outcome.wait() for outcome in outcomes] == [None] * 12
    log.compactor.close()
    assert set(log.contents(infos[0])) == {*range(4), *range(100, 112)}
    log.close()


def test_a_disk_with_room_has_a_segment_for_everybody_while_records_move():
    """A record that moves takes the kept segment, as it waits for nobody. Who comes next makes another one."""
    log = BenchLog(SimulatedDisk(), {}, kept_spares=1)
    info = log.add(stream_info("s"))
    for number in range(12):
        assert log.append(info, make_extent(info, [(number, 7000)])).wait() is None
    assert len(log.pool._spares) == 1
    index = log.index(info.id)
    extent = log.reader.record(index, 0)
    assert extent is not None
    copied: list[object] = []
    while not any(segment.copies_only for segment in log.pool.segments.values()):
        log.log.copy(index, 0, BlockTable.of(extent), extent.data, lambda error, place: copied.append(error))
        assert len(copied) < 100, "the kept segment is never taken"
    assert log.append(info, make_extent(info, [(12, 7000)])).wait() is None
    assert set(log.contents(info)) == set(range(13))
    log.log.sync()
    log.close()


def test_copying_keeps_to_its_rate():
    disk = SimulatedDisk()
    log = BenchLog(disk, {})
    pauses: list[float] = []
    log.compactor._pause = lambda seconds: bool(pauses.append(seconds))
    infos, _ = interleaved(log, streams=20, rounds=20)
    for info in infos[1:]:
        log.delete(info)
    all_steps(log.compactor)
    written = log.compactor.done.bytes
    assert written > 0
    assert sum(pauses) == pytest.approx(written / limits.COMPACTION_BYTES_PER_S)
    log.close()


def test_readers_are_not_disturbed():
    """Read over and over while everything moves, and segments are used again by records that look alike."""
    log = BenchLog(SimulatedDisk(), {}, kept_spares=1)
    keep, contents = interleaved(log, streams=2, rounds=12)
    failures: list[BaseException] = []
    stop = threading.Event()

    def read(info) -> None:
        try:
            while not stop.is_set():
                assert log.contents(info) == contents[info.id]
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(info,)) for info in keep]
    for reader in readers:
        reader.start()
    for round_ in range(4):
        other = log.add(stream_info(f"o{round_}"))
        for index in range(12):
            assert log.append(other, make_extent(other, [(index, 1500)])).wait() is None
        log.delete(other)
        for segment in list(log.pool.segments.values()):  # whatever is alive in it: a quarter would be over at once
            if segment.closed and segment.live_records:
                for batch in log.compactor._batches(segment):
                    log.compactor._move(batch)
    stop.set()
    for reader in readers:
        reader.join(60)
    assert not failures, failures[0]
    log.close()


def test_a_stream_that_is_deleted_while_it_moves_leaves_nothing():
    """Deleted after the copy was written and before the index moved: neither place stays counted."""
    disk = SimulatedDisk()
    log = BenchLog(disk, {})
    infos, _ = interleaved(log, streams=16, rounds=12)
    for info in infos[1:]:
        log.delete(info)
    moved, index = log.compactor._relocate, log.index(infos[0].id)

    def late(index, record, old, copy) -> None:
        if infos[0].id in log.indexes:
            log.delete(infos[0])
        moved(index, record, old, copy)

    log.compactor._relocate = late
    all_steps(log.compactor)
    assert sum(segment.live_records for segment in log.pool.segments.values()) == 0
    with pytest.raises(StreamNotFound):
        log.reader.whole(index, 0)
    log.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32), streams=st.integers(2, 12), rounds=st.integers(4, 25))
def test_compaction_changes_nothing_that_can_be_read(seed, streams, rounds):
    """Any mix of streams, sizes and deletions: contents, handled indices and gaps are as before, then and later."""
    rng = random.Random(seed)
    disk = SimulatedDisk()
    log = BenchLog(disk, {}, kept_spares=rng.randint(0, 1))
    infos = [log.add(stream_info(f"t{k}")) for k in range(streams)]
    for index in range(rounds):
        for info in infos:
            status = {3 * index: rng.choice((0, 0, 1, 3))}
            blocks = [(3 * index, rng.choice((0, 40, 5000))), (3 * index + 1, rng.choice((0, 900)))]
            assert log.append(info, make_extent(info, blocks, status)).wait() is None
    for info in rng.sample(infos, streams * 9 // 10):
        log.delete(info)
    before = {info.id: (log.contents(info), log.handled(info)) for info in log.streams.values()}
    digests = {id: index.rolling_digest() for id, index in log.indexes.items()}
    all_steps(log.compactor)
    assert not sparse(log)
    assert {info.id: (log.contents(info), log.handled(info)) for info in log.streams.values()} == before
    assert {id: index.rolling_digest() for id, index in log.indexes.items()} == digests
    live = {n: s.live_records for n, s in log.pool.segments.items()}
    for info in list(log.streams.values()):
        if rng.random() < 0.5:
            log.seal(info)
    killed = disk.after_kill()
    streams_now = dict(log.streams)
    log.stop_without_a_trace()
    again = BenchLog(killed, streams_now)
    assert not again.report.damages
    assert {info.id: (again.contents(info), again.handled(info)) for info in again.streams.values()} == before
    assert {n: s.live_records for n, s in again.pool.segments.items() if s.live_records} == {
        n: count for n, count in live.items() if count
    }
    again.close()


def test_nothing_is_compacted_where_it_is_switched_off(tmp_path):
    options = StorageOptions(arena_bytes=8 << 20, segment_bytes=1 << 20, compaction_bytes_per_s=0)
    storage = Storage(tmp_path / "buffer", options)
    assert storage._compactor._thread is None
    assert storage._pool._kept_spares == 0
    storage.close()


def test_a_stream_that_is_deleted_meanwhile_keeps_no_segment(monkeypatch, caplog):
    """Whoever looks while a stream is being deleted sees all of it or nothing, not records that are nobody's."""
    log = BenchLog(SimulatedDisk(), {})
    infos, contents = interleaved(log, streams=20, rounds=30)
    for info in infos[2:]:
        log.delete(info)
    steps: list[threading.Thread] = []
    count_live = log.pool.count_live

    def watched(*counted):
        if not steps:
            steps.append(threading.Thread(target=log.compactor.step))
            steps[0].start()
            steps[0].join(0.5)  # as long as it may, unless it has to wait for the rest
        count_live(*counted)

    with monkeypatch.context() as patch:
        patch.setattr(log.pool, "count_live", watched)
        log.delete(infos[0])
    steps[0].join(60)
    assert not steps[0].is_alive()
    all_steps(log.compactor)
    assert "leaves a segment" not in caplog.text
    assert not sparse(log)
    assert log.contents(infos[1]) == contents[infos[1].id]
    log.close()
