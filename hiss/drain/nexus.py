"""A collection or a stream as one NeXus/HDF5 file: where each thing goes.

What stands in the groups is `entry`'s, the blocks are `frames`', the order of writing and reading back is here. `fill`
writes a file whose frames may also be mapped from others (`series`). The thread that drains alone reads the buffer and
touches HDF5; others compress.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import h5py

from hiss.drain.chunks import Threads
from hiss.drain.compression import filters
from hiss.drain.contents import CONTENTS, add_contents, changed_objects
from hiss.drain.entry import add_attributes, add_group, add_processes, add_record, describe_data, free_name, link
from hiss.drain.formats import Content, Outcome, Placed, check_count
from hiss.drain.frames import Progress, Written, verify_frames, write_frames
from hiss.drain.joins import add_join, join_fault
from hiss.drain.tomography import add_tomography, tomography_members
from hiss.errors import Damaged
from hiss.model import Attrs, Completeness, Selection, StreamInfo, now_text
from hiss.store import Store

_RESERVED = ("data", "instrument", "sample", "control", "hiss", "title", "definition", "start_time", "end_time")

FrameWriter = Callable[[h5py.Group, StreamInfo], Written]  # writes or maps a stream's frames into a group


class Nexus:
    """A format of `drain`."""

    holds_all = True

    def __init__(self, compression: str = "auto") -> None:
        self.compression, self._options = filters(compression)

    def write(self, part: Path, name: str, content: Content, store: Store, progress: Progress) -> Outcome:
        with Threads() as threads, h5py.File(part, "w", libver=("v110", "v110")) as target:

            def frames(group: h5py.Group, info: StreamInfo) -> Written:
                blocks = store.read(info.id, Selection())
                written = write_frames(group, info, blocks, self._options, threads, progress)
                check_count(info, written)
                return written

            return fill(target, name, content, frames)

    def compare(self, part: Path, outcome: Outcome, progress: Progress) -> None:
        with Threads() as threads, h5py.File(part, "r") as target:
            for one in outcome.placed:
                verify_frames(target[one.location].parent, one.info, one.written, threads, progress)
            check_contents(target, outcome.placed)


def fill(target: h5py.File, name: str, content: Content, frames: FrameWriter) -> Outcome:
    """Write all of a new file that will be called `name`. Of a stream that is still open it says what it holds."""
    attrs = content.attrs
    target.attrs.update({"NX_class": "NXroot", "creator": "hiss", "file_name": name, "file_time": _now()})
    entry = _open_entry(target, content)
    placed = [_write_stream(entry, info, frames) for info in content.streams]
    for one in placed:
        add_record(entry["hiss"], free_name(entry["hiss"], one.info.name), one.info, one.written, one.location)
    stack = _tomography(entry, attrs, placed)
    left_out = _joins(entry, content.joins, placed)
    entry.attrs["default"] = _default(attrs, placed, stack)
    target.attrs["default"] = "entry"
    add_contents(target, [target[one.location] for one in placed])
    return Outcome(tuple(placed), left_out)


def _open_entry(target: h5py.File, content: Content) -> h5py.Group:
    attrs, streams = content.attrs, content.streams
    entry = add_group(target, "entry", "NXentry")
    text = h5py.string_dtype()
    entry.create_dataset("title", data=str(attrs.get("title", content.title)), dtype=text)
    if streams:
        entry.create_dataset("start_time", data=now_text(min(info.created_ns for info in streams)), dtype=text)
        if all(info.state.final for info in streams):
            entry.create_dataset("end_time", data=now_text(max(info.final_ns for info in streams)), dtype=text)
    add_attributes(entry, "attributes", attrs)
    add_group(add_group(entry, "hiss", "NXcollection"), CONTENTS.rsplit("/", 1)[-1], "NXcollection")
    return entry


def check_contents(target: h5py.File, placed: Sequence[Placed]) -> None:
    """Raises `Damaged` where something besides the blocks is not what `fill` wrote."""
    changed = changed_objects(target, [target[one.location] for one in placed])
    if changed:
        raise Damaged(
            f"{', '.join(changed[:5])} read back from {target.filename} is not what was written; drain again, "
            "to another disk if it happens twice"
        )


def _now() -> str:
    return now_text(time.time_ns())


def _write_stream(entry: h5py.Group, info: StreamInfo, frames: FrameWriter) -> Placed:
    """Write one stream: its NXdata and kernels; frames that no kernel and no job made belong to an NXdetector."""
    wanted = f"{info.name}_" if info.name in _RESERVED else info.name
    group = add_group(entry, free_name(entry, wanted), "NXdata")
    holder = group
    if info.produced_by is None and not info.stages:
        instrument = entry["instrument"] if "instrument" in entry else add_group(entry, "instrument", "NXinstrument")
        holder = add_group(instrument, free_name(instrument, wanted), "NXdetector")
    written = frames(holder, info)
    if not info.state.final:
        info = replace(info, completeness=_so_far(written))
    if holder is not group:
        for member in list(holder):
            link(group, member, holder[member])
    describe_data(group, info, written)
    add_processes(entry, info)
    return Placed(info, str(group.name).rsplit("/", 1)[-1], str(holder["data"].name), written)


def _so_far(written: Written) -> Completeness:
    """Of a stream that is still open: what was written of it."""
    ends = (int(written.index.min()), int(written.index.max())) if len(written) else (None, None)
    return Completeness(len(written), written.bytes, 0, *ends)


def _tomography(entry: h5py.Group, attrs: Attrs, placed: list[Placed]) -> str | None:
    """Add the NXtomo stack where the attribute `definition` asks for it; returns the name of its NXdata."""
    if attrs.get("definition") != "NXtomo":
        return None
    groups = {one.info.id: entry[one.shown] for one in placed}
    members = tomography_members([one.info for one in placed])
    stack = [(key, info, groups[info.id]) for key, info in members]
    return add_tomography(entry, stack, str(attrs.get("sample", members[0][1].collection)))


def _joins(entry: h5py.Group, joins: Mapping[str, tuple[str, ...]], placed: list[Placed]) -> tuple[str, ...]:
    """Add the collection's joins; returns why some are left out."""
    modules = {one.info.name: (one.info, entry.file[one.location], one.written) for one in placed}
    faults = []
    for name, names in joins.items():
        fault = join_fault(name, names, modules)
        if fault:
            faults.append(fault)
        else:
            add_join(entry, name, [modules[module] for module in names], reserved=_RESERVED)
    return tuple(faults)


def _default(attrs: Attrs, placed: list[Placed], stack: str | None) -> str:
    """The NXdata to show first: the stream that the attribute `default` names, the NXtomo stack, the largest result."""
    for one in placed:
        if one.info.name == attrs.get("default"):
            return one.shown
    if stack is not None:
        return stack
    results = [one for one in placed if len(one.written) and not one.info.frame.opaque]
    best = max(results, key=lambda one: (one.info.raw_of is None, one.written.bytes), default=None)
    return best.shown if best is not None else "hiss"
