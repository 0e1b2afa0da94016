"""The extent: a run of blocks of one stream, as arrays. The unit of transport, kernels and I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from hiss.errors import SpecMismatch
from hiss.model import ByteArray, FrameSpec, IntArray, UIntArray


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """A run of blocks of one stream: the unit of transport, kernels and I/O.

    All vectors have one entry for each block, `n` in all. `data` is the blocks' bytes one after another; entry `i` has
    `length[i]` of them (0 unless its status is STORED). Who made the extent owns its memory; whoever keeps it longer
    than the call says so.
    """

    index: IntArray  # the producer's; distinct within an extent
    time_ns: IntArray  # the producer's clock; 0: not given
    length: IntArray  # bytes
    digest: UIntArray  # of each block's bytes in `data`
    columns: npt.NDArray[np.void]  # packed records, `columns_dtype` of the stream
    data: ByteArray  # 1-D, contiguous
    received_ns: IntArray  # the server's clock; 0 before it arrived
    status: ByteArray  # BlockStatus
    cause: ByteArray  # place in the pipeline of the stage that vetoed or failed; else 0
    source_digest: UIntArray  # of the block as the producer sent it; equals `digest` where no kernel changed it

    def __len__(self) -> int:
        return len(self.index)

    @property
    def offsets(self) -> IntArray:
        """Where each block starts in `data`, and the end: `n + 1` entries."""
        out = np.zeros(len(self.index) + 1, np.int64)
        np.cumsum(self.length, out=out[1:])
        return out

    @classmethod
    def of(
        cls,
        index: Any,
        data: ByteArray,
        length: Any,
        *,
        time_ns: Any = None,
        columns: npt.NDArray[np.void] | None = None,
        digest: UIntArray | None = None,
        status: Any = None,
    ) -> Extent:
        """An extent as a producer makes it: digests are taken here unless they are given."""
        index = np.ascontiguousarray(index, np.int64)
        count = len(index)
        length = np.ascontiguousarray(length, np.int64)
        if digest is None:
            digest = block_digests(data, length)
        return cls(
            index=index,
            time_ns=np.zeros(count, np.int64) if time_ns is None else np.ascontiguousarray(time_ns, np.int64),
            length=length,
            digest=digest,
            columns=np.zeros(count, np.dtype([])) if columns is None else columns,
            data=data,
            received_ns=np.zeros(count, np.int64),
            status=np.zeros(count, np.uint8) if status is None else np.ascontiguousarray(status, np.uint8),
            cause=np.zeros(count, np.uint8),
            source_digest=digest,
        )

    def frames(self, spec: FrameSpec) -> npt.NDArray[Any]:
        """All blocks as one array `(n, *shape)`, without a copy. Fixed sizes only, every block STORED."""
        if spec.variable:
            raise SpecMismatch("blocks of a variable length do not form one array; take them one by one")
        shape = tuple(size for size in spec.shape if size is not None)
        return self.data.view(spec.numpy_dtype).reshape((len(self), *shape))

    def select(self, rows: npt.NDArray[Any]) -> Extent:
        """The blocks at `rows` (a mask or places), copied together unless that is all of them."""
        places = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        if len(places) == len(self) and bool((places == np.arange(len(self))).all()):
            return self
        offsets = self.offsets
        pieces = [self.data[offsets[i] : offsets[i + 1]] for i in places]
        data = np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)
        return Extent(
            index=self.index[places],
            time_ns=self.time_ns[places],
            length=self.length[places],
            digest=self.digest[places],
            columns=self.columns[places],
            data=data,
            received_ns=self.received_ns[places],
            status=self.status[places],
            cause=self.cause[places],
            source_digest=self.source_digest[places],
        )


def block_digests(data: ByteArray, length: IntArray) -> UIntArray:
    """The digest of each block of an extent: `n` values."""
    count = len(length)
    if count > 1 and data.size and (length == data.size // count).all() and data.size % count == 0:
        each: Iterator[int] = map(xxhash.xxh3_64_intdigest, data.reshape(count, -1))  # type: ignore[arg-type]
        return np.fromiter(each, np.uint64, count)
    ends = np.cumsum(length)
    view = data.data
    starts = ends - length
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter(
        (digest(view[a:b]) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)), np.uint64, len(length)
    )
