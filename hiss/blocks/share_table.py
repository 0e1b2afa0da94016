"""How far consumer groups are with streams: rows of the catalog. A row is a group, with the ranges that it has done.

Written in batches by one thread (`hiss.shares`), read by any; the catalog's lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from hiss.blocks.catalog_database import CatalogDatabase
from hiss.errors import CatalogDamaged

SCHEMA: Final = (  # made where it lacks: a program that is older does without it
    "CREATE TABLE IF NOT EXISTS consumer_group ("
    "stream TEXT NOT NULL, name TEXT NOT NULL, done TEXT NOT NULL, PRIMARY KEY (stream, name)) WITHOUT ROWID"
)

Ranges = Iterable[tuple[int, int]]


class ShareTable:
    """
    Parameters
    ----------
    database : CatalogDatabase
    """

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database
        with database.transaction() as writer:
            writer.execute(SCHEMA)
            writer.execute("DELETE FROM consumer_group WHERE stream NOT IN (SELECT id FROM stream)")

    def names(self, stream_id: str) -> list[str]:
        rows = self._database.rows("SELECT name FROM consumer_group WHERE stream = ? ORDER BY name", stream_id)
        return [row["name"] for row in rows]

    def done(self, stream_id: str, name: str) -> list[tuple[int, int]] | None:
        """What a group has done; None where there is no such group."""
        row = self._database.row("SELECT done FROM consumer_group WHERE stream = ? AND name = ?", stream_id, name)
        if row is None:
            return None
        try:
            return [(int(first), int(last)) for first, last in json.loads(row["done"])]
        except (ValueError, TypeError) as error:
            raise CatalogDamaged(
                f"consumer group {name!r} of stream {stream_id}: its row in the catalog cannot be read: {error}; "
                "delete the group, and its consumers start anew"
            ) from error

    def put(self, groups: Iterable[tuple[str, str, Ranges]]) -> None:
        """Write stream, name and what is done of some groups in one transaction, as far as their streams are there."""
        with self._database.transaction() as writer:
            writer.executemany(
                "INSERT OR REPLACE INTO consumer_group SELECT ?1, ?2, ?3 "
                "WHERE EXISTS (SELECT 1 FROM stream WHERE id = ?1)",
                [(stream, name, json.dumps(list(done), separators=(",", ":"))) for stream, name, done in groups],
            )

    def delete(self, stream_id: str, name: str | None = None) -> None:
        """Forget a group, or all of a stream."""
        with self._database.transaction() as writer:
            if name is None:
                writer.execute("DELETE FROM consumer_group WHERE stream = ?", (stream_id,))
            else:
                writer.execute("DELETE FROM consumer_group WHERE stream = ? AND name = ?", (stream_id, name))
