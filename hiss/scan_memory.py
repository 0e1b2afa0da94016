"""What the scans of an open stream remember, kept on disk so that a restart continues them.

    DIR/scans/STREAM/FRONTIER.memory    after the block of that index: 64 bits of digest, then the states as `.npy`

A file is durable before the results that go with it are written to the log. So after a crash the log never knows of a
block whose memory is missing, and the file that belongs to its last block is the one to continue from; later ones
belong to blocks that did not get that far and will be sent again. Used by the stream's own thread, and while it has
none by whoever opens its session.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.blocks.files import OS_FILES
from hiss.errors import SpaceExhausted
from hiss.kernels import Memory
from hiss.model import digest_of

FOLDER: Final = "scans"
_SUFFIX: Final = ".memory"
_DIGEST_BYTES: Final = 8


class ScanMemory:
    """The snapshots of one stream.

    Parameters
    ----------
    data_directory : Path
    stream_id : str
    sync : callable
        Makes durable what was written to the log so far.
    """

    def __init__(self, data_directory: Path, stream_id: str, sync: Callable[[], None]) -> None:
        self._folder = data_directory / FOLDER / stream_id
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        OS_FILES.fsync_directory(self._folder.parent)
        OS_FILES.fsync_directory(data_directory)
        for leftover in self._folder.glob("*.new"):  # of a write that a crash cut
            leftover.unlink()
        self._frontiers = sorted(int(path.stem) for path in self._folder.glob(f"*{_SUFFIX}"))
        self._sync = sync

    def keep(self, memory: Memory) -> None:
        """Write a snapshot; durable on return. The results of all earlier ones are in the log by now.

        Raises
        ------
        SpaceExhausted
            It cannot be written.
        """
        assert memory.frontier is not None
        if len(self._frontiers) >= limits.SCAN_SNAPSHOTS_MAX:
            self._sync()  # so that the last of them is all that a restart may need
            self._drop(self._frontiers[:-1])
        body = _packed(memory)
        path = self._path(memory.frontier)
        new = path.with_suffix(".new")
        try:
            with open(new, "xb") as file:
                file.write(digest_of(body).to_bytes(_DIGEST_BYTES, "little"))
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
            OS_FILES.fsync_directory(self._folder)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise SpaceExhausted(f"{path}: what the scans remember cannot be written: {error}") from error
        self._frontiers.append(memory.frontier)

    def after(self, frontier: int | None) -> Memory | None:
        """What was remembered after the block of that index; None where it is not there, or damaged.

        Later snapshots are dropped: their blocks will come again.
        """
        later = [one for one in self._frontiers if frontier is None or one > frontier]
        self._drop(later)
        if frontier not in self._frontiers:
            return None
        return _unpacked(self._path(frontier).read_bytes(), frontier)

    def _path(self, frontier: int) -> Path:
        return self._folder / f"{frontier:020d}{_SUFFIX}"

    def _drop(self, frontiers: list[int]) -> None:
        for frontier in list(frontiers):
            self._path(frontier).unlink(missing_ok=True)
            self._frontiers.remove(frontier)


def forget(data_directory: Path, stream_id: str) -> None:
    """Drop the snapshots of a stream that is final or gone."""
    shutil.rmtree(data_directory / FOLDER / stream_id, ignore_errors=True)


def _packed(memory: Memory) -> bytes:
    buffer = io.BytesIO()
    for states in memory.states:
        arrays: list[npt.NDArray[Any]] = [np.array(-1 if states is None else len(states)), *(states or ())]
        for array in arrays:
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def _unpacked(data: bytes, frontier: int) -> Memory | None:
    body = data[_DIGEST_BYTES:]
    if len(data) < _DIGEST_BYTES or digest_of(body) != int.from_bytes(data[:_DIGEST_BYTES], "little"):
        return None
    buffer, states = io.BytesIO(body), list[tuple[npt.NDArray[Any], ...] | None]()
    while buffer.tell() < len(body):
        count = int(np.lib.format.read_array(buffer, allow_pickle=False))
        parts = tuple(np.lib.format.read_array(buffer, allow_pickle=False) for _ in range(count))
        states.append(None if count < 0 else parts)
    return Memory(frontier, tuple(states))
