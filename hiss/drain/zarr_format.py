"""Zarr version 3 (https://zarr-specs.readthedocs.io/en/latest/v3/core/): a directory that zarr-python and xarray open.

    /                  group: title, the collection's attributes
      NAME/            group of a stream; `hiss` in its attributes has state, completeness, ledger, kernels
        data           (n, *shape), one frame a chunk, chunks gathered in shards of about `SHARD_BYTES`
        index, time_ns, received_ns, digest, source_digest, and the columns: one value for each block
        offset         where blocks differ in length: block i is data[offset[i]:offset[i + 1]]
    hiss-manifest.json the digest of every file but the shards of `data`, whose blocks have digests of their own

Dimensions have names, so that xarray shows `data` over the coordinate `index`. bool is stored as it is; columns of
short bytes become rows of uint8. One shard is in memory at a time. Called from the thread that drains or verifies.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from hiss import limits
from hiss.drain.compression import NAMES
from hiss.drain.formats import Content, Outcome, Placed, check_count
from hiss.drain.frames import DIGEST_NAME, Progress, Written, chunk_rows, gather, wrong_in_pieces
from hiss.drain.report import Damage, Verification, VerifiedStream
from hiss.errors import BlockDamaged, Damaged, InvalidInput, MissingExtra
from hiss.model import ByteArray, IntArray, Selection, StreamInfo
from hiss.store import Store

MANIFEST: Final = "hiss-manifest.json"
SHARD_BYTES: Final = 32 * limits.MiB
_LEVEL: Final = 1
_VECTORS: Final = ("index", "time_ns", "received_ns", "digest", "source_digest")
_OWN: Final = frozenset({"data", "offset", *_VECTORS})


def _zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise MissingExtra("Zarr needs zarr-python: pip install 'hiss[zarr]'", package="zarr") from None
    return zarr


class Zarr:
    """A format of `drain`. `auto` is bitshuffle+LZ4 by Blosc, which every zarr-python has."""

    holds_all = True

    def __init__(self, compression: str = "auto") -> None:
        if compression not in NAMES:
            raise InvalidInput(f"compression {compression!r}: expected one of {', '.join(NAMES)}")
        _zarr()
        self.compression = "bitshuffle-lz4" if compression == "auto" else compression

    def write(self, part: Path, name: str, content: Content, store: Store, progress: Progress) -> Outcome:
        root = _zarr().create_group(
            part, zarr_format=3, attributes={"title": str(content.attrs.get("title", content.title)),
                                             "creator": "hiss", "attributes": dict(content.attrs)},
        )  # fmt: skip
        placed = tuple(self._write_stream(root, info, store, progress) for info in content.streams)
        manifest = {"algorithm": DIGEST_NAME, "files": _file_digests(part)}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1))
        return Outcome(placed, tuple(f"join {join}: this format has no virtual datasets" for join in content.joins))

    def compare(self, part: Path, outcome: Outcome, progress: Progress) -> None:
        root = _zarr().open_group(part, mode="r")
        for one in outcome.placed:
            for place, reason in _wrong_blocks(root[one.shown], one.written.digest, progress):
                raise BlockDamaged(
                    f"block {one.written.index[place]} of {one.info.path} read back from {part} {reason}; drain again, "
                    "to another disk if it happens twice",
                    stream=one.info.path,
                    index=int(one.written.index[place]),
                )
        changed = _changed_files(part)
        if changed:
            raise Damaged(f"{', '.join(changed[:5])} read back from {part} is not what was written; drain again")

    def _write_stream(self, root: Any, info: StreamInfo, store: Store, progress: Progress) -> Placed:
        group = root.create_group(_free(root, info.name))
        rows = chunk_rows(info.frame)
        inner = tuple(size for size in info.frame.shape[1 if info.frame.variable else 0 :] if size is not None)
        per_shard = max(1, SHARD_BYTES // max(1, rows * info.frame.item_bytes))
        total = 0 if info.frame.variable else info.completeness.blocks
        if not info.frame.variable:
            per_shard = max(1, min(per_shard, -(-total // rows)))
        first = "row" if info.frame.variable else "index"
        units = info.attrs.get("units")
        data = group.create_array(
            "data",
            shape=(total, *inner),
            dtype=info.frame.numpy_dtype,
            chunks=(rows, *inner),
            shards=(rows * per_shard, *inner),
            compressors=self._compressors(info.frame.numpy_dtype.itemsize),
            dimension_names=[first, *(f"dim_{axis + 1}" for axis in range(len(inner)))],
            attributes={"units": units} if isinstance(units, str) else {},
        )
        writer = _Rows(data, rows * per_shard)
        written = gather(info, store.read(info.id, Selection()), writer.append, progress)
        writer.close()
        check_count(info, written)
        _write_vectors(group, info, written)
        group.attrs.update({"hiss": _record(info), "attributes": dict(info.attrs)})
        return Placed(info, group.basename, f"{group.basename}/data", written)

    def _compressors(self, item_bytes: int) -> Any:
        codecs = _zarr().codecs
        if self.compression == "none":
            return None
        if self.compression == "gzip":
            return codecs.GzipCodec(level=_LEVEL)
        if self.compression == "zstd":
            return codecs.ZstdCodec(level=_LEVEL)
        return codecs.BloscCodec(typesize=item_bytes, cname="lz4", clevel=5, shuffle="bitshuffle")


class _Rows:
    """Gathers rows and writes whole shards: a shard that is written twice would be read and encoded twice."""

    def __init__(self, data: Any, shard_rows: int) -> None:
        self._data = data
        self._gathered = np.empty((shard_rows, *data.shape[1:]), data.dtype)
        self._count = 0
        self._written = 0

    def append(self, content: ByteArray) -> None:
        values = content.view(self._data.dtype).reshape((-1, *self._data.shape[1:]))
        done = 0
        while done < len(values):
            count = min(len(values) - done, len(self._gathered) - self._count)
            self._gathered[self._count : self._count + count] = values[done : done + count]
            self._count += count
            done += count
            if self._count == len(self._gathered):
                self._flush()

    def close(self) -> None:
        self._flush()
        if self._data.shape[0] != self._written:
            self._data.resize((self._written, *self._data.shape[1:]))

    def _flush(self) -> None:
        stop = self._written + self._count
        if stop > self._data.shape[0]:
            self._data.resize((stop, *self._data.shape[1:]))
        if self._count:
            self._data[self._written : stop] = self._gathered[: self._count]
        self._written, self._count = stop, 0


def _free(group: Any, name: str) -> str:
    found, count = name, 2
    while found in group or found == MANIFEST:
        found, count = f"{name}_{count}", count + 1
    return found


def _write_vectors(group: Any, info: StreamInfo, written: Written) -> None:
    for name in _VECTORS:
        _write_vector(group, name, getattr(written, name), {"units": "ns"} if name.endswith("_ns") else {})
    if info.frame.variable:
        ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), written.length])) // info.frame.item_bytes
        group.create_array("offset", data=ends, dimension_names=["edge"])
    names = column_arrays([column.name for column in info.columns])
    for column in info.columns:
        values = written.columns[column.name]
        if values.dtype.kind == "S":
            values = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        _write_vector(group, names[column.name], values, {"units": column.unit} if column.unit else {})


def column_arrays(columns: Sequence[str]) -> dict[str, str]:
    """The array of each column; no two columns have one."""
    found: dict[str, str] = {}
    for column in columns:
        base = name = f"column_{column}" if column in _OWN else column
        count = 2
        while name in found.values() or name == MANIFEST:
            name, count = f"{base}_{count}", count + 1
        found[column] = name
    return found


def _write_vector(group: Any, name: str, values: npt.NDArray[Any], attributes: Mapping[str, Any]) -> None:
    names = ["index", *(f"{name}_bytes" for _ in values.shape[1:])]
    group.create_array(name, data=np.ascontiguousarray(values), dimension_names=names, attributes=dict(attributes))


def _record(info: StreamInfo) -> dict[str, Any]:
    complete = info.completeness
    return {
        "path": info.path,
        "id": info.id,
        "version": info.version,
        "state": info.state.name.lower(),
        "abort_reason": info.abort_reason,
        "digest": info.digest,
        "digest_algorithm": DIGEST_NAME,
        "completeness": str(complete),
        "blocks": complete.blocks,
        "gaps": complete.gaps,
        "ledger": [[entry.first, entry.last, entry.stage, entry.reason] for entry in complete.ledger],
        "dtype": info.frame.dtype,
        "shape": list(info.frame.shape),
        "columns": [[column.name, column.dtype, column.unit] for column in info.columns],
        "kernels": [
            {"name": stage.name, "kind": stage.kind.name.lower(), "hash": stage.hash, "source": stage.source,
             "params": dict(stage.params), "quarantined": stage.quarantined}
            for stage in info.stages
        ],
        "produced_by": info.produced_by or "",
        "created_ns": info.created_ns,
        "final_ns": info.final_ns,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------ reading back


def is_zarr(path: Path) -> bool:
    """Whether a directory is a Zarr group of version 3."""
    return (path / "zarr.json").is_file()


def verify_zarr(path: Path, on_progress: Callable[[int, int], None] | None = None) -> Verification:
    """Read a drained directory and compare all that is in it with the digests that it holds.

    Raises
    ------
    InvalidInput
        It was not written by a drain.
    MissingExtra
        zarr-python is not installed.
    """
    began = time.monotonic()
    zarr = _zarr()
    if not (path / MANIFEST).is_file():
        raise InvalidInput(f"{path}: was not written by `hiss drain`; there is no {MANIFEST} in it")
    changed = _changed_files(path)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, done)

    names = sorted(below.name for below in path.iterdir() if is_zarr(below))
    streams = tuple(_verified(zarr, path, name, progress) for name in names)
    return Verification(str(path), streams, changed, time.monotonic() - began)


def _verified(zarr: Any, path: Path, name: str, progress: Progress) -> VerifiedStream:
    sizes: list[int] = []
    record: Mapping[str, Any] = {}
    try:
        group = zarr.open_group(path / name, mode="r")
        record = group.attrs["hiss"]
        index, digest = group["index"][...], group["digest"][...]
        wrong = dict(_wrong_blocks(group, digest, progress))
        found = tuple(Damage(int(index[place]), int(index[place]), why) for place, why in wrong.items())
        row_bytes = int(np.prod(group["data"].shape[1:], dtype=np.int64)) * group["data"].dtype.itemsize
        lengths = np.diff(_ends(group, len(digest)), prepend=0) * row_bytes
        sizes = [int(length) for place, length in enumerate(lengths) if place not in wrong]
    except Exception as error:  # whatever zarr-python makes of a damaged array is the finding
        found = (Damage(None, None, f"cannot be read: {type(error).__name__}: {error}"),)
    return VerifiedStream(
        str(record.get("path", name)), int(record.get("version", 0)), str(record.get("state", "?")), len(sizes),
        sum(sizes), found[: limits.DAMAGE_RANGES_MAX],
    )  # fmt: skip


def _ends(group: Any, blocks: int) -> IntArray:
    ends = np.asarray(group["offset"][1:], np.int64) if "offset" in group else np.arange(1, blocks + 1)
    rows = group["data"].shape[0]
    if len(ends) != blocks or (np.diff(ends, prepend=0) < 0).any() or rows != (ends[-1] if blocks else 0):
        raise Damaged(f"{group.name}: data has {rows} rows, which do not fit {blocks} blocks")
    return ends


def _wrong_blocks(group: Any, digest: Any, progress: Progress) -> Iterator[tuple[int, str]]:
    data = group["data"]

    def pieces(step: int) -> Iterator[tuple[int, Any]]:
        for first in range(0, data.shape[0], step):
            rows = min(step, data.shape[0] - first)
            try:
                yield rows, np.ascontiguousarray(data[first : first + rows])
            except Exception as error:  # of whichever codec
                if step > data.chunks[0]:  # which chunk of the shard, its chunks tell
                    yield from _chunkwise(data, first, rows)
                else:
                    yield rows, f"cannot be read ({' '.join(str(error).split())[:200]})"

    row_bytes = int(np.prod(data.shape[1:], dtype=np.int64)) * data.dtype.itemsize
    shard_rows = data.shards[0] if data.shards else data.chunks[0]
    return wrong_in_pieces(pieces(shard_rows), _ends(group, len(digest)), digest, row_bytes, progress)


def _chunkwise(data: Any, first: int, rows: int) -> Iterator[tuple[int, Any]]:
    for begin in range(first, first + rows, data.chunks[0]):
        count = min(data.chunks[0], first + rows - begin)
        try:
            yield count, np.ascontiguousarray(data[begin : begin + count])
        except Exception as error:  # of whichever codec
            yield count, f"cannot be read ({' '.join(str(error).split())[:200]})"


def _file_digests(path: Path) -> dict[str, str]:
    found = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if file.is_file() and name.name != MANIFEST and name.parts[1:3] != ("data", "c"):
            found[str(name)] = f"{xxhash.xxh3_64_intdigest(file.read_bytes()):016x}"
    return found


def _changed_files(path: Path) -> tuple[str, ...]:
    try:
        recorded = dict(json.loads((path / MANIFEST).read_text("utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return (MANIFEST,)
    found = _file_digests(path)
    return tuple(name for name, digest in recorded.items() if found.get(name) != digest) if recorded else (MANIFEST,)
