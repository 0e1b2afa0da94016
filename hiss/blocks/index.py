"""The index of one stream: for each producer's index, its status and where its record is. In memory, rebuilt by
recovery.

Two tables of NumPy vectors that grow. **Records**, in the order of their arrival: 20 bytes each. **Runs**, sorted by
index: blocks of consecutive indices and rows, of one record and one status: 22 bytes each, so that the worst case (no
two neighbours alike) costs 22 bytes a block and its share of the record. Vectors grow by an eighth, so no more than
that is spare. A stream in order costs (20 + 22) * 9 / 8 bytes for each record: below 24 a block from two blocks a
record on, and next to nothing for small blocks, that come in extents of hundreds. Digests stay on disk.

Invariants: runs do not overlap; a record's `live` counts the blocks that runs have of it. One thread at a time changes
an index (`add`, `remove`), besides the committer that may `relocate`; any thread reads. A lock of its own guards it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from hiss.blocks.record import BlockTable
from hiss.limits import LATE_RECORDS_KEPT, RECORD_ALIGN_BYTES
from hiss.model import BlockStatus, ByteArray, IntArray, UIntArray, is_readable

NOT_HANDLED: Final = 255  # no status

_RUN: Final[dict[str, Any]] = {"first": "i8", "count": "u4", "row": "u4", "record": "u4", "status": "u1", "cause": "u1"}
_RECORD: Final[dict[str, Any]] = {"segment": "u4", "page": "u4", "pages": "u4", "blocks": "u4", "live": "u4"}
_DIGEST_ROW: Final = np.dtype([("index", "<i8"), ("status", "u1"), ("digest", "<u8")])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is."""

    segment: int
    offset: int
    total_bytes: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks of consecutive indices and rows in one record."""

    first: int
    count: int
    row: int
    record: int
    status: int
    cause: int

    @property
    def last(self) -> int:
        return self.first + self.count - 1


class Columns:
    """Named NumPy vectors of one length that grow together."""

    def __init__(self, kinds: dict[str, Any]) -> None:
        self.length = 0
        self._vectors = {name: np.zeros(8, kind) for name, kind in kinds.items()}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._vectors[name][: self.length]

    def insert(self, at: int, rows: dict[str, Any], count: int) -> None:
        """Put `count` rows before row `at`; at the end this is amortised O(count)."""
        for name, vector in self._vectors.items():
            if self.length + count > len(vector):
                grown = np.zeros(max(len(vector) * 9 // 8 + 8, self.length + count), vector.dtype)
                grown[: self.length] = vector[: self.length]
                self._vectors[name] = vector = grown
            if at < self.length:
                vector[at + count : self.length + count] = vector[at : self.length]
            vector[at : at + count] = rows[name]
        self.length += count

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        for name, vector in self._vectors.items():
            self._vectors[name] = vector[: self.length][mask]
        self.length = int(mask.sum())

    @property
    def nbytes(self) -> int:
        return sum(vector.nbytes for vector in self._vectors.values())


class StreamIndex:
    """What is known of one stream's blocks.

    Parameters
    ----------
    stream_id : str
        32 hex digits.
    columns_dtype : numpy.dtype
        Of the packed columns of a block.
    read_table : callable
        Reads a record's table from disk; raises `BlockDamaged`.
    """

    def __init__(
        self, stream_id: str, columns_dtype: np.dtype[np.void], read_table: Callable[[StreamIndex, int], BlockTable]
    ) -> None:
        self.stream_id = stream_id
        self.columns_dtype = columns_dtype
        self.arrived = threading.Condition()
        self.deleted = False
        self._read_table = read_table
        self._lock = threading.RLock()
        self._runs = Columns(_RUN)
        self._records = Columns(_RECORD)
        self._next = 0
        self._stored = 0
        self._stored_bytes = 0
        self._rolling: xxhash.xxh3_64 | None = xxhash.xxh3_64()  # of all blocks, while they came in order
        self._late: deque[tuple[int, int]] = deque(maxlen=LATE_RECORDS_KEPT)  # (record, its first index)
        self.damaged: list[tuple[int, int]] = []  # indices whose blocks recovery found damaged

    # ---- what is there

    def steady(self) -> contextlib.AbstractContextManager[object]:
        """While it is entered, nothing is added or removed."""
        return self._lock

    @property
    def next_index(self) -> int:
        """One past the highest index that is handled; 0 where none is."""
        return self._next

    @property
    def first_index(self) -> int | None:
        with self._lock:
            return int(self._runs["first"][0]) if self._runs.length else None

    @property
    def stored(self) -> int:
        """Blocks that can be read: stored, or computed from their raw block."""
        return self._stored

    @property
    def handled_count(self) -> int:
        """Blocks that are handled, whatever became of them."""
        with self._lock:
            return int(self._runs["count"].sum())

    def end_of_stored(self, count: int) -> int:
        """One past the index of the `count`-th block that can be read, by index; there are so many."""
        with self._lock:
            readable = np.flatnonzero(is_readable(self._runs["status"]))
            sums = np.cumsum(self._runs["count"][readable], dtype=np.int64)
            run = int(np.searchsorted(sums, count))
            place = int(readable[run])
            last = self._runs["first"][place] + self._runs["count"][place]
            return int(last - (sums[run] - count))

    @property
    def stored_bytes(self) -> int:
        return self._stored_bytes

    @property
    def records(self) -> int:
        """Records that ever arrived."""
        return self._records.length

    def news(self, records: int) -> tuple[int, int | None]:
        """How many records there are, and the lowest index of those that came after the first `records` of them and not
        in order; None where all came beyond the highest index."""
        with self._lock:
            found = [low for record, low in self._late if record >= records]
            if len(found) == LATE_RECORDS_KEPT:  # older ones may be forgotten
                return self._records.length, int(self._runs["first"][0])
            return self._records.length, min(found, default=None)

    @property
    def log_bytes(self) -> int:
        """What its live records take in the log."""
        with self._lock:
            live = self._records["live"] > 0
            return int(self._records["pages"][live].sum(dtype=np.int64)) * RECORD_ALIGN_BYTES

    @property
    def nbytes(self) -> int:
        """Memory of the tables."""
        return self._runs.nbytes + self._records.nbytes

    def status(self, index: IntArray) -> ByteArray:
        """The `BlockStatus` of each index; `NOT_HANDLED` where nothing is known of it."""
        with self._lock:
            where, found = self._find(index)
            out = np.full(len(index), NOT_HANDLED, np.uint8)
            out[found] = self._runs["status"][where[found]]
            return out

    def handled(self, index: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each index has been handled, whatever became of it."""
        if not len(index) or int(index.min()) >= self._next:
            return np.zeros(len(index), np.bool_)
        with self._lock:
            return self._find(index)[1]

    def locate(self, index: IntArray) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Record and row in it of each index; all of them are handled."""
        with self._lock:
            where, found = self._find(index)
            assert found.all()
            rows = self._runs["row"][where] + (index - self._runs["first"][where]).astype(np.uint32)
            return self._runs["record"][where].copy(), rows

    def source_digests(self, index: IntArray) -> UIntArray:
        """The digest of each block as its producer sent it, read from disk; all of them are handled."""
        out = np.zeros(len(index), np.uint64)
        records, rows = self.locate(index)
        for record in np.unique(records).tolist():
            mine = records == record
            out[mine] = self._read_table(self, record).source_digest[rows[mine]]
        return out

    def newest(self, status: BlockStatus = BlockStatus.STORED) -> int | None:
        """The highest index of that status."""
        with self._lock:
            places = np.flatnonzero(self._runs["status"] == status)
            return self._run(int(places[-1])).last if len(places) else None

    def gaps(self, limit: int) -> list[tuple[int, int]]:
        """Ranges between the first and the last handled index that are not handled, first and last included."""
        with self._lock:
            first = self._runs["first"]
            ends = first + self._runs["count"]
            places = np.flatnonzero(ends[:-1] < first[1:])[:limit]
            return list(zip(ends[places].tolist(), (first[places + 1] - 1).tolist(), strict=True))

    def runs(self, start: int | None = None, limit: int = 4096) -> list[Run]:
        """Up to `limit` runs in index order, from the one that holds or follows `start`."""
        with self._lock:
            at = 0
            if start is not None:
                at = max(int(np.searchsorted(self._runs["first"], start, "right")) - 1, 0)
                if at < self._runs.length and self._run(at).last < start:
                    at += 1
            return [self._run(place) for place in range(at, min(at + limit, self._runs.length))]

    def place(self, record: int) -> Place:
        with self._lock:
            table = self._records
            return Place(
                int(table["segment"][record]),
                int(table["page"][record]) * RECORD_ALIGN_BYTES,
                int(table["pages"][record]) * RECORD_ALIGN_BYTES,
                int(table["blocks"][record]),
            )

    def live(self, record: int) -> int:
        """Blocks that this record holds for the stream; 0 once it was given up."""
        return int(self._records["live"][record])

    def records_in(self, segment: int) -> list[int]:
        """The records there that hold something for the stream."""
        with self._lock:
            return np.flatnonzero((self._records["segment"] == segment) & (self._records["live"] > 0)).tolist()

    def rolling_digest(self) -> int | None:
        """The digest over (index, status, digest) of all blocks, or None where they did not come in order."""
        with self._lock:
            return None if self._rolling is None else self._rolling.intdigest()

    # ---- changes

    def add(self, place: Place, table: BlockTable, keep: npt.NDArray[np.bool_] | None = None) -> int:
        """Enter a record, or those of its blocks that `keep` names; none of them is handled yet.

        Returns its number, or -1 where the stream has been deleted.
        """
        rows = np.arange(len(table.index)) if keep is None else np.flatnonzero(keep)
        index = table.index[rows]
        if len(index) > 1 and not bool((index[1:] > index[:-1]).all()):
            order = np.argsort(index, kind="stable")
            rows, index = rows[order], index[order]
        status, cause = table.status[rows], table.cause[rows]
        with self._lock:
            if self.deleted:
                return -1
            record = self._records.length
            self._add_record(place, len(rows))
            if len(rows):
                self._roll(index, status, table.digest[rows])
                if int(index[0]) < self._next:
                    self._late.append((record, int(index[0])))
                self._add_runs(record, rows, index, status, cause)
                self._next = max(self._next, int(index[-1]) + 1)
            self._stored += int(is_readable(status).sum())
            self._stored_bytes += int(table.length[rows].sum(dtype=np.int64))
        self.wake()
        return record

    def add_records(
        self,
        segment: int,
        offsets: npt.NDArray[np.integer[Any]],
        sizes: npt.NDArray[np.integer[Any]],
        counts: npt.NDArray[np.integer[Any]],
        table: BlockTable,
    ) -> None:
        """Enter many records of one segment, as `add` would one after another.

        Parameters
        ----------
        segment : int
        offsets, sizes, counts : numpy.ndarray
            Of each record: where it stands, the bytes that it takes, its blocks; at least one.
        table : BlockTable
            Their blocks, one record behind the other, in the order of their indices, all of them beyond `next_index`.
        """
        index, status = table.index, table.status
        assert int(index[0]) >= self._next
        assert bool((index[1:] > index[:-1]).all())
        number = np.repeat(np.arange(len(counts)), counts)
        row = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
        with self._lock:
            first = self._records.length
            pages = {"page": offsets // RECORD_ALIGN_BYTES, "pages": sizes // RECORD_ALIGN_BYTES}
            self._records.insert(first, pages | {"segment": segment, "blocks": counts, "live": counts}, len(counts))
            self._roll(index, status, table.digest)
            alike = (index[1:] - index[:-1] == 1) & (number[1:] == number[:-1])
            alike &= (status[1:] == status[:-1]) & (table.cause[1:] == table.cause[:-1])
            starts = np.concatenate(([0], np.flatnonzero(~alike) + 1))
            run = {"first": index[starts], "count": np.diff(starts, append=len(index)), "row": row[starts]}
            run |= {"record": first + number[starts], "status": status[starts], "cause": table.cause[starts]}
            self._runs.insert(self._runs.length, run, len(starts))
            self._next = int(index[-1]) + 1
            self._stored += int(is_readable(status).sum())
            self._stored_bytes += int(table.length.sum(dtype=np.int64))
        self.wake()

    def relocate(self, record: int, place: Place) -> bool:
        """The record stands somewhere else now; whether anything of it is still wanted."""
        with self._lock:
            if self.deleted or not self._records["live"][record]:
                return False
            self._records["segment"][record] = place.segment
            self._records["page"][record] = place.offset // RECORD_ALIGN_BYTES
            self._records["pages"][record] = place.total_bytes // RECORD_ALIGN_BYTES
            return True

    def delete(self) -> dict[int, tuple[int, int]]:
        """Give up everything, for good; of each segment, how many records were live in it, and their bytes."""
        with self._lock:
            self.deleted = True
            live = self._records["live"] > 0
            numbers, where = np.unique(self._records["segment"][live], return_inverse=True)
            records = np.bincount(where, minlength=len(numbers))
            pages = np.bincount(where, self._records["pages"][live], len(numbers)).astype(np.int64)
            freed = zip(records.tolist(), (pages * RECORD_ALIGN_BYTES).tolist(), strict=True)
            self._records["live"][:] = 0
            self._runs.keep(np.zeros(self._runs.length, np.bool_))
            self._next = self._stored = self._stored_bytes = 0
            self._rolling = None
        self.wake()
        return dict(zip(numbers.tolist(), freed, strict=True))

    def remove(self, record: int, table: BlockTable, drop: npt.NDArray[np.bool_] | None = None) -> int:
        """Give up a record's blocks, or those rows that `drop` names: they are not handled any more.

        Returns how many blocks were given up.
        """
        with self._lock:
            runs = self._runs
            mine = np.flatnonzero(runs["record"] == record)
            old = [self._run(place) for place in mine.tolist()]
            mask = np.ones(runs.length, np.bool_)
            mask[mine] = False
            runs.keep(mask)
            rows = np.concatenate([np.arange(run.row, run.row + run.count) for run in old] or [np.zeros(0, np.int64)])
            index = np.concatenate([np.arange(run.first, run.last + 1) for run in old] or [np.zeros(0, np.int64)])
            stays = np.zeros(len(rows), np.bool_) if drop is None else ~drop[rows]
            gone = rows[~stays]
            self._stored -= int(is_readable(table.status[gone]).sum())
            self._stored_bytes -= int(table.length[gone].sum(dtype=np.int64))
            rows, index = rows[stays], index[stays]
            self._add_runs(record, rows, index, table.status[rows], table.cause[rows])
            self._records["live"][record] = len(rows)
            self._rolling = None
            self._next = int(runs["first"][-1]) + int(runs["count"][-1]) if runs.length else 0
            return len(gone)

    def wake(self) -> None:
        """Let everybody look who waits for an arrival."""
        with self.arrived:
            self.arrived.notify_all()

    # ---- inside; the lock is held

    def _find(self, index: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        if not self._runs.length:
            return np.zeros(len(index), np.int64), np.zeros(len(index), np.bool_)
        first = self._runs["first"]
        where = np.searchsorted(first, index, "right") - 1
        found = where >= 0
        where[~found] = 0
        found &= index < first[where] + self._runs["count"][where]
        return where, found

    def _run(self, place: int) -> Run:
        runs = self._runs
        return Run(*(int(runs[name][place]) for name in _RUN))

    def _add_record(self, place: Place, live: int) -> None:
        row = {
            "segment": place.segment,
            "page": place.offset // RECORD_ALIGN_BYTES,
            "pages": place.total_bytes // RECORD_ALIGN_BYTES,
            "blocks": place.blocks,
            "live": live,
        }
        self._records.insert(self._records.length, row, 1)

    def _add_runs(
        self, record: int, rows: npt.NDArray[np.int64], index: IntArray, status: ByteArray, cause: ByteArray
    ) -> None:
        """Cut sorted blocks into runs and put them in their places."""
        if not len(index):
            return
        if len(index) == 1:  # as large blocks come: what follows costs more than all else that is done for one
            first = int(index[0])
            place = self._runs.length if first >= self._next else int(np.searchsorted(self._runs["first"], first))
            one = {"first": first, "count": 1, "row": rows[0], "status": status[0], "cause": cause[0]}
            self._runs.insert(place, one | {"record": record}, 1)
            return
        alike = (index[1:] - index[:-1] == 1) & (rows[1:] - rows[:-1] == 1)
        alike &= (status[1:] == status[:-1]) & (cause[1:] == cause[:-1])
        bounds = np.array([0, *(np.flatnonzero(~alike) + 1).tolist(), len(index)])
        starts, counts = bounds[:-1], bounds[1:] - bounds[:-1]
        if int(index[0]) >= self._next:
            at = np.array([self._runs.length])
        else:
            at = np.searchsorted(self._runs["first"], index[starts])
        run = {"count": counts, "row": rows[starts], "status": status[starts], "cause": cause[starts]}
        run |= {"first": index[starts], "record": np.full(len(starts), record)}
        if at[0] == at[-1]:
            self._runs.insert(int(at[0]), run, len(starts))
            return
        for k in range(len(starts) - 1, -1, -1):  # from the end, so that earlier places stay right
            self._runs.insert(int(at[k]), {name: vector[k] for name, vector in run.items()}, 1)

    def _roll(self, index: IntArray, status: ByteArray, digest: UIntArray) -> None:
        if self._rolling is not None and self._runs.length and int(index[0]) < self._next:
            self._rolling = None
        if self._rolling is not None:
            self._rolling.update(digest_rows(index, status, digest))


def digest_rows(index: IntArray, status: ByteArray, digest: UIntArray) -> bytes:
    """What a stream's digest is taken over: 17 bytes a block, index, status, digest."""
    rows = np.empty(len(index), _DIGEST_ROW)
    rows["index"], rows["status"], rows["digest"] = index, status, digest
    return rows.tobytes()
