"""The parsers of what comes from outside, held against other readers of the same bytes: `fuzzing.py` says how."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiss import limits
from hiss.transport import extent_wire
from transport import fuzzing
from transport.fuzzing import TARGETS, mutations

RUNS = 100_000
ATHERIS_RUNS = 1_000_000  # of one process, which keeps a kilobyte of each
ATHERIS_SEEDS = range(1, 11)
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lying heads of lines are refused above a megabyte, not above 257: memory that is cleared takes the time."""
    monkeypatch.setattr(limits, "MESSAGE_BYTES_MAX", limits.MiB)


def run(name: str, runs: int, seed: int) -> None:
    target = TARGETS[name]
    for body in itertools.islice(mutations(name, seed), runs):
        try:
            target(body)
        except Exception as error:
            raise AssertionError(f"{name}({body!r})") from error


@pytest.mark.parametrize("name", TARGETS)
def test_valid_messages_are_read_alike(name: str) -> None:
    for body in fuzzing.corpus(name):
        TARGETS[name](body)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_messages_are_read_alike(name: str, tally: Any) -> None:
    run(name, RUNS, seed=1)
    tally("parsers", None, runs=RUNS)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=300))
def test_any_bytes_are_read_alike(name: str, body: bytes) -> None:
    TARGETS[name](body)


@pytest.mark.torture
@pytest.mark.parametrize("seed", ATHERIS_SEEDS)
@pytest.mark.parametrize("name", TARGETS)
def test_atheris_finds_nothing(name: str, seed: int, tmp_path: Path, tally: Any) -> None:
    pytest.importorskip("atheris", reason="uv sync --group fuzz")
    command = [sys.executable, str(HERE / "fuzz_parsers.py"), name, f"-runs={ATHERIS_RUNS}", f"-seed={seed}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs is not None, done.stderr[-4000:]
    tally("parsers", None, atheris_runs=int(runs[1]))


def test_the_script_runs(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="uv sync --group fuzz")
    command = [sys.executable, str(HERE / "fuzz_parsers.py"), "reply", "-runs=2000", "-seed=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done 2000 runs" in done.stderr


@pytest.mark.control
def test_a_parser_that_trusts_lengths_is_found(monkeypatch: pytest.MonkeyPatch, tally: Any) -> None:
    """The control: without the check of an extent's vectors, the readers differ within a thousand messages."""
    monkeypatch.setattr(extent_wire, "check_vectors", lambda *_: None)
    with pytest.raises(AssertionError):
        run("extent", 1_000, seed=1)
    tally.control("parsers")
