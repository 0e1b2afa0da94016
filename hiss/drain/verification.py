"""Reading everything again: a drained file by itself, or the streams of a buffer, every block against its digest.

A file needs no buffer and nothing but HDF5: the digests that its blocks had when they were drained are in it, and so
are those of all else that it says (`drain.contents`). Both kinds of verification go on after what is damaged, and name
it. Nothing is changed. Any thread may call them; one run of blocks is in memory at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hiss import limits
from hiss.drain.chunks import Threads
from hiss.drain.contents import CONTENTS, UNREADABLE, changed_objects
from hiss.drain.frames import Progress, block_ends, wrong_blocks
from hiss.drain.report import Damage, Verification, VerifiedStream
from hiss.drain.zarr_format import is_zarr, verify_zarr
from hiss.errors import BlockDamaged, Damaged, InvalidInput, MissingExtra, NotFound
from hiss.model import Keep, Selection, StreamInfo
from hiss.store import Store


def verify_file(file: Path, on_progress: Callable[[int, int], None] | None = None) -> Verification:
    """Read a drained file, or directory of Zarr, and compare all that is in it with the digests that it holds.

    Raises
    ------
    NotFound
        There is no such file.
    InvalidInput
        HDF5, but not written by a drain.
    Damaged
        It cannot be opened at all.
    MissingExtra
        The blocks were compressed by a filter that is not installed.
    """
    if is_zarr(file):
        return verify_zarr(file, on_progress)
    began = time.monotonic()
    if file.is_dir():
        raise InvalidInput(f"{file}: is a directory, and no Zarr group; if it was drained, it is not whole")
    if not file.is_file():
        raise NotFound(f"{file}: there is no such file")
    try:
        opened = h5py.File(file, "r")
    except OSError as error:
        raise Damaged(f"{file}: cannot be opened as HDF5: {error}; if it was drained whole, it is damaged") from None
    with opened, Threads() as threads:
        try:
            records = [opened["entry/hiss"][name] for name in opened["entry/hiss"] if name != _own_name()]
        except UNREADABLE as error:
            if _is_drained(opened):
                raise Damaged(f"{file}: its records cannot be read: {error}") from None
            raise InvalidInput(f"{file}: was not written by `hiss drain`; there are no digests in it") from None
        total = sum(_number(record, "bytes") for record in records)
        progress = _counter(total, on_progress)
        _need_filters(opened, records)
        streams = tuple(_verified_record(opened, record, threads, progress) for record in records)
        blocks = [found for found in (_blocks_of(opened, record) for record in records) if found is not None]
        changed = changed_objects(opened, blocks)
    return Verification(str(file), streams, changed, time.monotonic() - began)


def verify_streams(
    store: Store, source: str, infos: Sequence[StreamInfo], on_progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Read every block of streams of a buffer, which checks it; `source` names them in the report.

    An open stream is read as far as it reaches now.
    """
    began = time.monotonic()
    progress = _counter(sum(info.completeness.bytes for info in infos), on_progress)
    streams = tuple(_verified_stream(store, info, progress) for info in infos)
    return Verification(source, streams, (), time.monotonic() - began)


def _counter(total: int, on_progress: Callable[[int, int], None] | None) -> Progress:
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, max(total, done))

    return progress


# ------------------------------------------------------------------------------------------------------------- files


def _is_drained(file: h5py.File) -> bool:
    """Whether it says that a drain wrote it, or is too damaged to say so."""
    try:
        return bool(file.attrs.get("creator") == "hiss")
    except UNREADABLE:
        return True


def _own_name() -> str:
    return CONTENTS.rsplit("/", 1)[-1]


def _text(record: Any, key: str) -> str:
    try:
        return str(record[key].asstr()[()])
    except UNREADABLE:
        return "?"


def _number(record: Any, key: str) -> int:
    try:
        return int(record[key][()])
    except UNREADABLE:
        return 0


def _blocks_of(file: h5py.File, record: Any) -> h5py.Dataset | None:
    try:
        found = file[_text(record, "location")]
    except UNREADABLE:
        return None
    return found if isinstance(found, h5py.Dataset) else None


def _need_filters(file: h5py.File, records: Iterable[Any]) -> None:
    """Make the filters of the blocks known to HDF5, as far as they can be found."""
    for record in records:
        try:
            data = _blocks_of(file, record)
            needed = [] if data is None else _filters_of(data)
        except UNREADABLE:
            continue
        if all(h5py.h5z.filter_avail(number) for number in needed):
            continue
        try:
            import hdf5plugin  # noqa: F401  (its import makes the filters known)
        except ImportError:
            raise MissingExtra(
                f"{file.filename}: its blocks were compressed by HDF5 filter {needed[-1]}, which is not installed: "
                "pip install 'hiss[hdf5]'",
                package="hdf5plugin",
            ) from None


def _filters_of(data: h5py.Dataset) -> list[int]:
    """The HDF5 filters of the blocks; of a virtual dataset those of the first that it maps."""
    if data.is_virtual:
        for source in data.virtual_sources()[:1]:
            with h5py.File(Path(data.file.filename).parent / source.file_name, "r") as segment:
                return _filters_of(segment[source.dset_name])
    plist = data.id.get_create_plist()
    return [plist.get_filter(place)[0] for place in range(plist.get_nfilters())]


def _verified_record(file: h5py.File, record: Any, threads: Threads, progress: Progress) -> VerifiedStream:
    path, state = _text(record, "path"), _text(record, "state")
    sizes: list[int] = []
    try:
        damage = _Ranges()
        data = file[_text(record, "location")]
        _need_segments(data)
        index = record["block_index"][()]
        digest = record["block_digest"][()]
        ends = block_ends(data.parent, len(digest), "offset" in data.parent)
        if ends is None or len(index) != len(digest):
            raise ValueError(f"{data.name} has {data.shape[0]} rows, which do not fit its {len(digest)} blocks")
        bad = set()
        for place, reason in wrong_blocks(data, ends, digest, threads, progress):
            damage.add(int(index[place]), reason)
            bad.add(place)
            if damage.full:
                break
        row_bytes = int(data.dtype.itemsize * np.prod(data.shape[1:], dtype=np.int64))
        lengths = np.diff(ends, prepend=0) * row_bytes
        sizes = [int(length) for place, length in enumerate(lengths) if place not in bad] if not damage.full else []
        found = damage.found
    except UNREADABLE as error:
        found = (Damage(None, None, f"cannot be read: {error}"),)
    return VerifiedStream(path, _number(record, "version"), state, len(sizes), sum(sizes), found)


def _need_segments(data: h5py.Dataset) -> None:
    """Raises `OSError` where a file that a virtual dataset maps is not there: HDF5 would read zeros."""
    beside = Path(data.file.filename).parent
    names = {source.file_name for source in data.virtual_sources()} if data.is_virtual else set()
    missing = sorted(name for name in names if not (beside / name).is_file())
    if missing:
        raise OSError(f"its segments {', '.join(missing[:3])} are not beside it")


# ------------------------------------------------------------------------------------------------------------ buffers


def _verified_stream(store: Store, info: StreamInfo, progress: Progress) -> VerifiedStream:
    if info.eviction is not None:
        return VerifiedStream(info.path, info.version, "evicted", 0, 0)
    whole = info.completeness
    damage = _Ranges()
    blocks = bytes_ = 0
    waiting = []
    if whole.first_index is not None and whole.last_index is not None:
        waiting.append((whole.first_index, whole.last_index + 1))
    while waiting and not damage.full:
        start, stop = waiting.pop()
        try:
            for first_unread, count, size in _read(store, info, start, stop):
                start, blocks, bytes_ = first_unread, blocks + count, bytes_ + size
                progress(size)
        except BlockDamaged as error:
            if stop - start == 1:
                damage.add(start, str(error))
            else:
                waiting += _halves(start, stop, error)
    expected = 0 if info.keep is Keep.RAW and info.stages else whole.blocks
    if not damage.found and blocks < expected:
        damage.add(None, f"{blocks} blocks can be read, {expected} are in its record")
    return VerifiedStream(info.path, info.version, info.state.name.lower(), blocks, bytes_, damage.found)


def _read(store: Store, info: StreamInfo, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Read a range; for each extent one past its last index, its blocks and its bytes."""
    for extent in store.read(info.id, Selection(start, stop, from_disk=True)):
        yield int(extent.index[-1]) + 1, len(extent), extent.data.nbytes


def _halves(start: int, stop: int, error: BlockDamaged) -> list[tuple[int, int]]:
    """What is left of a range with damage in it, last part first: around the named block, or in two halves."""
    named = error.details.get("index", "")
    bad = int(named) if named.lstrip("-").isdigit() else stop
    if start <= bad < stop:
        parts = [(bad + 1, stop), (bad, bad + 1), (start, bad)]
    else:
        middle = (start + stop) // 2
        parts = [(middle, stop), (start, middle)]
    return [(low, high) for low, high in parts if low < high]


class _Ranges:
    """Damaged blocks as they are found, in the order of their index, neighbours of one reason together."""

    def __init__(self) -> None:
        self._found: list[Damage] = []

    def add(self, index: int | None, reason: str) -> None:
        last = self._found[-1] if self._found else None
        if last is not None and index is not None and last.last == index - 1 and last.reason == reason:
            self._found[-1] = Damage(last.first, index, reason)
        else:
            self._found.append(Damage(index, index, reason))
        if self.full:
            self._found.append(Damage(None, None, "so much is damaged that the rest was not looked at"))

    @property
    def full(self) -> bool:
        return len(self._found) >= limits.DAMAGE_RANGES_MAX

    @property
    def found(self) -> tuple[Damage, ...]:
        return tuple(self._found)
