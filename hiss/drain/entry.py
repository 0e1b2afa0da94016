"""The NeXus tree around the blocks: which group a stream gets, its axes, attributes, kernels, ledger and digests.

    /entry                       NXentry, @default
      NAME                       NXdata of a stream: @signal, @axes; columns, index and time_ns beside the frames
        attributes               NXcollection: the stream's attributes
      instrument/NAME            NXdetector that holds the frames, where they came from an instrument as they are
      process_K_NAME             NXprocess of each kernel: program, version (its hash), source, parameters
      hiss/NAME                  NXcollection: state, completeness, ledger, and a digest for each block

NeXus: https://manual.nexusformat.org, versions of 2024.02. Names that NeXus does not allow get `_` where they differ;
`@hiss_path` has the true one. Called from the thread that drains; writes into an open file, reads nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import h5py
import numpy as np

from hiss.drain.frames import DIGEST_NAME, Written
from hiss.model import Attrs, StageInfo, StreamInfo, now_text

_OWN_NAMES: Final = frozenset({"data", "offset", "index", "time_ns", "attributes", "title", "errors"})
_TEXT: Final = h5py.string_dtype()


def nexus_name(name: str) -> str:
    """`name` as NeXus allows it: letters, digits, `_` and inner dots."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name).strip(".") or "_"


def free_name(parent: h5py.Group, name: str) -> str:
    """`nexus_name(name)`, with a number behind it where the group has such a member already."""
    base = nexus_name(name)
    found = base
    count = 2
    while found in parent:
        found = f"{base}_{count}"
        count += 1
    return found


def add_group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    """A new group of a NeXus class."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def link(parent: h5py.Group, name: str, target: h5py.Dataset) -> None:
    """A NeXus link: a hard link, with `@target` naming the original."""
    target.attrs.setdefault("target", target.name)
    parent[name] = target


def add_attributes(parent: h5py.Group, name: str, attrs: Attrs) -> None:
    """Attributes as datasets of a group: numbers and text as they are, the rest as JSON, marked by `@hiss_json`."""
    if not attrs:
        return
    group = add_group(parent, name, "NXcollection")
    for key, value in attrs.items():
        member = free_name(group, key)
        plain = _plain(value)
        group.create_dataset(member, data=plain)
        if plain is not value:
            group[member].attrs["hiss_json"] = True
        if member != key:
            group[member].attrs["hiss_name"] = key


def _plain(value: Any) -> Any:
    """`value` itself where HDF5 can hold it as a scalar, else its JSON."""
    if isinstance(value, str):
        return value if "\0" not in value and value.isprintable() else json.dumps(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return json.dumps(value)
    return value if isinstance(value, bool | int | float) else json.dumps(value)


def describe_data(group: h5py.Group, info: StreamInfo, written: Written) -> None:
    """Make `group`, which holds the stream's `data`, an NXdata: axes, units, columns, attributes.

    The first axis is the column that the attribute `axis` names, else the first column of numbers, else the index.
    """
    data = group["data"]
    if info.frame.dtype == "|b1":
        data.attrs["hiss_dtype"] = "bool"
    for attribute in ("units", "long_name"):
        if isinstance(info.attrs.get(attribute), str):
            data.attrs[attribute] = info.attrs[attribute]
    group.attrs["signal"] = "data"
    group.attrs["hiss_path"] = info.path
    group.create_dataset("title", data=str(info.attrs.get("title", info.path)), dtype=_TEXT)
    group.create_dataset("index", data=written.index)
    group["index"].attrs["long_name"] = "index of the producer"
    if written.time_ns.any():
        group.create_dataset("time_ns", data=written.time_ns)
        group["time_ns"].attrs.update({"units": "ns", "start": "1970-01-01T00:00:00Z"})
    names = _add_columns(group, info, written)
    add_attributes(group, "attributes", info.attrs)
    if info.frame.variable:
        group.attrs["axes"] = ["."] * data.ndim
        return
    first = names.get(str(info.attrs.get("axis", "")), next(iter(names.values()), "index"))
    group.attrs["axes"] = [first, *(["."] * (data.ndim - 1))]
    for aligned in {"index", "time_ns", *names.values()} & set(group):
        group.attrs[f"{aligned}_indices"] = 0


def _add_columns(group: h5py.Group, info: StreamInfo, written: Written) -> dict[str, str]:
    """Write the columns; returns the members' names of those that can be an axis (numbers)."""
    axes: dict[str, str] = {}
    for column in info.columns:
        wanted = f"column_{column.name}" if column.name in _OWN_NAMES else column.name
        member = free_name(group, wanted)
        values = written.columns[column.name]
        group.create_dataset(member, data=values)
        if column.unit:
            group[member].attrs["units"] = column.unit
        if values.dtype.kind in "iuf":
            axes[column.name] = member
    return axes


def add_processes(entry: h5py.Group, info: StreamInfo) -> None:
    """An NXprocess for each kernel of the stream's pipeline, in their order."""
    for place, stage in enumerate(info.stages):
        name = free_name(entry, f"process_{place + 1}_{info.name}")
        _add_process(add_group(entry, name, "NXprocess"), info, place, stage)


def _add_process(group: h5py.Group, info: StreamInfo, place: int, stage: StageInfo) -> None:
    group.create_dataset("program", data=f"hiss kernel {stage.name}", dtype=_TEXT)
    group.create_dataset("version", data=stage.hash, dtype=_TEXT)
    group.create_dataset("sequence_index", data=place + 1)
    group.create_dataset("date", data=now_text(info.created_ns), dtype=_TEXT)
    group.attrs["stream"] = info.path
    note = add_group(group, "source", "NXnote")
    note.create_dataset("type", data="text/x-python", dtype=_TEXT)
    note.create_dataset("data", data=stage.source, dtype=_TEXT)
    parameters = add_group(group, "parameters", "NXparameters")
    for key, value in stage.params.items():
        scalar = value.get("scalar") if isinstance(value, Mapping) else None
        if isinstance(scalar, bool | int | float):
            parameters.create_dataset(key, data=scalar)
        else:
            parameters.create_dataset(key, data=json.dumps(value), dtype=_TEXT)
    group.create_dataset("kind", data=stage.kind.name.lower(), dtype=_TEXT)
    group.create_dataset("quarantined", data=int(stage.quarantined))


def add_record(parent: h5py.Group, name: str, info: StreamInfo, written: Written, location: str) -> h5py.Group:
    """What hiss knows of the stream besides its blocks: state, completeness, ledger, digests."""
    group = add_group(parent, name, "NXcollection")
    complete = info.completeness
    texts = {
        "path": info.path,
        "id": info.id,
        "state": info.state.name.lower(),
        "abort_reason": info.abort_reason,
        "digest": info.digest,
        "ack": info.ack.name.lower(),
        "keep": info.keep.name.lower(),
        "completeness": str(complete) if info.state.final else f"open; so far {complete.blocks} blocks",
        "produced_by": info.produced_by or "",
        "created": now_text(info.created_ns),
        "final": now_text(info.final_ns) if info.state.final else "",
        "location": location,
    }
    for key, text in texts.items():
        group.create_dataset(key, data=text, dtype=_TEXT)
    numbers = {"version": info.version, "blocks": complete.blocks, "bytes": complete.bytes, "gaps": complete.gaps}
    for key, number in numbers.items():
        group.create_dataset(key, data=np.int64(number))
    if complete.first_index is not None and complete.last_index is not None:
        group.create_dataset("first_index", data=np.int64(complete.first_index))
        group.create_dataset("last_index", data=np.int64(complete.last_index))
    _add_ledger(group, info)
    for key in ("index", "received_ns", "digest", "source_digest"):
        group.create_dataset(f"block_{key}", data=getattr(written, key))
    for key in ("block_digest", "block_source_digest"):
        group[key].attrs["algorithm"] = DIGEST_NAME
    return group


def _add_ledger(parent: h5py.Group, info: StreamInfo) -> None:
    ledger = add_group(parent, "ledger", "NXcollection")
    entries = info.completeness.ledger
    ledger.create_dataset("first", data=np.array([entry.first for entry in entries], np.int64))
    ledger.create_dataset("last", data=np.array([entry.last for entry in entries], np.int64))
    for key in ("stage", "reason"):
        texts: Sequence[str] = [getattr(entry, key) for entry in entries]
        ledger.create_dataset(key, data=np.array(texts, object), dtype=_TEXT)
