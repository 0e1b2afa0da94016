"""The parent of one attempt's processes, and what guarantees that none of them outlives it.

It runs as a script of its own, with nothing but the standard library, so that it is small and starts at once:

    python -I -S supervisor.py LIFELINE WORD...

It starts the command WORD... in a session of its own and waits. `LIFELINE` is the reading end of a pipe whose other
end only the rule engine holds: when that closes, because the engine wants the attempt to end or because the engine
was killed, the attempt ends. As a *child subreaper* (prctl(2), PR_SET_CHILD_SUBREAPER) it inherits every process
below it that loses its parent, also those that moved into a session of their own, as Jupyter kernels do; so when it
has no children left, nothing is left. Should it be killed itself, the command dies with it (PR_SET_PDEATHSIG). Its
exit status is the command's, 128 + N for signal N.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def descendants(root: int) -> list[int]:
    """All processes below `root`, found by their parents in /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    below = [root]
    while below:
        below = [child for parent in below for child in children.get(parent, ())]
        found += below
    return found


def kill_descendants(root: int) -> None:
    """SIGKILL to everything below `root`; a process that is just being started may escape, so repeat it."""
    for pid in descendants(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _start(words: list[str]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:  # else the supervisor died before the line above
            os.execv(words[0], words)
    finally:
        os._exit(127)


def _reap(command: int) -> tuple[bool, int | None]:
    """Collect children that ended: whether any is left, and the command's wait status if it was among them."""
    status = None
    try:
        while True:
            pid, found = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return True, status
            if pid == command:
                status = found
    except ChildProcessError:
        return False, status


def supervise(lifeline: int, words: list[str]) -> int:
    """Run the command; kill what is left when it ends or the lifeline does. Returns its exit status."""
    _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(lifeline, False)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    command = _start(words)
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    status = None
    while status is None:
        ready = dict(poll.poll())
        if lifeline in ready:
            break
        os.read(wake_read, 4096)
        status = _reap(command)[1]
    left = True
    while left:
        kill_descendants(os.getpid())
        left, found = _reap(command)
        status = found if status is None else status
        if left:
            time.sleep(0.002)  # until the kernel has ended what was killed
    return 0 if status is None else _exit_status(status)


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(supervise(int(sys.argv[1]), sys.argv[2:]))
