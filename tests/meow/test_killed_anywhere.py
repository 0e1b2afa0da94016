"""The kill test: buffer, rule engine, zygote or keeper are killed (-9) at random moments of a workflow that branches
and loops. It ends with exactly the jobs of an undisturbed run, and the same outputs, each once."""

from __future__ import annotations

import contextlib
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

import hiss
from hiss.access import Access
from hiss.errors import HissError
from hiss.meow_bridge import Engine
from hiss.meow_bridge.process_tree import children
from hiss.workflow import JobState

from .conftest import pattern, script, wait_for
from .memory_store import MemoryStore

LAPS = 3

# Two branches of each input; each branch is halved until it has gone its laps; the last ones are summed, by a sweep.
SPLIT = """
import hiss, numpy as np
job = hiss.job()
data = np.asarray(job.input)
name = job.input.path.rpartition("/")[2]
job.output(f"w/laps/{name}-even-0", data[::2])
job.output(f"w/laps/{name}-odd-0", data[1::2])
"""
LAP = """
import hiss, numpy as np
job = hiss.job()
name, _, lap = job.input.path.rpartition("/")[2].rpartition("-")
data = np.asarray(job.input) + 1
if int(lap) + 1 < laps:
    job.output(f"w/laps/{name}-{int(lap) + 1}", data)
else:
    job.output(f"w/ends/{name}", data)
"""
TOTAL = """
import hiss, numpy as np
job = hiss.job()
name = job.input.path.rpartition("/")[2]
job.output(f"w/totals/{name}-{factor}", [np.asarray(job.input).sum() * factor])
"""


class Site:
    """The processes of a buffer and of its rule engine, each started again when it was killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = f"unix:{directory / 's'}"
        self.line = str(directory / "l")
        self.data: subprocess.Popen[bytes] | None = None
        self.rules: subprocess.Popen[bytes] | None = None
        self.tokens = Access.of_directory(self._made(directory / "data"))

    @staticmethod
    def _made(directory: Path) -> Path:
        directory.mkdir()
        return directory

    def set_up(self) -> None:
        engine = Engine(self.directory / "rules", MemoryStore(), lambda *_: {})  # type: ignore[arg-type]
        for name, body in (("split", SPLIT), ("lap", LAP), ("total", TOTAL)):
            engine.add_recipe(script(name, body, retries=10_000))
        for each in (
            pattern("split", "w/in/*", "split"),
            pattern("lap", "w/laps/*", "lap", variables={"laps": LAPS}),
            pattern("total", "w/ends/*", "total", sweep={"factor": [1, 10]}),
        ):
            engine.add_pattern(each)
        engine.stop()

    def start(self) -> None:
        here = Path(__file__).parent
        if self.data is None or self.data.poll() is not None:
            words = [str(here / "data_process.py"), str(self.directory / "data"), self.address, self.line]
            self.data = subprocess.Popen([sys.executable, *words])
        if self.rules is None or self.rules.poll() is not None:
            words = [str(here / "engine_process.py"), str(self.directory / "rules"), self.address]
            words += [str(self.directory / "data"), self.line]
            self.rules = subprocess.Popen([sys.executable, *words])

    def victims(self) -> list[int]:
        """Buffer, engine, the zygote, a keeper: those that there are."""
        assert self.data is not None
        assert self.rules is not None
        zygotes = children(self.rules.pid)
        keepers = [pid for zygote in zygotes for pid in children(zygote)]
        return [self.data.pid, self.rules.pid, *zygotes[:1], *keepers[:1]]

    def kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for process in (self.data, self.rules):
            if process is not None and process.pid == pid:
                process.wait()

    def jobs(self) -> list[tuple[str, str, int, str, int]]:
        """Pattern, path, version, variables and state of each, read beside the running engine."""
        database = sqlite3.connect(f"file:{self.directory / 'rules' / 'jobs.db'}?mode=ro", uri=True)
        try:
            return database.execute("SELECT pattern, path, version, variables, state FROM every_job").fetchall()
        finally:
            database.close()

    def buffer(self) -> hiss.Buffer:
        return hiss.connect(self.address, token=self.tokens.owner_token)

    def answers(self) -> bool:
        """Whether the buffer is there; it is started where it is not."""
        self.start()
        with contextlib.suppress(HissError), self.buffer() as buffer:
            buffer.collections("w")
            return True
        return False

    def seal(self, number: int) -> None:
        """Store an input, if it is not there; a buffer that is killed meanwhile gets it again."""

        def sealed() -> bool:
            self.start()
            try:
                with self.buffer() as buffer:
                    collection = buffer.collection("w/in")
                    with collection.create_stream(f"i{number}", dtype="i8", shape=(4,), resume=True) as stream:
                        stream.extend(np.full((6, 4), number), index=np.arange(6))
                    return True
            except HissError as error:
                return "final" in str(error) or "sealed" in str(error)

        wait_for(sealed, f"input {number} to be stored")

    def close(self) -> None:
        for process in (self.rules, self.data):
            if process is not None:
                process.kill()
                process.wait()


@pytest.fixture
def site() -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="hiss"))  # a short path, for the sockets
    made = Site(directory)
    made.set_up()
    yield made
    made.close()
    shutil.rmtree(directory, ignore_errors=True)


def jobs_of(inputs: int) -> Counter[tuple[str, str]]:
    """What an undisturbed run makes: by pattern and path."""
    branches = [f"i{number}-{side}" for number in range(inputs) for side in ("even", "odd")]
    expected = Counter({("split", f"w/in/i{number}"): 1 for number in range(inputs)})
    expected += Counter({("lap", f"w/laps/{branch}-{lap}"): 1 for branch in branches for lap in range(LAPS)})
    return expected + Counter({("total", f"w/ends/{branch}"): 2 for branch in branches})


def check(site: Site, inputs: int) -> None:
    expected = jobs_of(inputs)

    def over() -> bool:
        site.start()
        found = site.jobs()
        return len(found) >= expected.total() and all(state in (3, 4, 5) for *_, state in found)

    wait_for(over, "all jobs to end", timeout_s=180.0)
    found = site.jobs()
    assert Counter((name, path) for name, path, *_ in found) == expected
    assert {state for *_, state in found} == {JobState.DONE}
    wait_for(site.answers, "the buffer that was killed last to be back")
    with site.buffer() as buffer:
        for number in range(inputs):
            for side in ("even", "odd"):
                total = 3 * 4 * (number + LAPS)
                for factor in (1, 10):
                    assert np.asarray(buffer[f"w/totals/i{number}-{side}-{factor}"]).tolist() == [total * factor]
        streams = [
            info for top in buffer.collections("w") for info in buffer.store.streams(top.path, all_versions=True)
        ]
    versions = Counter(info.path for info in streams if not info.path.startswith("w/in/"))
    assert set(versions.values()) == {1}, "each output is there once"
    assert len(versions) == inputs * 2 * (LAPS + 3)


def disturbed(site: Site, kills: int, inputs: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(inputs):
        site.seal(number)
        for _ in range(kills // inputs):
            site.start()
            time.sleep(chance.uniform(0.02, 0.9))  # the moment of the fault, not a wait for something to come true
            site.kill(chance.choice(site.victims()))


def test_killed_at_twenty_moments(site: Site) -> None:
    disturbed(site, kills=20, inputs=4, seed=1)
    check(site, 4)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_five_hundred_moments(site: Site, seed: int) -> None:
    disturbed(site, kills=50, inputs=10, seed=100 + seed)
    check(site, 10)
