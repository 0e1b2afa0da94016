"""Calls to a buffer that may be away for a while: tried again, with growing pauses, until they succeed or the engine
stops."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from hiss import limits
from hiss.errors import DeadlineExceeded, Stopping, TooManyStreams, Unavailable

T = TypeVar("T")

log: Final = logging.getLogger("hiss.meow")

PASSING: Final = (Unavailable, DeadlineExceeded, TooManyStreams, sqlite3.OperationalError)
"""What may be over at the next try: no buffer, an overloaded one, no space for `jobs.db`."""


class Pauses:
    """Growing pauses between tries, cut short when the engine stops."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._next_s = limits.STORE_RETRY_FIRST_S

    def reset(self) -> None:
        self._next_s = limits.STORE_RETRY_FIRST_S

    def wait(self) -> None:
        self._stop.wait(self._next_s)
        self._next_s = min(2 * self._next_s, limits.STORE_RETRY_MOST_S)


def until_done(call: Callable[[], T], what: str, stop: threading.Event) -> T:
    """The result of `call`, tried again while what it raises is `PASSING`. Raises `Stopping` once `stop` is set."""
    pauses = Pauses(stop)
    while True:
        try:
            return call()
        except PASSING as error:
            if stop.is_set():
                raise Stopping(
                    f"{what}: given up because the rule engine stops; it is taken up at its next start"
                ) from error
            log.warning("%s: %s; trying again", what, error)
            pauses.wait()
