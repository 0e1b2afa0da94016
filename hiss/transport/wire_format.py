"""The protobuf wire format: what the data messages need of it by hand, and a count of fields before parsing.

Pure functions over bytes; any thread. Source: https://protobuf.dev/programming-guides/encoding/. Parsing a hostile
message with a library builds an object for each of its fields (4 MB of empty submessages cost some 500 MB), so that
`check_counts` walks large messages first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from hiss import limits
from hiss.errors import InvalidInput, LimitExceeded

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5

_DEPTH_MAX: Final = 32
_NUMBER_MAX: Final = (1 << 29) - 1
_VARINT_BYTES_MAX: Final = 10  # of a value of 64 bits
_HEAD_BYTES_MAX: Final = 5  # of a tag, or of a length: 32 bits
_FIXED_BYTES: Final = {
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8,
    FieldDescriptor.TYPE_DOUBLE: 8,
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED32: 4,
    FieldDescriptor.TYPE_FLOAT: 4,
}
_NOT_PACKED: Final = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_GROUP}


def varint(value: int) -> bytes:
    """A non-negative integer as a varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field_head(number: int, size: int) -> bytes:
    """Tag and length of a field of `size` bytes."""
    return varint(number << 3 | LENGTH) + varint(size)


def read_varint(buffer: bytes | memoryview, at: int, end: int, bytes_max: int = _VARINT_BYTES_MAX) -> tuple[int, int]:
    """The varint at `at`, and where it ends. Raises `InvalidInput` where it passes `end` or `bytes_max` bytes."""
    value = shift = 0
    while at < end and shift < 7 * bytes_max:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise InvalidInput(f"not a protobuf message: a number that starts near byte {at} does not end")


def fields(buffer: bytes | memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Walk one message: `(number, wire type, first byte, end)` of each field's value.

    Raises
    ------
    InvalidInput
        A field that passes `end`, a number or a wire type that proto3 does not have.
    """
    at = start
    while at < end:
        tag, at = read_varint(buffer, at, end, _HEAD_BYTES_MAX)
        number, kind = tag >> 3, tag & 7
        first = at
        if kind == VARINT:
            _, at = read_varint(buffer, at, end)
        elif kind == LENGTH:
            size, first = read_varint(buffer, at, end, _HEAD_BYTES_MAX)
            at = first + size
        elif kind == FIXED64:
            at += 8
        elif kind == FIXED32:
            at += 4
        else:
            raise InvalidInput(f"not a protobuf message: wire type {kind} near byte {at}")
        if not 0 < number <= _NUMBER_MAX or at > end:
            raise InvalidInput(f"not a protobuf message: field {number} at byte {first} ends at {at} of {end}")
        yield number, kind, first, at


def check_counts(buffer: bytes, descriptor: Descriptor) -> None:
    """Raise `LimitExceeded` if parsing `buffer` would make more than `limits.REQUEST_FIELDS_MAX` values.

    A field takes two bytes at least, so that short messages need no walk.
    """
    if len(buffer) > limits.REQUEST_FIELDS_MAX:
        _count(memoryview(buffer), 0, len(buffer), descriptor, limits.REQUEST_FIELDS_MAX, _DEPTH_MAX)


def _count(buffer: memoryview, start: int, end: int, descriptor: Descriptor, left: int, depth: int) -> int:
    """What is left of the budget after this message."""
    if depth == 0:
        raise InvalidInput(f"{descriptor.name}: messages nested deeper than {_DEPTH_MAX}")
    by_number: Any = descriptor.fields_by_number
    for number, kind, first, last in fields(buffer, start, end):
        left -= 1
        field = by_number.get(number)
        if kind == LENGTH and field is not None:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                left = _count(buffer, first, last, field.message_type, left, depth - 1)
            elif field.type not in _NOT_PACKED:  # packed numbers: a varint takes a byte at least
                left -= (last - first) // _FIXED_BYTES.get(field.type, 1)
        if left < 0:
            raise LimitExceeded(
                f"{descriptor.name}: more than {limits.REQUEST_FIELDS_MAX} fields in one request",
                limit="REQUEST_FIELDS_MAX",
                allowed=limits.REQUEST_FIELDS_MAX,
            )
    return left
