"""A process that uses a storage and says what it asked for and what was answered, until somebody kills it.

`main` does what an instrument and an operator do, from a seed, and writes a line for each promise to descriptor 1, in
the order of events: what was not answered may or may not be there.

    C ID NAME        a stream is about to be made      c ID    it is there
    W ID I:SIZE …    blocks are about to be appended   A ID I …  they are durable
    S ID             it is about to be sealed          s ID DIGEST  it is
    D ID             it is about to be deleted         d ID    it is
    E TEXT           the disk failed, and the storage said so; the process ends with 3
    F                it has done all its steps, closed the storage and ends

Run as `python -m blocks.appender` in the tests' folder with a socket as descriptor 0, it is the parent of such
processes (`victims.Victims`): it has imported everything already, and forks one for each request.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hiss.blocks import Storage, StorageOptions
from hiss.blocks.files import OS_FILES, Buffer, OsFiles
from hiss.errors import HissError
from hiss.model import StreamState

from .bench_log import make_extent, stream_info

OPTIONS = StorageOptions(arena_bytes=8 << 20, segment_bytes=1 << 20, space_wait_s=0.05)


class UnsyncedFiles(OsFiles):
    """A control: files that promise what they do not do."""

    def fdatasync(self, fd: int) -> None:
        pass

    def fsync_directory(self, path: Path) -> None:
        pass


class DeafFiles(OsFiles):
    """A control: files that do not hear of errors."""

    def fdatasync(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            super().fdatasync(fd)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        with contextlib.suppress(OSError):
            super().pwritev(fd, buffers, offset)
        return sum(map(len, buffers))


FILES = {"": OS_FILES, "unsynced": UnsyncedFiles(), "deaf": DeafFiles(), "early": OS_FILES}


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Appender:
    """One life. `control` is a key of `FILES`; with `early` it answers before it has asked."""

    def __init__(self, directory: Path, seed: int, steps: int, control: str) -> None:
        self.rng, self.steps, self.early = random.Random(seed), steps, control == "early"
        self.storage = Storage(directory, OPTIONS, files=FILES[control])
        self.room = threading.Semaphore(8)
        self.storage.catalog.create_collection("test/run", {}, [])
        self.streams = [info for info in self.storage.catalog.streams("test/run") if not info.state.final]

    def run(self) -> None:
        say("R")
        for _ in range(self.steps):
            action = self.rng.random()
            if not self.streams or (action < 0.04 and len(self.streams) < 8):
                self.create()
            elif action < 0.06:
                self.seal(self.rng.choice(self.streams))
            elif action < 0.08 and len(self.streams) > 2:
                self.delete(self.rng.choice(self.streams))
            else:
                self.append(self.rng.choice(self.streams))
        self.storage.close()

    def create(self) -> None:
        info = stream_info(f"s{self.rng.randrange(1 << 40):x}")
        info = replace(info, id=self.rng.randbytes(16).hex())
        say("C", info.id, info.name)
        if self.early:
            say("c", info.id)
        self.streams += self.storage.catalog.add_streams([info], new_version=False, attempt=None)
        if not self.early:
            say("c", info.id)

    def append(self, info) -> None:
        index = self.storage.index(info.id)
        start = index.next_index + self.rng.choice((0, 0, 0, 3))
        blocks = [(start + k, self.rng.choice((10, 5000, 70_000))) for k in range(self.rng.randint(1, 4))]
        assert not index.handled(np.array([number for number, _ in blocks])).any()
        answer = ("A", info.id, *(number for number, _ in blocks))

        def acknowledge(error: HissError | None) -> None:
            if error is None and not self.early:
                say(*answer)
            self.room.release()

        self.room.acquire()
        say("W", info.id, *(f"{number}:{size}" for number, size in blocks))
        if self.early:
            say(*answer)
        self.storage.append(info.id, make_extent(info, blocks), acknowledge)

    def seal(self, info) -> None:
        self.storage.sync()
        whole = self.storage.completeness(info.id, None, [])
        digest = self.storage.stream_digest(info.id)
        self.streams.remove(info)
        say("S", info.id)
        self.storage.catalog.finalise([info.id], StreamState.SEALED, {info.id: whole}, {info.id: digest})
        say("s", info.id, digest)

    def delete(self, info) -> None:
        self.streams.remove(info)
        say("D", info.id)
        self.storage.delete(info.id)
        say("d", info.id)


def main(directory: Path, seed: int, steps: int, control: str = "") -> int:
    """The exit code: 0, or 3 where the disk failed and the storage said so."""
    logging.disable(logging.CRITICAL)
    try:
        Appender(directory, seed, steps, control).run()
    except (HissError, OSError) as error:
        say("E", type(error).__name__, str(error).replace("\n", " ")[:200])
        return 3
    say("F")
    return 0


def serve(requests: socket.socket) -> None:
    """Fork a process for each request: JSON with `directory`, `seed`, `steps`, `control`; its output and its start
    signal come as descriptors. The answer is its process id.
    """
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        main(Path(folder) / "buffer", 0, 20)  # so that all that is imported late is there
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, 1 << 16, 2)
        if not data:
            return
        output, go = descriptors
        request = json.loads(data)
        pid = os.fork()
        if not pid:
            os.dup2(output, 1)
            os.read(go, 1)
            os._exit(main(Path(request["directory"]), request["seed"], request["steps"], request["control"]))
        os.close(output)
        os.close(go)
        requests.sendall(f"{pid}\n".encode())


if __name__ == "__main__":
    with socket.socket(fileno=0) as stdin:
        serve(stdin)
    sys.exit(0)
