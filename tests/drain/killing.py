"""A drain process that is killed, targets that fail, and the audit of what came of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import h5py
import numpy as np
from s3_server import BUCKET, S3Server
from transport.proxy import CuttingProxy

from hiss.client import Buffer
from hiss.config import ServeConfig, run_directory
from hiss.drain import verify_file
from hiss.drain.targets import fetched
from hiss.drain_policy import Drain, DrainPolicy, DrainState, DrainTarget
from hiss.model import Event
from hiss.s3_options import S3Options
from hiss.store import Store
from hiss.testing.conformance import wait_for
from hiss.testing.processes import running

FORKS = """
import os, resource, signal, sys
import h5py, hdf5plugin, obstore.store, zarr
from hiss import limits, server
from hiss.drain import s3_target, worker, zarr_format
from hiss.transport import remote
limits.S3_PART_BYTES, limits.S3_RETRIES_MAX, limits.S3_RETRY_S, limits.DRAIN_LOOK_S = 50_000, 1, 2.0, 0.05
limits.DRAIN_RETRY_MOST_S = 1.0
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)
        if int(line):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(line), resource.RLIM_INFINITY))
        os._exit(server.main("drain", sys.argv[1]))
    print(pid, flush=True)
"""


class DrainProcess:
    """The drain process of a server, with small parts and short pauses. A context manager.

    It is forked from a process that has imported all that it needs and has no threads, so that it starts at once.
    """

    def __init__(self, config: ServeConfig, s3: S3Options) -> None:
        self._config = config
        self._s3 = s3
        self._pid = 0

    def __enter__(self) -> Self:
        command = [sys.executable, "-c", FORKS, self._config.to_json()]
        environment = {**os.environ, **self._s3.to_environment()}
        with (self._config.data / "drain.log").open("ab") as log:
            self._forks = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._forks.stdin is not None
        assert self._forks.stdout is not None
        self._forks.stdin.close()
        self._forks.wait(60)
        self._forks.stdout.close()

    def start(self, file_bytes: int = 0) -> None:
        """`file_bytes`: no file gets larger."""
        assert self._forks.stdin is not None
        assert self._forks.stdout is not None
        self._forks.stdin.write(f"{file_bytes}\n")
        self._forks.stdin.flush()
        self._pid = int(self._forks.stdout.readline())
        pid_file = run_directory(self._config.data) / "drain.pid"
        wait_for(lambda: pid_file.exists() and pid_file.read_text().strip() == str(self._pid), 60)

    def end(self, number: signal.Signals) -> None:
        assert running(self._pid), (self._config.data / "drain.log").read_text()[-3000:]
        os.kill(self._pid, number)
        wait_for(lambda: not running(self._pid), 60)


@dataclass
class Audit:
    """For the tally: blocks that were archived, and what is wrong with them."""

    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong: int = 0
    unexplained: int = 0
    early: list[str] = field(default_factory=list)  # evicted before they were everywhere


def evicted_early(events: Iterable[Event], policies: Mapping[str, DrainPolicy]) -> list[str]:
    """Streams that left the log before the buffer was told of each of their places, from the events in their order."""
    told: dict[str, list[str]] = {}
    early = []
    for event in events:
        path = f"{event.collection}/{event.stream}"
        if event.kind == "stream.archived":
            told.setdefault(path, []).append(event.data["location"].partition("::")[0])
        if event.kind == "stream.evicted":
            targets = policies[event.collection].targets
            wanted = {target.place(event.collection, event.stream, event.version) for target in targets}
            if not wanted <= set(told.get(path, [])):
                early.append(path)
    return early


class Archives:
    """Collections that drain to a directory, to S3 through a proxy that cuts, and to both; and what was put in."""

    def __init__(self, store: Store, folder: Path, server: S3Server, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.server = server
        self.folder.mkdir()
        self.proxy = CuttingProxy(server.port, self._cut_after)
        self.cutting = False
        self.options = S3Options(f"http://{self.proxy.address}", "us-east-1", "key", "secret")
        near = DrainTarget(f"{folder}/{{collection}}-{{stream}}.nxs", bytes_per_s=1_000_000)
        tree = DrainTarget(f"{folder}/{{collection}}-{{stream}}.zarr", compression="zstd")
        far = DrainTarget(f"s3://{BUCKET}/{{collection}}/{{stream}}.nxs", compression="none", bytes_per_s=2_000_000)
        far_tree = DrainTarget(f"s3://{BUCKET}/{{collection}}/{{stream}}.zarr", compression="none")
        self.policies = {
            "near": DrainPolicy((near, tree)), "far": DrainPolicy((far, far_tree)), "both": DrainPolicy((near, far)),
        }  # fmt: skip
        self.frames: dict[str, np.ndarray] = {}
        self._store = store

    def _cut_after(self) -> int | None:
        return self.random.randrange(200_000) if self.cutting else None

    def close(self) -> None:
        self.proxy.close()

    def pause(self) -> None:
        """Until the process has something in hand, mostly; then a random while, for a kill to come at any point."""
        before = {each.id: each.changed_ns for each in self._store.drains()}

        def at_work() -> bool:
            return any(each.changed_ns != before.get(each.id) for each in self._store.drains())

        if self.random.random() < 0.8:
            give_up_s = time.monotonic() + 20.0  # where no target can be reached there may be nothing to see
            while not at_work() and time.monotonic() < give_up_s:
                threading.Event().wait(0.01)
        threading.Event().wait(self.random.uniform(0.0, 0.6))

    def due_now(self) -> list[Drain]:
        """Hurry what waits for its next attempt."""
        return self._store.plan_drains([""], ask=True)

    def write(self, buffer: Buffer, name: str, shape: tuple[int, ...]) -> None:
        """A sealed stream in one of the collections."""
        collection = self.random.choice(list(self.policies))
        frames = np.random.default_rng(len(self.frames)).integers(0, 60_000, shape, np.uint16)
        with buffer.collection(collection).create_stream(name, dtype="u2", shape=shape[1:]) as s:
            s.extend(frames)
        self.frames[f"{collection}/{name}"] = frames

    def waiting(self) -> int:
        """How many entries are not done."""
        return sum(each.state is not DrainState.DONE for each in self._store.plan_drains([""]))

    def all_done(self) -> bool:
        entries = self.due_now()
        return bool(entries) and all(each.state is DrainState.DONE for each in entries)

    def audit(self, events: Iterable[Event]) -> Audit:
        """Every stream is in each of its places, whole, equal; nothing else is there; nothing left the log early."""
        found = Audit(early=evicted_early(events, self.policies))
        expected = set()
        for path, frames in self.frames.items():
            collection, _, name = path.partition("/")
            for target in self.policies[collection].targets:
                url = target.place(collection, name, 1)
                expected.add(url)
                found.acknowledged += len(frames)
                with fetched(url, s3=self.server.options, scratch=self.folder.parent / "fetched") as file:
                    verified = verify_file(file)
                    found.wrong += not verified.ok
                    found.lost += len(frames) - verified.blocks
                    found.wrong += not np.array_equal(_content(file, name), frames)
        there = {str(path) for path in self.folder.iterdir()}
        keys = {"/".join(key.split("/")[:2]) for key in self.server.listed()}
        there |= {f"s3://{BUCKET}/{key}" for key in keys} | {f"unfinished {key}" for key in self.server.uploads()}
        found.unexplained = len(there ^ expected)
        return found


def _content(file: Path, name: str) -> np.ndarray:
    if file.is_dir():
        import zarr

        return np.asarray(zarr.open_array(file / name / "data", mode="r")[...])
    with h5py.File(file) as opened:
        return np.asarray(opened[f"entry/{name}/data"][()])
