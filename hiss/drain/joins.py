"""Modules of one detector as one dataset, by block index, without copying them.

A join of a collection (`Store.join`) becomes an NXdata whose `data` is a virtual dataset of shape
`(n, modules, *shape)` over the modules' own datasets: row `i` is `index[i]`, an index that at least one module has.
Where a module lacks that block, `present[i, module]` is 0 and the data is 0. Runs of consecutive frames are mapped
together. Called from the thread that drains.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import h5py
import numpy as np

from hiss.drain.entry import add_group, free_name
from hiss.drain.frames import Written
from hiss.model import IntArray, StreamInfo

Module = tuple[StreamInfo, h5py.Dataset, Written]


def join_fault(name: str, modules: Sequence[str], placed: Mapping[str, Module]) -> str:
    """Why a join can be no dataset, by the names of its modules; '' where it can be one."""
    missing = [module for module in modules if module not in placed]
    if missing or not modules:
        return f"join {name}: {', '.join(missing) or 'a module'} is not in the file"
    frames = {placed[module][0].frame for module in modules}
    if len(frames) > 1 or next(iter(frames)).variable:
        return f"join {name}: its modules differ in dtype or shape, or have no fixed shape"
    return ""


def add_join(entry: h5py.Group, name: str, modules: Sequence[Module], *, reserved: Sequence[str] = ()) -> str:
    """Add the NXdata of a join that has no fault; returns its name in the entry."""
    index = np.unique(np.concatenate([written.index for _, _, written in modules]))
    first = modules[0][1]
    layout = h5py.VirtualLayout((len(index), len(modules), *first.shape[1:]), first.dtype)
    present = np.zeros((len(index), len(modules)), np.uint8)
    for place, (_, data, written) in enumerate(modules):
        rows = np.searchsorted(index, written.index)
        present[rows, place] = 1
        source = h5py.VirtualSource(data)
        for begin, stop in _runs(rows):
            row = int(rows[begin])
            layout[row : row + stop - begin, place] = source[begin:stop]
    group = add_group(entry, free_name(entry, f"{name}_" if name in reserved else name), "NXdata")
    group.create_virtual_dataset("data", layout, fillvalue=0)
    units = modules[0][0].attrs.get("units")
    if isinstance(units, str):
        group["data"].attrs["units"] = units
    group.create_dataset("index", data=index)
    group["index"].attrs["long_name"] = "index of the producer"
    group.create_dataset("present", data=present)
    group["present"].attrs["long_name"] = "1 where the module has the block"
    text = h5py.string_dtype()
    group.create_dataset("module", data=np.array([info.path for info, _, _ in modules], object), dtype=text)
    offsets = [json.dumps(info.attrs.get("offset")) for info, _, _ in modules]
    group.create_dataset("offset", data=np.array(offsets, object), dtype=text)
    group.create_dataset("title", data=name, dtype=text)
    group.attrs["signal"] = "data"
    group.attrs["axes"] = ["index", *(["."] * (len(first.shape)))]
    group.attrs["index_indices"] = 0
    return str(group.name).rsplit("/", 1)[-1]


def _runs(rows: IntArray) -> Iterator[tuple[int, int]]:
    """Stretches of places whose rows follow each other: first, and one past the last."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *breaks.tolist(), len(rows)] if len(rows) else []
    yield from pairwise(edges)
