"""The catalog: collections, streams, kernels, events and the attempts of jobs. What there is; the blocks are in the
log.

Every change is one transaction, durable when the call returns, and the events that belong to it commit with it. What an
attempt of a job makes is *staged*: nobody sees it who does not name the attempt, and it makes no events, until the
attempt commits. An id finds its stream always: ids are not to be guessed, and whoever has one was told.

Called from any thread; calls do not overlap (one lock).
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from hiss.blocks import catalog_rows as rows
from hiss.blocks.array_store import ArrayStore
from hiss.blocks.attachment_table import AttachmentTable
from hiss.blocks.catalog_database import CatalogDatabase
from hiss.blocks.drain_table import DrainTable
from hiss.blocks.fresh_streams import FreshStreams
from hiss.blocks.milestone_table import MilestoneTable
from hiss.blocks.share_table import ShareTable
from hiss.blocks.space_records import SpaceRecords
from hiss.blocks.token_table import TokenTable
from hiss.errors import (
    AlreadyExists,
    CatalogDamaged,
    CollectionNotFound,
    CollectionSealed,
    Conflict,
    KernelNotFound,
    LimitExceeded,
    StreamFinal,
    StreamNotFinal,
    StreamNotFound,
)
from hiss.limits import DELETED_STREAMS_MAX, EVENT_DATA_BYTES_MAX, EXPECTED_STREAMS_MAX
from hiss.model import (
    Attrs,
    CollectionInfo,
    Completeness,
    Event,
    KernelInfo,
    StageInfo,
    StreamInfo,
    StreamState,
    split_stream_path,
)
from hiss.workflow import StreamRef

FILE_NAME: Final = "catalog.db"

_STAGED: Final = "open"
_COMMITTED: Final = "committed"
_DISCARDED: Final = "discarded"


class Catalog:
    """The catalog of one data directory.

    Parameters
    ----------
    directory : Path
        There already.
    clock_ns : callable
        UTC nanoseconds since 1970.

    Attributes
    ----------
    node : str
        12 hex digits, made once for this directory.
    salt : int
        64 random bits, made once; the log's digests of headers are seeded with it.

    Raises
    ------
    CatalogDamaged
    """

    def __init__(self, directory: Path, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = CatalogDatabase(directory / FILE_NAME)
        self._fresh = FreshStreams(self._database)
        self._arrays = ArrayStore(directory / "arrays")
        self._clock_ns = clock_ns
        properties = self._database.properties()
        try:
            node, salt = properties["node"], int(properties["salt"], 16)
        except (KeyError, ValueError) as error:
            self._database.close()
            raise CatalogDamaged(
                f"{directory / FILE_NAME}: its properties cannot be read: {error}; put it back from a copy",
                path=str(directory / FILE_NAME),
            ) from error
        self.node: Final = node
        self.salt: Final = salt
        self.milestones: Final = MilestoneTable(self._database, self._insert_event)
        self.shares: Final = ShareTable(self._database)
        self._event_added = threading.Condition()
        self._inserted = threading.local()  # `seq` of the last event that this thread inserted
        self.space: Final = SpaceRecords(self._database, self._insert_event, self._events, clock_ns)
        self.drains: Final = DrainTable(self._database, self._insert_event, self._events, clock_ns)
        self.attachments: Final = AttachmentTable(
            self._database, self._insert_event, self._events, self.check_takes_streams
        )
        self.tokens: Final = TokenTable(self._database, self._insert_event, self._events, clock_ns)
        last = self._database.row("SELECT max(seq) AS seq FROM event")
        self._last_seq = int((last and last["seq"]) or 0)

    def close(self) -> None:
        self._database.close()

    @property
    def last_seq(self) -> int:
        """Of the newest event; 0 where there is none."""
        return self._last_seq

    # ---- collections

    def create_collection(self, path: str, attrs: Attrs, expect: Sequence[str]) -> CollectionInfo:
        """Create it, or amend the one that is there: attributes are merged, `expect` is extended."""
        row = self._collection_row(path)
        if row is not None and not attrs and not expect:
            return self._collection_info(row)
        with self._database.transaction() as writer:
            row = self._collection_row(path)
            old = {} if row is None else json.loads(row["attrs"])
            expected = list(dict.fromkeys([*(json.loads(row["expect"]) if row else ()), *expect]))
            if len(expected) > EXPECTED_STREAMS_MAX:
                raise LimitExceeded(
                    f"collection {path}: {len(expected)} expected streams, allowed are {EXPECTED_STREAMS_MAX}",
                    limit="EXPECTED_STREAMS_MAX",
                    allowed=EXPECTED_STREAMS_MAX,
                    found=len(expected),
                )
            values = (rows.dumps({**old, **attrs}), rows.dumps(expected))
            if row is None:
                writer.execute("INSERT INTO collection VALUES (?, ?, ?, '{}', 0, ?)", (path, *values, self._clock_ns()))
            else:
                writer.execute("UPDATE collection SET attrs = ?, expect = ? WHERE path = ?", (*values, path))
        return self.collection(path)

    def collection(self, path: str) -> CollectionInfo:
        row = self._collection_row(path)
        if row is None:
            raise CollectionNotFound(f"no collection {path[:200]!r}", path=path[:200])
        return self._collection_info(row)

    def collections(self, prefix: str = "") -> list[CollectionInfo]:
        """All whose path begins with `prefix`, by path."""
        found = self._database.rows(
            "SELECT * FROM collection WHERE substr(path, 1, ?) = ? ORDER BY path", len(prefix), prefix
        )
        return [self._collection_info(row) for row in found]

    def _collection_row(self, path: str) -> sqlite3.Row | None:
        return self._database.row("SELECT * FROM collection WHERE path = ?", path)

    def _collection_info(self, row: sqlite3.Row) -> CollectionInfo:
        names = self._database.rows(
            "SELECT name FROM stream WHERE collection = ? AND attempt IS NULL GROUP BY name ORDER BY min(ordinal)",
            row["path"],
        )
        return CollectionInfo(
            path=row["path"],
            attrs=json.loads(row["attrs"]),
            expect=tuple(json.loads(row["expect"])),
            joins={name: tuple(streams) for name, streams in json.loads(row["joins"]).items()},
            sealed=bool(row["sealed"]),
            created_ns=row["created_ns"],
            streams=tuple(name["name"] for name in names),
            kernels=self.attachments.of(row["path"]),
        )

    def delete_collection(self, path: str) -> list[str]:
        """Forget a collection and all its streams, staged ones too; their ids."""
        with self._database.transaction() as writer:
            self.collection(path)
            ids = [row["id"] for row in self._database.rows("SELECT id FROM stream WHERE collection = ?", path)]
            writer.execute("DELETE FROM stream WHERE collection = ?", (path,))
            self._fresh.changed(ids)
            self._bury(writer, ids)
            for table in ("attachment", "retention"):  # a new collection of that name inherits neither
                writer.execute(f"DELETE FROM {table} WHERE collection = ?", (path,))
            self.drains.forget_collection(writer, path)
            writer.execute("DELETE FROM collection WHERE path = ?", (path,))
        return ids

    def seal_collection(self, path: str) -> CollectionInfo:
        """Seal it, with its event. Sealed twice is sealed. Raises `StreamNotFinal` while one of its streams is open."""
        with self._events(), self._database.transaction() as writer:
            info = self.collection(path)
            if not info.sealed:
                self._check_final(self.streams(path, all_versions=True), f"collection {path}")
                self._seal_collection(writer, path)
        return self.collection(path)

    def _seal_collection(self, writer: sqlite3.Connection, path: str) -> None:
        writer.execute("UPDATE collection SET sealed = 1 WHERE path = ?", (path,))
        info = self.collection(path)
        self._insert_event("collection.sealed", path, "", 0, {"attrs": dict(info.attrs), "streams": list(info.streams)})

    def join(self, collection: str, name: str, streams: Sequence[str]) -> CollectionInfo:
        """Record that `streams` are the modules of one detector, in that order."""
        with self._database.transaction() as writer:
            info = self.collection(collection)
            missing = [stream for stream in streams if stream not in info.streams]
            if missing:
                raise StreamNotFound(
                    f"join {name!r}: no stream {missing[0]!r} in collection {collection}", name=missing[0]
                )
            joins = {**info.joins, name: tuple(streams)}
            writer.execute("UPDATE collection SET joins = ? WHERE path = ?", (rows.dumps(joins), collection))
        return self.collection(collection)

    @staticmethod
    def _check_final(streams: Sequence[StreamInfo], what: str) -> None:
        still_open = [stream.path for stream in streams if not stream.state.final]
        if still_open:
            raise StreamNotFinal(
                f"{what}: {len(still_open)} streams are open, {still_open[0]} among them; seal or abort them first",
                stream=still_open[0],
            )

    # ---- streams

    def add_streams(self, infos: Sequence[StreamInfo], *, new_version: bool, attempt: str | None) -> list[StreamInfo]:
        """Enter streams of one collection, together, under the next version of their names.

        Raises
        ------
        CollectionNotFound
        AlreadyExists
            One of them is there and no new version was asked for.
        Conflict
            The collection is sealed, or the attempt is over.
        """
        with self._database.transaction() as writer:
            for path in {info.collection for info in infos}:
                self.check_takes_streams(path)
            if attempt is not None:
                self._open_attempt(writer, attempt)
            return [self._add_stream(writer, info, new_version, attempt) for info in infos]

    def check_takes_streams(self, path: str) -> None:
        """Raise `CollectionNotFound` or `CollectionSealed`. However many streams it has."""
        row = self._collection_row(path)
        if row is None:
            raise CollectionNotFound(f"no collection {path[:200]!r}", path=path[:200])
        if row["sealed"]:
            raise CollectionSealed(f"collection {path} is sealed; it takes no new stream", collection=path)

    def _add_stream(
        self, writer: sqlite3.Connection, info: StreamInfo, new_version: bool, attempt: str | None
    ) -> StreamInfo:
        there = self._database.rows(
            "SELECT version, attempt FROM stream WHERE collection = ? AND name = ?", info.collection, info.name
        )
        if not new_version and any(row["attempt"] in (None, attempt) for row in there):
            raise AlreadyExists(
                f"stream {info.path} exists; open it with resume=True, or write a new version with new_version=True",
                path=info.path,
            )
        info = replace(info, version=max((row["version"] for row in there), default=0) + 1)
        attrs = rows.dumps(info.attrs)
        writer.execute(
            "INSERT INTO stream VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '[]', '')",
            (
                info.id,
                info.collection,
                info.name,
                info.version,
                attempt,
                int(info.state),
                info.raw_of is not None,
                attrs,
                rows.stream_document(info),
                "",
                info.digest,
                info.final_ns,
                info.abort_reason,
            ),
        )
        self._fresh.made(info, attrs, attempt)
        return info

    def stream(self, path: str, version: int | None = None, attempt: str | None = None) -> StreamInfo:
        """By path; the newest version unless one is named. Raises `StreamNotFound`."""
        collection, name = split_stream_path(path)
        row = self._database.row(
            "SELECT * FROM stream WHERE collection = ? AND name = ? AND (attempt IS NULL OR attempt = ?) "
            "AND (? IS NULL OR version = ?) ORDER BY version DESC LIMIT 1",
            *(collection, name, attempt, version, version),
        )
        if row is None:
            which = "" if version is None else f", version {version}"
            raise StreamNotFound(f"no stream {path[:600]!r}{which}", path=path[:600])
        return rows.stream_info(row)

    def stream_by_id(self, stream_id: str) -> StreamInfo:
        """Whatever its attempt. Raises `StreamNotFound`."""
        fresh = self._fresh.get(stream_id)
        if fresh is not None:
            return fresh
        row = self._database.row("SELECT * FROM stream WHERE id = ?", stream_id)
        if row is None:
            raise StreamNotFound(f"no stream with the id {stream_id[:64]!r}", id=stream_id[:64])
        return rows.stream_info(row)

    def streams(self, collection: str, all_versions: bool = False, attempt: str | None = None) -> list[StreamInfo]:
        """Of one collection, in the order of their making; the newest version of each unless all are asked for."""
        self.collection(collection)
        found = self._database.rows(
            "SELECT * FROM stream WHERE collection = ? AND (attempt IS NULL OR attempt = ?) ORDER BY ordinal",
            collection,
            attempt,
        )
        newest: dict[str, int] = {}
        for row in found:
            newest[row["name"]] = max(newest.get(row["name"], 0), row["version"])
        return [rows.stream_info(row) for row in found if all_versions or row["version"] == newest[row["name"]]]

    def counts(self) -> tuple[int, int, int]:
        """Collections; streams in their newest versions, raw companions not counted; how many of those are open."""
        row = self._database.row(
            "SELECT (SELECT count(*) FROM collection), count(*), coalesce(sum(state = ?), 0) FROM stream AS one "
            "WHERE attempt IS NULL AND NOT raw AND NOT EXISTS (SELECT 1 FROM stream WHERE collection = one.collection "
            "AND name = one.name AND version > one.version AND attempt IS NULL)",
            int(StreamState.OPEN),
        )
        assert row is not None
        return row[0], row[1], row[2]

    def open_streams(self) -> list[StreamInfo]:
        """Every stream that is not final, staged ones too."""
        found = self._database.rows("SELECT * FROM stream WHERE state = ? ORDER BY ordinal", int(StreamState.OPEN))
        return [rows.stream_info(row) for row in found]

    def every_stream(self, collection: str) -> list[StreamInfo]:
        """All versions of one collection's streams, staged ones too."""
        found = self._database.rows("SELECT * FROM stream WHERE collection = ? ORDER BY ordinal", collection)
        return [rows.stream_info(row) for row in found]

    def all_streams(self) -> list[StreamInfo]:
        """Every stream and version, staged ones too, in the order of their making."""
        return [rows.stream_info(row) for row in self._database.rows("SELECT * FROM stream ORDER BY ordinal")]

    def attempt_of(self, stream_id: str) -> str | None:
        """The attempt whose staged output a stream is; None where it is public."""
        fresh = self._fresh.attempt_of(stream_id)
        if fresh is not None:
            return fresh[0]
        row = self._database.row("SELECT attempt FROM stream WHERE id = ?", stream_id)
        return None if row is None else row["attempt"]

    def amend_stream(self, stream_id: str, attrs: Attrs) -> StreamInfo:
        """Merge attributes into those that are there. Raises `StreamFinal`."""
        with self._database.transaction() as writer:
            info = self._open_stream(stream_id)
            writer.execute("UPDATE stream SET attrs = ? WHERE id = ?", (rows.dumps({**info.attrs, **attrs}), stream_id))
            self._fresh.changed([stream_id])
        return self.stream_by_id(stream_id)

    def _open_stream(self, stream_id: str) -> StreamInfo:
        info = self.stream_by_id(stream_id)
        if info.state.final:
            raise StreamFinal(f"stream {info.path} is {info.state.name.lower()}; it is final", path=info.path)
        return info

    def finalise(
        self,
        ids: Sequence[str],
        state: StreamState,
        completeness: Mapping[str, Completeness],
        digests: Mapping[str, str],
        reason: str = "",
    ) -> list[StreamInfo]:
        """Make streams final in one transaction with their events, and their collection's if that completes it.

        The caller has made their blocks durable first. Raw companions make no events; staged streams make theirs when
        their attempt commits.

        Raises
        ------
        StreamFinal
            One of them is final already; nothing was changed.
        """
        assert state.final
        with self._events(), self._database.transaction() as writer:
            public, finals = [], []
            for stream_id in ids:
                final = replace(
                    self._open_stream(stream_id),
                    state=state,
                    completeness=completeness[stream_id],
                    digest=digests[stream_id],
                    final_ns=self._clock_ns(),
                    abort_reason=reason,
                )
                if self.attempt_of(stream_id) is None:
                    public.append(final)
                self._fresh.changed([stream_id])
                document = rows.completeness_document(final.completeness)
                writer.execute(
                    "UPDATE stream SET state = ?, completeness = ?, digest = ?, final_ns = ?, abort_reason = ? "
                    "WHERE id = ?",
                    (int(state), document, final.digest, final.final_ns, reason, stream_id),
                )
                finals.append(final)
            self._announce_final(writer, public)
        return finals

    def _announce_final(self, writer: sqlite3.Connection, infos: Sequence[StreamInfo]) -> None:
        for info in infos:
            if info.raw_of is None:
                kind = "stream.sealed" if info.state is StreamState.SEALED else "stream.aborted"
                self._insert_event(kind, info.collection, info.name, info.version, rows.final_event_data(info))
        for path in dict.fromkeys(info.collection for info in infos):
            row = self._collection_row(path)
            expect = set(json.loads(row["expect"])) if row is not None and not row["sealed"] else set()
            if expect & {info.name for info in infos} and expect <= self._final_names(path):
                self._seal_collection(writer, path)

    def _final_names(self, path: str) -> set[str]:
        """Public streams of a collection of which the newest version is final."""
        found = self._database.rows(
            "SELECT name, state, max(version) FROM stream WHERE collection = ? AND attempt IS NULL GROUP BY name", path
        )
        return {row["name"] for row in found if StreamState(row["state"]).final}

    def set_stage(self, stream_id: str, stage: int, *, quarantined: bool) -> None:
        """Mark a stage of a stream's pipeline, with the event `kernel.quarantined`."""
        with self._events(), self._database.transaction() as writer:
            info = rows.with_quarantine(self.stream_by_id(stream_id), stage, quarantined)
            writer.execute("UPDATE stream SET document = ? WHERE id = ?", (rows.stream_document(info), stream_id))
            self._fresh.changed([stream_id])
            if quarantined:
                kernel = info.stages[stage]
                data = {"id": info.id, "kernel": kernel.name, "hash": kernel.hash, "stage": stage}
                self._insert_event("kernel.quarantined", info.collection, info.name, info.version, data)

    def set_stages(
        self, stream_id: str, stages: Sequence[StageInfo], shadows: Sequence[StageInfo], promoted: str = ""
    ) -> None:
        """Write a stream's stages and shadows; with the event `kernel.promoted` where one of that name was."""
        with self._events(), self._database.transaction() as writer:
            info = replace(self.stream_by_id(stream_id), stages=tuple(stages), shadows=tuple(shadows))
            writer.execute("UPDATE stream SET document = ? WHERE id = ?", (rows.stream_document(info), stream_id))
            self._fresh.changed([stream_id])
            for stage in stages if promoted else ():
                if stage.name == promoted and stage.since is not None:
                    data = {"id": info.id, "kernel": stage.name, "hash": stage.hash, "since": stage.since}
                    self._insert_event("kernel.promoted", info.collection, info.name, info.version, data)

    def delete_stream(self, stream_id: str, *, missing_ok: bool = False) -> None:
        """Forget a stream. Raises `StreamNotFound` unless `missing_ok`."""
        with self._database.transaction() as writer:
            self.drains.forget_stream(writer, stream_id)
            if not writer.execute("DELETE FROM stream WHERE id = ?", (stream_id,)).rowcount and not missing_ok:
                raise StreamNotFound(f"no stream with the id {stream_id[:64]!r}", id=stream_id[:64])
            self._fresh.changed([stream_id])
            self._bury(writer, [stream_id])

    @staticmethod
    def _bury(writer: sqlite3.Connection, ids: Sequence[str]) -> None:
        """Remember that these were deleted: what the log still has of them is not missed."""
        writer.executemany("INSERT OR IGNORE INTO deleted VALUES (NULL, ?)", [(stream_id,) for stream_id in ids])
        writer.execute(
            "DELETE FROM deleted WHERE ordinal <= (SELECT max(ordinal) FROM deleted) - ?", (DELETED_STREAMS_MAX,)
        )

    def deleted_streams(self) -> set[str]:
        """Ids of streams that were deleted, those at least of which the log may have records."""
        return {row["id"] for row in self._database.rows("SELECT id FROM deleted")}

    def forget_deleted(self, ids: Iterable[str]) -> None:
        """The log has no record of these any more. An id is never given twice, so nobody will ask."""
        with self._database.transaction() as writer:
            writer.executemany("DELETE FROM deleted WHERE id = ?", [(stream_id,) for stream_id in ids])

    def fence(self, stream_id: str) -> int:
        """Raise the stream's epoch: whoever wrote under an earlier one may not write any more. The new epoch.

        Nobody waits for the disk: after a crash no session is open that could go on under the old one.
        """
        with self._database.transaction(wait=False) as writer:
            query = "UPDATE stream SET epoch = epoch + 1 WHERE id = ? RETURNING epoch"
            found = writer.execute(query, (stream_id,)).fetchall()
        if not found:
            raise StreamNotFound(f"no stream with the id {stream_id[:64]!r}", id=stream_id[:64])
        return int(found[0]["epoch"])

    # ---- kernels and their arrays

    def put_kernel(self, info: KernelInfo) -> KernelInfo:
        """Register a kernel; it is the newest of its name then. Registered before, it keeps its time."""
        with self._database.transaction() as writer:
            old = self._database.row(
                "SELECT * FROM kernel WHERE name = ? AND hash = ?", info.definition.name, info.hash
            )
            if old is not None:
                info = replace(info, registered_ns=old["registered_ns"])
            writer.execute(
                "INSERT OR REPLACE INTO kernel VALUES ((SELECT ifnull(max(ordinal), 0) + 1 FROM kernel), ?, ?, ?, ?)",
                (info.definition.name, info.hash, info.registered_ns, rows.kernel_document(info)),
            )
        return info

    def kernel(self, name: str) -> KernelInfo:
        """By name (the newest) or hash. Raises `KernelNotFound`."""
        query = "SELECT * FROM kernel WHERE {} = ? ORDER BY ordinal DESC LIMIT 1"
        row = self._database.row(query.format("name"), name) or self._database.row(query.format("hash"), name)
        if row is None:
            raise KernelNotFound(f"no kernel of the name or hash {name[:200]!r}", name=name[:200])
        return rows.kernel_info(row)

    def kernels(self) -> list[KernelInfo]:
        """All, in the order of their registration."""
        return [rows.kernel_info(row) for row in self._database.rows("SELECT * FROM kernel ORDER BY ordinal")]

    def put_array(self, array: npt.NDArray[Any]) -> str:
        """Store an array once; its digest."""
        return self._arrays.put(array)

    def array(self, digest: str) -> npt.NDArray[Any]:
        """The array of that digest, checked. Raises `NotFound`, `CatalogDamaged`."""
        return self._arrays.get(digest)

    # ---- events

    def add_event(self, kind: str, collection: str, stream: str, version: int, data: Attrs) -> Event:
        """Raises `LimitExceeded` for data above `limits.EVENT_DATA_BYTES_MAX` as JSON."""
        with self._events(), self._database.transaction():
            return self._insert_event(kind, collection, stream, version, data)

    def tell(self, make: Callable[[], object]) -> None:
        """Run what makes events in transactions of its own, then wake those who wait for them."""
        with self._events():
            make()

    def _insert_event(self, kind: str, collection: str, stream: str, version: int, data: Attrs) -> Event:
        text = rows.dumps(data)
        if len(text) > EVENT_DATA_BYTES_MAX:
            if kind != "collection.sealed":
                raise LimitExceeded(
                    f"event {kind} of {len(text)} bytes, allowed are {EVENT_DATA_BYTES_MAX}",
                    limit="EVENT_DATA_BYTES_MAX",
                    allowed=EVENT_DATA_BYTES_MAX,
                    found=len(text),
                )
            data = {"note": "attrs and streams left out: see the collection"}
            text = rows.dumps(data)
        with self._database.transaction() as writer:
            now = self._clock_ns()
            seq = writer.execute(
                "INSERT INTO event VALUES (NULL, ?, ?, ?, ?, ?, ?)", (kind, now, collection, stream, version, text)
            ).lastrowid
        assert seq is not None
        self._inserted.seq = seq
        return Event(self.node, seq, kind, now, collection, stream, version, json.loads(text))

    def events_after(self, seq: int, limit: int) -> list[Event]:
        """Up to `limit` events with a higher number, in order."""
        found = self._database.rows("SELECT * FROM event WHERE seq > ? ORDER BY seq LIMIT ?", seq, limit)
        return [
            Event(
                self.node,
                row["seq"],
                row["kind"],
                row["time_ns"],
                row["collection"],
                row["stream"],
                row["version"],
                json.loads(row["data"]),
            )
            for row in found
        ]

    def wait_events(self, seq: int, timeout_s: float) -> bool:
        """Wait until there is an event with a higher number; whether there is."""
        with self._event_added:
            return self._event_added.wait_for(lambda: self._last_seq > seq, timeout_s)

    def _events(self) -> _Announcement:
        return _Announcement(self)

    def _announce(self) -> None:
        """Wake those who wait for events; after the commit."""
        seq = getattr(self._inserted, "seq", 0)
        with self._event_added:
            self._last_seq = max(self._last_seq, seq)
            self._event_added.notify_all()

    # ---- attempts of jobs

    def record_read(self, attempt: str, stream_id: str) -> None:
        """An attempt read a stream. Said once is enough."""
        with self._database.transaction() as writer:
            info = self.stream_by_id(stream_id)
            writer.execute(
                "INSERT OR IGNORE INTO attempt_read VALUES (?, ?, ?, ?, ?)",
                (attempt, info.id, info.path, info.version, info.digest),
            )

    def attempt_reads(self, attempt: str) -> tuple[StreamRef, ...]:
        found = self._database.rows("SELECT * FROM attempt_read WHERE attempt = ? ORDER BY rowid", attempt)
        return tuple(StreamRef(row["stream"], row["path"], row["version"], row["digest"]) for row in found)

    def attempt_writes(self, attempt: str) -> tuple[StreamRef, ...]:
        """What the attempt has staged, raw companions left out."""
        staged = [info for info in self._staged(attempt) if info.raw_of is None]
        return tuple(StreamRef(info.id, info.path, info.version, info.digest) for info in staged)

    def attempt_state(self, attempt: str) -> str | None:
        """`open`, `committed`, `discarded`, or None for an attempt that has written nothing."""
        row = self._database.row("SELECT state FROM attempt WHERE id = ?", attempt)
        return None if row is None else str(row["state"])

    def _open_attempt(self, writer: sqlite3.Connection, attempt: str) -> None:
        state = self.attempt_state(attempt)
        if state not in (None, _STAGED):
            raise Conflict(f"attempt {attempt} was {state}; it writes nothing any more", attempt=attempt)
        writer.execute("INSERT OR IGNORE INTO attempt VALUES (?, ?, '[]')", (attempt, _STAGED))

    def commit_attempt(self, attempt: str, kind: str, data: Attrs) -> tuple[StreamRef, ...]:
        """Publish what the attempt wrote, with its events and the event `kind` of the job, in one transaction.

        Committing again returns the same and changes nothing.

        Raises
        ------
        StreamNotFinal
            It left a stream open.
        Conflict
            It was discarded.
        """
        with self._events(), self._database.transaction() as writer:
            state = self.attempt_state(attempt)
            if state == _DISCARDED:
                raise Conflict(f"attempt {attempt} was discarded; it cannot be committed", attempt=attempt)
            if state != _COMMITTED:
                infos = self._staged(attempt)
                self._check_final(infos, f"attempt {attempt}")
                published = [[info.id, info.path, info.version, info.digest] for info in infos]
                writer.execute("UPDATE stream SET attempt = NULL WHERE attempt = ?", (attempt,))
                self._fresh.changed([info.id for info in infos])
                writer.execute(
                    "INSERT OR REPLACE INTO attempt VALUES (?, ?, ?)", (attempt, _COMMITTED, rows.dumps(published))
                )
                self._announce_final(writer, infos)
                self._insert_event(kind, "", "", 0, data)
            row = self._database.row("SELECT published FROM attempt WHERE id = ?", attempt)
        assert row is not None
        return tuple(StreamRef(*each) for each in json.loads(row["published"]))

    def discard_attempt(self, attempt: str) -> list[str]:
        """Drop what the attempt wrote, and refuse what it still writes; the ids of the streams.

        Raises
        ------
        Conflict
            It is committed.
        """
        with self._database.transaction() as writer:
            if self.attempt_state(attempt) == _COMMITTED:
                raise Conflict(f"attempt {attempt} is committed; what it wrote is published", attempt=attempt)
            ids = [info.id for info in self._staged(attempt)]
            writer.execute("DELETE FROM stream WHERE attempt = ?", (attempt,))
            self._fresh.changed(ids)
            self._bury(writer, ids)
            writer.execute("INSERT OR REPLACE INTO attempt VALUES (?, ?, '[]')", (attempt, _DISCARDED))
        return ids

    def _staged(self, attempt: str) -> list[StreamInfo]:
        found = self._database.rows("SELECT * FROM stream WHERE attempt = ? ORDER BY ordinal", attempt)
        return [rows.stream_info(row) for row in found]


class _Announcement:
    """Around a transaction that may add events: tells of them when it has committed."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __enter__(self) -> None:
        self._catalog._inserted.seq = 0

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._catalog._announce()
