"""A stream as an xarray.DataArray, a collection as an xarray.Dataset: named axes, coordinates, attributes; lazy.

Every stream of blocks of one shape is a variable `(index, y, x)`, and every join one of `(index, module, y, x)`.
Coordinates are `index`, the producer's; `time`, its clock; and the columns. The largest stream names the axes; another
one shares an axis where it has the same indices, or the same length, and has one of its own, `index_NAME`, where not.
Only stored blocks are rows: a gap is an index that is not there. Blocks are read when they are indexed (`array`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from hiss import limits
from hiss.errors import HissError
from hiss.model import CollectionInfo, StreamInfo
from hiss.store import Store
from hiss.views.array import JoinArray, LazyArray, StreamArray
from hiss.views.places import Beside, at, beside, fixed_shape, indices, plain
from hiss.views.source import Source

_AXES = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}
_OWN = frozenset({"index", "time", "x", "y", "z", "module"})


class Lazy(BackendArray):
    """A `LazyArray` as xarray's back ends give it."""

    def __init__(self, array: LazyArray) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self.array.__getitem__
        )
        return found


@dataclass(slots=True)
class _Parts:
    """A dataset as it grows: variables, coordinates, and how long each axis is."""

    names: frozenset[str]  # that variables have
    sizes: dict[str, int] = field(default_factory=dict)
    index: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)  # of the axes that have one
    variables: dict[str, xr.Variable] = field(default_factory=dict)
    coordinates: dict[str, xr.Variable] = field(default_factory=dict)

    def add(self, name: str, array: StreamArray | JoinArray, inner: tuple[str, ...], attrs: Mapping[str, Any]) -> str:
        """A variable; returns the name of its first axis."""
        first = self._rows(name, np.asarray(array.index, np.int64))
        axes = tuple(self._axis(axis, size, name) for axis, size in zip(inner, array.shape[1:], strict=True))
        rows = max(1, limits.VIEW_CHUNK_BYTES // max(1, array.row_bytes))
        chunks = dict(zip((first, *axes), (rows, *array.shape[1:]), strict=True))
        found = name + "_" if name in _OWN or name in self.sizes else name
        self.variables[found] = xr.Variable(
            (first, *axes), indexing.LazilyIndexedArray(Lazy(array)), dict(attrs), {"preferred_chunks": chunks}
        )
        return first

    def beside(self, name: str, axis: str, found: Beside, units: Mapping[str, str]) -> None:
        """The coordinates of a variable: time and columns."""
        if found.time_ns.any():
            self._coordinate("time", name, xr.Variable((axis,), found.time_ns.astype("datetime64[ns]")))
        for column in found.columns.dtype.names or ():
            attrs = {"units": units[column]} if units[column] else {}
            self._coordinate(column, name, xr.Variable((axis,), np.ascontiguousarray(found.columns[column]), attrs))

    def _coordinate(self, wanted: str, name: str, values: xr.Variable) -> None:
        taken = wanted in self.names or wanted in self.sizes or (wanted in _OWN and wanted != "time")
        for found in ([] if taken else [wanted]) + [f"{wanted}_{name}"]:
            if found not in self.coordinates:
                self.coordinates[found] = values
                return
            there: Any = self.coordinates[found]
            if there.identical(values):
                return

    def _rows(self, name: str, index: npt.NDArray[np.int64]) -> str:
        for axis, there in self.index.items():
            if np.array_equal(there, index):
                return axis
        axis = f"index_{name}" if self.index else "index"
        self.index[axis] = index
        self.sizes[axis] = len(index)
        self.coordinates[axis] = xr.Variable((axis,), index, {"long_name": "index of the producer"})
        return axis

    def _axis(self, axis: str, size: int, name: str) -> str:
        found = axis if self.sizes.setdefault(axis, size) == size else f"{axis}_{name}"
        self.sizes[found] = size
        return found


def stream_array(store: Store, info: StreamInfo) -> xr.DataArray:
    """One stream.

    Raises
    ------
    SpecMismatch
        Its blocks differ in length.
    """
    fixed_shape(info)
    parts = _Parts(frozenset({info.name}))
    _add_stream(parts, Source.of(store), info)
    (variable,) = parts.variables.values()
    return xr.DataArray(variable, parts.coordinates, name=info.name)


def dataset(source: Source, path: str) -> xr.Dataset:
    """A collection, or a single stream.

    Raises
    ------
    NotFound
        Neither is there.
    """
    from hiss.client import Buffer

    found = Buffer(source.store)[path]
    if isinstance(found.info, StreamInfo):
        parts = _Parts(frozenset({found.info.name}))
        fixed_shape(found.info)
        _add_stream(parts, source, found.info)
        return xr.Dataset(parts.variables, parts.coordinates, {"hiss_path": path})
    return _collection(source, found.info)


def _collection(source: Source, info: CollectionInfo) -> xr.Dataset:
    streams = sorted(source.store.streams(info.path), key=lambda each: (-each.completeness.bytes, each.name))
    parts = _Parts(frozenset(each.name for each in streams) | frozenset(info.joins))
    arrays: dict[str, StreamArray] = {}
    left_out: list[str] = []
    for each in streams:
        if each.frame.variable:
            left_out.append(f"{each.name}: blocks of a variable length")
            continue
        try:
            arrays[each.name] = _add_stream(parts, source, each)
        except HissError as error:
            left_out.append(f"{each.name}: {error}")
    left_out += _add_joins(parts, info, arrays)
    attrs = {key: plain(value) for key, value in info.attrs.items()} | {"hiss_path": info.path}
    if left_out:
        attrs["hiss_left_out"] = left_out
    return xr.Dataset(parts.variables, parts.coordinates, attrs)


def _add_stream(parts: _Parts, source: Source, info: StreamInfo) -> StreamArray:
    index = indices(source.store, info)
    found = at(beside(source.store, info), index)
    array = StreamArray(source, info, index)
    axis = parts.add(info.name, array, _axes(array.ndim - 1), _attrs(info))
    parts.beside(info.name, axis, found, {column.name: column.unit for column in info.columns})
    return array


def _add_joins(parts: _Parts, info: CollectionInfo, arrays: Mapping[str, StreamArray]) -> Iterator[str]:
    """Add what can be one array; why the others cannot."""
    for name, names in info.joins.items():
        modules = [arrays[each] for each in names if each in arrays]
        if len(modules) < len(names) or len({(each.shape[1:], each.dtype) for each in modules}) != 1:
            yield f"join {name}: its modules differ in dtype or shape, or one is left out"
            continue
        joined = JoinArray(modules, np.unique(np.concatenate([np.asarray(each.index, np.int64) for each in modules])))
        shown = name + "_" if name in parts.variables else name
        axis = parts.add(shown, joined, ("module", *_axes(joined.ndim - 2)), {"hiss_modules": list(names)})
        present = xr.Variable((axis, parts.variables[shown].dims[1]), joined.present)
        parts.variables[f"{shown}_present"] = present


def _axes(count: int) -> tuple[str, ...]:
    return () if not count else _AXES.get(count, tuple(f"axis_{number}" for number in range(count)))


def _attrs(info: StreamInfo) -> dict[str, Any]:
    own = {
        "hiss_path": info.path,
        "hiss_version": info.version,
        "hiss_state": info.state.name.lower(),
        "hiss_completeness": str(info.completeness),
    }
    return {key: plain(value) for key, value in info.attrs.items()} | own
