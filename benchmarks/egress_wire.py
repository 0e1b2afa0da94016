"""Blocks out again from a server: the served part of `egress`.

Workload: random bytes (they do not compress) in one stream, as many as the arena keeps, read by a consumer in a process
of its own, every block's digest compared on the way: through shared memory, and over gRPC, by which all other lanes
read.

Peers, whose consumers and servers are processes of their own too: `bare-socket`, `flight` (DoGet) and `grpc-bytes` send
from memory what is asked for, `redis-set` is GET of blocks in memory, over a Unix socket; nobody compares digests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import disk_peers
from benchmarks.measure import Case, Run, measure_together
from benchmarks.peers import pacing
from benchmarks.wire_peers import our_crew, peers
from hiss.limits import KiB, MiB
from hiss.testing.processes import DataProcess

WAYS = ("shm", "grpc")
SIZES = {"64KiB": 64 * KiB, "1MiB": MiB, "8MiB": 8 * MiB}


def run(
    quick: bool,
    directory: Path,
    arena_bytes: int,
) -> Iterator[dict[str, Any]]:
    """Sizes that the arena has no room for are left out."""
    rounds = 2 if quick else 5
    (directory / "served").mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(DataProcess(directory / "served", arena_bytes=arena_bytes))
        found, absent = stack.enter_context(peers(directory, consume=True))
        theirs = {name: stack.enter_context(peer.crew()) for name, peer in found.items()}
        ours = {way: stack.enter_context(our_crew(server, way, role="consumer")) for way in WAYS}
        for name, size in SIZES.items():
            if size > arena_bytes // 8:
                continue
            count = max(1, arena_bytes // 4 // size)  # a quarter of it at least stays for readers
            path = _store(server, name, size, count)
            runs: dict[str, Run] = {peer: partial(crew.run, size=size, count=count) for peer, crew in theirs.items()}
            block = np.ones((max(1, 16 * MiB // size), size), np.uint8)
            runs["copy"] = partial(disk_peers.copy, block, max(1, count * size // block.nbytes))
            cases = [
                Case(f"egress/{way}/arena/{name}", "throughput", "GB/s", partial(crew.run, path=path), runs, absent)
                for way, crew in ours.items()
            ]
            yield from measure_together(cases, rounds)


def _store(server: DataProcess, name: str, size: int, count: int) -> str:
    with (
        server.connect() as buffer,
        buffer.collection("bench").create_stream(name, dtype="u1", shape=(size,)) as stream,
    ):
        for block in pacing.blocks(size, count):
            stream.append(block)
    return f"bench/{name}"
