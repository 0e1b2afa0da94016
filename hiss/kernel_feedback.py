"""What a kernel tells the producer of its stream: counts, each time that so many blocks have reached it.

Counts are per extent, so that a message costs nothing per block; one covers at least as many blocks as were asked for,
and more where an extent brings more. Called by the thread that runs the kernel, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class KernelFeedback:
    """The messages of one kernel on one stream.

    Parameters
    ----------
    kernel : str
        Its name.
    every : int
        Blocks; at least 1.
    send : callable
        Takes a message; must not block. What comes while no producer is connected is lost, as all feedback is.
    shadow : bool
        It runs beside the stream: what it would have done.
    """

    def __init__(self, kernel: str, every: int, send: Callable[[Any], object], *, shadow: bool = False) -> None:
        self._said = {"kernel": kernel} | ({"shadow": True} if shadow else {})
        self._every = every
        self._send = send
        self._counts = dict.fromkeys(("blocks", "vetoed", "failed"), 0)

    def __call__(self, **counts: int) -> None:
        """Add one extent."""
        for name in self._counts:
            self._counts[name] += counts.get(name, 0)
        blocks = self._counts["blocks"]
        if blocks < self._every:
            return
        self._send({**self._said, **self._counts, "veto_rate": self._counts["vetoed"] / blocks})
        self._counts = dict.fromkeys(self._counts, 0)
