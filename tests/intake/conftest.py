"""A small buffer in this process, and one behind a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import hiss
from hiss.client import Buffer
from hiss.limits import MiB
from hiss.testing.processes import DataProcess


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    with hiss.open(tmp_path / "buffer", backend="numpy", segment_bytes=16 * MiB, arena_bytes=16 * MiB) as found:
        yield found


@pytest.fixture
def large_buffer(tmp_path: Path) -> Iterator[Buffer]:
    """For frames of 25 MB."""
    with hiss.open(tmp_path / "large", backend="numpy", segment_bytes=64 * MiB, arena_bytes=128 * MiB) as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DataProcess]:
    (tmp_path / "data").mkdir()
    with DataProcess(tmp_path / "data") as server:
        yield server
