"""HDF5 files, NeXus among them: which datasets are the data, what stands beside each block, what the file says of them.

Without a name the data is looked for in this order: where `@default` and `@signal` lead (NeXus, its old form
`dataset@signal=1` too), NXtomo's frames, NXdetector's `data`, Data Exchange's `exchange/data`, a fibre's `RawData`
(PRODML), else the largest dataset of numbers. Beside it, datasets of one value for each block become columns with
their units; `time_ns` and `index`, as a drained file has them, become the blocks' own. NeXus:
https://manual.nexusformat.org; Data Exchange: F. De Carlo et al., J. Synchrotron Rad. 21 (2014) 1224. Filters beyond
HDF5's own come with hdf5plugin. Called from the thread that puts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from hiss.errors import InvalidInput, MissingExtra
from hiss.intake.attributes import bounded
from hiss.intake.beside import beside_of, named_columns
from hiss.intake.nexus import Signal, signals
from hiss.intake.parts import NOTHING, Beside, Part, Run, Wishes, array_part, counts_blocks, stream_name
from hiss.model import Attrs, FrameSpec

_LISTED: Final = 20  # datasets named in an error
_KEPT_FOR_NEXUS: Final = frozenset({"NX_class", "signal", "axes", "default", "target", "interpretation"})


@contextmanager
def open_hdf5(path: Path, member: str, wishes: Wishes) -> Iterator[list[Part]]:
    """The dataset called `member`, or what the file itself points at.

    Raises
    ------
    InvalidInput
        Not an HDF5 file, no such dataset, none that stands out.
    MissingExtra
        It is compressed by a filter that needs hdf5plugin.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InvalidInput(f"{path}: not an HDF5 file that can be read: {error}") from None
    with file:
        found = (
            [Signal(stream_name(path.stem), dataset_of(file, member))] if member else signals(file, split=wishes.split)
        )
        found = found or [_largest(file)]
        yield [_part(file, signal, path, wishes) for signal in found]


def dataset_of(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset by its name; raises `InvalidInput`, which lists what there is."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        known = [str(dataset.name).lstrip("/") for dataset in _datasets(file)]
        more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
        raise InvalidInput(
            f"{file.filename}: no dataset {name!r}; there are {', '.join(known[:_LISTED]) or 'none'}{more}"
        )
    return found


def _part(file: h5py.File, signal: Signal, path: Path, wishes: Wishes) -> Part:
    data = signal.data
    _need_filters(data)
    wishes = replace(wishes, rows=wishes.rows or signal.drained)
    many = counts_blocks(data, wishes)
    beside = beside_of(signal, many) if many or signal.time_of_block is not None else NOTHING
    if wishes.columns:
        beside = named_columns(beside, wishes.columns, signal.count if many else 1, lambda name: dataset_of(file, name))
    attrs = {**bounded(_attributes_of(data, signal)), **signal.attrs}
    if many and signal.offsets is not None:
        return _packets(signal, beside, attrs, f"{path}::{str(data.name).lstrip('/')}")
    return array_part(
        signal.name,
        data if signal.rows is None else signal.rows,
        wishes,
        beside=beside,
        attrs=attrs,
        origin=f"{path}::{str(data.name).lstrip('/')}",
        collection_attrs=signal.collection_attrs,
    )


def _packets(signal: Signal, beside: Beside, attrs: Attrs, origin: str) -> Part:
    """Blocks of a drained stream that differ in length; bytes, where their items are."""
    data, ends = signal.data, np.asarray(signal.offsets, np.int64)
    if np.any(np.diff(ends) < 0) or int(ends[0]) != 0 or int(ends[-1]) != len(data):
        raise InvalidInput(
            f"{origin}: its offsets do not fit its {len(data)} rows; is the file damaged? See hiss verify"
        )
    opaque = data.dtype == np.uint8 and data.ndim == 1
    frame = FrameSpec(None, (None,)) if opaque else FrameSpec(data.dtype.str, (None, *data.shape[1:]))

    def runs() -> Iterator[Run]:
        for place in range(signal.count):
            block = np.ascontiguousarray(data[int(ends[place]) : int(ends[place + 1])], frame.numpy_dtype)
            values, time_ns, index = beside.of(slice(place, place + 1))
            yield Run([block.tobytes() if opaque else block], values, time_ns, index)

    return Part(signal.name, frame, data.nbytes, runs, beside.columns, attrs, signal.collection_attrs, origin)


def _attributes_of(data: h5py.Dataset, signal: Signal) -> dict[str, Any]:
    """The dataset's attributes, those of the groups above it, then the single values beside it; the nearest counts."""
    found: dict[str, Any] = {}
    place: Any = data
    while True:
        for key, value in place.attrs.items():
            if key not in _KEPT_FOR_NEXUS and not key.endswith("_indices"):
                found.setdefault(key, value)
        if place.name == "/":
            break
        place = place.parent
    for group in signal.described_by:
        found = {**_single_values(group, data), **found}
    return found


def _single_values(group: h5py.Group, data: h5py.Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in group.items():
        if isinstance(item, h5py.Dataset) and item.size == 1 and item != data:
            kept_as = _text(item.attrs.get("hiss_name", name))
            found[kept_as] = json.loads(_text(item[()])) if item.attrs.get("hiss_json") else item[()]
            if units := item.attrs.get("units"):
                found[f"{name}_units"] = units
        elif isinstance(item, h5py.Group) and item.attrs.get("NX_class") in ("NXcollection", b"NXcollection"):
            found = {**_single_values(item, data), **found}
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _largest(file: h5py.File) -> Signal:
    numbers = [dataset for dataset in _datasets(file) if dataset.dtype.kind in "biufc" and dataset.size]
    if not numbers:
        raise InvalidInput(f"{file.filename}: holds no dataset of numbers; use --bytes to store the file as it is")
    numbers.sort(key=_bytes_of, reverse=True)
    if len(numbers) > 1 and _bytes_of(numbers[0]) == _bytes_of(numbers[1]):
        known = ", ".join(str(dataset.name).lstrip("/") for dataset in numbers[:_LISTED])
        raise InvalidInput(f"{file.filename}: nothing says which dataset is the data; name one, FILE::DATASET: {known}")
    return Signal(stream_name(str(numbers[0].name).rsplit("/", 1)[-1]), numbers[0])


def _bytes_of(dataset: h5py.Dataset) -> int:
    return int(dataset.size) * int(dataset.dtype.itemsize)


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def _need_filters(data: h5py.Dataset) -> None:
    """Have the filters that the dataset was written with; hdf5plugin brings those that HDF5 lacks."""
    plist = data.id.get_create_plist()
    codes: Mapping[int, str] = {
        plist.get_filter(number)[0]: plist.get_filter(number)[3].decode() for number in range(plist.get_nfilters())
    }
    if data.is_virtual:  # its sources may have filters of their own
        with suppress(ImportError):
            import hdf5plugin
    if all(h5py.h5z.filter_avail(code) for code in codes):
        return
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        raise MissingExtra(
            f"{data.file.filename}::{data.name}: its filters {codes} need hdf5plugin, which is absent: "
            "pip install 'hiss[files]'",
            package="hdf5plugin",
        ) from None
    lacking = [name or str(code) for code, name in codes.items() if not h5py.h5z.filter_avail(code)]
    if lacking:
        raise InvalidInput(f"{data.file.filename}::{data.name}: nobody here knows the filter {', '.join(lacking)}")
