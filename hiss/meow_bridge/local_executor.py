"""Attempts as processes of this machine: a keeper of the warm zygote, below it the job's process, below that whatever
the recipe starts.

Each works in an empty directory that is removed afterwards, prints into a pipe of which the end is kept, and reports
why it failed in a file. Time and printed output are watched here, everything else by the keeper, which also sees to
it that nothing is left. `LocalAttempt.wait()` is called by one thread; `stop()` by any.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from hiss import limits
from hiss.errors import Stopping
from hiss.meow_bridge.executor import AttemptEnd, Capacity, EndKind, Order
from hiss.meow_bridge.keeper import LINE_BYTES_MAX, Allotment
from hiss.meow_bridge.output_tail import OutputTail
from hiss.meow_bridge.process_tree import kill_descendants
from hiss.meow_bridge.warm import Zygote

_CHUNK: Final = 64 * limits.KiB


class LocalExecutor:
    """An `Executor` of this machine.

    Parameters
    ----------
    directory : Path
        Holds the attempts' directories. What is there is removed.
    capacity : Capacity
        What attempts may take together.
    spares : int
        Attempts that are started ahead.
    zygote : Zygote, optional
        One that others use as well: whoever made it closes it. One of its own by default.
    """

    def __init__(self, directory: Path, capacity: Capacity, spares: int, zygote: Zygote | None = None) -> None:
        self._directory = directory
        self._capacity = capacity
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        self._owns_zygote = zygote is None
        self._zygote = zygote or Zygote(directory, spares)
        self._running: set[LocalAttempt] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._zygote.fill()

    def capacity(self) -> Capacity:
        return self._capacity

    def begin(self, order: Order) -> LocalAttempt:
        with self._lock:
            if self._closed:
                raise Stopping("the executor was closed")
            attempt = LocalAttempt(self._directory / order.id, order, self._zygote, self._forget)
            self._running.add(attempt)
            return attempt

    def _forget(self, attempt: LocalAttempt) -> None:
        with self._lock:
            self._running.discard(attempt)
        self._zygote.fill()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            running = list(self._running)
        for attempt in running:
            attempt.stop()
        for attempt in running:
            attempt.ended.wait()
        if self._owns_zygote:
            self._zygote.close()


def local_executor(directory: Path, jobs_at_once: int, zygote: Zygote | None = None) -> LocalExecutor:
    """The executor of this machine: as many cores as jobs at once, or all there are; all memory but a part."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = max(jobs_at_once, len(os.sched_getaffinity(0)))
    capacity = Capacity(cores, memory - memory // limits.MEMORY_LEFT_FRACTION)
    return LocalExecutor(directory, capacity, min(jobs_at_once, limits.SPARE_JOBS_MAX), zygote)


class LocalAttempt:
    """A `RunningAttempt` in processes of this machine."""

    def __init__(self, directory: Path, order: Order, zygote: Zygote, over: Any) -> None:
        self.ended = threading.Event()
        self._directory = directory
        self._order = order
        self._over = over
        self._stopped = False
        self._keeper = 0  # its pid, once it has said so
        self._end: dict[str, Any] | None = None
        self._lock = threading.Lock()  # over the line: no wish may reach a descriptor that is somebody else's by now
        (directory / "work").mkdir(mode=0o700, parents=True)
        try:
            self._line, self._printed = self._send(zygote)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._let_go()

    def wait(self) -> AttemptEnd:
        output = OutputTail(limits.JOB_OUTPUT_BYTES_MAX)
        try:
            why = self._watch(output)
            if self._end is None:
                with self._lock:
                    self._let_go()
                self._see_it_end(output)
            _drain(self._printed, output)
            return self._ended(why, output.text())
        finally:
            with self._lock:
                self._line.close()
            os.close(self._printed)
            shutil.rmtree(self._directory, ignore_errors=True)
            self._over(self)
            self.ended.set()

    def _send(self, zygote: Zygote) -> tuple[socket.socket, int]:
        """Give the order to a keeper; the line to it, and the end from which what is printed is read."""
        order = self._order
        allotment = Allotment(
            str(self._directory),
            order.memory_bytes,
            limits.JOB_WORK_BYTES_MAX,
            limits.JOB_WORK_FILES_MAX,
            limits.JOB_PROCESSES_MAX,
        )
        message = json.dumps({**dataclasses.asdict(allotment), "cores": order.cores}).encode()
        specification = os.memfd_create("hiss-job", os.MFD_CLOEXEC)
        printed_read, printed_write = os.pipe()
        try:
            with open(os.dup(specification), "w", encoding="utf-8") as file:
                json.dump({"specification": order.specification, "environment": order.environment}, file)
            return _to_a_keeper(zygote, message, [specification, printed_write]), printed_read
        except BaseException:
            os.close(printed_read)
            raise
        finally:
            os.close(specification)
            os.close(printed_write)

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)  # a copy of it in a process that was forked from this one is shut too

    def _watch(self, output: OutputTail) -> str:
        """Until the keeper says how it ended, or hangs up, or somebody stops it; why it must not go on, or ''."""
        deadline_s = time.monotonic() + self._order.timeout_s
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        poll.register(self._printed, select.POLLIN)
        while not self._stopped:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                return f"took longer than {self._order.timeout_s:g} s and was killed"
            if output.added_bytes > limits.JOB_PRINTED_BYTES_MAX:
                return f"it printed more than {limits.JOB_PRINTED_BYTES_MAX} bytes"
            ready = dict(poll.poll(min(remaining_s, 1.0) * 1000))
            if self._printed in ready:
                chunk = os.read(self._printed, _CHUNK)
                output.add(chunk) if chunk else poll.unregister(self._printed)
            if self._line.fileno() in ready and not self._listen():
                return ""
        return ""

    def _listen(self) -> bool:
        """What the keeper has to say; whether more is to come."""
        try:
            message = self._line.recv(LINE_BYTES_MAX)
        except OSError:
            return False
        if not message:
            return False
        found = json.loads(message)
        self._keeper = found.get("pid", self._keeper)
        if "status" in found:
            self._end = found
        return self._end is None

    def _see_it_end(self, output: OutputTail) -> None:
        """The line is shut: hear the keeper's last word, and end what it cannot end, because somebody stopped it."""
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        poll.register(self._printed, select.POLLIN)
        until_s = time.monotonic() + limits.JOB_KILL_S
        while True:
            ready = dict(poll.poll(100))
            if self._printed in ready:
                chunk = os.read(self._printed, _CHUNK)
                output.add(chunk) if chunk else poll.unregister(self._printed)
            if self._line.fileno() in ready and not self._listen():
                return
            if time.monotonic() > until_s and self._keeper:
                kill_descendants(self._keeper)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._keeper, signal.SIGCONT)
                until_s = time.monotonic() + limits.JOB_KILL_S

    def _ended(self, why: str, output: str) -> AttemptEnd:
        if why:
            return AttemptEnd(EndKind.FAILED, why, output)
        if self._end is None:
            return AttemptEnd(EndKind.LOST, "the process that watched over it was killed", output)
        if self._end["why"]:
            return AttemptEnd(EndKind.FAILED, self._end["why"], output)
        if self._stopped:
            return AttemptEnd(EndKind.STOPPED, "", output)
        if self._end["status"] == 0:
            return AttemptEnd(EndKind.WELL, "", output)
        return AttemptEnd(EndKind.FAILED, self._reported() or _status_text(self._end["status"]), output)

    def _reported(self) -> str:
        """What the job's process wrote of its failure; '' if it could not."""
        try:
            with (self._directory / "error").open("rb") as file:
                text = file.read(4 * limits.JOB_ERROR_CHARS_MAX).decode("utf-8", "replace")
        except OSError:
            return ""
        return text[: limits.JOB_ERROR_CHARS_MAX]


def _to_a_keeper(zygote: Zygote, message: bytes, descriptors: list[int]) -> socket.socket:
    """The line to a keeper that took the order. Those that were started ahead may have been killed meanwhile."""
    for _ in range(limits.SPARE_JOBS_MAX + 2):
        line = zygote.line()
        try:
            socket.send_fds(line, [message], descriptors)
            return line
        except BrokenPipeError:
            line.close()
        except BaseException:
            line.close()
            raise
    raise OSError("the processes that are to run jobs end at once; what they printed says why")


def _status_text(status: int) -> str:
    if status < 0 or status > 128:
        number = -status if status < 0 else status - 128
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = "; was the machine out of memory?" if number == signal.SIGKILL else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with status {status}"


def _drain(source: int, output: OutputTail) -> None:
    """What is still in the pipe; whoever could write more is dead."""
    os.set_blocking(source, False)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(source, _CHUNK):
            output.add(chunk)
