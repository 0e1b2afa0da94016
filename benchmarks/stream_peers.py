"""What many short streams cost without a buffer: the syncs alone that they need, and the same rows in SQLite.

Both make so many streams of the given blocks durable, in three steps each: that the stream exists, its blocks, that it
is complete. `together` streams share the sync of each step, as group commit has it where so many are in flight; 1 is
one stream after another. Both return streams a second.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from hiss.limits import KiB, MiB

_FILE_BYTES = 64 * MiB
_ROW_BYTES = 24 * KiB  # pages of a write-ahead log that one commit of the catalog writes: a row and its indexes


def syncs(blocks: np.ndarray, number: int, together: int, folder: Path) -> float:
    """Three times `pwrite` and `fdatasync`, into files that were written before: the limit that the disk sets."""
    rows, data = bytes(_ROW_BYTES), blocks.tobytes()
    descriptors = [_written(folder / name) for name in ("rows", "blocks")]
    try:
        begin = time.perf_counter()
        at = [0, 0]
        for first in range(0, number, together):
            count = min(together, number - first)
            for which, part in ((0, rows), (1, data), (0, rows)):
                if at[which] + count * len(part) > _FILE_BYTES:
                    at[which] = 0
                os.pwritev(descriptors[which], [part] * count, at[which])
                os.fdatasync(descriptors[which])
                at[which] += count * len(part)
        return number / (time.perf_counter() - begin)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _written(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(descriptor, bytes(_FILE_BYTES), 0)
    os.fsync(descriptor)
    return descriptor


def sqlite_streams(blocks: np.ndarray, number: int, together: int, path: Path) -> float:
    """A table of streams, one of blocks, one of events; write-ahead log, `synchronous=FULL`."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        run = connection.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run("CREATE TABLE stream (name TEXT PRIMARY KEY, final INTEGER)")
        run("CREATE TABLE block (stream TEXT, number INTEGER, data BLOB, PRIMARY KEY (stream, number))")
        run("CREATE TABLE event (seq INTEGER PRIMARY KEY, stream TEXT)")
        begin = time.perf_counter()
        for first in range(0, number, together):
            names = [f"s{k}" for k in range(first, min(first + together, number))]
            rows = [(name, k, block.tobytes()) for name in names for k, block in enumerate(blocks)]
            for statements in (
                [("INSERT INTO stream VALUES (?, 0)", [(name,) for name in names])],
                [("INSERT INTO block VALUES (?, ?, ?)", rows)],
                [
                    ("UPDATE stream SET final = 1 WHERE name = ?", [(name,) for name in names]),
                    ("INSERT INTO event VALUES (NULL, ?)", [(name,) for name in names]),
                ],
            ):
                run("BEGIN")
                for statement, values in statements:
                    connection.executemany(statement, values)
                run("COMMIT")
        return number / (time.perf_counter() - begin)
