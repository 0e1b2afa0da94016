"""Processes that are killed, cut off power or given errors by the system, and what they had been promised by then."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hiss.blocks import Storage
from hiss.model import Completeness

from .appender import OPTIONS
from .audit import Audit, Kept, Promises
from .bench_log import stream_info

TESTS = Path(__file__).parents[1]
WAIT_S = 60.0


def readable(fd: int) -> bool:
    """Whether there is something to read within `WAIT_S`, be it the end."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(1000 * WAIT_S))


@dataclass
class Victim:
    """One process that uses a storage. Its lines are read as they come."""

    pid: int
    output: int
    go: int
    lines: list[bytes] = field(default_factory=list)
    rest: bytes = b""
    over: bool = False

    def __post_init__(self) -> None:
        self.end = os.pidfd_open(self.pid)

    def start(self) -> None:
        os.write(self.go, b"g")

    def read(self, until: int | None = None) -> None:
        """Read until so many answers were given, or the process is over."""
        while not self.over and (until is None or self.answers < until):
            assert readable(self.output), "the process says nothing"
            data = os.read(self.output, 1 << 16)
            self.over = not data
            *whole, self.rest = (self.rest + data).split(b"\n")
            self.lines += whole

    @property
    def answers(self) -> int:
        return sum(line[:1] in b"Acsd" for line in self.lines)

    def kill(self, number: int = signal.SIGKILL) -> None:
        signal.pidfd_send_signal(self.end, number)

    def wait(self) -> None:
        """Until the process has ended and let go of everything; what it had said is read."""
        self.read()
        assert readable(self.end), "the process does not end"
        for fd in (self.end, self.output, self.go):
            os.close(fd)


class Victims:
    """Makes them, quickly: a parent that has imported everything forks one for each."""

    def __init__(self) -> None:
        self.requests, theirs = socket.socketpair()
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "blocks.appender"]
        self.process = subprocess.Popen(command, cwd=TESTS, stdin=theirs, env=environment)
        theirs.close()

    def new(self, directory: Path, seed: int, *, steps: int = 1 << 30, control: str = "") -> Victim:
        """One that waits for `start`."""
        read_output, output = os.pipe()
        wait, go = os.pipe()
        request = {"directory": str(directory), "seed": seed, "steps": steps, "control": control}
        socket.send_fds(self.requests, [json.dumps(request).encode()], [output, wait])
        os.close(output)
        os.close(wait)
        answer = b""
        while not answer.endswith(b"\n"):
            assert readable(self.requests.fileno()), "the parent of the victims says nothing"
            part = self.requests.recv(64)
            assert part, "the parent of the victims has died"
            answer += part
        return Victim(int(answer), read_output, go)

    def close(self) -> None:
        self.requests.close()
        self.process.wait(WAIT_S)


class Injection:
    """`strace`, attached to one victim: what it does to the victim's system calls.

    `what` is as after `-e inject=`, such as `fdatasync:error=EIO:when=3`. `when=` counts for each thread by itself.
    """

    def __init__(self, victim: Victim, what: str) -> None:
        call = what.partition(":")[0]
        command = [
            "strace",
            "-f",
            "-p",
            str(victim.pid),
            "-o",
            "/dev/null",
            "-e",
            f"trace={call}",
            "-e",
            f"inject={what}",
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        if b"attached" not in first:
            self.process.kill()
            self.process.communicate()
            victim.kill()
            raise OSError(first.decode().strip())

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=WAIT_S)
        self.process.kill()
        self.process.communicate()


def needs_strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("system calls are made to fail by strace: apt-get install strace")


def promised(lines: list[bytes], promises: Promises) -> int:
    """Add what a victim said to what was promised; the number of blocks that it had acknowledged."""
    acknowledged = 0
    for line in lines:
        kind, *words = line.decode().split()
        if kind == "C":
            kept = promises.streams[words[0]] = Kept(replace(stream_info(words[1]), id=words[0]))
            continue
        if kind in "REF":
            continue
        kept = promises.streams[words[0]]
        if kind == "c":
            kept.created = True
        elif kind == "W":
            for word in words[1:]:
                index, size = map(int, word.split(":"))
                kept.sent[index] = (size, 0)
        elif kind == "A":
            kept.acknowledged |= set(map(int, words[1:]))
            acknowledged += len(words) - 1
        elif kind == "S":
            kept.sealing = (Completeness(0, 0, 0, None, None), "")
        elif kind == "s":
            kept.sealed = (Completeness(0, 0, 0, None, None), words[1])
        elif kind == "D":
            kept.deleting = True
        elif kind == "d":
            kept.deleted = True
    return acknowledged


def recover(directory: Path, promises: Promises, audit: Audit) -> Storage:
    """Open what a victim left and hold it against what it was promised; the storage, still open."""
    storage = Storage(directory, OPTIONS)
    try:
        for info in storage.catalog.all_streams():
            kept = promises.streams.get(info.id)
            if kept is not None and info.state.final and (kept.sealing or kept.sealed):
                said = kept.sealed[1] if kept.sealed and kept.sealed[1] else info.digest
                kept.sealed = (info.completeness, said)  # the ledger is checked by itself, the digest is what was said
        audit.check(storage, promises)
    except BaseException:
        storage.close()
        raise
    return storage
