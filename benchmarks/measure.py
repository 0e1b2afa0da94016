"""How a figure is measured: ours and its peers in turn, several rounds, median and spread, the ratio to each peer.

A `Case` is a name, a metric, and callables that do the work once and return the value. Rounds alternate between ours
and the peers, so that a busy minute hits all of them. A peer that cannot run here says why (`absent`), and is
reported so.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Run = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """One figure. `run` and each peer do the work once and return it in `unit`."""

    name: str
    metric: str
    unit: str
    run: Run
    peers: Mapping[str, Run] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)  # peer -> the line that installs it
    less_is_better: bool = False


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Run a case; an entry of `results` in the JSON format."""
    return measure_together([case], rounds)[0]


def measure_together(cases: Sequence[Case], rounds: int) -> list[dict[str, Any]]:
    """Run several cases in turn, round by round; a peer that several of them name is run once a round for all."""
    values: dict[Run, list[float]] = {run: [] for case in cases for run in (case.run, *case.peers.values())}
    for _ in range(rounds):
        for run, found in values.items():
            found.append(run())
    return [_entry(case, values) for case in cases]


def _entry(case: Case, values: Mapping[Run, list[float]]) -> dict[str, Any]:
    ours = values[case.run]
    value = statistics.median(ours)
    peers: dict[str, Any] = {}
    for name, run in case.peers.items():
        other = statistics.median(values[run])
        peers[name] = {"value": other, "ratio": other / value if case.less_is_better else value / other}
    for name, line in case.absent.items():
        peers[name] = {"absent": line}
    return {
        "case": case.name,
        "metric": case.metric,
        "unit": case.unit,
        "value": value,
        "min": min(ours),
        "max": max(ours),
        "rounds": len(ours),
        "peers": peers,
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return {
        "cpu": models[0] if models else model,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def line(result: Mapping[str, Any]) -> str:
    """A result for people."""
    spread = f"{result['min']:.3g} to {result['max']:.3g}"
    peers = [_peer(name, peer) for name, peer in result["peers"].items()]
    return f"{result['case']:44} {result['value']:8.3g} {result['unit']:9} [{spread}]  {'; '.join(peers)}"


def _peer(name: str, peer: Mapping[str, Any]) -> str:
    if peer.get("value") is None:
        return f"{name} absent: {peer['absent']}"
    return f"{name} {peer['value']:.3g} (x{peer['ratio']:.2f})"
