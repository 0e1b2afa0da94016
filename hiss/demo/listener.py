"""What the instrument's process has told so far, gathered by a thread that reads its standard output.

`Listener` starts the process; `wait` is called by the main thread. What is gathered is read with the lock of `changed`
held, or after the process has ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hiss.demo.instrument import Plan

_LOG_LINES: Final = 8


class Listener:
    """A running instrument and what it told.

    Attributes
    ----------
    frames : dict
        Path -> frames that it is going to send, 0 where it does not know.
    acked : dict
        Path -> index -> digest of every block that it was told is durable.
    reports : dict
        Path -> the report on a sealed stream.
    """

    def __init__(self, plan: Plan, log: Path) -> None:
        self.changed = threading.Condition()
        self.frames: dict[str, int] = {}
        self.acked: dict[str, dict[int, str]] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        self.ended = False
        self._log = log
        command = [sys.executable, "-m", "hiss.demo.instrument"]
        with log.open("wb") as errors:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert self._process.stdin is not None
        self._process.stdin.write(plan.to_json().encode())
        self._process.stdin.close()
        self._thread = threading.Thread(target=self._listen, name="instrument's words", daemon=True)
        self._thread.start()

    def wait(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a condition holds or the instrument has ended; whether it holds."""
        with self.changed:
            self.changed.wait_for(lambda: until() or self.ended, timeout_s)
            return until()

    def finish(self) -> int:
        """The instrument's exit status, once all that it told is gathered."""
        status = self._process.wait()
        self._thread.join()
        return status

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]) or "it said nothing"

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self.changed:
                self._take(json.loads(line))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _take(self, words: dict[str, Any]) -> None:
        match words["said"]:
            case "stream":
                self.frames[words["path"]] = words["frames"]
                self.acked[words["path"]] = {}
            case "acked":
                self.acked[words["path"]].update((index, digest) for index, digest in words["blocks"])
            case "report":
                self.reports[words["path"]] = words
            case "note":
                self.notes.append(words["text"])
