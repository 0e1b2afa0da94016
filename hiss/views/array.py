"""A stream as an array `(blocks, *shape)`, of which only what is indexed is read, and when it is indexed.

It knows the buffer by a `Source`, so it can be pickled and read by another process over a connection of its own. In
memory are the result and one extent. What dask and xarray need of an array, not all of NumPy: integers, slices and one
vector. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.errors import BlockMissing, InvalidInput, MissingExtra
from hiss.model import IntArray, Selection, StreamInfo
from hiss.store import Store
from hiss.views.places import Indices, fixed_shape, indices
from hiss.views.source import Source


class LazyArray:
    """What is common to arrays whose first axis is read in rows. Subclasses give `rows`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def rows(self, places: IntArray, rest: tuple[Any, ...]) -> npt.NDArray[Any]:
        """The rows at `places`, which rise, each indexed by `rest`: slices and at most one vector."""
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        keys = _expanded(key, self.ndim)
        whole = [_slice(each, size) for each, size in zip(keys, self.shape, strict=True)]
        first = whole[0]
        places = np.arange(self.shape[0])[first] if not isinstance(first, slice) else np.arange(
            *first.indices(self.shape[0])
        )  # fmt: skip
        if len(places) > 1 and not bool((np.diff(places) > 0).all()):
            wanted, order = np.unique(places, return_inverse=True)
            found = self.rows(wanted, tuple(whole[1:]))[order]
        else:
            found = self.rows(places, tuple(whole[1:]))
        dropped = tuple(axis for axis, each in enumerate(keys) if isinstance(each, Integral))
        return found.squeeze(dropped) if dropped else found

    def room(self, count: int, rest: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Memory for so many rows, each indexed by `rest`."""
        return np.empty((count, *np.empty((0, *self.shape[1:]))[(slice(None), *rest)].shape[1:]), self.dtype)


class StreamArray(LazyArray):
    """The stored blocks of one stream, as it was when this was made.

    Parameters
    ----------
    source : Source
    info : StreamInfo
        Of blocks of one shape.
    index : range or ndarray
        The producer's index of each row.
    """

    def __init__(self, source: Source, info: StreamInfo, index: Indices) -> None:
        self.shape = (len(index), *fixed_shape(info))
        self.dtype = info.frame.numpy_dtype
        self.index = index
        self.token = f"{info.id}-{info.digest or len(index)}"
        self._source = source
        self._path, self._id, self._frame = info.path, info.id, info.frame

    @classmethod
    def of(cls, store: Store, info: StreamInfo) -> StreamArray:
        fixed_shape(info)
        return cls(Source.of(store), info, indices(store, info))

    def rows(self, places: IntArray, rest: tuple[Any, ...]) -> npt.NDArray[Any]:
        out = self.room(len(places), rest)
        done = 0
        store = self._source.store
        for selection, wanted in self._selections(places):
            for extent in store.read(self._id, selection):
                if wanted is not None:
                    extent = extent.select(np.isin(extent.index, wanted))
                out[done : done + len(extent)] = extent.frames(self._frame)[(slice(None), *rest)]
                done += len(extent)
        if done != len(places):
            raise BlockMissing(
                f"stream {self._path}: {done} of {len(places)} blocks came that were there when this array was made",
                reason="gone",
            )
        return out

    def _selections(self, places: IntArray) -> Iterator[tuple[Selection, IntArray | None]]:
        """The reads that have all these rows, and of which indices, where a read has more."""
        if not len(places):
            return
        step = int(places[1] - places[0]) if len(places) > 1 else 1
        if isinstance(self.index, range) and bool((np.diff(places) == step).all()):
            yield Selection(self.index[int(places[0])], self.index[int(places[-1])] + 1, step), None
            return
        index = np.asarray(self.index)
        for run in np.split(places, np.flatnonzero(np.diff(places) != 1) + 1):
            wanted = index[run]
            more = int(wanted[-1]) + 1 - int(wanted[0]) != len(wanted)
            yield Selection(int(wanted[0]), int(wanted[-1]) + 1), wanted if more else None


class JoinArray(LazyArray):
    """Modules of one detector: `(n, modules, *shape)`. A block that a module lacks is zeros.

    Parameters
    ----------
    modules : list of StreamArray
        Of one shape and dtype.
    index : ndarray
        Every index that at least one of them has.
    """

    def __init__(self, modules: list[StreamArray], index: IntArray) -> None:
        self.shape = (len(index), len(modules), *modules[0].shape[1:])
        self.dtype = modules[0].dtype
        self.index = index
        self.token = "-".join(module.token for module in modules)
        self._modules = modules

    def rows(self, places: IntArray, rest: tuple[Any, ...]) -> npt.NDArray[Any]:
        chosen, inner = np.arange(len(self._modules))[rest[0]].tolist(), rest[1:]
        wanted = self.index[places]
        out = np.zeros((len(places), len(chosen), *self._modules[0].room(0, inner).shape[1:]), self.dtype)
        for column, number in enumerate(chosen):
            module = self._modules[number]
            have, rows = _found(module.index, wanted)
            out[have, column] = module.rows(rows, inner)
        return out

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which blocks each module has: `(n, modules)`."""
        return np.stack([np.isin(self.index, np.asarray(module.index)) for module in self._modules], axis=1)


def _found(index: Indices, wanted: IntArray) -> tuple[IntArray, IntArray]:
    """Of the wanted indices: which are there, and in which rows."""
    there = np.asarray(index, np.int64)
    rows = np.searchsorted(there, wanted)
    have = np.flatnonzero((rows < len(there)) & (there[np.minimum(rows, len(there) - 1)] == wanted)) if len(
        there
    ) else np.zeros(0, np.int64)  # fmt: skip
    return have, rows[have]


def _expanded(key: Any, ndim: int) -> list[Any]:
    """One key for each axis."""
    keys = list(key) if isinstance(key, tuple) else [key]
    places = [place for place, each in enumerate(keys) if each is Ellipsis]
    if len(places) > 1 or len(keys) - len(places) > ndim:
        raise IndexError(f"{len(keys)} indices for an array of {ndim} axes")
    place = places[0] if places else len(keys)
    full = [slice(None)] * (ndim - len(keys) + len(places))
    return [*keys[:place], *full, *keys[place + 1 :]]


def _slice(key: Any, size: int) -> Any:
    """An integer as the slice of its place; what else can be indexed as it is."""
    if isinstance(key, Integral):
        place = int(key) + (size if key < 0 else 0)
        if not 0 <= place < size:
            raise IndexError(f"index {int(key)} is out of bounds for an axis of {size}")
        return slice(place, place + 1)
    return key if isinstance(key, slice) else np.asarray(key)


def to_dask(array: StreamArray | JoinArray, chunk_bytes: int = limits.VIEW_CHUNK_BYTES) -> Any:
    """The array as one of dask's, in chunks of whole rows.

    Raises
    ------
    InvalidInput
        Chunks of no bytes.
    MissingExtra
        dask is not installed.
    """
    if chunk_bytes < 1:
        raise InvalidInput(f"chunk_bytes {chunk_bytes}: expected at least 1")
    try:
        import dask.array as da
    except ImportError:
        raise MissingExtra("arrays of dask need dask: pip install 'hiss[xarray]'", package="dask") from None
    rows = max(1, chunk_bytes // max(1, array.row_bytes))
    chunks = (min(rows, max(1, array.shape[0])), *array.shape[1:])
    make: Any = da.from_array
    return make(
        array,
        chunks,
        name=f"hiss-{array.token}-{rows}",
        asarray=False,
        fancy=False,
        meta=np.empty((0,) * array.ndim, array.dtype),
    )
