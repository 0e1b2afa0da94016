"""The whole storage on a simulated machine, from a seed: threads, clock, disk and randomness are held, and everything
that it says is compared with a plain model.

    python -m tests.blocks.simulation SEED [SEED …]        # run these seeds, say what failed and where
    python -m tests.blocks.simulation 0-9999               # a range
    python -m tests.blocks.simulation 17 --without KEY     # with a protection taken out (`controls.CONTROLS`)

One seed is several lives of one data directory. In each, producers append, wait, sync, seal and delete streams, a
reader reads; the disk fails or fills up, as the seed says, or gives old bytes (then nothing wrong may be served, while
what is missing may be missing, and the seed ends). Then the power goes, or the process is killed, at one operation of
the disk, or the storage is closed. After each recovery everything acknowledged must be there, once, byte for byte,
whatever else is there must have been sent, and every gap must be explained.

The log's files are simulated; the catalog is real SQLite in memory (`/dev/shm`), copied where the machine stops. What a
committed transaction survives is asked of real power cuts (`test_power_cut`).
"""

from __future__ import annotations

import argparse
import errno
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hiss import limits
from hiss.blocks import Storage, StorageOptions
from hiss.errors import HissError, SpaceExhausted
from hiss.model import BlockStatus, StreamState

from .audit import Audit, Kept, Promises
from .bench_log import make_extent, stream_info
from .simulated_disk import Fault, SimulatedDisk
from .simulated_threads import World

STORED = int(BlockStatus.STORED)
SEGMENT_BYTES = 64 << 10
_CHANGES = frozenset({"allocate", "pwritev", "fdatasync", "fsync_directory", "rename", "unlink"})
_OPERATIONS = _CHANGES | {"open", "close", "preadv"}
_SIZES = (0, 1, 700, 4096, 9000, 17_000)
_CODES = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Conditions:
    """What one life's disk does beside its work."""

    faults: tuple[Fault, ...] = ()
    free: int = 1 << 40
    stale: float = 0.0  # chance that a read gives old bytes
    operations: int = 1 << 60  # the machine stops at this one of those that change the disk
    orderly: bool = False  # the storage is closed before it stops

    @classmethod
    def of(cls, rng: random.Random) -> Conditions:
        kind = rng.random()
        faults: list[Fault] = []
        if kind < 0.3:
            for _ in range(rng.randint(1, 4)):
                call = rng.choice(("pwritev", "pwritev", "fdatasync", "fdatasync", "create", "allocate", "rename"))
                call = rng.choice((call, call, "unlink", "fsync_directory"))
                code = rng.choice((*_CODES, 0)) if call == "pwritev" else rng.choice(_CODES)
                faults.append(Fault(call, rng.randint(0, 60), code, forever=rng.random() < 0.15 and code != 0))
        return cls(
            faults=tuple(faults),
            free=rng.randint(2, 12) * SEGMENT_BYTES if 0.3 <= kind < 0.45 else 1 << 40,
            stale=0.05 if 0.45 <= kind < 0.53 else 0.0,
            operations=rng.choice((rng.randint(1, 20), rng.randint(10, 80), rng.randint(50, 300))),
            orderly=rng.random() < 0.2,
        )


class Machine:
    """The disk as the storage sees it: other threads may go on at every operation, and at one of them it stops."""

    def __init__(self, world: World, disk: SimulatedDisk, conditions: Conditions, stop: Callable[[], None]) -> None:
        self._world, self._disk, self._left, self._stop = world, disk, conditions.operations, stop
        self.trace: list[str] = []
        self.held = False  # while it is, the machine does not stop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._disk, name)
        if name not in _OPERATIONS:
            return method

        def operation(*args: Any, **kwargs: Any) -> Any:
            self._world.turn(0.5)
            self._left -= name in _CHANGES
            self.trace.append(name)
            if self._left <= 0 and not self.held:
                if name == "pwritev" and self._world.rng.random() < 0.5:  # it stops within the write
                    fd, buffers, offset = args
                    data = b"".join(bytes(each) for each in buffers)
                    if data:
                        self._disk.pwritev(fd, [data[: self._world.rng.randint(1, len(data))]], offset)
                self._stop()
            return method(*args, **kwargs)

        setattr(self, name, operation)
        return operation


@dataclass
class Run:
    """One seed."""

    seed: int
    audit: Audit = field(default_factory=Audit)
    lives: int = 0
    crashes: int = 0
    operations: int = 0
    trace: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    def run(self, directory: Path) -> Run:
        rng = random.Random(f"hiss {self.seed}")
        disk, promises = SimulatedDisk(), Promises()
        for number in range(rng.randint(2, 7)):
            life = Life(self, directory / str(number), rng, disk, promises, number)
            self.live(life)
            disk, directory_left = life.left, life.directory
            _carry_catalog(directory_left, directory / str(number + 1))
            shutil.rmtree(directory_left)
            self.lives += 1
            if life.conditions.stale:  # what was repaired by what it read then is not held against it in other lives
                promises.misled = True
                break
        last = Life(self, directory / str(self.lives), rng, disk, promises, self.lives, last=True)
        self.live(last)
        shutil.rmtree(last.directory)
        return self

    def live(self, life: Life) -> None:
        self.story.append(f"life {self.lives}: {life.conditions}")
        try:
            life.live()
        except Exception as error:
            for line in [f"seed {self.seed}", *self.story]:
                error.add_note(line)
            raise


def _carry_catalog(old: Path, new: Path) -> None:
    (new / "segments").mkdir(parents=True)
    for path in (old / "crashed").iterdir():
        shutil.copy(path, new / path.name)


class Life:
    """From the opening of the directory to the end of the machine."""

    def __init__(
        self,
        run: Run,
        directory: Path,
        rng: random.Random,
        disk: SimulatedDisk,
        promises: Promises,
        number: int,
        *,
        last: bool = False,
    ) -> None:
        self.run, self.directory, self.rng, self.disk, self.promises = run, directory, rng, disk, promises
        self.conditions = Conditions() if last else Conditions.of(rng)
        self.last = last
        self.world = World(f"hiss {run.seed} {number}")
        self.machine = Machine(self.world, disk, self.conditions, self._stop)
        disk.faults = list(self.conditions.faults)
        if self.conditions.free < 1 << 40:
            disk.free = self.conditions.free
        disk.stale = self._is_stale if self.conditions.stale else None
        self.left: SimulatedDisk = disk
        self.storage: Storage | None = None
        (directory / "segments").mkdir(parents=True, exist_ok=True)

    def _is_stale(self) -> bool:
        return self.world.rng.random() < self.conditions.stale

    def live(self) -> None:
        in_order = self.world.run(self._main)
        names = [fault for fault in self.conditions.faults if fault.call in ("rename", "fsync_directory")]
        if any(self.disk.calls.get(fault.call, -1) >= fault.occurrence for fault in names):
            self.promises.unmarked = True
        self.run.operations += len(self.machine.trace)
        self.run.trace += self.machine.trace
        if not in_order:
            self.run.crashes += 1

    def _stop(self) -> None:
        """The machine stops: what is on the disk and in the catalog now is what the next life finds."""
        if not (self.directory / "crashed").exists():
            self._freeze()
        self.world.crash()

    def _freeze(self) -> None:
        rng = self.world.rng
        with self.disk.lock:
            killed = rng.random() < 0.3
            self.left = self.disk.after_kill() if killed else self.disk.after_power_cut(rng, rng.choice((1, 1, 8)))
        self.left.free = 1 << 40
        self.left.syncing, self.left.syncing_names = self.disk.syncing, self.disk.syncing_names
        frozen = self.directory / "crashed"
        frozen.mkdir()
        for name in ("catalog.db", "catalog.db-wal"):
            if (self.directory / name).exists():
                shutil.copy(self.directory / name, frozen / name)

    # ---- what happens

    def _main(self) -> None:
        try:
            self.storage = Storage(self.directory, _options(), files=self.machine, clock_ns=self.world.time_ns)
        except (OSError, HissError):
            assert self.disk.faults or self.conditions.stale or self.conditions.free < 1 << 40
            self._stop()
        assert self.storage is not None
        self.machine.held = True
        tolerant = bool(self.conditions.stale) or self.promises.misled
        self.run.audit.check(self.storage, self.promises, tolerant=tolerant)
        self.machine.held = False
        if not self.last:
            self._work(self.storage)
        if self.last or self.conditions.orderly:
            self.storage.close()
            assert not self.storage.arena.live(), "a region of the arena that nobody released"
        self._stop()

    def _work(self, storage: Storage) -> None:
        if not storage.catalog.collections():
            storage.catalog.create_collection("test/run", {}, [])
        threads = [
            self.world.threading.Thread(target=Producer(self, storage, number).work, name=f"producer-{number}")
            for number in range(self.rng.randint(1, 3))
        ]
        threads.append(self.world.threading.Thread(target=lambda: self._read(storage), name="reader"))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _read(self, storage: Storage) -> None:
        rng = self.world.rng
        for _ in range(rng.randint(0, 12)):
            self.world.pause(lambda: False, rng.random() * 1e-3)
            known = [kept for kept in self.promises.streams.values() if kept.created and not kept.deleting]
            if known:
                self.run.audit.read(storage, rng.choice(known), rng, tolerant=bool(self.conditions.stale))


class Producer:
    """Owns streams, and does to them what an instrument or an operator might do."""

    def __init__(self, life: Life, storage: Storage, number: int) -> None:
        self.life, self.storage, self.world, self.rng = life, storage, life.world, life.world.rng
        self.promises, self.number = life.promises, number
        mine = [kept for kept in self.promises.streams.values() if kept.there and kept.owner == number]
        self.streams = sorted(mine, key=lambda kept: kept.info.id)

    def work(self) -> None:
        for _ in range(self.rng.choice((5, 20, 50))):
            try:
                self._step()
            except SpaceExhausted:
                if self.streams and self.rng.random() < 0.5:
                    self._delete(self.rng.choice(self.streams))
            except OSError:
                raise
            except HissError:
                assert self.life.disk.faults or self.life.conditions.stale, "an error, and the disk did nothing"

    def _step(self) -> None:
        action = self.rng.random()
        still_open = [kept for kept in self.streams if kept.sealed is None]
        if not still_open or (action < 0.06 and len(self.streams) < 4):
            self._create()
        elif action < 0.12:
            self._seal(self.rng.choice(still_open))
        elif action < 0.18 and len(self.streams) > 1:
            self._delete(self.rng.choice(self.streams))
        elif action < 0.25:
            self._sync()
        elif action < 0.32:
            self.world.pause(lambda: False, self.rng.random() * 1e-2)
        else:
            self._append(self.rng.choice(still_open))

    def _create(self) -> None:
        name = f"s{len(self.promises.streams)}"
        info = replace(stream_info(name), id=self.rng.randbytes(16).hex())
        kept = self.promises.streams[info.id] = Kept(info, owner=self.number)
        kept.info = self.storage.catalog.add_streams([info], new_version=False, attempt=None)[0]
        kept.created = True
        self.streams.append(kept)

    def _append(self, kept: Kept) -> None:
        following = max(kept.sent, default=-1) + 1
        start = self.rng.choice((following, following, following + 3, self.rng.randint(0, 40)))
        handled = self.storage.index(kept.info.id).handled(np.arange(start, start + 6))
        index = [start + k for k in range(self.rng.randint(1, 6)) if not handled[k]]
        if not index:
            return
        blocks = [(i, kept.sent[i][0] if i in kept.sent else self.rng.choice(_SIZES)) for i in index]
        odd = (STORED, STORED, STORED, int(BlockStatus.VETOED))
        status = {i: kept.sent[i][1] if i in kept.sent else self.rng.choice(odd) for i in index}
        for i, size in blocks:
            kept.sent.setdefault(i, (0 if status[i] else size, status[i]))
        blocks = [(i, kept.sent[i][0]) for i in index]
        said: list[HissError | None] = []

        def done(error: HissError | None) -> None:
            if self.world.dead:
                return
            said.append(error)
            assert len(said) == 1, "two answers to one append"
            if error is None:
                kept.acknowledged |= set(index)
                self.life.run.audit.acknowledged += len(index)

        self.storage.append(kept.info.id, make_extent(kept.info, blocks, status), done)
        if self.rng.random() < 0.3:
            self.world.pause(lambda: bool(said), 10.0)
            assert said, "nobody said what became of an append"

    def _sync(self) -> None:
        self.storage.sync()

    def _seal(self, kept: Kept) -> None:
        self.storage.sync()
        whole = self.storage.completeness(kept.info.id, None, ["enough"])
        digest = self.storage.stream_digest(kept.info.id)
        kept.sealing = (whole, digest)
        self.storage.catalog.finalise([kept.info.id], StreamState.SEALED, {kept.info.id: whole}, {kept.info.id: digest})
        kept.sealed = kept.sealing

    def _delete(self, kept: Kept) -> None:
        kept.deleting = True
        self.streams.remove(kept)
        self.storage.delete(kept.info.id)
        kept.deleted = True


def _options() -> StorageOptions:
    return StorageOptions(
        arena_bytes=limits.ARENA_BYTES_MIN, segment_bytes=SEGMENT_BYTES, unsynced_bytes_max=150_000, space_wait_s=0.5
    )


def run_seed(seed: int) -> Run:
    """All lives of one seed; raises what is wrong."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    sizes = limits.SEGMENT_BYTES_MIN, limits.ARENA_BYTES_MIN
    limits.SEGMENT_BYTES_MIN, limits.ARENA_BYTES_MIN = SEGMENT_BYTES, 256 << 10  # type: ignore[misc]
    folder = tempfile.mkdtemp(prefix="hiss-simulated-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    try:
        return Run(seed).run(Path(folder))
    finally:
        shutil.rmtree(folder)
        limits.SEGMENT_BYTES_MIN, limits.ARENA_BYTES_MIN = sizes  # type: ignore[misc]
        logging.disable(level)


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.blocks.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="+", type=_seeds, help="a number, or FIRST-LAST")
    parser.add_argument("--without", metavar="KEY", help="take a protection out: the seed must fail")
    options = parser.parse_args()
    from .controls import without

    failed: list[int] = []
    total = Audit()
    with without(options.without):
        for seed in (seed for seeds in options.seeds for seed in seeds):
            try:
                run = run_seed(seed)
                total.add(run.audit)
                if seed % 500 == 499:
                    print(f"up to seed {seed}: {total}", flush=True)
            except Exception as error:
                failed.append(seed)
                if len(failed) <= 20:
                    print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
                if len(options.seeds) == 1 and len(options.seeds[0]) == 1:
                    raise
    print(f"{total}; {len(failed)} seeds failed{f': {failed[:20]}' if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
