"""Where lanes are opened: listens on sockets, checks tickets, and gives each lane its threads.

One thread accepts connections and reads their first frame, without blocking on any of them; a lane whose ticket is good
gets a thread of its own (`lane_call`), admitted together with the long gRPC calls. `start` and `stop` are called by one
thread, once each; `offers` by any. Beyond loopback there is TLS, whose handshake the door's thread does, unless the
operator said that the network is trusted without.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import selectors
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import grpc

from hiss import limits
from hiss.errors import HissError, InvalidInput, PortInUse, Stopping, Unavailable
from hiss.model import Caller
from hiss.store import AppendSession, Store
from hiss.tls import ServerTls
from hiss.transport.admission import Gate, not_good
from hiss.transport.append_call import Outbox
from hiss.transport.calls import Bodies, Reception, body_of, caller_of, errors_as_status
from hiss.transport.channel import TLS, UNIX, check_address, peer_address
from hiss.transport.lane_call import LaneCall
from hiss.transport.lane_framing import (
    HEAD_BYTES,
    HELLO_BYTES,
    VERSION,
    Connection,
    Head,
    Kind,
    error_frame,
    prepare_socket,
)
from hiss.transport.lane_tickets import HERE, Grant, Tickets, host_of
from hiss.transport.lent_memory import Budget
from hiss.transport.methods import Method
from hiss.transport.read_call import ReadCall
from hiss.transport.shared_memory import READ, SHM, peer_user
from hiss.transport.tls_socket import TlsSocket
from hiss.v1 import streams_pb2

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.5  # how soon connections without a ticket are given up
_IGNORE_UNEXPECTED_EOF: Final = 0x80  # of OpenSSL 3; Python 3.12 has a name for it. See `tls_socket`


@dataclass(slots=True)
class _Listener:
    socket: socket.socket
    kind: str  # 'unix', 'tcp' or 'tls'
    address: str  # as clients are told; `*` is the host at which they have reached the server
    local: bool = True  # for clients on this host only


@dataclass(slots=True)
class _Newcomer:
    """A connection that has not shown its ticket yet."""

    connection: socket.socket
    kind: str
    host: str
    until_s: float
    shaken: bool  # hands: TLS's first messages are over, or there are none
    hello: bytearray = field(default_factory=bytearray)


class LaneServer:
    """The lanes of one server.

    Parameters
    ----------
    addresses : sequence of str
        `unix:PATH`, `HOST:PORT` and `tls:HOST:PORT`, port 0 for a free one; the fastest first.
    reception : Reception
        Of the gRPC server: the gate for long calls, and who is told when the server stops.
    store_for : callable
        The Store as a caller may use it.
    tls : ServerTls, optional
        For addresses that begin with `tls:`.
    plain_network : bool
        `HOST:PORT` need not be loopback.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        reception: Reception,
        store_for: Callable[[Caller], Store],
        tls: ServerTls | None = None,
        plain_network: bool = False,
    ) -> None:
        self._wanted = tuple(addresses)
        for address in addresses:
            check_address(address.removeprefix(TLS))
            if address.startswith(TLS) and tls is None:
                raise InvalidInput(f"lanes at {address}: no certificate was given")
        self._context = None if tls is None else _context(tls)
        self._plain_network = plain_network
        self._reception = reception
        self._store_for = store_for
        self._tickets = Tickets()
        self._listeners: list[_Listener] = []
        self._newcomers: OrderedDict[int, _Newcomer] = OrderedDict()  # by descriptor, the oldest first
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._stopping = False
        self._door = threading.Thread(target=self._attend, name="hiss lanes", daemon=True)
        self._calls: dict[threading.Thread, LaneCall | ReadCall] = {}
        self._read_lanes = Gate(limits.READ_LANES_MAX, "read lanes", limits.READ_LANES_OF_TOKEN_MAX)
        self._lent = Budget()
        self._lock = threading.Lock()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, with the ports that were picked."""
        return tuple(listener.address for listener in self._listeners)

    def start(self) -> None:
        """Listen. Raises `PortInUse`, or `Unavailable` for an address that this machine cannot listen at."""
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        for address in self._wanted:
            listener = _listen(address, self._plain_network)
            self._listeners.append(listener)
            self._selector.register(listener.socket, selectors.EVENT_READ, listener)
        if self._listeners:
            self._door.start()

    def stop(self, grace_s: float) -> None:
        """Open no more, wait `grace_s` for those that are open to end, cut the rest. More than once is fine."""
        self._stopping = True
        with contextlib.suppress(OSError):  # the second time it is closed
            self._wake_out.send(b".")
        if self._door.ident is not None:
            self._door.join()
        deadline_s = time.monotonic() + grace_s
        with self._lock:
            calls = dict(self._calls)
        for thread in calls:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        for thread, call in calls.items():
            call.cut()
            thread.join(limits.HANDSHAKE_S)
        self._selector.close()
        for end in (self._wake_in, self._wake_out):
            end.close()
        for listener in self._listeners:
            listener.socket.close()
            if listener.kind == "unix":
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(listener.address.removeprefix(UNIX))

    def offers(self, caller: Caller, stream_id: str, peer: str, *, read: bool = False) -> list[tuple[str, bytes]]:
        """Address and ticket of each lane that a gRPC client at `peer` may open, to append or to read."""
        host = _grpc_host(peer)
        reached = peer_address(peer) is not None  # at a host whose name the client knows
        found = [
            listener
            for listener in self._listeners
            if (host == HERE or not listener.local) and (reached or "*:" not in listener.address)
        ]
        kinds = [("read" if read else "shm", listener) for listener in found if listener.kind == "unix"]
        kinds += [(listener.kind, listener) for listener in found if not read]
        return [
            (_told(kind, listener.address), self._tickets.issue(Grant(caller, stream_id, kind, host)))
            for kind, listener in kinds
        ]

    # ---- the door's thread

    def _attend(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(_LOOK_S):
                if isinstance(key.data, _Listener):
                    self._accept(key.data)
                elif isinstance(key.data, _Newcomer):
                    self._hear(key.data)
            self._give_up_on(time.monotonic())
        for newcomer in list(self._newcomers.values()):
            self._drop(newcomer)

    def _accept(self, listener: _Listener) -> None:
        try:
            connection, address = listener.socket.accept()
        except OSError as error:
            log.warning("lane at %s: %s", listener.address, error)
            time.sleep(_LOOK_S)  # no descriptors left, most likely: somebody has to close one first
            return
        host = HERE if listener.kind == "unix" else host_of(address[0])
        if listener.kind == "unix" and not same_user(connection):
            connection.close()
            return
        connection.setblocking(False)
        if listener.kind == "tls":
            assert self._context is not None
            try:
                connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            except OSError:  # it is gone already
                connection.close()
                return
        while len(self._newcomers) >= limits.LANE_HELLOS_MAX:
            self._drop(next(iter(self._newcomers.values())))
        until_s = time.monotonic() + limits.HANDSHAKE_S
        newcomer = _Newcomer(connection, listener.kind, host, until_s, shaken=listener.kind != "tls")
        self._newcomers[connection.fileno()] = newcomer
        self._selector.register(connection, selectors.EVENT_READ, newcomer)

    def _hear(self, newcomer: _Newcomer) -> None:
        if newcomer.connection.fileno() not in self._newcomers:
            return  # dropped in this round
        try:
            if not self._shaken(newcomer):
                return
            found = newcomer.connection.recv(HELLO_BYTES - len(newcomer.hello))
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            found = b""
        newcomer.hello += found
        if not found:
            self._drop(newcomer)
        elif len(newcomer.hello) >= HELLO_BYTES or not _may_be_hello(newcomer.hello):
            self._forget(newcomer)
            self._admit(newcomer)

    def _shaken(self, newcomer: _Newcomer) -> bool:
        """Whether TLS's handshake is over; as much of it as is possible now is done."""
        if newcomer.shaken:
            return True
        assert isinstance(newcomer.connection, ssl.SSLSocket)
        try:
            newcomer.connection.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(newcomer.connection, selectors.EVENT_READ, newcomer)
            return False
        except ssl.SSLWantWriteError:
            self._selector.modify(newcomer.connection, selectors.EVENT_WRITE, newcomer)
            return False
        self._selector.modify(newcomer.connection, selectors.EVENT_READ, newcomer)
        newcomer.shaken = True
        return True

    def _give_up_on(self, now_s: float) -> None:
        while self._newcomers and (oldest := next(iter(self._newcomers.values()))).until_s < now_s:
            self._drop(oldest)

    def _forget(self, newcomer: _Newcomer) -> None:
        self._selector.unregister(newcomer.connection)
        del self._newcomers[newcomer.connection.fileno()]

    def _drop(self, newcomer: _Newcomer) -> None:
        self._forget(newcomer)
        newcomer.connection.close()

    def _admit(self, newcomer: _Newcomer) -> None:
        """Give a lane its thread, or say why not."""
        try:
            ticket = _ticket_of(bytes(newcomer.hello))
            grant = self._tickets.redeem(ticket, newcomer.kind, newcomer.host)
            self._reception.standing.check(grant.caller)
            if self._reception.stops.stopping:
                raise Stopping("the server is shutting down; connect again")
            gate = self._read_lanes if grant.kind == "read" else self._reception.long_calls
            leave = gate.enter(grant.caller)
        except HissError as error:
            with contextlib.suppress(OSError):
                newcomer.connection.send(error_frame(error))
            newcomer.connection.close()
            return
        self._begin(newcomer.connection, grant, leave)

    def _begin(self, connection: socket.socket, grant: Grant, leave: Callable[[], None]) -> None:
        prepare_socket(connection)
        call = self._call(TlsSocket(connection) if isinstance(connection, ssl.SSLSocket) else connection, grant)

        def serve() -> None:
            try:
                with self._reception.standing.told(grant.caller, partial(call.revoke, not_good(grant.caller))):
                    call.run(self._reception.stops)
            finally:
                connection.close()
                leave()
                with self._lock:
                    del self._calls[thread]

        thread = threading.Thread(target=serve, name="hiss lane", daemon=True)
        with self._lock:
            self._calls[thread] = call
            thread.start()

    def _call(self, connection: Connection, grant: Grant) -> LaneCall | ReadCall:
        if grant.kind == "read":
            assert isinstance(connection, socket.socket), "memory is lent over Unix sockets only"
            store = self._store_for(grant.caller)
            what = f"read of stream {grant.stream_id}"
            enter = partial(self._reception.long_calls.enter, grant.caller)
            return ReadCall(connection, what, store, grant.stream_id, self._lent, enter)

        def open_session(outbox: Outbox) -> AppendSession:
            store = self._store_for(grant.caller)
            return store.open_append(grant.stream_id, outbox.acknowledge, outbox.fail, outbox.feed_back)

        what = f"append to stream {grant.stream_id} by its {grant.kind} lane"
        return LaneCall(connection, what, open_session, shares=grant.kind == "shm")


def open_lane_handler(
    method: Method, reception: Reception, lanes: LaneServer | None
) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of `Streams.OpenLane`; None: this server has no lanes."""

    def serve(requests: Bodies, context: grpc.ServicerContext) -> bytes:
        with errors_as_status(context, method.path):
            caller = caller_of(context, reception.authenticate)
            request = method.parse_request(body_of(requests, context, reception.patience, method.path))
            found = [] if lanes is None else lanes.offers(caller, request.stream_id, context.peer(), read=request.read)
        offers = [streams_pb2.LaneOffer(address=address, ticket=ticket) for address, ticket in found]
        return streams_pb2.OpenLaneResponse(lanes=offers).SerializeToString()

    return grpc.stream_unary_rpc_method_handler(serve)


def _may_be_hello(found: bytes | bytearray) -> bool:
    head = Head(Kind.HELLO, VERSION, 0, HELLO_BYTES - HEAD_BYTES).pack()
    return head.startswith(found[:HEAD_BYTES])


def _ticket_of(hello: bytes) -> bytes:
    if len(hello) == HELLO_BYTES and _may_be_hello(hello):
        return hello[HEAD_BYTES:]
    if hello[:4] == Head(Kind.HELLO).pack()[:4]:
        raise InvalidInput(f"a lane begins with a HELLO of version {VERSION} and a ticket; are both of one version?")
    raise InvalidInput("this is a lane: it begins with a HELLO frame, see docs/lanes.md")


def _grpc_host(peer: str) -> str:
    """The host of a gRPC peer, as tickets know it."""
    address = peer_address(peer)
    return HERE if address is None else host_of(address)


def same_user(connection: socket.socket) -> bool:
    """Whether the peer of a Unix socket is of this server's user, or root."""
    return peer_user(connection) in (0, os.geteuid())


def _told(kind: str, address: str) -> str:
    """The address of a lane as clients are told: shared memory is announced on a Unix socket."""
    prefix = {"shm": SHM, "read": READ}.get(kind)
    return address if prefix is None else prefix + address.removeprefix(UNIX)


def _context(tls: ServerTls) -> ssl.SSLContext:
    context = tls.context()
    context.num_tickets = 0  # nobody resumes: a lane is opened once, and says nothing before its HELLO
    context.options |= _IGNORE_UNEXPECTED_EOF
    return context


def _listen(address: str, plain_network: bool) -> _Listener:
    try:
        if address.startswith(UNIX):
            return _listen_unix(address)
        if address.startswith(TLS):
            return _listen_tcp(address.removeprefix(TLS), "tls", beyond=True)
        return _listen_tcp(address, "tcp", beyond=plain_network)
    except OSError as error:
        kind = PortInUse if error.errno == errno.EADDRINUSE else Unavailable
        raise kind(f"cannot listen for lanes at {address}: {error}", address=address) from None


def _listen_unix(address: str) -> _Listener:
    path = address.removeprefix(UNIX)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a server that was killed: whoever has the data directory has its run directory
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(limits.LANE_HELLOS_MAX)
    return _Listener(listener, "unix", address)


def _listen_tcp(address: str, kind: str, *, beyond: bool) -> _Listener:
    host, _, port = address.rpartition(":")
    family, _, _, _, target = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    local = ipaddress.ip_address(target[0]).is_loopback
    if not local and not beyond:
        raise InvalidInput(f"lanes at {address}: without TLS they listen on loopback only; give a certificate")
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(target)
    listener.listen(limits.LANE_HELLOS_MAX)
    bound = listener.getsockname()
    name = f"[{bound[0]}]" if family == socket.AF_INET6 else bound[0]
    if not local or kind == "tls":  # the certificate is for a name, and the network may know this host by others
        name = "*"
    return _Listener(listener, kind, f"{TLS if kind == 'tls' else ''}{name}:{bound[1]}", local)
