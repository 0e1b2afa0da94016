"""Drain a stream or a collection into one NeXus/HDF5 file: written, synced, read back, compared, and only then named.

Invariants: nothing but final streams is drained; the file has its name only after every block in it was read back and
had the digest that the producer (or the kernel) gave it; an existing file is not touched unless `overwrite` says so.
Reads through `Store`, so it works in the data process's host and from afar. Any thread may call `drain`; the
calling thread alone reads the buffer and writes HDF5, others compress.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py

from hiss.drain.chunks import Threads
from hiss.drain.compression import filters
from hiss.drain.contents import CONTENTS, add_contents, changed_objects
from hiss.drain.entry import add_attributes, add_group, add_processes, add_record, describe_data, free_name, link
from hiss.drain.frames import Progress, Written, verify_frames, write_frames
from hiss.drain.joins import add_join, join_fault
from hiss.drain.publish import published, sync_file
from hiss.drain.report import DrainedStream, DrainReport
from hiss.drain.tomography import add_tomography, tomography_members
from hiss.errors import Damaged, NotFound, StreamNotFinal
from hiss.model import RAW_SUFFIX, Attrs, Keep, Selection, StreamInfo, now_text
from hiss.store import Store

_RESERVED = ("data", "instrument", "sample", "control", "hiss", "title", "definition", "start_time", "end_time")


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """A stream in the file: the name of its NXdata in the entry, the path of its `data`, and what was written there."""

    info: StreamInfo
    shown: str
    location: str
    written: Written


def drain(
    store: Store,
    source: str,
    file: Path,
    *,
    version: int | None = None,
    compression: str = "auto",
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> DrainReport:
    """Write a final stream, or all streams of a collection, into a NeXus file.

    Parameters
    ----------
    store : Store
        The buffer.
    source : str
        `collection/stream`, or the path of a collection. Where both exist the stream is meant; a trailing `/` names
        the collection.
    file : Path
        The file to make; its directory exists.
    version : int, optional
        Of the stream; the newest by default.
    compression : {'auto', 'none', 'gzip', 'zstd', 'bitshuffle-lz4'}
        See `drain.compression`.
    overwrite : bool
        Replace an existing file, in one step.
    on_progress : callable, optional
        Called with bytes done and bytes in all; every byte counts twice, once written and once read back.

    Raises
    ------
    StreamNotFinal
        A stream is still open.
    AlreadyExists
        `file` is there and `overwrite` is False.
    BlockDamaged, Damaged
        A block does not have its digest, in the buffer or in the file; or blocks are missing without a reason.
    """
    began = time.monotonic()
    file = Path(file)
    title, attrs, streams, joins = _chosen(store, source, version)
    for info in streams:
        if not info.state.final:
            raise StreamNotFinal(f"stream {info.path} is open; seal or abort it before it is drained", stream=info.path)
    name, options = filters(compression)
    progress = _counter(2 * sum(info.completeness.bytes for info in streams), on_progress)
    with published(file, overwrite=overwrite) as part:
        with Threads() as threads, h5py.File(part, "w", libver=("v110", "v110")) as target:
            target.attrs.update({"NX_class": "NXroot", "creator": "hiss", "file_name": file.name, "file_time": _now()})
            entry = _open_entry(target, title, attrs, streams)
            placed = [_write_stream(entry, store, info, options, threads, progress) for info in streams]
            for one in placed:
                add_record(entry["hiss"], free_name(entry["hiss"], one.info.name), one.info, one.written, one.location)
            stack = _tomography(entry, attrs, placed)
            left_out = _joins(entry, joins, placed)
            entry.attrs["default"] = _default(attrs, placed, stack)
            target.attrs["default"] = "entry"
            add_contents(target, [target[one.location] for one in placed])
        sync_file(part)
        with Threads() as threads, h5py.File(part, "r") as target:
            for one in placed:
                verify_frames(target[one.location].parent, one.info, one.written, threads, progress)
            _check_contents(target, placed)
        file_bytes = part.stat().st_size
    drained = tuple(
        DrainedStream(
            path=one.info.path,
            version=one.info.version,
            state=one.info.state.name.lower(),
            location=one.location,
            blocks=len(one.written),
            bytes=one.written.bytes,
            gaps=one.info.completeness.gaps,
            digest=one.info.digest,
        )
        for one in placed
    )
    return DrainReport(file, drained, name, file_bytes, time.monotonic() - began, left_out)


_Joins = Mapping[str, tuple[str, ...]]


def _chosen(store: Store, source: str, version: int | None) -> tuple[str, Attrs, list[StreamInfo], _Joins]:
    """Title, attributes, streams and joins of what `source` names."""
    path = source.rstrip("/")
    if path == source and "/" in path:
        with suppress(NotFound):
            info = store.stream(path, version)
            return info.path, info.attrs, [info], {}
    try:
        collection = store.collection(path)
    except NotFound:
        raise NotFound(f"{source}: no stream and no collection of that path; `hiss ls` shows what there is") from None
    streams = {info.id: info for info in store.streams(path)}
    for info in list(streams.values()):
        if info.raw_id is not None and info.raw_id not in streams:
            raw = store.stream(info.path + RAW_SUFFIX)
            streams[raw.id] = raw
    return (
        path,
        collection.attrs,
        sorted(streams.values(), key=lambda info: (info.created_ns, info.path)),
        collection.joins,
    )


def _counter(total: int, on_progress: Callable[[int, int], None] | None) -> Progress:
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total)

    return progress


def _open_entry(target: h5py.File, title: str, attrs: Attrs, streams: list[StreamInfo]) -> h5py.Group:
    entry = add_group(target, "entry", "NXentry")
    text = h5py.string_dtype()
    entry.create_dataset("title", data=str(attrs.get("title", title)), dtype=text)
    if streams:
        entry.create_dataset("start_time", data=now_text(min(info.created_ns for info in streams)), dtype=text)
        entry.create_dataset("end_time", data=now_text(max(info.final_ns for info in streams)), dtype=text)
    add_attributes(entry, "attributes", attrs)
    add_group(add_group(entry, "hiss", "NXcollection"), CONTENTS.rsplit("/", 1)[-1], "NXcollection")
    return entry


def _check_contents(target: h5py.File, placed: list[_Placed]) -> None:
    changed = changed_objects(target, [target[one.location] for one in placed])
    if changed:
        raise Damaged(
            f"{', '.join(changed[:5])} read back from {target.filename} is not what was written; drain again, "
            "to another disk if it happens twice"
        )


def _now() -> str:
    return now_text(time.time_ns())


def _write_stream(
    entry: h5py.Group, store: Store, info: StreamInfo, options: Attrs, threads: Threads, progress: Progress
) -> _Placed:
    """Write one stream: its NXdata and kernels; frames that no kernel and no job made belong to an NXdetector."""
    wanted = f"{info.name}_" if info.name in _RESERVED else info.name
    group = add_group(entry, free_name(entry, wanted), "NXdata")
    holder = group
    if info.produced_by is None and not info.stages:
        instrument = entry["instrument"] if "instrument" in entry else add_group(entry, "instrument", "NXinstrument")
        holder = add_group(instrument, free_name(instrument, wanted), "NXdetector")
    written = write_frames(holder, info, store.read(info.id, Selection()), options, threads, progress)
    computed = info.keep is Keep.RAW and bool(info.stages)
    if not computed and len(written) != info.completeness.blocks:
        raise Damaged(
            f"{info.path}: {len(written)} blocks came out of the buffer, {info.completeness.blocks} are in its "
            "record; nothing was drained",
            stream=info.path,
        )
    if holder is not group:
        for member in list(holder):
            link(group, member, holder[member])
    describe_data(group, info, written)
    add_processes(entry, info)
    return _Placed(info, str(group.name).rsplit("/", 1)[-1], str(holder["data"].name), written)


def _tomography(entry: h5py.Group, attrs: Attrs, placed: list[_Placed]) -> str | None:
    """Add the NXtomo stack where the attribute `definition` asks for it; returns the name of its NXdata."""
    if attrs.get("definition") != "NXtomo":
        return None
    groups = {one.info.id: entry[one.shown] for one in placed}
    members = tomography_members([one.info for one in placed])
    stack = [(key, info, groups[info.id]) for key, info in members]
    return add_tomography(entry, stack, str(attrs.get("sample", members[0][1].collection)))


def _joins(entry: h5py.Group, joins: _Joins, placed: list[_Placed]) -> tuple[str, ...]:
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


def _default(attrs: Attrs, placed: list[_Placed], stack: str | None) -> str:
    """The NXdata to show first: the stream that the attribute `default` names, the NXtomo stack, the largest result."""
    for one in placed:
        if one.info.name == attrs.get("default"):
            return one.shown
    if stack is not None:
        return stack
    results = [one for one in placed if len(one.written) and not one.info.frame.opaque]
    best = max(results, key=lambda one: (one.info.raw_of is None, one.written.bytes), default=None)
    return best.shown if best is not None else "hiss"
