"""Power cuts and kills in the middle of compaction: whatever part of a move reached the disk, every block is there
once.
"""

from __future__ import annotations

import contextlib
import errno
import random
import threading

import pytest

from hiss.blocks import segment
from hiss.blocks.segment_log import SegmentLog
from hiss.errors import SegmentDamaged

from . import test_crash_states
from .bench_log import BenchLog, make_extent, stream_info
from .simulated_disk import Fault, SimulatedDisk
from .test_arena import wait_until
from .test_crash_states import History, chain, check_state, run
from .test_faults import only_durable


class CompactingHistory(History):
    """A history in which streams come and go, and segments are compacted in between."""

    def step(self) -> None:
        action = self.rng.random()
        if action < 0.2:
            with contextlib.suppress(SegmentDamaged):  # the disk fails
                self.log.compactor.step()
        elif action < 0.3 and len(self.log.streams) > 3:
            info = self.rng.choice(list(self.log.streams.values()))
            if info.id in self.log.indexes:
                self.log.log.sync()
                with self.disk.lock:
                    self.log.delete(info)
        else:
            super().step()


@pytest.fixture
def moving(monkeypatch):
    """Everything in full segments moves, whatever is alive in them: the more moves, the more crashes within one."""
    monkeypatch.setattr(segment, "COMPACTION_FRACTION", 1)
    monkeypatch.setattr(test_crash_states, "History", CompactingHistory)


@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize("seed", range(16))
def test_a_power_cut_at_any_operation_of_a_move_loses_nothing(seed):
    assert run(seed, steps=80, states=75) >= 30


@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize("seed", range(12))
def test_life_after_life_with_moves_loses_nothing(seed):
    chain(seed, lives=8, steps=30)


@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("call", ["fdatasync", "pwritev"])
def test_a_move_on_a_failing_disk_loses_nothing(seed, call):
    faults = [Fault(call, 9 + 7 * seed, errno.EIO), Fault(call, 30 + 11 * seed, errno.EIO)]
    assert run(seed, steps=60, states=25, faults=faults) >= 10


@pytest.mark.torture
@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize("seed", range(5000, 5400))
def test_moves_at_length(seed):
    assert run(seed, steps=200, states=150) >= 80
    chain(seed, lives=30, steps=40)


def _cut_while_a_copy_waits_for_its_sync() -> None:
    """The committer hangs with a copy not synced; what was the original's place is asked for; the power goes."""
    disk = SimulatedDisk()
    log = BenchLog(disk, {})
    keep, other = log.add(stream_info("keep")), log.add(stream_info("other"))
    assert log.append(keep, make_extent(keep, [(0, 700)])).wait() is None
    for index in range(6):
        assert log.append(other, make_extent(other, [(index, 15_000)])).wait() is None
    wait_until(lambda: log.pool.segments[1].closed)
    log.delete(other)
    assert log.pool.segments[1].sparse
    gate, real = threading.Event(), disk.fdatasync

    def held(fd: int) -> None:
        if threading.current_thread().name == "hiss-committer":
            gate.wait(60)
        real(fd)

    disk.fdatasync = held  # type: ignore[method-assign]
    mover = threading.Thread(target=log.compactor.step)
    mover.start()
    wait_until(lambda: log.log._ordinals)
    more = log.add(stream_info("more"))
    outcomes = [log.append(more, make_extent(more, [(index, 15_000)])) for index in range(12)]
    cut = only_durable(disk)
    streams = dict(log.streams)
    gate.set()
    mover.join(60)
    assert [outcome.wait() for outcome in outcomes] == [None] * 12
    log.close()
    sent = {keep.id: {0: (700, 0)}, more.id: dict.fromkeys(range(12), (15000, 0))}
    check_state(cut, streams, sent, {keep.id: {0}})


def test_the_index_moves_only_to_a_copy_that_is_durable():
    _cut_while_a_copy_waits_for_its_sync()


def test_an_index_that_moves_before_the_copy_is_durable_is_found_out(monkeypatch):
    """The negative control: told at once that the copy is safe, the compactor gives the original away."""
    enter = SegmentLog._enter

    def eager(self, write, region=None):
        if write.copy:
            write.ticket.silent = True
        enter(self, write, region)
        if write.copy:
            write.ticket.done(None)

    monkeypatch.setattr(SegmentLog, "_enter", eager)
    with pytest.raises(AssertionError, match="an acknowledged block is gone"):
        _cut_while_a_copy_waits_for_its_sync()


def _sealed_with_a_torn_copy():
    """A disk on which a sealed stream's record stands twice: whole, and as a copy that a crash tore."""
    disk = SimulatedDisk()
    log = BenchLog(disk, {})
    keep, other = log.add(stream_info("keep")), log.add(stream_info("other"))
    assert log.append(keep, make_extent(keep, [(0, 9000)])).wait() is None
    keep = log.seal(keep)
    for index in range(6):
        assert log.append(other, make_extent(other, [(index, 15_000)])).wait() is None
    wait_until(lambda: log.pool.segments[1].closed)
    torn = []

    def tear(error, place) -> None:
        inode = disk.names[f"{place.segment:08d}.seg"]
        start = place.offset + 4096
        for image in (inode.cached, inode.durable):
            image[start : start + 4096] = bytes(4096)
        torn.append(place)

    log.log.copy(log.index(keep.id), 0, *log.reader.whole(log.index(keep.id), 0), tear)
    wait_until(lambda: torn)
    return disk.after_kill(), log, keep


def test_a_torn_copy_does_not_take_the_place_of_the_original():
    """A final stream is not compared with its digests when a log is opened; what stands twice is."""
    cut, log, keep = _sealed_with_a_torn_copy()
    log.stop_without_a_trace()
    sent = {keep.id: {0: (9000, 0)}}
    for _ in range(2):
        check_state(cut, {keep.id: keep}, sent, {keep.id: {0}}, faulty=True)
        cut = cut.after_power_cut(random.Random(3))
