"""The drain's part of the catalog: policies of collections, the queue that follows from them, how far it is planned.

The same rules as in `catalog`: every change is one durable transaction, and its events commit with it. What a policy
wants is planned from final streams, as often as anybody likes: an entry that is there stays as it is. The process that
drains plans what events tell of, and moves the cursor in the same transaction, so that no event is missed whatever is
killed. Called from any thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any, Final

from hiss import limits
from hiss.blocks import catalog_rows as rows
from hiss.blocks.catalog_database import CatalogDatabase
from hiss.drain_policy import Drain, DrainPolicy, DrainState, DrainTarget, entry, policy_of
from hiss.model import Attrs, Event, StreamInfo, StreamState

_CURSOR: Final = "drain_cursor"


class DrainTable:
    """Part of a `Catalog`, which makes it. The parameters are those of `SpaceRecords`."""

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

    # ---- policies

    def policies(self) -> dict[str, DrainPolicy]:
        """Those that collections have of their own, by path."""
        found = self._database.rows("SELECT * FROM drain_policy")
        return {row["collection"]: DrainPolicy.from_json(row["document"]) for row in found}

    def policy(self, collection: str) -> DrainPolicy:
        """What holds for a collection."""
        return policy_of(collection, self.policies())

    def set_policy(self, collection: str, policy: DrainPolicy | None) -> None:
        """Give a collection a policy of its own, or with None take it away, with the event `drain.policy`.

        What waits below it is dropped; what the new policy still wants of it comes back when it is planned.
        """
        with self._events(), self._database.transaction() as writer:
            self._database.check_at_or_below(collection)
            writer.execute("DELETE FROM drain_policy WHERE collection = ?", (collection,))
            if policy is not None:
                writer.execute("INSERT INTO drain_policy VALUES (?, ?)", (collection, policy.to_json()))
            writer.execute(
                f"UPDATE drain SET state = 'dropped' WHERE state IN ('wanted', 'failed') AND {_BELOW}",
                _below(collection),
            )
            data = {"targets": None if policy is None else len(policy.targets)}
            self._insert_event("drain.policy", collection, "", 0, data)

    # ---- the queue

    def wanted(self, path: str) -> list[Drain]:
        """What the policies want of the final streams of a collection and of those below it, or of one stream."""
        policies = self.policies()
        if not policies:
            return []
        final = "SELECT * FROM stream WHERE state <> ? AND attempt IS NULL AND eviction = '' AND "
        above, _, name = path.rpartition("/")
        found = self._database.rows(final + "collection = ? AND name = ?", int(StreamState.OPEN), above, name)
        found += self._database.rows(
            final + "(? = '' OR collection = ? OR (collection > ? AND collection < ?)) ORDER BY ordinal",
            *(int(StreamState.OPEN), path, path, f"{path}/", f"{path}0"),  # "0" comes after "/"
        )
        streams = [rows.stream_info(row) for row in found]
        own = {info.collection: policy_of(info.collection, policies) for info in streams}
        entries = [
            _of_stream(target, info) for info in streams for target in own[info.collection].targets if target.of_streams
        ]
        return entries + list(self._whole(streams, own))

    def _whole(self, streams: Iterable[StreamInfo], own: dict[str, DrainPolicy]) -> Iterable[Drain]:
        """The entries of sealed collections that become one file."""
        last_ns: dict[str, int] = {}
        for info in streams:
            last_ns[info.collection] = max(last_ns.get(info.collection, 0), info.final_ns)
        for collection, final_ns in last_ns.items():
            targets = [target for target in own[collection].targets if not target.of_streams]
            row = targets and self._database.row("SELECT sealed FROM collection WHERE path = ?", collection)
            if row and row["sealed"]:
                yield from (entry(target, collection, "", 0, final_ns) for target in targets)

    def plan(self, paths: Iterable[str], cursor: int | None = None) -> list[Drain]:
        """Bring into the queue what is `wanted` and not there, and move the cursor; the entries as they stand."""
        with self._database.transaction() as writer:
            entries = [each for path in paths for each in self.wanted(path)]
            for each in entries:
                self._add(writer, each)
            if cursor is not None and cursor > self.cursor():
                writer.execute("INSERT OR REPLACE INTO property VALUES (?, ?)", (_CURSOR, str(cursor)))
            kept = entries[: limits.DRAINS_LISTED_MAX]
            return [found for each in kept if (found := self.find(each.id)) is not None]

    def _add(self, writer: sqlite3.Connection, each: Drain) -> None:
        target = rows.dumps(asdict(each.target))
        writer.execute(
            "INSERT INTO drain VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, '', ?, 0, ?, 0) ON CONFLICT (id) DO UPDATE "
            "SET target = excluded.target, priority = excluded.priority, due_ns = CASE WHEN state = 'dropped' OR "
            "target <> excluded.target THEN excluded.due_ns ELSE due_ns END, "
            "state = CASE WHEN state = 'dropped' THEN excluded.state ELSE state END",
            (
                *(each.id, each.source, each.collection, each.version, each.url, target),
                *(each.state.value, each.target.priority, each.due_ns, self._clock_ns()),
            ),
        )

    def cursor(self) -> int:
        """The number of the last event that was planned for."""
        row = self._database.row("SELECT value FROM property WHERE name = ?", _CURSOR)
        return 0 if row is None else int(row["value"])

    def find(self, entry_id: str) -> Drain | None:
        row = self._database.row("SELECT * FROM drain WHERE id = ?", entry_id)
        return None if row is None else _entry(row)

    def state(self, entry_id: str) -> DrainState | None:
        found = self.find(entry_id)
        return None if found is None else found.state

    def entries(self, path: str = "", *, unfinished: bool = False) -> list[Drain]:
        """The queue below a path, in the order in which it goes; without `unfinished` what is done and dropped too. At
        most `limits.DRAINS_LISTED_MAX`."""
        found = self._database.rows(
            f"SELECT * FROM drain WHERE {_BELOW} AND (NOT ? OR state IN ('wanted', 'running', 'failed')) "
            "ORDER BY priority DESC, due_ns, id LIMIT ?",
            *(*_below(path), unfinished, limits.DRAINS_LISTED_MAX),
        )
        return list(map(_entry, found))

    def due(self, *, short: bool) -> Drain | None:
        """The entry to drain now; with `short`, what waits for that too."""
        now_ns = self._clock_ns()
        row = self._database.row(
            "SELECT * FROM drain WHERE state IN ('wanted', 'failed') AND next_ns <= ? AND (due_ns <= ? OR "
            "(? AND due_ns IS NULL AND json_extract(target, '$.when') = 'pressure')) "
            "ORDER BY priority DESC, due_ns, id LIMIT 1",
            now_ns, now_ns, short,
        )  # fmt: skip
        return None if row is None else _entry(row)

    def ask(self, paths: Sequence[str]) -> list[Drain]:
        """Plan, and make due now whatever waits of it."""
        with self._database.transaction() as writer:
            planned = self.plan(paths)
            for path in paths:
                writer.execute(
                    f"UPDATE drain SET due_ns = ?, next_ns = 0 WHERE state IN ('wanted', 'failed') AND {_BELOW}",
                    (self._clock_ns(), *_below(path)),
                )
            return [found for each in planned if (found := self.find(each.id)) is not None]

    def mark(self, entry_id: str, state: DrainState, *, reason: str = "", began: bool = False) -> Drain | None:
        """Where an entry stands now; None where it is gone. One that failed, or was interrupted, is tried again later
        and later."""
        with self._events(), self._database.transaction() as writer:
            found = self.find(entry_id)
            if found is None:
                return None
            now_ns = self._clock_ns()
            marked = replace(found, state=state, reason=reason, began=began, changed_ns=now_ns)
            if state is DrainState.RUNNING:
                marked = replace(marked, attempts=found.attempts + 1)
            if state is DrainState.WANTED:  # interrupted; if it is what kills its process, others have their turn
                marked = replace(marked, next_ns=now_ns + int(_pause_s(found.attempts) * 1e9))
            if state is DrainState.FAILED:
                attempts = found.attempts + (found.state is not DrainState.RUNNING)  # one that did not get so far
                next_ns = now_ns + int(_pause_s(attempts) * 1e9)
                marked = replace(marked, attempts=attempts, next_ns=next_ns)
                if reason != found.reason:
                    self._tell_failure(marked)
            writer.execute(
                "UPDATE drain SET state = ?, attempts = ?, reason = ?, next_ns = ?, changed_ns = ?, began = ? "
                "WHERE id = ?",
                (
                    *(marked.state.value, marked.attempts, marked.reason, marked.next_ns, marked.changed_ns),
                    *(marked.began, marked.id),
                ),
            )
            return marked

    def _tell_failure(self, each: Drain) -> None:
        data = {"url": each.url, "reason": each.reason, "attempts": each.attempts}
        stream = each.source.rpartition("/")[2] if each.version else ""
        self._insert_event("drain.failed", each.collection, stream, each.version, data)

    # ---- what goes with streams and collections; in their transaction

    def forget_stream(self, writer: sqlite3.Connection, stream_id: str) -> None:
        writer.execute(
            "DELETE FROM drain WHERE (source, version) IN "
            "(SELECT collection || '/' || name, version FROM stream WHERE id = ?)",
            (stream_id,),
        )

    def forget_collection(self, writer: sqlite3.Connection, path: str) -> None:
        writer.execute("DELETE FROM drain WHERE collection = ?", (path,))
        writer.execute("DELETE FROM drain_policy WHERE collection = ?", (path,))


_BELOW: Final = "(? = '' OR source = ? OR collection = ? OR (collection > ? AND collection < ?))"


def _below(path: str) -> tuple[str, ...]:
    return path, path, path, f"{path}/", f"{path}0"  # "0" comes after "/"


def _of_stream(target: DrainTarget, info: StreamInfo) -> Drain:
    made = entry(target, info.collection, info.name, info.version, info.final_ns)
    return replace(made, state=DrainState.DONE) if target.has(info) else made  # somebody drained it there by hand


def _pause_s(attempts: int) -> float:
    pause_s: float = limits.DRAIN_RETRY_FIRST_S * 2 ** min(max(0, attempts - 1), 20)
    return min(pause_s, limits.DRAIN_RETRY_MOST_S)


def _entry(row: Any) -> Drain:
    return Drain(
        id=row["id"],
        source=row["source"],
        version=row["version"],
        url=row["url"],
        target=DrainTarget(**json.loads(row["target"])),
        state=DrainState(row["state"]),
        attempts=row["attempts"],
        reason=row["reason"],
        due_ns=row["due_ns"],
        next_ns=row["next_ns"],
        changed_ns=row["changed_ns"],
        began=bool(row["began"]),
    )
