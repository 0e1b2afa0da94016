"""Real processes for tests and benchmarks, to be killed and started again: a data process, producers, a buffer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from hiss.access import Access
from hiss.client import Buffer, connect
from hiss.config import ServeConfig, run_directory
from hiss.errors import Unavailable
from hiss.limits import MiB
from hiss.tls import ServerTls

READY_S = 60.0


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class DataProcess:
    """A server's data process on a port of its own, with a small arena. A context manager."""

    program = ("-m", "hiss.server")

    def __init__(
        self,
        data: Path,
        *,
        arena_bytes: int = 64 * MiB,
        segment_bytes: int = 32 * MiB,
        backend: str = "numpy",
        tls: ServerTls | None = None,
    ) -> None:
        self.config = ServeConfig(
            data=data,
            port=free_port(),
            arena_bytes=arena_bytes,
            segment_bytes=segment_bytes,
            backend=backend,
            host="127.0.0.1" if tls is None else "0.0.0.0",
            tls_cert="" if tls is None else str(tls.cert),
            tls_key="" if tls is None else str(tls.key),
        )
        run = run_directory(data) / "data.sock"
        self.address = self.config.address if tls is None else f"unix:{run}"  # for its own user
        self.token = Access.of_directory(data).owner_token
        self.log = data / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        command = [sys.executable, *self.program, "data", self.config.to_json()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        with self.connect() as buffer:
            self._wait_ready(buffer)

    def _wait_ready(self, buffer: Buffer) -> None:
        assert self._process is not None
        give_up_s = time.monotonic() + READY_S
        while True:
            try:
                buffer.status()
                return
            except Unavailable:
                if self._process.poll() is not None or time.monotonic() > give_up_s:
                    raise AssertionError(f"the server does not come up:\n{self.log.read_text()[-4000:]}") from None
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: no clean-up of any kind."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: it takes no step until `go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it runs"
        self._process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(READY_S)

    def connect(self, lane: str | None = None) -> Buffer:
        return connect(self.address, self.token, lane=lane)

    def producer(self, path: str, seed: int, blocks: int) -> subprocess.Popen[str]:
        """A producer process (`testing.producer`); it prints an index whenever all up to it is acknowledged."""
        command = [sys.executable, "-m", "hiss.testing.producer", self.config.address, path, str(seed), str(blocks)]
        environment = {"HISS_TOKEN": self.token, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


class Served:
    """`hiss serve` as a user starts it, on a port of its own; with `http` on another one, too. A context manager."""

    def __init__(self, data: Path, state: Path, *, http: bool = False) -> None:
        self.data, self.port = data, free_port()
        self.http = free_port() if http else 0
        self.log = data.with_suffix(".log")
        self.environment = {**os.environ, "XDG_STATE_HOME": str(state)}
        self.environment.pop("HISS_TOKEN", None)
        command = [sys.executable, "-m", "hiss.cli", "serve", "--data", str(data), "--port", str(self.port)]
        command += ["--http", str(self.http)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        self.wait_for("data")
        self.wait_for("rules")
        self.wait_for("drain")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()

    def pid(self, role: str) -> int:
        """Of the `data`, `rules`, `drain` or `http` process that runs now; 0 while there is none."""
        try:
            pid = int((run_directory(self.data) / f"{role}.pid").read_text())
        except (OSError, ValueError):
            return 0
        return pid if running(pid) else 0

    def wait_for(self, role: str) -> None:
        give_up_s = time.monotonic() + READY_S
        while not self.pid(role):
            if self.process.poll() is not None or time.monotonic() > give_up_s:
                raise AssertionError(f"no {role} process:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def kill(self, role: str) -> None:
        """SIGKILL to one of the processes; when this returns it has ended."""
        self.wait_for(role)
        pid = self.pid(role)
        os.kill(pid, signal.SIGKILL)
        give_up_s = time.monotonic() + READY_S
        while running(pid):
            assert time.monotonic() < give_up_s, f"process {pid} does not end"
            time.sleep(0.005)

    def stop(self) -> int:
        """SIGTERM to the supervisor, and its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(READY_S)


def running(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
