"""What a buffer can do, as a Protocol: the one boundary between those who use a buffer and where it is.

Two implementations: `node.LocalStore` in this process, and `transport.remote.RemoteStore` behind gRPC. `client` builds
what users touch on top of either. Both pass the same suite (`testing.conformance`). All methods may be called
from any thread; all raise `HissError`s.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from hiss.drain_policy import Drain, DrainPolicy, DrainState
from hiss.errors import HissError
from hiss.extent import Extent
from hiss.model import (
    Ack,
    AppendStart,
    Attrs,
    BoundKernel,
    ByteArray,
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
from hiss.tokens import NewToken, TokenInfo
from hiss.workflow import Meow, StreamRef


class AppendSession(Protocol):
    """One producer's connection to one open stream. Not thread-safe: one thread sends."""

    @property
    def start(self) -> AppendStart: ...

    def send(self, extent: Extent) -> None:
        """Hand over an extent. Blocks for back-pressure; the extent's memory may be reused only after its ack.

        Statuses other than STORED declare gaps. What goes wrong with an extent reaches the session's `on_error`, or is
        raised by this or a later call; the session is then dead.
        """
        ...

    def sends_at_once(self, size: int) -> bool:
        """Whether `send` of so many bytes, in this thread and now, is over sooner than another thread would begin with
        it. Whatever is raised in the middle of it, Ctrl-C included, may then harm this session, and nothing else."""
        ...

    def close(self) -> None:
        """End the session. What was sent is finished and acknowledged first, unless the session is dead."""
        ...


class Landing(Protocol):
    """Memory in which an extent's bytes are received where they stay. Whoever asked for it fills it and hands it back
    by `send_landed`, or releases it."""

    data: ByteArray  # writable, of the size that was asked for

    def release(self) -> None:
        """Give it back unused. More than once is fine."""
        ...


class LandingSession(AppendSession):
    """A session that lends the memory in which extents land, so that a transport that knows their size copies
    nothing."""

    @abc.abstractmethod
    def reserve(self, blocks: int, data_bytes: int) -> Landing | None:
        """Memory for an extent of so many blocks and bytes; None where it is to be sent by `send`. Blocks while there
        is none. Raises what ended the session, if it is dead."""

    @abc.abstractmethod
    def send_landed(self, extent: Extent, landing: Landing, *, trusted: bool = False) -> None:
        """As `send`, of an extent whose `data` is that of `landing`, which is taken over whatever happens. Of one that
        is `trusted` the digests need not be checked before it is acknowledged."""


class SharedSlots(Protocol):
    """Memory of a producer that its server sees too, in slots of one size. One thread at a time, but `prepare`."""

    def lacks(self, size: int) -> bool:
        """Whether an extent of so many bytes is worth a slot, and none is ready: `prepare` is worth waiting for."""
        ...

    def prepare(self) -> None:
        """Have slots ready. Blocks while there is no memory; not for Python's main thread."""
        ...

    def take(self) -> ByteArray | None:
        """A slot, writable; None where none is ready."""
        ...

    def give(self, buffer: ByteArray) -> bool:
        """Have a slot back; False where `buffer` is none of them."""
        ...

    def close(self) -> None:
        """The producer is done with it: let the memory go when the last array over it goes, or keep it for another."""
        ...


class SharingSession(AppendSession):
    """A session that carries extents without a copy where their bytes lie in memory that it shares."""

    @abc.abstractmethod
    def share(self, slot_bytes: int, slots: SharedSlots | None) -> SharedSlots | None:
        """The memory to use from now on: the `slots` that an earlier session made, or new ones; None: there is none.
        Their holder closes them."""


class Store(Protocol):
    """The operations of a buffer."""

    spare_memory: SpareMemory  # of its producers

    @property
    def meow(self) -> Meow: ...

    def close(self) -> None: ...

    # ---- collections
    def create_collection(self, path: str, attrs: Attrs, expect: Sequence[str]) -> CollectionInfo:
        """Create it, or return the one that is there: its attributes are amended by `attrs`, its `expect` extended."""
        ...

    def collection(self, path: str) -> CollectionInfo: ...

    def collections(self, prefix: str = "") -> list[CollectionInfo]: ...

    def delete_collection(self, path: str) -> None: ...

    def seal_collection(self, path: str) -> CollectionInfo:
        """Seal it. Raises `StreamNotFinal` while one of its streams is open. Sealed twice is sealed."""
        ...

    def join(self, collection: str, name: str, streams: Sequence[str]) -> CollectionInfo:
        """Record that `streams` are the modules of one detector, in that order."""
        ...

    def attach(self, collection: str, kernel: BoundKernel, streams: str) -> CollectionInfo:
        """Give a kernel to every stream that is created from now on in the collection, whose name the glob `streams`
        matches, and that brings no kernels of its own.

        Kernels run in the order in which they were attached, reductions last; one attached again under the same name
        and glob takes the place of the one before. Parameters are resolved now. An event `kernel.attached` tells of it.

        Raises
        ------
        CollectionNotFound, CollectionSealed, KernelRejected, ParameterMismatch
        """
        ...

    def detach(self, collection: str, kernel: str, streams: str | None = None) -> CollectionInfo:
        """Take a kernel away by its name, from one glob or from all; streams that are there keep it. An event
        `kernel.detached` for each. Raises `KernelNotFound`."""
        ...

    # ---- streams
    def create_stream(
        self, collection: str, name: str, spec: StreamSpec, *, resume: bool = False, new_version: bool = False
    ) -> StreamInfo: ...

    def stream(self, path: str, version: int | None = None) -> StreamInfo:
        """By path; the newest version unless one is named."""
        ...

    def streams(self, collection: str, *, all_versions: bool = False) -> list[StreamInfo]: ...

    def amend_stream(self, stream_id: str, attrs: Attrs) -> StreamInfo: ...

    def open_append(
        self,
        stream_id: str,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
    ) -> AppendSession:
        """Become the stream's producer; whoever was it before is fenced.

        The callbacks come from other threads, one at a time, and must not block.
        """
        ...

    def seal_stream(self, stream_id: str, end_index: int | None = None) -> StreamInfo:
        """Make it final. `end_index` is one past the producer's last index, so that a missing tail is a gap."""
        ...

    def abort_stream(self, stream_id: str, reason: str) -> StreamInfo: ...

    def delete_stream(self, stream_id: str) -> None: ...

    def read(self, stream_id: str, selection: Selection) -> Iterator[Extent]:
        """Stored blocks in the order of their index, digests checked."""
        ...

    def out_frame(self, stream_id: str, kernels: Sequence[BoundKernel]) -> FrameSpec:
        """What blocks of the stream are when they have come through `kernels` (as in `Selection.kernels`)."""
        ...

    def follow(self, stream_id: str, start: int | None, stop: threading.Event) -> Iterator[Extent]:
        """Stored blocks from index `start` on, as they become readable, until the stream is final or `stop` is set."""
        ...

    def reduce(self, path: str, version: int | None, kernel: str) -> Any:
        """The named reduction (`mean`, `maximum`) over a final stream, as an array."""
        ...

    def promote(self, stream_id: str, kernel: str) -> StreamInfo:
        """Make a filter that runs beside an open stream, as a shadow, the last stage of its pipeline from now on. The
        stage records from which index on (`StageInfo.since`); an event `kernel.promoted` says it, too."""
        ...

    def replay(self, stream_id: str, kernel: KernelDef | None = None) -> Replay:
        """Run the stream's kernels over its retained raw blocks once more and compare with what was stored; `kernel`
        takes the place of the stage of its name. Stores nothing."""
        ...

    def send_feedback(self, stream_id: str, data: Any) -> bool:
        """Send small JSON to the stream's producer; whether one is connected."""
        ...

    # ---- consumer groups
    def take_blocks(self, stream_id: str, member: Member, wish: Wish) -> Taken:
        """Give a member of a consumer group blocks that nobody has and nobody has acknowledged, lowest index first.

        The group is made by its first member. What is not acknowledged in time is given to others. Waits for a block a
        moment at most, and comes back with none; ask again until all is complete.

        Raises
        ------
        LimitExceeded
            Too many groups or members.
        """
        ...

    def settle_blocks(
        self, stream_id: str, member: Member, done: Sequence[IndexRange], back: Sequence[IndexRange] = ()
    ) -> tuple[IndexRange, ...]:
        """Acknowledge blocks and give others back. Returns what was not acknowledged: its time had run out, and another
        member has it now. What nobody has may be acknowledged late, or after the server was restarted."""
        ...

    def consumer_groups(self, stream_id: str) -> list[GroupInfo]:
        """The groups of a stream, by name."""
        ...

    def delete_consumer_group(self, stream_id: str, group: str) -> None:
        """Forget a group; one of that name starts anew. Raises `NotFound`."""
        ...

    # ---- kernels
    def register_kernel(self, definition: KernelDef) -> KernelInfo: ...

    def kernels(self) -> list[KernelInfo]: ...

    def kernel(self, name: str) -> KernelInfo:
        """By name (the newest) or hash."""
        ...

    # ---- events and administration
    def events(self, after: int, stop: threading.Event, *, follow: bool = True) -> Iterator[Event]:
        """Events with `seq > after`, in order; with `follow`, those to come as well, until `stop` is set."""
        ...

    def watch_streams(self, watches: Sequence[StreamWatch]) -> None:
        """Replace the wishes of all patterns for `stream.progress` and `stream.stalled`. They outlive a restart."""
        ...

    def publish_event(self, kind: str, path: str, version: int, data: Attrs) -> Event:
        """Add an event that something outside of the buffer made true; `version` 0 for one of a collection."""
        ...

    def status(self) -> NodeStatus: ...

    # ---- space
    def reserve(self, collection: str, size: int, hours: float) -> Reservation:
        """Promise a collection, and those below it, room for `size` bytes of records for so long.

        Raises
        ------
        SpaceExhausted
            It is not there; says what is free, promised and evictable.
        CollectionNotFound
        Conflict
            The collection, one above or one below it has a reservation already.
        """
        ...

    def reservations(self) -> list[Reservation]:
        """Those that hold now."""
        ...

    def release(self, reservation_id: str) -> None:
        """End a reservation; what was written under it stays. Raises `ReservationNotFound`."""
        ...

    def record_archive(self, stream_id: str, location: str, digest: str) -> StreamInfo:
        """Record that all of a final stream was read back from `location` and compared.

        Raises
        ------
        Conflict
            `digest` is not the stream's: what was compared was something else.
        """
        ...

    def record_archives(self, archives: Sequence[tuple[str, str, str]]) -> None:
        """`record_archive` of all streams of one file, each with its id, location and digest: all of them or none."""
        ...

    def retention(self, collection: str = "") -> Retention:
        """What holds for a collection: its own policy, that of the nearest above it, or the buffer's."""
        ...

    def set_retention(self, collection: str, policy: Retention | None) -> Retention:
        """Give a collection, and those below it, a policy; None takes it away. Returns what holds now."""
        ...

    def evict(self, path: str = "", version: int | None = None, *, dry_run: bool = False) -> list[Evicted]:
        """Evict a stream, or what may go of a collection and of those below it; without a path what is due.

        Raises
        ------
        Conflict
            The stream is open, or not archived wherever it is to be and not allowed to go.
        Unavailable
            The stream is being read.
        """
        ...

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
        """Make a token that is good below `prefix`, for so many hours (None: until it is revoked), from a range of
        addresses ('': from any). Nobody hands out more than he has. Raises `LimitExceeded`."""
        ...

    def tokens(self) -> list[TokenInfo]:
        """Those that were not revoked; the oldest first."""
        ...

    def revoke_token(self, token_id: str) -> list[TokenInfo]:
        """End a token, and those that were handed out with it, at once: also what they have open. Returns them.
        Raises `TokenNotFound`."""
        ...

    # ---- draining by itself
    def drain_policy(self, collection: str) -> DrainPolicy:
        """What holds for a collection: its own policy, that of the nearest above it, or one without targets."""
        ...

    def set_drain_policy(self, collection: str, policy: DrainPolicy | None) -> DrainPolicy:
        """Give a collection, and those below it, a policy; None takes it away. Returns what holds now.

        Raises `PermissionRefused` for a token that is bound to a part of the buffer: targets are places of the server.
        """
        ...

    def plan_drains(
        self, paths: Sequence[str], *, cursor: int | None = None, ask: bool = False, dry_run: bool = False
    ) -> list[Drain]:
        """Bring into the queue what the policies want of the final streams below `paths`, '' for all; those entries.

        With `ask` they are due now, with `dry_run` nothing is changed. `cursor` is the last event that was planned for.
        """
        ...

    def drains(self, path: str = "", *, unfinished: bool = False) -> list[Drain]:
        """The queue below a path, in the order in which it goes; without `unfinished` what is done and dropped too. At
        most `limits.DRAINS_LISTED_MAX`."""
        ...

    def next_drain(self) -> tuple[Drain | None, int]:
        """The entry to drain now, and the number of the last event that was planned for."""
        ...

    def mark_drain(self, entry: str, state: DrainState, *, reason: str = "", began: bool = False) -> None:
        """Where an entry of the queue stands now. `began`: what lies at its place may be its own."""
        ...

    def archived(self, stream_id: str) -> bool:
        """Whether every block of a stream was read back from all places that its drain policy names, and compared;
        without a policy from one place at least."""
        ...

    # ---- attempts of jobs
    def commit_attempt(self, attempt: str, event_kind: str, event: Attrs) -> tuple[StreamRef, ...]:
        """Publish all that the attempt wrote, its events and the event of the job itself, in one transaction.

        Returns what was published. Committing a committed attempt again returns the same and changes nothing.
        Raises `StreamNotFinal` where the attempt left a stream open.
        """
        ...

    def discard_attempt(self, attempt: str) -> None:
        """Drop what the attempt wrote and refuse whatever it still sends. Raises `Conflict` once it is committed."""
        ...

    def attempt_reads(self, attempt: str) -> tuple[StreamRef, ...]:
        """The streams that the attempt read."""
        ...

    def attempt_writes(self, attempt: str) -> tuple[StreamRef, ...]:
        """The streams that the attempt has staged."""
        ...
