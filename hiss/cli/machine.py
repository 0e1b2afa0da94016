"""What `hiss doctor` finds of the machine below a buffer: directory, file system, disk, clock, limits, memory, devices.

Each check looks for real, changes nothing that stays, and says what to do where it is not content. Called from the main
thread.
"""

from __future__ import annotations

import ctypes
import enum
import mmap
import os
import resource
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hiss import limits
from hiss.cli.output import size

_PROBES: Final = 5
_SLOW_SYNC_S: Final = 0.1
_SPEED_PIECE_BYTES: Final = 4 * limits.MiB
_SPEED_PIECES: Final = 8
_SLOW_BYTES_PER_S: Final = 200e6
_DISK_FREE_MIN: Final = 2 * limits.GiB
_OPEN_FILES_MIN: Final = limits.SEGMENTS_OPEN_MAX + 768  # segments, connections, lanes, the catalog
_PROCESSES_MIN: Final = 512  # threads count: one for each long call, session, job
_CLOCK_LOOK_S: Final = 0.1
_CLOCK_SKEW_S: Final = 0.01  # that the wall clock may differ from the steady one over such a look
_STA_UNSYNC: Final = 0x0040  # linux/timex.h
_FADING: Final = {"tmpfs": "memory", "ramfs": "memory"}
_REMOTE: Final = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"}


class Outcome(enum.IntEnum):
    OK = 0
    WARN = 1  # works, but not all of it, or slowly
    FAIL = 2


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    outcome: Outcome
    found: str
    advice: str = ""


def machine(data: Path, arena_bytes: int) -> Iterator[Finding]:
    """All findings of this machine, for a data directory and an arena of that size."""
    place = next(parent for parent in (data, *data.parents) if parent.exists())
    yield directory(data)
    yield file_system(place)
    yield from disk(place)
    yield memory(arena_bytes)
    yield clock()
    yield open_files()
    yield locked_memory()
    yield processes()
    yield opencl()


# ---------------------------------------------------------------------------------------------------------- the disk


def directory(data: Path) -> Finding:
    """Whether this user, and nobody else, may write there."""
    if not data.exists():
        return Finding("data directory", Outcome.OK, f"{data}: not there yet; `hiss serve` makes it")
    if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        return Finding("data directory", Outcome.FAIL, f"{data}: not writable for this user", "choose another --data")
    mode = stat.S_IMODE(data.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        advice = f"others could replace the log: chmod go-w {data}"
        return Finding("data directory", Outcome.WARN, f"{data}: mode {mode:o}, writable for others", advice)
    return Finding("data directory", Outcome.OK, f"{data}: mode {mode:o}")


def file_system(place: Path, mounts: Path = Path("/proc/self/mounts")) -> Finding:
    """Of which type it is, and whether what is synced there stays."""
    found = _mount_of(place.resolve(), mounts)
    if found is None:
        return Finding("file system", Outcome.WARN, f"the one of {place} is not known: {mounts} cannot be read")
    kind, where = found
    said = f"{kind}, mounted at {where}"
    if kind in _FADING:
        return Finding("file system", Outcome.WARN, said, "it is gone with a power cut: choose a --data on a disk")
    if kind in _REMOTE or kind.startswith("fuse"):
        advice = "a remote file system may lose synced data, and be slow: choose a --data on a local disk"
        return Finding("file system", Outcome.WARN, said, advice)
    return Finding("file system", Outcome.OK, said)


def _mount_of(place: Path, mounts: Path) -> tuple[str, str] | None:
    """Type and mount point of the file system that has `place` (proc(5): device, point, type)."""
    try:
        rows = [line.split(" ") for line in mounts.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return None
    points = [(row[1].encode().decode("unicode_escape"), row[2]) for row in rows if len(row) > 2]
    above = [(point, kind) for point, kind in points if place.is_relative_to(point)]
    if not above:
        return None
    point, kind = max(above, key=lambda each: len(each[0]))
    return kind, point


def disk(place: Path) -> Iterator[Finding]:
    """Free space, the time of a durable write, and how fast and by which way large ones go."""
    free = shutil.disk_usage(place).free
    if free < _DISK_FREE_MIN:
        yield Finding("disk", Outcome.FAIL, f"{size(free)} free at {place}", "make room, or choose another --data")
        return
    try:
        sync_s = _sync_seconds(place)
        direct, per_s = _speed(place)
    except OSError as error:
        yield Finding("disk", Outcome.FAIL, f"cannot write at {place}: {error.strerror}", "choose another --data")
        return
    found = f"{size(free)} free at {place}; a durable 4 KiB write takes {sync_s * 1e3:.2g} ms"
    if sync_s > _SLOW_SYNC_S:
        yield Finding("disk", Outcome.WARN, found, "durable acknowledgements will be slow here; a local SSD helps")
    else:
        yield Finding("disk", Outcome.OK, found)
    said = f"{size(int(per_s))}/s, {'past the page cache' if direct else 'through the page cache: no direct I/O here'}"
    if per_s < _SLOW_BYTES_PER_S:
        yield Finding("disk speed", Outcome.WARN, said, "a detector may be faster than that; a local SSD helps")
    else:
        yield Finding("disk speed", Outcome.OK, said)


def _sync_seconds(place: Path) -> float:
    """The median time of a 4 KiB write with fdatasync."""
    times = []
    with tempfile.NamedTemporaryFile(dir=place, prefix=".hiss-doctor-") as probe:
        for _ in range(_PROBES):
            began = time.monotonic()
            os.pwrite(probe.fileno(), b"\0" * 4096, 0)
            os.fdatasync(probe.fileno())
            times.append(time.monotonic() - began)
    return sorted(times)[_PROBES // 2]


def _speed(place: Path) -> tuple[bool, float]:
    """Whether a file there can be written past the page cache, and bytes per second, synced, of 32 MiB into a file
    that was written before."""
    with (
        tempfile.NamedTemporaryFile(dir=place, prefix=".hiss-doctor-") as probe,
        mmap.mmap(-1, _SPEED_PIECE_BYTES) as piece,
    ):
        os.posix_fallocate(probe.fileno(), 0, _SPEED_PIECES * _SPEED_PIECE_BYTES)
        direct = True
        try:
            fd = os.open(probe.name, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            direct, fd = False, os.open(probe.name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _write_all(fd, piece)
            began = time.monotonic()
            _write_all(fd, piece)
            return direct, _SPEED_PIECES * _SPEED_PIECE_BYTES / (time.monotonic() - began)
        finally:
            os.close(fd)


def _write_all(fd: int, piece: mmap.mmap) -> None:
    for number in range(_SPEED_PIECES):
        os.pwrite(fd, piece, number * _SPEED_PIECE_BYTES)
    os.fdatasync(fd)


# ---------------------------------------------------------------------------------------------------------- the rest


def memory(arena_bytes: int, meminfo: Path = Path("/proc/meminfo")) -> Finding:
    """Whether the arena, which is touched when a buffer starts, fits into what is available."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        available = int(lines["MemAvailable"].split()[0]) * limits.KiB
    except (OSError, KeyError, ValueError) as error:
        return Finding("memory", Outcome.WARN, f"{meminfo} does not tell: {error!r}")
    said = f"{size(available)} available, the arena takes {size(arena_bytes)}"
    if available < arena_bytes:
        return Finding("memory", Outcome.FAIL, said, "end other programs, or choose a smaller arena_bytes")
    if available < 2 * arena_bytes:
        return Finding(
            "memory", Outcome.WARN, said, "kernels, jobs and drains need some beside it: choose a smaller one"
        )
    return Finding("memory", Outcome.OK, said)


def clock(read: Callable[[], int | None] | None = None) -> Finding:
    """Whether wall time runs evenly, and is kept by something outside. Times of blocks come from it."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(_CLOCK_LOOK_S)
    skew = abs((time.time() - wall) - (time.monotonic() - steady))
    if skew > _CLOCK_SKEW_S:
        said = f"jumped by {skew * 1e3:.3g} ms within {_CLOCK_LOOK_S} s"
        return Finding("clock", Outcome.WARN, said, "something sets it: times of blocks are not comparable meanwhile")
    status = (read or _clock_status)()
    if status is None:
        return Finding("clock", Outcome.OK, "runs evenly; whether it is synchronised cannot be asked here")
    if status & _STA_UNSYNC:
        return Finding(
            "clock", Outcome.WARN, "runs evenly, not synchronised", "run chronyd, or another NTP or PTP client"
        )
    return Finding("clock", Outcome.OK, "runs evenly, synchronised")


def _clock_status() -> int | None:
    """`timex.status` of adjtimex(2), asked without changing anything; None where that is not possible."""
    timex = (ctypes.c_long * 32)()  # 256 bytes, of which Linux fills 208; `modes` 0: only read
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return int(timex[5] & 0xFFFFFFFF)  # int status, behind modes, offset, freq, maxerror and esterror, 8 bytes each


def open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"{_number(soft)} at once, up to {_number(hard)}"
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES_MIN:
        return Finding("open files", Outcome.WARN, said, f"connections will be refused: ulimit -n {_OPEN_FILES_MIN}")
    return Finding("open files", Outcome.OK, said)


def locked_memory() -> Finding:
    """Told, not judged: a buffer runs without."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return Finding("locked memory", Outcome.OK, "no limit" if soft == resource.RLIM_INFINITY else size(soft))


def processes(cgroup: Path = Path("/sys/fs/cgroup")) -> Finding:
    """Processes and threads that may still be made: the user's limit, and the container's."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    said, left = f"{_number(soft)} for this user", float("inf") if soft == resource.RLIM_INFINITY else float(soft)
    try:
        most, now = ((cgroup / name).read_text().strip() for name in ("pids.max", "pids.current"))
        if most != "max":
            said += f", {now} of {most} in this container"
            left = min(left, int(most) - int(now))
    except (OSError, ValueError):
        pass  # no such control group here
    if left < _PROCESSES_MIN:
        advice = f"a server with jobs takes up to {_PROCESSES_MIN} threads: raise `ulimit -u`, or the container's limit"
        return Finding("processes", Outcome.WARN, said, advice)
    return Finding("processes", Outcome.OK, said)


def _number(limit: int) -> str:
    return "no limit" if limit == resource.RLIM_INFINITY else str(limit)


def opencl() -> Finding:
    """The devices that kernels can run on beside the processor's own compiler."""
    try:
        import pyopencl

        devices = [device for platform in pyopencl.get_platforms() for device in platform.get_devices()]
    except ImportError as error:
        return Finding("OpenCL", Outcome.WARN, f"not usable: {error}", "pip install pyopencl; kernels run without it")
    except Exception as error:  # a broken driver raises whatever it likes: that is the finding
        return Finding("OpenCL", Outcome.WARN, f"no device: {error}", "a GPU driver, or pip install 'hiss[opencl-cpu]'")
    if not devices:
        return Finding("OpenCL", Outcome.WARN, "no device", "a GPU driver, or pip install 'hiss[opencl-cpu]'")
    kind: Any = pyopencl.device_type
    kinds = [f"{device.name.strip()} ({kind.to_string(device.type).lower()})" for device in devices]
    return Finding("OpenCL", Outcome.OK, ", ".join(kinds))
