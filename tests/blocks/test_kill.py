"""kill -9 of a process that appends: everything that it had printed as acknowledged is there, byte for byte, and it
goes on.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hiss.blocks import Storage

from .bench_log import block_bytes
from .conftest import OPTIONS

TESTS = Path(__file__).parents[1]


def run_and_kill(directory: Path, seed: int, after: int) -> list[tuple[str, int, int]]:
    """Append until `after` blocks were acknowledged, kill; all acknowledgements that were printed."""
    command = [sys.executable, "-m", "blocks.appender", str(directory), str(seed)]
    process = subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        lines = [process.stdout.readline() for _ in range(after + 1)]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        errors = process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    assert lines[0] == b"ready\n", errors.decode()
    words = [line.decode().split() for line in lines[1:] if line.endswith(b"\n")]
    assert len(words) >= after, errors.decode()
    return [(stream, int(index), int(size)) for stream, index, size in words]


def rounds(directory: Path, seed: int, count: int) -> None:
    rng = random.Random(seed)
    acknowledged: dict[tuple[str, int], int] = {}
    for round_ in range(count):
        found = run_and_kill(directory, seed * 1000 + round_, rng.randint(1, 120))
        for stream, index, size in found:
            assert (stream, index) not in acknowledged, "acknowledged twice: the index forgot it"
            acknowledged[stream, index] = size
        storage = Storage(directory, OPTIONS)
        try:
            assert not storage.recovery.damages
            for stream in {stream for stream, _ in acknowledged}:
                there = {
                    int(index): bytes(extent.data[start:stop])
                    for extent in storage.read(stream)
                    for index, start, stop in zip(extent.index, extent.offsets[:-1], extent.offsets[1:], strict=True)
                }
                for (owner, index), size in acknowledged.items():
                    if owner == stream:
                        assert there[index] == block_bytes(stream, index, size)
        finally:
            storage.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_loses_nothing_acknowledged(tmp_path, seed):
    rounds(tmp_path / "buffer", seed, 4)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_killed_process_at_length(tmp_path, seed):
    rounds(tmp_path / "buffer", seed, 10)
