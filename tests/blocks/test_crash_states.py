"""Power cuts: whatever part of the unsynced sectors reached the disk, everything acknowledged is there, nothing wrong
is.
"""

from __future__ import annotations

import copy
import errno
import random

import pytest

from hiss.errors import HissError
from hiss.model import StreamInfo

from .bench_log import STORED, BenchLog, BenchScan, Outcome, block_bytes, make_extent, stream_info
from .simulated_disk import Fault, SimulatedDisk


class History:
    """A run against a simulated disk, looked at from its operations: what was promised when."""

    def __init__(self, seed: int, faults: list[Fault] | None = None) -> None:
        self.rng = random.Random(seed)
        self.disk = SimulatedDisk(faults or ())
        self.log = BenchLog(self.disk, {})
        self.sent: dict[str, dict[int, tuple[int, int]]] = {}  # stream -> index -> (size, status)
        self.acknowledged: dict[str, set[int]] = {}

    def streams(self) -> dict[str, StreamInfo]:
        return dict(self.log.streams)

    def step(self) -> None:
        """One thing that an instrument or an operator might do."""
        with self.disk.lock:
            streams = [info for info in self.log.streams.values() if not info.state.final]
        action = self.rng.random()
        if not streams or (action < 0.06 and len(streams) < 4):
            self.log.add(stream_info(f"s{len(self.sent)}"))
        elif action < 0.10:
            self.log.seal(self.rng.choice(streams))
        elif action < 0.16 and len(self.log.streams) > 2:
            info = self.rng.choice(list(self.log.streams.values()))
            self.log.log.sync()
            with self.disk.lock:
                self.log.delete(info) if info.id in self.log.indexes else self.log.streams.pop(info.id)
        elif action < 0.30:
            self.log.log.sync()
        else:
            self._append(self.rng.choice(streams))

    def _append(self, info: StreamInfo) -> None:
        sent = self.sent.setdefault(info.id, {})
        start = self.rng.choice((max(sent, default=-1) + 1, max(sent, default=-1) + 4, self.rng.randint(0, 40)))
        index = [i for i in range(start, start + self.rng.randint(1, 6)) if i not in sent]
        if not index:
            return
        blocks = [(i, self.rng.choice((0, 1, 700, 4096, 9000))) for i in index]
        status = {i: self.rng.choice((0, 0, 0, 1, 3)) for i in index}
        with self.disk.lock:
            sent.update({i: (0 if status[i] else size, status[i]) for i, size in blocks})

        class Acknowledge(Outcome):
            def __call__(this, error):
                with self.disk.lock:
                    if error is None:
                        self.acknowledged.setdefault(info.id, set()).update(index)
                super().__call__(error)

        self.log.log.append(self.log.index(info.id), make_extent(info, blocks, status), Acknowledge())


def check_state(disk, streams, sent, acknowledged, *, faulty: bool = False):
    """Recover from `disk` and hold the result against what was promised."""
    log = BenchLog(disk, dict(streams))
    try:
        there = {}
        for info in streams.values():
            handled, contents = log.handled(info), log.contents(info)
            assert acknowledged.get(info.id, set()) <= set(handled), "an acknowledged block is gone"
            for index, status in handled.items():
                size, sent_status = sent[info.id][index]
                assert status == sent_status
                if status == STORED:
                    assert contents[index] == block_bytes(info.id, index, size)
            assert set(contents) == {index for index, status in handled.items() if status == STORED}
            there[info.id] = handled
        if not faulty:
            assert not log.report.damages, log.report.damages
    finally:
        log.stop_without_a_trace()
    return there


def crash(history: History, rng: random.Random, *, faulty: bool = False) -> None:
    with history.disk.lock:
        cut = history.disk.after_power_cut(rng, rng.choice((1, 8))) if rng.random() < 0.8 else history.disk.after_kill()
        streams, sent = history.streams(), copy.deepcopy(history.sent)
        acknowledged = copy.deepcopy(history.acknowledged)
    there = check_state(cut, streams, sent, acknowledged, faulty=faulty)
    # what a recovery shows is durable: the second crash, with nothing of the page cache, takes none of it
    empty = random.Random(0)
    empty.choice = lambda _: 0.0  # type: ignore[method-assign, assignment]
    promised = {stream: set(handled) for stream, handled in there.items()}
    check_state(cut.after_power_cut(empty), streams, sent, promised, faulty=faulty)


def run(seed: int, steps: int, states: int, faults: list[Fault] | None = None) -> int:
    """Crash a run at `states` random moments, within operations and between; how many states were looked at."""
    history = History(seed, faults)
    rng = random.Random(seed ^ 0x5EED)
    moments = sorted(rng.randrange(steps) for _ in range(states))
    operations = 0
    seen = 0
    snapshots = []

    def operation() -> None:
        nonlocal operations
        while moments and moments[0] <= operations:
            moments.pop(0)
            snapshots.append(frozen(history))
        operations += 1

    history.disk.on_operation = operation
    try:
        for _ in range(steps):
            history.step()
            while snapshots:
                crash(snapshots.pop(), rng, faulty=bool(faults))
                seen += 1
    finally:
        history.log.stop_without_a_trace()
    return seen


def frozen(history: History) -> History:
    """The disk and the promises as they are at this very operation."""
    twin = History.__new__(History)
    twin.disk = history.disk.after_kill()
    twin.sent, twin.acknowledged = copy.deepcopy(history.sent), copy.deepcopy(history.acknowledged)
    twin.log = type("Frozen", (), {"streams": dict(history.log.streams)})()  # type: ignore[assignment]
    return twin


@pytest.mark.parametrize("seed", range(16))
def test_a_power_cut_at_any_operation_loses_nothing_acknowledged(seed, tally):
    seen = run(seed, steps=60, states=40)
    tally("crash states", states=2 * seen)
    assert seen >= 15


def glance(history: History, seed: int, states: int) -> int:
    """Crash states by the hundred: what each of them has is read, and nothing repaired. How many were lacking."""
    rng = random.Random(seed)
    snapshots = some_states(history, rng, 0.3, 14)
    lacking = 0
    for number in range(states):
        snapshot = snapshots[number * len(snapshots) // states]
        scan = BenchScan(snapshot.disk.after_power_cut(rng, rng.choice((1, 8))), dict(snapshot.log.streams))
        lacking += not kept(scan, snapshot)
        scan.pool.close()
    return lacking


def kept(scan: BenchScan, snapshot: History) -> bool:
    """Whether all that was acknowledged is there, and nothing else than what was sent, byte for byte."""
    for info in snapshot.log.streams.values():
        index = scan.index(info.id)
        handled = {at for run in index.runs(limit=1 << 30) for at in range(run.first, run.last + 1)}
        if not snapshot.acknowledged.get(info.id, set()) <= handled:
            return False
        try:
            extents = list(scan.reader.read(index, None, None, 1))
        except HissError:
            return False
        for extent in extents:
            for row, at in enumerate(extent.index.tolist()):
                data = bytes(extent.data[extent.offsets[row] : extent.offsets[row + 1]])
                if data != block_bytes(info.id, at, snapshot.sent[info.id][at][0]):
                    return False
    return not scan.found.damages


@pytest.mark.parametrize("seed", range(20))
def test_in_no_crash_state_anything_acknowledged_is_lacking(seed, tally):
    for part in range(2):
        assert glance(History(2 * seed + part), seed, 250) == 0
    tally("crash states", states=500)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(3000, 3200))
def test_in_no_crash_state_anything_acknowledged_is_lacking_at_length(seed, tally):
    for part in range(5):
        assert glance(History(5 * seed + part), seed, 200) == 0
    tally("crash states", states=1000)


@pytest.mark.control
def test_without_syncs_crash_states_lack_something(tally):
    """The negative control."""
    history = History(1)
    history.disk.syncing = False
    assert glance(history, 1, 200) > 0
    tally.control("crash states")


def chain(seed: int, lives: int, steps: int) -> None:
    """Crash, recover, go on, crash again: what was acknowledged in any life is there in all later ones."""
    rng = random.Random(seed)
    history = History(seed)
    for _ in range(lives):
        for _ in range(rng.randint(0, steps)):
            history.step()
        with history.disk.lock:
            cut = history.disk.after_power_cut(rng) if rng.random() < 0.6 else history.disk.after_kill()
            streams, sent = history.streams(), copy.deepcopy(history.sent)
            acknowledged = copy.deepcopy(history.acknowledged)
        if rng.random() < 0.3:
            history.log.close()  # an orderly end instead
            cut = history.disk.after_kill()
            acknowledged = copy.deepcopy(history.acknowledged)
        else:
            history.log.stop_without_a_trace()
        there = check_state(cut, streams, sent, acknowledged)
        history = History.__new__(History)
        history.rng, history.disk = rng, cut
        history.log = BenchLog(cut, dict(streams))
        history.sent = {stream: {i: sent[stream][i] for i in handled} for stream, handled in there.items()}
        history.acknowledged = {stream: set(handled) for stream, handled in there.items()}
    history.log.stop_without_a_trace()


def some_states(history: History, rng: random.Random, chance: float, steps: int) -> list[History]:
    """The disk and the promises at random operations of a run to its end."""
    states: list[History] = []
    history.disk.on_operation = lambda: states.append(frozen(history)) if rng.random() < chance else None
    for _ in range(steps):
        history.step()
    history.disk.on_operation = lambda: None
    history.log.stop_without_a_trace()
    return states


def torn_log(seed: int) -> tuple[dict[str, StreamInfo], SimulatedDisk]:
    """Streams, and a disk whose power was cut so that recovery has torn records to see to."""
    rng = random.Random(seed)
    while True:
        for state in some_states(History(rng.randrange(1 << 30)), rng, 0.05, 60):
            streams, cut = dict(state.log.streams), state.disk.after_power_cut(rng)
            scan = BenchScan(cut.after_kill(), dict(streams))
            if len(scan.found.torn) >= 2 and scan.found.again:
                return streams, cut


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_at_any_operation_of_a_recovery_is_followed_by_the_same_again(seed):
    """What was torn is never damage, although the repair of it writes records that vouch for those before them."""
    streams, torn = torn_log(seed)
    snapshots: list[SimulatedDisk] = []
    torn.on_operation = lambda: snapshots.append(torn.after_kill())
    first = BenchLog(torn, dict(streams))
    first.stop_without_a_trace()
    assert len(snapshots) > 5
    rng = random.Random(seed)
    for killed in snapshots:
        for cut in (killed.after_kill(), killed.after_power_cut(rng), killed.after_power_cut(rng)):
            log = BenchLog(cut, dict(streams))
            assert not log.report.damages
            log.stop_without_a_trace()


@pytest.mark.parametrize("seed", range(20))
def test_life_after_life_loses_nothing_acknowledged(seed):
    chain(seed, lives=10, steps=25)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(2000, 2400))
def test_life_after_life_at_length(seed):
    chain(seed, lives=40, steps=40)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(1000, 1400))
def test_a_power_cut_at_any_operation_at_length(seed):
    assert run(seed, steps=200, states=150) >= 80


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("call", ["fdatasync", "pwritev"])
def test_a_power_cut_after_a_failing_sync_or_write_loses_nothing_acknowledged(seed, call):
    faults = [Fault(call, 5 + 7 * seed, errno.EIO), Fault(call, 20 + 11 * seed, errno.EIO)]
    assert run(seed, steps=50, states=25, faults=faults) >= 10


@pytest.mark.control
def test_a_disk_that_does_not_sync_is_found_out():
    """The negative control: without syncs the same check must fail."""
    assert any(_fails_without(seed, data=True) for seed in range(5))


@pytest.mark.control
def test_a_disk_that_does_not_sync_its_directory_is_found_out():
    assert any(_fails_without(seed, data=False) for seed in range(5))


def _fails_without(seed: int, *, data: bool) -> bool:
    history = History(seed)
    history.disk.syncing, history.disk.syncing_names = not data, data
    try:
        for _ in range(60):
            history.step()
        history.log.log.sync()
        for attempt in range(10):
            try:
                crash(history, random.Random(attempt))
            except AssertionError:
                return True
    finally:
        history.log.stop_without_a_trace()
    return False
