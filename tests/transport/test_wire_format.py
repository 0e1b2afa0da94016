"""The protobuf wire format by hand: numbers, fields, and the count of a message's fields before it is parsed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiss import limits
from hiss.errors import InvalidInput, LimitExceeded
from hiss.transport.methods import STORE
from hiss.transport.wire_format import VARINT, check_counts, field_head, fields, read_varint, varint
from hiss.v1 import collections_pb2, streams_pb2, types_pb2


@given(st.integers(0, 2**64 - 1))
def test_numbers_come_back(value: int) -> None:
    text = varint(value)
    assert read_varint(text, 0, len(text)) == (value, len(text))


@given(st.integers(0, 2**64 - 1))
def test_numbers_are_those_of_the_library(value: int) -> None:
    message = types_pb2.ScalarParameter(unsigned=value).SerializeToString()
    ((number, kind, first, end),) = fields(message, 0, len(message))
    assert (number, kind) == (3, VARINT)
    assert message[first:end] == varint(value)


def test_a_number_without_end_is_named() -> None:
    for text in (b"\x80", b"\xff" * 11, b""):
        with pytest.raises(InvalidInput, match="does not end"):
            read_varint(text, 0, len(text))


@given(st.binary(max_size=200))
def test_walking_garbage_ends_or_is_refused(text: bytes) -> None:
    try:
        found = list(fields(text, 0, len(text)))
    except InvalidInput:
        return
    assert all(number > 0 and first <= end <= len(text) for number, _, first, end in found)


@given(st.lists(st.text(max_size=20), max_size=30), st.text(max_size=50))
def test_every_truncation_is_refused_or_parses_shorter(names: list[str], path: str) -> None:
    message = collections_pb2.CreateCollectionRequest(path=path, expect=names).SerializeToString()
    whole = list(fields(message, 0, len(message)))
    for size in range(len(message)):
        try:
            part = list(fields(message[:size], 0, size))
        except InvalidInput:
            continue
        assert part == whole[: len(part)]


def _too_many() -> list[tuple[str, bytes]]:
    count = limits.REQUEST_FIELDS_MAX + 1
    columns = field_head(2, 0) * count
    return [
        ("Streams.CreateStream", field_head(3, len(columns)) + columns),  # submessages, one level down
        ("Streams.CreateStream", field_head(99, 0) * count),  # fields that nobody knows
        ("Collections.CreateCollection", (field_head(3, 1) + b"a") * count),  # repeated text
    ]


@pytest.mark.parametrize(("key", "body"), _too_many())
def test_too_many_fields_are_refused_before_parsing(key: str, body: bytes) -> None:
    with pytest.raises(LimitExceeded, match="more than 65536 fields"):
        STORE[key].parse_request(body)


def test_packed_numbers_count() -> None:
    descriptor: Any = types_pb2.Array.DESCRIPTOR
    count = limits.REQUEST_FIELDS_MAX + 1
    with pytest.raises(LimitExceeded):
        check_counts(field_head(2, count) + bytes([1]) * count, descriptor)


def test_long_text_and_bytes_are_one_field() -> None:
    array = types_pb2.Array(dtype="|u1", shape=[300_000], data=bytes(300_000))
    parameters = {"dark": types_pb2.Parameter(array=array)}
    selection = streams_pb2.Selection(kernels=[types_pb2.BoundKernel(params=parameters)])
    request = streams_pb2.ReadRequest(stream_id="x", selection=selection)
    assert STORE["Streams.Read"].parse_request(request.SerializeToString()) == request


def test_deep_nesting_is_refused() -> None:
    """A descriptor that nests without end, from protobuf itself."""
    from google.protobuf.struct_pb2 import ListValue

    body = b""
    for _ in range(60):
        inner = field_head(6, len(body)) + body
        body = field_head(1, len(inner)) + inner
    body += field_head(1, limits.REQUEST_FIELDS_MAX) + bytes(limits.REQUEST_FIELDS_MAX)
    descriptor: Any = ListValue.DESCRIPTOR
    with pytest.raises(InvalidInput):
        check_counts(body, descriptor)
