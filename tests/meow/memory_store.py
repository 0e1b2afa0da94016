"""A buffer in memory with what a rule engine needs of `hiss.store.Store`: streams, events, attempts, and going away.

What it has it does as the protocol says: versions, staged outputs that one commit publishes, fencing, reads by attempt,
events in order and for ever. It keeps no blocks. Thread-safe. `away` makes every call raise `ServerUnreachable`, and
ends the iterators of events with it, as a data process that died does.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hiss.errors import CollectionNotFound, Conflict, ServerUnreachable, StreamNotFound
from hiss.model import (
    AckLevel,
    Caller,
    CollectionInfo,
    Completeness,
    Event,
    FrameSpec,
    Keep,
    NodeStatus,
    StageInfo,
    StreamInfo,
    StreamState,
    StreamWatch,
)
from hiss.workflow import StreamRef


class MemoryStore:
    def __init__(self, node: str = "node") -> None:
        self.node = node
        self.clock_ns: Callable[[], int] | None = None  # of events; None: their number
        self._condition = threading.Condition()
        self._events: list[Event] = []
        self._streams: dict[tuple[str, int], StreamInfo] = {}
        self._attempt_of: dict[str, str] = {}  # staged stream's id -> attempt
        self._reads: dict[str, list[StreamRef]] = {}
        self._committed: dict[str, tuple[StreamRef, ...]] = {}
        self._discarded: set[str] = set()
        self._away = False
        self.watches: list[StreamWatch] = []
        self._ids = itertools.count(1)
        self.calls: list[tuple[str, str]] = []  # commits and discards, in order

    # ---- what tests do to it

    def set_away(self, away: bool) -> None:
        with self._condition:
            self._away = away
            self._condition.notify_all()

    def seal(
        self,
        path: str,
        *,
        attrs: Mapping[str, Any] | None = None,
        gaps: int = 0,
        caller: Caller | None = None,
        stages: tuple[StageInfo, ...] = (),
        raw_id: str | None = None,
    ) -> StreamInfo:
        """A new version of a stream, sealed at once; staged where an attempt makes it."""
        attempt = caller.attempt if caller else None
        with self._condition:
            self._check_here()
            if attempt in self._discarded or attempt in self._committed:
                raise Conflict(f"attempt {attempt} is over")
            collection, _, name = path.rpartition("/")
            version = 1 + max((known for at, known in self._streams if at == path), default=0)
            number = next(self._ids)
            info = StreamInfo(
                id=f"{number:032x}",
                collection=collection,
                name=name,
                version=version,
                frame=FrameSpec("<u2", (4, 4)),
                columns=(),
                ack=AckLevel.DURABLE,
                keep=Keep.RESULT,
                attrs=dict(attrs or {}),
                stages=stages,
                state=StreamState.SEALED,
                completeness=Completeness(3, 96, gaps, 0, 2),
                digest=f"{number:016x}",
                created_ns=number,
                final_ns=number,
                raw_id=raw_id,
                produced_by=attempt.partition(".")[0] if attempt else None,
            )
            self._streams[path, version] = info
            if attempt:
                self._attempt_of[info.id] = attempt
            else:
                self._emit("stream.sealed", info.collection, info.name, info.version, {"produced_by": None})
            return info

    def read_by(self, attempt: str, info: StreamInfo) -> None:
        with self._condition:
            self._reads.setdefault(attempt, []).append(_ref(info))

    def delete(self, path: str, version: int) -> None:
        with self._condition:
            del self._streams[path, version]

    def emit(
        self, kind: str, collection: str, stream: str = "", version: int = 0, data: Mapping[str, Any] | None = None
    ) -> Event:
        with self._condition:
            return self._emit(kind, collection, stream, version, data or {})

    def all_events(self) -> list[Event]:
        with self._condition:
            return list(self._events)

    # ---- hiss.store.Store

    def watch_streams(self, watches: Sequence[StreamWatch]) -> None:
        with self._condition:
            self._check_here()
            self.watches = list(watches)

    def publish_event(self, kind: str, path: str, version: int, data: Mapping[str, Any]) -> Event:
        collection, _, stream = path.rpartition("/") if version else (path, "", "")
        with self._condition:
            return self._emit(kind, collection, stream, version, data)

    def status(self) -> NodeStatus:
        with self._condition:
            self._check_here()
        return NodeStatus(self.node, "0", "boot", 0, "", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {})

    def events(self, after: int, stop: threading.Event, *, follow: bool = True) -> Iterator[Event]:
        place = after
        while not stop.is_set():
            with self._condition:
                self._check_here()
                if place >= len(self._events):
                    if not follow:
                        return
                    self._condition.wait(0.05)
                    continue
                event = self._events[place]
            place += 1
            yield event

    def stream(self, path: str, version: int | None = None) -> StreamInfo:
        with self._condition:
            self._check_here()
            versions = [known for at, known in self._streams if at == path and self._is_public((at, known))]
            wanted = max(versions, default=0) if version is None else version
            if wanted not in versions:
                raise StreamNotFound(f"no stream {path} version {version}")
            return self._streams[path, wanted]

    def streams(self, collection: str, *, all_versions: bool = False) -> list[StreamInfo]:
        with self._condition:
            self._check_here()
            found = [
                info for key, info in self._streams.items() if info.collection == collection and self._is_public(key)
            ]
            if all_versions:
                return found
            newest = {info.name: info for info in sorted(found, key=lambda info: info.version)}
            return list(newest.values())

    def collection(self, path: str) -> CollectionInfo:
        found = [info for info in self.collections() if info.path == path]
        if not found:
            raise CollectionNotFound(f"no collection {path}")
        return found[0]

    def collections(self, prefix: str = "") -> list[CollectionInfo]:
        with self._condition:
            self._check_here()
            paths = sorted({info.collection for info in self._streams.values() if info.collection.startswith(prefix)})
        return [CollectionInfo(path, {}, (), {}, False, 0, ()) for path in paths]

    def commit_attempt(self, attempt: str, event_kind: str, event: Mapping[str, Any]) -> tuple[StreamRef, ...]:
        with self._condition:
            self._check_here()
            self.calls.append(("commit", attempt))
            if attempt in self._committed:
                return self._committed[attempt]
            if attempt in self._discarded:
                raise Conflict(f"attempt {attempt} was discarded")
            outputs = [info for info in self._streams.values() if self._attempt_of.get(info.id) == attempt]
            for info in outputs:
                del self._attempt_of[info.id]
                about = {"produced_by": info.produced_by}
                self._emit("stream.sealed", info.collection, info.name, info.version, about)
            self._emit(event_kind, "", "", 0, dict(event))
            self._committed[attempt] = tuple(_ref(info) for info in outputs)
            return self._committed[attempt]

    def attempt_writes(self, attempt: str) -> tuple[StreamRef, ...]:
        with self._condition:
            self._check_here()
            return tuple(_ref(info) for info in self._streams.values() if self._attempt_of.get(info.id) == attempt)

    def discard_attempt(self, attempt: str) -> None:
        with self._condition:
            self._check_here()
            self.calls.append(("discard", attempt))
            if attempt in self._committed:
                raise Conflict(f"attempt {attempt} is committed")
            self._discarded.add(attempt)
            for key, info in list(self._streams.items()):
                if self._attempt_of.get(info.id) == attempt:
                    del self._streams[key]

    def attempt_reads(self, attempt: str) -> tuple[StreamRef, ...]:
        with self._condition:
            self._check_here()
            return tuple(self._reads.get(attempt, ()))

    # ----

    def _check_here(self) -> None:
        if self._away:
            raise ServerUnreachable("the buffer is away")

    def _is_public(self, key: tuple[str, int]) -> bool:
        return self._streams[key].id not in self._attempt_of

    def _emit(self, kind: str, collection: str, stream: str, version: int, data: Mapping[str, Any]) -> Event:
        seq = len(self._events) + 1
        time_ns = seq if self.clock_ns is None else self.clock_ns()
        event = Event(self.node, seq, kind, time_ns, collection, stream, version, data)
        self._events.append(event)
        self._condition.notify_all()
        return event


def _ref(info: StreamInfo) -> StreamRef:
    return StreamRef(info.id, info.path, info.version, info.digest)
