"""What the buffer is to watch open streams for, told to it whenever the rules change: `stream.progress` and
`stream.stalled` are made by the buffer, as patterns ask for them.

The buffer keeps what it was told, over restarts too; while it is away a thread tries again. `rules_changed` may be
called from any thread, outside of a transaction; it has told the buffer when it returns, if the buffer is there.
"""

from __future__ import annotations

import threading

from hiss.meow_bridge.matching import wished_watches
from hiss.meow_bridge.retry import PASSING, Pauses, log
from hiss.meow_bridge.rules import RuleBook
from hiss.model import StreamWatch
from hiss.store import Store


class StreamWatches:
    """Its thread runs from `start()` until `stop`, which its owner sets; `join()` waits for it."""

    def __init__(self, rules: RuleBook, store: Store, stop: threading.Event) -> None:
        self._rules = rules
        self._store = store
        self._stop = stop
        self._lock = threading.Lock()  # one teller at a time, so that the newest wishes are told last
        self._told: list[StreamWatch] | None = None  # None: unknown, as after a start
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hiss-meow-watches", daemon=True)

    def start(self) -> None:
        self._wanted.set()
        self._thread.start()

    def join(self) -> None:
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def rules_changed(self) -> None:
        """There may be other wishes: tell the buffer, or have it told as soon as it is there."""
        try:
            self._tell()
        except PASSING as error:
            log.warning("watching open streams: %s; the buffer is told when it is back", error)
            self._wanted.set()

    def _tell(self) -> None:
        with self._lock:
            watches = wished_watches(self._rules.active_patterns())
            if watches != self._told:
                self._store.watch_streams(watches)
                self._told = watches

    def _run(self) -> None:
        pauses = Pauses(self._stop)
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._stop.is_set():
                return
            try:
                self._tell()
                pauses.reset()
            except Exception as error:
                if not isinstance(error, PASSING):
                    log.exception("watching open streams: trying again")
                self._wanted.set()
                pauses.wait()
