"""What is fuzzed: each parser of what comes from outside, held against another reader of the same bytes.

A target takes any bytes, gives them to ours and to the other, and raises `AssertionError` where they differ: in what is
accepted, or in what it says. The other is protobuf's own parser for messages, and for frames a second reader, written
after docs/lanes.md. `TARGETS` are run over mutated messages (`mutations`) by the tests, and by atheris, which looks for
new ways through the code (`fuzz_parsers.py`).
"""

from __future__ import annotations

import json
import random
import struct
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from hiss import limits
from hiss.errors import HissError, InvalidInput
from hiss.extent import Extent
from hiss.model import Ack, AckLevel, AppendStart, BlockStatus, Column, Feedback, columns_dtype
from hiss.store import Landing, LandingSession
from hiss.transport import lane_framing, line_framing
from hiss.transport.extent_wire import ExtentDecoder, ExtentEncoder
from hiss.transport.lane_call import LaneCall
from hiss.transport.lane_framing import ExtentFramer, Head, Kind, decode_reply
from hiss.transport.wire import decode_column
from hiss.transport.wire_format import FIXED32, FIXED64, LENGTH, fields
from hiss.v1 import streams_pb2, types_pb2

Target = Callable[[bytes], None]
STRICTER = object()
_STRICTER = ("wire type", "field 0 ")  # groups, which proto3 does not have, and a number that no field has

# ---------------------------------------------------------------------------------------------------------- protobuf


def walk(body: bytes) -> None:
    """`fields` against what protobuf keeps of a message that it knows nothing of."""
    ours = _tried(lambda: list(fields(body, 0, len(body))))
    if ours is STRICTER:
        return
    theirs = _unknown(body)
    if ours is None:
        assert theirs is None, "refused what protobuf accepts"
        return
    assert theirs is not None, "accepted what protobuf refuses"
    assert [(number, kind) for number, kind, _, _ in ours] == [
        (field.field_number, field.wire_type) for field in theirs
    ]
    for (_, kind, first, end), field in zip(ours, theirs, strict=True):
        if kind == LENGTH:
            assert body[first:end] == field.data
        elif kind in (FIXED32, FIXED64):
            assert int.from_bytes(body[first:end], "little") == field.data


def _tried(read: Callable[[], Any]) -> Any:
    """What ours reads; None where it refuses, `STRICTER` where it refuses what protobuf's parser may let pass."""
    try:
        return read()
    except InvalidInput as error:
        return STRICTER if any(why in str(error) for why in _STRICTER) else None


def _unknown(body: bytes) -> list[Any] | None:
    try:
        return list(UnknownFieldSet(Empty.FromString(body)))
    except DecodeError:
        return None


def _outer() -> Any:
    """A message like `AppendRequest`, whose extents are bytes and may be many."""
    message = DescriptorProto(name="Outer")
    message.field.add(name="extent", number=2, type=12, label=3)  # repeated bytes
    file = FileDescriptorProto(name="outer.proto", package="outer", syntax="proto3", message_type=[message])
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("outer.Outer"))


_Outer = _outer()


def extent(body: bytes) -> None:
    """`ExtentDecoder` against protobuf's parser and the rules of docs/wire.md."""
    ours = _tried(lambda: ExtentDecoder("fuzz").decode(body))
    if ours is STRICTER:
        return
    theirs = _reasonable(body)
    if ours is None:
        assert theirs is None, "refused what protobuf and the rules accept"
        return
    assert theirs is not None, "accepted what protobuf or the rules refuse"
    count = len(ours)
    assert ours.index.tolist() == list(theirs.index)
    assert ours.length.tolist() == list(theirs.length)
    assert ours.digest.tolist() == list(theirs.digest)
    for name in ("time_ns", "received_ns"):
        assert getattr(ours, name).tolist() == (list(getattr(theirs, name)) or [0] * count)
    assert ours.source_digest.tolist() == (list(theirs.source_digest) or list(theirs.digest))
    for name in ("status", "cause"):
        assert getattr(ours, name).tobytes() == (getattr(theirs, name) or bytes(count))
    assert ours.columns.tobytes() == theirs.columns
    assert ours.data.tobytes() == theirs.data


def _reasonable(body: bytes) -> types_pb2.Extent | None:
    """The extent of a message, as protobuf reads it; None where it or a rule of docs/wire.md says no."""
    try:
        outer = _Outer.FromString(body)
        if len(outer.extent) != 1:
            return None
        found = types_pb2.Extent.FromString(outer.extent[0])
    except DecodeError:
        return None
    count = len(found.index)
    if not 0 < count <= limits.EXTENT_BLOCKS_MAX or len(set(found.index)) != count:
        return None
    if len(found.length) != count or len(found.digest) != count:
        return None
    for some in (found.time_ns, found.received_ns, found.source_digest, found.status, found.cause):
        if len(some) not in (0, count):
            return None
    if max(found.length) > limits.BLOCK_BYTES_MAX or sum(found.length) != len(found.data):
        return None
    if any(found.status) and any(
        status > max(BlockStatus) or (status and size) for status, size in zip(found.status, found.length, strict=True)
    ):
        return None
    return found if _columns_fit(found, count) else None


def _columns_fit(found: types_pb2.Extent, count: int) -> bool:
    if len(found.column_types) > limits.COLUMNS_MAX:
        return False
    try:
        record = columns_dtype(tuple(map(decode_column, found.column_types)))
    except (HissError, ValueError):
        return False
    return not found.columns or len(found.columns) == count * record.itemsize


# ---------------------------------------------------------------------------------------------------------- frames


class Source:
    """A socket's receiving side over bytes that are there, and then the end."""

    def __init__(self, body: bytes) -> None:
        self._left = memoryview(body)

    def recv_into(self, view: memoryview | bytearray, size: int = 0, flags: int = 0) -> int:
        size = min(len(self._left), size or len(view))
        view[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


class Taken(LandingSession):
    """A session that keeps what the lane hands over, and lends no memory."""

    def __init__(self) -> None:
        self.extents: list[Extent] = []

    def reserve(self, blocks: int, data_bytes: int) -> None:
        return None

    def send_landed(self, extent: Extent, landing: Landing, *, trusted: bool = False) -> None:
        raise AssertionError("it lent nothing")

    def send(self, extent: Extent) -> None:
        self.extents.append(extent)


def lane(body: bytes) -> None:
    """What the server makes of a lane's bytes, against a second reader of docs/lanes.md."""
    taken, failed = Taken(), False
    source: Any = Source(body)
    session: Any = taken
    try:
        LaneCall(source, "fuzz", lambda _: session)._receive(session)
    except HissError:
        failed = True
    wanted: list[tuple[Any, ...]] = []
    try:
        wanted.extend(_frames(body, wanted))
        wrong = False
    except (Refused, struct.error):
        wrong = True
    assert failed == wrong, f"refused by ours: {failed}, by the document: {wrong}"
    assert len(taken.extents) == len(wanted)
    for found, (index, digest, time_ns, length, status, columns, data) in zip(taken.extents, wanted, strict=True):
        assert found.index.tolist() == index
        assert found.digest.tolist() == digest
        assert found.time_ns.tolist() == time_ns
        assert found.length.tolist() == length
        assert found.status.tobytes() == status
        assert found.columns.tobytes() == columns
        assert found.data.tobytes() == data


class Refused(Exception):
    """The second reader says no."""


def _frames(body: bytes, found: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Extents of a lane's bytes after the hello, read as docs/lanes.md says, one after another."""
    at, record = 0, 0

    def take(size: int) -> bytes:
        nonlocal at
        if size > len(body) - at:
            raise Refused("ends in the middle")
        at += size
        return body[at - size : at]

    while at < len(body):
        magic, kind, flags, count, body_bytes, data_bytes = struct.unpack("<4sHHIIQ", take(24))
        if magic != b"hlan" or kind not in (2, 3):
            raise Refused("no such frame")
        if kind == 2:
            if body_bytes > 32 << 10:
                raise Refused("too many columns")
            record = _record_bytes(take(body_bytes))
            continue
        if not 0 < count <= 4096 or flags & ~3 or body_bytes + data_bytes > 257 << 20:
            raise Refused("out of bounds")
        if body_bytes != count * (20 + 8 * (flags & 1) + (flags >> 1) + record):
            raise Refused("the vectors do not fit")
        index = struct.unpack(f"<{count}q", take(8 * count))
        digest = struct.unpack(f"<{count}Q", take(8 * count))
        time_ns = struct.unpack(f"<{count}q", take(8 * count)) if flags & 1 else (0,) * count
        length = struct.unpack(f"<{count}I", take(4 * count))
        status = take(count) if flags & 2 else bytes(count)
        columns = take(record * count)
        if max(length) > 256 << 20 or sum(length) != data_bytes or len(set(index)) != count or max(status) > 8:
            raise Refused("the vectors make no sense")
        if any(size and gap for size, gap in zip(length, status, strict=True)):
            raise Refused("a gap with bytes")
        data = take(data_bytes)
        yield list(index), list(digest), list(time_ns), list(length), status, columns, data


@lru_cache(1000)
def _record_bytes(text: bytes) -> int:
    try:
        pairs = json.loads(text)
        if not isinstance(pairs, list) or len(pairs) > limits.COLUMNS_MAX:
            raise Refused("no list of columns")
        columns = [decode_column(types_pb2.Column(name=name, dtype=dtype)) for name, dtype in pairs]
        return columns_dtype(tuple(columns)).itemsize
    except (HissError, ValueError, TypeError, RecursionError):
        raise Refused("no columns") from None


def reply(body: bytes) -> None:
    """What a producer makes of a server's frames: a reply that is said again in the same way, or a named error."""
    if len(body) < lane_framing.HEAD_BYTES:
        return
    try:
        head = Head.unpack(body[: lane_framing.HEAD_BYTES], "fuzz")
        found = decode_reply(head, body[lane_framing.HEAD_BYTES :])
    except HissError:
        return
    if found is None or isinstance(found, HissError):
        return
    again = _said(found)
    assert (
        decode_reply(Head.unpack(again[: lane_framing.HEAD_BYTES], "fuzz"), again[lane_framing.HEAD_BYTES :]) == found
    )


def _said(found: Any) -> bytes:
    if isinstance(found, AppendStart):
        return lane_framing.start_frame(found)
    if isinstance(found, Feedback):
        return lane_framing.feedback_frame(found)
    return lane_framing.ack_frame(*found)


def line(body: bytes) -> None:
    """Requests and replies of a line, against a second reader."""
    source: Any = Source(body)
    try:
        found = line_framing.receive_request(source)
    except (HissError, ConnectionResetError):
        found = None
    assert found == _request(body)
    source = Source(body)
    try:
        kind, text = line_framing.receive_reply(source)
    except (HissError, ConnectionResetError):
        return
    number, size = struct.unpack_from("<BI", body)
    assert (kind, text) == (number, body[5 : 5 + size])
    assert len(text) == size


def _request(body: bytes) -> tuple[str, dict[str, str], bytes] | None:
    if len(body) < 8:
        return None
    path_bytes, metadata_bytes, body_bytes = struct.unpack_from("<HHI", body)
    ends = 8 + path_bytes, 8 + path_bytes + metadata_bytes, 8 + path_bytes + metadata_bytes + body_bytes
    if body_bytes > limits.MESSAGE_BYTES_MAX or ends[2] > len(body):
        return None
    try:
        path, metadata = body[8 : ends[0]].decode(), json.loads(body[ends[0] : ends[1]])
    except (ValueError, RecursionError):
        return None
    if not isinstance(metadata, dict) or any(not isinstance(value, str) for value in metadata.values()):
        return None
    return path, metadata, body[ends[1] : ends[2]]


TARGETS: dict[str, Target] = {"walk": walk, "extent": extent, "lane": lane, "reply": reply, "line": line}

# ---------------------------------------------------------------------------------------------------------- messages


def corpus(name: str) -> list[bytes]:
    """Valid messages of a target."""
    return _CORPORA[name]()


def _extents() -> list[Extent]:
    types = columns_dtype((Column.parse("angle", "f8 deg"), Column.parse("shot", "i4")))
    small = Extent.of([7], np.array([1, 2, 3, 4], np.uint8), [4])
    rows = Extent.of(
        [5, 6, 9],
        np.arange(20, dtype=np.uint8),
        [12, 0, 8],
        time_ns=[1, 2, 3],
        columns=np.array([(0.5, 1), (1.0, 2), (1.5, 3)], types),
        status=[BlockStatus.STORED, BlockStatus.VETOED, BlockStatus.STORED],
    )
    every = {field: getattr(rows, field) for field in Extent.__dataclass_fields__}
    every |= {"received_ns": np.arange(3), "cause": np.array([0, 2, 0], np.uint8), "source_digest": rows.digest + 1}
    return [small, rows, Extent(**every)]


def _messages() -> list[bytes]:
    made = [ExtentEncoder().encode(extent) for extent in _extents()]
    digest = xxhash.xxh3_64_intdigest(b"ab")
    loose = (
        b"\x09"
        + (3).to_bytes(8, "little")
        + b"\x1d"
        + (2).to_bytes(4, "little")
        + b"\x21"
        + digest.to_bytes(8, "little")
    )
    loose += b"\x7a\x02ab" + b"\xfa\x01\x03abc"  # vectors that are not packed, and a field that nobody knows
    return [*made, b"\x12" + bytes([len(loose)]) + loose]


def _walks() -> list[bytes]:
    spec = streams_pb2.StreamSpec(
        columns=[types_pb2.Column(name="angle", dtype="<f8")], attrs_json="{}", expendable=True
    )
    request = streams_pb2.CreateStreamRequest(collection="a/b", name="c", spec=spec, resume=True)
    return [request.SerializeToString(), b"\x08\x96\x01\x15abcd\x19abcdefgh\x22\x03abc", *_messages()]


def _lanes() -> list[bytes]:
    return [b"".join(bytes(part) for part in ExtentFramer().parts(extent)) for extent in _extents()] + [_lane_of_two()]


def _lane_of_two() -> bytes:
    framer = ExtentFramer()
    return b"".join(bytes(part) for extent in _extents()[1:] for part in framer.parts(extent))


def _replies() -> list[bytes]:
    return [
        lane_framing.start_frame(AppendStart(5, 9, ((1, 2), (5, 5)), "boot", AckLevel.DURABLE)),
        lane_framing.ack_frame(Ack(4, 3, 2, 1), 77),
        lane_framing.feedback_frame(Feedback({"a": [1, None, 2.5]}, 5)),
        lane_framing.error_frame(InvalidInput("no", index=3)),
        lane_framing.frame(Kind.END),
    ]


class _Sink:
    def __init__(self) -> None:
        self.said = b""

    def sendall(self, data: bytes) -> None:
        self.said += data


def _lines() -> list[bytes]:
    request: Any = _Sink()
    line_framing.send_request(request, "/hiss.v1.Streams/GetStream", {"authorization": "Bearer x"}, b"\x0a\x03a/b")
    answer: Any = _Sink()
    line_framing.send_reply(answer, line_framing.Kind.REPLY, b"abc")
    wrong: Any = _Sink()
    line_framing.send_reply(wrong, line_framing.Kind.ERROR, line_framing.error_body("NOT_FOUND", "no", b"\1"))
    nested = b"[" * 2000
    deep = struct.pack("<HHI", 1, len(nested), 0) + b"/" + nested
    return [request.said, answer.said, wrong.said, deep]


_CORPORA: dict[str, Callable[[], list[bytes]]] = {
    "walk": _walks,
    "extent": _messages,
    "lane": _lanes,
    "reply": _replies,
    "line": _lines,
}


def mutations(name: str, seed: int) -> Iterator[bytes]:
    """Damaged messages of a target without end, the same for the same seed."""
    rng, kept = random.Random(seed), deque(corpus(name))
    while True:
        body = bytearray(rng.choice(kept))
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            _damage(rng, body, kept)
        yield bytes(body)


_NUMBERS = [bytes([value]) for value in (0, 1, 2, 0x7F, 0x80, 0xFF)] + [
    (value & (1 << 64) - 1).to_bytes(8, "little")[:size]
    for size in (2, 4, 8)
    for value in (0, 1, -1, 1 << 31, 4096, 4097, 256 << 20, (256 << 20) + 1, 1 << 63)
]


def _damage(rng: random.Random, body: bytearray, kept: deque[bytes]) -> None:
    """Change a place: a bit, a byte, a number, a piece that goes, comes twice, or comes from another message."""
    place = rng.randrange(len(body) + 1)
    how = rng.randrange(8)
    if how == 0 and place < len(body):
        body[place] ^= 1 << rng.randrange(8)
    elif how == 1 and place < len(body):
        body[place] = rng.randrange(256)
    elif how == 2:
        number = rng.choice(_NUMBERS)
        body[place : place + len(number)] = number
    elif how == 3:
        del body[place : place + rng.randrange(1, 9)]
    elif how == 4:
        body[place:place] = rng.randbytes(rng.randrange(1, 9))
    elif how == 5:
        size = rng.randrange(1, 33)
        body[place:place] = body[rng.randrange(len(body) + 1) :][:size]
    elif how == 6:
        other = rng.choice(kept)
        start = rng.randrange(len(other) + 1)
        body[place:] = other[start:]
    else:
        del body[place:]
