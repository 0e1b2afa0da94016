"""What travels on a lane: frames of a fixed head, a body of vectors or text, and the blocks' bytes.

docs/lanes.md describes the format for those who write their own. Numbers are little-endian. A `FrameReader` and an
`ExtentFramer` or `ExtentUnframer` serve one side of one connection and are used by one thread at a time. Whatever comes
in is checked before memory is taken for it, and raises a named error.
"""

from __future__ import annotations

import enum
import json
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss import errors, limits
from hiss.errors import HissError, InvalidInput, LimitExceeded, Unavailable
from hiss.extent import Extent
from hiss.model import Ack, AckLevel, AppendStart, ByteArray, Feedback
from hiss.transport import wire
from hiss.transport.error_wire import limited_detail
from hiss.transport.extent_wire import bad_count, check_vectors, packed_columns
from hiss.transport.shared_memory import PLACE
from hiss.transport.tls_socket import TlsSocket
from hiss.v1 import types_pb2

MAGIC: Final = b"hlan"
VERSION: Final = 1
TICKET_BYTES: Final = 32
_HEAD: Final = struct.Struct("<4sHHIIQ")
HEAD_BYTES: Final = _HEAD.size
HELLO_BYTES: Final = HEAD_BYTES + TICKET_BYTES
_START: Final = struct.Struct("<qqII")
_ACK: Final = struct.Struct("<qqqqq")
_FEEDBACK: Final = struct.Struct("<q")
_TIMEVAL: Final = struct.Struct("@ll")
_I8, _U8, _U4 = np.dtype("<i8"), np.dtype("<u8"), np.dtype("<u4")
_NO_COLUMNS: Final[np.dtype[np.void]] = np.dtype([])

TIMES: Final = 1  # flags of an extent: what its body holds beside index, digest and length
STATUS: Final = 2
TRUSTED: Final = 1  # flag of a MEMORY frame
WAITS: Final = 1  # flag of an ALIVE frame: all that came was read

Part = bytes | bytearray | ByteArray
Connection = socket.socket | TlsSocket


class Kind(enum.IntEnum):
    """What a frame is. Below 16 the producer says it, from 16 on the server."""

    HELLO = 1
    COLUMNS = 2
    EXTENT = 3
    MEMORY = 4
    SHARED = 5
    READ = 6
    FOLLOW = 7
    GIVE_BACK = 8
    START = 16
    ACK = 17
    FEEDBACK = 18
    ERROR = 19
    END = 20
    ALIVE = 21
    LENT = 22
    BLOCKS = 23


@dataclass(frozen=True, slots=True)
class Head:
    """The first bytes of each frame."""

    kind: int
    flags: int = 0
    blocks: int = 0
    body_bytes: int = 0
    data_bytes: int = 0

    def pack(self) -> bytes:
        return _HEAD.pack(MAGIC, self.kind, self.flags, self.blocks, self.body_bytes, self.data_bytes)

    @classmethod
    def unpack(cls, head: bytes | bytearray, what: str) -> Head:
        """Raises `InvalidInput` for what is no head."""
        magic, kind, flags, blocks, body_bytes, data_bytes = _HEAD.unpack(head)
        if magic != MAGIC:
            raise InvalidInput(f"{what}: not a frame of a lane: it begins with {magic!r}, expected {MAGIC!r}")
        return cls(kind, flags, blocks, body_bytes, data_bytes)


def frame(kind: Kind, body: bytes = b"", flags: int = 0) -> bytes:
    """A whole frame without blocks."""
    return Head(kind, flags, 0, len(body)).pack() + body


# ---------------------------------------------------------------------------------------------------------- sockets


def prepare_socket(connection: socket.socket) -> None:
    """What both ends of a lane ask of the system for its socket."""
    connection.setblocking(True)
    if connection.family == socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.LANE_SOCKET_BYTES)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.LANE_SOCKET_BYTES)
    else:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def set_patience(connection: Connection, receive_s: float, send_s: float) -> None:
    """Let one receive or send wait so long; the socket stays a blocking one, so that a frame is one system call."""
    if isinstance(connection, TlsSocket):
        connection.set_patience(receive_s, send_s)
        return
    for option, wait_s in ((socket.SO_RCVTIMEO, receive_s), (socket.SO_SNDTIMEO, send_s)):
        connection.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(wait_s), int(wait_s % 1 * 1e6)))


def send_parts(connection: Connection, parts: Sequence[Part]) -> None:
    """Send them one after another, none of them copied here. Raises what the socket raises."""
    views = [part.data if isinstance(part, np.ndarray) else memoryview(part) for part in parts if len(part)]
    while views:
        sent = connection.sendmsg(views)
        while views and sent >= views[0].nbytes:
            sent -= views.pop(0).nbytes
        if sent:
            views[0] = views[0][sent:]


class FrameReader:
    """Takes frames from a connection.

    Parameters
    ----------
    connection : socket or TlsSocket
        Blocking, with the patience that `set_patience` gave it.
    what : str
        Names the connection in errors.
    frame_s : float
        A head, body or payload that has begun is whole by then.
    may_idle : bool
        Whether the peer may say nothing for longer than the socket's patience between two frames.
    """

    def __init__(self, connection: Connection, what: str, frame_s: float, *, may_idle: bool) -> None:
        self._connection = connection
        self._what = what
        self._frame_s = frame_s
        self._may_idle = may_idle

    def next_head(self) -> Head | None:
        """The next frame's head, or None where the peer has ended.

        Raises
        ------
        InvalidInput
            Not a frame.
        Unavailable
            The connection broke, or the peer is silent.
        """
        head = bytearray(HEAD_BYTES)
        view = memoryview(head)
        got = None
        while got is None:
            got = self._receive(view)
            if got is None and not self._may_idle:
                raise self._silent()
        if got == 0:
            return None
        self.fill(view[got:])
        return Head.unpack(head, self._what)

    def body(self, size: int, size_max: int) -> bytearray:
        """The next `size` bytes. Raises `LimitExceeded` above `size_max`."""
        if size > size_max:
            raise LimitExceeded(
                f"{self._what}: a frame with a body of {size} bytes, allowed are {size_max}",
                allowed=size_max,
                found=size,
            )
        body = bytearray(size)
        self.fill(memoryview(body))
        return body

    def fill(self, view: memoryview) -> None:
        """Receive into all of `view`, which nobody else reads before this returns."""
        deadline_s = time.monotonic() + self._frame_s
        while view.nbytes:
            got = self._receive(view)
            if got == 0:
                raise Unavailable(f"{self._what}: the connection ended in the middle of a frame")
            if got is not None:
                view = view[got:]
            if view.nbytes and time.monotonic() > deadline_s:
                raise self._silent()

    def _receive(self, view: memoryview) -> int | None:
        """How many bytes came, 0 at the end; None where none came in time."""
        try:
            return self._connection.recv_into(view, view.nbytes, socket.MSG_WAITALL)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._what}: the connection broke: {error}") from None

    def _silent(self) -> Unavailable:
        return Unavailable(f"{self._what}: the peer has stalled; it owes bytes for more than {self._frame_s} s")


# ---------------------------------------------------------------------------------------------------------- extents


class ExtentFramer:
    """Extents of one producer to frames; remembers which columns the server knows."""

    def __init__(self) -> None:
        self._columns = _NO_COLUMNS

    def parts(self, extent: Extent, place: int | None = None) -> list[Part]:
        """What to send for an extent, in order; its data is the last part, not copied. With a `place` its data stays
        there, in shared memory."""
        parts: list[Part] = []
        if extent.columns.dtype != self._columns:
            self._columns = extent.columns.dtype
            names = self._columns.names or ()
            text = json.dumps([[name, self._columns[name].str] for name in names]).encode()
            parts.append(frame(Kind.COLUMNS, text))
        flags = (TIMES if extent.time_ns.any() else 0) | (STATUS if extent.status.any() else 0)
        vectors = [] if place is None else [PLACE.pack(place)]
        vectors.append(extent.index.astype(_I8, copy=False).tobytes())
        vectors.append(extent.digest.astype(_U8, copy=False).tobytes())
        if flags & TIMES:
            vectors.append(extent.time_ns.astype(_I8, copy=False).tobytes())
        vectors.append(extent.length.astype(_U4).tobytes())
        if flags & STATUS:
            vectors.append(extent.status.tobytes())
        vectors.append(extent.columns.tobytes())
        kind = Kind.EXTENT if place is None else Kind.SHARED
        head = Head(kind, flags, len(extent), sum(map(len, vectors)), extent.data.size)
        parts.append(b"".join((head.pack(), *vectors)))
        if place is None:
            parts.append(np.ascontiguousarray(extent.data))
        return parts


class ExtentUnframer:
    """Frames of one producer to extents; remembers the columns that it named."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._columns = _NO_COLUMNS

    def name_columns(self, body: bytes | bytearray) -> None:
        """Take a COLUMNS frame's body. Raises `InvalidInput` or `LimitExceeded`."""
        self._columns = _column_types(bytes(body), self._what)

    def check(self, head: Head) -> None:
        """Raise unless an extent of these sizes may come: before memory is taken for it."""
        if not 0 < head.blocks <= limits.EXTENT_BLOCKS_MAX:
            raise bad_count(self._what, head.blocks)
        if head.flags & ~(TIMES | STATUS):
            raise InvalidInput(f"{self._what}: an extent with unknown flags {head.flags:#x}")
        each = 20 + (8 if head.flags & TIMES else 0) + (1 if head.flags & STATUS else 0) + self._columns.itemsize
        if head.body_bytes != _vectors_at(head) + head.blocks * each:
            raise InvalidInput(
                f"{self._what}: a body of {head.body_bytes} bytes for {head.blocks} blocks; with flags "
                f"{head.flags:#x} and the columns {self._columns.names or 'none'} there are {each} for each"
            )
        if head.body_bytes + head.data_bytes > limits.MESSAGE_BYTES_MAX:
            found = head.body_bytes + head.data_bytes
            raise LimitExceeded(
                f"{self._what}: an extent of {found} bytes, allowed are {limits.MESSAGE_BYTES_MAX}; send it in parts",
                limit="MESSAGE_BYTES_MAX",
                allowed=limits.MESSAGE_BYTES_MAX,
                found=found,
            )

    def vectors(self, head: Head, body: bytearray) -> dict[str, Any]:
        """All of an extent but its data, checked against one another and the size of the data that follows."""
        count, at = head.blocks, _vectors_at(head)

        def take(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
            nonlocal at
            values = np.frombuffer(body, dtype, count, at)
            at += values.nbytes
            return values

        index, digest = take(_I8), take(_U8)
        time_ns = take(_I8) if head.flags & TIMES else np.zeros(count, np.int64)
        length = take(_U4).astype(np.int64)
        status = take(np.dtype("u1")) if head.flags & STATUS else np.zeros(count, np.uint8)
        columns = np.zeros(count, self._columns)
        if self._columns.itemsize:
            columns.view(np.uint8)[:] = np.frombuffer(body, np.uint8, count * self._columns.itemsize, at)
        check_vectors(self._what, index, length, status, head.data_bytes)
        return {
            "index": index,
            "time_ns": time_ns,
            "length": length,
            "digest": digest,
            "columns": columns,
            "received_ns": np.zeros(count, np.int64),
            "status": status,
            "cause": np.zeros(count, np.uint8),
            "source_digest": digest,
        }


def place_in(body: bytearray) -> int:
    """Where in the shared memory the blocks of a SHARED frame lie."""
    return int(PLACE.unpack_from(body)[0])


def _vectors_at(head: Head) -> int:
    return PLACE.size if head.kind == Kind.SHARED else 0


@wire.checked
def _column_types(body: bytes, what: str) -> np.dtype[np.void]:
    found = json.loads(body)
    if not isinstance(found, list) or len(found) > limits.COLUMNS_MAX:
        raise LimitExceeded(f"{what}: columns are a list of at most {limits.COLUMNS_MAX} pairs of name and dtype")
    return packed_columns([wire.decode_column(types_pb2.Column(name=name, dtype=dtype)) for name, dtype in found])


# ---------------------------------------------------------------------------------------------------------- replies

Reply = AppendStart | tuple[Ack, int] | Feedback | HissError | None


def start_frame(start: AppendStart) -> bytes:
    gaps = np.array(start.gaps, _I8).tobytes()
    head = _START.pack(start.credit_bytes, start.next_index, int(start.credit_level), len(start.gaps))
    return frame(Kind.START, head + gaps + start.boot_id.encode())


def ack_frame(ack: Ack, credit_bytes: int) -> bytes:
    return frame(Kind.ACK, _ACK.pack(ack.received, ack.written, ack.durable, ack.archived, credit_bytes))


def feedback_frame(feedback: Feedback) -> bytes:
    return frame(Kind.FEEDBACK, _FEEDBACK.pack(feedback.time_ns) + wire.encode_json(feedback.data).encode())


def error_frame(error: HissError) -> bytes:
    detail = limited_detail(error)
    text = {"name": detail.name, "message": detail.message, "details": dict(detail.details)}
    return frame(Kind.ERROR, json.dumps(text).encode())


@wire.checked
def decode_reply(head: Head, body: bytes) -> Reply:
    """What a server's frame says; None for END and ALIVE. Raises `InvalidInput` for what no server says."""
    try:
        return _decode_reply(head, body)
    except struct.error as error:
        raise InvalidInput(f"a frame of kind {head.kind} with a body of {len(body)} bytes: {error}") from None


def _decode_reply(head: Head, body: bytes) -> Reply:
    if head.kind == Kind.START:
        credit_bytes, next_index, level, count = _START.unpack_from(body)
        pairs = np.frombuffer(body, _I8, 2 * count, _START.size).reshape(-1, 2).tolist()
        boot_id = body[_START.size + 16 * count :].decode()
        gaps = tuple((int(first), int(last)) for first, last in pairs)
        return AppendStart(credit_bytes, next_index, gaps, boot_id, AckLevel(level))
    if head.kind == Kind.ACK:
        received, written, durable, archived, credit_bytes = _ACK.unpack(body)
        return Ack(received, written, durable, archived), credit_bytes
    if head.kind == Kind.FEEDBACK:
        (time_ns,) = _FEEDBACK.unpack_from(body)
        return Feedback(wire.decode_json(body[_FEEDBACK.size :].decode()), time_ns)
    if head.kind == Kind.ERROR:
        found = json.loads(body)
        return errors.from_name(str(found["name"]), str(found["message"]), dict(found["details"]))
    if head.kind in (Kind.END, Kind.ALIVE):
        return None
    raise InvalidInput(f"a frame of kind {head.kind}, which no server sends")
