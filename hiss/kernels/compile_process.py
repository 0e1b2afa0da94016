"""The process that compiles for a back end, watched: what it says of each file, and what becomes of one that hangs.

Such a process prints one line for each file, its path and `ok` or the error, separated by a tab. Any thread.
"""

from __future__ import annotations

import selectors
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hiss import limits
from hiss.errors import LimitExceeded


def run(command: list[str], paths: list[Path], environment: Mapping[str, str]) -> dict[Path, str]:
    """Compile in another process; for each file `ok` or what went wrong.

    Raises
    ------
    LimitExceeded
        One file took longer than `limits.KERNEL_COMPILE_S_MAX`; the process was killed.
    """
    results: dict[Path, str] = {}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment, text=True
    ) as helper:
        assert helper.stdout is not None
        try:
            for line in _lines(helper.stdout, limits.KERNEL_COMPILE_S_MAX):
                path, _, result = line.rstrip("\n").partition("\t")
                results[Path(path)] = result
        except TimeoutError:
            helper.kill()
            raise LimitExceeded(
                f"a kernel took longer than {limits.KERNEL_COMPILE_S_MAX:g} s to compile; make it smaller",
                limit="KERNEL_COMPILE_S_MAX",
                allowed=str(limits.KERNEL_COMPILE_S_MAX),
            ) from None
        status = helper.wait()
    return {path: results.get(path, f"the compiling process ended with status {status}") for path in paths}


def _lines(stream: Any, timeout_s: float) -> Iterator[str]:
    """The lines of a pipe; `TimeoutError` where one takes longer than `timeout_s`."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout_s):
                raise TimeoutError
            line = stream.readline()
            if not line:
                return
            yield line
