"""Programs that run a peer, each in the peer's own environment, and the one list of what these environments hold.

`make bench` makes them below `.peers/` (`python -m benchmarks.peers`); one that is absent, or has no wheel for this
machine, is reported as absent by the benchmarks that name it, with the line that installs it.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[2] / ".peers"

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    # mig_meow pins an nbformat that was withdrawn, and imports pkg_resources
    "meow": (
        "mig_meow==0.37", "nbformat==5.1.2", "setuptools<81", "paramiko", "six", "watchdog<5", "meow-base==1.0.5",
    ),
    "wire": ("numpy", "pyarrow", "redis", "nats-py"),
    "pvapy": ("numpy", "pvapy"),
}  # fmt: skip

PROGRAMS = {"redis-server": "apt-get install redis-server", "nats-server": "apt-get install nats-server"}


def interpreter(environment: str) -> Path | None:
    """The Python of a peer's environment; None where it is absent."""
    found = HOME / environment / "bin" / "python"
    return found if found.exists() else None


def install_line(environment: str) -> str:
    """What makes an environment, for whoever reads that it is absent."""
    return f"python -m benchmarks.peers {environment}"


def run_program(environment: str, program: str, *arguments: str, timeout_s: float = 300.0) -> Any:
    """Run a program of this folder in its environment; what it printed last, as JSON."""
    python = interpreter(environment)
    assert python is not None, environment
    path = Path(__file__).with_name(program)
    done = subprocess.run(
        [str(python), "-W", "ignore", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
