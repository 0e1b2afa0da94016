"""A stream as the bytes of a file: its blocks one after another, behind the header of a .npy file where that is asked.

Read in pieces: the blocks that begin within the same `limits.VIEW_PIECE_BYTES`, so a piece is about that size, or one
larger block. A range costs the pieces that it touches, several at once; those of a final stream are kept (`cache`). An
open stream is as long as it was when it was opened. The form of .npy:
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0. Any thread.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hiss import limits
from hiss.errors import BlockMissing
from hiss.model import IntArray, Keep, Selection, StreamInfo
from hiss.store import Store
from hiss.views.cache import MEMORY, DiskCache, Piece
from hiss.views.places import at, beside, fixed_shape, indices
from hiss.views.source import Source


def npy_header(info: StreamInfo, blocks: int) -> bytes:
    """Of an array `(blocks, *shape)` of the stream's dtype."""
    out = io.BytesIO()
    shape = (blocks, *fixed_shape(info))
    header = {"descr": info.frame.numpy_dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()


def stored_bytes(info: StreamInfo, npy: bool) -> int | None:
    """How long the file is; None where only computing the results tells."""
    block = info.frame.block_bytes
    if block is not None:
        return (len(npy_header(info, info.completeness.blocks)) if npy else 0) + info.completeness.blocks * block
    return None if info.keep is Keep.RAW and info.raw_id is not None else info.completeness.bytes


def content_bytes(store: Store, info: StreamInfo, npy: bool) -> int:
    """How long the file is."""
    known = stored_bytes(info, npy)
    return Content(Source.of(store), info, npy).size if known is None else known


class Content:
    """
    Parameters
    ----------
    source : Source
    info : StreamInfo
    npy : bool
        With the header of a .npy file; for blocks of one shape.
    disk : DiskCache, optional
        Where pieces are kept beside the memory.
    """

    def __init__(self, source: Source, info: StreamInfo, npy: bool, disk: DiskCache | None = None) -> None:
        self._source, self._info, self._disk = source, info, disk
        self._index = indices(source.store, info)
        self._block = info.frame.block_bytes
        self._edges: IntArray = np.zeros(1, np.int64)  # where blocks begin, and the end, if they differ in length
        if self._block is None:
            self._edges = np.concatenate([self._edges, np.cumsum(self._lengths())])
        self._header = npy_header(info, len(self._index)) if npy else b""
        self.size = len(self._header) + self._begin(len(self._index))

    def _lengths(self) -> IntArray:
        info, store = self._info, self._source.store
        if info.keep is not Keep.RAW or info.raw_id is None:
            return at(beside(store, info), self._index).length
        computed = list(store.read(info.id, Selection(data=False)))
        return np.concatenate([np.zeros(0, np.int64), *(extent.length for extent in computed)])

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`, as far as there are so many."""
        start, stop = max(0, start), min(stop, self.size)
        head = self._header[start:stop]
        first, last = max(0, start - len(self._header)), stop - len(self._header)
        if first >= last:
            return head
        pieces = range(self._piece(self._place(first)), self._piece(self._place(last - 1)) + 1)
        if len(pieces) == 1:
            begin = self._begin(self._blocks(pieces[0])[0])
            return head + self._get(pieces[0])[first - begin : last - begin]
        out = bytearray(len(head) + last - first)
        out[: len(head)] = head
        with ThreadPoolExecutor(limits.VIEW_READS_AT_ONCE, "hiss read") as threads:
            for _ in threads.map(lambda number: self._fill(out, len(head) - first, number, first, last), pieces):
                pass
        return bytes(out)

    def _fill(self, out: bytearray, shift: int, number: int, first: int, last: int) -> None:
        """Put what a piece has of a range where it belongs."""
        place, end = self._blocks(number)
        if place == end:
            return
        begin = self._begin(place)
        low, high = max(first, begin), min(last, self._begin(end))
        if low < high:
            out[low + shift : high + shift] = memoryview(self._get(number))[low - begin : high - begin]

    def _get(self, number: int) -> bytes:
        if not self._info.state.final:
            return self._fetch(number)
        piece = Piece(self._info.id, self._info.digest, number)
        found = MEMORY.get(piece)
        if found is None and self._disk is not None:
            found = self._disk.get(piece)
        if found is None:
            found = self._fetch(number)
            if self._disk is not None:
                self._disk.put(piece, found)
        MEMORY.put(piece, found)
        return found

    def _fetch(self, number: int) -> bytes:
        place, end = self._blocks(number)
        wanted = self._index[place:end]
        parts = []
        for extent in self._source.store.read(self._info.id, Selection(int(wanted[0]), int(wanted[-1]) + 1)):
            if not isinstance(wanted, range) and not self._info.state.final:
                extent = extent.select(np.isin(extent.index, wanted))
            parts.append(extent.data.tobytes())
        found = b"".join(parts)
        if len(found) != self._begin(end) - self._begin(place):
            raise BlockMissing(
                f"stream {self._info.path}: {len(found)} bytes came for blocks {wanted[0]} to {wanted[-1]}, expected "
                f"{self._begin(end) - self._begin(place)}; open the file again",
                reason="gone",
            )
        return found

    # ---- where blocks lie, in bytes behind the header

    def _begin(self, place: int) -> int:
        return place * self._block if self._block else int(self._edges[place])

    def _place(self, offset: int) -> int:
        """The block that has a byte."""
        return offset // self._block if self._block else int(np.searchsorted(self._edges, offset, "right")) - 1

    def _piece(self, place: int) -> int:
        return self._begin(place) // limits.VIEW_PIECE_BYTES

    def _blocks(self, number: int) -> tuple[int, int]:
        """The first block of a piece, and one past its last."""
        low, high = number * limits.VIEW_PIECE_BYTES, (number + 1) * limits.VIEW_PIECE_BYTES
        if self._block:
            first, end = -(-low // self._block), -(-high // self._block)
        else:
            first, end = (int(np.searchsorted(self._edges[:-1], each, "left")) for each in (low, high))
        return min(first, len(self._index)), min(end, len(self._index))
