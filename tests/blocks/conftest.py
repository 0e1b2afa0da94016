"""A small storage in a fresh directory, and streams in it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hiss.blocks import Storage, StorageOptions
from hiss.model import StreamInfo

from .bench_log import stream_info
from .victims import Victims

OPTIONS = StorageOptions(arena_bytes=8 << 20, segment_bytes=1 << 20)


class Opened:
    """A directory that is opened, closed and opened again."""

    def __init__(self, directory: Path, options: StorageOptions = OPTIONS) -> None:
        self.directory = directory
        self.options = options
        self.storage = Storage(directory, options)
        self.storage.catalog.create_collection("test/run", {}, [])

    def again(self) -> Storage:
        self.storage.close()
        self.storage = Storage(self.directory, self.options)
        return self.storage

    def stream(self, name: str = "s", **options: object) -> StreamInfo:
        made = self.storage.catalog.add_streams(
            [stream_info(name)], **{"new_version": False, "attempt": None} | options
        )
        return made[0]


@pytest.fixture
def memory_dir(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: for what need not survive the machine."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="hiss-test-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def victims() -> Iterator[Victims]:
    """Processes to be killed."""
    made = Victims()
    yield made
    made.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    it = Opened(tmp_path / "buffer")
    yield it
    it.storage.close()


@pytest.fixture
def make_stream(opened: Opened) -> Callable[..., StreamInfo]:
    return opened.stream
