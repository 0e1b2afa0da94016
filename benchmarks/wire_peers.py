"""Producers in processes of their own, ours and the peers', and the servers that the peers send to.

A `Crew` is some producers of one kind that begin together; its figure is all that arrived from the first beginning to
the last end. `peers` starts the servers of those that are installed, each a process of its own on this machine, and
says by which line the others are installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import PROGRAMS, install_line, interpreter
from hiss.limits import MiB
from hiss.testing.certificates import certificates
from hiss.testing.processes import DataProcess, free_port

HERE = Path(__file__).parent / "peers"
ROOT = Path(__file__).parents[1]
BARE_TLS = "bare-socket-tls"
_NATS_BYTES_MAX = 64 * MiB - 1  # of a message, whatever is configured
_UP_S = 30.0


class Crew:
    """Producers that begin together. A context manager."""

    def __init__(self, command: Sequence[str], number: int = 1, environment: dict[str, str] | None = None) -> None:
        self._processes = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
            )
            for _ in range(number)
        ]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def run(self, **task: Any) -> float:
        """Give each of them the task; GB/s of all."""
        for process in self._processes:
            self._say(process, json.dumps(task))
        for process in self._processes:
            assert self._hear(process) == "ready"
        for process in self._processes:
            self._say(process, "go")
        done = [self._hear(process) for process in self._processes]
        seconds = max(each["end"] for each in done) - min(each["begin"] for each in done)
        return float(sum(each["bytes"] for each in done) / seconds / 1e9)

    @staticmethod
    def _say(process: subprocess.Popen[str], text: str) -> None:
        assert process.stdin is not None
        process.stdin.write(text + "\n")
        process.stdin.flush()

    @staticmethod
    def _hear(process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{process.args}: ended with {process.wait()}")
        return json.loads(line)


@dataclass(frozen=True)
class Peer:
    """Something to send to, and how to start a producer that does."""

    name: str
    command: Sequence[str]
    bytes_max: int | None = None  # of one block

    def crew(self, number: int = 1) -> Crew:
        return Crew(self.command, number)


def our_crew(server: DataProcess, lane: str, number: int = 1, *, role: str = "producer") -> Crew:
    environment = {"HISS_TOKEN": server.token}
    if lane == "tls":
        environment["HISS_TLS_CA"] = str(certificates().client.ca)
    command = [sys.executable, "-m", f"benchmarks.{role}", f"127.0.0.1:{server.config.port}", lane]
    return Crew(command, number, environment)


@contextmanager
def peers(directory: Path, *, consume: bool = False) -> Iterator[tuple[dict[str, Peer], dict[str, str]]]:
    """Those that are here, by name (`bare-socket` also as `bare-socket-unix` and `bare-socket-tls`), and of those that
    are not the line that installs them. With `consume` they are read from."""
    found: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        for name, start in (_SOURCES if consume else _STARTS).items():
            missing = _missing(name)
            if missing is not None:
                absent[name] = missing
                continue
            address = stack.enter_context(start(directory))
            python = str(interpreter(_ENVIRONMENTS[name]) if name in _ENVIRONMENTS else sys.executable)
            kind = name.removesuffix("-unix")
            more = [str(certificates().client.ca)] if name == BARE_TLS else []
            bytes_max = _NATS_BYTES_MAX if name == "nats" else None
            program = HERE / ("wire_consumers.py" if consume else "wire_producers.py")
            found[name] = Peer(name, [python, str(program), kind, address, *more], bytes_max)
        yield found, absent


def beside(lane: str, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The peers of a lane: of the bare sockets its own kind."""
    kind = {"unix": "-unix", "shm": "-unix", "tls": "-tls"}.get(lane.partition(":")[0], "")
    return {
        "bare-socket" if name.startswith("bare-socket") else name: each
        for name, each in theirs.items()
        if not name.startswith("bare-socket") or name == f"bare-socket{kind}"
    }


def _missing(name: str) -> str | None:
    program = _PROGRAMS.get(name)
    if program is not None and shutil.which(program) is None:
        return PROGRAMS[program]
    environment = _ENVIRONMENTS.get(name)
    return install_line(environment) if environment is not None and interpreter(environment) is None else None


@contextmanager
def _process(command: Sequence[str], up: Callable[[], bool] = lambda: True) -> Iterator[subprocess.Popen[str]]:
    """A server, until it is not needed any more; it is up when `up` says so."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        give_up_s = time.monotonic() + _UP_S
        while not up():
            if process.poll() is not None or time.monotonic() > give_up_s:
                raise RuntimeError(f"{command[0]} does not come up")
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def _sink(environment: str | None, *arguments: str, program: str = "wire_sinks.py") -> Iterator[str]:
    python = sys.executable if environment is None else str(interpreter(environment))
    with _process([python, str(HERE / program), *arguments]) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@contextmanager
def _redis(directory: Path) -> Iterator[str]:
    path = directory / f"redis-{free_port()}.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    with _process([*command, "--dir", str(directory), "--logfile", os.devnull], path.exists):
        yield str(path)


@contextmanager
def _nats(directory: Path) -> Iterator[str]:
    port, folder = free_port(), directory / "nats"
    folder.mkdir()
    config, ports = folder / "nats.conf", folder / "ports"
    ports.mkdir()
    config.write_text(
        f'host: 127.0.0.1\nport: {port}\nmax_payload: {64 * MiB}\nmax_pending: {256 * MiB}\nports_file_dir: "{ports}"\n'
        f'jetstream {{ store_dir: "{folder}" }}\n'
    )
    with _process(["nats-server", "-c", str(config)], lambda: any(ports.iterdir())):
        yield f"nats://127.0.0.1:{port}"


@contextmanager
def _nothing(_: Path) -> Iterator[str]:
    yield "-"


_STARTS: dict[str, Callable[[Path], Any]] = {
    "bare-socket": lambda _: _sink(None, "bare-socket"),
    "bare-socket-unix": lambda directory: _sink(None, "bare-socket", str(directory / "bare.sock")),
    BARE_TLS: lambda _: _sink(None, BARE_TLS, str(certificates().server.cert), str(certificates().server.key)),
    "flight": lambda _: _sink("wire", "flight"),
    "redis-set": _redis,
    "redis-xadd": _redis,
    "nats": _nats,
    "pvapy": _nothing,
    "grpc-bytes": lambda _: _sink(None, "grpc-bytes"),
}
_SOURCES: dict[str, Callable[[Path], Any]] = {
    "bare-socket": lambda _: _sink(None, "bare-socket", program="wire_sources.py"),
    "flight": lambda _: _sink("wire", "flight", program="wire_sources.py"),
    "redis-set": _redis,
    "grpc-bytes": lambda _: _sink(None, "grpc-bytes", program="wire_sources.py"),
}
_ENVIRONMENTS = dict.fromkeys(("flight", "redis-set", "redis-xadd", "nats"), "wire") | {"pvapy": "pvapy"}
_PROGRAMS = {"redis-set": "redis-server", "redis-xadd": "redis-server", "nats": "nats-server"}
