"""The client's side of an append: extents out within the server's credit, acknowledgements in.

The caller's thread queues extents; a thread of gRPC's encodes and sends them; a thread of ours takes replies and runs
the callbacks. What is queued or under way is bounded by the credit. A session that breaks is dead: it says so once,
through `on_error`, and raises from then on; opening another one and sending again is the caller's part.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from hiss import limits
from hiss.errors import DeadlineExceeded, HissError, Unavailable
from hiss.model import Ack, AckLevel, AppendStart, Extent, Feedback
from hiss.store import AppendSession
from hiss.transport import wire
from hiss.transport.error_wire import error_of
from hiss.transport.extent_wire import ExtentEncoder, split
from hiss.transport.methods import STORE
from hiss.v1 import streams_pb2


class RemoteAppend(AppendSession):
    """An `AppendSession` behind gRPC.

    Parameters
    ----------
    converse : callable
        Begins the call: an iterator over the bytes of requests to a gRPC call.
    address, stream_id : str
        Of the server, for errors; of the stream.
    on_ack, on_error, on_feedback : callable
        As `Store.open_append` says.

    Raises
    ------
    HissError
        What the server answered instead of taking us for the stream's producer.
    """

    def __init__(
        self,
        converse: Callable[[Iterator[bytes]], Any],
        address: str,
        stream_id: str,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
    ) -> None:
        self._address = address
        self._what = f"append to stream {stream_id} at {address}"
        self._on_ack = on_ack
        self._on_error = on_error
        self._on_feedback = on_feedback
        self._changed = threading.Condition()
        self._outgoing: queue.SimpleQueue[Extent | None] = queue.SimpleQueue()
        self._unacknowledged: deque[tuple[int, int]] = deque()  # blocks sent up to here, bytes
        self._unacknowledged_bytes = 0
        self._blocks_sent = 0
        self._credit_bytes = 0
        self._start: AppendStart | None = None
        self._error: HissError | None = None
        self._closing = False
        self._over = False
        self._call = converse(self._requests(stream_id))
        self._receiver = threading.Thread(target=self._receive, name="hiss acks", daemon=True)
        self._receiver.start()
        self._await_start()

    @property
    def start(self) -> AppendStart:
        assert self._start is not None, "a session is handed out after it has begun"
        return self._start

    def send(self, extent: Extent) -> None:
        """As `AppendSession.send`: blocks while more than the credit is unacknowledged."""
        for part in split(extent):
            size = part.data.size
            with self._changed:
                self._changed.wait_for(lambda size=size: self._over or self._fits(size))  # type: ignore[misc]
                self._check_alive()
                self._blocks_sent += len(part)
                self._unacknowledged.append((self._blocks_sent, size))
                self._unacknowledged_bytes += size
            self._outgoing.put(part)

    def close(self) -> None:
        """As `AppendSession.close`. Raises what went wrong after the last `send`; more than once is fine."""
        with self._changed:
            dead = self._over
            first, self._closing = not self._closing, True
        self._outgoing.put(None)
        self._receiver.join()
        if first and not dead and self._error is not None:
            raise self._error

    def _fits(self, size: int) -> bool:
        return self._unacknowledged_bytes == 0 or self._unacknowledged_bytes + size <= self._credit_bytes

    def _check_alive(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closing or self._over:
            raise Unavailable(f"{self._what}: the session is closed; open another one")

    def _await_start(self) -> None:
        with self._changed:
            answered = self._changed.wait_for(lambda: self._start is not None or self._over, limits.CALL_S)
        if self._start is not None:
            return
        self._call.cancel()
        self._receiver.join()
        if answered and self._error is not None:
            raise self._error
        raise DeadlineExceeded(f"{self._what}: no answer in {limits.CALL_S} s; try again, or look at the server's log")

    def _requests(self, stream_id: str) -> Iterator[bytes]:
        """What the client sends, in gRPC's thread."""
        yield streams_pb2.AppendRequest(open=streams_pb2.AppendOpen(stream_id=stream_id)).SerializeToString()
        encoder = ExtentEncoder()
        while (extent := self._outgoing.get()) is not None:
            yield encoder.encode(extent)

    def _receive(self) -> None:
        """Take replies until the call ends; in a thread of its own."""
        error: HissError | None = None
        try:
            for body in self._call:
                self._take(STORE["Streams.Append"].parse_response(body))
            if not self._closing or self._unacknowledged:
                error = Unavailable(f"{self._what}: the server ended the session before everything was acknowledged")
        except grpc.RpcError as failure:
            error = error_of(failure, self._address)
        except HissError as failure:
            error = failure
        self._call.cancel()
        self._outgoing.put(None)  # gRPC's thread may wait for it
        with self._changed:
            begun, self._error, self._over = self._start is not None, error, True
            self._changed.notify_all()
        if error is not None and begun:
            self._on_error(error)

    def _take(self, reply: streams_pb2.AppendResponse) -> None:
        kind = reply.WhichOneof("kind")
        if kind == "start" and self._start is None:
            with self._changed:
                self._start = wire.decode_append_start(reply.start)
                self._credit_bytes = self._start.credit_bytes
                self._changed.notify_all()
        elif kind == "ack" and self._start is not None:
            ack = wire.decode_ack(reply.ack)
            self._settle(ack.at(min(self._start.credit_level, AckLevel.DURABLE)), reply.ack.credit_bytes)
            self._on_ack(ack)
        elif kind == "feedback" and self._start is not None:
            self._on_feedback(wire.decode_feedback(reply.feedback))
        else:
            raise HissError(f"{self._what}: the server answered {kind} where it should not; are both of one version?")

    def _settle(self, blocks: int, credit_bytes: int) -> None:
        """`blocks` are acknowledged: their bytes are credit again."""
        with self._changed:
            if blocks > self._blocks_sent:
                raise HissError(f"{self._what}: the server acknowledged {blocks} of {self._blocks_sent} blocks sent")
            while self._unacknowledged and self._unacknowledged[0][0] <= blocks:
                self._unacknowledged_bytes -= self._unacknowledged.popleft()[1]
            self._credit_bytes = credit_bytes
            self._changed.notify_all()
