"""Frames of a line: the calls of the wire schema over a bare Unix socket, one at a time.

A line is for processes that live for milliseconds: a job. Opening a gRPC channel and its first call take about 13 ms
there, opening a line and its first call 0.2 ms. Requests and replies are the same protobuf messages, tokens and errors
the same as with gRPC. A connection carries one call after the other:

    request   <HHI: bytes of path, of metadata, of body; then path, metadata (a JSON object), body
    reply     <BI: kind, bytes; then these. REPLY: the one reply, or one of several; END: no more; ERROR: a JSON object
              {code, text, detail} with gRPC's name of the code and the `ErrorDetail` in hex

Both ends bound what they read by `limits.MESSAGE_BYTES_MAX`. Pure functions on a blocking socket.
"""

from __future__ import annotations

import enum
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

from hiss import limits
from hiss.errors import InvalidInput
from hiss.transport.methods import STORE

STREAMED: Final = STORE["Streams.Read"].path
"""The one call with several replies that goes by a line; those that last go by gRPC."""

_REQUEST: Final = struct.Struct("<HHI")
_REPLY: Final = struct.Struct("<BI")


class Kind(enum.IntEnum):
    REPLY = 1
    END = 2
    ERROR = 3


def send_request(connection: socket.socket, path: str, metadata: Mapping[str, str], body: bytes) -> None:
    name, pairs = path.encode(), json.dumps(metadata).encode()
    connection.sendall(_REQUEST.pack(len(name), len(pairs), len(body)) + name + pairs + body)


def receive_request(connection: socket.socket) -> tuple[str, dict[str, str], bytes] | None:
    """Path, metadata and body; None at the end. Raises `InvalidInput` for what is no request."""
    head = _receive(connection, _REQUEST.size, may_end=True)
    if head is None:
        return None
    path_bytes, metadata_bytes, body_bytes = _REQUEST.unpack(head)
    _check(body_bytes)
    rest = _receive(connection, path_bytes + metadata_bytes + body_bytes)
    assert rest is not None
    try:
        path = rest[:path_bytes].decode()
        metadata = json.loads(rest[path_bytes : path_bytes + metadata_bytes])
    except (ValueError, RecursionError):  # the latter of brackets without end
        raise InvalidInput("a line carries frames, see docs/lanes.md; this is none") from None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidInput("a line's metadata is a JSON object of texts")
    return path, metadata, rest[path_bytes + metadata_bytes :]


def send_reply(connection: socket.socket, kind: Kind, body: bytes = b"") -> None:
    connection.sendall(_REPLY.pack(kind, len(body)) + body)


def receive_reply(connection: socket.socket) -> tuple[Kind, bytes]:
    """Raises `OSError` where the line broke, `InvalidInput` for what is no reply."""
    head = _receive(connection, _REPLY.size)
    assert head is not None
    kind, size = _REPLY.unpack(head)
    _check(size)
    if kind not in list(Kind):
        raise InvalidInput(f"a frame of kind {kind} on a line, which no server sends; are both of one version?")
    body = _receive(connection, size)
    assert body is not None
    return Kind(kind), body


def error_body(code: str, text: str, detail: bytes | None) -> bytes:
    return json.dumps({"code": code, "text": text, "detail": (detail or b"").hex()}).encode()


def error_of_body(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)
    return found


def _check(size: int) -> None:
    if size > limits.MESSAGE_BYTES_MAX:
        raise InvalidInput(f"a frame of {size} bytes on a line, at most {limits.MESSAGE_BYTES_MAX} are allowed")


def _receive(connection: socket.socket, size: int, may_end: bool = False) -> bytes | None:
    data = bytearray(size)
    view = memoryview(data)
    filled = 0
    while filled < size:
        count = connection.recv_into(view[filled:])
        if not count:
            if may_end and not filled:
                return None
            raise ConnectionResetError("the line broke")
        filled += count
    return bytes(data)
