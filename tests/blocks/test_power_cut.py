"""Real power cuts: a process appends to an ext4 on a loop device, whose power is cut under it.

The victim is stopped, the file system shut down without writing its log (`EXT4_IOC_SHUTDOWN`), the victim killed, the
file system mounted again: all that was only in the page cache is gone. What the victim had printed as acknowledged
must be there, byte for byte. The control runs the same with syncs that do nothing, and must lose.

Needs root and loop devices; skipped with the reason elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hiss.errors import HissError

from .audit import Audit, Broken, Promises
from .victims import Victims, promised, recover

_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_IMAGE_BYTES = 512 << 20


class CutDisk:
    """An ext4 in a file, mounted, whose power can be cut."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mount_point = folder / "image", folder / "mount"
        self.mount_point.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(_IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self.image))
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self.image), str(self.mount_point))

    def unmount(self) -> None:
        _run("umount", str(self.mount_point))

    def cut(self) -> None:
        """From now on nothing reaches the disk."""
        fd = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)


def _run(*command: str) -> None:
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if found.returncode:
        raise OSError(f"{' '.join(command)}: {found.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[CutDisk]:
    if os.geteuid() != 0:
        pytest.skip("power cuts need root")
    if missing := [name for name in ("mkfs.ext4", "mount", "umount") if shutil.which(name) is None]:
        pytest.skip(f"power cuts need {', '.join(missing)}")
    try:
        made = CutDisk(tmp_path)
    except OSError as error:
        pytest.skip(f"power cuts need loop devices: {error}")
    yield made
    made.unmount()


def stopped(pid: int) -> bool:
    """Whether all threads of a process have stopped."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


def cut_round(disk: CutDisk, victims: Victims, seed: int, after: int, promises: Promises, control: str = "") -> int:
    """Let a victim give `after` answers, and cut the power; how many blocks it had acknowledged."""
    victim = victims.new(disk.mount_point / "buffer", seed, control=control)
    victim.start()
    victim.read(until=after)
    victim.kill(signal.SIGSTOP)
    while not stopped(victim.pid):
        os.sched_yield()
    disk.cut()
    victim.kill()
    victim.wait()
    disk.unmount()
    disk.mount()
    return promised(victim.lines, promises)


def cuts(disk: CutDisk, victims: Victims, seed: int, count: int, control: str = "") -> Audit:
    rng = random.Random(seed)
    promises, audit = Promises(), Audit()
    for round_ in range(count):
        audit.acknowledged += cut_round(disk, victims, seed * 1000 + round_, rng.randint(1, 30), promises, control)
        recover(disk.mount_point / "buffer", promises, audit).close()
    return audit


@pytest.mark.parametrize("seed", range(1, 6))
def test_power_cuts_lose_nothing_acknowledged(disk, victims, tally, seed):
    tally("power cuts", cuts(disk, victims, seed, 10), cuts=10)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(10, 60))
def test_power_cuts_at_length(disk, victims, tally, seed):
    tally("power cuts", cuts(disk, victims, seed, 10), cuts=10)


@pytest.mark.control
def test_without_syncs_power_cuts_lose(disk, victims, tally):
    """The negative control: the same victim on files whose syncs do nothing."""
    for seed in range(5):
        try:
            cuts(disk, victims, seed, 2, control="unsynced")
        except (Broken, HissError):
            tally.control("power cuts")
            return
        shutil.rmtree(disk.mount_point / "buffer")
    pytest.fail("ten power cuts took nothing that was never synced: they cut nothing")
