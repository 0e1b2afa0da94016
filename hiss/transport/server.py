"""The gRPC server: listens, wires services to a Store and a rule engine, and stops without losing what is in flight.

gRPC gives every call a thread of one pool. Long calls are admitted up to `limits.LONG_CALLS_MAX`, so that
`limits.SHORT_CALL_THREADS` threads are left for everything else; see `admission`. `start` and `stop` are called by one
thread, once each.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, Final, TypeAlias

import grpc

from hiss import limits
from hiss.errors import HissError, InvalidInput, PortInUse, Unavailable
from hiss.model import Caller
from hiss.store import Store
from hiss.tls import ServerTls, read
from hiss.transport import meow_calls, store_calls, stream_calls
from hiss.transport.admission import Gate, Patience, Standing, Stops
from hiss.transport.append_call import append_handler
from hiss.transport.calls import Authenticate, Reception, long_handler, short_handler
from hiss.transport.channel import UNIX, check_address
from hiss.transport.introspection import (
    HEALTH_SERVICE,
    REFLECTION_SERVICES,
    Health,
    introspection_gate,
    reflection_handlers,
)
from hiss.transport.lane_server import LaneServer, open_lane_handler
from hiss.transport.line_server import LineServer
from hiss.transport.meow_forward import MeowForwarder
from hiss.transport.methods import MEOW, STORE, Method
from hiss.workflow import Meow

_THREADS: Final = (
    limits.LONG_CALLS_MAX + limits.SHORT_CALL_THREADS + limits.INTROSPECTION_CALLS_MAX + limits.SHARE_WAITS_MAX
)

Handlers: TypeAlias = "dict[str, grpc.RpcMethodHandler[Any, Any]]"


class GrpcServer:
    """Serves a buffer, a rule engine, or both.

    Parameters
    ----------
    addresses : sequence of str
        `HOST:PORT`, port 0 for a free one, and `unix:PATH`.
    store_for : callable, optional
        The Store as a caller may use it; called once for each call. None: there are no stores here.
    authenticate : callable
        The token of a call, or None, and the IP address that it comes from, None for a Unix socket, to who calls.
        Raises `PermissionRefused`. Must be quick.
    meow : Meow, str, optional
        The rule engine, or the address of its own server, to which calls are passed on.
    lanes : sequence of str
        Addresses for lanes, as `LaneServer` takes them; none: there are no lanes here.
    line : str, optional
        `unix:PATH`, where lines are opened (`line_server`).
    is_valid : callable
        Whether a caller's token is still good; asked while long calls last.
    tls : ServerTls, optional
        For all addresses but Unix sockets, and lanes whose address begins with `tls:`.
    plain_network : bool
        Lanes without TLS may listen beyond loopback, too.
    vouch : callable
        A token for a caller that the rule engine's own server knows; None: the caller's own.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        store_for: Callable[[Caller], Store] | None,
        authenticate: Authenticate,
        meow: Meow | str | None = None,
        lanes: Sequence[str] = (),
        line: str | None = None,
        is_valid: Callable[[Caller], bool] = lambda _: True,
        vouch: Callable[[Caller], str | None] = lambda _: None,
        tls: ServerTls | None = None,
        plain_network: bool = False,
    ) -> None:
        self._wanted = tuple(check_address(address) for address in addresses)
        self._stops = Stops()
        self._patience = Patience(limits.REQUEST_BODY_S)
        self._long_calls = Gate(
            limits.LONG_CALLS_MAX, "long calls (append, follow, watch, read)", limits.LONG_CALLS_OF_TOKEN_MAX
        )
        self._forwarder = MeowForwarder(meow, vouch) if isinstance(meow, str) else None
        self._standing = Standing(is_valid)
        reception = Reception(authenticate, self._long_calls, self._patience, self._stops, self._standing)
        services: dict[str, Handlers] = {}
        self.lanes: LaneServer | None = None
        if store_for is not None:
            self.lanes = LaneServer(lanes, reception, store_for, tls, plain_network) if lanes else None
            services |= _store_services(reception, store_for, self.lanes)
        if self._forwarder is not None:
            services["hiss.v1.Meow"] = self._forwarder.handlers(reception)
        elif meow is not None and not isinstance(meow, str):
            services["hiss.v1.Meow"] = _meow_service(reception, meow)
        self._line = None if line is None else LineServer(line, services)
        gate = introspection_gate()
        self._health = Health(services, gate, self._patience)
        self._pool = futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="hiss call")
        self._server = self._make_server(services, gate)
        self._bound: tuple[str, ...] = ()
        self._credentials = None if tls is None else _credentials(tls)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, in the order in which it was told, with the ports that were picked."""
        return self._bound

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports of the TCP addresses, in their order."""
        return tuple(int(address.rpartition(":")[2]) for address in self._bound if not address.startswith(UNIX))

    def start(self) -> None:
        """Listen and serve.

        Raises
        ------
        PortInUse
            Another program listens at a port or socket.
        Unavailable
            An address that this machine cannot listen at.
        """
        for address in self._wanted:
            self._bound = (*self._bound, self._listen(address))
        if self.lanes is not None:
            try:
                self.lanes.start()
            except HissError:
                self.lanes.stop(0)
                raise
        if self._line is not None:
            self._line.start()
        self._patience.start()
        self._standing.start()
        self._server.start()

    def look_at_tokens(self) -> None:
        """Tokens were revoked: end at once what their holders have open."""
        self._standing.look()

    def stop(self, grace_s: float) -> None:
        """Refuse new calls, finish what is in flight within `grace_s`, cut what is left. More than once is fine."""
        self._health.stop()
        over = self._server.stop(grace_s)
        self._stops.stop()
        if self.lanes is not None:
            self.lanes.stop(grace_s)
        over.wait()
        if self._line is not None:
            self._line.stop()
        self._patience.stop()
        self._standing.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._forwarder is not None:
            self._forwarder.close()
        for address in self._bound:
            if address.startswith(UNIX):
                _remove_socket(address.removeprefix(UNIX))

    def _make_server(self, services: dict[str, Handlers], gate: Gate) -> grpc.Server:
        server = grpc.server(
            self._pool, options=_options(), maximum_concurrent_rpcs=_THREADS + limits.CALLS_WAITING_MAX
        )
        everything = {**services, HEALTH_SERVICE: self._health.handlers()}
        everything |= dict.fromkeys(REFLECTION_SERVICES, reflection_handlers(services, gate))
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, handlers) for service, handlers in everything.items()]
        )
        return server

    def _listen(self, address: str) -> str:
        if address.startswith(UNIX):
            _probe_socket(address)
        else:
            _probe_port(address)
        try:
            if self._credentials is None or address.startswith(UNIX):
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise Unavailable(f"cannot listen at {address}: {error}", address=address) from None
        if address.startswith(UNIX):
            os.chmod(address.removeprefix(UNIX), 0o600)
            return address
        return f"{address.rpartition(':')[0]}:{port}"


def _store_services(
    reception: Reception, store_for: Callable[[Caller], Store], lanes: LaneServer | None
) -> dict[str, Handlers]:
    services: dict[str, Handlers] = {}
    for key, method in STORE.items():
        if key == "Streams.OpenLane":
            handler = open_lane_handler(method, reception, lanes)
        else:
            handler = _store_handler(key, method, reception, store_for)
        services.setdefault(method.service, {})[method.name] = handler
    return services


def _store_handler(
    key: str, method: Method, reception: Reception, store_for: Callable[[Caller], Store]
) -> grpc.RpcMethodHandler[Any, Any]:
    if key == "Streams.Append":
        return append_handler(method, reception, store_for)
    if key in stream_calls.CALLS:
        return long_handler(method, reception, store_for, stream_calls.CALLS[key])
    return short_handler(method, reception, store_for, store_calls.SHORT[key])


def _meow_service(reception: Reception, meow: Meow) -> Handlers:
    def handler(key: str, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        return short_handler(
            method,
            reception,
            lambda caller: (meow, caller),
            lambda subject, request: meow_calls.on_behalf_of(subject, key, request),
        )

    return {method.name: handler(key, method) for key, method in MEOW.items()}


def _options() -> list[tuple[str, Any]]:
    milliseconds = 1000
    return [
        ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
        ("grpc.so_reuseport", 0),  # or a second server would share the port unnoticed
        ("grpc.keepalive_time_ms", int(limits.KEEPALIVE_S * milliseconds)),
        ("grpc.keepalive_timeout_ms", int(limits.KEEPALIVE_S * milliseconds)),
        ("grpc.http2.ping_timeout_ms", int(limits.KEEPALIVE_S * milliseconds)),  # of pings that are not keepalive's
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(limits.KEEPALIVE_S * milliseconds) // 2),
        ("grpc.server_handshake_timeout_ms", int(limits.HANDSHAKE_S * milliseconds)),
        ("grpc.max_allowed_incoming_connections", _connections_max()),  # at each address
        ("grpc.max_connection_idle_ms", int(limits.IDLE_CONNECTION_S * milliseconds)),
    ]


def _connections_max() -> int:
    """So many that those who come without a token leave files to open for the rest of the process."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    share = limits.CONNECTIONS_MAX if allowed < 0 else allowed // limits.CONNECTIONS_FRACTION
    return min(limits.CONNECTIONS_MAX, share)


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Raises `InvalidInput` for files that cannot be used: gRPC itself would only refuse every client."""
    tls.context()
    return grpc.ssl_server_credentials(
        [(read(tls.key), read(tls.cert))],
        root_certificates=None if tls.client_ca is None else read(tls.client_ca),
        require_client_auth=tls.client_ca is not None,
    )


def _probe_port(address: str) -> None:
    """Raise `PortInUse` if any of the addresses behind a name is taken: gRPC is content when one of them is free."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise Unavailable(f"cannot listen at {address}: {error}", address=address) from None
    for family, kind, protocol, _, target in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(target)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(
                    f"port {port} of {host} is in use by another program; stop it, or choose another port",
                    address=address,
                    port=port,
                ) from None
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise Unavailable(f"cannot listen at {address}: {error}", address=address) from None


def _probe_socket(address: str) -> None:
    """Raise `PortInUse` if somebody answers at the socket; remove one that was left behind."""
    path = address.removeprefix(UNIX)
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise InvalidInput(f"address {address}: {path} is there and is no socket; choose another path")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        os.unlink(path)
        return
    raise PortInUse(f"another program listens at {path}; stop it, or choose another path", address=address)


def _remove_socket(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
