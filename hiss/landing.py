"""Where an extent lands: once, in the arena, with its digests checked there.

An extent that, together with the result of its kernels, would take more than its share of the arena lands in pieces.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from hiss import limits
from hiss.blocks import Arena, Region
from hiss.errors import BlockTooLarge, DigestMismatch, HissError
from hiss.model import Extent, block_digests


class Landed:
    """An extent in the arena, held by those who still need its memory: whoever processes it, and each record on its
    way.

    When the last of them is done, the memory is freed and `on_settled` is called with the first error, or None when
    every record is durable.
    """

    def __init__(
        self,
        extent: Extent,
        regions: tuple[Region, ...],
        on_settled: Callable[[Landed, HissError | None], None],
    ) -> None:
        self.extent = extent
        self.settled = False
        self._regions = regions
        self._on_settled = on_settled
        self._lock = threading.Lock()
        self._holders = 1
        self._error: HissError | None = None

    @property
    def result(self) -> Region | None:
        """Space for what the kernels make of it."""
        return self._regions[1] if len(self._regions) > 1 else None

    def hold(self) -> None:
        with self._lock:
            assert self._holders > 0, "held after it was freed"
            self._holders += 1

    def done(self, error: HissError | None = None) -> None:
        """One holder less. From any thread."""
        with self._lock:
            self._error = self._error or error
            self._holders -= 1
            last = self._holders == 0
        if last:
            for region in self._regions:
                region.release()
            self.settled = True
            self._on_settled(self, self._error)


def share_of(arena: Arena) -> int:
    """The most bytes that one extent and its result may take together."""
    return arena.capacity // limits.CREDIT_FRACTION


def check_block_fits(arena: Arena, what: str, block_bytes: int) -> None:
    """Raise `BlockTooLarge` where a block and its result cannot lie in the arena together."""
    if block_bytes > share_of(arena):
        raise _too_large(what, block_bytes, share_of(arena))


def land(
    arena: Arena,
    extent: Extent,
    result_bytes: int,
    received_ns: int,
    on_settled: Callable[[Landed, HissError | None], None],
) -> Iterator[Landed]:
    """Copy `extent` into the arena, in pieces where it is large. Blocks while the arena is full.

    Parameters
    ----------
    result_bytes : int
        Space to reserve for the result of each block; 0 where no kernel changes it.

    Raises
    ------
    DigestMismatch
        The bytes do not have the digest that came with them.
    """
    for piece in _pieces(extent, share_of(arena), result_bytes):
        sizes = [piece.data.size, result_bytes * len(piece)] if result_bytes else [piece.data.size]
        regions = arena.allocate(*sizes, timeout_s=None) if piece.data.size else ()
        try:
            copy = _copy(piece, regions[0] if regions else None, received_ns)
        except BaseException:
            for region in regions:
                region.release()
            raise
        yield Landed(copy, regions, on_settled)


def _copy(piece: Extent, region: Region | None, received_ns: int) -> Extent:
    data = piece.data
    if region is not None:
        data = region.data[: piece.data.size]
        data[:] = piece.data
        found = block_digests(data, piece.length)
        if not np.array_equal(found, piece.digest):
            index = int(piece.index[np.argmax(found != piece.digest)])
            raise DigestMismatch(
                f"block {index}: the bytes that arrived do not have the digest that was sent; send it again",
                index=index,
            )
    received = np.full(len(piece), received_ns, np.int64)
    return replace(piece, data=data, received_ns=received, source_digest=piece.digest)


def _pieces(extent: Extent, share: int, result_bytes: int) -> Iterator[Extent]:
    need = int(extent.length.sum()) + result_bytes * len(extent)
    if need <= share:
        yield extent
        return
    if len(extent) == 1:
        raise _too_large(f"block {int(extent.index[0])}", need, share)
    rows = np.arange(len(extent))
    for half in np.array_split(rows, 2):
        yield from _pieces(extent.select(half), share, result_bytes)


def _too_large(what: str, need: int, share: int) -> BlockTooLarge:
    return BlockTooLarge(
        f"{what}: a block and its result have {need} bytes, allowed is a quarter of the arena, {share}; "
        "start the buffer with a larger arena",
        allowed=share,
        found=need,
    )
