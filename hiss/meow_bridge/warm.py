"""The rule engine's end of the zygote: starts it, asks it for keepers, starts another one when it died.

A few keepers are asked for ahead (`spares`), each with its job's process waiting, so that not even a fork stands
between a job and its first line. Nothing here waits for the zygote: what it is asked for before it has started is in
its socket. Any thread.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hiss import limits

_SECRET: Final = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
THREAD_COUNTS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def job_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What jobs inherit of the rule engine's environment: nothing of hiss, nothing that is named like a secret."""
    kept = {
        name: value for name, value in environment.items() if not name.startswith("HISS_") and not _SECRET.search(name)
    }
    return kept | dict.fromkeys(THREAD_COUNTS, "1") | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


class Zygote:
    """
    Parameters
    ----------
    directory : Path
        Where it runs.
    spares : int
        Keepers that wait for an order.
    """

    def __init__(self, directory: Path, spares: int) -> None:
        self._directory = directory
        self._spares_wanted = spares
        self._spares: collections.deque[socket.socket] = collections.deque()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def line(self) -> socket.socket:
        """The line to a keeper that nobody else has. Raises `OSError` where no process can be started."""
        with self._lock:
            return self._spares.popleft() if self._spares else self._ask()

    def fill(self) -> None:
        """Have the spares ready. Best when an attempt has ended: while one begins, forking would take its time."""
        with self._lock:
            self._fill()

    def close(self) -> None:
        """Let go of it and of the spares, and wait until all have ended. Lines that were handed out end first."""
        with self._lock:
            self._closed = True
            for spare in self._spares:
                spare.close()
            self._spares.clear()
            self._let_go()

    def _fill(self) -> None:
        while not self._closed and len(self._spares) < self._spares_wanted:
            try:
                self._spares.append(self._ask())
            except OSError:
                return  # whoever needs one will hear of it

    def _ask(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            for may_be_dead in (True, False):
                try:
                    socket.send_fds(self._control_of_a_live_one(), [b"."], [theirs.fileno()])
                    return ours
                except OSError:
                    self._let_go()
                    if not may_be_dead:
                        raise
            raise AssertionError
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def _control_of_a_live_one(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._let_go()
        if self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "hiss.job_process", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    cwd=self._directory,
                    env=job_environment(os.environ),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            self._control = ours
        return self._control

    def _let_go(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2 * limits.JOB_KILL_S)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None
