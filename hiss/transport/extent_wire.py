"""Extents on the wire, assembled and parsed by hand: the blocks' bytes are copied once going out, never coming in.

The bytes are those of the protobuf messages `AppendRequest`, `ReadResponse` and `FollowResponse`, whose field 2 is an
`Extent` (proto/hiss/v1/types.proto); any protobuf library reads and writes them too. An encoder and a decoder serve one
call each and are used by one thread at a time. A decoded extent's `data` is a read-only view of the message, which it
keeps alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.errors import BlockTooLarge, InvalidInput, LimitExceeded
from hiss.extent import Extent
from hiss.model import BlockStatus, ByteArray, Column, IntArray, columns_dtype
from hiss.transport.wire import checked, decode_column
from hiss.transport.wire_format import FIXED32, FIXED64, LENGTH, field_head, fields
from hiss.v1 import types_pb2

EXTENT_FIELD: Final = 2  # in AppendRequest, ReadResponse and FollowResponse
_INDEX, _TIME, _LENGTH, _DIGEST, _STATUS, _COLUMNS, _TYPES, _RECEIVED, _CAUSE, _SOURCE = range(1, 11)
_PADDING, _DATA = 14, 15
_ALIGN: Final = 16  # CPython's and glibc's alignment of what follows a bytes object's head
_NUMBERS: Final[dict[int, np.dtype[Any]]] = {
    _INDEX: np.dtype("<i8"),
    _TIME: np.dtype("<i8"),
    _LENGTH: np.dtype("<u4"),
    _DIGEST: np.dtype("<u8"),
    _RECEIVED: np.dtype("<i8"),
    _SOURCE: np.dtype("<u8"),
}
_BYTES: Final = (_STATUS, _COLUMNS, _CAUSE, _DATA)
_PIECES_MAX: Final = (len(_NUMBERS) + 1) * limits.EXTENT_BLOCKS_MAX  # of vectors that came unpacked
_NO_COLUMNS: Final[np.dtype[np.void]] = np.dtype([])


def split(extent: Extent, bytes_max: int = limits.MESSAGE_BYTES_MAX - limits.MiB) -> Iterator[Extent]:
    """Parts of at most `bytes_max` bytes and `limits.EXTENT_BLOCKS_MAX` blocks, as views; the extent itself if it fits.

    Raises
    ------
    BlockTooLarge
        A single block above `limits.BLOCK_BYTES_MAX`.
    """
    if len(extent) and int(extent.length.max()) > limits.BLOCK_BYTES_MAX:
        raise _too_large(int(extent.length.max()))
    if len(extent) <= limits.EXTENT_BLOCKS_MAX and extent.data.size <= bytes_max:
        if len(extent):
            yield extent
        return
    offsets, first = extent.offsets, 0
    while first < len(extent):
        fits = int(np.searchsorted(offsets, offsets[first] + bytes_max, "right")) - 1
        stop = min(max(fits, first + 1), first + limits.EXTENT_BLOCKS_MAX, len(extent))
        rows = slice(first, stop)
        yield Extent(
            index=extent.index[rows],
            time_ns=extent.time_ns[rows],
            length=extent.length[rows],
            digest=extent.digest[rows],
            columns=extent.columns[rows],
            data=extent.data[offsets[first] : offsets[stop]],
            received_ns=extent.received_ns[rows],
            status=extent.status[rows],
            cause=extent.cause[rows],
            source_digest=extent.source_digest[rows],
        )
        first = stop


class ExtentEncoder:
    """Extents of one call to messages; remembers which column types the other side knows."""

    def __init__(self) -> None:
        self._types = _NO_COLUMNS

    def encode(self, extent: Extent) -> bytes:
        """One message. Copies the blocks' bytes once, into it."""
        parts = [
            *_number_parts(_INDEX, extent.index),
            *_number_parts(_TIME, extent.time_ns if extent.time_ns.any() else None),
            *_number_parts(_LENGTH, extent.length),
            *_number_parts(_DIGEST, extent.digest),
            *_byte_parts(_STATUS, extent.status if extent.status.any() else None),
            *self._column_parts(extent.columns),
            *_number_parts(_RECEIVED, extent.received_ns if extent.received_ns.any() else None),
            *_byte_parts(_CAUSE, extent.cause if extent.cause.any() else None),
            *_number_parts(_SOURCE, None if (extent.source_digest == extent.digest).all() else extent.source_digest),
        ]
        data: Any = np.ascontiguousarray(extent.data)
        data_head = field_head(_DATA, extent.data.size)
        head, padding = _heads(sum(map(_size, parts)), len(data_head), extent.data.size)
        return b"".join((head, *parts, padding, data_head, data))

    def _column_parts(self, columns: npt.NDArray[np.void]) -> Iterator[bytes]:
        if not columns.dtype.itemsize:
            return
        if columns.dtype != self._types:
            self._types = columns.dtype
            for name in columns.dtype.names or ():
                text = types_pb2.Column(name=name, dtype=columns.dtype[name].str).SerializeToString()
                yield field_head(_TYPES, len(text)) + text
        records = columns.tobytes()
        yield field_head(_COLUMNS, len(records)) + records


def _size(part: Any) -> int:
    return len(part) if isinstance(part, bytes) else int(part.nbytes)


def _number_parts(number: int, values: npt.NDArray[Any] | None) -> tuple[Any, ...]:
    if values is None:
        return ()
    packed = np.ascontiguousarray(values, _NUMBERS[number])
    return field_head(number, packed.nbytes), packed


def _byte_parts(number: int, values: ByteArray | None) -> tuple[Any, ...]:
    return () if values is None else (field_head(number, values.size), np.ascontiguousarray(values))


def _heads(inner_bytes: int, data_head_bytes: int, data_bytes: int) -> tuple[bytes, bytes]:
    """The head of the whole message, and a padding that brings the data to a multiple of `_ALIGN`.

    Where the padding makes the head a byte longer, the remainder that is left out may be the one that is sought: then
    it goes once more around.
    """
    for fill in range(2 * _ALIGN):
        padding = field_head(_PADDING, fill) + bytes(fill)
        before_data = inner_bytes + len(padding) + data_head_bytes
        head = field_head(EXTENT_FIELD, before_data + data_bytes)
        if (len(head) + before_data) % _ALIGN == 0:
            break
    return head, padding


class ExtentDecoder:
    """Messages of one call to extents; remembers the column types.

    Parameters
    ----------
    what : str
        Names the call in errors.
    without_data : bool
        The blocks' bytes were not asked for: `data` is empty, `length` as stored.
    """

    def __init__(self, what: str, without_data: bool = False) -> None:
        self._what = what
        self._types = _NO_COLUMNS
        self._without_data = without_data

    def decode(self, message: bytes) -> Extent:
        """The extent of one message.

        Raises
        ------
        InvalidInput
            Not such a message, or its vectors do not fit one another.
        LimitExceeded
            More than `limits.EXTENT_BLOCKS_MAX` blocks.
        BlockTooLarge
            A block above `limits.BLOCK_BYTES_MAX`.
        """
        place = None
        for number, kind, first, end in fields(message, 0, len(message)):
            if number == EXTENT_FIELD and kind == LENGTH:
                if place is not None:
                    raise InvalidInput(f"{self._what}: two extents in one message; send two messages")
                place = first, end
        if place is None:
            raise InvalidInput(f"{self._what}: a message without an extent")
        return self._extent(message, *place)

    def _extent(self, message: bytes, start: int, end: int) -> Extent:
        pieces = self._pieces(message, start, end)
        index = _numbers(pieces, _INDEX)
        count = len(index)
        if count == 0:
            raise bad_count(self._what, 0)
        digest = self._vector(pieces, _DIGEST, count, "digest")
        extent = Extent(
            index=index,
            time_ns=self._vector(pieces, _TIME, count, "time_ns", optional=True),
            length=self._vector(pieces, _LENGTH, count, "length").astype(np.int64),
            digest=digest,
            columns=self._columns(pieces, count),
            data=_bytes(pieces, _DATA),
            received_ns=self._vector(pieces, _RECEIVED, count, "received_ns", optional=True),
            status=self._byte_vector(pieces, _STATUS, count, "status"),
            cause=self._byte_vector(pieces, _CAUSE, count, "cause"),
            source_digest=self._vector(pieces, _SOURCE, count, "source_digest") if _given(pieces, _SOURCE) else digest,
        )
        if self._without_data and extent.data.size:
            raise InvalidInput(f"{self._what}: {extent.data.size} bytes of data that nobody asked for")
        data_bytes = None if self._without_data else extent.data.size
        check_vectors(self._what, extent.index, extent.length, extent.status, data_bytes)
        return extent

    def _pieces(self, message: bytes, start: int, end: int) -> dict[int, list[npt.NDArray[Any]]]:
        """Views of what the message holds, by field; vectors may come in several pieces."""
        pieces: dict[int, list[npt.NDArray[Any]]] = {}
        counts: dict[int, int] = {}
        types: list[Column] = []
        left = _PIECES_MAX
        for number, kind, first, last in fields(message, start, end):
            left -= 1
            if left < 0 or len(types) > limits.COLUMNS_MAX:
                raise LimitExceeded(f"{self._what}: an extent of more than {_PIECES_MAX} fields or too many columns")
            dtype = _NUMBERS.get(number)
            if dtype is not None and kind in (LENGTH, FIXED64 if dtype.itemsize == 8 else FIXED32):
                if (last - first) % dtype.itemsize:
                    raise InvalidInput(f"{self._what}: field {number} has {last - first} bytes of {dtype} values")
                count = (last - first) // dtype.itemsize
                counts[number] = counts.get(number, 0) + count
                if counts[number] > limits.EXTENT_BLOCKS_MAX:
                    raise bad_count(self._what, counts[number])
                pieces.setdefault(number, []).append(np.frombuffer(message, dtype, count, first))
            elif number in _BYTES and kind == LENGTH:
                pieces[number] = [np.frombuffer(message, np.uint8, last - first, first)]
            elif number == _TYPES and kind == LENGTH:
                types.append(_column(message[first:last]))
        if types:
            self._types = packed_columns(types)
        return pieces

    def _vector(
        self, pieces: dict[int, list[npt.NDArray[Any]]], number: int, count: int, name: str, *, optional: bool = False
    ) -> npt.NDArray[Any]:
        if optional and not _given(pieces, number):
            return np.zeros(count, _NUMBERS[number])
        values = _numbers(pieces, number)
        if len(values) != count:
            raise InvalidInput(f"{self._what}: {len(values)} values of {name} for {count} blocks")
        return values

    def _byte_vector(self, pieces: dict[int, list[npt.NDArray[Any]]], number: int, count: int, name: str) -> ByteArray:
        values = _bytes(pieces, number)
        if len(values) not in (0, count):
            raise InvalidInput(f"{self._what}: {len(values)} values of {name} for {count} blocks")
        return values.copy() if len(values) else np.zeros(count, np.uint8)

    def _columns(self, pieces: dict[int, list[npt.NDArray[Any]]], count: int) -> npt.NDArray[np.void]:
        records = _bytes(pieces, _COLUMNS)
        if not records.size:
            return np.zeros(count, _NO_COLUMNS)
        if records.size != count * self._types.itemsize:
            raise InvalidInput(
                f"{self._what}: {records.size} bytes of columns for {count} blocks; with the column types "
                f"{self._types.names or 'none'} there are {self._types.itemsize} for each block"
            )
        out = np.zeros(count, self._types)
        out.view(np.uint8)[:] = records
        return out


def bad_count(what: str, found: int) -> LimitExceeded:
    return LimitExceeded(
        f"{what}: an extent of {found} blocks; 1 to {limits.EXTENT_BLOCKS_MAX} are allowed",
        limit="EXTENT_BLOCKS_MAX",
        allowed=limits.EXTENT_BLOCKS_MAX,
        found=found,
    )


def check_vectors(what: str, index: IntArray, length: IntArray, status: ByteArray, data_bytes: int | None) -> None:
    """Raise unless an extent's vectors fit one another and its data; None: there are no data."""
    if int(length.max()) > limits.BLOCK_BYTES_MAX:
        raise _too_large(int(length.max()))
    total = int(length.sum())
    if data_bytes not in (None, total):
        raise InvalidInput(f"{what}: {data_bytes} bytes of data, but the lengths add up to {total}")
    if status.any():
        if int(status.max()) > max(BlockStatus):
            raise InvalidInput(f"{what}: status {int(status.max())} of a block is not known")
        if length[status != BlockStatus.STORED].any():
            raise InvalidInput(f"{what}: a block that is not there has bytes")
    ascending = index[1:] > index[:-1]
    if not ascending.all() and len(np.unique(index)) != len(index):
        raise InvalidInput(f"{what}: an index stands twice in one extent")


def _given(pieces: dict[int, list[npt.NDArray[Any]]], number: int) -> bool:
    """Whether there are any values: a vector that is there and empty is as one that is not there."""
    return any(len(piece) for piece in pieces.get(number, ()))


def _numbers(pieces: dict[int, list[npt.NDArray[Any]]], number: int) -> npt.NDArray[Any]:
    """All pieces as one aligned array of its own."""
    found = pieces.get(number)
    values: npt.NDArray[Any] = np.concatenate(found) if found else np.zeros(0, _NUMBERS[number])
    return values


def _bytes(pieces: dict[int, list[npt.NDArray[Any]]], number: int) -> ByteArray:
    found = pieces.get(number)
    return found[0] if found else np.zeros(0, np.uint8)


@checked
def _column(text: bytes) -> Column:
    return decode_column(types_pb2.Column.FromString(text))


def packed_columns(types: list[Column]) -> np.dtype[np.void]:
    """The record of these columns. Raises `InvalidInput` where two have the same name."""
    try:
        return columns_dtype(tuple(types))
    except ValueError as error:
        raise InvalidInput(f"columns {[column.name for column in types]}: {error}") from None


def _too_large(found: int) -> BlockTooLarge:
    return BlockTooLarge(
        f"a block of {found} bytes, allowed are {limits.BLOCK_BYTES_MAX}; send it in parts",
        allowed=limits.BLOCK_BYTES_MAX,
        found=found,
    )
