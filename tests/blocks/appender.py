"""A process that appends to a storage and prints what was acknowledged durable, until somebody kills it.

Run as `python -m` from the tests' folder, with the directory, a seed, and perhaps `unsynced`: then its syncs do
nothing, as a negative control. Every line is `STREAM INDEX SIZE`, printed
after the acknowledgement; what was not printed may or may not be there.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

import numpy as np

from hiss.blocks import Storage, StorageOptions
from hiss.blocks.files import OS_FILES, OsFiles
from hiss.errors import HissError

from .bench_log import make_extent, stream_info


class UnsyncedFiles(OsFiles):
    """Files that promise what they do not do."""

    def fdatasync(self, fd: int) -> None:
        pass

    def fsync_directory(self, path: Path) -> None:
        pass


def main(directory: Path, seed: int, files: OsFiles = OS_FILES) -> None:
    rng = random.Random(seed)
    storage = Storage(directory, StorageOptions(arena_bytes=8 << 20, segment_bytes=1 << 20), files=files)
    storage.catalog.create_collection("test/run", {}, [])
    streams = storage.catalog.streams("test/run")
    if not streams:
        infos = [stream_info("one"), stream_info("two")]
        streams = storage.catalog.add_streams(infos, new_version=False, attempt=None)
    output = threading.Lock()
    room = threading.Semaphore(8)
    print("ready", flush=True)

    while True:
        info = rng.choice(streams)
        index = storage.index(info.id)
        start = index.next_index + rng.choice((0, 0, 0, 3))
        blocks = [(start + k, rng.choice((10, 5000, 70_000))) for k in range(rng.randint(1, 4))]
        lines = "".join(f"{info.id} {number} {size}\n" for number, size in blocks).encode()

        def acknowledge(error: HissError | None, lines: bytes = lines) -> None:
            assert error is None, error
            with output:
                os.write(1, lines)
            room.release()

        room.acquire()
        assert not index.handled(np.array([number for number, _ in blocks])).any()
        storage.append(info.id, make_extent(info, blocks), acknowledge)
        if rng.random() < 0.02 and len(streams) < 40:
            extra = storage.catalog.add_streams(
                [stream_info(f"x{len(streams)}-{seed}")], new_version=True, attempt=None
            )
            streams += extra


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), UnsyncedFiles() if sys.argv[3:] == ["unsynced"] else OS_FILES)
