"""An append over a lane, the client's side: the caller's thread sends each extent from where it lies.

Windows, acknowledgements and errors are `credited_append`'s. A lane that breaks raises `Unavailable`, as a broken
connection of any other kind does.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

from hiss import limits
from hiss.errors import HissError, InvalidInput, Unavailable
from hiss.extent import Extent
from hiss.model import Ack, Feedback
from hiss.tls import ClientTls
from hiss.transport.channel import TLS, UNIX, check_address
from hiss.transport.credited_append import CreditedAppend, Reply
from hiss.transport.lane_framing import (
    TICKET_BYTES,
    VERSION,
    WAITS,
    Connection,
    ExtentFramer,
    FrameReader,
    Kind,
    Part,
    decode_reply,
    frame,
    prepare_socket,
    send_parts,
    set_patience,
)
from hiss.transport.shared_memory import READ, SHM
from hiss.transport.tls_socket import TlsSocket

LANES: Final = ("shm", "unix", "tcp", "tls")

_SILENCE_S: Final = 2 * limits.KEEPALIVE_S  # a server says something twice in this time, if only that it is alive
_NEVER_S: Final = 0.0  # as the socket option means it: a full server stops its producers for as long as it takes


def kind_of(address: str) -> str:
    """Which of `LANES` an address is of."""
    if address.startswith(SHM):
        return "shm"
    return "unix" if address.startswith(UNIX) else "tls" if address.startswith(TLS) else "tcp"


def resolved(address: str, server: str) -> str:
    """An offered address, in which `*` is the host at which the client has reached the server."""
    head, star, tail = address.partition("*:")
    return f"{head}{server.rpartition(':')[0]}:{tail}" if star else address


class LaneAppend(CreditedAppend):
    """An `AppendSession` over a lane.

    Parameters
    ----------
    address : str
        `shm:PATH`, `unix:PATH`, `HOST:PORT` or `tls:HOST:PORT`.
    ticket : bytes
        That the server handed out for it.
    stream_id : str
        For errors.
    on_ack, on_error, on_feedback : callable
        As `Store.open_append` says.
    tls : ClientTls, optional
        For a lane over TLS.

    Raises
    ------
    Unavailable
        Nothing answers there.
    HissError
        What the server answered instead of taking us for the stream's producer.
    """

    def __init__(
        self,
        address: str,
        ticket: bytes,
        stream_id: str,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
        tls: ClientTls | None = None,
    ) -> None:
        super().__init__(f"append to stream {stream_id} by the lane at {address}", on_ack, on_error, on_feedback)
        if len(ticket) != TICKET_BYTES:
            raise InvalidInput(f"a lane's ticket has {TICKET_BYTES} bytes, not {len(ticket)}")
        self.kind = kind_of(address)
        self.acknowledged = False  # whether it ever carried anything
        self._said = 0  # blocks sent, and one for the end, when the server last said that it waits
        self._framer = ExtentFramer()
        self._sending = threading.Lock()  # so that the descriptor is not closed, and given to others, under a send
        self._connection: Connection = _dial_tls(address, tls) if self.kind == "tls" else dial(address)
        room = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._at_once_bytes = min(self._at_once_bytes, room // 2)  # the other half is the system's overhead
        self._reader = FrameReader(self._connection, self._what, _SILENCE_S, may_idle=False)
        with contextlib.suppress(OSError):  # what the server says is told by `_begin`
            set_patience(self._connection, _SILENCE_S, _NEVER_S)
            send_parts(self._connection, (frame(Kind.HELLO, ticket, VERSION),))
        self._begin()

    def cut(self) -> None:
        """End it now; the callbacks are told."""
        self._cut()

    def _transmit(self, part: Extent) -> None:
        try:
            with self._sending:
                send_parts(self._connection, self._parts(part))
        except OSError as error:
            self._receiver.join(limits.CONNECT_S)  # the server may have said why
            raise self._error or Unavailable(f"{self._what}: the connection broke: {error}") from None

    def _parts(self, part: Extent) -> list[Part]:
        return self._framer.parts(part)

    def _end_sending(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _let_go(self) -> None:
        with self._sending:
            self._connection.close()

    def _replies(self) -> Iterator[Reply]:
        while (head := self._reader.next_head()) is not None:
            reply = decode_reply(head, bytes(self._reader.body(head.body_bytes, limits.LANE_REPLY_BYTES_MAX)))
            if isinstance(reply, HissError):
                raise reply
            if head.kind == Kind.END:
                return
            if head.kind == Kind.ALIVE:
                self._check_heard(bool(head.flags & WAITS))
            if reply is not None:
                self.acknowledged = self.acknowledged or (isinstance(reply, tuple) and reply[0].received > 0)
                yield reply
        raise Unavailable(f"{self._what}: the connection broke")

    def _check_heard(self, waits: bool) -> None:
        """A server that waits for us, and waited before, has heard what we said before that, or it is lost: what comes
        from it says nothing of the other way."""
        with self._changed:
            before, self._said = self._said, self._blocks_sent + self._closing if waits else 0
        if waits and self._blocks_received < before:
            raise Unavailable(f"{self._what}: the connection broke: what goes there does not arrive")


def dial(address: str) -> socket.socket:
    """Connect to a lane's socket. Raises `Unavailable`."""
    for prefix in (SHM, READ):
        if address.startswith(prefix):
            address = UNIX + address.removeprefix(prefix)
    check_address(address)
    connection = None
    try:
        if address.startswith(UNIX):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(limits.CONNECT_S)
            connection.connect(address.removeprefix(UNIX))
        else:
            host, _, port = address.rpartition(":")
            connection = socket.create_connection((host.strip("[]"), int(port)), limits.CONNECT_S)
        prepare_socket(connection)
        return connection
    except OSError as error:
        if connection is not None:
            connection.close()
        raise Unavailable(f"no lane at {address}: {error}", address=address) from None


def _dial_tls(address: str, tls: ClientTls | None) -> TlsSocket:
    if tls is None:
        raise InvalidInput(f"the lane at {address} is for clients that know what to trust: hiss.connect(tls=…)")
    place = address.removeprefix(TLS)
    context = tls.context()
    plain = dial(place)
    try:
        plain.settimeout(limits.CONNECT_S)
        return TlsSocket(context.wrap_socket(plain, server_hostname=place.rpartition(":")[0].strip("[]")))
    except OSError as error:  # the handshake's errors among them; a socket that was wrapped closes itself
        plain.close()
        raise Unavailable(f"no lane at {address}: {error}", address=address) from None
