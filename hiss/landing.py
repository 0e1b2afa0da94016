"""Where an extent lands: once, in the arena, with its digests checked there.

An extent that, together with the result of its kernels, would take more than its share of the arena lands in pieces. A
transport that knows an extent's size before its bytes asks for `Space` first and receives into it: then nothing is
copied. A producer in this process gathers its blocks in `ArenaSlots`: what it copies there has landed. Memory is freed
exactly once: by the `Space` that was not used, or by the `Landed` that took it over.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from hiss import limits
from hiss.blocks import Arena, Region
from hiss.errors import BlockTooLarge, DeadlineExceeded, DigestMismatch, HissError
from hiss.extent import Extent, block_digests
from hiss.model import ByteArray


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
        checked: bool = True,
    ) -> None:
        self.extent = extent
        self.settled = False
        self._checked = checked
        self._regions = regions
        self._on_settled = on_settled
        self._lock = threading.Lock()
        self._holders = 1
        self._error: HissError | None = None

    @property
    def result(self) -> Region | None:
        """Space for what the kernels make of it."""
        return self._regions[1] if len(self._regions) > 1 else None

    def region_of(self, data: ByteArray) -> Region | None:
        """The region that these bytes lie in, if they do in one of them and had their digests checked: readers may be
        served from there."""
        if not self._checked or not self._regions:
            return None
        if data is self.extent.data:
            return self._regions[0]
        return next((region for region in self._regions if np.may_share_memory(region.data, data)), None)

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


class Space:
    """Memory of the arena for one extent whose bytes are still to come; a `store.Landing`."""

    def __init__(self, regions: tuple[Region, ...], on_over: Callable[[], None]) -> None:
        self.data = regions[0].data  # of the size that was asked for; whoever has the space writes here
        self._regions = regions
        self._on_over = on_over

    def take(self) -> tuple[Region, ...]:
        """The regions; they are the caller's to release."""
        regions, self._regions = self._regions, ()
        if regions:
            self._on_over()
        return regions

    def release(self) -> None:
        """Give back what nobody took. More than once is fine."""
        for region in self.take():
            region.release()


class Spaces:
    """All `Space` of one arena that waits for its bytes: at most `1 / limits.LANDING_FRACTION` of it, so that those who
    announce bytes and do not send them leave room for the others. Any thread."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._waiting_bytes = 0
        self._lock = threading.Lock()

    def reserve(self, data_bytes: int, result_bytes: int, timeout_s: float | None = None) -> Space | None:
        """Room for an extent and its result, or None where it should come by the ordinary way: it has no bytes, has
        more than its share, or too much waits already. Blocks while the arena is full, unless there is a `timeout_s`:
        then it is `DeadlineExceeded`."""
        need = data_bytes + result_bytes
        if not data_bytes or need > share_of(self._arena) or not self._count(need):
            return None
        sizes = [data_bytes, result_bytes] if result_bytes else [data_bytes]
        try:
            regions = self._arena.allocate(*sizes, timeout_s=timeout_s)
        except BaseException:
            self._uncount(need)
            raise
        return Space(regions, lambda: self._uncount(need))

    def slots(self, slot_bytes: int, may: Callable[[], bool]) -> ArenaSlots | None:
        """Memory for a producer in this process, as long as it `may` have some in hand; None where its extents are
        sooner copied than handed over, or are larger than a slot of the arena: what waits in hand must not be in the
        way of the largest blocks."""
        worth_it = limits.DIRECT_BYTES < slot_bytes <= self._arena.slot_bytes
        return ArenaSlots(self, slot_bytes, may) if worth_it else None

    def _count(self, need: int) -> bool:
        with self._lock:
            if self._waiting_bytes + need > self._arena.capacity // limits.LANDING_FRACTION:
                return False
            self._waiting_bytes += need
            return True

    def _uncount(self, need: int) -> None:
        with self._lock:
            self._waiting_bytes -= need


class ArenaSlots:
    """Places of the arena in which a producer of this process gathers its extents; a `store.SharedSlots`.

    The producer's thread only takes what another one prepared: it may be Python's main thread, where Ctrl-C raises
    between any two steps, and the arena's are not to be cut in the middle. The producer holds a slot from `take` to
    `give`; its `Landed`, if it comes to that, until its record is durable.
    """

    def __init__(self, spaces: Spaces, slot_bytes: int, may: Callable[[], bool]) -> None:
        self._spaces = spaces
        self._slot_bytes = slot_bytes
        self._may = may
        self._ready: deque[ByteArray] = deque()
        self._slots: dict[int, Space | Region] = {}  # by address: empty, or landed; the producer's until it gives it

    def lacks(self, size: int) -> bool:
        return not self._ready and self._fills(size)

    def prepare(self, timeout_s: float | None = None) -> None:
        while self._may() and len(self._ready) < limits.ARENA_SLOTS_READY:
            try:
                space = self._spaces.reserve(self._slot_bytes, 0, 0.0 if self._ready else timeout_s)
            except DeadlineExceeded:
                return
            if space is None:
                return
            self._slots[_address(space.data)] = space
            self._ready.append(space.data)

    def take(self) -> ByteArray | None:
        try:
            return self._ready.popleft()
        except IndexError:
            return None

    def landed(self, extent: Extent) -> None:
        """Have some ready for what follows an extent that came, if that was of their size. Does not block."""
        if self._fills(extent.data.size):
            self.prepare(0.0)

    def _fills(self, size: int) -> bool:
        """Half of a slot at least: a copy of less is cheaper than the place that is kept for it."""
        return 2 * size >= self._slot_bytes

    def land(
        self, extent: Extent, received_ns: int, on_settled: Callable[[Landed, HissError | None], None]
    ) -> Landed | None:
        """What `land` does, of an extent that lies in a slot and fills it; None of another. The producer made its
        digests from this very memory, which only it could write."""
        slot = self._slots.get(_address(extent.data)) if self._fills(extent.data.size) else None
        if slot is None:
            return None
        if isinstance(slot, Space):
            (region,) = slot.take()
            self._slots[_address(extent.data)] = region
        else:
            region = slot  # sent once more, after a session that broke
        region.hold()
        return Landed(_received(extent, extent.data, received_ns), (region,), on_settled)

    def give(self, buffer: ByteArray) -> bool:
        slot = self._slots.pop(_address(buffer), None)
        if slot is None:
            return False
        slot.release()
        return True

    def close(self) -> None:
        """Give back all that the producer still has; it writes no more."""
        self._ready.clear()
        while self._slots:
            self._slots.popitem()[1].release()


def _address(data: ByteArray) -> int:
    return int(data.__array_interface__["data"][0])


def share_of(arena: Arena) -> int:
    """The most bytes that one extent and its result may take together."""
    return arena.largest_bytes


def check_block_fits(arena: Arena, what: str, block_bytes: int) -> None:
    """Raise `BlockTooLarge` where a block and its result cannot lie in the arena together."""
    if block_bytes > share_of(arena):
        raise _too_large(what, block_bytes, share_of(arena))


def land(
    arena: Arena,
    extent: Extent,
    result_bytes: Callable[[int, int], int],
    received_ns: int,
    on_settled: Callable[[Landed, HissError | None], None],
) -> Iterator[Landed]:
    """Copy `extent` into the arena, in pieces where it is large. Blocks while the arena is full.

    Parameters
    ----------
    result_bytes : callable
        Of a number of blocks and their bytes, the space to reserve for their results; 0 where no kernel changes them.

    Raises
    ------
    DigestMismatch
        The bytes do not have the digest that came with them.
    """
    for piece in _pieces(extent, share_of(arena), result_bytes):
        made = result_bytes(len(piece), piece.data.size)
        sizes = [piece.data.size, made] if made else [piece.data.size]
        regions = arena.allocate(*sizes, timeout_s=None) if piece.data.size else ()
        try:
            copy = _copy(piece, regions[0] if regions else None, received_ns)
        except BaseException:
            for region in regions:
                region.release()
            raise
        yield Landed(copy, regions, on_settled)


def land_in_place(
    space: Space,
    extent: Extent,
    received_ns: int,
    on_settled: Callable[[Landed, HissError | None], None],
    *,
    trusted: bool = False,
) -> Landed:
    """What `land` does for an extent whose bytes are in `space` already. Takes the space over unless it raises.

    Where it is `trusted` its digests are taken as they came: whoever reads the blocks finds out.
    """
    assert extent.data is space.data, "the extent's bytes lie elsewhere"
    accept = _received if trusted else _checked
    return Landed(accept(extent, extent.data, received_ns), space.take(), on_settled, checked=not trusted)


def _copy(piece: Extent, region: Region | None, received_ns: int) -> Extent:
    data = piece.data
    if region is not None:
        data = region.data[: piece.data.size]
        data[:] = piece.data
    return _checked(piece, data, received_ns)


def _checked(piece: Extent, data: ByteArray, received_ns: int) -> Extent:
    """The extent with its bytes in the arena, when they have the digests that came with them."""
    if data.size:
        found = block_digests(data, piece.length)
        if not np.array_equal(found, piece.digest):
            index = int(piece.index[np.argmax(found != piece.digest)])
            raise DigestMismatch(
                f"block {index}: the bytes that arrived do not have the digest that was sent; send it again",
                index=index,
            )
    return _received(piece, data, received_ns)


def _received(piece: Extent, data: ByteArray, received_ns: int) -> Extent:
    received = np.full(len(piece), received_ns, np.int64)
    return replace(piece, data=data, received_ns=received, source_digest=piece.digest)


def _pieces(extent: Extent, share: int, result_bytes: Callable[[int, int], int]) -> Iterator[Extent]:
    need = extent.data.size + result_bytes(len(extent), extent.data.size)
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
