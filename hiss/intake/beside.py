"""What stands beside the blocks in an HDF5 file: columns, with their units, the blocks' times and indices.

Called from the thread that puts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import h5py
import numpy as np

from hiss import limits
from hiss.errors import InvalidInput
from hiss.intake.nexus import Signal
from hiss.intake.parts import Beside, column_name
from hiss.model import Column, IntArray

_TICKS_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_COLUMN_BYTES_MAX: Final = 256  # of text


def beside_of(signal: Signal, many: bool) -> Beside:
    """The columns, times and indices of a signal's blocks; of a signal that is one block its time only."""
    times = None if signal.time_of_block is None else _times_ns(signal.time_of_block)
    if not many:
        return Beside(time_ns=None if times is None or not len(times) else times[:1])
    count = signal.count
    found: dict[str, h5py.Dataset] = dict(signal.columns)
    groups = signal.beside or (() if signal.columns else (signal.data.parent,))
    for group in groups:
        for name, item in group.items():
            if isinstance(item, h5py.Dataset) and item != signal.data and not _known(item, found):
                found.setdefault(name, item)
    found = {
        name: item for name, item in found.items() if (item.shape == (count,) and count > 1) or name in signal.columns
    }
    chosen = slice(None) if signal.chosen is None else signal.chosen
    columns: dict[str, Column] = {}
    values: dict[str, Any] = {}
    index: IntArray | None = None
    for name, item in found.items():
        if item.shape != (count,):
            continue
        if name == "index" and item.dtype.kind in "iu" and np.all(np.diff(item[()]) > 0):
            index = np.asarray(item[()], np.int64)[chosen]
        elif name == "time_ns" and item.dtype.kind in "iu":
            times = np.asarray(item[()], np.int64)
        elif name != "digest" and _fits(item) and len(columns) < limits.COLUMNS_MAX:
            name = column_name(name, columns)
            columns[name] = Column(name, item.dtype.str, _unit(item))
            values[name] = item[()][chosen]
    return Beside(tuple(columns.values()), values, None if times is None else times[chosen], index)


def named_columns(
    beside: Beside, texts: Sequence[str], count: int, dataset_of: Callable[[str], h5py.Dataset]
) -> Beside:
    """With the columns that the user names, `NAME=DATASET[ UNIT]`, in the place of what was found by itself."""
    columns = {column.name: column for column in beside.columns}
    values: dict[str, Any] = dict(beside.values)
    for text in texts:
        name, _, rest = text.partition("=")
        member, _, unit = rest.partition(" ")
        dataset = dataset_of(member)
        found = dataset[()]
        if np.shape(found) != (count,):
            raise InvalidInput(
                f"column {name!r}: {member} has the shape {np.shape(found)}, expected one value for each of {count} "
                "blocks"
            )
        columns[name] = Column(name, found.dtype.str, unit or _unit(dataset))
        values[name] = found
    return replace(beside, columns=tuple(columns.values()), values=values)


def _known(item: h5py.Dataset, found: Mapping[str, h5py.Dataset]) -> bool:
    """Whether a dataset was found already: links give it several names."""
    return any(item == other for other in found.values())


def _fits(item: h5py.Dataset) -> bool:
    return item.dtype.kind in "biufc" or (item.dtype.kind == "S" and item.dtype.itemsize <= _COLUMN_BYTES_MAX)


def _unit(item: h5py.Dataset) -> str:
    unit = item.attrs.get("units", item.attrs.get("Uom", b""))
    return unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit)


def _times_ns(times: h5py.Dataset) -> IntArray | None:
    """Times since 1970 as the dataset's unit tells, in nanoseconds; None where it tells none."""
    tick = _TICKS_NS.get(_unit(times))
    return None if tick is None or times.dtype.kind not in "iu" else np.asarray(times[()], np.int64) * tick
