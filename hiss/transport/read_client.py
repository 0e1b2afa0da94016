"""A read through shared memory, the client's side: extents whose bytes lie where the server put them, read-only.

The arrays are views of the server's memory, not copies. Each keeps its memory mapped for as long as it, or a view of
it, lives; then the memory is given back with the next word to the server, which puts another extent there. One thread
iterates; arrays may die in any.
"""

from __future__ import annotations

import contextlib
import mmap
import socket
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hiss import limits
from hiss.errors import HissError, Unavailable
from hiss.extent import Extent
from hiss.model import ByteArray
from hiss.transport.lane_client import dial
from hiss.transport.lane_framing import (
    VERSION,
    FrameReader,
    Head,
    Kind,
    decode_reply,
    frame,
    prepare_socket,
    send_parts,
    set_patience,
)
from hiss.transport.remote_read import CheckedExtents
from hiss.transport.shared_memory import (
    LENT,
    NOWHERE,
    NUMBER,
    READER_SEALS,
    RESIZE_SEALS,
    map_to_read,
    receive_descriptor,
)


class ReadLane:
    """A read lane of one stream: one read or follow at a time. To who cancels it, it looks like a call of gRPC's.

    Parameters
    ----------
    address : str
        `read:PATH`.
    ticket : bytes
        That the server handed out for it.
    what : str
        Names the read in errors.

    Raises
    ------
    Unavailable
        Nothing answers there.
    """

    def __init__(self, address: str, ticket: bytes, what: str) -> None:
        self._what = f"{what} by the lane at {address}"
        self._checked = CheckedExtents(self._what, without_data=True)
        self._maps: dict[int, mmap.mmap] = {}
        self._unused: deque[int] = deque()
        self._over = self._cancelled = False
        self._in_use = threading.Lock()  # so that the descriptor is not closed, and given to others, under a cut
        self._connection = dial(address)
        self._reader = FrameReader(self._connection, self._what, limits.LANE_STALL_S, may_idle=True)
        with contextlib.suppress(OSError):  # what the server says is told by `begin`
            prepare_socket(self._connection)
            set_patience(self._connection, limits.LANE_STALL_S, 0.0)
            send_parts(self._connection, (frame(Kind.HELLO, ticket, VERSION),))

    def begin(self, kind: Kind, request: bytes) -> None:
        """Ask for a READ or FOLLOW. Raises why the server does not do it, or that it is gone; the lane is over then."""
        self._checked = CheckedExtents(self._what, without_data=True)
        try:
            with contextlib.suppress(OSError):  # the next receive tells
                send_parts(self._connection, (self._given_back(), frame(kind, request)))
            self._next_head()
        except BaseException:
            self.close()
            raise

    def extents(self) -> Iterator[Extent]:
        """What was asked for. Whoever does not take all of it ends the lane; then another `begin` may follow."""
        try:
            while (head := self._next_head()).kind != Kind.END:
                if head.kind == Kind.LENT:
                    self._take_memory(head)
                elif head.kind == Kind.BLOCKS:
                    yield from self._extents(head)
                    with contextlib.suppress(OSError):  # the next receive tells
                        self._connection.sendall(self._given_back())
            for (number,) in NUMBER.iter_unpack(self._reader.body(head.body_bytes, limits.LANE_COLUMNS_BYTES_MAX)):
                self._maps.pop(number, None)
        except BaseException:
            self.close()
            raise

    def cancel(self) -> None:
        """End it now; from any thread. The iterator raises."""
        self._cancelled = True
        with self._in_use, contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def is_active(self) -> bool:
        return not self._over and not self._cancelled

    def close(self) -> None:
        with self._in_use:
            self._over = True
            self._connection.close()
        self._maps.clear()  # what arrays still lie in stays mapped

    def _next_head(self) -> Head:
        head = self._reader.next_head()
        if head is None:
            raise Unavailable(f"{self._what}: the connection broke")
        if head.kind == Kind.ERROR:
            error = decode_reply(head, bytes(self._reader.body(head.body_bytes, limits.LANE_REPLY_BYTES_MAX)))
            assert isinstance(error, HissError)
            raise error
        if head.kind not in (Kind.LENT, Kind.BLOCKS, Kind.ALIVE, Kind.END):
            raise HissError(f"{self._what}: the server said {head.kind}; are both of one version?")
        return head

    def _take_memory(self, head: Head) -> None:
        body = bytearray(min(head.body_bytes, LENT.size))
        descriptor = receive_descriptor(self._connection, memoryview(body), self._what)
        number, gone, size = LENT.unpack(body)
        self._maps.pop(gone, None)
        self._maps[number] = map_to_read(descriptor, size, self._what, RESIZE_SEALS | READER_SEALS)

    def _extents(self, head: Head) -> Iterator[Extent]:
        body = self._reader.body(head.body_bytes, limits.MESSAGE_BYTES_MAX)
        (number,) = NUMBER.unpack_from(body)
        data = self._sent(head) if number == NOWHERE else self._lent(number, head.data_bytes)
        (extent,) = self._checked.decode(bytes(memoryview(body)[NUMBER.size :]))
        yield from self._checked.good(replace(extent, data=data))

    def _sent(self, head: Head) -> ByteArray:
        data = np.empty(head.data_bytes, np.uint8)
        self._reader.fill(data.data)
        data.flags.writeable = False
        return data

    def _lent(self, number: int, size: int) -> ByteArray:
        found = self._maps.get(number)
        if found is None or size > len(found):
            raise HissError(
                f"{self._what}: {size} bytes in memory {number}, which is not here; are both of one version?"
            )
        data = np.frombuffer(found, np.uint8, size)
        weakref.finalize(data, self._unused.append, number).atexit = False  # views of it refer to it
        return data

    def _given_back(self) -> bytes:
        """Says what is not used any more, and that the next extent is wanted."""
        numbers = []
        while self._unused:
            numbers.append(NUMBER.pack(self._unused.popleft()))
        return frame(Kind.GIVE_BACK, b"".join(numbers))
