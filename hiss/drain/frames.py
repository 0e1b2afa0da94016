"""The blocks of one stream as HDF5 datasets, and back again.

Blocks of one size become `data` of shape `(n, *shape)`, one frame a chunk (small frames share a chunk). Blocks of
variable length, and opaque bytes, become `data` of shape `(total, *rest)` with `offset` of `n + 1` rows: block `i` is
`data[offset[i]:offset[i + 1]]`. Every block's digest is compared when it comes out of the buffer and again when it is
read back from the file. In memory are one extent, the chunks that wait (`drain.chunks`), and for each block some 40
bytes and its columns. Called from the thread that drains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt
import xxhash

from hiss.drain.chunks import ChunkWriter, Threads, read_chunks, rows_at_once
from hiss.errors import BlockDamaged
from hiss.extent import Extent, block_digests
from hiss.limits import KiB, MiB
from hiss.model import ByteArray, FrameSpec, IntArray, StreamInfo, UIntArray, digest_of

SMALL_CHUNK_BYTES: Final = 64 * KiB  # frames smaller than this share a chunk of about this size
VARIABLE_CHUNK_BYTES: Final = 1 * MiB

DIGEST_NAME: Final = "xxh3-64, seed 0"
Progress = Callable[[int], None]  # bytes done since the last call


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What stands beside `data`, one entry for each block, in the order of the file."""

    index: IntArray
    time_ns: IntArray
    received_ns: IntArray
    digest: UIntArray
    source_digest: UIntArray
    length: IntArray
    columns: npt.NDArray[np.void]
    bytes: int

    def __len__(self) -> int:
        return len(self.index)


def stored_dtype(spec: FrameSpec) -> np.dtype[Any]:
    """The dataset's dtype: the stream's, but bytes for bool, whose HDF5 form is an enumeration."""
    dtype = spec.numpy_dtype
    return np.dtype("u1") if dtype.kind == "b" else dtype


def write_frames(
    group: h5py.Group,
    info: StreamInfo,
    extents: Iterator[Extent],
    filters: Mapping[str, Any],
    threads: Threads,
    progress: Progress,
) -> Written:
    """Write all blocks of a stream into `group`: `data`, and `offset` where lengths differ.

    Raises
    ------
    BlockDamaged
        A block came out of the buffer with other bytes than its digest says.
    """
    data = _create(group, info, filters)
    writer = ChunkWriter(data, threads)
    written = gather(
        info,
        extents,
        lambda content: writer.append(content.view(data.dtype).reshape((-1, *data.shape[1:]))),
        progress,
    )
    writer.close()
    if info.frame.variable:
        ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), written.length]))
        group.create_dataset("offset", data=ends // _row_bytes(data))
    return written


def gather(
    info: StreamInfo, extents: Iterator[Extent], append: Callable[[ByteArray], None], progress: Progress
) -> Written:
    """Hand the bytes of each extent to `append`, compared with their digests, and keep what stands beside them.

    Raises
    ------
    BlockDamaged
        A block came out of the buffer with other bytes than its digest says.
    """
    kept: list[Extent] = []
    for extent in extents:
        _check(extent, info)
        append(extent.data)
        kept.append(_without_data(extent))
        progress(extent.data.nbytes)
    return collected(kept, info)


def verify_frames(group: h5py.Group, info: StreamInfo, written: Written, threads: Threads, progress: Progress) -> None:
    """Read every block of a closed and reopened file and compare it with its digest; the first one by HDF5 too.

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
    for place, reason in wrong_blocks(data, ends, written.digest, threads, progress):
        raise BlockDamaged(
            f"block {written.index[place]} of {info.path} read back from {data.file.filename} {reason}; drain again, "
            "to another disk if it happens twice",
            stream=info.path,
            index=int(written.index[place]),
        )
    if len(ends) and not reads_as(data, 0, int(ends[0]), int(written.digest[0])):
        raise BlockDamaged(
            f"block {written.index[0]} of {info.path} is in {data.file.filename}, but HDF5 reads other bytes; drain "
            "with another compression",
            stream=info.path,
            index=int(written.index[0]),
        )


def reads_as(data: h5py.Dataset, begin: int, end: int, digest: int) -> bool:
    """Whether the block in these rows, read by HDF5 itself, has its digest."""
    return digest_of(np.ascontiguousarray(data[begin:end]).reshape(-1).view(np.uint8).data) == digest


def block_ends(group: h5py.Group, blocks: int, variable: bool) -> IntArray | None:
    """Where each of so many blocks ends in `data`, in rows; None where that does not fit together."""
    rows = group["data"].shape[0]
    ends = np.asarray(group["offset"][1:], np.int64) if variable else np.arange(1, blocks + 1)
    in_order = len(ends) == 0 or (ends[0] >= 0 and bool((np.diff(ends) >= 0).all()))
    fits = len(ends) == blocks and rows == (ends[-1] if blocks else 0)
    return ends if in_order and fits else None


def wrong_blocks(
    data: h5py.Dataset, ends: IntArray, digest: UIntArray, threads: Threads, progress: Progress
) -> Iterator[tuple[int, str]]:
    """Read all blocks; the places of those that cannot be read or do not have their digest, and which of both."""
    step = rows_at_once(data)
    sizes = (min(step, data.shape[0] - first) for first in range(0, data.shape[0], step))
    pieces = zip(sizes, read_chunks(data, threads), strict=True)
    return wrong_in_pieces(pieces, ends, digest, _row_bytes(data), progress)


def wrong_in_pieces(
    pieces: Iterator[tuple[int, npt.NDArray[Any] | str]],
    ends: IntArray,
    digest: UIntArray,
    row_bytes: int,
    progress: Progress,
) -> Iterator[tuple[int, str]]:
    """The same of rows that come in pieces: how many, and they themselves or why they cannot be read."""
    place = row = 0
    state, wrong = xxhash.xxh3_64(), ""
    for rows, values in pieces:
        first, row = row, row + rows
        while place < len(ends):
            begin = max(first, int(ends[place - 1]) if place else 0)
            stop = min(row, int(ends[place]))
            if isinstance(values, str):
                wrong = wrong or (values if stop > begin else "")
            else:
                state.update(values[begin - first : stop - first].reshape(-1).view(np.uint8).data)
            if ends[place] > row:
                break
            if wrong or state.intdigest() != int(digest[place]):
                yield place, wrong or "has other bytes than were written"
            state, wrong = xxhash.xxh3_64(), ""
            place += 1
        progress(rows * row_bytes)
    for rest in range(place, len(ends)):  # of a dataset without rows
        if digest_of(b"") != int(digest[rest]):
            yield rest, "has other bytes than were written"


def chunk_rows(spec: FrameSpec) -> int:
    """How many steps along the first axis share a chunk: one frame, or as many small ones as make a good size."""
    return max(1, (VARIABLE_CHUNK_BYTES if spec.variable else SMALL_CHUNK_BYTES) // spec.item_bytes)


def _create(group: h5py.Group, info: StreamInfo, filters: Mapping[str, Any]) -> h5py.Dataset:
    spec = info.frame
    dtype = stored_dtype(spec)
    if spec.variable:
        shape = (0, *(size for size in spec.shape[1:] if size is not None))
    else:
        shape = (info.completeness.blocks, *(size for size in spec.shape if size is not None))
    return group.create_dataset(
        "data",
        shape=shape,
        maxshape=(None, *shape[1:]),
        chunks=(chunk_rows(spec), *shape[1:]),
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


def collected(kept: list[Extent], info: StreamInfo) -> Written:
    """What stands beside the blocks of these extents."""
    empty = np.zeros(0, np.int64)
    columns = [extent.columns for extent in kept]
    length = np.concatenate([empty, *(extent.length for extent in kept)])
    return Written(
        index=np.concatenate([empty, *(extent.index for extent in kept)]),
        time_ns=np.concatenate([empty, *(extent.time_ns for extent in kept)]),
        received_ns=np.concatenate([empty, *(extent.received_ns for extent in kept)]),
        digest=np.concatenate([np.zeros(0, np.uint64), *(extent.digest for extent in kept)]),
        source_digest=np.concatenate([np.zeros(0, np.uint64), *(extent.source_digest for extent in kept)]),
        columns=np.concatenate(columns) if columns else np.zeros(0, info.columns_dtype),
        length=length,
        bytes=int(length.sum()),
    )
