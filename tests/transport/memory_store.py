"""A Store in memory: a second, tiny implementation of the parts of the contract that the transport's tests exercise.

Order, idempotence, fencing, gaps, versions, sealing, events and attempts behave as `hiss.store.Store` says; there are
no kernels in pipelines and nothing is durable. A test may hold acknowledgements back and decide when they come.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hiss.errors import (
    AlreadyExists,
    BlockConflict,
    CollectionNotFound,
    Conflict,
    DigestMismatch,
    HissError,
    KernelNotFound,
    ProducerFenced,
    SpecMismatch,
    StreamFinal,
    StreamNotFinal,
    StreamNotFound,
)
from hiss.extent import Extent, block_digests
from hiss.model import (
    Ack,
    AppendStart,
    Attrs,
    BlockStatus,
    BoundKernel,
    Caller,
    CollectionInfo,
    Completeness,
    Event,
    Feedback,
    FrameSpec,
    KernelDef,
    KernelInfo,
    LedgerEntry,
    NodeStatus,
    Selection,
    StageInfo,
    StreamInfo,
    StreamSpec,
    StreamState,
    StreamWatch,
    check_name,
    check_path,
    split_stream_path,
)
from hiss.workflow import Meow, StreamRef


@dataclass
class Stream:
    """One version of a stream, and what is in it."""

    info: StreamInfo
    attempt: str | None = None
    blocks: dict[int, Extent] = field(default_factory=dict)  # index -> extent of one block
    session: MemorySession | None = None

    def next_index(self) -> int:
        return max(self.blocks, default=-1) + 1

    def gaps(self, end: int) -> tuple[tuple[int, int], ...]:
        """Ranges below `end` of which nothing is known."""
        if not self.blocks:
            return ()
        missing = [index for index in range(min(self.blocks), end) if index not in self.blocks]
        return _ranges(missing)

    def stored(self) -> list[int]:
        return [index for index in sorted(self.blocks) if self.blocks[index].status[0] == BlockStatus.STORED]

    def completeness(self, end: int | None = None) -> Completeness:
        handled = sorted(self.blocks)
        stored = self.stored()
        declared = [index for index in handled if index not in set(stored)]
        ledger = [LedgerEntry(a, b, "producer", "declared missing") for a, b in _ranges(declared)]
        ledger += [LedgerEntry(a, b, "transport", "never received") for a, b in self.gaps(end or self.next_index())]
        return Completeness(
            blocks=len(stored),
            bytes=sum(int(self.blocks[index].length[0]) for index in stored),
            gaps=sum(entry.count for entry in ledger),
            first_index=handled[0] if handled else None,
            last_index=handled[-1] if handled else None,
            ledger=tuple(sorted(ledger, key=lambda entry: entry.first)),
        )


def _ranges(indices: list[int]) -> tuple[tuple[int, int], ...]:
    out: list[tuple[int, int]] = []
    for index in indices:
        if out and out[-1][1] == index - 1:
            out[-1] = out[-1][0], index
        else:
            out.append((index, index))
    return tuple(out)


class MemorySession:
    """One producer's append. With `store.hold_acks` it acknowledges only what the test releases."""

    def __init__(
        self,
        store: MemoryStore,
        stream: Stream,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
    ) -> None:
        self._store = store
        self._stream = stream
        self._on_ack = on_ack
        self._on_error = on_error
        self.on_feedback = on_feedback
        self.received = 0
        self.error: HissError | None = None
        self.closed = False
        self.start = AppendStart(
            store.credit_bytes, stream.next_index(), stream.gaps(stream.next_index()), store.boot_id
        )

    def fail(self, error: HissError) -> None:
        if self.error is None:
            self.error = error
            self._on_error(error)

    def send(self, extent: Extent) -> None:
        with self._store.changed:
            if self.error is not None:
                raise self.error
            assert not self.closed, "send after close"
            self._store.before_send(extent)
            self._take(extent)
            self.received += len(extent)
            self._store.changed.notify_all()
        if not self._store.hold_acks:
            self.acknowledge()

    def acknowledge(self) -> None:
        self._on_ack(Ack(self.received, self.received, self.received))

    def close(self) -> None:
        with self._store.changed:
            self.closed = True
            if self._stream.session is self:
                self._stream.session = None
            self._store.changed.notify_all()
        if self.error is None:
            self.acknowledge()

    def _take(self, extent: Extent) -> None:
        info = self._stream.info
        if info.state.final:
            raise StreamFinal(f"stream {info.path} is {info.state.name.lower()}; open a new version", path=info.path)
        if extent.columns.dtype != info.columns_dtype:
            raise SpecMismatch(f"stream {info.path}: columns {extent.columns.dtype}, expected {info.columns_dtype}")
        here = extent.status == BlockStatus.STORED
        expected = info.frame.block_bytes
        if expected is not None and (extent.length[here] != expected).any():
            raise SpecMismatch(f"stream {info.path}: blocks of {extent.length[here]} bytes, expected {expected}")
        if (block_digests(extent.data, extent.length)[here] != extent.digest[here]).any():
            raise DigestMismatch(f"stream {info.path}: a block that is not what was sent; send it again")
        for row in range(len(extent)):
            self._take_block(int(extent.index[row]), _own(extent, row))

    def _take_block(self, index: int, block: Extent) -> None:
        known = self._stream.blocks.get(index)
        if known is None:
            self._stream.blocks[index] = block
        elif known.digest[0] != block.digest[0] or known.status[0] != block.status[0]:
            raise BlockConflict(
                f"stream {self._stream.info.path}: block {index} is there with other bytes", index=index
            )


def _own(extent: Extent, row: int) -> Extent:
    """One block of an extent, its bytes copied."""
    block = extent.select(np.array([row])) if len(extent) > 1 else extent
    return replace(block, data=block.data.copy(), received_ns=np.array([time.time_ns()]))


class MemoryStore:
    """A Store in memory, for one or many callers: `for_caller` gives each its view."""

    def __init__(self, credit_bytes: int = 64 << 20, meow: Meow | None = None) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.credit_bytes = credit_bytes
        self.boot_id = f"boot-{id(self):x}"
        self.hold_acks = False
        self.before_send: Callable[[Extent], None] = lambda extent: None
        self.callers: list[Caller] = []
        self._meow = meow
        self._collections: dict[str, CollectionInfo] = {}
        self._streams: dict[str, Stream] = {}
        self._kernels: dict[str, KernelInfo] = {}
        self._events: list[Event] = []
        self._reads: dict[str, dict[str, StreamRef]] = {}
        self._committed: dict[str, tuple[StreamRef, ...]] = {}
        self._caller = Caller()
        self.watches: list[StreamWatch] = []

    def for_caller(self, caller: Caller) -> MemoryStore:
        """This store, as `caller` uses it."""
        self.callers.append(caller)
        view = object.__new__(MemoryStore)
        view.__dict__ = self.__dict__ | {"_caller": caller}
        return view

    @property
    def meow(self) -> Meow:
        assert self._meow is not None
        return self._meow

    def close(self) -> None:
        with self.changed:
            self.changed.notify_all()

    # ---- collections

    def create_collection(self, path: str, attrs: Attrs, expect: Sequence[str]) -> CollectionInfo:
        with self.changed:
            old = self._collections.get(check_path(path, "collection"))
            if old is None:
                old = CollectionInfo(path, {}, (), {}, False, time.time_ns(), ())
            info = replace(old, attrs={**old.attrs, **attrs}, expect=tuple(dict.fromkeys((*old.expect, *expect))))
            self._collections[path] = info
            return self.collection(path)

    def collection(self, path: str) -> CollectionInfo:
        with self.changed:
            if path not in self._collections:
                raise CollectionNotFound(f"no collection {path!r}; create it", path=path)
            names = dict.fromkeys(stream.info.name for stream in self._newest(path))
            return replace(self._collections[path], streams=tuple(names))

    def collections(self, prefix: str = "") -> list[CollectionInfo]:
        with self.changed:
            paths = sorted(self._collections)
            return [self.collection(path) for path in paths if f"{path}/".startswith(prefix and f"{prefix}/")]

    def delete_collection(self, path: str) -> None:
        with self.changed:
            self.collection(path)
            for stream in self._newest(path, all_versions=True):
                del self._streams[stream.info.id]
            del self._collections[path]

    def seal_collection(self, path: str) -> CollectionInfo:
        with self.changed:
            info = self.collection(path)
            for stream in self._newest(path):
                if not stream.info.state.final:
                    raise StreamNotFinal(f"stream {stream.info.path} is open; seal or abort it first")
            if not info.sealed:
                self._collections[path] = replace(self._collections[path], sealed=True)
                self._tell("collection.sealed", path, "", 0, {})
            return self.collection(path)

    def join(self, collection: str, name: str, streams: Sequence[str]) -> CollectionInfo:
        with self.changed:
            info = self.collection(collection)
            joins = {**info.joins, check_name(name, "join"): tuple(streams)}
            self._collections[collection] = replace(self._collections[collection], joins=joins)
            return self.collection(collection)

    # ---- streams

    def create_stream(
        self, collection: str, name: str, spec: StreamSpec, *, resume: bool = False, new_version: bool = False
    ) -> StreamInfo:
        with self.changed:
            self.collection(collection)
            old = [stream for stream in self._newest(collection) if stream.info.name == check_name(name, "stream")]
            if old and resume and not old[0].info.state.final:
                return self._info(old[0])
            if old and not new_version:
                raise AlreadyExists(f"stream {collection}/{name} exists; use resume or new_version", path=name)
            version = old[0].info.version + 1 if old else 1
            identity = hashlib.blake2b(f"{collection}/{name}@{version}".encode(), digest_size=16).hexdigest()
            stages = tuple(
                StageInfo(bound.kernel.name, bound.kernel.kind, "0" * 16, bound.kernel.source, {}, bound.budget_s)
                for bound in spec.kernels
            )
            info = StreamInfo(
                id=identity,
                collection=collection,
                name=name,
                version=version,
                frame=spec.frame,
                columns=spec.columns,
                ack=spec.ack,
                keep=spec.keep,
                attrs=spec.attrs,
                stages=stages,
                state=StreamState.OPEN,
                completeness=Completeness(0, 0, 0, None, None),
                digest="",
                created_ns=time.time_ns(),
                final_ns=0,
                produced_by=self._caller.attempt,
            )
            self._streams[identity] = Stream(info, attempt=self._caller.attempt)
            return info

    def stream(self, path: str, version: int | None = None) -> StreamInfo:
        with self.changed:
            collection, name = split_stream_path(path)
            for stream in self._newest(collection, all_versions=version is not None):
                if stream.info.name == name and version in (None, stream.info.version):
                    self._note_read(stream)
                    return self._info(stream)
            raise StreamNotFound(f"no stream {path!r}, version {version or 'newest'}", path=path)

    def streams(self, collection: str, *, all_versions: bool = False) -> list[StreamInfo]:
        with self.changed:
            self.collection(collection)
            return [self._info(stream) for stream in self._newest(collection, all_versions=all_versions)]

    def amend_stream(self, stream_id: str, attrs: Attrs) -> StreamInfo:
        with self.changed:
            stream = self._open(stream_id)
            stream.info = replace(stream.info, attrs={**stream.info.attrs, **attrs})
            return self._info(stream)

    def open_append(
        self,
        stream_id: str,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
    ) -> MemorySession:
        with self.changed:
            stream = self._open(stream_id)
            if stream.session is not None:
                stream.session.fail(ProducerFenced(f"another producer took over stream {stream.info.path}"))
            stream.session = MemorySession(self, stream, on_ack, on_error, on_feedback)
            self.changed.notify_all()
            return stream.session

    def seal_stream(self, stream_id: str, end_index: int | None = None) -> StreamInfo:
        with self.changed:
            stream = self._find(stream_id)
            if stream.info.state is StreamState.SEALED:
                return self._info(stream)
            return self._finish(self._open(stream_id), StreamState.SEALED, "", end_index)

    def abort_stream(self, stream_id: str, reason: str) -> StreamInfo:
        with self.changed:
            return self._finish(self._open(stream_id), StreamState.ABORTED, reason, None)

    def delete_stream(self, stream_id: str) -> None:
        with self.changed:
            del self._streams[self._find(stream_id).info.id]

    def read(self, stream_id: str, selection: Selection) -> Iterator[Extent]:
        with self.changed:
            stream = self._find(stream_id)
            self._note_read(stream)
            indices = stream.stored()
        first = indices[0] if selection.start is None and indices else selection.start or 0
        wanted = [i for i in indices if i >= first and (selection.stop is None or i < selection.stop)]
        wanted = [i for i in wanted if (i - first) % selection.step == 0]
        choose = selection.chooser(stream.info.columns, f"stream {stream.info.path}")
        if choose is not None:
            blocks = stream.blocks
            wanted = [i for i in wanted if choose(blocks[i].time_ns, blocks[i].columns)[0]]
        for index in wanted[-1:] if selection.newest else wanted:
            block = stream.blocks[index]
            yield block if selection.data else replace(block, data=np.zeros(0, np.uint8))

    def out_frame(self, stream_id: str, kernels: Sequence[BoundKernel]) -> FrameSpec:
        assert not kernels, "there are no kernels here"
        return self._find(stream_id).info.frame

    def follow(self, stream_id: str, start: int | None, stop: threading.Event) -> Iterator[Extent]:
        at = start
        while not stop.is_set():
            with self.changed:
                stream = self._find(stream_id)
                ready = [index for index in stream.stored() if at is None or index >= at]
                if not ready:
                    if stream.info.state.final:
                        return
                    self.changed.wait(0.05)
                    continue
            for index in ready:
                yield stream.blocks[index]
            at = ready[-1] + 1

    def reduce(self, path: str, version: int | None, kernel: str) -> Any:
        info = self.stream(path, version)
        if not info.state.final:
            raise StreamNotFinal(f"stream {path} is open; seal it first")
        frames = np.stack([info.frame.block_array(e.data) for e in self.read(info.id, Selection())])
        return {"mean": frames.mean, "maximum": frames.max}[kernel](axis=0)

    def send_feedback(self, stream_id: str, data: Any) -> bool:
        with self.changed:
            session = self._find(stream_id).session
            if session is None:
                return False
            session.on_feedback(Feedback(data, time.time_ns()))
            return True

    # ---- kernels

    def register_kernel(self, definition: KernelDef) -> KernelInfo:
        with self.changed:
            digest = hashlib.blake2b(definition.source.encode(), digest_size=16).hexdigest()
            return self._kernels.setdefault(digest, KernelInfo(definition, digest, time.time_ns()))

    def kernels(self) -> list[KernelInfo]:
        with self.changed:
            return list(self._kernels.values())

    def kernel(self, name: str) -> KernelInfo:
        with self.changed:
            for info in reversed(self.kernels()):
                if name in (info.definition.name, info.hash):
                    return info
            raise KernelNotFound(f"no kernel {name!r}; register it", name=name)

    # ---- events and administration

    def events(self, after: int, stop: threading.Event, *, follow: bool = True) -> Iterator[Event]:
        while not stop.is_set():
            with self.changed:
                ready = self._events[max(after, 0) :]
                if not ready:
                    if not follow:
                        return
                    self.changed.wait(0.05)
                    continue
            yield from ready
            after = ready[-1].seq

    def watch_streams(self, watches: Sequence[StreamWatch]) -> None:
        with self.changed:
            self.watches = list(watches)

    def publish_event(self, kind: str, path: str, version: int, data: Attrs) -> Event:
        collection, _, stream = path.rpartition("/") if version else (path, "", "")
        with self.changed:
            return self._tell(kind, collection, stream, version, data)

    def status(self) -> NodeStatus:
        with self.changed:
            streams = [stream.info for stream in self._streams.values()]
            return NodeStatus(
                node="memory",
                version="0",
                boot_id=self.boot_id,
                started_ns=1,
                data_directory="",
                disk_free_bytes=0,
                arena_bytes=self.credit_bytes,
                arena_free_bytes=self.credit_bytes,
                segments=0,
                log_bytes=0,
                collections=len(self._collections),
                streams=len(streams),
                streams_open=sum(not info.state.final for info in streams),
                blocks_received=0,
                bytes_received=0,
                recovery={"clean": True},
            )

    # ---- attempts

    def commit_attempt(self, attempt: str, event_kind: str, event: Attrs) -> tuple[StreamRef, ...]:
        with self.changed:
            if attempt not in self._committed:
                streams = [stream for stream in self._streams.values() if stream.attempt == attempt]
                for stream in streams:
                    if not stream.info.state.final:
                        raise StreamNotFinal(f"attempt {attempt}: stream {stream.info.path} is open")
                    stream.attempt = None
                self._committed[attempt] = tuple(_ref(stream.info) for stream in streams)
                self._tell(event_kind, "", "", 0, event)
            return self._committed[attempt]

    def attempt_writes(self, attempt: str) -> tuple[StreamRef, ...]:
        with self.changed:
            return tuple(_ref(stream.info) for stream in self._streams.values() if stream.attempt == attempt)

    def discard_attempt(self, attempt: str) -> None:
        with self.changed:
            if attempt in self._committed:
                raise Conflict(f"attempt {attempt} is committed")
            self._streams = {k: v for k, v in self._streams.items() if v.attempt != attempt}

    def attempt_reads(self, attempt: str) -> tuple[StreamRef, ...]:
        with self.changed:
            return tuple(self._reads.get(attempt, {}).values())

    # ---- inside

    def _newest(self, collection: str, all_versions: bool = False) -> list[Stream]:
        """The streams of a collection that the caller sees, by name; the newest version of each first, or only."""
        visible = [s for s in self._streams.values() if s.attempt in (None, self._caller.attempt)]
        found = [s for s in visible if s.info.collection == collection]
        found.sort(key=lambda s: (s.info.name, -s.info.version))
        if all_versions:
            return found
        return list({stream.info.name: stream for stream in reversed(found)}.values())[::-1]

    def _find(self, stream_id: str) -> Stream:
        if stream_id not in self._streams:
            raise StreamNotFound(f"no stream of id {stream_id!r}", id=stream_id)
        return self._streams[stream_id]

    def _open(self, stream_id: str) -> Stream:
        stream = self._find(stream_id)
        if stream.info.state.final:
            raise StreamFinal(f"stream {stream.info.path} is {stream.info.state.name.lower()}", path=stream.info.path)
        return stream

    def _info(self, stream: Stream) -> StreamInfo:
        if not stream.info.state.final:
            stream.info = replace(stream.info, completeness=stream.completeness())
        return stream.info

    def _finish(self, stream: Stream, state: StreamState, reason: str, end_index: int | None) -> StreamInfo:
        digests = b"".join(stream.blocks[i].digest.tobytes() for i in stream.stored())
        stream.info = replace(
            stream.info,
            state=state,
            completeness=stream.completeness(end_index),
            digest=hashlib.blake2b(digests, digest_size=8).hexdigest(),
            final_ns=time.time_ns(),
            abort_reason=reason,
        )
        info = stream.info
        self._tell(f"stream.{state.name.lower()}", info.collection, info.name, info.version, {"id": info.id})
        return info

    def _tell(self, kind: str, collection: str, stream: str, version: int, data: Attrs) -> Event:
        seq = len(self._events) + 1
        self._events.append(Event("memory", seq, kind, time.time_ns(), collection, stream, version, dict(data)))
        self.changed.notify_all()
        return self._events[-1]

    def _note_read(self, stream: Stream) -> None:
        if self._caller.attempt is not None:
            self._reads.setdefault(self._caller.attempt, {})[stream.info.id] = _ref(stream.info)


def _ref(info: StreamInfo) -> StreamRef:
    return StreamRef(info.id, info.path, info.version, info.digest)
