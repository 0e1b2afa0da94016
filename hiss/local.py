"""The `Store` protocol on a node in this process: one caller's view of it.

Checks names, rights and specifications; the work is done by `node` (streams that are written), `readout` (reads) and
the catalog. Used by every gRPC call of a server and by `hiss.open`."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from hiss import __version__, attachment, limits
from hiss.drain_policy import Drain, DrainPolicy, DrainState
from hiss.errors import (
    Conflict,
    HissError,
    InvalidInput,
    InvalidName,
    LimitExceeded,
    PermissionRefused,
    SpecMismatch,
    StreamFinal,
    StreamNotFinal,
    Unavailable,
)
from hiss.extent import Extent
from hiss.kernels import ResolvedStage, builtin, check, check_parameters
from hiss.landing import check_block_fits
from hiss.milestones import check_wishes
from hiss.model import (
    RAW_SUFFIX,
    Ack,
    Attachment,
    Attrs,
    BoundKernel,
    Caller,
    CollectionInfo,
    Completeness,
    Event,
    Feedback,
    FrameSpec,
    Keep,
    KernelDef,
    KernelInfo,
    KernelKind,
    NodeStatus,
    Replay,
    Selection,
    StageInfo,
    StreamInfo,
    StreamSpec,
    StreamState,
    StreamWatch,
    check_name,
    check_path,
    checked_attrs,
    split_stream_path,
)
from hiss.node import Node
from hiss.readout import with_warnings
from hiss.replay import replay
from hiss.rights import Rights
from hiss.session import Session
from hiss.sharing import GroupInfo, IndexRange, Member, Taken, Wish
from hiss.space import Evicted, Reservation, Retention, parse_size
from hiss.spare_memory import SpareMemory
from hiss.tokens import NewToken, TokenInfo, check_not_more, expiry_ns, is_within
from hiss.workflow import FEEDBACK, Meow, StreamRef

_LOOK_S = 0.5  # how often a waiting call looks whether it was told to stop


class LocalStore:
    """What `caller` may do with `node`. Implements `store.Store`.

    Parameters
    ----------
    meow : callable, optional
        Gives the rule engine when it is asked for.
    on_close : callable, optional
        What `close` does; a view of a server's node closes nothing.
    """

    def __init__(
        self,
        node: Node,
        caller: Caller | None = None,
        *,
        meow: Callable[[], Meow] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._node = node
        self._catalog = node.catalog
        self._caller = caller or Caller()
        self._may = Rights(self._caller)
        self._meow = meow
        self._on_close = on_close
        self.spare_memory = SpareMemory()

    @property
    def meow(self) -> Meow:
        if self._meow is None:
            raise Unavailable("this buffer runs without a rule engine")
        return self._meow()

    def close(self) -> None:
        if self._on_close is not None:
            self._on_close()

    # ---- collections

    def create_collection(self, path: str, attrs: Attrs, expect: Sequence[str]) -> CollectionInfo:
        self._may.write(check_path(path, "collection"))
        for name in expect:
            check_name(name, "expected stream")
        if len(expect) > limits.EXPECTED_STREAMS_MAX:
            raise LimitExceeded(f"{len(expect)} expected streams, allowed are {limits.EXPECTED_STREAMS_MAX}")
        return self._catalog.create_collection(path, checked_attrs(attrs, f"collection {path}"), expect)

    def collection(self, path: str) -> CollectionInfo:
        self._may.see(path)
        return self._catalog.collection(path)

    def collections(self, prefix: str = "") -> list[CollectionInfo]:
        return [info for info in self._catalog.collections(prefix) if self._may.sees(info.path)]

    def delete_collection(self, path: str) -> None:
        self._may.delete(path)
        for info in self._catalog.streams(path, all_versions=True):
            self._check_deletable(info)
        for stream_id in self._catalog.delete_collection(path):
            self._node.drop(stream_id, path)

    def seal_collection(self, path: str) -> CollectionInfo:
        self._may.write(path)
        self._catalog.seal_collection(path)
        return self._catalog.collection(path)

    def join(self, collection: str, name: str, streams: Sequence[str]) -> CollectionInfo:
        self._may.write(collection)
        check_name(name, "join")
        if not 0 < len(streams) <= limits.EXPECTED_STREAMS_MAX or len(set(streams)) != len(streams):
            raise InvalidInput(f"join {name!r}: {list(streams)[:10]}; name each module once, at least one")
        self._catalog.join(collection, name, [check_name(stream, "stream") for stream in streams])
        return self._catalog.collection(collection)

    def attach(self, collection: str, kernel: BoundKernel, streams: str) -> CollectionInfo:
        self._may.administer("attaches kernels to collections", check_path(collection, "collection"))
        self._may.read_parameters([kernel])
        check_parameters(check(kernel.kernel), kernel.params)
        (stage,) = self._node.readout.record([kernel])
        attached = Attachment(streams, stage, kernel.shadow, self._node.clock_ns())
        self._catalog.attachments.attach(collection, attached)
        return self._catalog.collection(collection)

    def detach(self, collection: str, kernel: str, streams: str | None = None) -> CollectionInfo:
        self._may.administer("detaches kernels from collections", check_path(collection, "collection"))
        info = self._catalog.collection(collection)
        self._catalog.attachments.detach(info.path, kernel, streams)
        return self._catalog.collection(collection)

    # ---- streams

    def create_stream(
        self, collection: str, name: str, spec: StreamSpec, *, resume: bool = False, new_version: bool = False
    ) -> StreamInfo:
        where = f"{check_path(collection, 'collection')}/{check_name(name, 'stream')}"
        self._may.write(where)
        self._may.read_parameters(spec.kernels)
        check_wishes(spec.attrs, f"stream {where}")
        if name.endswith(RAW_SUFFIX):
            raise InvalidName(
                f"stream {where}: names that end in {RAW_SUFFIX!r} are kept for raw companions", name=name
            )
        if resume and (found := self._open_one(collection, name)) is not None:
            _check_same(found, spec, self._came_as(found).frame)
            return self._node.complete(found)
        if spec.kernels:  # before they are compiled; `add_streams` looks again
            self._catalog.check_takes_streams(collection)
        infos = self._new_streams(collection, name, spec)
        made = self._catalog.add_streams(infos, new_version=new_version, attempt=self._caller.attempt)[0]
        self._node.milestones.opened(made)
        return made

    def _open_one(self, collection: str, name: str) -> StreamInfo | None:
        found = [info for info in self._catalog.streams(collection, attempt=self._caller.attempt) if info.name == name]
        if found and found[0].state.final:
            raise StreamFinal(f"stream {found[0].path} is {found[0].state.name.lower()}; it cannot be resumed")
        return found[0] if found else None

    def _came_as(self, info: StreamInfo) -> StreamInfo:
        return info if info.raw_id is None else self._catalog.stream_by_id(info.raw_id)

    def _new_streams(self, collection: str, name: str, spec: StreamSpec) -> list[StreamInfo]:
        """The stream and, where it has kernels, its raw companion."""
        info = StreamInfo(
            id=uuid.uuid4().hex,
            collection=collection,
            name=name,
            version=0,
            frame=spec.frame,
            columns=spec.columns,
            ack=spec.ack,
            keep=spec.keep,
            attrs=spec.attrs,
            stages=(),
            state=StreamState.OPEN,
            completeness=Completeness(0, 0, 0, None, None),
            digest="",
            created_ns=self._node.clock_ns(),
            final_ns=0,
            expendable=spec.expendable,
            produced_by=self._caller.attempt and self._caller.attempt.partition(".")[0],
        )
        if spec.kernels:
            record = self._node.readout.record
            stages = record([bound for bound in spec.kernels if not bound.shadow])
            return self._with_kernels(info, stages, record([bound for bound in spec.kernels if bound.shadow]))
        attached = attachment.for_stream(self._catalog.attachments.of(collection), name)
        if not attached:
            check_block_fits(self._node.storage.arena, f"stream {info.path}", spec.frame.item_bytes)
            return [info]
        with attachment.fitting(info.path, collection, attached):
            stages, shadows = (attachment.stages(attached, shadow=shadow) for shadow in (False, True))
            return self._with_kernels(info, stages, shadows)

    def _with_kernels(
        self, info: StreamInfo, stages: tuple[StageInfo, ...], shadows: tuple[StageInfo, ...]
    ) -> list[StreamInfo]:
        """A stream as it comes, with its kernels, checked and compiled; and its raw companion."""
        came_bytes = info.frame.item_bytes
        _check_order(info.path, stages)
        _check_keep(info, stages)
        frame, stages = self._node.readout.fitted(stages, info)
        _check_shadows(info, stages, shadows)
        leaving = replace(info, frame=frame)
        shadows = tuple(with_warnings(each, self._node.readout.shadow(each, leaving).warnings) for each in shadows)
        check_block_fits(self._node.storage.arena, f"stream {info.path}", came_bytes + frame.item_bytes)
        raw = replace(info, id=uuid.uuid4().hex, name=info.name + RAW_SUFFIX, raw_of=info.id)
        return [replace(info, frame=frame, stages=stages, shadows=shadows, raw_id=raw.id), raw]

    def stream(self, path: str, version: int | None = None) -> StreamInfo:
        self._may.see(path)
        return self._node.complete(self._catalog.stream(path, version, self._caller.attempt))

    def streams(self, collection: str, *, all_versions: bool = False) -> list[StreamInfo]:
        self._may.see(collection)
        found = self._catalog.streams(collection, all_versions=all_versions, attempt=self._caller.attempt)
        return [self._node.complete(info) for info in found]

    def amend_stream(self, stream_id: str, attrs: Attrs) -> StreamInfo:
        info = self._writable(stream_id)
        check_wishes(attrs, f"stream {info.path}")
        self._catalog.amend_stream(stream_id, checked_attrs({**info.attrs, **attrs}, f"stream {info.path}"))
        amended = self._catalog.stream_by_id(stream_id)
        self._node.milestones.opened(amended)
        return self._node.complete(amended)

    def open_append(
        self,
        stream_id: str,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
    ) -> Session:
        self._writable(stream_id)
        return self._node.open_session(stream_id, on_ack, on_error, on_feedback)

    def seal_stream(self, stream_id: str, end_index: int | None = None) -> StreamInfo:
        self._writable(stream_id)
        return self._node.finalise(stream_id, self._caller.attempt, StreamState.SEALED, end_index, "")

    def abort_stream(self, stream_id: str, reason: str) -> StreamInfo:
        self._writable(stream_id)
        return self._node.finalise(stream_id, self._caller.attempt, StreamState.ABORTED, None, reason[:1000])

    def delete_stream(self, stream_id: str) -> None:
        if stream_id in self._node.storage.stray_streams:
            if self._caller.write_prefix or self._caller.attempt is not None:
                raise PermissionRefused(
                    f"stream {stream_id} is not in the catalog, so nobody knows whose it is; an operator may delete it"
                )
            self._may.administer("deletes streams that the catalog does not know")
            self._node.drop(stream_id)
            return
        info = self._written_by_itself(self._catalog.stream_by_id(stream_id))
        self._may.delete(info.path)
        self._check_deletable(info)
        for each in [stream_id, info.raw_id]:
            if each is not None:
                self._catalog.delete_stream(each)
                self._node.drop(each, info.collection)

    def _check_deletable(self, info: StreamInfo) -> None:
        if info.raw_of is not None:
            return  # goes with its stream
        if not info.state.final:
            raise StreamNotFinal(f"stream {info.path} is open; seal or abort it before it is deleted")

    # ---- reading

    def read(self, stream_id: str, selection: Selection) -> Iterator[Extent]:
        info = self._readable(stream_id)
        self._may.read_parameters(selection.kernels)
        if self._caller.attempt is not None:
            self._catalog.record_read(self._caller.attempt, stream_id)
        return self._node.readout.read(info, selection)

    def out_frame(self, stream_id: str, kernels: Sequence[BoundKernel]) -> FrameSpec:
        info = self._readable(stream_id)
        self._may.read_parameters(kernels)
        return self._node.readout.out_frame(self._node.readout.record(kernels), info)

    def follow(self, stream_id: str, start: int | None, stop: threading.Event) -> Iterator[Extent]:
        info = self._readable(stream_id)
        source = self._node.readout.source(info)
        cursor = 0
        with source.held():
            if source.evicted:
                yield from source.read(start)
                return
            while not stop.is_set() and not self._node.closing.is_set():
                final = self._catalog.stream_by_id(stream_id).state.final
                extents, cursor_after = source.arrivals(cursor)
                for extent in extents:
                    wanted = extent if start is None else extent.select(extent.index >= start)
                    if len(wanted):
                        yield wanted
                if cursor_after == cursor:
                    if final:
                        return
                    self._node.storage.wait_arrival(stream_id, cursor, _LOOK_S)
                cursor = cursor_after

    def reduce(self, path: str, version: int | None, kernel: str) -> Any:
        self._may.read(path)
        info = self.stream(path, version)
        if not info.state.final:
            raise StreamNotFinal(f"stream {info.path} is open; seal it before it is reduced")
        return self._node.readout.reduce(info, ResolvedStage(builtin(kernel), {}, limits.KERNEL_BUDGET_S))

    def send_feedback(self, stream_id: str, data: Any) -> bool:
        if FEEDBACK not in self._caller.rights:
            self._writable(stream_id)
        try:
            text = json.dumps(data)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"feedback: {error}; use JSON values (text, numbers, lists, objects)") from None
        if len(text) > limits.FEEDBACK_BYTES_MAX:
            raise LimitExceeded(f"feedback of {len(text)} bytes as JSON, allowed are {limits.FEEDBACK_BYTES_MAX}")
        return self._node.feed_back(stream_id, json.loads(text))

    # ---- consumer groups

    def take_blocks(self, stream_id: str, member: Member, wish: Wish) -> Taken:
        return self._node.shares.take(self._readable(stream_id), member, wish)

    def settle_blocks(
        self, stream_id: str, member: Member, done: Sequence[IndexRange], back: Sequence[IndexRange] = ()
    ) -> tuple[IndexRange, ...]:
        return self._node.shares.settle(self._readable(stream_id), member, done, back)

    def consumer_groups(self, stream_id: str) -> list[GroupInfo]:
        return self._node.shares.groups(self._readable(stream_id))

    def delete_consumer_group(self, stream_id: str, group: str) -> None:
        self._node.shares.delete(self._readable(stream_id), group)

    # ---- kernels

    def promote(self, stream_id: str, kernel: str) -> StreamInfo:
        self._writable(stream_id)
        return self._node.promote(stream_id, kernel)

    def replay(self, stream_id: str, kernel: KernelDef | None = None) -> Replay:
        info = self._readable(stream_id)
        return replay(info, self._node.storage, self._node.readout, kernel)

    def register_kernel(self, definition: KernelDef) -> KernelInfo:
        self._may.whole("write", "registers kernels, which are for all collections,")
        info = KernelInfo(definition, check(definition).hash, self._node.clock_ns())
        self._catalog.put_kernel(info)
        return self._catalog.kernel(info.hash)

    def kernels(self) -> list[KernelInfo]:
        return self._catalog.kernels()

    def kernel(self, name: str) -> KernelInfo:
        return self._catalog.kernel(name)

    # ---- space

    def reserve(self, collection: str, size: int, hours: float) -> Reservation:
        self._may.administer("reserves space", check_path(collection, "collection"))
        return self._node.reservations.reserve(collection, parse_size(size), hours)

    def reservations(self) -> list[Reservation]:
        return [kept for kept in self._node.reservations.reservations() if self._may.sees(kept.collection)]

    def release(self, reservation_id: str) -> None:
        found = [kept.collection for kept in self._node.reservations.reservations() if kept.id == reservation_id]
        self._may.administer("releases reservations", found[0] if found else self._caller.write_prefix)
        self._node.reservations.release(reservation_id)

    def record_archive(self, stream_id: str, location: str, digest: str) -> StreamInfo:
        self._check_archive(stream_id, digest)
        return self._catalog.space.add_archive(stream_id, location)

    def record_archives(self, archives: Sequence[tuple[str, str, str]]) -> None:
        for stream_id, _, digest in archives:
            self._check_archive(stream_id, digest)
        self._catalog.space.add_archives([(stream_id, location) for stream_id, location, _ in archives])

    def _check_archive(self, stream_id: str, digest: str) -> None:
        info = self._catalog.stream_by_id(stream_id)
        self._may.administer("records archives", info.path)
        if not info.state.final or digest != info.digest:
            raise Conflict(
                f"stream {info.path}: an archive with digest {digest[:40]!r}, the stream has {info.digest!r}; what is "
                "there is not the whole stream",
                stream=info.path,
            )

    def retention(self, collection: str = "") -> Retention:
        self._may.see(collection)
        return self._node.evictor.policy(collection)

    def set_retention(self, collection: str, policy: Retention | None) -> Retention:
        self._may.administer("sets the retention", check_path(collection, "collection"))
        self._catalog.space.set_retention(collection, policy)
        return self._node.evictor.policy(collection)

    def evict(self, path: str = "", version: int | None = None, *, dry_run: bool = False) -> list[Evicted]:
        path = path.rstrip("/")
        self._may.administer("evicts streams", path)
        if not path:
            return self._node.evictor.look(dry_run=dry_run)
        return self._node.evictor.evict(path, version, dry_run=dry_run)

    # ---- draining by itself

    def drain_policy(self, collection: str) -> DrainPolicy:
        self._may.see(collection)
        return self._catalog.drains.policy(collection)

    def set_drain_policy(self, collection: str, policy: DrainPolicy | None) -> DrainPolicy:
        self._may.administer("says where data are drained to")
        self._catalog.drains.set_policy(check_path(collection, "collection"), policy)
        self._catalog.drains.plan([collection])
        return self._catalog.drains.policy(collection)

    def plan_drains(
        self, paths: Sequence[str], *, cursor: int | None = None, ask: bool = False, dry_run: bool = False
    ) -> list[Drain]:
        drains = self._catalog.drains
        for path in paths:
            self._may.see(path)
        if dry_run:
            wanted = [each for path in paths for each in drains.wanted(path)][: limits.DRAINS_LISTED_MAX]
            return [drains.find(each.id) or each for each in wanted]
        for path in paths:
            self._may.administer("plans what is drained", path)
        return drains.ask(paths) if ask else drains.plan(paths, cursor)

    def drains(self, path: str = "", *, unfinished: bool = False) -> list[Drain]:
        found = self._catalog.drains.entries(path, unfinished=unfinished)
        return [drain for drain in found if self._may.sees(drain.source)]

    def next_drain(self) -> tuple[Drain | None, int]:
        self._may.administer("asks what is to be drained")
        drains = self._catalog.drains
        return drains.due(short=self._node.reservations.shortage() > 0), drains.cursor()

    def mark_drain(self, entry: str, state: DrainState, *, reason: str = "", began: bool = False) -> None:
        self._may.administer("marks what is drained")
        self._catalog.drains.mark(entry, state, reason=reason[: limits.DRAIN_REASON_CHARS_MAX], began=began)

    def archived(self, stream_id: str) -> bool:
        info = self._catalog.stream_by_id(stream_id)
        self._may.see(info.path)
        return self._node.evictor.archived(info)

    # ---- events, administration, attempts

    def events(self, after: int, stop: threading.Event, *, follow: bool = True) -> Iterator[Event]:
        self._may.need("read", "looks at events")
        while not stop.is_set() and not self._node.closing.is_set():
            page = self._catalog.events_after(after, limits.EVENTS_PAGE)
            yield from (event for event in page if self._may.sees(event.path))
            if page:
                after = page[-1].seq
            elif not follow:
                return
            else:
                self._catalog.wait_events(after, _LOOK_S)

    def watch_streams(self, watches: Sequence[StreamWatch]) -> None:
        self._may.administer("sets the watches of streams")
        self._node.milestones.watch(watches)

    def publish_event(self, kind: str, path: str, version: int, data: Attrs) -> Event:
        self._may.administer("publishes events", path)
        check_name(kind, "event")
        collection, stream = split_stream_path(path) if version else (check_path(path, "collection"), "")
        return self._catalog.add_event(kind, collection, stream, version, data)

    def status(self) -> NodeStatus:
        self._may.whole("read", "looks at the buffer as a whole")
        node, storage = self._node, self._node.storage
        usage, (blocks, size) = storage.usage(), node.received()
        promises = node.reservations.reservations()
        collections, streams, streams_open = self._catalog.counts()
        return NodeStatus(
            node=self._catalog.node,
            version=__version__,
            boot_id=node.boot_id,
            started_ns=node.started_ns,
            data_directory=str(node.directory),
            disk_free_bytes=usage.disk_free_bytes,
            arena_bytes=storage.arena.capacity,
            arena_free_bytes=usage.arena_free_bytes,
            segments=usage.segments,
            log_bytes=usage.log_bytes,
            collections=collections,
            streams=streams,
            streams_open=streams_open,
            blocks_received=blocks,
            bytes_received=size,
            recovery=storage.recovery.attrs(),
            room_bytes=storage.room().bytes,
            promised_bytes=sum(kept.bytes for kept in promises),
            promised_used_bytes=sum(kept.used_bytes for kept in promises),
            kernel_backend=node.readout.compiler.backend.name,
            kernel_notice=node.readout.compiler.notice,
            kernels={hash: report.attrs() for hash, report in list(node.kernel_reports.items())},
            last_event=self._catalog.last_seq,
        )

    def commit_attempt(self, attempt: str, event_kind: str, event: Attrs) -> tuple[StreamRef, ...]:
        self._may.administer("commits an attempt")
        return self._catalog.commit_attempt(attempt, event_kind, event)

    def discard_attempt(self, attempt: str) -> None:
        self._may.administer("discards an attempt")
        for stream_id in self._catalog.discard_attempt(attempt):
            self._node.drop(stream_id)

    def attempt_reads(self, attempt: str) -> tuple[StreamRef, ...]:
        self._may.whole("read", "looks at what an attempt read")
        return self._catalog.attempt_reads(attempt)

    def attempt_writes(self, attempt: str) -> tuple[StreamRef, ...]:
        self._may.administer("looks at what an attempt stages")
        return self._catalog.attempt_writes(attempt)

    # ---- tokens

    def create_token(
        self,
        label: str,
        rights: Sequence[str],
        *,
        prefix: str = "",
        hours: float | None = None,
        addresses: str = "",
    ) -> NewToken:
        self._may.administer("hands out tokens", prefix)
        for right in rights:
            self._may.need(right, f"hands out a token with {right!r}")
        expires_ns = expiry_ns(hours, self._node.clock_ns())
        wanted = TokenInfo("", label, tuple(rights), prefix, addresses, expires_ns=expires_ns)
        if self._caller.token is not None:
            own = self._catalog.tokens.get(self._caller.token)
            check_not_more(wanted, own)
            wanted = replace(wanted, parent=own.id)
        return self._catalog.tokens.create(wanted)

    def tokens(self) -> list[TokenInfo]:
        self._may.administer("lists tokens", self._caller.write_prefix)
        return [info for info in self._catalog.tokens.tokens() if is_within(info.prefix, self._caller.write_prefix)]

    def revoke_token(self, token_id: str) -> list[TokenInfo]:
        self._may.administer("revokes tokens", self._caller.write_prefix)
        self._may.administer("revokes tokens", self._catalog.tokens.get(token_id).prefix)
        return self._catalog.tokens.revoke(token_id)

    # ---- rights

    def _writable(self, stream_id: str) -> StreamInfo:
        info = self._catalog.stream_by_id(stream_id)
        self._may.write(info.path)
        return self._written_by_itself(info)

    @staticmethod
    def _written_by_itself(info: StreamInfo) -> StreamInfo:
        if info.raw_of is not None:
            raise InvalidInput(f"stream {info.path} is a raw companion; it is written and made final with its stream")
        return info

    def _readable(self, stream_id: str) -> StreamInfo:
        info = self._catalog.stream_by_id(stream_id)
        self._may.read(info.path)
        return info


def _check_keep(info: StreamInfo, stages: Sequence[StageInfo]) -> None:
    if info.keep is Keep.RAW and any(stage.kind is KernelKind.SCAN for stage in stages):
        raise InvalidInput(
            f"stream {info.path}: with keep='raw' each block is computed by itself when it is read, and a scan needs "
            "those before it; use keep='result' or keep='both'"
        )


def _check_order(path: str, stages: Sequence[StageInfo]) -> None:
    kinds = [stage.kind is KernelKind.REDUCE for stage in stages]
    if kinds != sorted(kinds):
        raise InvalidInput(f"stream {path}: reduce kernels come after all maps and filters of the pipeline")


def _check_shadows(info: StreamInfo, stages: Sequence[StageInfo], shadows: Sequence[StageInfo]) -> None:
    names = [stage.name for stage in (*stages, *shadows)]
    for shadow in shadows:
        if shadow.kind not in (KernelKind.MAP, KernelKind.FILTER):
            raise InvalidInput(
                f"stream {info.path}: {shadow.name!r} is a {shadow.kind.name.lower()}; a shadow skips blocks when it "
                "is busy, so only maps and filters can be one"
            )
        if names.count(shadow.name) > 1:
            raise InvalidInput(f"stream {info.path}: the shadow {shadow.name!r} has the name of another kernel")
    if shadows and not stages and info.keep is Keep.RAW:
        raise InvalidInput(f"stream {info.path}: shadows alone change no block; keep='raw' is for streams with kernels")


def _hashes(info: StreamInfo) -> list[str]:
    """Of the kernels that a stream was created with."""
    return [stage.hash for stage in info.stages if stage.since is None]


def _check_same(info: StreamInfo, spec: StreamSpec, came_as: Any) -> None:
    """A producer that resumes must mean the same stream. Kernels of its collection it need not name."""
    named = [check(bound.kernel).hash for bound in spec.kernels if not bound.shadow]
    if not spec.kernels and all(stage.attached for stage in info.stages):
        named = _hashes(info)
    for what, found, asked in (
        ("blocks", came_as, spec.frame),
        ("columns", info.columns, spec.columns),
        ("keep", info.keep, spec.keep),
        ("kernels", _hashes(info), named),
    ):
        if found != asked:
            raise SpecMismatch(
                f"stream {info.path} is there with other {what}: {found}, not {asked}; resume it as it is"
            )
