"""Whatever is done to a storage, in whatever order: it says what a plain model says, across crashes and restarts."""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from hiss import limits
from hiss.blocks import Storage, StorageOptions
from hiss.model import BlockStatus, StreamState

from .audit import Audit, Kept, Promises
from .bench_log import Outcome, block_bytes, make_extent, stream_info
from .controls import without
from .simulated_disk import SimulatedDisk

SEGMENT_BYTES = 64 << 10
STATUSES = st.sampled_from([0, 0, 0, int(BlockStatus.VETOED)])
COUNTS = {"machines": 0, "steps": 0}
TOTAL = Audit()


class StorageMachine(RuleBasedStateMachine):
    """One data directory; the log on a simulated disk, the catalog in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(
            tempfile.mkdtemp(prefix="hiss-machine-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        self.disk, self.promises, self.lives = SimulatedDisk(), Promises(), 0
        self.audit = Audit()
        self.open_at(self.folder / "0")
        self.storage.catalog.create_collection("test/run", {}, [])
        COUNTS["machines"] += 1

    def open_at(self, directory: Path) -> None:
        (directory / "segments").mkdir(parents=True, exist_ok=True)
        options = StorageOptions(arena_bytes=limits.ARENA_BYTES_MIN, segment_bytes=SEGMENT_BYTES, space_wait_s=0.0)
        self.directory = directory
        self.storage = Storage(directory, options, files=self.disk)
        self.audit.check(self.storage, self.promises)

    def teardown(self) -> None:
        self.storage.close()
        shutil.rmtree(self.folder)
        assert not self.audit.broken
        TOTAL.add(self.audit)

    def pick(self, data: st.DataObject, *, still_open: bool = False) -> Kept | None:
        COUNTS["steps"] += 1
        kept = [each for each in self.promises.streams.values() if each.there and not (still_open and each.sealed)]
        return data.draw(st.sampled_from(kept)) if kept else None

    # ---- what is done

    @rule(data=st.data())
    def create(self, data: st.DataObject) -> None:
        COUNTS["steps"] += 1
        info = replace(
            stream_info(f"s{len(self.promises.streams)}"), id=f"{data.draw(st.integers(0, 2**128 - 1)):032x}"
        )
        if info.id in self.promises.streams:
            return
        kept = self.promises.streams[info.id] = Kept(info)
        kept.info = self.storage.catalog.add_streams([info], new_version=False, attempt=None)[0]
        kept.created = True

    @rule(data=st.data(), jump=st.sampled_from([0, 0, 0, 2, -7]), sizes=st.lists(st.sampled_from([0, 1, 900, 9000])))
    def append(self, data: st.DataObject, jump: int, sizes: list[int]) -> None:
        kept = self.pick(data, still_open=True)
        if kept is None:
            return
        start = max(kept.sent, default=-1) + 1 + jump
        handled = self.storage.index(kept.info.id).handled(np.arange(start, start + len(sizes)))
        blocks = [(start + k, size) for k, size in enumerate(sizes) if not handled[k]]
        blocks = [(index, kept.sent[index][0] if index in kept.sent else size) for index, size in blocks]
        status = {index: kept.sent[index][1] if index in kept.sent else data.draw(STATUSES) for index, _ in blocks}
        kept.sent |= {index: (0 if status[index] else size, status[index]) for index, size in blocks}
        outcome = Outcome()
        self.storage.append(kept.info.id, make_extent(kept.info, blocks, status), outcome)
        if data.draw(st.booleans()):
            assert outcome.wait() is None
            kept.acknowledged |= {index for index, _ in blocks}
            self.audit.acknowledged += len(blocks)

    @rule()
    def sync(self) -> None:
        self.storage.sync()
        for kept in self.promises.streams.values():
            if kept.there:
                handled = self.storage.index(kept.info.id).handled(np.array(sorted(kept.sent), np.int64))
                kept.acknowledged |= set(np.array(sorted(kept.sent))[handled].tolist()) if kept.sent else set()

    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        kept = self.pick(data, still_open=True)
        if kept is None:
            return
        self.storage.sync()
        whole = self.storage.completeness(kept.info.id, None, ["enough"])
        digest = self.storage.stream_digest(kept.info.id)
        ids = [kept.info.id]
        self.storage.catalog.finalise(ids, StreamState.SEALED, {ids[0]: whole}, {ids[0]: digest})
        kept.sealed = (whole, digest)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        kept = self.pick(data)
        if kept is not None:
            kept.deleting = True
            self.storage.delete(kept.info.id)
            kept.deleted = True

    # ---- what is asked

    @rule(
        data=st.data(),
        start=st.none() | st.integers(-5, 40),
        stop=st.none() | st.integers(0, 60),
        step=st.integers(1, 4),
    )
    def read(self, data: st.DataObject, start: int | None, stop: int | None, step: int) -> None:
        kept = self.pick(data)
        if kept is None:
            return
        handled = self.storage.index(kept.info.id)
        stored = [
            index
            for index, (_, status) in sorted(kept.sent.items())
            if status == BlockStatus.STORED and handled.handled(np.array([index]))[0]
        ]
        base = (
            start if start is not None else min((i for i in kept.sent if handled.handled(np.array([i]))[0]), default=0)
        )
        wanted = range(base, 1 << 30 if stop is None else stop, step)
        found = {}
        for extent in self.storage.read(kept.info.id, start, stop, step):
            for row, index in enumerate(extent.index.tolist()):
                found[index] = bytes(extent.data[extent.offsets[row] : extent.offsets[row + 1]])
        assert list(found) == [index for index in stored if index in wanted]
        assert all(data == block_bytes(kept.info.id, index, kept.sent[index][0]) for index, data in found.items())

    @rule(data=st.data())
    def newest(self, data: st.DataObject) -> None:
        kept = self.pick(data)
        if kept is not None:
            found = self.storage.newest(kept.info.id)
            runs = self.storage.index(kept.info.id).runs(limit=1 << 30)
            stored = [run.last for run in runs if run.status == BlockStatus.STORED]
            assert (None if found is None else int(found.index[0])) == max(stored, default=None)

    # ---- what happens to it

    @precondition(lambda self: self.promises.streams)
    @rule(seed=st.integers(0, 2**32), how=st.sampled_from(["closed", "killed", "power", "power"]))
    def end(self, seed: int, how: str) -> None:
        COUNTS["steps"] += 1
        with self.disk.lock:
            if how == "closed":
                left = None
            else:
                left = self.disk.after_kill() if how == "killed" else self.disk.after_power_cut(random.Random(seed))
            self.lives += 1
            following = self.folder / str(self.lives)
            (following / "segments").mkdir(parents=True)
            acknowledged = {key: set(kept.acknowledged) for key, kept in self.promises.streams.items()}
            for name in ("catalog.db", "catalog.db-wal"):
                if how != "closed":
                    shutil.copy(self.directory / name, following / name)
        self.storage.close()
        if left is None:
            left = self.disk.after_kill()
            shutil.copy(self.directory / "catalog.db", following / "catalog.db")
            for kept in self.promises.streams.values():  # closing made everything durable
                kept.acknowledged |= set(kept.sent) & _handled(self, kept)
        else:
            for key, kept in self.promises.streams.items():
                kept.acknowledged = acknowledged[key]
        self.disk = left
        self.open_at(following)


def _handled(machine: StorageMachine, kept: Kept) -> set[int]:
    index = machine.storage._indexes.get(kept.info.id)
    runs = [] if index is None else index.runs(limit=1 << 30)
    return {number for run in runs for number in range(run.first, run.last + 1)}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES_MIN", SEGMENT_BYTES)
    monkeypatch.setattr(limits, "ARENA_BYTES_MIN", 256 << 10)


def run_machines(examples: int, steps: int, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    COUNTS.update(machines=0, steps=0)
    TOTAL.__init__()  # type: ignore[misc]
    run_state_machine_as_test(
        StorageMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_storage_says_what_the_model_says(small, tally):
    run_machines(200, 30)
    tally("Hypothesis machines", TOTAL, **COUNTS)


@pytest.mark.torture
@pytest.mark.parametrize("part", range(10))
def test_a_storage_says_what_the_model_says_at_length(small, tally, part):
    run_machines(500, 50)
    tally("Hypothesis machines", TOTAL, **COUNTS)


@pytest.mark.control
def test_without_syncs_a_machine_finds_that_it_lost_something(small, tally):
    """The negative control; about one machine in fifty finds it, and the first that does ends the run."""
    with without("data syncs"), pytest.raises((AssertionError, BaseExceptionGroup)):
        run_machines(5_000, 30, phases=(Phase.generate,))
    tally.control("Hypothesis machines")
