"""The blocks of one stream as HDF5 datasets, and back again.

Blocks of one size become `data` of shape `(n, *shape)`, one frame a chunk (small frames share a chunk). Blocks of
variable length, and opaque bytes, become `data` of shape `(total, *rest)` with `offset` of `n + 1` rows: block `i` is
`data[offset[i]:offset[i + 1]]`. Every block's digest is compared when it comes out of the buffer and again when it is
read back from the file. One extent is in memory at a time, plus some 24 bytes and the columns for each block. Called
from the thread that drains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from hiss.errors import BlockDamaged
from hiss.limits import KiB, MiB
from hiss.model import Extent, FrameSpec, IntArray, StreamInfo, UIntArray, block_digests, digest_of

SMALL_CHUNK_BYTES: Final = 64 * KiB  # frames smaller than this share a chunk of about this size
VARIABLE_CHUNK_BYTES: Final = 1 * MiB
READ_BYTES: Final = 8 * MiB  # read back at once

Progress = Callable[[int], None]  # bytes done since the last call


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What stands beside `data`, one entry for each block, in the order of the file."""

    index: IntArray
    time_ns: IntArray
    received_ns: IntArray
    digest: UIntArray
    source_digest: UIntArray
    columns: npt.NDArray[np.void]
    bytes: int

    def __len__(self) -> int:
        return len(self.index)


def stored_dtype(spec: FrameSpec) -> np.dtype[Any]:
    """The dataset's dtype: the stream's, but bytes for bool, whose HDF5 form is an enumeration."""
    dtype = spec.numpy_dtype
    return np.dtype("u1") if dtype.kind == "b" else dtype


def write_frames(
    group: h5py.Group, info: StreamInfo, extents: Iterator[Extent], filters: Mapping[str, Any], progress: Progress
) -> Written:
    """Write all blocks of a stream into `group`: `data`, and `offset` where lengths differ.

    Raises
    ------
    BlockDamaged
        A block came out of the buffer with other bytes than its digest says.
    """
    data = _create(group, info, filters)
    rows = 0
    total = 0
    kept: list[Extent] = []
    for extent in extents:
        _check(extent, info)
        values = extent.data.view(data.dtype).reshape((-1, *data.shape[1:]))
        if rows + len(values) > data.shape[0]:
            data.resize(rows + len(values), axis=0)
        data[rows : rows + len(values)] = values
        rows += len(values)
        total += extent.data.nbytes
        kept.append(_without_data(extent))
        progress(extent.data.nbytes)
    data.resize(rows, axis=0)
    if info.frame.variable:
        lengths = np.concatenate([np.zeros(1, np.int64), *(extent.length for extent in kept)])
        group.create_dataset("offset", data=np.cumsum(lengths) // _row_bytes(data))
    return _collected(kept, info, total)


def verify_frames(group: h5py.Group, info: StreamInfo, written: Written, progress: Progress) -> None:
    """Read every block of a closed and reopened file and compare it with its digest.

    Raises
    ------
    BlockDamaged
        The file does not hold what was written.
    """
    data = group["data"]
    ends = block_ends(group, len(written), info.frame.variable)
    if ends is None:
        raise BlockDamaged(
            f"{data.name} in {data.file.filename}: {data.shape[0]} rows read back do not fit the "
            f"{len(written)} blocks that were written; drain again",
            stream=info.path,
        )
    for place, reason in wrong_blocks(data, ends, written.digest, progress):
        raise BlockDamaged(
            f"block {written.index[place]} of {info.path} read back from {data.file.filename} {reason}; drain again, "
            "to another disk if it happens twice",
            stream=info.path,
            index=int(written.index[place]),
        )


def block_ends(group: h5py.Group, blocks: int, variable: bool) -> IntArray | None:
    """Where each of so many blocks ends in `data`, in rows; None where that does not fit together."""
    rows = group["data"].shape[0]
    ends = np.asarray(group["offset"][1:], np.int64) if variable else np.arange(1, blocks + 1)
    in_order = len(ends) == 0 or (ends[0] >= 0 and bool((np.diff(ends) >= 0).all()))
    fits = len(ends) == blocks and rows == (ends[-1] if blocks else 0)
    return ends if in_order and fits else None


def wrong_blocks(
    data: h5py.Dataset, ends: IntArray, digest: UIntArray, progress: Progress
) -> Iterator[tuple[int, str]]:
    """Read all blocks; the places of those that cannot be read or do not have their digest, and which of both."""
    for first, stop in _runs(ends, _row_bytes(data)):
        try:
            yield from _wrong_in_run(data, ends, digest, first, stop)
        except OSError as error:  # a chunk that cannot be decoded: which one, the blocks one by one tell
            for place in range(first, stop):
                try:
                    yield from _wrong_in_run(data, ends, digest, place, place + 1)
                except OSError:
                    yield place, f"cannot be read ({' '.join(str(error).split())[:200]})"
        progress(int(ends[stop - 1] - (ends[first - 1] if first else 0)) * _row_bytes(data))


def _wrong_in_run(
    data: h5py.Dataset, ends: IntArray, digest: UIntArray, first: int, stop: int
) -> Iterator[tuple[int, str]]:
    begin = int(ends[first - 1]) if first else 0
    values = np.ascontiguousarray(data[begin : int(ends[stop - 1])])
    for place in range(first, stop):
        low = (int(ends[place - 1]) if place else 0) - begin
        block = values[low : int(ends[place]) - begin]
        if digest_of(block.reshape(-1).view(np.uint8).data) != int(digest[place]):
            yield place, "has other bytes than were written"


def _create(group: h5py.Group, info: StreamInfo, filters: Mapping[str, Any]) -> h5py.Dataset:
    spec = info.frame
    dtype = stored_dtype(spec)
    if spec.variable:
        shape = (0, *(size for size in spec.shape[1:] if size is not None))
        rows = max(1, VARIABLE_CHUNK_BYTES // spec.item_bytes)
    else:
        shape = (info.completeness.blocks, *(size for size in spec.shape if size is not None))
        rows = max(1, SMALL_CHUNK_BYTES // spec.item_bytes)
    return group.create_dataset(
        "data",
        shape=shape,
        maxshape=(None, *shape[1:]),
        chunks=(rows, *shape[1:]),
        dtype=dtype,
        **filters,
    )


def _row_bytes(data: h5py.Dataset) -> int:
    return int(data.dtype.itemsize * np.prod(data.shape[1:], dtype=np.int64))


def _check(extent: Extent, info: StreamInfo) -> None:
    found = block_digests(extent.data, extent.length)
    wrong = np.flatnonzero(found != extent.digest)
    if len(wrong):
        raise BlockDamaged(
            f"block {extent.index[wrong[0]]} of {info.path} came out of the buffer with other bytes than its digest "
            "says; nothing was drained",
            stream=info.path,
            index=int(extent.index[wrong[0]]),
        )


def _without_data(extent: Extent) -> Extent:
    """The extent's vectors, copied: its memory may be reused once the next one is asked for."""
    return Extent(
        index=extent.index.copy(),
        time_ns=extent.time_ns.copy(),
        length=extent.length.copy(),
        digest=extent.digest.copy(),
        columns=extent.columns.copy(),
        data=np.zeros(0, np.uint8),
        received_ns=extent.received_ns.copy(),
        status=np.zeros(0, np.uint8),
        cause=np.zeros(0, np.uint8),
        source_digest=extent.source_digest.copy(),
    )


def _collected(kept: list[Extent], info: StreamInfo, total: int) -> Written:
    empty = np.zeros(0, np.int64)
    columns = [extent.columns for extent in kept]
    return Written(
        index=np.concatenate([empty, *(extent.index for extent in kept)]),
        time_ns=np.concatenate([empty, *(extent.time_ns for extent in kept)]),
        received_ns=np.concatenate([empty, *(extent.received_ns for extent in kept)]),
        digest=np.concatenate([np.zeros(0, np.uint64), *(extent.digest for extent in kept)]),
        source_digest=np.concatenate([np.zeros(0, np.uint64), *(extent.source_digest for extent in kept)]),
        columns=np.concatenate(columns) if columns else np.zeros(0, info.columns_dtype),
        bytes=total,
    )


def _runs(ends: IntArray, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Runs of blocks of about READ_BYTES: first place, and one past the last."""
    first = 0
    while first < len(ends):
        begin = ends[first - 1] if first else 0
        stop = int(np.searchsorted(ends, begin + max(1, READ_BYTES // row_bytes), side="right"))
        stop = max(stop, first + 1)
        yield first, stop
        first = stop
