"""The parent of one attempt's processes, and what guarantees that none of them outlives it or takes more than it may.

A keeper is forked by the zygote and waits, its job's process forked already, at a line to the rule engine. The order
comes as one message with two descriptors, the specification and the pipe for what is printed, and is passed on to the
job. Then the keeper looks, several times a second, at what the processes below it take: how many there are, how much
memory, how much there is in the working directory. Whatever is too much, or the line's end, which is the engine's
wish or the engine's death, ends all of them; so does the end of the job's own process. The last thing that it says is
how that was. As a child subreaper it has every process of the attempt below it until the end (`process_tree`), and
the job dies with its keeper. One thread.

Messages are JSON: `{"pid"}` from the keeper at its start; the order, an
`Allotment` and what else the job needs; the end
`{"status", "why"}`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import socket
import stat
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from hiss import limits
from hiss.meow_bridge.process_tree import become_subreaper, descendants, die_with, end_descendants, memory_bytes, reap

LINE_BYTES_MAX: Final = 16 * limits.KiB  # of one message
_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Allotment:
    """What an attempt may take."""

    directory: str
    memory_bytes: int
    work_bytes: int
    work_files: int
    processes: int


RunJob = Callable[[dict[str, Any], int, int], int]
"""Runs in the job's process: the order, its specification's descriptor, the descriptor for output; the exit status."""
Prepare = Callable[[], None]
"""Called in the job's process before its order has come."""


def keep(line: socket.socket, run_job: RunJob, prepare: Prepare) -> NoReturn:
    """The life of a keeper, in a process that was just forked and has no other descriptor that matters."""
    status = 1
    try:
        os.setsid()
        become_subreaper()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wake = _wake_for_children()
        job = _fork_job(theirs, (line, ours), run_job, prepare)
        theirs.close()
        line.send(json.dumps({"pid": os.getpid()}).encode())
        message, descriptors, _, _ = socket.recv_fds(line, LINE_BYTES_MAX, 2)
        if message:
            socket.send_fds(ours, [message], descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            _watch(line, wake, job, json.loads(message))
        status = 0
    finally:
        end_descendants()
        os._exit(status)


def _wake_for_children() -> int:
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wake_read


def _fork_job(line: socket.socket, others: tuple[socket.socket, ...], run_job: RunJob, prepare: Prepare) -> int:
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with(keeper)
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in others:
            other.close()
        prepare()
        message, descriptors, _, _ = socket.recv_fds(line, LINE_BYTES_MAX, 2)
        line.close()
        if message:
            status = run_job(json.loads(message), *descriptors)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _watch(line: socket.socket, wake: int, job: int, order: dict[str, Any]) -> None:
    """Until the job's process ends, the engine lets go, or it takes more than it may; then say how it ended."""
    allotment = Allotment(*(order[field.name] for field in dataclasses.fields(Allotment)))
    poll = select.poll()
    poll.register(line, select.POLLIN)
    poll.register(wake, select.POLLIN)
    statuses: dict[int, int] = {}
    why = ""
    while job not in statuses and not why:
        ready = dict(poll.poll(_LOOK_S * 1000))
        if line.fileno() in ready:
            break
        if wake in ready:
            os.read(wake, 4096)
        else:
            why = excess(os.getpid(), allotment)
        reap(statuses)
    statuses = end_descendants() | statuses
    end = {"status": os.waitstatus_to_exitcode(statuses.get(job, signal.SIGKILL)), "why": why}
    line.send(json.dumps(end).encode())


def excess(root: int, allotment: Allotment) -> str:
    """What the processes below `root` take beyond what they may; '' if all is well."""
    pids = descendants(root)
    if len(pids) > allotment.processes:
        return f"it ran {len(pids)} processes at once, {allotment.processes} may"
    memory = memory_bytes(pids, allotment.memory_bytes)
    if memory > allotment.memory_bytes:
        return (
            f"its processes took {memory} bytes of memory, {allotment.memory_bytes} may; "
            "say Recipe(…, memory_bytes=…) or Pattern(…, memory_bytes=…)"
        )
    return _excess_of_directory(allotment)


def _excess_of_directory(allotment: Allotment) -> str:
    files = size = 0
    until_s = time.monotonic() + 10 * _LOOK_S  # a look at a huge tree is cut short, and begins anew the next time
    folders = [allotment.directory]
    while folders and time.monotonic() < until_s:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    files += 1
                    size += 512 * found.st_blocks
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(entry.path)
        except OSError:
            continue  # it went while we looked
        if files > allotment.work_files:
            return f"its working directory holds more than {allotment.work_files} files"
        if size > allotment.work_bytes:
            return f"its working directory holds more than {allotment.work_bytes} bytes"
    return ""
