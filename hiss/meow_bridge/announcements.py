"""Events that the rule engine has the buffer publish: `job.failed`, `chain.looping`.

They are put down in `jobs.db` in the transaction that makes them true, and published by a thread of their own, in that
order, each as the commit of an attempt that wrote nothing: repeated after a crash it changes nothing. Callable from
any thread.
"""

from __future__ import annotations

import json
import threading
from typing import Final

from hiss.errors import Stopping
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.identity import canonical_json
from hiss.meow_bridge.retry import Pauses, log, until_done
from hiss.model import Attrs
from hiss.store import Store

_PAGE: Final = 100


class Announcements:
    """Its thread runs from `start()` until `stop`, which its owner sets; `join()` waits for it."""

    def __init__(self, database: Database, store: Store, stop: threading.Event) -> None:
        self._database = database
        self._store = store
        self._stop = stop
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._publish_all, name="hiss-meow-announce", daemon=True)

    def start(self) -> None:
        self._wanted.set()
        self._thread.start()

    def join(self) -> None:
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, id: str, kind: str, data: Attrs) -> None:
        """Inside of a transaction: an event to be published when it has committed. One `id`, one event, ever."""
        self._database.execute(
            "INSERT OR IGNORE INTO announcements(id, kind, data) VALUES (?,?,?)", id, kind, canonical_json(data)
        )
        self._database.after_commit(self._wanted.set)

    def _publish_all(self) -> None:
        """Thread: publish what is there, then wait for more."""
        pauses = Pauses(self._stop)
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                while not self._stop.is_set() and self.publish_some():
                    pass
                pauses.reset()
            except Stopping:
                pass
            except Exception:
                log.exception("events of the rule engine: publishing them failed; trying again")
                self._wanted.set()
                pauses.wait()
            if self._stop.is_set():
                return

    def publish_some(self) -> bool:
        """Publish the oldest, in the calling thread; whether there were any."""
        with self._database.transaction():
            rows = self._database.rows("SELECT * FROM announcements ORDER BY seq LIMIT ?", _PAGE)
        for row in rows:
            until_done(
                lambda row=row: self._store.commit_attempt(row["id"], row["kind"], json.loads(row["data"])),  # type: ignore[misc]
                f"event {row['kind']}",
                self._stop,
            )
            with self._database.transaction():
                self._database.execute("DELETE FROM announcements WHERE seq = ?", row["seq"])
        return bool(rows)
