"""Which reads of a client go through shared memory, and their fallback to gRPC. Any thread.

Opening a lane takes longer than a small read over gRPC. So reads go by a lane where they are large as far as is known
from what the server told of the stream, and follows always. A lane is kept for a while for the next read of its stream,
with little memory, which is warm then.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

import grpc

from hiss import limits
from hiss.errors import HissError
from hiss.extent import Extent
from hiss.model import Selection, StreamInfo
from hiss.transport.lane_choice import Offer
from hiss.transport.lane_framing import Kind
from hiss.transport.read_client import ReadLane
from hiss.transport.shared_memory import READ
from hiss.v1 import streams_pb2

_KNOWN_MAX: Final = 1024  # streams whose size is remembered, the newest

Request = streams_pb2.ReadRequest | streams_pb2.FollowRequest


class SharedReads:
    """The reads of one client.

    Parameters
    ----------
    wanted : bool
        Whether to use shared memory where it is there.
    ask : callable
        Of a stream's id, and with `read=True`: the lanes that may be opened.
    cancelled_by : callable
        Has a call cancelled when an event is set.
    """

    def __init__(
        self,
        wanted: bool,
        ask: Callable[..., list[Offer]],
        cancelled_by: Callable[[threading.Event, Any], AbstractContextManager[None]],
    ) -> None:
        self._wanted = wanted
        self._closed = False
        self._ask = ask
        self._cancelled_by = cancelled_by
        self._sizes: OrderedDict[str, tuple[int, int]] = OrderedDict()  # blocks and bytes, as they were told last
        self._open: weakref.WeakSet[ReadLane] = weakref.WeakSet()
        self._idle: OrderedDict[str, tuple[float, ReadLane]] = OrderedDict()  # by stream: since when; the oldest first
        self._lock = threading.Lock()

    def note(self, info: StreamInfo) -> StreamInfo:
        """What the server told of a stream; it is handed through."""
        if info.completeness.blocks:
            with self._lock:
                self._sizes[info.id] = info.completeness.blocks, info.completeness.bytes
                self._sizes.move_to_end(info.id)
                if len(self._sizes) > _KNOWN_MAX:
                    self._sizes.popitem(last=False)
        return info

    def suit(self, stream_id: str, selection: Selection) -> bool:
        """Whether a read is worth a lane, as far as is known."""
        with self._lock:
            blocks, size = self._sizes.get(stream_id, (0, 0))
        if not self._wanted or not selection.data or not blocks or selection.step < 1:
            return False
        count = min(blocks, _blocks_max(selection) or blocks)
        return size / blocks * count / selection.step >= limits.SHARED_READ_WORTH_BYTES

    def shared(
        self,
        kind: Kind,
        request: Request,
        fall_back: Callable[[], Iterator[Extent]],
        *,
        single: bool = False,
        stop: threading.Event | None = None,
    ) -> Iterator[Extent]:
        """The extents by a lane, until `stop` is set, or those of `fall_back` where none can be opened. A `single` one
        may be left before the read's end."""
        lane = None if not self._wanted or (stop is not None and stop.is_set()) else self._begun(kind, request)
        if lane is None:
            yield from fall_back()
        elif stop is None:
            if single:
                extents = list(lane.extents())
                self._keep(request.stream_id, lane)
                yield from extents
            else:
                yield from lane.extents()
                self._keep(request.stream_id, lane)
        else:
            with self._cancelled_by(stop, lane):
                try:
                    yield from lane.extents()
                except HissError:
                    if not stop.is_set():
                        raise
                finally:
                    lane.close()

    def close(self) -> None:
        """Cut those that are under way."""
        with self._lock:
            lanes, self._wanted, self._closed = list(self._open), False, True
            idle = [lane for _, lane in self._idle.values()]
            self._idle.clear()
        for lane in lanes:
            lane.cancel()
        for lane in idle:
            lane.close()

    def _begun(self, kind: Kind, request: Request) -> ReadLane | None:
        """A lane once the server has taken the read. Why it does not is left to gRPC to tell."""
        body = request.SerializeToString()
        with self._lock:
            _, lane = self._idle.pop(request.stream_id, (0.0, None))
        if lane is not None:
            with contextlib.suppress(HissError):  # it has been idle for too long, or the server is another one
                lane.begin(kind, body)
                return lane
        try:
            lane = self._opened(kind, request.stream_id)
            if lane is not None:
                lane.begin(kind, body)
            return lane
        except HissError as error:
            if error.details.get("code") == grpc.StatusCode.UNIMPLEMENTED.name:
                self._wanted = False
            return None

    def _opened(self, kind: Kind, stream_id: str) -> ReadLane | None:
        what = f"{'following' if kind == Kind.FOLLOW else 'reading'} stream {stream_id}"
        offers = [offer for offer in self._ask(stream_id, read=True) if offer.address.startswith(READ)]
        if not offers:  # the server has none for us, and will not have one later
            self._wanted = False
            return None
        lane = ReadLane(offers[0].address, offers[0].ticket, what)
        with self._lock:
            if not self._closed:
                self._open.add(lane)
                return lane
        lane.close()  # nobody would cut it
        return None

    def _keep(self, stream_id: str, lane: ReadLane) -> None:
        """Keep it for the next read of the stream, the newest of those that are kept; those that are old go."""
        now_s = time.monotonic()
        with self._lock:
            spare = [self._idle.pop(stream_id, (0.0, None))[1]]
            self._idle[stream_id] = now_s, lane
            for other, (since_s, kept) in list(self._idle.items()):
                full = len(self._idle) > limits.READ_LANES_IDLE_MAX
                if full or not self._wanted or since_s < now_s - limits.SHARED_READ_IDLE_S:
                    del self._idle[other]
                    spare.append(kept)
        for each in spare:
            if each is not None:
                each.close()


def _blocks_max(selection: Selection) -> int | None:
    """How many blocks it has at most; None: not known."""
    if selection.newest:
        return 1
    if selection.stop is None:
        return None
    return max(0, selection.stop - (selection.start or 0))


def is_single(selection: Selection) -> bool:
    """Whether it has one block at most."""
    return _blocks_max(selection) == 1
