"""The processes below one: who they are, what memory they take, and how all of them are ended. Linux, by /proc.

Linux has no call that ends a tree of processes at once. What does it: a *child subreaper* at its root (prctl(2),
PR_SET_CHILD_SUBREAPER), so that what loses its parent stays below it, also in a session of its own; SIGKILL to whole
process groups first, because a process with a signal pending cannot fork and a group gets its signal at one moment,
however fast it grows; and repetition until nothing is left. Any thread; pids of live descendants of a live root only,
so that none is another process by now.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Whatever below this process loses its parent becomes its child."""
    _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """SIGKILL for this process when `parent`, the one that forked it, ends; at once if it has."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def children(pid: int) -> list[int]:
    """The processes that `pid` is the parent of; none if there is no such process."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def descendants(root: int) -> list[int]:
    """All processes below `root`, parents first."""
    if not os.path.exists(f"/proc/{root}/task/{root}/children"):
        return _descendants_by_parent(root)  # a kernel without CONFIG_PROC_CHILDREN, or no such process
    found: list[int] = []
    below = [root]
    while below:
        below = [child for parent in below for child in children(parent)]
        found += below
    return found


def _descendants_by_parent(root: int) -> list[int]:
    """The same, by asking every process there is for its parent."""
    by_parent: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_bytes()
                by_parent.setdefault(int(stat.rpartition(b")")[2].split()[1]), []).append(int(entry))
    found: list[int] = []
    below = [root]
    while below:
        below = [child for parent in below for child in by_parent.get(parent, ())]
        found += below
    return found


def kill_descendants(root: int) -> None:
    """SIGKILL to everything below `root`; what is just being started may escape, so repeat it."""
    spared = {os.getpgid(0)}
    with contextlib.suppress(ProcessLookupError):
        spared.add(os.getpgid(root))
    for pid in descendants(root):
        with contextlib.suppress(ProcessLookupError):
            group = os.getpgid(pid)
            if group not in spared:
                spared.add(group)
                os.killpg(group, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)


def end_descendants() -> dict[int, int]:
    """Kill and reap all that is below this process, a subreaper; the wait status of each that was its child."""
    statuses: dict[int, int] = {}
    while True:
        kill_descendants(os.getpid())
        left = reap(statuses)
        if not left:
            return statuses
        time.sleep(0.001)  # until the kernel has ended what was killed


def reap(statuses: dict[int, int]) -> bool:
    """Collect children that ended into `statuses`; whether any child is left."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return True
            statuses[pid] = status
    except ChildProcessError:
        return False


def memory_bytes(pids: Iterable[int], enough: int) -> int:
    """Memory that processes take together, pages that several share counted once; not exact below `enough`.

    Resident pages are quickly asked for, and count what is shared several times. Only where they come to more than
    `enough` is each process asked for its proportional share (`Pss` of proc(5)), without the pages of files.
    """
    pids = list(pids)
    resident = sum(_resident_bytes(pid) for pid in pids)
    return resident if resident <= enough else sum(_proportional_bytes(pid) for pid in pids)


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _proportional_bytes(pid: int) -> int:
    found = {}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()[1:]:
            name, value, *_ = line.split()
            found[name] = int(value) * 1024
    except (OSError, ValueError):
        return 0
    return found.get(b"Pss:", 0) - found.get(b"Pss_File:", 0)


def own_data_bytes() -> int:
    """What RLIMIT_DATA counts of this process."""
    for line in Path("/proc/self/status").read_bytes().splitlines():
        if line.startswith(b"VmData:"):
            return int(line.split()[1]) * 1024
    return 0
