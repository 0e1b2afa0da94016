"""Events of streams that are still written: who wishes for them, and which were told. Rows of the catalog.

A *watch* is a wish of a pattern's, a *milestone* how far an open stream was told of: for `stream.progress` the count of
readable blocks, for `stream.stalled` after T seconds the count of handled blocks at which it stood. An event commits
with its milestone, so that it comes once, whatever crashes. Called from any thread; the catalog's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hiss.blocks.catalog_database import CatalogDatabase
from hiss.model import Attrs, Event, StreamInfo, StreamWatch

SCHEMA: Final = (  # made where they lack: a program that is older does without them
    "CREATE TABLE IF NOT EXISTS stream_watch ("
    "trigger TEXT NOT NULL, every INTEGER NOT NULL, stalled_s REAL NOT NULL, PRIMARY KEY (trigger, every, stalled_s))",
    "CREATE TABLE IF NOT EXISTS milestone ("
    "stream TEXT NOT NULL, what TEXT NOT NULL, blocks INTEGER NOT NULL, PRIMARY KEY (stream, what)) WITHOUT ROWID",
)
PROGRESS: Final = "progress"

InsertEvent = Callable[[str, str, str, int, Attrs], Event]


class MilestoneTable:
    """
    Parameters
    ----------
    database : CatalogDatabase
    insert_event : callable
        Kind, collection, stream, version and data of an event, inside of a transaction.
    """

    def __init__(self, database: CatalogDatabase, insert_event: InsertEvent) -> None:
        self._database = database
        self._insert_event = insert_event
        with database.transaction() as writer:
            for statement in SCHEMA:
                writer.execute(statement)
            writer.execute("DELETE FROM milestone WHERE stream NOT IN (SELECT id FROM stream WHERE final_ns = 0)")

    # ---- wishes

    def watches(self) -> list[StreamWatch]:
        rows = self._database.rows("SELECT * FROM stream_watch ORDER BY trigger, every, stalled_s")
        return [StreamWatch(row["trigger"], row["every"], row["stalled_s"]) for row in rows]

    def set_watches(self, watches: Iterable[StreamWatch]) -> None:
        rows = {(watch.trigger, watch.every, watch.stalled_s) for watch in watches}
        with self._database.transaction() as writer:
            writer.execute("DELETE FROM stream_watch")
            writer.executemany("INSERT INTO stream_watch VALUES (?, ?, ?)", sorted(rows))

    # ---- what was told

    def told(self, stream_id: str, what: str = PROGRESS) -> int | None:
        """How many blocks there were when an event was last made; None: no event yet."""
        row = self._database.row("SELECT blocks FROM milestone WHERE stream = ? AND what = ?", stream_id, what)
        return None if row is None else int(row["blocks"])

    def begin_at(self, stream_id: str, blocks: int) -> None:
        """Counts up to here are told, or nobody wished for them."""
        with self._database.transaction():
            self._set(stream_id, PROGRESS, max(blocks, self.told(stream_id) or 0))

    def tell_progress(self, info: StreamInfo, counts: Sequence[tuple[int, int]]) -> int:
        """Make the events of these (count of readable blocks, one past the last index of them), unless they were made.

        Returns how many.
        """
        with self._database.transaction():
            told = self.told(info.id) or 0
            new = [each for each in counts if each[0] > told]
            for blocks, end_index in new:
                data = {"id": info.id, "blocks": blocks, "end_index": end_index}
                self._insert_event("stream.progress", info.collection, info.name, info.version, data)
            if new:
                self._set(info.id, PROGRESS, new[-1][0])
        return len(new)

    def tell_stall(self, info: StreamInfo, after_s: float, handled: int, end_index: int) -> bool:
        """Make the event of a stall, unless it was made: a stall is known by its length and how far the stream was."""
        what = f"stalled {after_s!r}"
        with self._database.transaction():
            if self.told(info.id, what) == handled:
                return False
            data = {"id": info.id, "after_s": after_s, "blocks": handled, "end_index": end_index}
            self._insert_event("stream.stalled", info.collection, info.name, info.version, data)
            self._set(info.id, what, handled)
        return True

    def forget(self, stream_id: str) -> None:
        """The stream is final, or gone."""
        with self._database.transaction() as writer:
            writer.execute("DELETE FROM milestone WHERE stream = ?", (stream_id,))

    def _set(self, stream_id: str, what: str, blocks: int) -> None:
        with self._database.transaction() as writer:
            writer.execute("INSERT OR REPLACE INTO milestone VALUES (?, ?, ?)", (stream_id, what, blocks))
