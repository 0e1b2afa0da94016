"""What the catalog keeps of space: reservations, retention policies, and of streams their archives and evictions.

The same rules as in `catalog`: every change is one durable transaction, and its events commit with it. Called from any
thread. Who has used how much of a reservation is not here: that follows from the log (`reservations`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace

from hiss import limits
from hiss.blocks import catalog_rows as rows
from hiss.blocks.catalog_database import CatalogDatabase
from hiss.errors import CollectionNotFound, Conflict, LimitExceeded, ReservationNotFound, StreamNotFinal, StreamNotFound
from hiss.model import Attrs, Completeness, Event, LedgerEntry, StreamInfo, StreamState
from hiss.space import Archive, Eviction, Retention

STAGE = "retention"  # in a ledger


@dataclass(frozen=True, slots=True)
class Promise:
    """One row of the table `reservation`. `base_bytes`: what the collection had in the log when it was made."""

    id: str
    collection: str
    bytes: int
    base_bytes: int
    created_ns: int
    expires_ns: int


def covers(path: str, below: str) -> bool:
    """Whether `below` is the collection `path`, or one in it."""
    return below == path or below.startswith(path + "/")


class SpaceRecords:
    """Part of a `Catalog`, which makes it.

    Parameters
    ----------
    database : CatalogDatabase
    insert_event : callable
        `(kind, collection, stream, version, data)`, within a transaction.
    events : callable
        Around a transaction that may add events.
    clock_ns : callable
    """

    def __init__(
        self,
        database: CatalogDatabase,
        insert_event: Callable[[str, str, str, int, Attrs], Event],
        events: Callable[[], AbstractContextManager[None]],
        clock_ns: Callable[[], int],
    ) -> None:
        self._database = database
        self._insert_event = insert_event
        self._events = events
        self._clock_ns = clock_ns

    # ---- reservations

    def promises(self) -> list[Promise]:
        """All that are kept, also those that have run out, oldest first."""
        found = self._database.rows("SELECT * FROM reservation ORDER BY created_ns, id")
        return [Promise(*row) for row in found]

    def add_promise(self, promise: Promise) -> None:
        """Keep a reservation, with the event `reservation.made`.

        Raises
        ------
        CollectionNotFound
        Conflict
            The collection, one above or one below it has a reservation.
        LimitExceeded
            There are `limits.RESERVATIONS_MAX`.
        """
        with self._events(), self._database.transaction() as writer:
            if not self._database.row("SELECT 1 FROM collection WHERE path = ?", promise.collection):
                raise CollectionNotFound(f"no collection {promise.collection[:200]!r}", path=promise.collection[:200])
            others = self.promises()
            for other in others:
                if covers(other.collection, promise.collection) or covers(promise.collection, other.collection):
                    raise Conflict(
                        f"collection {promise.collection}: {other.collection} has reservation {other.id} of "
                        f"{other.bytes} bytes; release it first, or use it",
                        reservation=other.id,
                    )
            if len(others) >= limits.RESERVATIONS_MAX:
                raise LimitExceeded(f"{len(others)} reservations, allowed are {limits.RESERVATIONS_MAX}; release some")
            values = (promise.id, promise.collection, promise.bytes, promise.base_bytes)
            writer.execute(
                "INSERT INTO reservation VALUES (?, ?, ?, ?, ?, ?)", (*values, promise.created_ns, promise.expires_ns)
            )
            data = {"id": promise.id, "bytes": promise.bytes, "expires_ns": promise.expires_ns}
            self._insert_event("reservation.made", promise.collection, "", 0, data)

    def end_promise(self, promise_id: str, kind: str) -> None:
        """Forget a reservation, with the event `kind`. Raises `ReservationNotFound`."""
        with self._events(), self._database.transaction() as writer:
            row = self._database.row("SELECT * FROM reservation WHERE id = ?", promise_id)
            if row is None:
                raise ReservationNotFound(f"no reservation {promise_id[:40]!r}; `hiss reserve --list` shows them")
            writer.execute("DELETE FROM reservation WHERE id = ?", (promise_id,))
            self._insert_event(kind, row["collection"], "", 0, {"id": promise_id, "bytes": row["bytes"]})

    # ---- retention

    def retentions(self) -> dict[str, Retention]:
        """The policies that collections have of their own, by path."""
        found = self._database.rows("SELECT * FROM retention")
        return {row["collection"]: Retention(**json.loads(row["document"])) for row in found}

    def set_retention(self, collection: str, policy: Retention | None) -> None:
        """Give a collection a policy of its own, or with None take it away. Raises `CollectionNotFound`."""
        with self._events(), self._database.transaction() as writer:
            self._database.check_at_or_below(collection)
            writer.execute("DELETE FROM retention WHERE collection = ?", (collection,))
            if policy is not None:
                writer.execute("INSERT INTO retention VALUES (?, ?)", (collection, rows.dumps(asdict(policy))))
            data = {"policy": None if policy is None else asdict(policy)}
            self._insert_event("retention.changed", collection, "", 0, data)

    # ---- streams

    def _final(self, stream_id: str) -> StreamInfo:
        row = self._database.row("SELECT * FROM stream WHERE id = ?", stream_id)
        if row is None:
            raise StreamNotFound(f"no stream with the id {stream_id[:64]!r}", id=stream_id[:64])
        info = rows.stream_info(row)
        if not info.state.final:
            raise StreamNotFinal(f"stream {info.path} is open; seal or abort it first", stream=info.path)
        return info

    def add_archive(self, stream_id: str, location: str) -> StreamInfo:
        """Record that all of a final stream was read back from `location`, now, with the event `stream.archived`."""
        with self._events(), self._database.transaction() as writer:
            info = self._final(stream_id)
            archive = Archive(location, self._clock_ns())
            others = [each for each in info.archives if each.location != location]
            archives = [*others, archive][-limits.ARCHIVES_MAX :]
            text = rows.dumps([[each.location, each.verified_ns] for each in archives])
            writer.execute("UPDATE stream SET archives = ? WHERE id = ?", (text, stream_id))
            data = {"id": info.id, "location": location, "digest": info.digest}
            self._insert_event("stream.archived", info.collection, info.name, info.version, data)
        return replace(info, archives=tuple(archives))

    def add_archives(self, places: Sequence[tuple[str, str]]) -> None:
        """`add_archive` of several streams and their locations, in one transaction."""
        with self._events(), self._database.transaction():
            for stream_id, location in places:
                self.add_archive(stream_id, location)

    def evict(self, stream_id: str, policy: str) -> None:
        """The stream's blocks leave the log; the event `stream.evicted` says so. Its space may be freed afterwards.

        Where it is archived its completeness stays what it was. Where it is not, its blocks are gone: they enter the
        ledger, with the policy.
        """
        with self._events(), self._database.transaction() as writer:
            info = self._final(stream_id)
            if info.eviction is not None:
                return
            eviction = Eviction(self._clock_ns(), policy)
            whole = info.completeness if info.archives else without_blocks(info.completeness, policy)
            writer.execute(
                "UPDATE stream SET eviction = ?, completeness = ? WHERE id = ?",
                (rows.dumps([eviction.time_ns, policy]), rows.completeness_document(whole), stream_id),
            )
            data = {
                "id": info.id,
                "policy": policy,
                "archive": info.archives[-1].location if info.archives else None,
                "blocks": info.completeness.blocks,
                "bytes": info.completeness.bytes,
                "digest": info.digest,
            }
            self._insert_event("stream.evicted", info.collection, info.name, info.version, data)

    def candidates(self, *, undrained: bool) -> list[StreamInfo]:
        """Public final streams in the log that are archived or expendable, with `undrained` the others too."""
        found = self._database.rows(
            "SELECT * FROM stream WHERE state <> ? AND eviction = '' AND attempt IS NULL "
            "AND (? OR archives <> '[]' OR document LIKE '%\"expendable\":true%') ORDER BY ordinal",
            int(StreamState.OPEN),
            undrained,
        )
        return [rows.stream_info(row) for row in found]

    def evicted_streams(self) -> set[str]:
        """Ids of all streams that have left the log."""
        found: list[sqlite3.Row] = self._database.rows("SELECT id FROM stream WHERE eviction <> ''")
        return {row["id"] for row in found}


def without_blocks(whole: Completeness, policy: str) -> Completeness:
    """What is left of a stream whose blocks are gone: all that was stored is a gap, with the policy as its reason."""
    if whole.first_index is None or whole.last_index is None:
        return whole
    why = (STAGE, f"evicted: {policy}")
    ledger: list[LedgerEntry] = []
    position = whole.first_index
    for entry in whole.ledger:
        if entry.first > position:
            ledger.append(LedgerEntry(position, entry.first - 1, *why))
        ledger.append(entry)
        position = max(position, entry.last + 1)
    if position <= whole.last_index:
        ledger.append(LedgerEntry(position, whole.last_index, *why))
    return replace(whole, blocks=0, bytes=0, gaps=whole.last_index - whole.first_index + 1, ledger=tuple(ledger))
