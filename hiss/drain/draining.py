"""Drain a stream or a collection: written, synced, read back, compared, and only then named.

Invariants: nothing but final streams is drained; the file has its name only after every block in it was read back and
had the digest that the producer (or the kernel) gave it; after that the buffer is told where each stream is archived;
an existing file is not touched unless `overwrite` says so.
Reads through `Store`, so it works in the data process's host and from afar. Any thread may call `drain`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from hiss.drain.bare import Bare
from hiss.drain.formats import Content, Format, Outcome
from hiss.drain.frames import Progress
from hiss.drain.nexus import Nexus
from hiss.drain.report import DrainedStream, DrainReport
from hiss.drain.targets import LocalTarget, Target
from hiss.drain_policy import form_of
from hiss.errors import Conflict, InvalidInput, NotFound, PermissionRefused, StreamNotFinal
from hiss.model import RAW_SUFFIX
from hiss.store import Store


def _zarr(compression: str) -> Format:
    from hiss.drain.zarr_format import Zarr

    return Zarr(compression)


FORMATS: Final[Mapping[str, Callable[[str], Format]]] = {
    "nexus": Nexus,
    "zarr": _zarr,
    "npy": partial(Bare, "npy"),
    "raw": partial(Bare, "raw"),
}


def drain(
    store: Store,
    source: str,
    file: Path | Target,
    *,
    version: int | None = None,
    form: str = "auto",
    compression: str = "auto",
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_bytes: Progress | None = None,
) -> DrainReport:
    """Write a final stream, or all streams of a collection, to permanent storage.

    Parameters
    ----------
    store : Store
        The buffer.
    source : str
        `collection/stream`, or the path of a collection. Where both exist the stream is meant; a trailing `/` names
        the collection.
    file : Path or Target
        The file, or for Zarr the directory, to make; the directory that it is in exists. `targets.target_of` has
        other places.
    version : int, optional
        Of the stream; the newest by default.
    form : {'auto', 'nexus', 'zarr', 'npy', 'raw'}
        'auto' is Zarr or npy where the name of `file` ends in `.zarr` or `.npy`, else NeXus. The last two hold one
        stream, and its blocks only.
    compression : {'auto', 'none', 'gzip', 'zstd', 'bitshuffle-lz4'}
        See `drain.compression`.
    overwrite : bool
        Replace an existing file, in one step.
    on_progress : callable, optional
        Called with bytes done and bytes in all; every byte counts twice, once written and once read back.
    on_bytes : callable, optional
        Called with every count of bytes that were read, written or moved; it may wait, or raise to end the drain.

    Raises
    ------
    StreamNotFinal
        A stream is still open.
    AlreadyExists
        `file` is there and `overwrite` is False.
    Conflict
        `file` is an archive of a stream, in a store that replaces nothing in one step.
    BlockDamaged, Damaged
        A block does not have its digest, in the buffer or in the file; or blocks are missing without a reason.
    """
    began = time.monotonic()
    target = LocalTarget(file) if isinstance(file, Path) else file
    content = chosen_content(store, source, version)
    for info in content.streams:
        if not info.state.final:
            raise StreamNotFinal(f"stream {info.path} is open; seal or abort it before it is drained", stream=info.path)
    if overwrite and not target.in_one_step:
        check_no_archive(content, target)
    chosen = _format(form, target.name, compression)
    moved = on_bytes or (lambda count: None)
    progress = _counter(2 * sum(info.completeness.bytes for info in content.streams), on_progress, moved)
    outcome = Outcome(())

    def write(part: Path) -> None:
        nonlocal outcome
        outcome = chosen.write(part, target.name, content, store, progress)

    file_bytes = target.put(
        write, lambda part: chosen.compare(part, outcome, progress), overwrite=overwrite, progress=moved
    )
    recorded = chosen.holds_all and record_archives(store, target.location, outcome)
    announce(store, content, target.location, file_bytes)
    return report_of(target.location, outcome, chosen.compression, file_bytes, time.monotonic() - began, recorded)


def report_of(
    file: str, outcome: Outcome, compression: str, file_bytes: int, elapsed_s: float, recorded: bool
) -> DrainReport:
    """What was drained to where."""
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
        for one in outcome.placed
    )
    return DrainReport(file, drained, compression, file_bytes, elapsed_s, outcome.left_out, recorded)


def check_no_archive(content: Content, target: Target) -> None:
    """What cannot be replaced in one step is not replaced where the buffer may count on it: the stream could be evicted
    meanwhile. Raises `Conflict`."""
    for info in content.streams:
        if any(archive.location.startswith(f"{target.location}::") for archive in info.archives):
            raise Conflict(
                f"{target.location} is an archive of stream {info.path}, and cannot be replaced in one step; choose "
                "another name",
                stream=info.path,
            )


def record_archives(store: Store, file: str, outcome: Outcome) -> bool:
    """Tell the buffer where its streams are; only now, when every block in the file was compared. Whether it took that
    from us: a job's attempt may drain, and may not say what can leave the buffer."""
    try:
        store.record_archives([(one.info.id, f"{file}::{one.location}", one.info.digest) for one in outcome.placed])
    except PermissionRefused:
        return False
    return True


def announce(store: Store, content: Content, file: str, file_bytes: int) -> None:
    """The event `drain.completed`, of the stream or the collection; the drain of a job's attempt makes none."""
    one = content.streams[0] if len(content.streams) == 1 and content.streams[0].path == content.title else None
    data = {"file": file, "bytes": file_bytes, "streams": len(content.streams)}
    if one is not None:
        data["digest"] = one.digest
    with suppress(PermissionRefused):
        store.publish_event("drain.completed", content.title, one.version if one is not None else 0, data)


def _format(form: str, name: str, compression: str) -> Format:
    form = form_of(form, name)
    if form not in FORMATS:
        raise InvalidInput(f"format {form!r}: expected one of auto, {', '.join(FORMATS)}")
    return FORMATS[form](compression)


def chosen_content(store: Store, source: str, version: int | None) -> Content:
    """Title, attributes, streams and joins of what `source` names."""
    path = source.rstrip("/")
    if path == source and "/" in path:
        with suppress(NotFound):
            info = store.stream(path, version)
            return Content(info.path, info.attrs, (info,), {})
    try:
        collection = store.collection(path)
    except NotFound:
        raise NotFound(f"{source}: no stream and no collection of that path; `hiss ls` shows what there is") from None
    streams = {info.id: info for info in store.streams(path)}
    for info in list(streams.values()):
        if info.raw_id is not None and info.raw_id not in streams:
            raw = store.stream(info.path + RAW_SUFFIX)
            streams[raw.id] = raw
    ordered = sorted(streams.values(), key=lambda info: (info.created_ns, info.path))
    return Content(path, collection.attrs, tuple(ordered), collection.joins)


def _counter(total: int, on_progress: Callable[[int, int], None] | None, on_bytes: Progress) -> Progress:
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        on_bytes(count)
        if on_progress is not None:
            on_progress(done, total)

    return progress
