"""A disk in memory that remembers what is durable, fails on demand, and can be cut off power at any of its operations.

Written bytes are in the page cache until a sync of their file; a crash keeps any subset of the sectors that were not
synced. Names are durable when their directory was synced; a crash keeps a prefix of the changes that were not. A sync
that fails leaves the bytes readable and never writes them, as Linux does.
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiss.blocks.files import Buffer

SECTOR = 512


@dataclass(eq=False)
class Inode:
    cached: bytearray = field(default_factory=bytearray)  # what a read gives
    durable: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)  # sectors that a sync would write
    size_dirty: bool = False
    before: dict[int, bytes] = field(default_factory=dict)  # sector -> its bytes before the last write


@dataclass(frozen=True)
class Fault:
    """Fail the `occurrence`-th call of `call` (from 0) with `code`; a write may be cut short instead (`code` 0)."""

    call: str
    occurrence: int
    code: int
    forever: bool = False


class SimulatedDisk:
    """`Files` in memory."""

    def __init__(self, faults: Sequence[Fault] = (), free: int = 1 << 40) -> None:
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.pending_names: list[tuple[str, str, Any]] = []
        self.lock = threading.RLock()
        self.faults = list(faults)
        self.calls: dict[str, int] = {}
        self.free = free
        self.syncing = True  # False: the negative control, syncs do nothing
        self.syncing_names = True
        self.stale: Callable[[], bool] | None = None  # whether a read gives old bytes; None: never, and none are kept
        self.on_operation: Callable[[], None] = lambda: None  # called with the lock held, after each change
        self._open: dict[int, Inode] = {}
        self._next_fd = 1000

    def _maybe_fail(self, call: str) -> bool:
        """Raise if a fault says so; whether a write is to be cut short."""
        count = self.calls[call] = self.calls.get(call, -1) + 1
        for fault in self.faults:
            if fault.call == call and (count == fault.occurrence or (fault.forever and count > fault.occurrence)):
                if fault.code == 0:
                    return True
                raise OSError(fault.code, f"injected at {call} {count}")
        return False

    # ---- Files

    def open(self, path: Path, *, create: bool = False) -> int:
        with self.lock:
            name = path.name
            if create:
                self._maybe_fail("create")
                if name in self.names:
                    raise FileExistsError(errno.EEXIST, name)
                self.names[name] = Inode()
                self.pending_names.append(("create", name, self.names[name]))
                self.on_operation()
            elif name not in self.names:
                raise FileNotFoundError(errno.ENOENT, name)
            self._next_fd += 1
            self._open[self._next_fd] = self.names[name]
            return self._next_fd

    def close(self, fd: int) -> None:
        with self.lock:
            del self._open[fd]

    def allocate(self, fd: int, size: int) -> None:
        with self.lock:
            self._maybe_fail("allocate")
            inode = self._open[fd]
            if size - len(inode.cached) > self.free:
                raise OSError(errno.ENOSPC, "simulated disk is full")
            self.free -= size - len(inode.cached)
            inode.cached.extend(bytes(size - len(inode.cached)))
            inode.size_dirty = True
            self.on_operation()

    def size(self, fd: int) -> int:
        with self.lock:
            return len(self._open[fd].cached)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        with self.lock:
            data = b"".join(bytes(buffer) for buffer in buffers)
            if self._maybe_fail("pwritev"):
                data = data[: max(1, len(data) // 3)]
            inode = self._open[fd]
            assert offset + len(data) <= len(inode.cached), "a write behind the preallocated end"
            sectors = range(offset // SECTOR, -(-(offset + len(data)) // SECTOR))
            if self.stale is not None:
                inode.before |= {k: bytes(inode.cached[k * SECTOR : (k + 1) * SECTOR]) for k in sectors}
            inode.cached[offset : offset + len(data)] = data
            inode.dirty.update(sectors)
            self.on_operation()
            return len(data)

    def preadv(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        with self.lock:
            self._maybe_fail("preadv")
            inode = self._open[fd]
            data = inode.cached[offset : offset + len(buffer)]
            if self.stale is not None and self.stale():
                for sector in inode.before.keys() & set(range(offset // SECTOR, (offset + len(data)) // SECTOR + 1)):
                    start = max(sector * SECTOR, offset)
                    old = inode.before[sector][start - sector * SECTOR :][: offset + len(data) - start]
                    data[start - offset : start - offset + len(old)] = old
            memoryview(buffer)[: len(data)] = data
            return len(data)

    def fdatasync(self, fd: int) -> None:
        with self.lock:
            inode = self._open[fd]
            try:
                self._maybe_fail("fdatasync")
            except OSError:
                inode.dirty.clear()  # clean from now on, and never written
                raise
            if self.syncing:
                if inode.size_dirty:
                    inode.durable.extend(bytes(len(inode.cached) - len(inode.durable)))
                    inode.size_dirty = False
                write_sectors(inode, inode.dirty)
                inode.dirty.clear()
            self.on_operation()

    def drop_cached(self, fd: int) -> None:
        with self.lock:
            inode = self._open[fd]
            if not inode.size_dirty:
                written = bytearray(inode.durable)
                for sector in inode.dirty:
                    written[sector * SECTOR : (sector + 1) * SECTOR] = inode.cached[
                        sector * SECTOR : (sector + 1) * SECTOR
                    ]
                inode.cached = written

    def fsync_directory(self, path: Path) -> None:
        with self.lock:
            self._maybe_fail("fsync_directory")
            if self.syncing_names:
                self.durable_names = dict(self.names)
                self.pending_names.clear()
            self.on_operation()

    def rename(self, old: Path, new: Path) -> None:
        with self.lock:
            self._maybe_fail("rename")
            self.names[new.name] = self.names.pop(old.name)
            self.pending_names.append(("rename", old.name, new.name))
            self.on_operation()

    def unlink(self, path: Path) -> None:
        with self.lock:
            self._maybe_fail("unlink")
            self.free += len(self.names.pop(path.name).cached)
            self.pending_names.append(("unlink", path.name, None))
            self.on_operation()

    def list(self, path: Path) -> list[str]:
        with self.lock:
            return sorted(self.names)

    def free_bytes(self, path: Path) -> int:
        return self.free

    # ---- crashes

    def after_kill(self) -> SimulatedDisk:
        """What the next process finds when this one was killed: the page cache, with what is dirty in it."""
        with self.lock:
            copy, twins = SimulatedDisk(free=self.free), {}
            for inode in {*self.names.values(), *self.durable_names.values(), *self._pending_inodes()}:
                twin = Inode(bytearray(inode.cached), bytearray(inode.durable), set(inode.dirty), inode.size_dirty)
                twin.before = dict(inode.before)
                twins[id(inode)] = twin
            copy.names = {name: twins[id(inode)] for name, inode in self.names.items()}
            copy.durable_names = {name: twins[id(inode)] for name, inode in self.durable_names.items()}
            copy.pending_names = [
                (kind, name, twins[id(what)] if isinstance(what, Inode) else what)
                for kind, name, what in self.pending_names
            ]
            return copy

    def _pending_inodes(self) -> set[Inode]:
        return {what for _, _, what in self.pending_names if isinstance(what, Inode)}

    def after_power_cut(self, rng: random.Random, sectors: int = 1) -> SimulatedDisk:
        """What is found after a power cut: what is durable, and any part of what is not, in units of `sectors`."""
        disk = self.after_kill()
        names = dict(disk.durable_names)
        for kind, name, what in disk.pending_names[: rng.randint(0, len(disk.pending_names))]:
            if kind == "create":
                names[name] = what
            elif kind == "unlink":
                names.pop(name, None)
            elif name in names:
                names[what] = names.pop(name)
        keep = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for inode in dict.fromkeys(names.values()):  # in the order of names: that of a set is another in each process
            if inode.size_dirty and rng.random() < 0.5:
                inode.durable.extend(bytes(len(inode.cached) - len(inode.durable)))
            units = sorted({sector // sectors for sector in inode.dirty})
            kept = {unit for unit in units if rng.random() < keep}
            write_sectors(inode, {sector for sector in inode.dirty if sector // sectors in kept})
            inode.cached = bytearray(inode.durable)
            inode.dirty.clear()
            inode.size_dirty = False
        disk.names = names
        disk.durable_names = dict(names)
        disk.pending_names = []
        return disk


def write_sectors(inode: Inode, sectors: set[int]) -> None:
    for sector in sectors:
        start, stop = sector * SECTOR, min((sector + 1) * SECTOR, len(inode.durable))
        if start < stop:
            inode.durable[start:stop] = inode.cached[start:stop]
