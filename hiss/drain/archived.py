"""A drained stream, read again: what stands beside its blocks, and runs of blocks, out of a NeXus file or a Zarr
directory, on a file system or in an S3 bucket.

A location is `FILE::PATH`, as a drain records it: `PATH` is that of the stream's `data`; `FILE` may be
`s3://BUCKET/KEY`, which is read by ranges (obstore takes keys and endpoint from the environment, `AWS_…`). The record
in the archive names the stream's id and digest, and must be that of the stream that is asked for. Blocks are handed on
as they are; who asked compares them with their digests. One thread.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from hiss.drain.entry import nexus_name
from hiss.drain.frames import block_ends
from hiss.errors import ArchiveUnreachable, Damaged, MissingExtra
from hiss.model import IntArray

_S3: Final = "s3://"
_READ_BYTES: Final = 1 << 20  # fetched at once of an object in a bucket
VECTORS: Final = ("index", "time_ns", "received_ns", "length", "digest", "source_digest")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The stream that is looked for, and how its blocks are laid down."""

    id: str
    digest: str
    dtype: str | None  # of the items; None for opaque bytes
    variable: bool
    columns: tuple[tuple[str, str], ...]  # names and dtypes


class ArchivedStream(Protocol):
    """One stream in one archive."""

    def table(self) -> dict[str, npt.NDArray[Any]]:
        """One entry for each block of `VECTORS`, and `columns`: packed records."""
        ...

    def blocks(self, first: int, stop: int) -> npt.NDArray[Any]:
        """The rows of the blocks at these places, one after another."""
        ...


def opened(location: str, wanted: Wanted) -> ArchivedStream:
    """Open an archive.

    Raises
    ------
    ArchiveUnreachable
        There is no such file, or nothing that can be read as one.
    Damaged
        It holds another stream, or what it says does not fit together.
    MissingExtra
        What reads it is not installed.
    """
    file, _, path = location.rpartition("::")
    if not file:
        raise ArchiveUnreachable(f"{location}: is no FILE::PATH", archive=location)
    try:
        if _is_zarr(file):
            return _ZarrStream(_zarr_group(file, path), wanted, location)
        return _HdfStream(_hdf_file(file), path, wanted, location)
    except (ArchiveUnreachable, Damaged, MissingExtra):
        raise
    except Exception as error:  # of HDF5, zarr-python, obstore, or the file system
        raise ArchiveUnreachable(
            f"{location} cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:300]}", archive=location
        ) from None


def stamp(location: str) -> tuple[int, ...]:
    """What changes when a local file is replaced; of an object in a bucket nothing is asked."""
    file = location.rpartition("::")[0]
    if file.startswith(_S3):
        return ()
    path = Path(file)
    try:
        state = (path / "zarr.json" if path.is_dir() else path).stat()
    except OSError as error:
        raise ArchiveUnreachable(f"{location} cannot be read: {error}", archive=location) from None
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


# ------------------------------------------------------------------------------------------------------------- opening


def _is_zarr(file: str) -> bool:
    return file.rstrip("/").endswith(".zarr") if file.startswith(_S3) else Path(file).is_dir()


def _bucket(file: str) -> tuple[Any, str]:
    """The store of an S3 URL's bucket, and the key in it."""
    try:
        from obstore.store import from_url
    except ImportError:
        raise MissingExtra("archives in S3 need obstore: pip install 'hiss[s3]'", package="obstore") from None
    bucket, _, key = file.removeprefix(_S3).partition("/")
    return from_url(_S3 + bucket), key


def _hdf_file(file: str) -> h5py.File:
    with contextlib.suppress(ImportError):  # many files need none
        import hdf5plugin  # noqa: F401  (its import makes the filters known)
    if not file.startswith(_S3):
        return h5py.File(file, "r", locking=False)
    return h5py.File(io.BufferedReader(_Object(*_bucket(file)), _READ_BYTES), "r")


class _Object(io.RawIOBase):
    """An object of a bucket as a file, read by ranges."""

    def __init__(self, store: Any, key: str) -> None:
        import obstore

        self._range = partial(obstore.get_range, store, key)
        self._size = int(obstore.head(store, key)["size"])
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        if count:
            buffer[:count] = bytes(self._range(start=self._at, length=count))
            self._at += count
        return count


def _zarr_group(file: str, path: str) -> Any:
    try:
        import zarr
    except ImportError:
        raise MissingExtra("Zarr needs zarr-python: pip install 'hiss[zarr]'", package="zarr") from None
    name = path.strip("/").rpartition("/")[0]
    if not file.startswith(_S3):
        return zarr.open_group(file, path=name, mode="r")
    from zarr.storage import ObjectStore

    store, key = _bucket(file)
    return zarr.open_group(ObjectStore(store, read_only=True), path=f"{key.strip('/')}/{name}", mode="r")


# --------------------------------------------------------------------------------------------------------------- NeXus


class _HdfStream:
    def __init__(self, file: h5py.File, path: str, wanted: Wanted, location: str) -> None:
        self._data = file[path]
        self._record = _record(file, path, wanted.id)
        self._shown = _shown(file, self._data, str(self._text("path")))
        self._wanted = wanted
        _check_same(self._text("id"), self._text("digest"), wanted, location)
        ends = block_ends(self._data.parent, len(self._record["block_index"]), wanted.variable)
        if ends is None:
            raise Damaged(f"{location}: {self._data.shape[0]} rows do not fit the blocks that are listed")
        self._edges: IntArray = np.concatenate([np.zeros(1, np.int64), ends])

    def _text(self, key: str) -> str:
        return str(self._record[key].asstr()[()])

    def table(self) -> dict[str, npt.NDArray[Any]]:
        record, shown = self._record, self._shown
        row_bytes = int(np.prod(self._data.shape[1:], dtype=np.int64)) * self._data.dtype.itemsize
        index = record["block_index"][()]
        timed = "time_ns" in shown and "start" in shown["time_ns"].attrs  # and no column of nearly that name
        members = column_members([name for name, _ in self._wanted.columns], timed)
        return {
            "index": index,
            "time_ns": shown["time_ns"][()] if timed else np.zeros(len(index), np.int64),
            "received_ns": record["block_received_ns"][()],
            "length": np.diff(self._edges) * row_bytes,
            "digest": record["block_digest"][()],
            "source_digest": record["block_source_digest"][()],
            "columns": _packed(self._wanted.columns, {name: shown[at][()] for name, at in members.items()}, len(index)),
        }

    def blocks(self, first: int, stop: int) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._data[int(self._edges[first]) : int(self._edges[stop])]
        return found


def _record(file: h5py.File, path: str, stream_id: str) -> Any:
    """What the file knows of the stream whose blocks are at `path`."""
    group = file["entry/hiss"]
    for name in group:
        record = group[name]
        if "id" in record and "location" in record and record["location"].asstr()[()] == path:
            return record
    raise Damaged(f"{file.filename}: has no record of a stream at {path}", stream=stream_id)


def _shown(file: h5py.File, data: h5py.Dataset, stream: str) -> Any:
    """The group that has times and columns: that of the blocks, or the NXdata that links to them."""
    if "index" in data.parent:
        return data.parent
    for name in file["entry"]:
        group = file["entry"][name]
        if isinstance(group, h5py.Group) and group.attrs.get("hiss_path") == stream and group.get("data") == data:
            return group
    raise Damaged(f"{file.filename}: has no group that shows {data.name}")


def column_members(columns: Sequence[str], timed: bool) -> dict[str, str]:
    """The member of each column in the group of a stream, as `entry.describe_data` names them, one after another."""
    own = {"data", "offset", "index", "time_ns", "attributes", "title", "errors"}
    taken = {"data", "title", "index", *(["time_ns"] if timed else [])}  # no name becomes "offset" but its own
    found: dict[str, str] = {}
    for column in columns:
        base = nexus_name(f"column_{column}" if column in own else column)
        name, count = base, 2
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        taken.add(name)
        found[column] = name
    return found


# ---------------------------------------------------------------------------------------------------------------- Zarr


class _ZarrStream:
    def __init__(self, group: Any, wanted: Wanted, location: str) -> None:
        self._group, self._wanted = group, wanted
        record = group.attrs["hiss"]
        _check_same(str(record["id"]), str(record["digest"]), wanted, location)
        self._data = group["data"]
        self._index = np.asarray(group["index"][...])
        ends = np.asarray(group["offset"][1:], np.int64) if wanted.variable else np.arange(1, len(self._index) + 1)
        if len(ends) != len(self._index) or self._data.shape[0] != (ends[-1] if len(ends) else 0):
            raise Damaged(f"{location}: {self._data.shape[0]} rows do not fit the blocks that are listed")
        self._edges: IntArray = np.concatenate([np.zeros(1, np.int64), ends])

    def table(self) -> dict[str, npt.NDArray[Any]]:
        from hiss.drain.zarr_format import column_arrays

        row_bytes = int(np.prod(self._data.shape[1:], dtype=np.int64)) * self._data.dtype.itemsize
        names = column_arrays([name for name, _ in self._wanted.columns])
        columns = {name: np.asarray(self._group[at][...]) for name, at in names.items()}
        vectors = {
            name: np.asarray(self._group[name][...])
            for name in ("time_ns", "received_ns", "digest", "source_digest")
        }  # fmt: skip
        return vectors | {
            "index": self._index,
            "length": np.diff(self._edges) * row_bytes,
            "columns": _packed(self._wanted.columns, columns, len(self._index)),
        }

    def blocks(self, first: int, stop: int) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._data[int(self._edges[first]) : int(self._edges[stop])]
        return found


# -------------------------------------------------------------------------------------------------------------- shared


def _check_same(stream_id: str, digest: str, wanted: Wanted, location: str) -> None:
    if (stream_id, digest) != (wanted.id, wanted.digest):
        raise Damaged(
            f"{location}: holds stream {stream_id} with digest {digest}, expected {wanted.id} with {wanted.digest}; "
            "something else was put there",
            archive=location,
        )


def _packed(
    columns: Sequence[tuple[str, str]], values: Mapping[str, npt.NDArray[Any]], count: int
) -> npt.NDArray[np.void]:
    """Columns side by side, as the buffer has them; rows of bytes become short bytes again."""
    rows = np.zeros(count, np.dtype([(name, dtype) for name, dtype in columns]))
    for name, dtype in columns:
        found = values[name]
        if found.ndim == 2:
            found = np.ascontiguousarray(found).view(np.dtype(dtype)).reshape(-1)
        rows[name] = found
    return rows
