"""Drain streams while they are still written: segment files, and a master that is readable from the first one on.

    scan.nxs                  the master: what a drain at the end would write, its frames mapped from the segments
    scan_proj_000001.h5 …     blocks as they came, a NeXus file each

`look` makes one round: of each stream that has enough new blocks, or has had some for long enough, a segment is
written, synced, read back, compared and named; then the master is written anew and takes the place of the one before in
one step. So whoever opens the master at any moment finds a whole file, and what it maps is there. When a stream is
final its segments are compared with what it has: blocks that came late, or came again after a crash, follow in one more
segment, and what the stream does not have is not mapped. When all are final the buffer is told where they are archived,
as by any drain. What was killed goes on with the segments that are there.

Reads through `Store`; one thread. In memory are one extent, the chunks that wait, and some 60 bytes and the columns of
each block.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from pathlib import Path

import h5py
import numpy as np

from hiss import limits
from hiss.drain.chunks import Threads
from hiss.drain.compression import filters
from hiss.drain.contents import UNREADABLE
from hiss.drain.draining import announce, chosen_content, record_archives, report_of
from hiss.drain.formats import Content, Outcome, Placed, check_count
from hiss.drain.frames import Progress, Written, block_ends, reads_as
from hiss.drain.nexus import check_contents, fill
from hiss.drain.publish import published, sync_tree, tree_bytes
from hiss.drain.report import DrainReport
from hiss.drain.segments import Series
from hiss.errors import AlreadyExists, BlockDamaged
from hiss.extent import Extent
from hiss.model import IntArray, Selection, StreamInfo, UIntArray
from hiss.store import Store

Heads = tuple[IntArray, UIntArray]  # index and digest of each stored block, in the order of the index


class LiveDrain:
    """One master and its segments.

    Parameters
    ----------
    store : Store
        The buffer.
    source : str
        `collection/stream`, or the path of a collection: streams that are added to it join in.
    file : Path
        The master; its directory exists. One that an earlier run left for these streams is gone on with.
    version : int, optional
        Of the stream.
    compression : str
        See `drain.compression`.
    segment_bytes, segment_s : int, float
        A segment is written when so many bytes are new, or some have been for so long.
    overwrite : bool
        Replace a master that is of something else.
    on_progress : callable, optional
        Called with the bytes that were written or read back since.
    clock_s : callable
        Seconds, never set back.

    Raises
    ------
    AlreadyExists
        `file` is there and of something else.
    """

    def __init__(
        self,
        store: Store,
        source: str,
        file: Path,
        *,
        version: int | None = None,
        compression: str = "auto",
        segment_bytes: int = limits.LIVE_SEGMENT_BYTES,
        segment_s: float = limits.LIVE_SEGMENT_S,
        overwrite: bool = False,
        on_progress: Progress = lambda count: None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._source, self._version = store, source, version
        self.file = Path(file)
        self.compression, self._options = filters(compression)
        self._segment_bytes, self._segment_s = segment_bytes, segment_s
        self._progress = on_progress
        self._clock_s = clock_s
        self._series: dict[str, Series] = {}
        self._since_s: dict[str, float] = {}  # when a stream was first seen to have something new
        self._shown: dict[str, tuple[int, bool]] = {}  # by stream: segments in the master, and whether it was final
        self._began_s = time.monotonic()
        self.report: DrainReport | None = None
        content = chosen_content(store, source, version)
        if self.file.exists() and not overwrite and not _is_of(self.file, content):
            raise AlreadyExists(f"{file} is there already; choose another name, or overwrite it", path=str(file))

    def run(self, stop: threading.Event) -> DrainReport | None:
        """Go on until all is final and drained, or `stop` is set; then what is there is drained, and None returned."""
        while not self.look():
            if stop.wait(min(limits.LIVE_LOOK_S, self._segment_s)):
                self.look(now=True)
                return self.report
        return self.report

    def look(self, *, now: bool = False) -> bool:
        """One round; whether all is drained and there will be no more.

        Parameters
        ----------
        now : bool
            Write what is new, however little.
        """
        if self.report is not None:
            return True
        content = chosen_content(self._store, self._source, self._version)
        with Threads() as threads:
            for info in content.streams:
                self._advance(info, threads, now)
        shown = {info.id: (len(self._series[info.id].segments), info.state.final) for info in content.streams}
        complete = _complete(self._store, content)
        if not complete and (shown == self._shown or not any(count for count, _ in shown.values())):
            return False
        outcome = self._write_master(content)
        self._shown = shown
        if not complete:
            return False
        recorded = record_archives(self._store, str(self.file.absolute()), outcome)
        size = tree_bytes(self.file) + sum(
            (self.file.parent / segment.file).stat().st_size
            for series in self._series.values()
            for segment in series.segments
        )
        announce(self._store, content, str(self.file.absolute()), size)
        seconds = time.monotonic() - self._began_s
        self.report = report_of(str(self.file.absolute()), outcome, self.compression, size, seconds, recorded)
        return True

    # ---- segments

    def _advance(self, info: StreamInfo, threads: Threads, now: bool) -> None:
        """Write the segments of one stream that are due."""
        series = self._series.get(info.id)
        if series is None:
            series = self._series[info.id] = Series(self.file, info)
            series.load(info)
        if info.state.final:
            if self._shown.get(info.id, (0, False))[1]:
                return
            while missing := self._missing(series, info):
                self._write_segment(series, info, missing, threads)
            return
        new_bytes = info.completeness.bytes - series.bytes
        if info.completeness.blocks <= series.blocks:
            self._since_s.pop(info.id, None)
            return
        now_s = self._clock_s()
        waited_s = now_s - self._since_s.setdefault(info.id, now_s)
        if new_bytes >= self._segment_bytes or waited_s >= self._segment_s or now:
            self._write_segment(series, info, [Selection(series.next_index)], threads)
            self._since_s.pop(info.id, None)

    def _write_segment(self, series: Series, info: StreamInfo, parts: list[Selection], threads: Threads) -> None:
        extents = chain.from_iterable(self._store.read(info.id, part) for part in parts)
        first = next(extents, None)
        if first is not None:
            taken = _up_to(chain((first,), extents), self._segment_bytes)
            series.write(info, taken, self._options, threads, self._progress)

    def _missing(self, series: Series, info: StreamInfo) -> list[Selection]:
        """What a final stream has and its segments do not, as ranges of the index."""
        index, digest = self._heads(info)
        have_index, have_digest = series.heads()
        have = set(zip(have_index.tolist(), have_digest.tolist(), strict=True))
        lacks = np.array([pair not in have for pair in zip(index.tolist(), digest.tolist(), strict=True)], bool)
        places = np.flatnonzero(lacks)
        if not len(places):
            return []
        breaks = np.flatnonzero(np.diff(places) != 1) + 1
        edges = [0, *breaks.tolist(), len(places)]
        return [Selection(int(index[places[a]]), int(index[places[b - 1]]) + 1) for a, b in pairwise(edges)]

    def _heads(self, info: StreamInfo) -> Heads:
        found = list(self._store.read(info.id, Selection(data=False)))
        index = np.concatenate([np.zeros(0, np.int64), *(extent.index for extent in found)])
        return index, np.concatenate([np.zeros(0, np.uint64), *(extent.digest for extent in found)])

    # ---- the master

    def _write_master(self, content: Content) -> Outcome:
        wanted = {info.id: self._heads(info) for info in content.streams if info.state.final}
        starts: dict[str, IntArray] = {}

        def frames(group: h5py.Group, info: StreamInfo) -> Written:
            written, starts[info.id] = self._series[info.id].map_into(group, info, wanted.get(info.id))
            if info.state.final:
                check_count(info, written)
            return written

        with published(self.file, overwrite=True) as part:
            with h5py.File(part, "w", libver=("v110", "v110")) as target:
                outcome = fill(target, self.file.name, content, frames)
            sync_tree(part)
            with h5py.File(part, "r") as target:
                for one in outcome.placed:
                    self._compare(target[one.location], one, starts[one.info.id])
                check_contents(target, outcome.placed)
        return outcome

    def _compare(self, data: h5py.Dataset, placed: Placed, starts: IntArray) -> None:
        """The first block of each mapped run, read through the master: the segments were compared block by block."""
        written, path = placed.written, placed.info.path
        ends = block_ends(data.parent, len(written), placed.info.frame.variable)
        for place in starts.tolist():
            begin = 0 if place == 0 or ends is None else int(ends[place - 1])
            if ends is None or not reads_as(data, begin, int(ends[place]), int(written.digest[place])):
                raise BlockDamaged(
                    f"block {written.index[place]} of {path} is in a segment of {self.file}, but HDF5 reads other "
                    "bytes through the master; drain again",
                    stream=path,
                    index=int(written.index[place]),
                )


def _complete(store: Store, content: Content) -> bool:
    """Whether there will be no more: the streams are final, and their collection is sealed, unless one was named."""
    if not all(info.state.final for info in content.streams):
        return False
    named = len(content.streams) == 1 and content.streams[0].path == content.title
    return named or store.collection(content.title).sealed


def _up_to(extents: Iterator[Extent], size: int) -> Iterator[Extent]:
    """Extents until they are `size` bytes together."""
    taken = 0
    for extent in extents:
        yield extent
        taken += extent.data.nbytes
        if taken >= size:
            return


def _is_of(file: Path, content: Content) -> bool:
    """Whether a file is a master of some of these streams, that an earlier run left."""
    try:
        with h5py.File(file, "r") as master:
            group = master["entry/hiss"]
            found = {group[name]["id"].asstr()[()] for name in group if name != "contents"}
    except UNREADABLE:
        return False
    return bool(found) and found <= {info.id for info in content.streams}
