"""The beginning of a stream: what a job sees of one that is still written. As thread-safe as the stream below it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from hiss.extent import Extent
from hiss.model import IntArray, Selection
from hiss.reader import Block, Stream, TimeRange, Where


class StreamPart(Stream):
    """The blocks of a stream with indices below an end; all else is the stream's own.

    Parameters
    ----------
    stream : Stream
    end_index : int
        One past the last index.
    """

    def __init__(self, stream: Stream, end_index: int) -> None:
        super().__init__(stream._store, stream._info)
        self.end_index = end_index

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of `np.asarray(part)`: `(stored blocks, *block shape)`."""
        return (len(self), *self._info.frame.shape)

    def __len__(self) -> int:
        return len(self.index)

    def latest(self, *, time: TimeRange = (None, None), where: Where = MappingProxyType({})) -> Block | None:
        """The block of the highest index in this part and the ranges; None while there is none."""
        index: IntArray = self.find(time=time, where=where)
        return self.block(int(index[-1])) if len(index) else None

    def follow(self, start: int | None = None, *, stop: threading.Event | None = None) -> Iterator[Block]:
        """The blocks from index `start` on, up to the end; none of them is to come."""
        for block in self:
            if stop is not None and stop.is_set():
                return
            if start is None or block.index >= start:
                yield block

    def _extents(self, selection: Selection) -> Iterator[Extent]:
        stop = self.end_index if selection.stop is None else min(selection.stop, self.end_index)
        if selection.start is not None and selection.start >= stop:
            return iter(())
        return super()._extents(replace(selection, stop=stop))
