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
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hiss.blocks import Storage
from hiss.errors import HissError

from .bench_log import block_bytes
from .conftest import OPTIONS
from .test_kill import TESTS

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


def append_until_cut(disk: CutDisk, seed: int, after: int, *options: str) -> dict[tuple[str, int], int]:
    """(stream, index) -> size of all that the victim acknowledged before the power went."""
    command = [sys.executable, "-m", "blocks.appender", str(disk.mount_point / "buffer"), str(seed), *options]
    victim = subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert victim.stdout is not None
    assert victim.stderr is not None
    try:
        lines = [victim.stdout.readline() for _ in range(after + 1)]
        os.kill(victim.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, victim.pid, os.WSTOPPED)
        disk.cut()
        os.kill(victim.pid, signal.SIGKILL)
        lines += victim.stdout.read().splitlines(keepends=True)
        errors = victim.stderr.read().decode()
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()
        victim.stderr.close()
    assert lines[0] == b"ready\n", errors
    words = [line.decode().split() for line in lines[1:] if line.endswith(b"\n")]
    assert len(words) >= after, errors
    disk.unmount()
    disk.mount()
    return {(stream, int(index)): int(size) for stream, index, size in words}


def lost(disk: CutDisk, acknowledged: dict[tuple[str, int], int]) -> int:
    """Acknowledged blocks that are not there; raises for what is wrong in another way."""
    storage = Storage(disk.mount_point / "buffer", OPTIONS)
    try:
        there = {}
        for stream in {stream for stream, _ in acknowledged}:
            for extent in storage.read(stream):
                offsets = extent.offsets.tolist()
                for index, start, stop in zip(extent.index.tolist(), offsets[:-1], offsets[1:], strict=True):
                    there[stream, index] = bytes(extent.data[start:stop])
        for key, data in there.items():
            if key in acknowledged:
                assert data == block_bytes(*key, acknowledged[key])
        if there.keys() >= acknowledged.keys():
            assert not storage.recovery.damages
            assert not storage.recovery.stray_records
        return len(acknowledged.keys() - there.keys())
    finally:
        storage.close()


def cuts(disk: CutDisk, seed: int, count: int) -> None:
    rng = random.Random(seed)
    acknowledged: dict[tuple[str, int], int] = {}
    for round_ in range(count):
        acknowledged |= append_until_cut(disk, seed * 1000 + round_, rng.randint(1, 120))
        assert lost(disk, acknowledged) == 0


def test_power_cuts_lose_nothing_acknowledged(disk):
    cuts(disk, seed=1, count=10)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(10, 60))
def test_power_cuts_at_length(disk, seed):
    cuts(disk, seed, 10)


def test_without_syncs_power_cuts_lose(disk):
    """The negative control: the same victim on files whose syncs do nothing."""
    for round_ in range(5):
        acknowledged = append_until_cut(disk, round_, 100, "unsynced")
        try:
            if lost(disk, acknowledged):
                return
        except HissError:
            return
        shutil.rmtree(disk.mount_point / "buffer")
    pytest.fail("five power cuts took nothing that was never synced: they cut nothing")
