"""A disk that fails: what was acknowledged stays, what was not is written elsewhere or its owner is told."""

from __future__ import annotations

import contextlib
import errno
import random
import threading
from dataclasses import replace

import numpy as np
import pytest

from hiss import limits
from hiss.blocks.ledger import completeness
from hiss.errors import BlockTooLarge, SegmentDamaged, SpaceExhausted, Stopping

from .bench_log import BenchLog, Outcome, block_bytes, make_extent, stream_info
from .simulated_disk import Fault, SimulatedDisk
from .test_arena import wait_until
from .test_crash_states import check_state

BLOCKS = [(0, 3000), (1, 17), (2, 0), (3, 9000)]


def contents_of(info, blocks) -> dict[int, bytes]:
    return {index: block_bytes(info.id, index, size) for index, size in blocks}


def started(faults=(), **options):
    """A log with two extents in it, and its stream; the faults count from here."""
    disk = SimulatedDisk()
    log = BenchLog(disk, {}, **options)
    info = log.add(stream_info())
    assert log.append(info, make_extent(info, BLOCKS)).wait() is None
    disk.calls.clear()
    disk.faults = list(faults)
    return disk, log, info


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_one_failure_retires_the_segment_and_the_extent_is_written_elsewhere(call, code):
    disk, log, info = started([Fault(call, 0, code)])
    second = [(index + 10, size) for index, size in BLOCKS]
    assert log.append(info, make_extent(info, second)).wait() is None
    assert log.contents(info) == contents_of(info, BLOCKS + second)
    retired = [name for name in disk.names if name.endswith(".retired")]
    assert len(retired) == 1
    # the failed file is neither written nor synced again, and read as long as something is in it
    before = bytes(disk.names[retired[0]].cached)
    assert log.append(info, make_extent(info, [(30, 5)])).wait() is None
    assert bytes(disk.names[retired[0]].cached) == before
    # a power cut now: the bytes of the failed sync never reached the disk, their copies did
    sent = {info.id: {index: (size, 0) for index, size in [*BLOCKS, *second, (30, 5)]}}
    check_state(disk.after_power_cut(random.Random(1)), dict(log.streams), sent, {info.id: set(sent[info.id])})
    log.delete(info)
    assert not [name for name in disk.names if name.endswith(".retired")]
    log.close()


def test_short_writes_are_carried_on():
    _, log, info = started([Fault("pwritev", k, 0) for k in range(12)])
    second = [(index + 10, size) for index, size in BLOCKS]
    assert log.append(info, make_extent(info, second)).wait() is None
    assert log.contents(info) == contents_of(info, BLOCKS + second)
    assert all(not segment.retired for segment in log.pool.segments.values())
    log.close()


@pytest.mark.parametrize("when", ["before its head is read", "before its bytes are read"])
def test_a_block_that_is_given_up_while_it_is_read_is_left_out(when):
    """It is readable as soon as it is written. Where it cannot be made durable it was never there, and not damaged."""
    disk, log, info = started()
    assert log.append(info, make_extent(info, [(20, 50_000)])).wait() is None
    reader_is_there = threading.Event()

    sync = disk.fdatasync

    def fdatasync(fd):
        if threading.current_thread() is not log.log._committer:
            return sync(fd)  # of a new segment's header
        assert reader_is_there.wait(30)
        raise OSError(errno.EIO, "injected")

    disk.fdatasync = fdatasync
    outcome = log.append(info, make_extent(info, [(30, 30_000)]))  # in a segment of its own
    index, table = log.index(info.id), log.reader.table

    def give_up():
        reader_is_there.set()
        assert isinstance(outcome.wait(), SegmentDamaged)

    def read_table(index, record):
        if when == "before its head is read" and record == index.records - 1:
            give_up()
        return table(index, record)

    def choose(time_ns, columns):
        if when == "before its bytes are read" and 300 in time_ns:
            give_up()
        return np.ones(len(time_ns), bool)

    log.reader.table = read_table
    found = [int(number) for extent in log.reader.read(index, None, None, 1, choose) for number in extent.index]
    assert found == [*(number for number, _ in BLOCKS), 20]
    assert outcome.said, "else this test sees nothing"
    log.close()


def test_a_disk_that_fails_every_write_is_told_to_the_caller():
    _, log, info = started([Fault("pwritev", 0, errno.EIO, forever=True)])
    extent, outcome = make_extent(info, [(10, 5)]), Outcome()
    with pytest.raises(SegmentDamaged, match="check the disk"):
        log.log.append(log.index(info.id), extent, outcome)
    assert not log.index(info.id).handled(extent.index).any()
    assert log.contents(info) == contents_of(info, BLOCKS)
    assert not outcome.said
    log.close()


def test_a_disk_that_fails_every_sync_is_told_to_the_owner_and_the_blocks_may_be_sent_again():
    disk, log, info = started([Fault("fdatasync", 0, errno.EIO, forever=True)])
    second = [(index + 10, size) for index, size in BLOCKS]
    outcome = log.append(info, make_extent(info, second))
    assert isinstance(outcome.wait(), SegmentDamaged)
    assert log.handled(info) == dict.fromkeys((0, 1, 2, 3), 0)
    assert log.contents(info) == contents_of(info, BLOCKS)
    disk.faults.clear()
    assert log.append(info, make_extent(info, second)).wait() is None
    assert log.contents(info) == contents_of(info, BLOCKS + second)
    log.close()
    again = BenchLog(disk, dict(log.streams))
    assert again.contents(info) == contents_of(info, BLOCKS + second)
    again.close()


def test_sync_raises_what_could_not_be_made_durable():
    disk, log, info = started([Fault("fdatasync", 0, errno.EIO, forever=True)])
    log.append(info, make_extent(info, [(10, 5)]))
    with pytest.raises(SegmentDamaged):
        log.log.sync()
    disk.faults.clear()
    log.append(info, make_extent(info, [(11, 5)]))
    log.log.sync()
    log.close()


def test_sync_of_a_stream_waits_for_it_alone_and_raises_what_became_of_it():
    disk, log, info = started()
    other = log.add(stream_info("other"))
    gate, original = threading.Event(), disk.fdatasync

    def held(fd: int) -> None:
        assert gate.wait(60)
        original(fd)

    disk.fdatasync = held  # type: ignore[method-assign]
    log.append(info, make_extent(info, [(10, 5)]))
    log.log.sync({other.id})  # nothing of it is on its way
    done = threading.Event()
    thread = threading.Thread(target=lambda: (log.log.sync({other.id, info.id}), done.set()))
    thread.start()
    assert not done.wait(0.2)
    gate.set()
    thread.join(60)
    assert done.is_set()
    disk.faults = [Fault("fdatasync", 0, errno.EIO, forever=True)]
    gate.clear()
    log.append(info, make_extent(info, [(11, 5)]))
    failed = []

    def wait(stream_id: str) -> None:
        try:
            log.log.sync({stream_id})
        except SegmentDamaged:
            failed.append(stream_id)

    threads = [threading.Thread(target=wait, args=(each.id,)) for each in (info, other)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(log.log._sync_waits) == 1)  # that of `other` is over
    gate.set()
    for thread in threads:
        thread.join(60)
    assert failed == [info.id]
    disk.faults.clear()
    log.close()


def test_a_full_disk_waits_for_space_and_then_says_so():
    disk, log, info = started()
    disk.free = 0
    filler = [(100 + k, 15_000) for k in range(3)]
    for block in filler[:2]:
        assert log.append(info, make_extent(info, [block])).wait() is None
    with pytest.raises(SpaceExhausted, match="free space"):
        log.append(info, make_extent(info, filler[2:]))
    assert log.contents(info) == contents_of(info, BLOCKS + filler[:2]), "what is there stays readable"
    disk.free = 1 << 30
    assert log.append(info, make_extent(info, filler[2:])).wait() is None
    log.close()


def test_an_append_that_waits_for_space_goes_on_when_a_stream_is_deleted():
    disk, log, info = started(space_wait_s=60.0)
    other = log.add(stream_info("other"))
    for k in range(9):  # two full segments of `other`, and part of a third
        assert log.append(other, make_extent(other, [(k, 25_000)])).wait() is None
    disk.free = 0
    done: list[Outcome] = []
    extents = [make_extent(info, [(100 + k, 25_000)]) for k in range(4)]
    thread = threading.Thread(target=lambda: done.extend(log.append(info, extent) for extent in extents))
    thread.start()
    wait_until(lambda: log.pool.pressed)
    assert thread.is_alive()
    log.delete(other)
    thread.join(60)
    assert [outcome.wait() for outcome in done] == [None] * 4
    assert disk.free == 0, "the space came from the deleted stream's segments"
    assert set(log.contents(info)) == {0, 1, 2, 3, 100, 101, 102, 103}
    log.close()


def test_appends_wait_while_too_much_is_unsynced():
    disk, log, info = started(unsynced_bytes_max=20_000)
    gate = threading.Event()
    original = disk.fdatasync

    def held(fd: int) -> None:
        gate.wait(60)
        original(fd)

    disk.fdatasync = held  # type: ignore[method-assign]
    outcomes = [log.append(info, make_extent(info, [(10, 9000)]))]
    thread = threading.Thread(target=lambda: outcomes.append(log.append(info, make_extent(info, [(11, 9000)]))))
    thread.start()
    wait_until(lambda: log.index(info.id).next_index == 11)
    thread.join(0.2)
    assert thread.is_alive()
    gate.set()
    thread.join(60)
    assert [outcome.wait() for outcome in outcomes] == [None, None]
    log.close()


def test_an_extent_larger_than_a_segment_becomes_several_records_and_one_outcome():
    _, log, info = started()
    blocks = [(100 + k, 20_000) for k in range(12)]
    outcome = log.append(info, make_extent(info, blocks))
    assert outcome.wait() is None
    assert log.contents(info) == contents_of(info, BLOCKS + blocks)
    assert len(log.pool.segments) > 3
    with pytest.raises(BlockTooLarge, match="raise segment_bytes"):
        log.append(info, make_extent(info, [(200, 70_000)]))
    log.close()


def test_a_large_extent_that_fails_half_way_returns_when_its_memory_is_free():
    disk, log, info = started()
    disk.free = 64 << 10
    blocks = [(100 + k, 20_000) for k in range(12)]
    outcome = Outcome()
    with pytest.raises(SpaceExhausted):
        log.log.append(log.index(info.id), make_extent(info, blocks), outcome)
    assert not log.log._ordinals, "a record of it is still on its way"
    assert not outcome.said
    disk.free = 1 << 30
    missing = [block for block in blocks if not log.index(info.id).handled(np.array(block[:1]))[0]]
    assert 0 < len(missing) < len(blocks)
    assert log.append(info, make_extent(info, missing)).wait() is None
    assert log.contents(info) == contents_of(info, BLOCKS + blocks)
    log.close()


def test_segments_are_recycled_under_a_new_generation():
    disk, log, info = started()
    for round_ in range(12):
        other = log.add(stream_info(f"r{round_}"))
        for k in range(6):
            assert log.append(other, make_extent(other, [(k, 20_000)])).wait() is None
        assert len(log.contents(other)) == 6
        log.delete(other)
    assert len(log.pool.segments) <= 5, "space is used again"
    generations = [segment.generation for segment in log.pool.segments.values()]
    assert len(set(generations)) == len(generations)
    assert max(generations) > len(generations)
    assert log.contents(info) == contents_of(info, BLOCKS)
    log.close()
    again = BenchLog(disk, {info.id: info})
    assert again.contents(info) == contents_of(info, BLOCKS)
    assert not again.report.damages
    again.close()


def test_spare_segments_have_a_bound():
    disk, log, info = started()
    for k in range(40):
        assert log.append(info, make_extent(info, [(100 + k, 30_000)])).wait() is None
    log.delete(info)
    assert len(log.pool.segments) <= limits.SPARE_SEGMENTS_MAX + 1
    assert len(disk.names) == len(log.pool.segments)
    log.close()


def test_descriptors_have_a_bound(monkeypatch):
    monkeypatch.setattr(limits, "SEGMENTS_OPEN_MAX", 3)
    disk, log, info = started()
    blocks = [(100 + k, 30_000) for k in range(30)]
    for block in blocks:
        assert log.append(info, make_extent(info, [block])).wait() is None
    assert len(log.pool.segments) > 10
    assert log.contents(info) == contents_of(info, BLOCKS + blocks)
    log.log.sync()
    assert len(disk._open) <= 4
    log.close()
    assert not disk._open


def test_a_callback_that_raises_does_not_stop_the_log(caplog):
    _, log, info = started()

    def bad(error) -> None:
        raise RuntimeError("somebody's bug")

    log.log.append(log.index(info.id), make_extent(info, [(10, 5)]), bad)
    assert log.append(info, make_extent(info, [(11, 5)])).wait() is None
    assert "a callback of an append failed" in caplog.text
    log.close()


def test_a_closed_log_takes_nothing():
    _, log, info = started()
    log.close()
    with pytest.raises(Stopping):
        log.append(info, make_extent(info, [(10, 5)]))


def test_streams_are_written_side_by_side():
    """Eight streams, eight threads, syncs and writes that fail now and then: all of it is there, once."""
    faults = [Fault("fdatasync", k, errno.EIO) for k in (9, 31)] + [Fault("pwritev", k, errno.EIO) for k in (20, 77)]
    disk, log, _ = started(faults)
    infos = [log.add(stream_info(f"t{k}")) for k in range(8)]
    outcomes: list[Outcome] = []

    def produce(info) -> None:
        extents = [make_extent(info, [(2 * k, 1000 + k), (2 * k + 1, 30)]) for k in range(25)]
        outcomes.extend(log.append(info, extent) for extent in extents)

    threads = [threading.Thread(target=produce, args=(info,)) for info in infos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [outcome.wait() for outcome in outcomes] == [None] * 200
    for info in infos:
        expected = contents_of(info, [pair for k in range(25) for pair in ((2 * k, 1000 + k), (2 * k + 1, 30))])
        assert log.contents(info) == expected
    streams = dict(log.streams)
    log.close()
    again = BenchLog(disk, streams)
    assert all(len(again.contents(info)) == 50 for info in infos)
    again.close()


def only_durable(disk: SimulatedDisk) -> SimulatedDisk:
    """The power cut that keeps nothing of what was not synced."""
    nothing = random.Random(0)
    nothing.choice = lambda _: 0.0  # type: ignore[method-assign, assignment]
    return disk.after_power_cut(nothing)


def test_what_a_failed_sync_left_in_memory_is_written_again_before_it_is_shown():
    """Killed after a sync failed: the bytes can be read, and will never reach the disk by themselves."""
    disk, log, info = started([Fault("fdatasync", 0, errno.EIO, forever=True)])
    second = [(index + 10, size) for index, size in BLOCKS]
    outcome = log.append(info, make_extent(info, second))
    assert isinstance(outcome.wait(), SegmentDamaged)
    killed = disk.after_kill()
    log.stop_without_a_trace()
    again = BenchLog(killed, {info.id: info})
    there = again.contents(info)
    assert there == contents_of(info, BLOCKS + second)
    assert again.report.rewritten_blocks == len(second)
    cut = only_durable(killed)
    again.stop_without_a_trace()
    last = BenchLog(cut, {info.id: info})
    assert last.contents(info) == there
    last.close()


def test_where_a_block_was_written_twice_the_later_one_counts():
    """Told that a block is not durable, its producer sends another; the failed segment's name could not be changed."""
    disk, log, info = started()
    disk.faults = [
        Fault("fdatasync", 0, errno.EIO),
        *[Fault("create", k, errno.EIO) for k in range(1, 9)],
        Fault("rename", 0, errno.EIO),
    ]
    disk.calls.clear()
    disk.calls["create"] = 0
    first = make_extent(info, [(10, 700), (11, 50)])
    assert isinstance(log.append(info, first).wait(), SegmentDamaged)
    assert not [name for name in disk.names if name.endswith(".retired")]
    disk.faults.clear()
    other = make_extent(replace(info, id="f" * 32), [(10, 300)])
    assert log.append(info, other).wait() is None
    killed = disk.after_kill()
    log.stop_without_a_trace()
    again = BenchLog(killed, {info.id: info})
    there = again.contents(info)
    assert there[10] == bytes(other.data)
    assert 11 not in there, "only memory had it, and its producer was told"
    again.close()


def reads_of_an_opening() -> int:
    disk, log, info = started()
    assert log.append(info, make_extent(info, [(10, 700)])).wait() is None
    killed = disk.after_kill()
    log.stop_without_a_trace()
    BenchLog(killed, {info.id: info}).stop_without_a_trace()
    return killed.calls["preadv"] + 1


@pytest.mark.parametrize("occurrence", range(reads_of_an_opening()))
def test_a_read_that_fails_once_when_the_log_is_opened_loses_nothing(occurrence):
    """Nobody vouches for the newest records: refused by the disk, they are not taken for the end of the log."""
    disk, log, info = started()
    assert log.append(info, make_extent(info, [(10, 700)])).wait() is None
    killed = disk.after_kill()
    log.stop_without_a_trace()
    killed.faults = [Fault("preadv", occurrence, errno.EIO)]
    late = {}
    with contextlib.suppress(SegmentDamaged):  # of the first page: then it is not opened
        opened = BenchLog(killed, {info.id: info})
        all_there = opened.contents(info) == contents_of(info, [*BLOCKS, (10, 700)])
        assert all_there or opened.report.damages
        assert opened.append(info, make_extent(info, [(20, 5)])).wait() is None
        late = contents_of(info, [(20, 5)])
        opened.stop_without_a_trace()
    killed.faults = []
    again = BenchLog(killed.after_kill(), {info.id: info})
    assert again.contents(info) == contents_of(info, [*BLOCKS, (10, 700)]) | late
    assert not again.report.damages
    again.close()


def test_what_a_recovery_has_shown_is_damage_when_it_goes_bad():
    """After a kill the last record may be acknowledged again; a bit that flips in it later is not taken for a torn
    tail.
    """
    disk, log, info = started()
    assert log.append(info, make_extent(info, [(10, 700)])).wait() is None
    killed = disk.after_kill()
    log.stop_without_a_trace()
    BenchLog(killed, {info.id: info}).stop_without_a_trace()
    cut = only_durable(killed)
    (inode,) = cut.names.values()
    place = bytes(inode.cached).index(block_bytes(info.id, 10, 700))
    for image in (inode.cached, inode.durable):
        image[place] ^= 1
    last = BenchLog(cut, {info.id: info})
    assert [damage.blocks for damage in last.report.damages] == [(10,)]
    assert last.contents(info) == contents_of(info, BLOCKS)
    entries = completeness(last.index(info.id), 12, []).ledger
    assert [(entry.first, entry.last, entry.reason) for entry in entries] == [
        (4, 9, "never received"),
        (10, 10, "damaged on disk"),
        (11, 11, "never received"),
    ]
    # sealed so, it stays so: the record still claims block 10, the ledger knows better
    sealed = last.seal(info)
    last.close()
    after = BenchLog(cut, {info.id: sealed})
    assert after.contents(info) == contents_of(info, BLOCKS)
    assert after.index(info.id).stored == sealed.completeness.blocks
    assert not after.report.damages
    after.close()


def test_a_segment_is_not_used_again_while_somebody_reads_it():
    _, log, info = started()
    assert log.append(info, make_extent(info, [(100, 40_000)])).wait() is None
    assert log.append(info, make_extent(info, [(101, 40_000)])).wait() is None
    full = log.pool.segments[1]
    wait_until(lambda: full.closed)
    with log.pool.using(full):
        log.delete(info)
        assert full not in log.pool._spares
    assert full in log.pool._spares
    log.close()


def test_a_segment_that_only_has_marks_is_gone_on_with_and_not_used_twice():
    """Opened and closed without a block, the last segment is empty, and yet the one that is written to next."""
    disk = SimulatedDisk()
    first = BenchLog(disk, {})
    info = first.add(stream_info())
    other = first.add(stream_info("other"))
    assert first.append(other, make_extent(other, [(0, 50)])).wait() is None
    first.delete(other)
    first.close()
    for _ in range(2):
        BenchLog(disk, {info.id: info}).close()
    log = BenchLog(disk, {info.id: info})
    assert log.found.active is not None
    assert log.found.active not in log.pool._spares
    blocks = [(k, 20_000) for k in range(12)]
    for block in blocks:
        assert log.append(info, make_extent(info, [block])).wait() is None
    assert log.contents(info) == contents_of(info, blocks)
    log.close()
    again = BenchLog(disk, {info.id: info})
    assert again.contents(info) == contents_of(info, blocks)
    assert not again.report.damages
    again.close()


def test_a_torn_record_is_not_covered_in_a_segment_that_was_put_to_use_again():
    """What is good of a torn record moves on; its segment is full and empty then, and used for that very move."""
    disk, log, info = started()
    filler = [(100, 15_000), (101, 15_000), (102, 10_000)]
    for block in filler[:2]:
        assert log.append(info, make_extent(info, [block])).wait() is None
    gate = threading.Event()
    original = disk.fdatasync

    def held(fd: int) -> None:
        original(fd)
        if threading.current_thread().name == "hiss-committer":
            gate.wait(60)

    disk.fdatasync = held  # type: ignore[method-assign]
    outcomes = [log.append(info, make_extent(info, filler[2:]))]
    extents = [[(200 + 2 * k, 5000), (201 + 2 * k, 5000)] for k in range(5)]  # all of segment 2
    outcomes += [log.append(info, make_extent(info, extent)) for extent in extents]
    wait_until(lambda: len(log.pool.segments) >= 2)
    killed = disk.after_kill()
    gate.set()
    assert [outcome.wait() for outcome in outcomes] == [None] * 6
    log.close()
    second = killed.names["00000002.seg"].cached
    headers = [at for at in range(4096, len(second), 4096) if second[at : at + 8] == b"HISSREC1"]
    second[4096 : headers[-1]] = bytes(headers[-1] - 4096)
    second[headers[-1] + 8000] ^= 1
    assert (len(headers), len(killed.names)) == (5, 2)
    again = BenchLog(killed, {info.id: info})
    there = again.contents(info)
    again.stop_without_a_trace()
    last = BenchLog(killed.after_kill(), {info.id: info})
    assert not last.report.damages
    assert last.contents(info) == there
    last.close()


def test_a_segment_whose_sync_fails_when_the_log_is_opened_is_moved_and_not_deleted():
    disk, log, info = started()
    second = [(index + 10, size) for index, size in BLOCKS]
    assert log.append(info, make_extent(info, second)).wait() is None
    killed = disk.after_kill()
    log.stop_without_a_trace()
    killed.faults = [Fault("fdatasync", 0, errno.EIO)]
    again = BenchLog(killed, {info.id: info})
    assert again.contents(info) == contents_of(info, BLOCKS + second)
    assert again.report.rewritten_blocks == 8
    cut = only_durable(killed)
    again.close()
    last = BenchLog(cut, {info.id: info})
    assert last.contents(info) == contents_of(info, BLOCKS + second)
    last.close()


def test_a_kill_between_a_failed_sync_and_the_new_name_leaves_nothing_that_only_memory_has():
    """The bytes of the failed sync count as clean: the next sync of the file succeeds, and writes nothing."""
    disk, log, info = started([Fault("fdatasync", 0, errno.EIO)])
    killed: list[SimulatedDisk] = []
    rename = disk.rename

    def noticed(old, new) -> None:
        killed.append(disk.after_kill())
        rename(old, new)

    disk.rename = noticed  # type: ignore[method-assign]
    second = [(index + 10, size) for index, size in BLOCKS]
    assert log.append(info, make_extent(info, second)).wait() is None
    log.stop_without_a_trace()
    again = BenchLog(killed[0], {info.id: info})
    there = again.contents(info)
    assert set(there) >= {index for index, _ in BLOCKS}
    again.stop_without_a_trace()
    last = BenchLog(only_durable(killed[0]), {info.id: info})
    assert last.contents(info).keys() >= there.keys(), "what a recovery showed is gone after a power cut"
    assert not last.report.damages
    last.close()


def test_what_was_given_up_before_a_seal_is_not_in_the_sealed_stream():
    """Told that its last blocks are not durable, a producer sealed without them; a failed segment still has them."""
    disk, log, info = started([Fault("fdatasync", 0, errno.EIO, forever=True)])
    assert isinstance(log.append(info, make_extent(info, [(10, 700), (11, 50)])).wait(), SegmentDamaged)
    disk.faults.clear()
    sealed = log.seal(info)
    assert sealed.completeness.last_index == 3
    killed = disk.after_kill()
    log.stop_without_a_trace()
    again = BenchLog(killed, {info.id: sealed})
    assert again.contents(info) == contents_of(info, BLOCKS)
    assert not again.report.damages
    again.close()


def test_a_log_whose_repair_cannot_be_made_durable_is_not_opened_and_loses_nothing():
    """What was acknowledged stands in a segment whose sync fails at the opening, and so does every other's."""
    disk, log, info = started()
    killed = disk.after_kill()
    log.stop_without_a_trace()
    killed.faults = [Fault("fdatasync", 0, errno.EIO, forever=True)]
    with pytest.raises((SegmentDamaged, SpaceExhausted)):
        BenchLog(killed, {info.id: info})
    last = BenchLog(only_durable(killed), {info.id: info})
    assert last.contents(info) == contents_of(info, BLOCKS)
    last.close()
