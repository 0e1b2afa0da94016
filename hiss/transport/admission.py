"""Who may use a thread of the server for how long: gates for long calls, patience for slow requests, and stopping.

A long call (append, follow, watch, read) owns a thread while it lasts. `Gate` bounds how many there are, so that the
threads of the short calls stay free. `Patience` cancels calls whose body does not come. `Stops` tells the long calls
that the server goes down. All may be called from any thread.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from hiss.errors import TooManyStreams


class Gate:
    """Admits `limit` calls at once and refuses more.

    Parameters
    ----------
    limit : int
        Calls at once.
    what : str
        Names the calls in the refusal.
    """

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._inside = 0
        self._lock = threading.Lock()

    @property
    def inside(self) -> int:
        """How many are in."""
        return self._inside

    def enter(self, holders: int = 1) -> Callable[[], None]:
        """Take a place, or raise `TooManyStreams`; it is free again after `holders` calls of what is returned."""
        with self._lock:
            if self._inside >= self._limit:
                raise TooManyStreams(
                    f"{self._inside} {self._what} are open, as many as this server admits; close one, or try later",
                    allowed=self._limit,
                )
            self._inside += 1
        left = itertools.count(holders - 1, -1)

        def leave() -> None:
            with self._lock:
                if next(left) == 0:
                    self._inside -= 1

        return leave

    @contextmanager
    def place(self) -> Iterator[None]:
        leave = self.enter()
        try:
            yield
        finally:
            leave()


class Patience:
    """Cancels calls that wait longer than `wait_s` for something that their client owes. Resolution: `tick_s`."""

    def __init__(self, wait_s: float, tick_s: float = 1.0) -> None:
        self._wait_s = wait_s
        self._tick_s = tick_s
        self._waiting: dict[int, tuple[float, grpc.ServicerContext]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hiss patience", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    @contextmanager
    def waiting(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Around the wait of one call."""
        key = id(context)
        with self._lock:
            self._waiting[key] = time.monotonic() + self._wait_s, context
        try:
            yield
        finally:
            with self._lock:
                self._waiting.pop(key, None)

    def _watch(self) -> None:
        while not self._stop.wait(self._tick_s):
            now = time.monotonic()
            with self._lock:
                overdue = [context for deadline, context in self._waiting.values() if now > deadline]
            for context in overdue:
                context.cancel()


class Stops:
    """Tells those who asked, once, that the server goes down."""

    def __init__(self) -> None:
        self._callbacks: set[Callable[[], None]] = set()
        self._lock = threading.Lock()
        self.stopping = False

    @contextmanager
    def told(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback`, which must not block, called when the server stops, or at once if it is stopping."""
        with self._lock:
            self._callbacks.add(callback)
            late = self.stopping
        if late:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.discard(callback)

    def stop(self) -> None:
        with self._lock:
            self.stopping = True
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()
