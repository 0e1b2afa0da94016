"""Kernels that are attached to collections, for the streams that are created there. Rows of the catalog.

The same rules as in `catalog`: every change is one durable transaction, and its events commit with it. A stream copies
what it gets into its own record, so nothing here is ever asked about a stream that exists. Called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from hiss import limits
from hiss.blocks import catalog_rows as rows
from hiss.blocks.catalog_database import CatalogDatabase
from hiss.errors import KernelNotFound, LimitExceeded
from hiss.model import Attachment, Attrs, Event


class AttachmentTable:
    """Part of a `Catalog`, which makes it.

    Parameters
    ----------
    database : CatalogDatabase
    insert_event : callable
        `(kind, collection, stream, version, data)`, within a transaction.
    events : callable
        Around a transaction that may add events.
    check_open : callable
        Raises unless the collection is there and takes streams.
    """

    def __init__(
        self,
        database: CatalogDatabase,
        insert_event: Callable[[str, str, str, int, Attrs], Event],
        events: Callable[[], AbstractContextManager[None]],
        check_open: Callable[[str], None],
    ) -> None:
        self._database = database
        self._insert_event = insert_event
        self._events = events
        self._check_open = check_open
        # collections that may have some: most have none, and are asked about for each of their streams
        self._some = {row["collection"] for row in database.rows("SELECT DISTINCT collection FROM attachment")}

    def of(self, collection: str) -> tuple[Attachment, ...]:
        """What is attached to one collection, in the order in which a stream runs it."""
        if collection not in self._some:
            return ()
        found = self._database.rows("SELECT * FROM attachment WHERE collection = ? ORDER BY ordinal", collection)
        return tuple(map(rows.attachment, found))

    def attach(self, collection: str, attachment: Attachment) -> None:
        """Attach a kernel; one of the same name and glob gives its place up to it.

        Raises
        ------
        CollectionNotFound, CollectionSealed
        LimitExceeded
            There are `limits.ATTACHMENTS_MAX` in this collection.
        """
        with self._events(), self._database.transaction() as writer:
            self._check_open(collection)
            self._some.add(collection)
            stage, streams = attachment.stage, attachment.streams
            others = [one for one in self.of(collection) if (one.streams, one.stage.name) != (streams, stage.name)]
            if len(others) >= limits.ATTACHMENTS_MAX:
                raise LimitExceeded(
                    f"collection {collection} has {len(others)} kernels attached, allowed are "
                    f"{limits.ATTACHMENTS_MAX}; detach some",
                    limit="ATTACHMENTS_MAX",
                )
            writer.execute(
                "INSERT INTO attachment VALUES (NULL, ?, ?, ?, ?, ?, ?) ON CONFLICT (collection, streams, kernel) "
                "DO UPDATE SET shadow = excluded.shadow, attached_ns = excluded.attached_ns, stage = excluded.stage",
                (
                    *(collection, streams, stage.name, attachment.shadow, attachment.attached_ns),
                    rows.stage_document(stage),
                ),
            )
            data = {"kernel": stage.name, "hash": stage.hash, "streams": streams, "shadow": attachment.shadow}
            self._insert_event("kernel.attached", collection, "", 0, data)

    def detach(self, collection: str, kernel: str, streams: str | None) -> None:
        """Forget a kernel of one glob, or with None of all. Raises `KernelNotFound` where there is none such."""
        with self._events(), self._database.transaction() as writer:
            there = self.of(collection)
            gone = [one for one in there if one.stage.name == kernel and streams in (None, one.streams)]
            if not gone:
                names = ", ".join(f"{one.stage.name} for {one.streams!r}" for one in there) or "none"
                which = "" if streams is None else f" for {streams[:80]!r}"
                raise KernelNotFound(
                    f"collection {collection} has no kernel {kernel[:80]!r} attached{which}; it has: {names}",
                    name=kernel[:80],
                )
            for one in gone:
                key = (collection, one.streams, kernel)
                writer.execute("DELETE FROM attachment WHERE collection = ? AND streams = ? AND kernel = ?", key)
                self._insert_event("kernel.detached", collection, "", 0, {"kernel": kernel, "streams": one.streams})
