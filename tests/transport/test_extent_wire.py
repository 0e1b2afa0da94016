"""Extents assembled and parsed by hand are the protobuf messages that any library reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiss import limits
from hiss.errors import BlockTooLarge, HissError, InvalidInput, LimitExceeded
from hiss.extent import Extent
from hiss.model import BlockStatus, Column, columns_dtype
from hiss.transport.extent_wire import ExtentDecoder, ExtentEncoder, split
from hiss.transport.wire_format import varint
from hiss.v1 import streams_pb2, types_pb2
from transport.strategies import extents, same


@settings(max_examples=150)
@given(extents())
def test_extents_arrive(extent: Extent) -> None:
    assert same(ExtentDecoder("test").decode(ExtentEncoder().encode(extent)), extent)


@given(extents(data=False))
def test_extents_without_data_arrive(extent: Extent) -> None:
    assert same(ExtentDecoder("test", without_data=True).decode(ExtentEncoder().encode(extent)), extent)


@given(extents(), extents())
def test_column_types_travel_when_they_change_only(first: Extent, second: Extent) -> None:
    encoder, decoder = ExtentEncoder(), ExtentDecoder("test")
    for extent in (first, first, second, first):
        assert same(decoder.decode(encoder.encode(extent)), extent)
    again = streams_pb2.ReadResponse.FromString(ExtentEncoder().encode(first))
    encoder = ExtentEncoder()
    encoder.encode(first)
    assert not streams_pb2.ReadResponse.FromString(encoder.encode(first)).extent.column_types
    assert len(again.extent.column_types) == len(first.columns.dtype.names or ())


@settings(max_examples=100)
@given(extents())
def test_the_library_reads_what_we_write(extent: Extent) -> None:
    message = streams_pb2.ReadResponse.FromString(ExtentEncoder().encode(extent)).extent
    assert list(message.index) == extent.index.tolist()
    assert list(message.length) == extent.length.tolist()
    assert list(message.digest) == extent.digest.tolist()
    assert message.data == extent.data.tobytes()
    assert message.columns == extent.columns.tobytes()
    for field in ("time_ns", "received_ns"):
        assert list(getattr(message, field)) in ([], getattr(extent, field).tolist())
    for field in ("status", "cause"):
        assert getattr(message, field) in (b"", getattr(extent, field).tobytes())
    assert list(message.source_digest) in ([], extent.source_digest.tolist())


def _message(extent: Extent) -> types_pb2.Extent:
    return types_pb2.Extent(
        index=extent.index.tolist(),
        time_ns=extent.time_ns.tolist(),
        length=extent.length.tolist(),
        digest=extent.digest.tolist(),
        status=extent.status.tobytes(),
        columns=extent.columns.tobytes(),
        column_types=[
            types_pb2.Column(name=name, dtype=extent.columns.dtype[name].str)
            for name in extent.columns.dtype.names or ()
        ],
        received_ns=extent.received_ns.tolist(),
        cause=extent.cause.tobytes(),
        source_digest=extent.source_digest.tolist(),
        data=extent.data.tobytes(),
    )


@settings(max_examples=100)
@given(extents())
def test_we_read_what_the_library_writes(extent: Extent) -> None:
    body = streams_pb2.AppendRequest(extent=_message(extent)).SerializeToString()
    assert same(ExtentDecoder("test").decode(body), extent)


@given(extents())
def test_we_read_vectors_that_are_not_packed_and_fields_that_are_not_known(extent: Extent) -> None:
    inner = b""
    for value in extent.index.tolist():
        inner += b"\x09" + value.to_bytes(8, "little", signed=True)  # field 1, fixed 64
    for value in extent.length.tolist():
        inner += b"\x1d" + value.to_bytes(4, "little")  # field 3, fixed 32
    rest = _message(extent)
    rest.ClearField("index")
    rest.ClearField("length")
    inner += rest.SerializeToString() + b"\xfa\x01\x03abc"  # field 31, which nobody knows
    body = b"\x12" + varint(len(inner)) + inner
    assert same(ExtentDecoder("test").decode(body), extent)


@given(extents())
def test_data_is_aligned_and_not_copied(extent: Extent) -> None:
    body = ExtentEncoder().encode(extent)
    data = ExtentDecoder("test").decode(body).data
    if data.size:
        assert (data.ctypes.data - np.frombuffer(body, np.uint8).ctypes.data) % 16 == 0
        assert np.shares_memory(data, np.frombuffer(body, np.uint8))
    assert not data.flags.writeable


@pytest.mark.parametrize(("near", "blocks"), [(1 << 7, 2), (1 << 14, 1), (1 << 21, 1)])
def test_data_is_aligned_where_the_padding_makes_the_head_a_byte_longer(near: int, blocks: int) -> None:
    """One remainder is left out there, which may be the one that is sought."""
    for size in range(near - 120, near + 1):
        extent = Extent.of(np.arange(blocks), np.zeros(size, np.uint8), [0] * (blocks - 1) + [size])
        body = ExtentEncoder().encode(extent)
        data = ExtentDecoder("test").decode(body).data
        assert data.size == size
        assert not size or (data.ctypes.data - np.frombuffer(body, np.uint8).ctypes.data) % 16 == 0, size


# ------------------------------------------------------------------------------------------------------ hostile


def _good() -> types_pb2.Extent:
    index = np.arange(3)
    return _message(Extent.of(index, np.arange(12, dtype=np.uint8), [4, 4, 4]))


def _set(**fields: Any) -> Callable[[types_pb2.Extent], None]:
    def change(message: types_pb2.Extent) -> None:
        for field, value in fields.items():
            if isinstance(value, bytes):
                setattr(message, field, value)
            else:
                del getattr(message, field)[:]
                getattr(message, field).extend(value)

    return change


HOSTILE: dict[str, tuple[Callable[[types_pb2.Extent], None], type[HissError], str]] = {
    "no blocks": (_set(index=[], length=[], digest=[], data=b""), LimitExceeded, "0 blocks"),
    "too few lengths": (_set(length=[4, 8]), InvalidInput, "2 values of length for 3 blocks"),
    "too many digests": (_set(digest=[1, 2, 3, 4]), InvalidInput, "4 values of digest"),
    "no digests": (_set(digest=[]), InvalidInput, "0 values of digest"),
    "a time for one": (_set(time_ns=[1]), InvalidInput, "1 values of time_ns"),
    "a source digest for one": (_set(source_digest=[1]), InvalidInput, "1 values of source_digest"),
    "lengths beyond the data": (_set(length=[4, 4, 5]), InvalidInput, "12 bytes of data, but the lengths add up to 13"),
    "data beyond the lengths": (_set(data=bytes(13)), InvalidInput, "13 bytes of data"),
    "data left out": (_set(data=b""), InvalidInput, "0 bytes of data"),
    "a huge block": (_set(length=[2**32 - 1, 4, 4]), BlockTooLarge, "4294967295 bytes"),
    "an index twice": (_set(index=[7, 8, 7]), InvalidInput, "twice"),
    "a status for one": (_set(status=b"\0"), InvalidInput, "1 values of status"),
    "an unknown status": (_set(status=b"\0\0\x63"), InvalidInput, "status 99"),
    "a gap with bytes": (_set(status=b"\0\0\x04"), InvalidInput, "has bytes"),
    "columns without types": (_set(columns=bytes(24)), InvalidInput, "24 bytes of columns"),
    "half a column": (
        _set(column_types=[types_pb2.Column(name="a", dtype="<f8")], columns=bytes(23)),
        InvalidInput,
        "23 bytes of columns",
    ),
    "a type of Python objects": (_set(column_types=[types_pb2.Column(name="a", dtype="O")]), InvalidInput, "dtype"),
    "a type twice": (
        _set(column_types=[types_pb2.Column(name="a", dtype="<f8")] * 2, columns=bytes(48)),
        InvalidInput,
        "columns",
    ),
    "too many types": (
        _set(column_types=[types_pb2.Column(name=f"c{i}", dtype="<f8") for i in range(100)]),
        LimitExceeded,
        "too many columns",
    ),
    "too many blocks": (
        _set(
            index=range(limits.EXTENT_BLOCKS_MAX + 1),
            length=[0] * (limits.EXTENT_BLOCKS_MAX + 1),
            digest=[0] * (limits.EXTENT_BLOCKS_MAX + 1),
            data=b"",
        ),
        LimitExceeded,
        "4097 blocks",
    ),
}


@pytest.mark.parametrize(("change", "kind", "text"), HOSTILE.values(), ids=HOSTILE)
def test_extents_that_make_no_sense_are_refused(
    change: Callable[[types_pb2.Extent], None], kind: type[HissError], text: str
) -> None:
    message = _good()
    ExtentDecoder("test").decode(streams_pb2.AppendRequest(extent=message).SerializeToString())
    change(message)
    with pytest.raises(kind, match=text):
        ExtentDecoder("test").decode(streams_pb2.AppendRequest(extent=message).SerializeToString())


def test_a_message_has_one_extent() -> None:
    body = streams_pb2.AppendRequest(extent=_good()).SerializeToString()
    with pytest.raises(InvalidInput, match="two extents"):
        ExtentDecoder("test").decode(body * 2)
    with pytest.raises(InvalidInput, match="without an extent"):
        ExtentDecoder("test").decode(b"")


def test_a_million_tiny_pieces_are_refused() -> None:
    inner = b"\x0a\x00" * 1_000_000  # empty packed vectors
    with pytest.raises(LimitExceeded, match="fields"):
        ExtentDecoder("test").decode(b"\x12" + varint(len(inner)) + inner)


def test_every_truncation_is_refused() -> None:
    body = ExtentEncoder().encode(Extent.of(np.arange(3), np.arange(12, dtype=np.uint8), [4, 4, 4]))
    for size in range(len(body)):
        with pytest.raises(InvalidInput):
            ExtentDecoder("test").decode(body[:size])


def _sample() -> bytes:
    """A message with every field."""
    types = columns_dtype((Column.parse("angle", "f8 deg"), Column.parse("shot", "i4")))
    extent = Extent.of(
        np.array([5, 6, 9]),
        np.arange(20, dtype=np.uint8),
        [12, 0, 8],
        time_ns=[1, 2, 3],
        columns=np.array([(0.5, 1), (1.0, 2), (1.5, 3)], types),
        status=[BlockStatus.STORED, BlockStatus.VETOED, BlockStatus.STORED],
    )
    every = {field: getattr(extent, field) for field in Extent.__dataclass_fields__}
    every |= {"received_ns": np.arange(3), "cause": np.array([0, 2, 0], np.uint8), "source_digest": extent.digest + 1}
    return ExtentEncoder().encode(Extent(**every))


def _fuzz(body: bytes) -> None:
    """Decode; whatever comes out must be consistent or a named error."""
    try:
        found = ExtentDecoder("fuzz").decode(body)
    except InvalidInput:
        return
    assert found.length.sum() == found.data.size
    assert len(found.columns) == len(found.digest) == len(found) > 0


def test_every_byte_damaged_in_three_ways() -> None:
    body = _sample()
    for place in range(len(body)):
        for mask in (0x01, 0x80, 0xFF):
            _fuzz(body[:place] + bytes([body[place] ^ mask]) + body[place + 1 :])


def _random_damage(rounds: int, seed: int) -> None:
    rng, body = np.random.default_rng(seed), _sample()
    for _ in range(rounds):
        damaged = bytearray(body[: rng.integers(1, len(body) + 1)] if rng.random() < 0.3 else body)
        for place in rng.integers(0, len(damaged), rng.integers(1, 6)):
            damaged[place] = rng.integers(0, 256)
        _fuzz(bytes(damaged))


def test_random_damage() -> None:
    _random_damage(20_000, seed=1)


@pytest.mark.torture
def test_a_lot_of_random_damage() -> None:
    _random_damage(2_000_000, seed=2)


@settings(max_examples=300)
@given(extents(), st.data())
def test_damage_is_refused_or_gives_a_consistent_extent(extent: Extent, data: st.DataObject) -> None:
    body = bytearray(ExtentEncoder().encode(extent))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = ExtentDecoder("test").decode(bytes(body))
    except InvalidInput:
        return
    assert {len(getattr(found, field)) for field in Extent.__dataclass_fields__ if field != "data"} == {len(found)}
    assert found.length.sum() == found.data.size


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_garbage_is_refused(body: bytes) -> None:
    try:
        ExtentDecoder("test").decode(body)
    except InvalidInput:
        return
    pytest.fail(f"{body!r} is no extent")  # it would need a digest of what it holds


# ------------------------------------------------------------------------------------------------------ splitting


@settings(max_examples=100)
@given(extents(), st.integers(1, 100))
def test_the_parts_make_the_whole(extent: Extent, bytes_max: int) -> None:
    parts = list(split(extent, bytes_max))
    for field in Extent.__dataclass_fields__:
        whole = np.concatenate([getattr(part, field) for part in parts])
        assert whole.tobytes() == getattr(extent, field).tobytes()
    assert all(part.data.size <= bytes_max or len(part) == 1 or part.length[1:].sum() == 0 for part in parts)


def test_many_blocks_are_split_by_their_number() -> None:
    count = 2 * limits.EXTENT_BLOCKS_MAX + 5
    extent = Extent.of(np.arange(count), np.zeros(0, np.uint8), np.zeros(count), status=np.full(count, 4, np.uint8))
    assert [len(part) for part in split(extent)] == [limits.EXTENT_BLOCKS_MAX] * 2 + [5]


def test_an_empty_extent_has_no_parts() -> None:
    assert list(split(Extent.of([], np.zeros(0, np.uint8), []))) == []


def test_a_block_that_is_too_large_is_refused_before_it_is_sent() -> None:
    small = Extent.of([0], np.zeros(1, np.uint8), [1])
    huge = Extent(
        **{
            **{f: getattr(small, f) for f in Extent.__dataclass_fields__},
            "length": np.array([limits.BLOCK_BYTES_MAX + 1]),
        }
    )
    with pytest.raises(BlockTooLarge):
        list(split(huge))


def test_columns_arrive_with_their_types() -> None:
    types = columns_dtype((Column.parse("angle", "f8 deg"), Column.parse("ok", "?"), Column.parse("id", "S4")))
    columns = np.array([(1.5, True, b"ab"), (2.5, False, b"cdef")], types)
    extent = Extent.of([1, 2], np.zeros(2, np.uint8), [1, 1], columns=columns)
    back = ExtentDecoder("test").decode(ExtentEncoder().encode(extent))
    assert back.columns.dtype == types
    assert back.columns.tolist() == columns.tolist()
    assert int(back.status[0]) == BlockStatus.STORED
