"""A dataset's filters, run by ourselves: from the bytes of a chunk to what HDF5 would have stored for it, and back.

HDF5 runs its filters under one lock, h5py under another. Here they run in any thread, without the GIL, and HDF5 is
handed ready chunks and asked for stored ones. What a filter does is taken from the dataset's own list of filters, so
that a chunk is what its header says. Formats: shuffle and deflate, HDF5 File Format Specification 3.0, IV.A.2.l;
bitshuffle+LZ4, https://github.com/kiyo-masui/bitshuffle `src/bshuf_h5filter.c` (filter 32008); Zstandard, RFC 8878
(filter 32015). The code for the latter two is in the shared libraries of `hdf5plugin`. Encoders and decoders may be
called from any thread.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any, Final

import h5py
import numpy as np

from hiss.model import ByteArray

Encoded = bytes | memoryview
Encode = Callable[[ByteArray], Encoded]
Decode = Callable[[bytes, ByteArray], None]  # fills the second from the first; raises `Undecodable`

_SHUFFLE: Final = 2
_DEFLATE: Final = 1
_BITSHUFFLE: Final = 32008
_ZSTD: Final = 32015
_BITSHUFFLE_LZ4: Final = 2  # `BSHUF_H5_COMPRESS_LZ4`


class Undecodable(Exception):
    """A stored chunk that its filter cannot turn back: the file is damaged."""


def encoder(data: h5py.Dataset) -> Encode | None:
    """What turns a chunk's bytes into its stored form; None where only HDF5 can do it."""
    return _coder(data)[0]


def decoder(data: h5py.Dataset) -> Decode | None:
    """What turns a stored chunk back into its bytes; None where only HDF5 can do it."""
    return _coder(data)[1]


def _coder(data: h5py.Dataset) -> tuple[Encode, Decode] | tuple[None, None]:
    plist = data.id.get_create_plist()
    filters = [plist.get_filter(place) for place in range(plist.get_nfilters())]
    if not filters:
        return (lambda chunk: chunk.data), _copied
    shuffled = filters[0][0] == _SHUFFLE
    rest = filters[1:] if shuffled else filters
    if len(rest) != 1:
        return None, None
    code = _codec(rest[0][0], rest[0][2])
    if code is None:
        return None, None
    item_bytes = data.dtype.itemsize
    return _shuffled(code, item_bytes) if shuffled and item_bytes > 1 else code


def _codec(number: int, options: tuple[int, ...]) -> tuple[Encode, Decode] | None:
    if number == _DEFLATE:
        return (lambda chunk: zlib.compress(chunk.data, options[0])), _inflated
    try:
        if number == _BITSHUFFLE and len(options) >= 5 and options[4] == _BITSHUFFLE_LZ4:
            return _bitshuffle_lz4(options[2], options[3])
        if number == _ZSTD:
            return _zstd(options[0] if options else 3)
    except (ImportError, KeyError, OSError, AttributeError):  # a build of hdf5plugin with other insides
        return None
    return None


def _shuffled(code: tuple[Encode, Decode], item_bytes: int) -> tuple[Encode, Decode]:
    """With shuffle before it: all first bytes of the elements, then all second bytes, and so on."""
    inner_encode, inner_decode = code
    memory = _Memory()

    def encode(chunk: ByteArray) -> Encoded:
        turned = memory.take(chunk.size)
        turned.reshape(item_bytes, -1)[...] = chunk.reshape(-1, item_bytes).T
        return inner_encode(turned)

    def decode(stored: bytes, chunk: ByteArray) -> None:
        turned = memory.take(chunk.size)
        inner_decode(stored, turned)
        chunk.reshape(-1, item_bytes)[...] = turned.reshape(item_bytes, -1).T

    return encode, decode


def _copied(stored: bytes, chunk: ByteArray) -> None:
    if len(stored) != chunk.size:
        raise Undecodable(f"{len(stored)} bytes stored for a chunk of {chunk.size}")
    chunk[:] = np.frombuffer(stored, np.uint8)


def _inflated(stored: bytes, chunk: ByteArray) -> None:
    try:
        found = zlib.decompressobj().decompress(stored, chunk.size + 1)
    except zlib.error as error:
        raise Undecodable(str(error)) from None
    _copied(found, chunk)


def _library(name: str) -> ctypes.CDLL:
    import hdf5plugin

    return ctypes.CDLL(hdf5plugin.get_config().registered_filters[name])


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    found = getattr(library, name)
    found.restype, found.argtypes = result, arguments
    return found


def _bitshuffle_lz4(item_bytes: int, block_items: int) -> tuple[Encode, Decode]:
    """12 bytes, the number of bytes of the chunk and of a block, big-endian; then the blocks."""
    library = _library("bshuf")
    size = ctypes.c_size_t
    arguments = (ctypes.c_void_p, ctypes.c_void_p, size, size, size)
    compress = _function(library, "bshuf_compress_lz4", ctypes.c_int64, *arguments)
    decompress = _function(library, "bshuf_decompress_lz4", ctypes.c_int64, *arguments)
    bound = _function(library, "bshuf_compress_lz4_bound", size, size, size, size)
    block_items = block_items or int(_function(library, "bshuf_default_block_size", size, size)(item_bytes))
    memory = _Memory()

    def encode(chunk: ByteArray) -> Encoded:
        items = chunk.size // item_bytes
        out = memory.take(12 + int(bound(items, item_bytes, block_items)))
        struct.pack_into(">QI", out.data, 0, chunk.size, block_items * item_bytes)
        count = compress(chunk.ctypes.data, out.ctypes.data + 12, items, item_bytes, block_items)
        if count < 0:
            raise AssertionError(f"bitshuffle of {chunk.size} bytes in items of {item_bytes}: error {count}")
        return out[: 12 + count].tobytes()

    def decode(stored: bytes, chunk: ByteArray) -> None:
        if len(stored) < 12 or struct.unpack_from(">QI", stored) != (chunk.size, block_items * item_bytes):
            raise Undecodable("the head of a bitshuffle chunk does not fit its dataset")
        source = np.frombuffer(stored, np.uint8)
        items = chunk.size // item_bytes
        if not _blocks_fit(stored, items, item_bytes, block_items):
            raise Undecodable("the lengths of a bitshuffle chunk's blocks do not add up to it")
        count = decompress(source.ctypes.data + 12, chunk.ctypes.data, items, item_bytes, block_items)
        if count != source.size - 12:
            raise Undecodable(f"bitshuffle took {count} bytes of {source.size - 12}")

    return encode, decode


def _blocks_fit(stored: bytes, items: int, item_bytes: int, block_items: int) -> bool:
    """Whether the blocks of a bitshuffle+LZ4 chunk, each with its length before it (u32, big-endian), end where it
    ends: the decoder believes the lengths, and would read beyond. Up to 7 items at the end are stored as they are."""
    blocks = items // block_items + bool(items % block_items // 8)
    place = 12
    for _ in range(blocks):
        place += 4 + int.from_bytes(stored[place : place + 4], "big")
        if place > len(stored):
            return False
    return place + items % 8 * item_bytes == len(stored)


def _zstd(level: int) -> tuple[Encode, Decode]:
    library = _library("zstd")
    size = ctypes.c_size_t
    compress = _function(library, "ZSTD_compress", size, ctypes.c_void_p, size, ctypes.c_void_p, size, ctypes.c_int)
    decompress = _function(library, "ZSTD_decompress", size, ctypes.c_void_p, size, ctypes.c_void_p, size)
    bound = _function(library, "ZSTD_compressBound", size, size)
    failed = _function(library, "ZSTD_isError", ctypes.c_uint, size)
    memory = _Memory()

    def encode(chunk: ByteArray) -> Encoded:
        out = memory.take(int(bound(chunk.size)))
        count = compress(out.ctypes.data, out.size, chunk.ctypes.data, chunk.size, level)
        if failed(count):
            raise AssertionError(f"zstd of {chunk.size} bytes: error {count}")
        return out[:count].tobytes()

    def decode(stored: bytes, chunk: ByteArray) -> None:
        source = np.frombuffer(stored, np.uint8)
        if decompress(chunk.ctypes.data, chunk.size, source.ctypes.data, source.size) != chunk.size:
            raise Undecodable("zstd did not give the bytes of a chunk")

    return encode, decode


class _Memory(threading.local):
    """Each thread's output, kept: memory that was touched before is many times faster than new memory."""

    def __init__(self) -> None:
        self._kept = np.empty(0, np.uint8)

    def take(self, count: int) -> ByteArray:
        if self._kept.size < count:
            self._kept = np.empty(count, np.uint8)
        return self._kept[:count]
