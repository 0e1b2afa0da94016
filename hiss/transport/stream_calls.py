"""The calls that send a stream of replies: read, follow, watch.

Each runs in one pool thread that it owns while it lasts. gRPC takes a reply when the client has room for it, so that a
slow client slows the store's iterator and nothing is queued.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from hiss.errors import Stopping
from hiss.extent import Extent
from hiss.store import Store
from hiss.transport import wire
from hiss.transport.admission import Stops
from hiss.transport.extent_wire import ExtentEncoder, split
from hiss.v1 import events_pb2, streams_pb2


def read(
    store: Store, request: streams_pb2.ReadRequest, context: grpc.ServicerContext, stops: Stops
) -> Iterator[bytes]:
    """Runs to its end when the server stops, within the server's grace."""
    del context, stops
    yield from _messages(store.read(request.stream_id, wire.decode_selection(request.selection)))


def follow(
    store: Store, request: streams_pb2.FollowRequest, context: grpc.ServicerContext, stops: Stops
) -> Iterator[bytes]:
    start = request.start if request.HasField("start") else None
    with _until_over(context, stops) as stop:
        yield from _messages(store.follow(request.stream_id, start, stop))
        _check_running(context, stops)


def watch_events(
    store: Store, request: events_pb2.WatchEventsRequest, context: grpc.ServicerContext, stops: Stops
) -> Iterator[bytes]:
    with _until_over(context, stops) as stop:
        for event in store.events(request.after, stop, follow=request.follow):
            yield events_pb2.WatchEventsResponse(event=wire.encode_event(event)).SerializeToString()
        _check_running(context, stops)


def _messages(extents: Iterator[Extent]) -> Iterator[bytes]:
    encoder = ExtentEncoder()
    for extent in extents:
        for part in split(extent):
            yield encoder.encode(part)


@contextmanager
def _until_over(context: grpc.ServicerContext, stops: Stops) -> Iterator[threading.Event]:
    """An event that is set when the client goes away or the server stops."""
    stop = threading.Event()
    if not context.add_callback(stop.set):
        stop.set()
    with stops.told(stop.set):
        yield stop


def _check_running(context: grpc.ServicerContext, stops: Stops) -> None:
    if stops.stopping and context.is_active():
        raise Stopping("the server is shutting down; connect again and go on from the last one")


CALLS: dict[str, Any] = {"Streams.Read": read, "Streams.Follow": follow, "Events.WatchEvents": watch_events}
