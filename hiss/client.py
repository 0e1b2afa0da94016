"""What users import: `connect` to a server, or `open` a buffer in this process; the same objects on either.

buf = hiss.connect("localhost:5001")
scan = buf.collection("beamtime42/scan7", attrs={"sample": "foam 3"})
with scan.create_stream("proj", dtype="uint16", shape=(2160, 2560)) as s:
    s.append(frame)
np.asarray(buf["beamtime42/scan7/proj"])
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hiss import access, limits
from hiss.drain_policy import DrainPolicy, DrainTarget
from hiss.errors import CollectionNotFound, InvalidInput, KernelWarning, NotFound, StreamNotFound
from hiss.link import Link
from hiss.model import (
    AckLevel,
    Attachment,
    Attrs,
    CollectionInfo,
    Column,
    FrameSpec,
    Keep,
    KernelInfo,
    NodeStatus,
    StreamSpec,
    split_stream_path,
)
from hiss.overload import Overload
from hiss.reader import Join, Stream, bound_kernels
from hiss.space import Evicted, Reservation, Retention, parse_size
from hiss.store import Store
from hiss.tls import ClientTls
from hiss.tokens import NewToken, TokenInfo
from hiss.workflow import Meow
from hiss.writer import StreamWriter

DEFAULT_ADDRESS = "localhost:5001"


def connect(
    address: str | None = None,
    token: str | None = None,
    *,
    lane: str | None = None,
    tls: ClientTls | Path | str | bool | None = None,
) -> Buffer:
    """Connect to a running buffer.

    Parameters
    ----------
    address : str, optional
        `host:port`, `unix:PATH`, or a share link, `hiss://host:port/collection#TOKEN`; by default `HISS_ADDRESS`, else
        `localhost:5001`.
    token : str, optional
        By default that of the link, else `HISS_TOKEN`, else the one that a server of this user on this machine left for
        its clients.
    lane : str, optional
        How producers send: `shm`, `shm:trusted`, `unix`, `tcp`, `tls` or `grpc`. By default the fastest that can be
        opened, and none that is trusted; over TLS `tls` alone (docs/lanes.md). What cannot be opened falls back to
        gRPC. Readers get blocks through shared memory by default and with `shm`, never over TLS, else over gRPC.
    tls : path, bool or ClientTls, optional
        Connect by TLS, and never without: True trusts the system's authorities, a path those in that PEM file, or the
        server's own certificate; a `hiss.tls.ClientTls` also has a client's. By default as the link and `HISS_TLS_CA`,
        `HISS_TLS_CERT` and `HISS_TLS_KEY` say, else plain.

    Raises
    ------
    ServerUnreachable, PermissionRefused
    """
    from hiss.transport.remote import RemoteStore

    link = Link.parse(address or os.environ.get("HISS_ADDRESS") or DEFAULT_ADDRESS)
    trusted = ClientTls.of(tls)
    if link.tls and trusted is None:
        if tls is False:
            raise InvalidInput("this link is for TLS, and tls=False asks for none; nothing is sent without it")
        trusted = ClientTls()
    found = token or link.token or os.environ.get("HISS_TOKEN") or partial(_local_token, link.address)
    here = None if trusted is not None else _local_socket(link.address)
    store = RemoteStore.connect(here or link.address, found, lane=lane, tls=trusted)
    store.link = Link(link.address, trusted is not None or here is not None)
    return Buffer(store)


def open(
    path: str | Path,
    *,
    arena_bytes: int = 256 * limits.MiB,
    segment_bytes: int = limits.SEGMENT_BYTES,
    log_bytes_max: int = 0,
    backend: str = "numba",
) -> Buffer:
    """Open a buffer in this process, without a server.

    Parameters
    ----------
    path : path
        Its data directory; made where it is not there.
    arena_bytes : int
        Memory for blocks on their way; a block and its result fit into a quarter of it.
    segment_bytes : int
        Size of the log's files; a block fits into one.
    log_bytes_max : int
        That the log may take of the disk; 0: all of it.
    backend : str
        Of the kernels: `numba`, `numpy`, or `opencl` and the like (docs/kernel-backends.md).

    Raises
    ------
    DataDirectoryLocked
        A server, or another process, has it open.
    """
    from hiss.blocks import StorageOptions
    from hiss.server import open_embedded

    options = StorageOptions(arena_bytes=arena_bytes, segment_bytes=segment_bytes, log_bytes_max=log_bytes_max)
    return Buffer(open_embedded(Path(path), options, backend))


def _local_token(address: str) -> str | None:
    return _left_here(address, access.token_file)


def _local_socket(address: str) -> str | None:
    """The Unix socket of a server of this user that speaks TLS at its port: on its own machine there is no network."""
    return _left_here(address, access.socket_file)


def _left_here(address: str, file: Callable[[int], Path]) -> str | None:
    """What a server of this user on this machine left for its clients."""
    host, _, port = address.rpartition(":")
    if host in ("localhost", "127.0.0.1", "[::1]", "::1") and port.isdigit():
        path = file(int(port))
        if path.is_file():
            return path.read_text().strip()
    return None


class Buffer:
    """A buffer, here or behind a socket. A context manager; `close` lets it go."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.store.close()

    @property
    def meow(self) -> Meow:
        """The rule engine: `add` a recipe or a pattern, list `rules` and `jobs`."""
        return self.store.meow

    def collection(self, path: str, *, attrs: Attrs | None = None, expect: Sequence[str] = ()) -> Collection:
        """The collection at `path`, made where it is not there; `attrs` amend its attributes."""
        return Collection(self.store, self.store.create_collection(path, attrs or {}, expect))

    def collections(self, prefix: str = "") -> list[Collection]:
        """All collections whose path begins with `prefix`."""
        return [Collection(self.store, info) for info in self.store.collections(prefix)]

    def stream(self, path: str, version: int | None = None) -> Stream:
        """The stream at `collection/stream`, its newest version unless one is named."""
        split_stream_path(path)
        return Stream(self.store, self.store.stream(path, version))

    def __getitem__(self, path: str) -> Any:
        """The stream or the collection at `path`."""
        try:
            return self.stream(path)
        except (StreamNotFound, CollectionNotFound, InvalidInput) as missing:
            try:
                return Collection(self.store, self.store.collection(path))
            except NotFound:
                raise missing from None

    def put(
        self,
        sources: str | Path | Sequence[str | Path],
        target: str,
        *,
        whole: bool = False,
        rows: bool = False,
        as_bytes: bool = False,
        columns: Sequence[str] = (),
        attrs: Attrs | None = None,
        ack: str | AckLevel = AckLevel.DURABLE,
        new_version: bool = False,
        join: str = "",
    ) -> list[Stream]:
        """Store files as sealed streams (docs/intake.md).

        Parameters
        ----------
        sources : path or sequence of paths
            `FILE[::DATASET]`; several are one series, in natural order of their names.
        target : str
            `COLLECTION/STREAM`, or `COLLECTION/` for all that the file has.
        whole, rows, as_bytes : bool
            One block of the whole array; one for each entry of the first axis; the file as it is.
        columns : sequence of str
            `"NAME=DATASET UNIT"`, beside those that are found.
        join : str
            The streams become modules of this join of the collection.

        Raises
        ------
        InvalidInput, SpecMismatch, AlreadyExists, MissingExtra
        """
        from hiss.intake import Wishes, put

        names = [sources] if isinstance(sources, str | Path) else sources
        made = put(
            self.store,
            [str(name) for name in names],
            target,
            wishes=Wishes(whole=whole, rows=rows, as_bytes=as_bytes, columns=tuple(columns)),
            attrs=attrs,
            ack=AckLevel.parse(ack),
            new_version=new_version,
            join=join,
        )
        return [Stream(self.store, info) for info in made]

    def register(self, kernel: Any) -> KernelInfo:
        """Register a kernel under its name, for others to use."""
        return self.store.register_kernel(kernel.definition)

    def kernels(self) -> list[KernelInfo]:
        return self.store.kernels()

    def status(self) -> NodeStatus:
        return self.store.status()

    def reservations(self) -> list[Reservation]:
        """All room that is promised now."""
        return self.store.reservations()

    def evict(self, path: str = "", *, dry_run: bool = False) -> list[Evicted]:
        """Evict a stream, or what may go of a collection; without a path what the policies take now."""
        return self.store.evict(path, dry_run=dry_run)

    def create_token(
        self,
        label: str,
        rights: Sequence[str] = ("read",),
        *,
        prefix: str = "",
        hours: float | None = None,
        addresses: str = "",
    ) -> NewToken:
        """Make a token for somebody else; what he shows is its `text`, which the buffer tells once.

        Parameters
        ----------
        label : str
            For people.
        rights : sequence of str
            Some of `read`, `write`, `run`, `admin`.
        prefix : str
            A collection; it is good there and below. Empty: everywhere.
        hours : float, optional
            How long it is good; by default until it is revoked.
        addresses : str
            Where from, such as `10.1.0.0/16`; empty: from anywhere.

        Raises
        ------
        PermissionRefused
            For more than the caller's own token allows.
        """
        return self.store.create_token(label, rights, prefix=prefix, hours=hours, addresses=addresses)

    def tokens(self) -> list[TokenInfo]:
        """The tokens that were handed out and not revoked."""
        return self.store.tokens()

    def revoke_token(self, token_id: str) -> list[TokenInfo]:
        """End a token and those that were handed out with it, at once. Raises `TokenNotFound`."""
        return self.store.revoke_token(token_id)


class Collection:
    """A named set of streams."""

    def __init__(self, store: Store, info: CollectionInfo) -> None:
        self._store = store
        self._info = info

    def __repr__(self) -> str:
        return f"<Collection {self.path}: {', '.join(self.info.streams) or 'empty'}>"

    @property
    def path(self) -> str:
        return self._info.path

    @property
    def info(self) -> CollectionInfo:
        """What the buffer tells of it now."""
        self._info = self._store.collection(self._info.path)
        return self._info

    @property
    def attrs(self) -> Attrs:
        return self.info.attrs

    def streams(self) -> list[Stream]:
        return [Stream(self._store, info) for info in self._store.streams(self.path)]

    def __getitem__(self, name: str) -> Stream:
        return Stream(self._store, self._store.stream(f"{self.path}/{name}"))

    def __contains__(self, name: str) -> bool:
        return name in self.info.streams

    def create_stream(
        self,
        name: str,
        *,
        dtype: npt.DTypeLike | None = None,
        shape: Sequence[int | None] = (),
        columns: Mapping[str, str] | None = None,
        ack: str | AckLevel = AckLevel.DURABLE,
        attrs: Attrs | None = None,
        keep: str | Keep = Keep.RESULT,
        kernels: Sequence[Any] = (),
        overload: str | Overload = "wait",
        patience_s: float | None = None,
        extent_bytes: int = limits.EXTENT_BYTES_TARGET,
        linger_s: float = limits.LINGER_S,
        on_ack: Callable[[int], None] | None = None,
        expendable: bool = False,
        resume: bool = False,
        new_version: bool = False,
    ) -> StreamWriter:
        """Create a stream and become its producer.

        Parameters
        ----------
        name : str
            Unique in the collection.
        dtype, shape
            Of one block; a None as first size for a length that differs; dtype None for opaque bytes.
        columns : mapping of name to text
            `{"angle": "f8 deg"}`: small values that come with each block.
        ack : str
            What an acknowledgement means: `received`, `written`, `durable`.
        attrs : mapping
            JSON.
        keep : str
            With kernels: store the `result`, the `raw` blocks, or `both`.
        kernels : sequence
            Run on each block in this order: bound, bare where they need no parameters, or names: of a registered
            kernel, or `mean` and `maximum`, which become streams of their own. Without any, those that are attached to
            the collection.
        overload : str or Overload
            When blocks are taken more slowly than they come, for longer than `patience_s`: `wait` all the same, `drop`
            them, or `prescale:N`, keep every N-th. What is not kept is in the ledger, with the policy's name.
        patience_s : float, optional
            The longest that `append` waits, unless the policy is `wait`; 1 s by default.
        extent_bytes, linger_s : int, float
            Small blocks travel together: until they are so many bytes (8 MiB), or the first of them has waited so long
            (20 ms). Acknowledgements stay per block.
        on_ack : callable, optional
            Told how many blocks are acknowledged, in the order of appending; from another thread, must not block.
        expendable : bool
            Retention may evict it even where it is archived nowhere.
        resume : bool
            Go on with the open stream of that name, if there is one.
        new_version : bool
            Write a new version where the name is taken.

        Raises
        ------
        AlreadyExists, CollectionSealed, KernelRejected, ParameterMismatch, SpecMismatch

        Warns
        -----
        KernelWarning
            A line of a kernel may not mean what it says on these blocks; `stream.info.stages` keeps it.
        """
        found = Overload.parse(overload, patience_s)
        spec = StreamSpec(
            frame=FrameSpec(None if dtype is None else _dtype_text(dtype), tuple(shape)),
            columns=tuple(Column.parse(column, text) for column, text in (columns or {}).items()),
            ack=AckLevel.parse(ack),
            attrs=attrs or {},
            keep=Keep.parse(keep),
            kernels=bound_kernels(kernels, self._store),
            expendable=expendable,
        )
        info = self._store.create_stream(self.path, name, spec, resume=resume, new_version=new_version)
        for stage in (*info.stages, *info.shadows):
            for text in stage.warnings:
                warnings.warn(text, KernelWarning, stacklevel=2)
        return StreamWriter(
            self._store,
            info,
            spec.frame,
            overload=found,
            extent_bytes=extent_bytes,
            linger_s=linger_s,
            on_ack=on_ack,
        )

    def join(self, name: str, streams: Sequence[str] | None = None) -> Join:
        """Streams that are the modules of one detector, as one dataset. `streams` are named once and remembered."""
        info = self.info if streams is None else self._store.join(self.path, name, streams)
        if name not in info.joins:
            raise StreamNotFound(
                f"collection {self.path} has no join {name!r}; name its streams: join({name!r}, [...])"
            )
        return Join(name, [self[module] for module in info.joins[name]])

    def attach(self, *kernels: Any, streams: str = "*") -> None:
        """Give kernels to every stream that is created here from now on without kernels of its own.

        They run in the order in which they were attached. A kernel attached again for the same `streams` takes the
        place of the one before; where several of one name match a stream, the one attached last counts. A stream
        records them as its own stages, so that neither `detach` nor another `attach` changes it.

        Parameters
        ----------
        *kernels
            As for `create_stream`: bound, bare, or names; also `bind(shadow=True)`. Streams among their parameters are
            read now.
        streams : str
            A glob of the streams' names, such as `proj*`.

        Raises
        ------
        CollectionSealed, KernelRejected, ParameterMismatch
            A kernel that does not fit a stream is told when that stream is created.
        """
        for kernel in bound_kernels(kernels, self._store):
            self._info = self._store.attach(self.path, kernel, streams)

    def detach(self, kernel: str, *, streams: str | None = None) -> None:
        """Take an attached kernel away by its name, from the glob `streams` or from all. Streams that are there keep
        it. Raises `KernelNotFound`."""
        self._info = self._store.detach(self.path, kernel, streams)

    @property
    def attached(self) -> tuple[Attachment, ...]:
        """The kernels that are attached, in the order in which a stream runs them."""
        return self.info.kernels

    def reserve(self, size: str | int, hours: float) -> Reservation:
        """Keep room in the log for this collection, and those below it.

        Parameters
        ----------
        size : str or int
            Such as `"200 GB"`; counts records: blocks with their headers and columns.
        hours : float
            How long it is kept.

        Raises
        ------
        SpaceExhausted
            It is not there; says what is free, promised and evictable.
        Conflict
            This collection, one above or one below it has a reservation already.
        """
        return self._store.reserve(self.path, parse_size(size), hours)

    @property
    def reservation(self) -> Reservation | None:
        """The room that is kept for this collection, if there is some."""
        found = [kept for kept in self._store.reservations() if f"{self.path}/".startswith(f"{kept.collection}/")]
        return found[0] if found else None

    @property
    def retention(self) -> Retention:
        """When its streams leave the log."""
        return self._store.retention(self.path)

    def retain(self, policy: Retention | None) -> Retention:
        """Give it, and those below it, a policy of its own; None takes it away."""
        return self._store.set_retention(self.path, policy)

    def share(
        self,
        rights: Sequence[str] = ("read",),
        *,
        hours: float | None = 24.0,
        address: str | None = None,
        addresses: str = "",
        label: str = "",
    ) -> str:
        """A link for somebody else to this collection and those below it: `hiss.connect(LINK)`.

        Parameters
        ----------
        rights : sequence of str
            `read`, `write`, or both.
        hours : float, optional
            How long it is good; None: until its token is revoked.
        address : str, optional
            `host:port` as others reach the server; by default as this client does.
        addresses : str
            Where it is good from, such as `10.1.0.0/16`; empty: anywhere.
        label : str
            Of the token, for people; by default `link to` the collection.
        """
        there = getattr(self._store, "link", Link(DEFAULT_ADDRESS))
        if address is None and there.address.startswith("unix:"):
            raise InvalidInput(f"a link to {there.address} is good on this machine only; say address='HOST:PORT'")
        made = self._store.create_token(
            label or f"link to {self.path}"[: limits.NAME_CHARS_MAX],
            rights,
            prefix=self.path,
            hours=hours,
            addresses=addresses,
        )
        return Link(address or there.address, there.tls, self.path, made.text).url()

    @property
    def drain_policy(self) -> DrainPolicy:
        """To where its streams are drained by themselves."""
        return self._store.drain_policy(self.path)

    def drain_to(self, *targets: DrainTarget | str) -> DrainPolicy:
        """Drain its streams, and those of the collections below it, there by themselves; without targets nowhere.

        Parameters
        ----------
        *targets : DrainTarget or str
            A URL alone means: as soon as a stream is final, in the format that the name says.
        """
        chosen = tuple(DrainTarget(each) if isinstance(each, str) else each for each in targets)
        return self._store.set_drain_policy(self.path, DrainPolicy(chosen))

    def seal(self) -> None:
        """No more streams; raises `StreamNotFinal` while one is open."""
        self._info = self._store.seal_collection(self.path)


def _dtype_text(dtype: npt.DTypeLike) -> str:
    try:
        return np.dtype(dtype).str
    except TypeError:
        raise InvalidInput(f"dtype {dtype!r} is no NumPy dtype; try 'uint16'") from None
