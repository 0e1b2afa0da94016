"""Blocks of one stream in segment files, and the virtual dataset that shows them as one.

A segment is a NeXus file of its own: some blocks of a stream, whole, with their digests, never changed once it has its
name. A `Series` knows a stream's segments and maps their blocks, in the order of the index, into the `data` of a master
file; runs of blocks that lie one after another are mapped together. Where an index is in several segments (a crash took
a block that had been drained, and the producer sent another), the one with the wanted digest counts, else the newest.
Called from the thread that drains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hiss import limits
from hiss.drain.archived import column_members
from hiss.drain.chunks import Threads
from hiss.drain.contents import UNREADABLE
from hiss.drain.entry import nexus_name
from hiss.drain.formats import Content, Outcome
from hiss.drain.frames import (
    Progress,
    Written,
    block_ends,
    collected,
    stored_dtype,
    verify_frames,
    write_frames,
)  # fmt: skip
from hiss.drain.nexus import check_contents, fill
from hiss.drain.publish import published, sync_tree
from hiss.errors import AlreadyExists, Damaged
from hiss.extent import Extent
from hiss.model import Attrs, IntArray, StreamInfo, StreamState, UIntArray


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One file: where its blocks are, and the row behind each of them."""

    file: str  # its name, beside the master
    location: str
    ends: IntArray
    written: Written


class Series:
    """The segments of one stream.

    Parameters
    ----------
    master : Path
        Beside it the segments lie, named after it and the stream.
    info : StreamInfo
        Of the stream.
    """

    def __init__(self, master: Path, info: StreamInfo) -> None:
        self._folder = master.parent
        self._stem = f"{master.stem}_{nexus_name(info.name)}_"
        self._id = info.id
        self.segments: list[Segment] = []

    @property
    def blocks(self) -> int:
        return sum(len(segment.written) for segment in self.segments)

    @property
    def bytes(self) -> int:
        return sum(segment.written.bytes for segment in self.segments)

    @property
    def next_index(self) -> int | None:
        """One past the highest index that is in a segment; None where there is none."""
        return max((int(each.written.index.max()) + 1 for each in self.segments if len(each.written)), default=None)

    def path(self, number: int) -> Path:
        """Of the segment of that number, from 1 on."""
        return self._folder / f"{self._stem}{number:06d}.h5"

    def load(self, info: StreamInfo) -> None:
        """Take up the segments that are there.

        Raises
        ------
        AlreadyExists
            A file of that name is of another stream.
        Damaged
            One cannot be read.
        """
        while (path := self.path(len(self.segments) + 1)).exists():
            self.segments.append(_loaded(path, info))

    def write(
        self, info: StreamInfo, extents: Iterator[Extent], options: Attrs, threads: Threads, progress: Progress
    ) -> None:
        """Write one more segment: named when every block of it was read back and had its digest.

        Raises
        ------
        BlockDamaged, Damaged
        """
        target = self.path(len(self.segments) + 1)
        part_of = replace(info, state=StreamState.OPEN, digest="", final_ns=0)
        content = Content(info.path, {}, (part_of,), {})
        with published(target) as part:
            with h5py.File(part, "w", libver=("v110", "v110")) as file:
                outcome = fill(
                    file,
                    target.name,
                    content,
                    lambda group, one: write_frames(group, one, extents, options, threads, progress),
                )
            sync_tree(part)
            ends = _compared(part, outcome, threads, progress)
        (placed,) = outcome.placed
        self.segments.append(Segment(target.name, placed.location, ends, placed.written))

    def heads(self) -> tuple[IntArray, UIntArray]:
        """Index and digest of every block that is in a segment."""
        parts = [each.written for each in self.segments]
        return (
            np.concatenate([np.zeros(0, np.int64), *(part.index for part in parts)]),
            np.concatenate([np.zeros(0, np.uint64), *(part.digest for part in parts)]),
        )

    def map_into(
        self, group: h5py.Group, info: StreamInfo, wanted: tuple[IntArray, UIntArray] | None
    ) -> tuple[Written, IntArray]:
        """Make `data` of a master, and `offset` where lengths differ: the blocks of `wanted`, or all that are there.

        Returns what stands beside them, and the places of the blocks with which a run begins.
        """
        chosen = self._chosen(wanted)
        parts = [each.written for each in self.segments]
        number = np.concatenate([np.full(len(part), k) for k, part in enumerate(parts)] or [np.zeros(0, int)])[chosen]
        stop = np.concatenate([np.zeros(0, np.int64), *(each.ends for each in self.segments)])[chosen]
        begin = np.concatenate(
            [np.zeros(0, np.int64), *(np.concatenate([[0], each.ends])[:-1] for each in self.segments)]
        )[chosen]
        ends = np.cumsum(stop - begin)
        rest = tuple(size for size in info.frame.shape[1 if info.frame.variable else 0 :] if size is not None)
        layout = h5py.VirtualLayout((int(ends[-1]) if len(ends) else 0, *rest), stored_dtype(info.frame))
        # nexusformat takes the number of mappings for the number of frames: they are mapped singly while they are few
        singly = not info.frame.variable and len(chosen) <= limits.LIVE_SINGLY_MAPPED_MAX
        runs = [(place, place) for place in range(len(chosen))] if singly else list(_runs(number, begin, stop))
        for first, last in runs:
            segment, low, high = self.segments[int(number[first])], int(begin[first]), int(stop[last])
            if high > low:
                shape = (int(segment.ends[-1]), *rest)
                source = h5py.VirtualSource(segment.file, segment.location, shape, layout.dtype)
                row = int(ends[last]) - (high - low)
                layout[row : row + high - low] = source[low:high]
        group.create_virtual_dataset("data", layout)
        if info.frame.variable:
            group.create_dataset("offset", data=np.concatenate([[0], ends]))
        return _taken(parts, chosen, info), np.array([first for first, _ in _runs(number, begin, stop)], np.int64)

    def _chosen(self, wanted: tuple[IntArray, UIntArray] | None) -> IntArray:
        """The places, over all segments, of the blocks that count, in the order of their index."""
        index, digest = self.heads()
        places = np.arange(len(index))
        if wanted is not None:
            there = np.searchsorted(wanted[0], index)
            there[there == len(wanted[0])] = 0
            good = (wanted[0][there] == index) & (wanted[1][there] == digest) if len(wanted[0]) else index < index
            places = places[good]
        order = places[np.argsort(index[places], kind="stable")]
        newest = np.append(np.diff(index[order]) != 0, True)[: len(order)]
        return np.asarray(order[newest])


def _compared(part: Path, outcome: Outcome, threads: Threads, progress: Progress) -> IntArray:
    """Read a segment back; the row behind each of its blocks."""
    (placed,) = outcome.placed
    with h5py.File(part, "r") as file:
        group = file[placed.location].parent
        verify_frames(group, placed.info, placed.written, threads, progress)
        check_contents(file, outcome.placed)
        ends = block_ends(group, len(placed.written), placed.info.frame.variable)
    assert ends is not None
    return ends


def _loaded(path: Path, info: StreamInfo) -> Segment:
    try:
        with h5py.File(path, "r") as file:
            (record,) = (file["entry/hiss"][name] for name in file["entry/hiss"] if name != "contents")
            owner, owner_path = str(record["id"].asstr()[()]), str(record["path"].asstr()[()])
            location = str(record["location"].asstr()[()])
            index = record["block_index"][()]
            ends = block_ends(file[location].parent, len(index), info.frame.variable)
            if ends is None:
                raise ValueError("its rows do not fit its blocks")
            found = Segment(path.name, location, ends, _written(file, record, location, ends, owner_path, info))
    except UNREADABLE as error:
        raise Damaged(f"{path}: this segment cannot be read: {error}; remove it, and what is behind it") from None
    if owner != info.id:
        raise AlreadyExists(
            f"{path} is there already and holds blocks of {owner_path}, not those of this stream; choose another name, "
            "or remove it",
            path=str(path),
        )
    return found


def _written(file: h5py.File, record: Any, location: str, ends: IntArray, path: str, info: StreamInfo) -> Written:
    """What stands beside the blocks of a segment of the stream at `path`."""
    shown = next(group for group in file["entry"].values() if group.attrs.get("hiss_path") == path)
    count = len(ends)
    columns = np.zeros(count, info.columns_dtype)
    for name, member in column_members([column.name for column in info.columns], "time_ns" in shown).items():
        columns[name] = shown[member][()]
    data = file[location]
    length = np.diff(ends, prepend=0) * int(data.dtype.itemsize * np.prod(data.shape[1:], dtype=np.int64))
    return Written(
        index=record["block_index"][()],
        time_ns=shown["time_ns"][()] if "time_ns" in shown else np.zeros(count, np.int64),
        received_ns=record["block_received_ns"][()],
        digest=record["block_digest"][()],
        source_digest=record["block_source_digest"][()],
        length=length,
        columns=columns,
        bytes=int(length.sum()),
    )


def _taken(parts: list[Written], chosen: IntArray, info: StreamInfo) -> Written:
    """The entries at `chosen` places of all parts together."""
    parts = parts or [collected([], info)]
    joined: dict[str, Any] = {
        one.name: np.concatenate([getattr(part, one.name) for part in parts])[chosen]
        for one in fields(Written)
        if one.name != "bytes"
    }
    return Written(**joined, bytes=int(joined["length"].sum()))


def _runs(number: IntArray, begin: IntArray, stop: IntArray) -> Iterator[tuple[int, int]]:
    """Stretches of blocks that lie one after another in one segment: the places of the first and the last."""
    breaks = np.flatnonzero((np.diff(number) != 0) | (begin[1:] != stop[:-1])) + 1
    edges = [0, *breaks.tolist(), len(number)] if len(number) else []
    for first, behind in pairwise(edges):
        yield first, behind - 1
