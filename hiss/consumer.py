"""A member of a consumer group, as users hold it: takes blocks, reads them, acknowledges them.

One thread iterates; blocks may be acknowledged from any. While the server is away it is waited for, for
`limits.RECONNECT_S`."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hiss import limits
from hiss.errors import HissError, Unavailable
from hiss.model import Selection, StreamInfo
from hiss.sharing import Member, Wish, ranges_of
from hiss.store import Store

if TYPE_CHECKING:
    from hiss.reader import Block

R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class SharedBlock:
    """A block that nobody else of the group has for as long as its lease lasts: `index`, `time_ns`, `data`, `columns`
    as of a `Block`."""

    block: Block
    share: Share

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.block.__array__(dtype, copy)

    def done(self) -> bool:
        """Acknowledge it: nobody gets it again. False: its time had run out and another member has it now."""
        return not self.share.done(self)

    def release(self) -> None:
        """Give it back, for whoever takes it next."""
        self.share.release(self)


class Share:
    """One consumer's part of a stream. Made by `Stream.share`; an iterator and a context manager.

    Iterating takes blocks, in the order of their index as far as others have not taken them, and waits for those to
    come; it ends when the stream is final and all its blocks are acknowledged, by whomever. Leaving the context, or
    `close`, gives back what was not acknowledged; a process that dies gives it back when its time has run out.
    """

    def __init__(
        self,
        store: Store,
        info: StreamInfo,
        group: str,
        *,
        timeout_s: float,
        blocks: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._info = info
        self._member = Member(group, uuid.uuid4().hex)
        size = info.frame.block_bytes or 1
        self._wish = Wish(
            min(blocks, max(1, limits.SHARE_BATCH_BYTES // size)) if blocks > 0 else blocks,
            timeout_s,
            limits.SHARE_WAIT_S,
        )
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._held: set[int] = set()  # taken, and neither acknowledged nor given back
        self._ready: deque[SharedBlock] = deque()
        self._closed = threading.Event()

    # ---- blocks

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SharedBlock:
        if not self._ready:
            self._ready.extend(next(self.batches(), ()))
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def batches(self) -> Iterator[list[SharedBlock]]:
        """Blocks by the `blocks` that are taken at once; acknowledge those of a batch together with `done(*batch)`."""
        while not self._closed.is_set():
            taken = self._retry(lambda: self._store.take_blocks(self._info.id, self._member, self._wish))
            if taken.complete:
                return
            if not taken.ranges:
                self._closed.wait(limits.SHARE_AGAIN_S)
                continue
            with self._lock:
                self._held.update(index for first, last in taken.ranges for index in range(first, last + 1))
            if self._closed.is_set():  # meanwhile
                self._give_back()
                return
            if batch := self._retry(partial(self._read, taken.ranges)):
                yield batch

    def _read(self, ranges: Sequence[tuple[int, int]]) -> list[SharedBlock]:
        from hiss.reader import blocks_of

        extents = (
            extent for first, last in ranges for extent in self._store.read(self._info.id, Selection(first, last + 1))
        )
        return [SharedBlock(block, self) for extent in extents for block in blocks_of(extent, self._info)]

    # ---- acknowledgements

    def done(self, *blocks: SharedBlock) -> list[SharedBlock]:
        """Acknowledge blocks, all in one call. Returns those that are not: their time had run out, and another member
        has them."""
        refused = self._settle([block.index for block in blocks], [])
        return [block for block in blocks if block.index in refused]

    def release(self, *blocks: SharedBlock) -> None:
        """Give blocks back."""
        self._settle([], [block.index for block in blocks])

    def _settle(self, done: list[int], back: list[int]) -> set[int]:
        if not done and not back:
            return set()
        ranges = ranges_of(done), ranges_of(back)
        refused = self._retry(lambda: self._store.settle_blocks(self._info.id, self._member, *ranges))
        with self._lock:
            self._held.difference_update(done, back)
        return {index for first, last in refused for index in range(first, last + 1)}

    def close(self) -> None:
        """Give back what is not acknowledged, and take no more. More than once is fine."""
        self.stop()
        self._ready.clear()
        self._give_back()

    def stop(self) -> None:
        """Take no more: whoever iterates in another thread comes to an end. Does not wait and gives nothing back."""
        self._closed.set()

    def _give_back(self) -> None:
        with self._lock:
            held, self._held = sorted(self._held), set()
        with contextlib.suppress(HissError):  # then their time runs out
            if held:
                self._store.settle_blocks(self._info.id, self._member, (), ranges_of(held))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _retry(self, call: Callable[[], R]) -> R:
        """A server that is coming back is waited for."""
        give_up_s, pause_s = self._clock_s() + limits.RECONNECT_S, 0.05
        while True:
            try:
                return call()
            except Unavailable:
                if self._clock_s() > give_up_s or self._closed.wait(pause_s):
                    raise
                pause_s = min(2 * pause_s, 2.0)
