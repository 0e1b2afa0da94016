"""The command line as its users meet it: arguments in; status, standard output and standard error out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hiss import client
from hiss.cli.main import root
from hiss.limits import MiB


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Hiss = Callable[..., Said]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and nothing of the machine's own settings."""
    for name in ("HISS_ADDRESS", "HISS_TOKEN", "HISS_DATA", "HISS_TLS_CA", "HISS_TLS_CERT", "HISS_TLS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def hiss(outside: Path, monkeypatch: pytest.MonkeyPatch) -> Hiss:
    """Run a command; one that talks to a buffer is given a data directory of this test, opened in this process."""
    small = {"segment_bytes": 16 * MiB, "arena_bytes": 16 * MiB}  # made anew for every command of every test
    for name, count in small.items():
        monkeypatch.setitem(client.open.__kwdefaults__, name, count)
    data = outside.parent / "data"
    data.mkdir()

    def run(*words: str, embedded: bool = True, **options: Any) -> Said:
        words = (*words, "--data", str(data)) if embedded else words
        result = CliRunner().invoke(root, list(words), **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr, result.stdout_bytes)

    return run
