"""`hiss serve`: starts the processes of a buffer, starts again one that died, stops all when told to.

A process that ends with `EXIT_UNUSABLE` said why on stderr, and the supervisor ends too; without HTTP it goes on. One
that died is started again after a pause that doubles up to `_PAUSE_MAX_S` while it keeps dying young. The supervisor is
single-threaded and imports no gRPC."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from hiss.config import EXIT_UNUSABLE, ServeConfig, run_directory
from hiss.operators.installed import INSTALL, missing

_PAUSE_MIN_S = 0.1
_PAUSE_MAX_S = 5.0
_YOUNG_S = 10.0
_LOOK_S = 0.05
_STOP_S = 20.0


@dataclass(slots=True)
class _Child:
    role: str
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    pause_s: float = _PAUSE_MIN_S
    start_at_s: float = 0.0


class Supervisor:
    """The processes of one buffer."""

    def __init__(self, config: ServeConfig, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._stopping = False
        self._pid_file = run_directory(config.data) / "data.pid"
        self._children = [_Child("data"), _Child("rules"), _Child("drain")]
        if config.http and not missing():
            self._children.append(_Child("http"))

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        status = 0
        while not self._stopping:
            for child in list(self._children):
                if self._look(child) != EXIT_UNUSABLE:
                    continue
                if child.role == "http":
                    self._children.remove(child)
                    self._say("the buffer goes on without HTTP")
                else:
                    status, self._stopping = EXIT_UNUSABLE, True
            time.sleep(_LOOK_S)
        self._end()
        return status

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _look(self, child: _Child) -> int | None:
        """Start what is not running; the exit status of what has just ended."""
        now_s = time.monotonic()
        if child.process is None:
            if now_s >= child.start_at_s and (child.role == "data" or self._data_ready()):
                self._start(child, now_s)
            return None
        status = child.process.poll()
        if status is not None and not self._stopping:
            child.process = None
            young = now_s - child.started_s < _YOUNG_S
            child.pause_s = min(2 * child.pause_s, _PAUSE_MAX_S) if young else _PAUSE_MIN_S
            child.start_at_s = now_s + child.pause_s
            if status != EXIT_UNUSABLE:
                self._say(f"the {child.role} process ended ({_why(status)}); starting it again")
        return status

    def _data_ready(self) -> bool:
        """Whether the data process that runs now has said that it answers."""
        process = self._children[0].process
        try:
            return process is not None and self._pid_file.read_text().strip() == str(process.pid)
        except OSError:
            return False

    def _start(self, child: _Child, now_s: float) -> None:
        command = [sys.executable, "-m", "hiss.server", child.role, self._config.to_json()]
        # a session of its own: Ctrl-C at the terminal reaches the supervisor, which stops them in order
        environment = {**os.environ, **self._config.s3.to_environment()} if child.role == "drain" else None
        child.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env=environment)
        child.started_s = now_s

    def _end(self) -> None:
        for child in reversed(self._children):  # the others first: they are clients of the data process
            if child.process is None:
                continue
            child.process.send_signal(signal.SIGTERM)
            try:
                child.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._say(f"the {child.role} process does not stop; killing it")
                child.process.kill()
                child.process.wait()


def _why(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def serve(config: ServeConfig, say: Callable[[str], None]) -> int:
    """Run a buffer until it is told to stop.

    Parameters
    ----------
    say : callable
        Takes a line for the operator.
    """
    say(f"gRPC  {config.address}{' over TLS' if config.tls else ''}")
    if config.http and (absent := missing()):
        say(f"HTTP  none: {', '.join(absent)} is not installed: {INSTALL}")
    elif config.http:
        say(f"HTTP  http://{config.http_host}:{config.http}/")
    say(f"data  {config.data}")
    say(f"pid   {os.getpid()} (stop with Ctrl-C or SIGTERM)")
    return Supervisor(config, say).run()
