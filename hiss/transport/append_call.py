"""The server's side of an append: extents in, acknowledgements out.

Two threads work for each: the pool thread sends replies from the `Outbox`, and a thread of its own takes requests and
hands extents to the store's session, whose back-pressure stops it, and thereby the client, by gRPC's flow control.
Neither waits for the other while it holds anything that the other needs, so that a full store cannot keep its own
acknowledgements back. Whatever way the call ends, the receiving thread closes the session, and what had arrived is
finished.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import grpc

from hiss import limits
from hiss.errors import HissError, InvalidInput, Stopping
from hiss.model import Ack, AckLevel, AppendStart, Caller, Feedback
from hiss.store import AppendSession, Store
from hiss.transport import wire
from hiss.transport.admission import not_good
from hiss.transport.calls import OWN_ERROR, Bodies, Reception, body_of, caller_of, errors_as_status
from hiss.transport.extent_wire import ExtentDecoder
from hiss.transport.methods import Method
from hiss.v1 import streams_pb2

log = logging.getLogger(__name__)

_OPEN_BYTES_MAX: Final = 4 * limits.KiB


class Outbox:
    """What the store's threads have to tell a producer, until the thread that sends replies takes it.

    Bounded: of acknowledgements the newest is kept, of feedback the newest `limits.FEEDBACK_MESSAGES_MAX`. An
    acknowledgement that the producer waits for, at the level that gives it credit, is told as soon as it is there; the
    others, that say how far the same blocks have come since, within `limits.ACK_LINGER_S`.

    Parameters
    ----------
    tell_now : callable, optional
        Sends an acknowledgement from the thread that brings it, and says whether it did; must not wait.

    Attributes
    ----------
    level : AckLevel
        That gives the producer credit.
    """

    def __init__(self, tell_now: Callable[[Ack], bool] | None = None) -> None:
        self.level = AckLevel.RECEIVED
        self.error: HissError | None = None
        self._tell_now = tell_now
        self._changed = threading.Condition()
        self._ack: Ack | None = None
        self._awaited = False  # the producer waits for `_ack`
        self._reached = 0  # blocks at `level`, in what was told or is here
        self._lingering = False
        self._feedback: deque[Feedback] = deque(maxlen=limits.FEEDBACK_MESSAGES_MAX)
        self._over = False

    def acknowledge(self, ack: Ack) -> None:
        with self._changed:
            before, self._reached = self._reached, ack.at(self.level)
            if self._reached > before:
                if self._tell_now is not None and self.error is None and self._tell_now(ack):
                    self._ack, self._awaited = None, False  # what was here is older
                    return
                self._awaited = True
                self._changed.notify()
            elif self._ack is None and not self._lingering:
                self._changed.notify()
            self._ack = ack

    def feed_back(self, feedback: Feedback) -> None:
        with self._changed:
            self._feedback.append(feedback)
            self._changed.notify()

    def fail(self, error: HissError) -> None:
        """End the call with an error, the first one that is told."""
        with self._changed:
            self.error = self.error or error
            self._changed.notify()

    def finish(self) -> None:
        """End the call after what is here."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def rounds(self, idle_s: float | None = None) -> Iterator[bool]:
        """Each time when there may be something to take with `left`: True; after `idle_s` without: False. Ends after
        the round in which the call is to end."""
        while True:
            with self._changed:
                told = self._changed.wait_for(lambda: self._ack is not None or self._pressing(), idle_s)
                self._lingering = True
                self._changed.wait_for(self._pressing, limits.ACK_LINGER_S if told else 0.0)
                self._lingering = False
                last = self._over or self.error is not None
            yield told
            if last:
                return

    def _pressing(self) -> bool:
        return self._awaited or bool(self._feedback) or self._over or self.error is not None

    def left(self) -> list[Ack | Feedback]:
        """What is here now, which is the caller's to send."""
        with self._changed:
            messages: list[Ack | Feedback] = list(self._feedback)
            self._feedback.clear()
            if self._ack is not None:
                messages.append(self._ack)
            self._ack, self._awaited = None, False
        return messages


class AppendCall:
    """One append, from the open session to its end."""

    def __init__(self, session: AppendSession, outbox: Outbox, leave: Callable[[], None]) -> None:
        self._session = session
        self._outbox = outbox
        self._leave = leave
        self._in_use = threading.Lock()  # of the session
        self._closed = False
        self._stopping = False
        self._why: HissError = Stopping(
            "the server is shutting down; connect again, ask where the stream stands, and send the rest"
        )
        self._complete = False

    def replies(self, requests: Bodies, context: grpc.ServicerContext, what: str) -> Iterator[bytes]:
        """Serve the call; in the pool thread."""
        if not context.add_callback(self._outbox.finish):
            self._outbox.finish()
        start = self._session.start
        self._outbox.level = start.credit_level
        threading.Thread(target=self._receive, args=(requests, what), name="hiss append", daemon=True).start()
        yield _message(start, start.credit_bytes)
        for _ in self._outbox.rounds():
            for reply in self._outbox.left():
                yield _message(reply, start.credit_bytes)
        if self._stopping and not self._complete and self._outbox.error is None:
            self._close()
            for reply in self._outbox.left():
                yield _message(reply, start.credit_bytes)
            raise self._why
        if self._outbox.error is not None:
            raise self._outbox.error

    def stop(self) -> None:
        """The server goes down: take no more, finish what is here, acknowledge it, refuse the rest."""
        self._stopping = True
        self._outbox.finish()

    def revoke(self, why: HissError) -> None:
        """The producer's token is good no longer: the same, for that reason."""
        self._why = why
        self.stop()

    def _receive(self, requests: Bodies, what: str) -> None:
        """Hand the client's extents to the session; in a thread of its own."""
        decoder = ExtentDecoder(what)
        try:
            for body in requests:
                extent = decoder.decode(body)
                del body
                with self._in_use:
                    if self._closed or self._stopping:
                        break
                    self._session.send(extent)
            self._close()
            self._complete = not self._stopping
        except grpc.RpcError:
            self._close()  # the client went away
        except HissError as error:
            self._outbox.fail(error)
            self._close()
        except Exception:
            log.exception("%s: a bug", what)
            self._outbox.fail(HissError(OWN_ERROR))
            self._close()
        finally:
            self._outbox.finish()
            self._leave()

    def _close(self) -> None:
        with self._in_use:
            if not self._closed:
                self._closed = True
                try:
                    self._session.close()
                except HissError as error:
                    self._outbox.fail(error)


def append_handler(
    method: Method, reception: Reception, store_for: Callable[[Caller], Store]
) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of `Streams.Append`."""

    def serve(requests: Bodies, context: grpc.ServicerContext) -> Iterator[bytes]:
        with errors_as_status(context, method.path):
            caller = caller_of(context, reception.authenticate)
            store = store_for(caller)
            leave = reception.long_calls.enter(caller, holders=2)
            try:
                try:
                    stream_id = _stream_id(body_of(requests, context, reception.patience, method.path), method)
                    outbox = Outbox()
                    session = store.open_append(stream_id, outbox.acknowledge, outbox.fail, outbox.feed_back)
                except BaseException:
                    leave()  # there will be no receiving thread
                    raise
                call = AppendCall(session, outbox, leave)
                revoke = partial(call.revoke, not_good(caller))
                with reception.stops.told(call.stop), reception.standing.told(caller, revoke):
                    yield from call.replies(requests, context, f"append to stream {stream_id}")
            finally:
                leave()

    return grpc.stream_stream_rpc_method_handler(serve)


def _stream_id(body: bytes, method: Method) -> str:
    if len(body) > _OPEN_BYTES_MAX:
        raise InvalidInput(f"{method.path}: the first request opens the append and is short; got {len(body)} bytes")
    request: streams_pb2.AppendRequest = method.parse_request(body)
    if request.WhichOneof("kind") != "open":
        raise InvalidInput(f"{method.path}: the first request must be `open`, with the stream's id")
    return request.open.stream_id


def _message(reply: AppendStart | Ack | Feedback, credit_bytes: int) -> bytes:
    match reply:
        case AppendStart():
            message = streams_pb2.AppendResponse(start=wire.encode_append_start(reply))
        case Ack():
            message = streams_pb2.AppendResponse(ack=wire.encode_ack(reply, credit_bytes))
        case Feedback():
            message = streams_pb2.AppendResponse(feedback=wire.encode_feedback(reply))
    return message.SerializeToString()
