"""`python -m benchmarks plot RESULTS.json FIGURE.svg`: what `ingest --json` measured, as a picture for the README.

Throughput of blocks of 8 MiB by each lane and acknowledgement, with the peers of the same run beside them, and the
blocks a second of 4 KiB. Needs matplotlib, `pip install 'hiss[demo]'`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SIZE, SMALL = "8MiB", "4KiB"
ACKS = {"received": "#9ecae1", "written": "#4292c6", "durable": "#08519c"}
_PEER = "#bdbdbd"
_LANES = ("embedded", "shm", "shm:trusted", "unix", "tcp", "tls", "grpc")


def plot(results: Path, figure: Path) -> None:
    """Draw the results of one run of `ingest`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    document = json.loads(results.read_text())
    found = {each["case"]: each for each in document["results"]}
    sides = [(SIZE, "GB/s", 1.0), (SMALL, "1000 blocks/s", 1e-3)]
    drawn, axes = plt.subplots(1, 2, figsize=(10, 5.6), layout="constrained")
    for axis, (size, unit, scale) in zip(axes, sides, strict=True):
        _draw(axis, found, size, scale)
        axis.set_xlabel(unit)
        axis.set_title(
            f"One producer, blocks of {size.removesuffix('KiB').removesuffix('MiB')} {size[-3:]}", fontsize=11
        )
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#e5e5e5", linewidth=0.8)
        axis.set_axisbelow(True)
    machine = document["machine"]
    levels = [Patch(color=colour, label=ack) for ack, colour in ACKS.items()]
    axes[0].legend(handles=levels, loc="lower right", frameon=False, fontsize=9)
    drawn.supxlabel(
        f"{machine['cpu']}, {machine['cores']} cores; medians, and from the least to the most",
        fontsize=8,
        color="#666666",
    )
    figure.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(figure)
    plt.close(drawn)


def _draw(axis: Any, found: dict[str, Any], size: str, scale: float) -> None:
    lanes = [lane for lane in _LANES if f"ingest/{lane}/received/{size}" in found]
    peers: dict[str, float] = {}
    for lane in lanes:
        for name, peer in found[f"ingest/{lane}/received/{size}"]["peers"].items():
            if peer.get("value") is not None and name != "copy":
                kind = {"unix": "Unix", "shm": "Unix", "tls": "TLS"}.get(lane.partition(":")[0], "TCP")
                label = f"{name} ({kind})" if name == "bare-socket" else name
                peers.setdefault(label, peer["value"] * scale)
    place = 0.0
    ticks: list[tuple[float, str]] = []
    for lane in lanes:
        for ack, colour in ACKS.items():
            case = found.get(f"ingest/{lane}/{ack}/{size}")
            if case is not None:
                value = case["value"] * scale
                error = [[value - case["min"] * scale], [case["max"] * scale - value]]
                axis.barh(place, value, 0.9, color=colour, xerr=error, ecolor="#555555", capsize=2)
            place -= 1
        ticks.append((place + 2, f"hiss {lane}"))
        place -= 0.7
    for name, value in sorted(peers.items(), key=lambda peer: -peer[1]):
        axis.barh(place, value, 0.9, color=_PEER)
        ticks.append((place, name))
        place -= 1.2
    axis.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=9)
