"""Who may use a thread of the server for how long: gates for long calls, patience for slow requests, and stopping.

A long call (append, follow, watch, read) owns a thread while it lasts. `Gate` bounds how many there are, so that the
threads of the short calls stay free. `Patience` cancels calls whose body does not come. `Stops` tells the long calls
that the server goes down, `Standing` that their token is good no longer. All may be called from any thread.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from hiss.errors import HissError, PermissionRefused, Stopping, TooManyStreams
from hiss.model import Caller


class Gate:
    """Admits `limit` calls at once and refuses more.

    Parameters
    ----------
    limit : int
        Calls at once.
    what : str
        Names the calls in the refusal.
    share : int, optional
        Of them, those of one token that was handed out.
    """

    def __init__(self, limit: int, what: str, share: int | None = None) -> None:
        self._limit = limit
        self._what = what
        self._share = limit if share is None else share
        self._inside = 0
        self._of_tokens: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def inside(self) -> int:
        """How many are in."""
        return self._inside

    def enter(self, caller: Caller | None = None, holders: int = 1) -> Callable[[], None]:
        """Take a place, or raise `TooManyStreams`; it is free again after `holders` calls of what is returned."""
        token = None if caller is None else caller.token
        with self._lock:
            if token is not None and self._of_tokens[token] >= self._share:
                raise TooManyStreams(
                    f"token {token} has {self._share} {self._what} open, as many as one token may; close one",
                    allowed=self._share,
                )
            if self._inside >= self._limit:
                raise TooManyStreams(
                    f"{self._inside} {self._what} are open, as many as this server admits; close one, or try later",
                    allowed=self._limit,
                )
            self._inside += 1
            if token is not None:
                self._of_tokens[token] += 1
        left = itertools.count(holders - 1, -1)

        def leave() -> None:
            with self._lock:
                if next(left) != 0:
                    return
                self._inside -= 1
                if token is not None:
                    self._of_tokens[token] -= 1
                    self._of_tokens += Counter()  # forgets those of which there are none

        return leave

    @contextmanager
    def place(self, caller: Caller | None = None) -> Iterator[None]:
        leave = self.enter(caller)
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


class Standing:
    """Ends long calls whose token was revoked or has run out: at once where `look` is called, else within `tick_s`."""

    def __init__(self, is_valid: Callable[[Caller], bool], tick_s: float = 1.0) -> None:
        self._is_valid = is_valid
        self._tick_s = tick_s
        self._calls: dict[object, tuple[Caller, Callable[[], None]]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._watch, name="hiss standing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Tokens were revoked."""
        self._wake.set()

    def check(self, caller: Caller) -> None:
        """Raises `PermissionRefused` where the caller's token is good no longer."""
        if not self._is_valid(caller):
            raise not_good(caller)

    @contextmanager
    def told(self, caller: Caller, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback`, which must not block, called when the caller's token is good no longer."""
        if caller.token is None:
            yield
            return
        key = object()
        with self._lock:
            self._calls[key] = caller, callback
        self.look()  # it may have been revoked since its token was looked at
        try:
            yield
        finally:
            with self._lock:
                self._calls.pop(key, None)

    @contextmanager
    def ending(self, caller: Caller, stops: Stops) -> Iterator[Ending]:
        """Why a call of the caller's is to end, when that has come."""
        ending = Ending(caller, stops)
        with self.told(caller, ending.revoke):
            yield ending

    def _watch(self) -> None:
        while not self._stop:
            self._wake.wait(self._tick_s)
            self._wake.clear()
            with self._lock:
                calls = list(self._calls.values())
            for caller, callback in calls:
                if not self._is_valid(caller):
                    callback()


class Ending:
    """Of one long call: whether it is to end though its client is there, and with what error."""

    def __init__(self, caller: Caller, stops: Stops) -> None:
        self._caller = caller
        self._stops = stops
        self._revoked = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    @contextmanager
    def told(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback`, which must not block and may come more than once, called when the call is to end."""
        self._callbacks.append(callback)
        with self._stops.told(callback):
            if self._revoked.is_set():
                callback()
            yield

    def revoke(self) -> None:
        self._revoked.set()
        for callback in list(self._callbacks):
            callback()

    def check_token(self) -> None:
        """Raises `PermissionRefused` once the caller's token is good no longer."""
        if self._revoked.is_set():
            raise not_good(self._caller)

    @property
    def error(self) -> HissError | None:
        if self._revoked.is_set():
            return not_good(self._caller)
        if self._stops.stopping:
            return Stopping("the server is shutting down; connect again and go on from the last one")
        return None


def not_good(caller: Caller) -> PermissionRefused:
    return PermissionRefused(f"token {caller.token} was revoked, or has run out", token=str(caller.token))
