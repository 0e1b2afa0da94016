"""The server's side of one read lane: reads of one stream, one after another, whose blocks the reader sees in memory
that is lent to it.

Two threads work for each. The lane's own goes through the store's extents, places each in memory (`lent_memory`) or
sends its bytes where there is no room, and says where they lie; it is at most `limits.SHARED_READ_AHEAD` extents ahead
of its reader. The other takes what the reader asks for and gives back, and its end, which ends the read. Nothing
outlives the lane but what the reader has mapped. An idle one takes no place of a long call. Where the reader's token is
good no longer, nothing more is said but that.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from hiss import limits
from hiss.errors import HissError, InvalidInput, Stopping
from hiss.extent import Extent
from hiss.store import Store
from hiss.transport import wire
from hiss.transport.admission import Stops
from hiss.transport.calls import OWN_ERROR
from hiss.transport.extent_wire import ExtentEncoder, split
from hiss.transport.lane_framing import FrameReader, Head, Kind, Part, error_frame, frame, send_parts, set_patience
from hiss.transport.lent_memory import Budget, LentMemory, Placed
from hiss.transport.shared_memory import LENT, NOWHERE, NUMBER
from hiss.v1 import streams_pb2

log = logging.getLogger(__name__)

_NEVER_S: Final = 0.0  # as the socket option means it: a reader takes its time
_EMPTY: Final = np.zeros(0, np.uint8)


class ReadCall:
    """One read lane whose ticket was good.

    Parameters
    ----------
    connection : socket
        Of a Unix socket, blocking; closed by whoever runs this.
    what : str
        Names the lane in errors.
    store : Store
        As the reader may use it.
    stream_id : str
        What the ticket is for.
    budget : Budget
        Of all readers.
    enter : callable
        Takes a place among the caller's long calls, as `Gate.enter` does; each read is one.
    """

    def __init__(
        self,
        connection: socket.socket,
        what: str,
        store: Store,
        stream_id: str,
        budget: Budget,
        enter: Callable[[], Callable[[], None]],
    ) -> None:
        self._connection = connection
        self._what = what
        self._store = store
        self._stream_id = stream_id
        self._reader = FrameReader(connection, what, limits.LANE_STALL_S, may_idle=True)
        self._encoder = ExtentEncoder()
        self._lent = LentMemory(budget)
        self._enter = enter
        self._wanted = _wanted()
        self._requests: queue.Queue[tuple[Kind, bytes] | None] = queue.Queue(maxsize=2)
        self._busy = False  # with a read that was asked for
        self._over = threading.Event()
        self._why: HissError | None = None  # the token is good no longer
        self._patient_until_s = 0.0

    def run(self, stops: Stops) -> None:
        """Serve the lane to its end; in a thread of its own."""
        set_patience(self._connection, limits.LANE_STALL_S, _NEVER_S)
        listener = threading.Thread(target=self._listen, name="hiss read lane", daemon=True)
        listener.start()
        try:
            with stops.told(self.stop), contextlib.suppress(OSError), self._errors_told():  # the reader went away
                while (request := self._next()) is not None:
                    self._serve(*request, stops)
                self._check_token()
        finally:
            self.cut()
            listener.join()
            self._lent.close()

    def stop(self) -> None:
        """The server goes down: a follow ends, a read runs to its end within the server's grace."""
        self._over.set()
        with contextlib.suppress(queue.Full):  # then it does not wait
            self._requests.put_nowait(None)

    def revoke(self, why: HissError) -> None:
        """The reader's token is good no longer: say so, and no more. Comes again while the lane lasts: a reader that
        takes nothing is cut off."""
        if self._why is None:
            self._why, self._patient_until_s = why, time.monotonic() + limits.LANE_STALL_S
            self.stop()
            self._wanted.release()
        elif time.monotonic() > self._patient_until_s:
            self.cut()

    def _check_token(self) -> None:
        if self._why is not None:
            raise self._why

    def cut(self) -> None:
        """End it now."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _next(self) -> tuple[Kind, bytes] | None:
        """What the reader asks for, or None when it has not for long, has ended, or the server stops."""
        try:
            return None if self._over.is_set() else self._requests.get(timeout=limits.SHARED_READ_IDLE_S)
        except queue.Empty:
            return None

    def _serve(self, kind: Kind, body: bytes, stops: Stops) -> None:
        leave = self._enter()
        try:
            self._encoder = ExtentEncoder()
            extents = self._asked(kind, body)
            self._connection.sendall(frame(Kind.ALIVE))  # from here on an error is the read's own
            for extent in extents:
                for part in split(extent):
                    self._wanted.acquire()
                    self._check_token()
                    self._say(part)
            self._check_token()
            if stops.stopping and kind == Kind.FOLLOW:
                raise Stopping("the server is shutting down; connect again and go on from the last one")
        finally:
            leave()
        gone = self._lent.trim(limits.SHARED_READ_IDLE_BYTES)
        self._busy = False
        self._connection.sendall(frame(Kind.END, b"".join(map(NUMBER.pack, gone))))

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except HissError as error:
            self._connection.sendall(error_frame(error))
        except OSError:
            raise
        except Exception:
            log.exception("%s: a bug", self._what)
            self._connection.sendall(error_frame(HissError(OWN_ERROR)))

    # ---- in

    def _asked(self, kind: Kind, body: bytes) -> Iterator[Extent]:
        if kind == Kind.FOLLOW:
            wanted = _follow(body)
            self._check_stream(wanted.stream_id)
            start = wanted.start if wanted.HasField("start") else None
            return self._store.follow(self._stream_id, start, self._over)
        asked = _read(body)
        self._check_stream(asked.stream_id)
        return self._store.read(self._stream_id, wire.decode_selection(asked.selection))

    def _check_stream(self, stream_id: str) -> None:
        if stream_id != self._stream_id:
            raise InvalidInput(f"{self._what}: asked for stream {stream_id[:80]!r}; its ticket is for another one")

    def _listen(self) -> None:
        """Take what is asked for and given back, until the reader ends the lane, and then stop the read."""
        try:
            while (head := self._reader.next_head()) is not None:
                body = self._reader.body(head.body_bytes, limits.SHARED_READ_REQUEST_BYTES_MAX)
                if head.kind == Kind.GIVE_BACK and len(body) % NUMBER.size == 0:
                    for (number,) in NUMBER.iter_unpack(body):
                        self._lent.give_back(number)
                    self._wanted.release()
                elif head.kind in (Kind.READ, Kind.FOLLOW):
                    if self._busy:
                        raise InvalidInput(f"{self._what}: asked for more than one read at once")
                    self._busy = True
                    self._wanted = _wanted()
                    self._requests.put_nowait((Kind(head.kind), bytes(body)))
                else:
                    raise InvalidInput(f"{self._what}: a frame of kind {head.kind}; a reader asks and gives back")
        except HissError as error:
            log.info("%s", error)
        except queue.Full:  # it ends already
            pass
        self._over.set()
        self.cut()
        self._wanted.release()
        with contextlib.suppress(queue.Full):
            self._requests.put_nowait(None)

    # ---- out

    def _say(self, extent: Extent) -> None:
        placed = self._lent.place(extent.data) if extent.data.size >= limits.SHARED_READ_FROM_BYTES else None
        if placed is not None and placed.memory is not None:
            self._lend(placed)
        body = NUMBER.pack(NOWHERE if placed is None else placed.number)
        body += self._encoder.encode(replace(extent, data=_EMPTY))
        head = Head(Kind.BLOCKS, 0, len(extent), len(body), extent.data.size)
        parts: list[Part] = [head.pack() + body]
        if placed is None:
            parts.append(np.ascontiguousarray(extent.data))
        send_parts(self._connection, parts)

    def _lend(self, placed: Placed) -> None:
        """Hand the descriptor of memory that the reader does not know yet over."""
        assert placed.memory is not None
        assert placed.memory.descriptor is not None
        gone = NOWHERE if placed.gone is None else placed.gone
        self._connection.sendall(Head(Kind.LENT, 0, 0, LENT.size).pack())
        body = LENT.pack(placed.number, gone, placed.memory.size)
        socket.send_fds(self._connection, [body], [placed.memory.descriptor])
        placed.memory.sent()


def _wanted() -> threading.Semaphore:
    """Of extents that may be said: one more for each time that the reader gives back, if only nothing."""
    return threading.Semaphore(limits.SHARED_READ_AHEAD)


@wire.checked
def _read(body: bytes) -> streams_pb2.ReadRequest:
    return streams_pb2.ReadRequest.FromString(body)


@wire.checked
def _follow(body: bytes) -> streams_pb2.FollowRequest:
    return streams_pb2.FollowRequest.FromString(body)
