"""A Store behind gRPC: `RemoteStore` does what `hiss.store.Store` says, by calls to a server.

It connects when it is first used, and again by itself after a break; a call that a break hits raises, and is not
repeated here. Any thread may call. Short calls have deadlines; streams of blocks and events have none, but a peer
that does not answer pings for `2 * limits.KEEPALIVE_S` is given up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Self, TypeVar

import grpc

from hiss import limits
from hiss.drain_policy import Drain, DrainPolicy, DrainState
from hiss.errors import HissError, InvalidInput, LimitExceeded, Unavailable
from hiss.extent import Extent
from hiss.link import Link
from hiss.model import (
    Ack,
    Attrs,
    BoundKernel,
    CollectionInfo,
    Event,
    Feedback,
    FrameSpec,
    KernelDef,
    KernelInfo,
    NodeStatus,
    Replay,
    Selection,
    StreamInfo,
    StreamSpec,
    StreamWatch,
)
from hiss.sharing import GroupInfo, IndexRange, Member, Taken, Wish
from hiss.space import Evicted, Reservation, Retention
from hiss.spare_memory import SpareMemory
from hiss.store import AppendSession, Store
from hiss.tls import ClientTls
from hiss.tokens import NewToken, TokenInfo
from hiss.transport import consumers_wire, drain_wire, space_wire, token_wire, wire
from hiss.transport.channel import UNIX, check_address, open_channel
from hiss.transport.error_wire import error_of
from hiss.transport.lane_choice import Lanes, Offer
from hiss.transport.lane_framing import Kind
from hiss.transport.line_client import LineChannel
from hiss.transport.methods import ATTEMPT_KEY, STORE, TOKEN_KEY, TOKEN_SCHEME, Method
from hiss.transport.remote_append import RemoteAppend
from hiss.transport.remote_meow import RemoteMeow
from hiss.transport.remote_read import CheckedExtents
from hiss.transport.shared_reads import SharedReads, is_single
from hiss.transport.workflow_wire import decode_refs
from hiss.v1 import streams_pb2
from hiss.workflow import StreamRef

R = TypeVar("R")

_STOP_POLL_S: Final = 0.1  # how soon the thread that watches a `stop` sees that its call is over


TokenSource = str | Callable[[], str | None] | None


class Connection:
    """Calls to one server: channel, metadata, deadlines, errors."""

    def __init__(
        self,
        address: str,
        token: TokenSource,
        attempt: str | None,
        line: str | None = None,
        tls: ClientTls | None = None,
    ) -> None:
        self.address = check_address(address)
        self.tls = None if address.startswith(UNIX) else tls
        self._token = token
        self._attempt = attempt
        if not callable(token):
            _metadata(token, attempt)  # a token that is none is refused at once
        open_it = partial(open_channel, address, self.tls)
        self._channel: Any = open_it() if line is None else LineChannel(line, open_it)
        self._callables: dict[str, Any] = {}
        self._closed = False
        self._watchers: set[threading.Thread] = set()
        self._lock = threading.Lock()

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """Sent with each call. A token that is looked up is kept once it is found."""
        token = self._token() if callable(self._token) else self._token
        if token is not None:
            self._token = token
        return _metadata(token, self._attempt)

    def close(self) -> None:
        """Cancel what is under way and disconnect. More than once is fine."""
        self._closed = True
        self._channel.close()
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.join()

    def ask(self, method: Method, **fields: Any) -> Any:
        """A short call: one request, one reply.

        Raises
        ------
        HissError
            What the server raised; `ServerUnreachable`, `DeadlineExceeded` or `Unavailable` if it did not come to that.
        """
        body = _request(method, fields)
        with self.errors():
            call = self._callables.get(method.path)
            if call is None:  # making one takes a noticeable part of a call's time
                call = self._callables[method.path] = self._channel.unary_unary(method.path)
            reply: bytes = call(body, timeout=method.deadline_s, metadata=self._metadata)
        return method.parse_response(reply)

    def listen(self, method: Method, **fields: Any) -> Callable[[], Any]:
        """Makes a call with a stream of replies, to begin when what is returned is called.

        The call iterates over the replies' bytes and raises gRPC's errors.
        """
        body = _request(method, fields)

        def begin() -> Any:
            with self.errors():
                return self._channel.unary_stream(method.path)(body, metadata=self._metadata)

        return begin

    def converse(self, method: Method, requests: Iterator[bytes]) -> Any:
        """A call with streams both ways."""
        with self.errors():
            return self._channel.stream_stream(method.path)(requests, metadata=self._metadata)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise what gRPC raises as `HissError`s."""
        try:
            yield
        except grpc.RpcError as failure:
            raise error_of(failure, self.address) from None
        except ValueError:
            if self._closed:  # gRPC's way of saying that the channel is closed
                raise Unavailable(f"the connection to {self.address} was closed; connect again") from None
            raise

    @contextmanager
    def cancelled_by(self, stop: threading.Event, call: Any) -> Iterator[None]:
        """Cancel `call` as soon as `stop` is set."""

        def watch() -> None:
            while call.is_active():
                if stop.wait(_STOP_POLL_S):
                    call.cancel()
            with self._lock:
                self._watchers.discard(watcher)

        watcher = threading.Thread(target=watch, name="hiss stop", daemon=True)
        with self._lock:  # so that `close` never meets one that has not started
            watcher.start()
            self._watchers.add(watcher)
        try:
            yield
        finally:
            call.cancel()
            watcher.join()


def _request(method: Method, fields: dict[str, Any]) -> bytes:
    try:
        body = method.request(**fields).SerializeToString()
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"{method.name}: a value that cannot be sent: {error}") from None
    if len(body) > limits.MESSAGE_BYTES_MAX:
        raise LimitExceeded(
            f"{method.name}: a request of {len(body)} bytes, allowed are {limits.MESSAGE_BYTES_MAX}",
            limit="MESSAGE_BYTES_MAX",
            allowed=limits.MESSAGE_BYTES_MAX,
            found=len(body),
        )
    return body


def _metadata(token: str | None, attempt: str | None) -> tuple[tuple[str, str], ...]:
    pairs = []
    if token is not None:
        pairs.append((TOKEN_KEY, TOKEN_SCHEME + token))
    if attempt is not None:
        pairs.append((ATTEMPT_KEY, attempt))
    for key, value in pairs:
        if not value.isascii() or not value.isprintable():
            raise InvalidInput(f"{key}: only printable ASCII can be sent; is this the right token?")
    return tuple(pairs)


class RemoteStore(Store):
    """A Store at an address. Make one with `connect`."""

    def __init__(self, connection: Connection, lane: str | None = None) -> None:
        self._connection = connection
        self._meow = RemoteMeow(connection.ask)
        self._lanes = Lanes(lane, connection.address, connection.tls)
        self._reads = SharedReads(self._lanes.shares_reads, self._lane_offers, connection.cancelled_by)
        self.spare_memory = SpareMemory()
        self.link = Link(connection.address, connection.tls is not None)  # as others reach it, as far as is known

    @classmethod
    def connect(
        cls,
        address: str,
        token: TokenSource = None,
        *,
        attempt: str | None = None,
        lane: str | None = None,
        line: str | None = None,
        tls: ClientTls | None = None,
    ) -> Self:
        """A Store at `HOST:PORT` or `unix:PATH`; it connects when it is first used.

        Parameters
        ----------
        address : str
            Of a `GrpcServer`.
        token : str or callable, optional
            Sent with each call. A callable is asked until it has one: the server that makes it may still be starting.
        attempt : str, optional
            Id of the job's attempt on whose behalf all this is done.
        lane : str, optional
            How producers send: `shm`, `shm:trusted`, `unix`, `tcp` or `tls`, a lane of that kind where the server
            offers one, or `grpc`; by default the fastest that can be opened, and none that is trusted. What cannot be
            opened falls back to gRPC.
        line : str, optional
            The path of the server's socket for lines (`line_client`), by which short calls go, and sooner.
        tls : ClientTls, optional
            Connect by TLS, and never otherwise; lanes too. A Unix socket has none and needs none.

        Raises
        ------
        InvalidInput
            Not an address, a token that is none, or no such lane.
        """
        return cls(Connection(address, token, attempt, line, tls), lane)

    @property
    def address(self) -> str:
        return self._connection.address

    @property
    def meow(self) -> RemoteMeow:
        return self._meow

    def close(self) -> None:
        self._lanes.close()
        self._reads.close()
        self._connection.close()

    def _ask(self, key: str, **fields: Any) -> Any:
        return self._connection.ask(STORE[key], **fields)

    # ---- collections

    def create_collection(self, path: str, attrs: Attrs, expect: Sequence[str]) -> CollectionInfo:
        attrs_json = wire.encode_attrs(attrs)
        reply = self._ask("Collections.CreateCollection", path=path, attrs_json=attrs_json, expect=list(expect))
        return wire.decode_collection(reply.collection)

    def collection(self, path: str) -> CollectionInfo:
        return wire.decode_collection(self._ask("Collections.GetCollection", path=path).collection)

    def collections(self, prefix: str = "") -> list[CollectionInfo]:
        reply = self._ask("Collections.ListCollections", prefix=prefix)
        return list(map(wire.decode_collection, reply.collections))

    def delete_collection(self, path: str) -> None:
        self._ask("Collections.DeleteCollection", path=path)

    def seal_collection(self, path: str) -> CollectionInfo:
        return wire.decode_collection(self._ask("Collections.SealCollection", path=path).collection)

    def join(self, collection: str, name: str, streams: Sequence[str]) -> CollectionInfo:
        reply = self._ask("Collections.JoinStreams", collection=collection, name=name, streams=list(streams))
        return wire.decode_collection(reply.collection)

    def attach(self, collection: str, kernel: BoundKernel, streams: str) -> CollectionInfo:
        bound = wire.encode_bound_kernel(kernel)
        reply = self._ask("Collections.AttachKernel", collection=collection, kernel=bound, streams=streams)
        return wire.decode_collection(reply.collection)

    def detach(self, collection: str, kernel: str, streams: str | None = None) -> CollectionInfo:
        reply = self._ask("Collections.DetachKernel", collection=collection, kernel=kernel, streams=streams)
        return wire.decode_collection(reply.collection)

    # ---- streams

    def create_stream(
        self, collection: str, name: str, spec: StreamSpec, *, resume: bool = False, new_version: bool = False
    ) -> StreamInfo:
        reply = self._ask(
            "Streams.CreateStream",
            collection=collection,
            name=name,
            spec=wire.encode_stream_spec(spec),
            resume=resume,
            new_version=new_version,
        )
        return wire.decode_stream_info(reply.stream)

    def stream(self, path: str, version: int | None = None) -> StreamInfo:
        return self._reads.note(
            wire.decode_stream_info(self._ask("Streams.GetStream", path=path, version=version).stream)
        )

    def streams(self, collection: str, *, all_versions: bool = False) -> list[StreamInfo]:
        reply = self._ask("Streams.ListStreams", collection=collection, all_versions=all_versions)
        return [self._reads.note(wire.decode_stream_info(stream)) for stream in reply.streams]

    def amend_stream(self, stream_id: str, attrs: Attrs) -> StreamInfo:
        reply = self._ask("Streams.AmendStream", stream_id=stream_id, attrs_json=wire.encode_attrs(attrs))
        return wire.decode_stream_info(reply.stream)

    def open_append(
        self,
        stream_id: str,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
    ) -> AppendSession:
        for offer in self._lanes.choose(lambda: self._lane_offers(stream_id)):
            session = self._lanes.open(offer, stream_id, on_ack, on_error, on_feedback)
            if session is not None:
                return session

        def converse(requests: Iterator[bytes]) -> Any:
            return self._connection.converse(STORE["Streams.Append"], requests)

        return RemoteAppend(converse, self.address, stream_id, on_ack, on_error, on_feedback)

    def _lane_offers(self, stream_id: str, *, read: bool = False) -> list[Offer]:
        reply = self._ask("Streams.OpenLane", stream_id=stream_id, read=read)
        return [Offer(offer.address, offer.ticket) for offer in reply.lanes]

    def seal_stream(self, stream_id: str, end_index: int | None = None) -> StreamInfo:
        reply = self._ask("Streams.SealStream", stream_id=stream_id, end_index=end_index)
        return wire.decode_stream_info(reply.stream)

    def abort_stream(self, stream_id: str, reason: str) -> StreamInfo:
        reply = self._ask("Streams.AbortStream", stream_id=stream_id, reason=reason)
        return wire.decode_stream_info(reply.stream)

    def delete_stream(self, stream_id: str) -> None:
        self._ask("Streams.DeleteStream", stream_id=stream_id)

    def read(self, stream_id: str, selection: Selection) -> Iterator[Extent]:
        """As `Store.read`. The blocks' memory is read-only. Closing the iterator ends the call."""
        message = wire.encode_selection(selection)
        begin = self._connection.listen(STORE["Streams.Read"], stream_id=stream_id, selection=message)
        extents = CheckedExtents(f"reading stream {stream_id}", without_data=not selection.data)
        if not self._reads.suit(stream_id, selection):
            return self._replies(begin, extents.decode)
        request = streams_pb2.ReadRequest(stream_id=stream_id, selection=message)
        return self._reads.shared(
            Kind.READ, request, lambda: self._replies(begin, extents.decode), single=is_single(selection)
        )

    def out_frame(self, stream_id: str, kernels: Sequence[BoundKernel]) -> FrameSpec:
        stages = [wire.encode_bound_kernel(kernel) for kernel in kernels]
        return wire.decode_frame(self._ask("Streams.GetOutputFrame", stream_id=stream_id, kernels=stages).frame)

    def follow(self, stream_id: str, start: int | None, stop: threading.Event) -> Iterator[Extent]:
        """As `Store.follow`. The blocks' memory is read-only. Closing the iterator ends the call."""
        begin = self._connection.listen(STORE["Streams.Follow"], stream_id=stream_id, start=start)
        extents = CheckedExtents(f"following stream {stream_id}", without_data=False)
        request = streams_pb2.FollowRequest(stream_id=stream_id, start=start)
        return self._reads.shared(
            Kind.FOLLOW, request, lambda: self._replies_until(stop, begin, extents.decode), stop=stop
        )

    def _replies(self, begin: Callable[[], Any], decode: Callable[[bytes], Iterator[R]]) -> Iterator[R]:
        """What the replies of a call hold. The call begins with the first `next` and ends with the iterator."""
        call = begin()
        try:
            with self._connection.errors():
                for body in call:
                    yield from decode(body)
        finally:
            call.cancel()

    def _replies_until(
        self, stop: threading.Event, begin: Callable[[], Any], decode: Callable[[bytes], Iterator[R]]
    ) -> Iterator[R]:
        """The same, until `stop` is set, which is no error."""
        if stop.is_set():
            return
        call = begin()
        with self._connection.cancelled_by(stop, call):
            try:
                yield from self._replies(lambda: call, decode)
            except HissError:
                if not stop.is_set():
                    raise

    def reduce(self, path: str, version: int | None, kernel: str) -> Any:
        return wire.decode_array(self._ask("Streams.Reduce", path=path, version=version, reduction=kernel).array)

    def send_feedback(self, stream_id: str, data: Any) -> bool:
        reply = self._ask("Streams.SendFeedback", stream_id=stream_id, data_json=wire.encode_json(data))
        return bool(reply.delivered)

    # ---- consumer groups

    def take_blocks(self, stream_id: str, member: Member, wish: Wish) -> Taken:
        asked = consumers_wire.encode_member(member) | {"blocks": wish.blocks, "timeout_s": wish.timeout_s}
        reply = self._ask("Consumers.TakeBlocks", stream_id=stream_id, **asked, wait_s=wish.wait_s)
        return Taken(consumers_wire.decode_ranges(reply.ranges), reply.complete)

    def settle_blocks(
        self, stream_id: str, member: Member, done: Sequence[IndexRange], back: Sequence[IndexRange] = ()
    ) -> tuple[IndexRange, ...]:
        told = {"done": consumers_wire.encode_ranges(done), "back": consumers_wire.encode_ranges(back)}
        reply = self._ask("Consumers.SettleBlocks", stream_id=stream_id, **consumers_wire.encode_member(member), **told)
        return consumers_wire.decode_ranges(reply.refused)

    def consumer_groups(self, stream_id: str) -> list[GroupInfo]:
        reply = self._ask("Consumers.ListGroups", stream_id=stream_id)
        return list(map(consumers_wire.decode_group, reply.groups))

    def delete_consumer_group(self, stream_id: str, group: str) -> None:
        self._ask("Consumers.DeleteGroup", stream_id=stream_id, group=group)

    # ---- kernels

    def promote(self, stream_id: str, kernel: str) -> StreamInfo:
        return wire.decode_stream_info(self._ask("Streams.PromoteKernel", stream_id=stream_id, kernel=kernel).stream)

    def replay(self, stream_id: str, kernel: KernelDef | None = None) -> Replay:
        definition = None if kernel is None else wire.encode_kernel_def(kernel)
        return wire.decode_replay(self._ask("Streams.ReplayKernel", stream_id=stream_id, kernel=definition))

    def register_kernel(self, definition: KernelDef) -> KernelInfo:
        reply = self._ask("Kernels.RegisterKernel", definition=wire.encode_kernel_def(definition))
        return wire.decode_kernel_info(reply.kernel)

    def kernels(self) -> list[KernelInfo]:
        return list(map(wire.decode_kernel_info, self._ask("Kernels.ListKernels").kernels))

    def kernel(self, name: str) -> KernelInfo:
        return wire.decode_kernel_info(self._ask("Kernels.GetKernel", name=name).kernel)

    # ---- events and administration

    def events(self, after: int, stop: threading.Event, *, follow: bool = True) -> Iterator[Event]:
        """As `Store.events`. Closing the iterator ends the call."""
        method = STORE["Events.WatchEvents"]
        begin = self._connection.listen(method, after=after, follow=follow)

        def decode(body: bytes) -> Iterator[Event]:
            yield wire.decode_event(method.parse_response(body).event)

        return self._replies_until(stop, begin, decode)

    def watch_streams(self, watches: Sequence[StreamWatch]) -> None:
        self._ask("Events.SetStreamWatches", watches=[wire.encode_stream_watch(watch) for watch in watches])

    def publish_event(self, kind: str, path: str, version: int, data: Attrs) -> Event:
        asked = {"kind": kind, "path": path, "version": version, "data_json": wire.encode_attrs(data)}
        return wire.decode_event(self._ask("Events.PublishEvent", **asked).event)

    def status(self) -> NodeStatus:
        return wire.decode_status(self._ask("Admin.GetStatus"))

    # ---- space

    def reserve(self, collection: str, size: int, hours: float) -> Reservation:
        reply = self._ask("Space.Reserve", collection=collection, bytes=size, hours=hours)
        return space_wire.decode_reservation(reply.reservation)

    def reservations(self) -> list[Reservation]:
        return list(map(space_wire.decode_reservation, self._ask("Space.ListReservations").reservations))

    def release(self, reservation_id: str) -> None:
        self._ask("Space.ReleaseReservation", reservation_id=reservation_id)

    def record_archive(self, stream_id: str, location: str, digest: str) -> StreamInfo:
        reply = self._ask("Space.RecordArchive", stream_id=stream_id, location=location, digest=digest)
        return wire.decode_stream_info(reply.stream)

    def record_archives(self, archives: Sequence[tuple[str, str, str]]) -> None:
        asked = [dict(zip(("stream_id", "location", "digest"), each, strict=True)) for each in archives]
        self._ask("Drains.RecordArchives", archives=asked)

    def retention(self, collection: str = "") -> Retention:
        return space_wire.decode_retention(self._ask("Space.GetRetention", collection=collection).retention)

    def set_retention(self, collection: str, policy: Retention | None) -> Retention:
        wanted = None if policy is None else space_wire.encode_retention(policy)
        reply = self._ask("Space.SetRetention", collection=collection, retention=wanted)
        return space_wire.decode_retention(reply.retention)

    def evict(self, path: str = "", version: int | None = None, *, dry_run: bool = False) -> list[Evicted]:
        reply = self._ask("Space.Evict", path=path, version=version, dry_run=dry_run)
        return list(map(space_wire.decode_evicted, reply.streams))

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
        asked = {"label": label, "rights": list(rights), "prefix": prefix, "hours": hours, "addresses": addresses}
        reply = self._ask("Tokens.CreateToken", **asked)
        return NewToken(token_wire.decode_token(reply.token), reply.text)

    def tokens(self) -> list[TokenInfo]:
        return list(map(token_wire.decode_token, self._ask("Tokens.ListTokens").tokens))

    def revoke_token(self, token_id: str) -> list[TokenInfo]:
        return list(map(token_wire.decode_token, self._ask("Tokens.RevokeToken", token_id=token_id).tokens))

    # ---- draining by itself

    def drain_policy(self, collection: str) -> DrainPolicy:
        return drain_wire.decode_policy(self._ask("Drains.GetDrainPolicy", collection=collection).policy)

    def set_drain_policy(self, collection: str, policy: DrainPolicy | None) -> DrainPolicy:
        wanted = None if policy is None else drain_wire.encode_policy(policy)
        reply = self._ask("Drains.SetDrainPolicy", collection=collection, policy=wanted)
        return drain_wire.decode_policy(reply.policy)

    def plan_drains(
        self, paths: Sequence[str], *, cursor: int | None = None, ask: bool = False, dry_run: bool = False
    ) -> list[Drain]:
        reply = self._ask("Drains.PlanDrains", paths=paths, cursor=cursor, ask=ask, dry_run=dry_run)
        return list(map(drain_wire.decode_drain, reply.drains))

    def drains(self, path: str = "", *, unfinished: bool = False) -> list[Drain]:
        reply = self._ask("Drains.ListDrains", path=path, unfinished=unfinished)
        return list(map(drain_wire.decode_drain, reply.drains))

    def next_drain(self) -> tuple[Drain | None, int]:
        reply = self._ask("Drains.GetNextDrain")
        return drain_wire.decode_drain(reply.drain) if reply.HasField("drain") else None, reply.cursor

    def mark_drain(self, entry: str, state: DrainState, *, reason: str = "", began: bool = False) -> None:
        self._ask("Drains.MarkDrain", id=entry, state=state.value, reason=reason, began=began)

    def archived(self, stream_id: str) -> bool:
        return bool(self._ask("Drains.IsArchived", stream_id=stream_id).archived)

    # ---- attempts of jobs

    def commit_attempt(self, attempt: str, event_kind: str, event: Attrs) -> tuple[StreamRef, ...]:
        reply = self._ask(
            "Attempts.CommitAttempt", attempt=attempt, event_kind=event_kind, event_json=wire.encode_attrs(event)
        )
        return decode_refs(reply.streams)

    def discard_attempt(self, attempt: str) -> None:
        self._ask("Attempts.DiscardAttempt", attempt=attempt)

    def attempt_reads(self, attempt: str) -> tuple[StreamRef, ...]:
        return decode_refs(self._ask("Attempts.GetAttemptReads", attempt=attempt).streams)

    def attempt_writes(self, attempt: str) -> tuple[StreamRef, ...]:
        return decode_refs(self._ask("Attempts.GetAttemptWrites", attempt=attempt).streams)
