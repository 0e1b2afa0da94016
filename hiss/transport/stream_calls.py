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

from hiss.extent import Extent
from hiss.store import Store
from hiss.transport import wire
from hiss.transport.admission import Ending
from hiss.transport.extent_wire import ExtentEncoder, split
from hiss.v1 import events_pb2, streams_pb2


def read(
    store: Store, request: streams_pb2.ReadRequest, context: grpc.ServicerContext, ending: Ending
) -> Iterator[bytes]:
    """Runs to its end when the server stops, within the server's grace; not when the token is revoked."""
    del context
    for message in _messages(store.read(request.stream_id, wire.decode_selection(request.selection))):
        ending.check_token()
        yield message


def follow(
    store: Store, request: streams_pb2.FollowRequest, context: grpc.ServicerContext, ending: Ending
) -> Iterator[bytes]:
    start = request.start if request.HasField("start") else None
    with _until_over(context, ending) as stop:
        yield from _messages(store.follow(request.stream_id, start, stop))
        _check_running(context, ending)


def watch_events(
    store: Store, request: events_pb2.WatchEventsRequest, context: grpc.ServicerContext, ending: Ending
) -> Iterator[bytes]:
    with _until_over(context, ending) as stop:
        for event in store.events(request.after, stop, follow=request.follow):
            yield events_pb2.WatchEventsResponse(event=wire.encode_event(event)).SerializeToString()
        _check_running(context, ending)


def _messages(extents: Iterator[Extent]) -> Iterator[bytes]:
    encoder = ExtentEncoder()
    for extent in extents:
        for part in split(extent):
            yield encoder.encode(part)


@contextmanager
def _until_over(context: grpc.ServicerContext, ending: Ending) -> Iterator[threading.Event]:
    """An event that is set when the client goes away, the server stops, or the token is revoked."""
    stop = threading.Event()
    if not context.add_callback(stop.set):
        stop.set()
    with ending.told(stop.set):
        yield stop


def _check_running(context: grpc.ServicerContext, ending: Ending) -> None:
    error = ending.error
    if error is not None and context.is_active():
        raise error


CALLS: dict[str, Any] = {"Streams.Read": read, "Streams.Follow": follow, "Events.WatchEvents": watch_events}
