"""An append over gRPC, the client's side: the caller's thread queues extents, a thread of gRPC's sends them.

What is queued is bounded by the credit; see `credited_append`.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from hiss.errors import HissError
from hiss.extent import Extent
from hiss.model import Ack, Feedback
from hiss.transport import wire
from hiss.transport.credited_append import CreditedAppend, Reply
from hiss.transport.error_wire import error_of
from hiss.transport.extent_wire import ExtentEncoder
from hiss.transport.methods import STORE
from hiss.v1 import streams_pb2


class RemoteAppend(CreditedAppend):
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
        super().__init__(f"append to stream {stream_id} at {address}", on_ack, on_error, on_feedback)
        self._address = address
        self._outgoing: queue.SimpleQueue[Extent | None] = queue.SimpleQueue()
        self._call = converse(self._requests(stream_id))
        self._begin()

    def _transmit(self, part: Extent) -> None:
        self._outgoing.put(part)

    def _end_sending(self) -> None:
        self._outgoing.put(None)

    def _cut(self) -> None:
        self._call.cancel()
        self._outgoing.put(None)  # gRPC's thread may wait for it

    def _let_go(self) -> None:
        pass  # a call that is over holds nothing

    def _requests(self, stream_id: str) -> Iterator[bytes]:
        """What the client sends, in gRPC's thread."""
        yield streams_pb2.AppendRequest(open=streams_pb2.AppendOpen(stream_id=stream_id)).SerializeToString()
        encoder = ExtentEncoder()
        while (extent := self._outgoing.get()) is not None:
            yield encoder.encode(extent)

    def _replies(self) -> Iterator[Reply]:
        try:
            for body in self._call:
                yield self._decode(STORE["Streams.Append"].parse_response(body))
        except grpc.RpcError as failure:
            raise error_of(failure, self._address) from None

    def _decode(self, reply: streams_pb2.AppendResponse) -> Reply:
        kind = reply.WhichOneof("kind")
        if kind == "start":
            return wire.decode_append_start(reply.start)
        if kind == "ack":
            return wire.decode_ack(reply.ack), reply.ack.credit_bytes
        if kind == "feedback":
            return wire.decode_feedback(reply.feedback)
        raise HissError(f"{self._what}: the server answered {kind} where it should not; are both of one version?")
