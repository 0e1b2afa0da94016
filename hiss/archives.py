"""Blocks of evicted streams, out of their archives: what `blocks.Storage.read` is for those in the log.

The newest archive is asked first, then those before it. What stands beside the blocks is read once a stream, and must
give the stream's digest as far as that can be taken again; every block must have the digest that stands beside it.
Blocks come in pieces of `limits.EXTENT_BYTES_TARGET`, or one larger block; the newest pieces are kept in memory. No
lock is held while an archive is read, so nobody but the reader waits for it. Any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from hiss import limits
from hiss.archive_readers import ArchiveReaders, as_damaged
from hiss.blocks.index import digest_rows
from hiss.errors import ArchiveUnreachable, BlockDamaged, Damaged, HissError, MissingExtra
from hiss.extent import Extent, block_digests
from hiss.model import BlockStatus, ByteArray, Chooser, IntArray, Keep, StreamInfo, UIntArray

V = TypeVar("V")
_NEVER = ("transport", "never received")
_EMPTY = np.zeros(0, np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What stands beside the blocks of a stream, in the order of the index."""

    index: IntArray
    time_ns: IntArray
    received_ns: IntArray
    length: IntArray
    digest: UIntArray
    source_digest: UIntArray
    columns: npt.NDArray[np.void]
    edges: IntArray  # where blocks begin among the bytes of all, and the end

    @property
    def nbytes(self) -> int:
        return 56 * len(self.index) + self.columns.nbytes


class _Kept(Generic[V]):
    """What was used last, `size_max` bytes of it, and always the newest."""

    def __init__(self, size_max: int) -> None:
        self._size_max, self._size = size_max, 0
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: V, size: int) -> None:
        with self._lock:
            self._size += size - self._values.pop(key, (value, 0))[1]
            self._values[key] = value, size
            while self._size > self._size_max and len(self._values) > 1:
                self._size -= self._values.popitem(last=False)[1][1]


class Archives:
    """The archives of one node's streams."""

    def __init__(self) -> None:
        self._readers = ArchiveReaders()
        self._tables: _Kept[Table] = _Kept(limits.ARCHIVE_TABLES_BYTES)
        self._pieces: _Kept[ByteArray] = _Kept(limits.ARCHIVE_CACHE_BYTES)

    def close(self) -> None:
        self._readers.close()

    def read(
        self,
        info: StreamInfo,
        start: int | None = None,
        stop: int | None = None,
        step: int = 1,
        choose: Chooser | None = None,
        *,
        data: bool = True,
        from_disk: bool = False,
    ) -> Iterator[Extent]:
        """Blocks in the order of their index, as `Storage.read` gives them.

        Raises
        ------
        ArchiveUnreachable
            None of the stream's archives can be read now.
        Damaged, BlockDamaged
            What is there is not what was drained.
        """
        table = self.table(info)
        rows = _wanted(table, start, stop, step, choose)
        pieces = table.edges[rows] // limits.EXTENT_BYTES_TARGET
        for part in np.split(rows, np.flatnonzero(np.diff(pieces)) + 1) if len(rows) else ():
            for first in range(0, len(part), limits.EXTENT_BLOCKS_MAX):
                some = part[first : first + limits.EXTENT_BLOCKS_MAX]
                yield self._extent(info, table, some, data, from_disk)

    def newest(self, info: StreamInfo, choose: Chooser | None = None) -> int | None:
        """The highest index, of the blocks that are chosen."""
        table = self.table(info)
        rows = _wanted(table, None, None, 1, choose)
        return int(table.index[rows[-1]]) if len(rows) else None

    def table(self, info: StreamInfo) -> Table:
        """What stands beside the blocks."""
        found = self._tables.get(info.id)
        if found is None:
            found = self._anywhere(info, lambda location: self._read_table(info, location))
            self._tables.put(info.id, found, found.nbytes)
        return found

    def _extent(self, info: StreamInfo, table: Table, rows: IntArray, data: bool, from_disk: bool) -> Extent:
        length = table.length[rows]
        found = self._data(info, table, rows, from_disk) if data else _EMPTY
        zeros = np.zeros(len(rows), np.uint8)
        return Extent(
            index=table.index[rows],
            time_ns=table.time_ns[rows],
            length=length,
            digest=table.digest[rows],
            columns=table.columns[rows],
            data=found,
            received_ns=table.received_ns[rows],
            status=zeros,
            cause=zeros,
            source_digest=table.source_digest[rows],
        )

    def _data(self, info: StreamInfo, table: Table, rows: IntArray, from_disk: bool) -> ByteArray:
        """The bytes of some blocks of one piece."""
        number = int(table.edges[rows[0]]) // limits.EXTENT_BYTES_TARGET
        first, stop = _piece(table, number)
        piece = None if from_disk else self._pieces.get((info.id, number))
        if piece is None:
            piece = self._anywhere(info, lambda location: self._read_blocks(info, location, table, first, stop))
            if piece.nbytes <= limits.ARCHIVE_CACHE_BYTES:
                self._pieces.put((info.id, number), piece, piece.nbytes)
        edges = table.edges - table.edges[first] if len(rows) > 1 else None
        if edges is None or int(rows[-1]) - int(rows[0]) + 1 == len(rows):
            base = int(table.edges[first])
            return piece[int(table.edges[rows[0]]) - base : int(table.edges[rows[-1] + 1]) - base]
        return np.concatenate([piece[edges[row] : edges[row + 1]] for row in rows.tolist()])

    # ---- asking

    def _anywhere(self, info: StreamInfo, read: Callable[[str], V]) -> V:
        """What the newest archive gives, or the one before it."""
        failures: list[HissError] = []
        for archive in reversed(info.archives):
            try:
                return read(archive.location)
            except (ArchiveUnreachable, Damaged, MissingExtra) as error:
                failures.append(error)
        where = info.archives[-1].location
        told = f"stream {info.path} version {info.version} was evicted and is archived at {where}; "
        worst = next((each for each in failures if isinstance(each, Damaged)), None)
        raised = (ArchiveUnreachable if worst is None else type(worst))(told + "; ".join(map(str, failures)))
        raised.details |= {**(worst.details if worst is not None else {}), "archive": where, "stream": info.path}
        raise raised

    def _read_table(self, info: StreamInfo, location: str) -> Table:
        found = self._readers.ask(location, **_stream(info))
        index, time_ns, received_ns, length = (part.view(np.int64) for part in found[:4])
        digest, source_digest = (part.view(np.uint64) for part in found[4:6])
        dtype = info.columns_dtype
        columns = found[6].view(dtype) if dtype.itemsize else np.zeros(len(index), dtype)
        edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(length)])
        table = Table(index, time_ns, received_ns, length, digest, source_digest, columns, edges)
        _check(info, location, table)
        return table

    def _read_blocks(self, info: StreamInfo, location: str, table: Table, first: int, stop: int) -> ByteArray:
        (data,) = self._readers.ask(location, **_stream(info), first=first, stop=stop)
        length = table.length[first:stop]
        if data.nbytes != int(length.sum()):
            raise as_damaged(location, f"{data.nbytes} bytes for blocks of {int(length.sum())}")
        wrong = np.flatnonzero(block_digests(data, length) != table.digest[first:stop])
        if len(wrong):
            index = int(table.index[first + wrong[0]])
            raise BlockDamaged(
                f"{location}: block {index} of {info.path} does not have its digest; `hiss verify` tells what else is "
                "damaged",
                stream=info.path,
                index=index,
                archive=location,
            )
        data.flags.writeable = False
        return data


def _stream(info: StreamInfo) -> dict[str, Any]:
    """What the process is told of a stream."""
    columns = [[column.name, column.dtype] for column in info.columns]
    return {
        "id": info.id,
        "digest": info.digest,
        "dtype": info.frame.dtype,
        "variable": info.frame.variable,
        "columns": columns,
    }


def _wanted(table: Table, start: int | None, stop: int | None, step: int, choose: Chooser | None) -> IntArray:
    """The rows of a range of indices, every `step`-th, that are chosen."""
    first = 0 if start is None else int(np.searchsorted(table.index, start))
    end = len(table.index) if stop is None else int(np.searchsorted(table.index, stop))
    rows = np.arange(first, max(first, end))
    if step > 1 and len(table.index):
        rows = rows[(table.index[rows] - (table.index[0] if start is None else start)) % step == 0]
    if choose is not None:
        rows = rows[choose(table.time_ns[rows], table.columns[rows])]
    return rows


def _piece(table: Table, number: int) -> tuple[int, int]:
    """The rows of the blocks that begin in one piece."""
    low, high = number * limits.EXTENT_BYTES_TARGET, (number + 1) * limits.EXTENT_BYTES_TARGET
    begins = table.edges[:-1]
    return int(np.searchsorted(begins, low)), int(np.searchsorted(begins, high))


def _check(info: StreamInfo, location: str, table: Table) -> None:
    """What stands beside the blocks fits together, and is the stream's."""
    count = len(table.index)
    vectors = (table.time_ns, table.received_ns, table.length, table.digest, table.source_digest, table.columns)
    if any(len(vector) != count for vector in vectors) or (count and int(table.length.min()) < 0):
        raise as_damaged(location, "what stands beside the blocks does not fit together")
    if not bool((np.diff(table.index) > 0).all()):
        raise as_damaged(location, "the indices do not rise")
    computed = info.keep is Keep.RAW and bool(info.stages)
    if not computed and count != info.completeness.blocks:
        raise as_damaged(location, f"{count} blocks, the stream has {info.completeness.blocks}")
    if computed or any((entry.stage, entry.reason) != _NEVER for entry in info.completeness.ledger):
        return  # its digest covers fates of blocks that are in no archive; the record's own digest was compared
    stored = np.full(count, BlockStatus.STORED, np.uint8)
    found = xxhash.xxh3_64_intdigest(digest_rows(table.index, stored, table.digest))
    if f"{found:016x}" != info.digest:
        raise as_damaged(location, f"its blocks give the digest {found:016x}, the stream's is {info.digest}")
