"""A small process that has imported what jobs need and forks them: an attempt begins in milliseconds.

It has one thread, and no connection to anything but its rule engine: a process with threads, or with gRPC at work, must
not be forked. It reads no order and learns no token: each message on its control socket is one byte and the end of a
line, for which it forks a keeper (`keeper`), that waits there for its order; so nothing of one job is in the memory of
the next one. When the engine ends, or lets go, it waits for its keepers, which end then too. When it is killed itself,
keepers and jobs go on, and the engine starts another. What a keeper that was killed leaves behind becomes this
process's child, and is killed.

`serve` is called by `hiss.job_process` in a fresh process, once everything is imported.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys

from hiss.meow_bridge.keeper import Prepare, RunJob, keep
from hiss.meow_bridge.process_tree import become_subreaper, children, reap


def serve(control_fd: int, run_job: RunJob, prepare: Prepare) -> int:
    """Fork a keeper for each line that comes, until the other end is closed. Returns the exit status."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        sys.stderr.write(
            f"hiss: the process that forks jobs has {threads} threads, expected 1; an import started one\n"
        )
        return 1
    os.set_inheritable(control_fd, False)
    control = socket.socket(fileno=control_fd)
    become_subreaper()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    gc.freeze()  # what is here now is never collected: a collection would write to pages that all jobs share
    keepers: set[int] = set()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    listening = True
    while listening or keepers:
        ready = dict(poll.poll())
        if wake_read in ready:
            os.read(wake_read, 4096)
            _reap(keepers)
        if control.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                poll.unregister(control)
                listening = False
                continue
            line = socket.socket(fileno=descriptors[0])
            pid = os.fork()
            if not pid:
                control.close()
                os.close(wake_read)
                signal.set_wakeup_fd(-1)
                os.close(wake_write)
                keep(line, run_job, prepare)
            keepers.add(pid)
            line.close()
    return 0


def _reap(keepers: set[int]) -> None:
    """Forget keepers that ended; kill what one that was killed left behind."""
    statuses: dict[int, int] = {}
    reap(statuses)
    keepers.difference_update(statuses)
    for stray in set(children(os.getpid())) - keepers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stray, signal.SIGKILL)
