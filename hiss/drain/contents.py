"""Digests of all that a drained file says besides its blocks: attributes, columns, times, kernels, ledger, layout.

Blocks have digests of their own. Every other object of the file gets one here, by its path: XXH3-64 over its class, its
attributes in the order of their names, and for a dataset its dtype, shape and values (of a virtual dataset its
mappings, of the blocks' own datasets no values). They are kept in `/entry/hiss/contents`, so that a file can be checked
by itself, and what changed in it can be named. Objects that somebody added later are no change. Called from the thread
that drains or verifies; reads the open file, and only `add_contents` writes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import h5py
import numpy as np
import xxhash

CONTENTS: Final = "/entry/hiss/contents"
UNREADABLE: Final = (  # what h5py raises of a damaged file
    OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, MemoryError, OverflowError,
)  # fmt: skip
_DEPTH_MAX: Final = 16  # of groups; a drained file has 5


def add_contents(file: h5py.File, blocks: Collection[h5py.Dataset]) -> None:
    """Write the digests; the last thing that is written. `blocks` are the datasets of blocks."""
    found = object_digests(file, blocks)
    group = file[CONTENTS]
    group.create_dataset("path", data=np.array(list(found), object), dtype=h5py.string_dtype())
    group.create_dataset("digest", data=np.fromiter(found.values(), np.uint64, len(found)))


def changed_objects(file: h5py.File, blocks: Collection[h5py.Dataset]) -> tuple[str, ...]:
    """The paths of objects that are missing, or are not what was written; `CONTENTS` where its own table is damaged."""
    try:
        paths = [path.decode() for path in file[CONTENTS]["path"][()]]
        digests = file[CONTENTS]["digest"][()].tolist()
        recorded = dict(zip(paths, digests, strict=True))
    except UNREADABLE:
        return (CONTENTS,)
    if not recorded:
        return (CONTENTS,)
    found = object_digests(file, blocks)
    return tuple(path for path, digest in recorded.items() if found.get(path) != digest)


def object_digests(file: h5py.File, blocks: Collection[h5py.Dataset]) -> dict[str, int]:
    """The digest of every object that can be read, by its path."""
    found: dict[str, int] = {}
    _walk(file, "/", frozenset(blocks), found, 0)
    return found


def _walk(item: Any, path: str, blocks: frozenset[h5py.Dataset], found: dict[str, int], depth: int) -> None:
    try:
        found[path] = _digest(item, item in blocks)
        names = sorted(item) if isinstance(item, h5py.Group) and depth < _DEPTH_MAX else []
    except UNREADABLE:
        found.pop(path, None)  # unreadable: it will be missed
        return
    for name in names:
        below = f"{path.rstrip('/')}/{name}"
        if below == CONTENTS:
            continue
        try:
            member = item[name]
        except UNREADABLE:
            continue
        _walk(member, below, blocks, found, depth + 1)


def _digest(item: Any, is_blocks: bool) -> int:
    state = xxhash.xxh3_64()
    _add(state, type(item).__name__)
    for name in sorted(item.attrs):
        _add(state, name)
        _add(state, item.attrs[name])
    if isinstance(item, h5py.Dataset):
        _add(state, f"{item.dtype.str} {item.shape}")
        if item.is_virtual:
            mappings = [(m.file_name, m.dset_name, _span(m.vspace), _span(m.src_space)) for m in item.virtual_sources()]
            _add(state, repr(mappings))
        elif not is_blocks:
            _add(state, item[()])
    return int(state.intdigest())


def _span(space: Any) -> tuple[Any, ...]:
    return tuple(map(tuple, space.get_select_bounds()))


def _add(state: Any, value: Any) -> None:
    """Feed a value with its type and length, so that no two different values feed the same bytes."""
    array = np.asarray(value)
    if array.dtype.kind in "OU":
        texts = [text if isinstance(text, bytes) else str(text).encode("utf-8", "replace") for text in array.flat]
        state.update(f"text {array.shape} {[len(text) for text in texts]}".encode())
        for text in texts:
            state.update(text)
        return
    state.update(f"{array.dtype.descr if array.dtype.names else array.dtype.str} {array.shape}".encode())
    state.update(np.ascontiguousarray(array).tobytes())
