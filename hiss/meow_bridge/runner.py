"""One attempt as processes: a supervisor, below it `python -m hiss.job`, below that whatever the recipe starts.

The job's process gets its specification as JSON through its standard input, and the path of a smaller copy in
`HISS_JOB` for processes that the recipe starts. It works in an empty directory that is removed afterwards, prints
into a pipe of which the end is kept, and reports why it failed in a file. `AttemptProcess.run()` is called by one
thread; `stop()` from any.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hiss import limits
from hiss.meow_bridge import supervisor
from hiss.meow_bridge.jobs import Attempt

_CHUNK: Final = 64 * limits.KiB


class EndKind(enum.Enum):
    WELL = "ended well"
    FAILED = "failed"
    STOPPED = "was stopped"


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    kind: EndKind
    error: str = ""
    output: str = ""  # the end of what was printed


def job_specification(attempt: Attempt) -> dict[str, Any]:
    """What `hiss.job` reads from its standard input."""
    return {
        "job": attempt.job,
        "attempt": attempt.id,
        "rule": attempt.rule,
        "event": attempt.event,
        "path": attempt.path,
        "version": attempt.version,
        "input": attempt.pattern.input,
        "outputs": dict(attempt.pattern.outputs),
        "variables": dict(attempt.variables),
        "recipe": {
            "name": attempt.recipe.name,
            "kind": attempt.recipe.kind.name,
            "body": attempt.recipe.body,
            "entry": attempt.recipe.entry,
        },
    }


class AttemptProcess:
    """
    Parameters
    ----------
    directory : Path
        Made for this attempt, removed at its end.
    specification : mapping
        See `job_specification`.
    environment : mapping
        Added to this process's environment, from which everything named `HISS_…` is left out.
    timeout_s : float
        After that all its processes are killed.
    """

    def __init__(
        self, directory: Path, specification: Mapping[str, Any], environment: Mapping[str, str], timeout_s: float
    ) -> None:
        self._directory = directory
        self._specification = specification
        self._environment = environment
        self._timeout_s = timeout_s
        self._stopped = False
        self._lock = (
            threading.Lock()
        )  # over the pipe's ends: no write may reach a descriptor that is somebody else's by now
        self._wake_read, self._wake_write = os.pipe()

    def stop(self) -> None:
        """Kill the attempt's processes. Does nothing once it has ended."""
        with self._lock:
            self._stopped = True
            if self._wake_write >= 0:
                os.write(self._wake_write, b"x")

    def run(self) -> AttemptEnd:
        """Run it to its end: every process of it is gone when this returns."""
        try:
            return self._run()
        finally:
            with self._lock:
                os.close(self._wake_read)
                os.close(self._wake_write)
                self._wake_write = -1
            shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self) -> AttemptEnd:
        work = self._directory / "work"
        work.mkdir(parents=True, mode=0o700)
        report = self._directory / "error"
        small = {**self._specification, "recipe": None, "report": str(report)}
        (self._directory / "job.json").write_text(json.dumps(small), "utf-8")
        spec_path = self._directory / "specification.json"
        spec_path.write_text(json.dumps({**self._specification, "report": str(report)}), "utf-8")
        lifeline_read, lifeline_write = os.pipe()
        try:
            with spec_path.open("rb") as specification:
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        supervisor.__file__,
                        str(lifeline_read),
                        sys.executable,
                        "-m",
                        "hiss.job",
                    ],
                    stdin=specification,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=work,
                    env=self._full_environment(),
                    pass_fds=(lifeline_read,),
                    start_new_session=True,
                    bufsize=0,
                )
        except BaseException:
            os.close(lifeline_write)
            raise
        finally:
            os.close(lifeline_read)
        output = _Tail(limits.JOB_OUTPUT_BYTES_MAX)
        try:
            timed_out = self._watch(process, output)
        finally:
            os.close(lifeline_write)
            self._finish(process)
        assert process.stdout is not None
        _drain(process.stdout.fileno(), output)
        process.stdout.close()
        return self._end(process.returncode, timed_out, output.text(), report)

    def _full_environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HISS_")}
        own = {"HISS_JOB": str(self._directory / "job.json"), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        return {**kept, **own, **self._environment}

    def _watch(self, process: subprocess.Popen[bytes], output: _Tail) -> bool:
        """Collect output until the supervisor ends, `stop()` is called or time is up; whether it was the last."""
        assert process.stdout is not None
        deadline = time.monotonic() + self._timeout_s
        ended = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                for source in (process.stdout.fileno(), self._wake_read, ended):
                    selector.register(source, selectors.EVENT_READ)
                while not self._stopped:
                    remaining_s = deadline - time.monotonic()
                    if remaining_s <= 0:
                        return True
                    ready = {key.fd for key, _ in selector.select(remaining_s)}
                    if ended in ready:
                        return False
                    if process.stdout.fileno() in ready:
                        chunk = os.read(process.stdout.fileno(), _CHUNK)
                        output.add(chunk)
                        if not chunk:
                            selector.unregister(process.stdout.fileno())
            return False
        finally:
            os.close(ended)

    @staticmethod
    def _finish(process: subprocess.Popen[bytes]) -> None:
        """The lifeline is closed: wait for the supervisor to end it all, and do so from here if it cannot.

        It cannot when somebody stopped it, or when a process that was forked from this one holds the lifeline open.
        """
        for _ in range(2):
            try:
                process.wait(limits.JOB_KILL_S)
                return
            except subprocess.TimeoutExpired:
                supervisor.kill_descendants(process.pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
        left = supervisor.descendants(process.pid)
        process.kill()
        process.wait()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _end(self, status: int, timed_out: bool, output: str, report: Path) -> AttemptEnd:
        if timed_out:
            return AttemptEnd(EndKind.FAILED, f"took longer than {self._timeout_s:g} s and was killed", output)
        if self._stopped:
            return AttemptEnd(EndKind.STOPPED, "", output)
        if status == 0:
            return AttemptEnd(EndKind.WELL, "", output)
        return AttemptEnd(EndKind.FAILED, _reported(report) or _status_text(status), output)


def _reported(report: Path) -> str:
    """What the job's process wrote of its failure; '' if it could not."""
    try:
        with report.open("rb") as file:
            return file.read(4 * limits.JOB_ERROR_CHARS_MAX).decode("utf-8", "replace")[: limits.JOB_ERROR_CHARS_MAX]
    except OSError:
        return ""


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


def _drain(source: int, output: _Tail) -> None:
    """What is still in the pipe; whoever could write more is dead."""
    os.set_blocking(source, False)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(source, _CHUNK):
            output.add(chunk)


class _Tail:
    """The last bytes of what is added."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._chunks: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        while self._bytes - len(self._chunks[0]) >= self._bytes_max:
            first = self._chunks.popleft()
            self._bytes -= len(first)
            self._dropped += len(first)

    def text(self) -> str:
        data = b"".join(self._chunks)
        over = max(0, len(data) - self._bytes_max)
        dropped = self._dropped + over
        text = data[over:].decode("utf-8", "replace")
        return f"[{dropped} bytes before this are not kept]\n{text}" if dropped else text
