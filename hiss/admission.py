"""What may enter: an extent is checked against its stream before a byte of it is kept. Pure functions, any thread."""

from __future__ import annotations

import numpy as np

from hiss import limits
from hiss.errors import BlockTooLarge, InvalidInput, LimitExceeded, SpecMismatch
from hiss.extent import Extent
from hiss.model import BlockStatus, FrameSpec, StreamInfo

_DECLARABLE = [
    int(status)
    for status in (
        BlockStatus.STORED,
        BlockStatus.SHED,
        BlockStatus.DECLARED,
        BlockStatus.LOST,
        BlockStatus.DROPPED,
        BlockStatus.PRESCALED,
    )
]


def check_extent(info: StreamInfo, frame: FrameSpec, extent: Extent) -> None:
    """Raise unless `extent` is one that a producer of `info`, whose blocks are `frame`, may send."""
    where = f"stream {info.path}"
    count = len(extent.index)
    if not 0 < count <= limits.EXTENT_BLOCKS_MAX:
        raise LimitExceeded(f"{where}: an extent of {count} blocks, allowed are 1 to {limits.EXTENT_BLOCKS_MAX}")
    vectors = {
        "time_ns": extent.time_ns,
        "length": extent.length,
        "digest": extent.digest,
        "columns": extent.columns,
        "status": extent.status,
        "source_digest": extent.source_digest,
    }
    for name, vector in vectors.items():
        if vector.shape != (count,):
            raise SpecMismatch(f"{where}: {name} has shape {vector.shape}, the extent has {count} blocks")
    if extent.columns.dtype != info.columns_dtype:
        raise SpecMismatch(f"{where}: columns {extent.columns.dtype} do not match the stream's {info.columns_dtype}")
    _check_index(where, extent)
    _check_lengths(where, frame, extent)


def _check_index(where: str, extent: Extent) -> None:
    if extent.index.min() < 0:
        raise InvalidInput(
            f"{where}: block index {extent.index.min()}; indices are at least 0", index=int(extent.index.min())
        )
    rising = extent.index[1:] > extent.index[:-1]
    if not rising.all() and len(np.unique(extent.index)) != len(extent):
        raise InvalidInput(f"{where}: an extent with the same block index twice")
    if extent.status.any() and not np.isin(extent.status, _DECLARABLE).all():
        raise InvalidInput(f"{where}: a producer may send blocks or declare them shed, missing or lost, nothing else")


def _check_lengths(where: str, frame: FrameSpec, extent: Extent) -> None:
    if int(extent.length.min()) < 0 or int(extent.length.sum()) != extent.data.size:
        raise SpecMismatch(f"{where}: lengths add up to {int(extent.length.sum())} bytes, {extent.data.size} came")
    index, lengths = extent.index, extent.length
    if extent.status.any():
        stored = extent.status == BlockStatus.STORED
        if lengths[~stored].any():
            raise SpecMismatch(f"{where}: a block that is declared missing has bytes")
        index, lengths = index[stored], lengths[stored]
        if not lengths.size:
            return
    longest = int(lengths.max())
    if longest > limits.BLOCK_BYTES_MAX:
        raise BlockTooLarge(
            f"{where}: a block of {longest} bytes, allowed are {limits.BLOCK_BYTES_MAX}; send it in parts",
            allowed=limits.BLOCK_BYTES_MAX,
            found=longest,
        )
    step = frame.item_bytes
    wrong = (lengths != step) if frame.block_bytes is not None else (lengths % step != 0)
    if wrong.any():
        place = int(np.argmax(wrong))
        found = int(lengths[place])
        expected = f"{step} bytes" if frame.block_bytes is not None else f"a multiple of {step} bytes"
        raise SpecMismatch(
            f"{where}: block {index[place]} has {found} bytes, expected {expected} "
            f"(dtype {frame.numpy_dtype}, shape {frame.shape})",
            index=int(index[place]),
            expected=step,
            found=found,
        )
