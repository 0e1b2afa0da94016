"""The server's side of one lane, from its ticket to its end: extents in, acknowledgements out.

Two threads work for each. The lane's own receives extents, where the session lends its memory straight into that, and
hands them over; those that lie in memory that the producer shares it copies from there (`shm_server`). The store's
back-pressure stops it, and thereby the producer, by the socket's flow control. The other sends what the `Outbox` holds;
an acknowledgement that the producer waits for is sent by the thread that has it, where that need not wait. Neither
waits for the other while it holds anything that the other needs. Whatever way the lane ends, the session is
closed, what had arrived whole is finished, and memory that was lent and not filled is given back.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from hiss import limits
from hiss.errors import HissError, InvalidInput, Stopping
from hiss.extent import Extent
from hiss.model import Ack, AppendStart, Feedback
from hiss.store import AppendSession, LandingSession
from hiss.transport.admission import Stops
from hiss.transport.append_call import Outbox
from hiss.transport.calls import OWN_ERROR
from hiss.transport.lane_framing import (
    WAITS,
    Connection,
    ExtentUnframer,
    FrameReader,
    Head,
    Kind,
    ack_frame,
    error_frame,
    feedback_frame,
    frame,
    place_in,
    send_parts,
    set_patience,
    start_frame,
)
from hiss.transport.shm_server import AnnouncedMemory
from hiss.transport.tls_socket import TlsSocket

log = logging.getLogger(__name__)

_ALIVE: Final = {waits: frame(Kind.ALIVE, flags=WAITS if waits else 0) for waits in (False, True)}


class LaneCall:
    """One lane whose ticket was good.

    Parameters
    ----------
    connection : socket or TlsSocket
        Blocking; closed by whoever runs this.
    what : str
        Names the lane in errors.
    open_session : callable
        Becomes the stream's producer.
    shares : bool
        Whether the producer may announce memory that it shares.
    """

    def __init__(
        self,
        connection: Connection,
        what: str,
        open_session: Callable[[Outbox], AppendSession],
        *,
        shares: bool = False,
    ) -> None:
        self._connection = connection
        self._what = what
        self._open_session = open_session
        self._outbox = Outbox(self._tell_now)
        self._saying = threading.Lock()  # who sends, and has taken from the outbox what is to be sent first
        self._start: AppendStart | None = None  # once it was told
        self._unsaid = b""  # the rest of a frame that the peer took a part of
        self._reader = FrameReader(connection, what, limits.LANE_STALL_S, may_idle=True)
        self._unframer = ExtentUnframer(what)
        self._announced: AnnouncedMemory | None = None
        if shares:
            assert isinstance(connection, socket.socket), "memory is announced on Unix sockets only"
            self._announced = AnnouncedMemory(connection, what)
        self._waits = False  # for the producer: all that came from it was read
        self._stopping = False
        self._why: HissError = Stopping(
            "the server is shutting down; connect again, ask where the stream stands, send the rest"
        )

    def run(self, stops: Stops) -> None:
        """Serve the lane to its end; in a thread of its own."""
        set_patience(self._connection, limits.LANE_STALL_S, limits.LANE_STALL_S)
        try:
            with _errors_told(self._outbox, self._what):
                session = self._open_session(self._outbox)
            if self._outbox.error is not None:
                self._reply(None)
                return
            self._outbox.level = session.start.credit_level
            with stops.told(self.stop):
                self._serve(session)
        finally:
            self._outbox.finish()

    def stop(self) -> None:
        """The server goes down: take no more, finish what is here, acknowledge it, refuse the rest."""
        self._stopping = True
        _shut(self._connection, socket.SHUT_RD)

    def revoke(self, why: HissError) -> None:
        """The producer's token is good no longer: the same, for that reason."""
        self._why = why
        self.stop()

    def cut(self) -> None:
        """End it now."""
        _shut(self._connection, socket.SHUT_RDWR)

    def _serve(self, session: AppendSession) -> None:
        teller = threading.Thread(target=self._reply, args=(session.start,), name="hiss lane acks", daemon=True)
        teller.start()
        try:
            with _errors_told(self._outbox, self._what):
                self._receive(session)
            stopped = self._stopping
            with _errors_told(self._outbox, self._what):
                session.close()
            if stopped:
                self._outbox.fail(self._why)
        finally:
            self._outbox.finish()
            teller.join()
            if self._announced is not None:
                self._announced.close()

    # ---- in

    def _receive(self, session: AppendSession) -> None:
        """Hand the producer's extents to the session, until it ends its side or the server stops."""
        lender = session if isinstance(session, LandingSession) else None
        while not self._stopping and (head := self._next_head()) is not None:
            if head.kind == Kind.COLUMNS:
                self._unframer.name_columns(self._reader.body(head.body_bytes, limits.LANE_COLUMNS_BYTES_MAX))
            elif head.kind == Kind.MEMORY and self._announced is not None:
                self._announced.receive(head)
            elif head.kind == Kind.EXTENT or (head.kind == Kind.SHARED and self._announced is not None):
                self._receive_extent(session, lender, head)
            else:
                raise InvalidInput(f"{self._what}: a frame of kind {head.kind}; expected an extent or columns")

    def _next_head(self) -> Head | None:
        self._waits = True
        try:
            return self._reader.next_head()
        finally:
            self._waits = False

    def _receive_extent(self, session: AppendSession, lender: LandingSession | None, head: Head) -> None:
        self._unframer.check(head)
        body = self._reader.body(head.body_bytes, limits.MESSAGE_BYTES_MAX)
        vectors = self._unframer.vectors(head, body)
        shared = self._announced.memory(head, body) if head.kind == Kind.SHARED and self._announced else None
        landing = lender.reserve(head.blocks, head.data_bytes) if lender is not None else None
        data = np.empty(head.data_bytes, np.uint8) if landing is None else landing.data
        try:
            if shared is None:
                self._reader.fill(data.data)
            else:
                shared.copy(place_in(body), data)
            extent = Extent(**vectors, data=data)
        except BaseException:
            if landing is not None:
                landing.release()
            raise
        if lender is not None and landing is not None:
            lender.send_landed(extent, landing, trusted=shared is not None and shared.trusted)
        else:
            session.send(extent)

    # ---- out

    def _reply(self, start: AppendStart | None) -> None:
        """Say what there is to say until the lane ends; nobody waits for it but the lane's end."""
        with contextlib.suppress(OSError):  # the peer went away, or does not take its acknowledgements
            if start is not None:
                with self._saying:
                    self._say(start_frame(start))
                    self._start = start
            for told in self._outbox.rounds(limits.KEEPALIVE_S):
                with self._saying:
                    for reply in self._outbox.left():
                        self._say(self._frame(reply))
                    if not told:
                        self._say(_ALIVE[self._waits])
            error = self._outbox.error
            with self._saying:
                self._say(frame(Kind.END) if error is None else error_frame(error))
        _shut(self._connection, socket.SHUT_RDWR)

    def _frame(self, reply: Ack | Feedback) -> bytes:
        if isinstance(reply, Feedback):
            return feedback_frame(reply)
        assert self._start is not None, "nothing is acknowledged before a session has begun"
        return ack_frame(reply, self._start.credit_bytes)

    def _tell_now(self, ack: Ack) -> bool:
        """Send an acknowledgement from the thread that has it: handing it to another one takes longer. Not where that
        would wait, for the peer or for another sender; TLS does not say."""
        if isinstance(self._connection, TlsSocket) or not self._saying.acquire(blocking=False):
            return False
        try:
            if self._start is None or self._unsaid:
                return False
            message = ack_frame(ack, self._start.credit_bytes)
            self._unsaid = message[self._connection.send(message, socket.MSG_DONTWAIT) :]
            return not self._unsaid
        except OSError:  # full, or broken: the other thread sees
            return False
        finally:
            self._saying.release()

    def _say(self, message: bytes) -> None:
        """`_saying` is held."""
        send_parts(self._connection, (self._unsaid, message))
        self._unsaid = b""


@contextlib.contextmanager
def _errors_told(outbox: Outbox, what: str) -> Iterator[None]:
    """What is raised ends the lane; what nobody meant to raise is logged and not told."""
    try:
        yield
    except HissError as error:
        outbox.fail(error)
    except Exception:
        log.exception("%s: a bug", what)
        outbox.fail(HissError(OWN_ERROR))


def _shut(connection: Connection, how: int) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        connection.shutdown(how)
