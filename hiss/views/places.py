"""Which blocks a stream has: the producer's index of each place, and what stands beside the blocks.

A place is a block's number among those that are stored, from 0: the row of an array, the order in a file. Without gaps
the indices are a range and nothing is asked; with gaps they follow from the ledger, or are read. Pure but for the
reads; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.errors import SpecMismatch
from hiss.model import IntArray, Keep, Selection, StreamInfo
from hiss.store import Store

Indices = range | IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """One entry for each stored block, in the order of the index."""

    index: IntArray
    time_ns: IntArray
    length: IntArray  # bytes; as they came in, where results are computed on the way out
    columns: npt.NDArray[np.void]


def indices(store: Store, info: StreamInfo) -> Indices:
    """The index of every stored block, as `info` counts them."""
    whole = info.completeness
    if whole.first_index is None or whole.last_index is None or not whole.blocks:
        return range(0)
    span = whole.last_index + 1 - whole.first_index
    if span == whole.blocks:
        return range(whole.first_index, whole.last_index + 1)
    if span > limits.VIEW_SPAN_MAX or sum(entry.count for entry in whole.ledger) != span - whole.blocks:
        return beside(store, info).index  # too far apart, or more gaps than a ledger lists
    there = np.ones(span, np.bool_)
    for entry in whole.ledger:
        there[entry.first - whole.first_index : entry.last + 1 - whole.first_index] = False
    return np.flatnonzero(there) + whole.first_index


def beside(store: Store, info: StreamInfo) -> Beside:
    """Times, lengths and columns of all blocks; of none of them the bytes are read or computed."""
    computed = info.keep is Keep.RAW and info.raw_id is not None and info.eviction is None
    kept = list(store.read((info.raw_id or info.id) if computed else info.id, Selection(data=False)))
    found = Beside(
        np.concatenate([np.zeros(0, np.int64), *(extent.index for extent in kept)]),
        np.concatenate([np.zeros(0, np.int64), *(extent.time_ns for extent in kept)]),
        np.concatenate([np.zeros(0, np.int64), *(extent.length for extent in kept)]),
        np.concatenate([np.zeros(0, info.columns_dtype), *(extent.columns for extent in kept)]),
    )
    if not computed:
        return found
    missing = [np.arange(entry.first, entry.last + 1) for entry in info.completeness.ledger]
    return at(found, np.setdiff1d(found.index, np.concatenate([np.zeros(0, np.int64), *missing])))


def at(found: Beside, wanted: Indices) -> Beside:
    """The entries of those indices: an open stream may have more by now."""
    if len(found.index) == len(wanted):
        return found
    rows = np.isin(found.index, np.asarray(wanted))
    return Beside(found.index[rows], found.time_ns[rows], found.length[rows], found.columns[rows])


def fixed_shape(info: StreamInfo) -> tuple[int, ...]:
    """The shape of all blocks. Raises `SpecMismatch` where they differ in length."""
    if info.frame.variable:
        raise SpecMismatch(f"stream {info.path}: blocks of a variable length are no array; take them one by one")
    return tuple(size for size in info.frame.shape if size is not None)


def plain(value: Any) -> Any:
    """An attribute as files and other libraries hold it: numbers, text, and lists of them; the rest as JSON."""
    import json

    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list) and value and all(isinstance(each, int | float) for each in value):
        return value
    return json.dumps(value)
