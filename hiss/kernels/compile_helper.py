"""A compiling process that is kept: it has its compiler imported, so a new kernel waits for its own compilation only.

It reads paths, one a line, and answers each with a line: the path and `ok` or the error, separated by a tab. Compiling
leaks about a megabyte each time, so after `limits.COMPILER_FILES_MAX` files it ends and the next one starts; one that
does not answer within `limits.KERNEL_COMPILE_S_MAX` is killed. It ends when this process does, because its input ends.
Any thread; one at a time compiles.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from hiss import limits
from hiss.errors import LimitExceeded

_CLOSE_S = 5.0
_READ_BYTES = 1 << 16


class CompileHelper:
    """One such process, started when it is needed or `warm` is called.

    Parameters
    ----------
    command : list of str
    environment : mapping
    """

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._command, self._environment = command, dict(environment)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._files = 0
        atexit.register(self.close)

    def warm(self) -> None:
        """Start it, without waiting until it is ready."""
        with self._lock:
            self._running()

    def compile(self, paths: list[Path]) -> dict[Path, str]:
        """For each file, named by an absolute path, `ok` or what went wrong.

        Raises
        ------
        LimitExceeded
            One file took longer than `limits.KERNEL_COMPILE_S_MAX`; the process was killed.
        """
        with self._lock:
            if self._files + len(paths) > limits.COMPILER_FILES_MAX:
                self._end()
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            self._files += len(paths)
            results: dict[Path, str] = {}
            try:
                process.stdin.write("".join(f"{path}\n" for path in paths).encode())
                process.stdin.flush()
                for line in _lines(process.stdout, limits.KERNEL_COMPILE_S_MAX):
                    path, _, result = line.partition("\t")
                    results[Path(path)] = result
                    if len(results) == len(paths):
                        return results
            except BrokenPipeError:
                pass  # it ended before it read them
            except TimeoutError:
                process.kill()
                self._end()
                raise LimitExceeded(
                    f"a kernel took longer than {limits.KERNEL_COMPILE_S_MAX:g} s to compile; make it smaller",
                    limit="KERNEL_COMPILE_S_MAX",
                    allowed=str(limits.KERNEL_COMPILE_S_MAX),
                ) from None
            status = self._end()
        return {path: results.get(path, f"the compiling process ended with status {status}") for path in paths}

    def close(self) -> None:
        """End the process; the next compilation starts another."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
                cwd="/",  # where this process was started may be removed before it ends
                start_new_session=True,  # Ctrl-C is for the server, which then closes its input
            )
        return self._process

    def _end(self) -> int:
        process, self._process, self._files = self._process, None, 0
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            _close(pipe)
        try:
            return process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):  # what it did not read no longer matters
            pipe.close()


def _lines(stream: IO[bytes], timeout_s: float) -> Iterator[str]:
    """The lines of a pipe until it ends; `TimeoutError` where one takes longer than `timeout_s`."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        give_up_s = time.monotonic() + timeout_s
        while True:
            if not selector.select(max(0.0, give_up_s - time.monotonic())):
                raise TimeoutError
            data = os.read(stream.fileno(), _READ_BYTES)
            if not data:
                return
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
                give_up_s = time.monotonic() + timeout_s
