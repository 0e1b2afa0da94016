"""The demo's buffer: `hiss serve` as a process of its own, with the means to kill its data process and see it return.

The data directory is made anew for each run. It is removed before the next one only if it carries the demo's mark, so
that no directory of anybody else is ever touched. Called from the main thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import hiss
from hiss.client import Buffer
from hiss.config import run_directory
from hiss.errors import AlreadyExists, DeadlineExceeded, HissError, PortInUse, Unavailable

T = TypeVar("T")

READY_S: Final = 60.0
STOP_S: Final = 30.0
_LOOK_S: Final = 0.05
_MARK: Final = ".made-by-hiss-demo"
_LOG_LINES: Final = 12


@dataclass(frozen=True, slots=True)
class Outage:
    """The data process was killed and another one took over."""

    killed: int  # pid
    back: int  # pid
    seconds: float  # until it answered
    acknowledged: int  # blocks of the stream that was on its way


class DemoServer:
    """A supervisor with a data process and a rules process, at a port of this machine."""

    def __init__(self, data: Path, port: int, log: Path) -> None:
        self.data = data.absolute()
        self.log = log
        self.address = f"127.0.0.1:{port}"
        self._check_port(port)
        self._make_directory()
        command = [sys.executable, "-m", "hiss.cli", "serve", "--data", str(self.data), "--port", str(port)]
        command += ["--http", "0"]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._process.pid

    def connect(self) -> Buffer:
        """Wait until the buffer and its rule engine answer.

        Raises
        ------
        DeadlineExceeded
            They do not, within `READY_S`.
        HissError
            The supervisor has ended; the message carries the end of its log.
        """
        return self._until(self._connected, "answers, with its rule engine")

    def _connected(self) -> Buffer:
        """One attempt. The token is looked up anew each time: the server writes it when it starts."""
        buffer = hiss.connect(self.address)
        try:
            buffer.meow.rules()
        except BaseException:
            buffer.close()
            raise
        return buffer

    def data_pid(self) -> int:
        """The data process."""
        return int((run_directory(self.data) / "data.pid").read_text())

    def kill(self, buffer: Buffer, acknowledged: int) -> Outage:
        """SIGKILL the data process, and wait until another one answers."""
        killed = self.data_pid()
        began = time.monotonic()
        os.kill(killed, signal.SIGKILL)

        def back() -> int:
            pid = self.data_pid()
            if pid == killed:
                raise Unavailable("the killed process's pid file is still there")
            buffer.status()
            return pid

        pid = self._until(back, "is back")
        return Outage(killed, pid, time.monotonic() - began, acknowledged)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _until(self, attempt: Callable[[], T], what: str) -> T:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                return attempt()
            except (Unavailable, OSError, ValueError) as error:
                if self._process.poll() is not None:
                    raise HissError(f"the demo's server has ended: {self._log_end()}") from None
                if time.monotonic() > deadline:
                    raise DeadlineExceeded(
                        f"after {READY_S:.0f} s the server at {self.address} still is not one that {what}: {error}; "
                        f"its log is {self.log}"
                    ) from None
            time.sleep(_LOOK_S)

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]) or "it said nothing"

    def _check_port(self, port: int) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise PortInUse(
                    f"port {port} of 127.0.0.1 is in use by another program (`ss -ltnp` names it); "
                    "stop it, or run `hiss demo --port` with another one",
                    port=port,
                ) from None

    def _make_directory(self) -> None:
        if self.data.exists():
            if any(self.data.iterdir()) and not (self.data / _MARK).exists():
                raise AlreadyExists(f"{self.data} is there and was not made by a demo; choose another --out")
            shutil.rmtree(self.data)
        self.data.mkdir(parents=True)
        (self.data / _MARK).touch()
