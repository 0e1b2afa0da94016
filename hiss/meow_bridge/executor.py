"""Where attempts run, as a Protocol: start one, learn how it ended, stop it, and how much may run at once.

Two implementations: `local_executor`, processes of this machine, and `dask_executor`, workers of a Dask cluster. Both
pass the same suite (`tests/meow/test_executors.py`). The dispatcher holds one `RunningAttempt` in one thread and waits
there; `stop` and `capacity` are called from any thread. An executor knows nothing of the buffer: what an attempt that
was given up still does is refused there, by its attempt's id.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class EndKind(enum.Enum):
    WELL = "ended well"
    FAILED = "failed"
    STOPPED = "was stopped"
    LOST = "was lost"  # with what ran it, by no fault of its own as far as anybody knows


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    kind: EndKind
    error: str = ""
    output: str = ""  # the end of what was printed


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the attempts that run at the same time may take together."""

    cores: int
    memory_bytes: int
    may_grow: bool = False  # a job that needs more waits; else it fails


@dataclass(frozen=True, slots=True)
class Room:
    """What is free of all there is, and what an attempt gets of memory whose recipe does not say how much it needs."""

    free: Capacity
    whole: Capacity
    default_bytes: int


@dataclass(frozen=True, slots=True)
class Order:
    """One attempt, as an executor gets it. JSON values only: it may travel."""

    id: str
    specification: Mapping[str, Any]  # what `hiss.job_process` runs
    environment: Mapping[str, str]  # how its process reaches the buffer
    timeout_s: float
    cores: int
    memory_bytes: int


class RunningAttempt(Protocol):
    def wait(self) -> AttemptEnd:
        """Until it has ended; nothing of it runs any more, as far as the executor can reach it. Called once."""
        ...

    def stop(self) -> None:
        """End it with all its processes. Does nothing once it has ended."""
        ...


class Executor(Protocol):
    def capacity(self) -> Capacity:
        """What there is at this moment, in use or not."""
        ...

    def begin(self, order: Order) -> RunningAttempt:
        """Start an attempt. Raises `HissError` or `OSError` where that cannot be."""
        ...

    def close(self) -> None:
        """End everything. More than once is fine."""
        ...
