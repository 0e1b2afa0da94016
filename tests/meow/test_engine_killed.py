"""The rule engine is killed (-9) at any moment, over a real buffer on a real socket: one job for each event, one output
for each job, and no process left."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.meow_bridge import Engine
from hiss.node import Node
from hiss.transport.server import GrpcServer
from hiss.workflow import JobState

from .conftest import ROOM, finished, pattern, script, wait_for

SUM = """
import hiss, numpy as np, time, os, pathlib
open(log, "a").write(f"{os.getpid()} ")
while not pathlib.Path(go).exists(): time.sleep(0.01)
job = hiss.job()
job.output(f"sum-{pathlib.PurePath(input).name}", np.asarray(job.input).sum(axis=1))
"""


class Site:
    """A buffer in this process, and the rule engine's process beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        options = StorageOptions(arena_bytes=16 * MiB, segment_bytes=4 * MiB)
        self.node = Node(directory / "data", options, backend="numpy")
        self.tokens = Access.of_directory(directory / "data")
        self.address = f"unix:{directory / 's'}"
        self.server = GrpcServer(
            [self.address],
            store_for=lambda caller: LocalStore(self.node, caller),
            authenticate=lambda token, peer: self.tokens.authenticate(token, time.time_ns(), peer),
        )
        self.server.start()
        self.buffer = Buffer(LocalStore(self.node))
        self.engine: subprocess.Popen[bytes] | None = None

    def start_engine(self) -> None:
        here = Path(__file__).with_name("engine_process.py")
        words = [sys.executable, str(here), str(self.directory / "rules"), self.address, str(self.directory / "data")]
        self.engine = subprocess.Popen(words)

    def kill_engine(self) -> None:
        assert self.engine is not None
        self.engine.send_signal(signal.SIGKILL)
        self.engine.wait()

    def engine_here(self) -> Engine:
        """An engine on the same directory in this process, not started: to set up and to look."""
        return Engine(self.directory / "rules", LocalStore(self.node), lambda *_: {})

    def seal(self, path: str, value: int) -> None:
        collection, _, name = path.rpartition("/")
        with self.buffer.collection(collection).create_stream(name, dtype="i8", shape=(4,)) as stream:
            stream.extend(np.full((3, 4), value, np.int64))

    def states(self) -> Counter[int]:
        """Of the jobs, read beside the running engine."""
        database = sqlite3.connect(f"file:{self.directory / 'rules' / 'jobs.db'}?mode=ro", uri=True)
        try:
            return Counter(state for (state,) in database.execute("SELECT state FROM every_job"))
        finally:
            database.close()

    def close(self) -> None:
        if self.engine is not None and self.engine.poll() is None:
            self.kill_engine()
        self.server.stop(1.0)
        self.node.close()


@pytest.fixture
def site() -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="hiss"))  # a short path, for the socket
    made = Site(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]


def set_up(site: Site, log: Path, go: Path) -> None:
    engine = site.engine_here()
    engine.add(script("sum", SUM, retries=0))
    engine.add(pattern("p", "a/in*", "sum", variables={"log": str(log), "go": str(go)}))
    engine.stop()


def test_a_job_that_ran_when_the_engine_died_runs_again(site: Site) -> None:
    log, go = site.directory / "log", site.directory / "go"
    set_up(site, log, go)
    site.seal("a/in", 5)
    site.start_engine()
    (first,) = wait_for(lambda: log.exists() and log.read_text().split(), "the job to run")
    site.kill_engine()
    wait_for(lambda: ended(int(first)), "the job's process to end with its engine")
    go.touch()
    site.start_engine()
    wait_for(lambda: site.states()[JobState.DONE] == 1, "the job to be done")
    site.kill_engine()
    engine = site.engine_here()
    (job,) = engine.jobs()
    engine.stop()
    assert (job.attempts, [ref.path for ref in job.writes], [ref.path for ref in job.reads]) == (
        2,
        ["a/sum-in"],
        ["a/in"],
    )
    assert np.asarray(site.buffer["a/sum-in"]).tolist() == [20, 20, 20]
    assert len(log.read_text().split()) == 2


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    log, go = site.directory / "log", site.directory / "go"
    go.touch()
    set_up(site, log, go)
    count = 5
    for number in range(count):
        site.seal(f"a/in{number}", number)
        site.start_engine()
        time.sleep(chance.uniform(0.05, 1.2))  # the moment of the fault, not a wait for something to come true
        site.kill_engine()
    site.start_engine()
    wait_for(lambda: site.states()[JobState.DONE] == count, "all jobs to be done")
    site.kill_engine()
    engine = site.engine_here()
    jobs = finished(engine, count)
    engine.stop()
    assert sorted(job.path for job in jobs) == [f"a/in{number}" for number in range(count)]
    for job in jobs:
        assert [(ref.path, ref.version) for ref in job.writes] == [(f"a/sum-{job.path[2:]}", 1)]
    streams = site.buffer.store.streams("a", all_versions=True)
    assert sorted(info.name for info in streams if info.name.startswith("sum-")) == [f"sum-in{n}" for n in range(count)]
    for number in range(count):
        assert np.asarray(site.buffer[f"a/sum-in{number}"]).tolist() == [4 * number] * 3


def test_killed_between_the_commit_and_its_record(site: Site) -> None:
    """The buffer has published the outputs, `jobs.db` does not know it: the job is done, and not run again."""
    log, go = site.directory / "log", site.directory / "go"
    go.touch()
    set_up(site, log, go)
    site.seal("a/in", 1)
    engine = site.engine_here()
    engine._scheduler.adopt(site.node.catalog.node)
    engine._scheduler.deal_with(site.node.catalog.events_after(0, 10))
    attempt = engine._jobs.claim(time.time_ns(), "here", ROOM)
    assert attempt is not None
    assert engine._jobs.begin_commit(attempt)
    engine._store.commit_attempt(attempt.id, "job.finished", {})
    engine.stop()
    site.start_engine()
    wait_for(lambda: site.states()[JobState.DONE] == 1, "the job to be known as done")
    assert not log.exists()
