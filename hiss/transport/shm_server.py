"""The memory that a producer shares on its lane, the server's side. Used by the lane's own thread.

Its bytes are the producer's until they were copied, so what counts is the copy: that is hashed, and compared with the
digests that came. Only of a producer of the server's own user that says so are they taken as they came.
"""

from __future__ import annotations

import os
import socket

from hiss.errors import InvalidInput, PermissionRefused
from hiss.transport.lane_framing import TRUSTED, Head, place_in
from hiss.transport.shared_memory import SIZE, PeerMemory, peer_user, receive_descriptor


class ProducerMemory(PeerMemory):
    """`trusted`: whether digests of what lies in it are taken as they come."""

    trusted = False


class AnnouncedMemory:
    """What one lane's producer announced, if it did: once.

    Parameters
    ----------
    connection : socket
        A Unix socket.
    what : str
        Names the lane in errors.
    """

    def __init__(self, connection: socket.socket, what: str) -> None:
        self._connection = connection
        self._what = what
        self._memory: ProducerMemory | None = None

    def receive(self, head: Head) -> None:
        """Take a MEMORY frame's body and the descriptor that comes with it.

        Raises
        ------
        HissError
            It is not what it has to be.
        """
        if self._memory is not None:
            raise InvalidInput(f"{self._what}: a second shared memory; a producer has one")
        if head.flags & ~TRUSTED or head.body_bytes != SIZE.size:
            raise InvalidInput(
                f"{self._what}: shared memory with flags {head.flags:#x} and a body of {head.body_bytes} bytes; "
                f"expected 0 or {TRUSTED}, and {SIZE.size} bytes"
            )
        if head.flags & TRUSTED and peer_user(self._connection) != os.geteuid():
            raise PermissionRefused(f"{self._what}: trusted are producers of the server's own user only")
        body = bytearray(SIZE.size)
        descriptor = receive_descriptor(self._connection, memoryview(body), self._what)
        self._memory = ProducerMemory(descriptor, SIZE.unpack(body)[0], self._what)
        self._memory.trusted = bool(head.flags & TRUSTED)

    def memory(self, head: Head, body: bytearray) -> ProducerMemory:
        """The memory that the blocks of a SHARED frame lie in. Raises `InvalidInput` where they do not."""
        if self._memory is None:
            raise InvalidInput(f"{self._what}: blocks in shared memory, and none was announced")
        self._memory.check(place_in(body), head.data_bytes)
        return self._memory

    def close(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
