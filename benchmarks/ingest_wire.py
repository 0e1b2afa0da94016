"""Blocks in by each lane of a server, beside the peers: the served part of `ingest`.

Workload: random bytes made once (they do not compress), a stream for each run, deleted afterwards; the clock runs from
the first `append` to the last acknowledgement. Every producer is a process of its own, ours and the peers', and so is
every server. The log is written through before the first figure. All cases and peers of one size take turns.

Peers: `bare-socket` throws the bytes away; it is TCP, TLS beside the TLS lane, and a Unix socket beside that and shared
memory. `flight` is Arrow Flight's DoPut into a server that keeps nothing, `redis-set` and `redis-xadd` keep the newest
blocks in memory and are reached by a Unix socket, `nats` is JetStream with file storage, `pvapy` a pvAccess monitor of
which what arrived counts, `grpc-bytes` a stream of protobuf messages with a field of bytes, thrown away. `copy` is
numpy.copyto on warm pages. `8MiB-lent` appends with `copy=False`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import disk_peers
from benchmarks.measure import Case, Run, measure_together
from benchmarks.wire_peers import Crew, Peer, beside, our_crew, peers
from hiss.limits import KiB, MiB
from hiss.testing.processes import DataProcess

ACKS = ("received", "written", "durable")
SIZES = {"4KiB": 4 * KiB, "64KiB": 64 * KiB, "1MiB": MiB, "8MiB": 8 * MiB, "64MiB": 64 * MiB}
PRODUCERS = (2, 4, 8)
_BESIDE_MANY = ("bare-socket", "flight", "redis-set", "grpc-bytes")  # eight processes each
_SLOW = {"nats": 4, "pvapy": 2}  # so many times fewer bytes


def run(
    quick: bool,
    servers: Mapping[str, DataProcess],
    directory: Path,
    *,
    sizes: Sequence[str] | None = None,
    producers: Sequence[int] | None = None,
    run_bytes: int | None = None,
) -> Iterator[dict[str, Any]]:
    """By each lane to its server; the last three are for tests."""
    sizes = sizes or (("4KiB", "1MiB", "8MiB") if quick else tuple(SIZES))
    producers = (2,) if producers is None and quick else PRODUCERS if producers is None else producers
    run_bytes = run_bytes or (64 if quick else 512) * MiB
    rounds = 2 if quick else 5
    with peers(directory) as (found, absent):
        with ExitStack() as stack:
            ours = {lane: stack.enter_context(our_crew(server, lane)) for lane, server in servers.items()}
            crews = {name: stack.enter_context(peer.crew()) for name, peer in found.items()}
            for name in sizes:
                group = _of_one_size(name, ours, crews, found, absent, run_bytes)
                yield from measure_together(group, rounds)
        for number in producers:
            with ExitStack() as stack:
                ours = {lane: stack.enter_context(our_crew(server, lane, number)) for lane, server in servers.items()}
                some = {name: peer for name, peer in found.items() if name.startswith(_BESIDE_MANY)}
                crews = {name: stack.enter_context(peer.crew(number)) for name, peer in some.items()}
                group = _of_many(number, ours, crews, run_bytes)
                yield from measure_together(group, min(rounds, 3))


def _of_one_size(
    name: str,
    ours: dict[str, Crew],
    crews: dict[str, Crew],
    found: dict[str, Peer],
    absent: dict[str, str],
    run_bytes: int,
) -> list[Case]:
    size = SIZES[name]
    count = max(4, min(run_bytes // size, 20_000))
    small = size < 64 * KiB
    unit = partial(_blocks_a_second, size) if small else _same
    theirs: dict[str, Run] = {
        peer: unit(
            partial(crew.run, size=size, count=max(4, count // _SLOW.get(peer, 1)), pool=min(run_bytes, 64 * MiB))
        )
        for peer, crew in crews.items()
        if size <= (found[peer].bytes_max or size)
    }
    frames = np.ones((max(1, 64 * MiB // size), size), np.uint8)
    theirs["copy"] = unit(partial(disk_peers.copy, frames, max(1, run_bytes // (64 * MiB))))
    metric = ("rate", "blocks/s") if small else ("throughput", "GB/s")
    cases = []
    for lane, crew in ours.items():
        for how, ack in _ways(small):
            pool = min(run_bytes, 64 * MiB)
            work = unit(partial(crew.run, size=size, count=count, pool=pool, ack=ack, how=how))
            title = f"ingest/{lane}/{ack}/{name}" + ("" if how == "append" else f"-{how}")
            cases.append(Case(title, *metric, work, beside(lane, theirs), absent))
    return cases


def _ways(small: bool) -> list[tuple[str, str]]:
    """How blocks are appended, and what is waited for."""
    found = [("append", ack) for ack in ACKS]
    return found + ([("extend", ack) for ack in ACKS] if small else [("lent", "received")])


def _of_many(number: int, ours: dict[str, Crew], crews: dict[str, Crew], run_bytes: int) -> list[Case]:
    task: dict[str, Any] = {"size": 8 * MiB, "count": max(2, run_bytes // (8 * MiB) // number), "pool": 16 * MiB}
    theirs: dict[str, Run] = {peer: partial(crew.run, **task) for peer, crew in crews.items()}
    return [
        Case(
            f"ingest/{lane}/received/8MiB/{number}-producers",
            "throughput",
            "GB/s",
            partial(crew.run, **task, ack="received", how="append"),
            beside(lane, theirs),
        )
        for lane, crew in ours.items()
    ]


def _same(run: Run) -> Run:
    return run


def _blocks_a_second(size: int, run: Callable[[], float]) -> Run:
    return lambda: run() * 1e9 / size
