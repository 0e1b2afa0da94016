"""Memory that two processes see: memfds that cannot be resized, and how a server looks into one that it was handed.

Whoever makes such memory seals it before its descriptor travels, so that nobody can truncate it under a mapping
(SIGBUS). Who gets one trusts nothing but what the kernel says of it. Any thread makes; a `PeerMemory` is for one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
from typing import Final

import numpy as np

from hiss import limits
from hiss.errors import InvalidInput, LimitExceeded, Unavailable
from hiss.model import ByteArray

SHM: Final = "shm:"  # of an address: then the path of a Unix socket, on which shared memory is announced
READ: Final = "read:"  # or one over which memory is lent to a reader
SIZE: Final = struct.Struct("<Q")  # the body of a MEMORY frame
PLACE: Final = struct.Struct("<Q")  # what the body of a SHARED frame begins with
NUMBER: Final = struct.Struct("<I")  # of lent memory: what a BLOCKS frame begins with, and GIVE_BACK lists
LENT: Final = struct.Struct("<IIQ")  # the body of a LENT frame: number, number of one that is gone, size
NOWHERE: Final = 2**32 - 1  # as such a number: none
RESIZE_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
READER_SEALS: Final = 0x10 | fcntl.F_SEAL_SEAL  # F_SEAL_FUTURE_WRITE, Linux 5.1, not named by Python's fcntl
_PEER: Final = struct.Struct("3i")  # ucred of unix(7): pid, uid, gid


def make_memory(name: str, size: int) -> int:
    """The descriptor of new memory, of `size` zeros that take none yet. Raises `OSError`."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, RESIZE_SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def peer_user(connection: socket.socket) -> int:
    """The user id of the process at the other end of a Unix socket, as it was when it connected."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(found)[1])


def receive_descriptor(connection: socket.socket, view: memoryview, what: str) -> int:
    """Receive into all of `view`, and the one descriptor that comes with it; it is the caller's to close.

    Raises
    ------
    Unavailable
        None came: something between us does not pass it on, or there is no room for one more here.
    """
    try:
        text, descriptors, _, _ = socket.recv_fds(
            connection, view.nbytes, 1, socket.MSG_WAITALL | socket.MSG_CMSG_CLOEXEC
        )
    except OSError as error:
        raise Unavailable(f"{what}: the connection broke: {error}") from None
    if len(descriptors) != 1 or len(text) != view.nbytes:
        for descriptor in descriptors:
            os.close(descriptor)
        raise Unavailable(f"{what}: shared memory was announced, and no descriptor came with it; use another lane")
    view[:] = text
    return descriptors[0]


def map_to_read(descriptor: int, size: int, what: str, seals: int = RESIZE_SEALS) -> mmap.mmap:
    """Map what a peer shares, which may change at any time unless it has the `seals` against that.

    Parameters
    ----------
    descriptor : int
        Taken over, whatever happens.
    size : int
        As the peer says.
    what : str
        Names the connection in errors.
    seals : int
        It has these at least.

    Raises
    ------
    InvalidInput
        Not memory that stays as large as it is, or of another size.
    LimitExceeded
        More than `limits.SHARED_MEMORY_BYTES_MAX`.
    Unavailable
        It cannot be mapped here.
    """
    try:
        _check(descriptor, size, what, seals)
        return mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    except OSError as error:
        raise Unavailable(f"{what}: the shared memory cannot be mapped: {error}; use another lane") from None
    finally:
        os.close(descriptor)


class PeerMemory:
    """What a peer shares, for us to copy from. The peer may change it at any time. As `map_to_read`."""

    def __init__(self, descriptor: int, size: int, what: str) -> None:
        self._what = what
        self._map = map_to_read(descriptor, size, what)
        self._bytes: ByteArray = np.frombuffer(self._map, np.uint8)

    def check(self, place: int, size: int) -> None:
        """Raise `InvalidInput` unless `size` bytes from `place` on lie in it."""
        if place + size > self._bytes.size:
            raise InvalidInput(
                f"{self._what}: blocks at {place} to {place + size} of a shared memory of {self._bytes.size} bytes"
            )

    def copy(self, place: int, out: ByteArray) -> None:
        """Copy what lies at `place` now, as much as `out` holds."""
        out[:] = self._bytes[place : place + out.size]

    def close(self) -> None:
        del self._bytes  # or the mapping would be in use
        self._map.close()


def _check(descriptor: int, size: int, what: str, wanted: int) -> None:
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise InvalidInput(f"{what}: the descriptor is not of a memfd; expected one with its size sealed") from None
    if seals & wanted != wanted:
        raise InvalidInput(
            f"{what}: the shared memory's seals are {seals:#x}; expected {wanted:#x} among them (F_SEAL_SHRINK and "
            "F_SEAL_GROW, so that it keeps its size)"
        )
    if os.fstatvfs(descriptor).f_bsize != mmap.PAGESIZE:  # of huge pages there may be none when we look
        raise InvalidInput(f"{what}: the shared memory is of huge pages; expected a memfd of ordinary ones")
    if not 0 < size <= limits.SHARED_MEMORY_BYTES_MAX:
        raise LimitExceeded(
            f"{what}: a shared memory of {size} bytes, allowed are 1 to {limits.SHARED_MEMORY_BYTES_MAX}",
            limit="SHARED_MEMORY_BYTES_MAX",
            allowed=limits.SHARED_MEMORY_BYTES_MAX,
            found=size,
        )
    found = os.fstat(descriptor).st_size
    if found != size:
        raise InvalidInput(f"{what}: a shared memory of {found} bytes was announced as one of {size}")
