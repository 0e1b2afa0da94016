"""Streams as those who read them hold them: arrays by the producer's index, live or final, one or several modules.

Everything is fetched when it is asked for; a `Stream` of an open stream shows how it is now.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.archived import wait_archived
from hiss.consumer import Share
from hiss.errors import BlockMissing, MissingExtra, SpecMismatch
from hiss.extent import Extent
from hiss.kernels import BUILTIN
from hiss.model import Attrs, BoundKernel, ColumnRange, IntArray, LedgerEntry, Param, Selection, StreamInfo, StreamParam
from hiss.store import Store

TimeRange = tuple[int | np.datetime64 | None, int | np.datetime64 | None]
Where = Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One block: its data, the producer's index and time, its columns."""

    index: int
    time_ns: int
    data: Any  # ndarray of the stream's shape; bytes for an opaque stream
    columns: Mapping[str, Any]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.data, dtype=dtype, copy=copy)


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """A reduction of a stream: a kernel's parameter, or an array when it is asked for."""

    store: Store
    path: str
    version: int
    kernel: str

    def __hiss_param__(self) -> Param:
        return StreamParam(self.path, self.version, self.kernel)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self.store.reduce(self.path, self.version, self.kernel), dtype=dtype)


class Stream:
    """One version of a stored stream.

    `stream[i]` is the block of the producer's index `i`; `stream[a:b]` the stored blocks of that range of indices, as
    an array `(n, *shape)`, or a list for an opaque or variable stream; `np.asarray(stream)` all that are stored."""

    def __init__(self, store: Store, info: StreamInfo) -> None:
        self._store = store
        self._info = info

    def __repr__(self) -> str:
        info = self.info
        return f"<Stream {info.path} v{info.version} {info.state.name.lower()} {self.dtype} {self.shape}>"

    def __hiss_param__(self) -> Param:
        return StreamParam(self._info.path, self._info.version)

    # ---- what it is

    @property
    def info(self) -> StreamInfo:
        """What the buffer tells of it; asked again while the stream is open."""
        if not self._info.state.final:
            self._info = self._store.stream(self._info.path, self._info.version)
        return self._info

    def wait_archived(self, timeout_s: float | None = None) -> StreamInfo:
        """As `StreamWriter.wait_archived`."""
        return wait_archived(self._store, self.info, timeout_s)

    @property
    def path(self) -> str:
        return self._info.path

    @property
    def version(self) -> int:
        return self._info.version

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._info.frame.numpy_dtype

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of `np.asarray(stream)`: `(stored blocks, *block shape)`."""
        return (self.info.completeness.blocks, *self._info.frame.shape)

    def __len__(self) -> int:
        return self.info.completeness.blocks

    @property
    def attrs(self) -> Attrs:
        return self.info.attrs

    @property
    def ledger(self) -> tuple[LedgerEntry, ...]:
        """Every range of indices that is not stored, and why."""
        return self.info.completeness.ledger

    @property
    def index(self) -> IntArray:
        """The producer's indices of the stored blocks."""
        return self._vector("index", np.int64)

    @property
    def time_ns(self) -> IntArray:
        """The producer's times of the stored blocks, ns since 1970 UTC."""
        return self._vector("time_ns", np.int64)

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of the stored blocks by name: arrays of one value a block."""
        rows = self._vector("columns", self._info.columns_dtype)
        return {column.name: rows[column.name] for column in self._info.columns}

    @property
    def raw(self) -> Stream:
        """What came in, where kernels changed it; the stream itself otherwise."""
        if self._info.raw_id is None:
            return self
        return Stream(self._store, self._store.stream(self._info.path + ".raw", self._info.version))

    # ---- its blocks

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if self._info.frame.variable:
            raise SpecMismatch(f"stream {self.path}: blocks of a variable length are no array; take them one by one")
        return np.asarray(self.read(), dtype=dtype)

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return self.read(key.start, key.stop, 1 if key.step is None else key.step)
        return self.block(int(key)).data

    def read(
        self,
        start: int | None = None,
        stop: int | None = None,
        step: int = 1,
        *,
        time: TimeRange = (None, None),
        where: Where = MappingProxyType({}),
        kernels: Sequence[Any] = (),
    ) -> Any:
        """The stored blocks with indices from `start` to before `stop`, through `kernels` on the way out.

        Parameters
        ----------
        time : pair of int or datetime64
            Only blocks of that range of the producer's clock (ns since 1970 UTC), the end excluded; None is open-ended.
        where : mapping of str to pair of numbers
            Only blocks with these values of columns, both ends included: `{"angle": (0, 90)}`; None is open-ended.

        Returns
        -------
        ndarray of (n, *shape), or a list of blocks where they have no common shape
        """
        bound = bound_kernels(kernels, self._store)
        selection = Selection(start, stop, step, kernels=bound, time_ns=_time_ns(time), where=_ranges(where))
        extents = list(self._extents(selection))
        frame = self._store.out_frame(self._info.id, bound) if bound else self._info.frame
        if frame.variable:
            info = replace(self._info, frame=frame)
            return [block.data for extent in extents for block in blocks_of(extent, info)]
        if not extents:
            return np.empty((0, *[size for size in frame.shape if size is not None]), frame.numpy_dtype)
        return np.concatenate([extent.frames(frame) for extent in extents])

    def block(self, index: int) -> Block:
        """The block of one index.

        Raises
        ------
        BlockMissing
            It is not stored; says why.
        """
        for extent in self._extents(Selection(index, index + 1)):
            return next(blocks_of(extent, self._info))
        raise self._missing(index)

    def find(self, *, time: TimeRange = (None, None), where: Where = MappingProxyType({})) -> IntArray:
        """The indices of the stored blocks of a range of time and with these values of columns, as in `read`. Of no
        block the bytes are read."""
        selection = Selection(data=False, time_ns=_time_ns(time), where=_ranges(where))
        parts = [extent.index for extent in self._extents(selection)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def latest(self, *, time: TimeRange = (None, None), where: Where = MappingProxyType({})) -> Block | None:
        """The stored block of the highest index, for a display, of those in the ranges (as in `read`); None while
        there is none."""
        selection = Selection(newest=True, time_ns=_time_ns(time), where=_ranges(where))
        for extent in self._extents(selection):
            return next(blocks_of(extent, self._info))
        return None

    def __iter__(self) -> Iterator[Block]:
        for extent in self._extents(Selection()):
            yield from blocks_of(extent, self._info)

    def follow(self, start: int | None = None, *, stop: threading.Event | None = None) -> Iterator[Block]:
        """Blocks as they become readable, from index `start` on, until the stream is final, or another thread sets
        `stop`."""
        stop = stop or threading.Event()
        try:
            for extent in self._store.follow(self._info.id, start, stop):
                yield from blocks_of(extent, self._info)
        finally:
            stop.set()

    def share(self, group: str, *, timeout_s: float = limits.SHARE_TIMEOUT_S, blocks: int = 1) -> Share:
        """Be one of several consumers that share the stream's blocks: each block goes to one member of the group.

        `for block in stream.share("fit"): ...; block.done()`. What is not acknowledged within `timeout_s` is given to
        another member: a block reaches at least one, and after a time-out or a crash perhaps more than one.

        Parameters
        ----------
        group : str
            Members that give the same name share; other groups have the stream to themselves. How far a group is is
            kept, also over restarts of the server and of all members.
        timeout_s : float
            From the moment that a block is taken; above the time that a member needs for the blocks that it takes at
            once.
        blocks : int
            That are taken at once, at most; fewer where they would be more than `limits.SHARE_BATCH_BYTES`. More save
            round trips where blocks are small.
        """
        return Share(self._store, self._info, group, timeout_s=timeout_s, blocks=blocks)

    def send_feedback(self, data: Any) -> bool:
        """Send small JSON to the stream's producer, who gets it from `StreamWriter.feedback`; whether one is connected
        that hears it."""
        return self._store.send_feedback(self._info.id, data)

    # ---- reductions

    def mean(self) -> Reduced:
        """The mean of all blocks: for a kernel's parameter, or `np.asarray(stream.mean())`."""
        return Reduced(self._store, self.path, self.version, "mean")

    def maximum(self) -> Reduced:
        """The maximum of all blocks, pixel by pixel."""
        return Reduced(self._store, self.path, self.version, "maximum")

    # ---- as arrays of others

    def to_dask(self, *, chunk_bytes: int = limits.VIEW_CHUNK_BYTES) -> Any:
        """All stored blocks as an array of dask's, `(n, *shape)`, in chunks of about so many bytes; a chunk is read
        when it is computed, by another process over a connection of its own."""
        from hiss.views.array import StreamArray, to_dask

        return to_dask(StreamArray.of(self._store, self.info), chunk_bytes)

    def to_xarray(self) -> Any:
        """All stored blocks as an `xarray.DataArray` with its coordinates; blocks are read when they are indexed."""
        try:
            from hiss.views.dataset import stream_array
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "xarray":
                raise
            raise MissingExtra("datasets need xarray: pip install 'hiss[xarray]'", package="xarray") from None
        return stream_array(self._store, self.info)

    def _extents(self, selection: Selection) -> Iterator[Extent]:
        return self._store.read(self._info.id, selection)

    def _vector(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        parts = [getattr(extent, name) for extent in self._extents(Selection(data=False))]
        return np.concatenate(parts) if parts else np.zeros(0, dtype)

    def _missing(self, index: int) -> BlockMissing:
        whole = self.info.completeness
        for entry in whole.ledger:
            if entry.first <= index <= entry.last:
                why = f"{entry.reason} ({entry.stage})"
                return BlockMissing(f"stream {self.path} has no block {index}: {why}", index=index, reason=why)
        where = "no block is stored yet"
        if whole.first_index is not None:
            where = f"indices go from {whole.first_index} to {whole.last_index}"
        return BlockMissing(f"stream {self.path} has no block {index}: {where}", index=index, reason="out of range")


class Join:
    """Modules of one detector as one dataset, by block index.

    `join[i]` is a masked array `(modules, *shape)`: a module that lacks block `i` is masked. `offsets` are the modules'
    `offset` attributes, where they have one.
    """

    def __init__(self, name: str, modules: Sequence[Stream]) -> None:
        frames = {module.info.frame for module in modules}
        if len(frames) != 1 or modules[0].info.frame.variable:
            kinds = ", ".join(f"{module.path}: {module.dtype} {module.info.frame.shape}" for module in modules)
            raise SpecMismatch(f"join {name!r}: modules have one dtype and one fixed shape; these have {kinds}")
        self.name = name
        self.modules = tuple(modules)

    @property
    def index(self) -> IntArray:
        """All indices that at least one module has."""
        return np.unique(np.concatenate([module.index for module in self.modules]))

    @property
    def offsets(self) -> list[Any]:
        return [module.attrs.get("offset") for module in self.modules]

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (len(self.index), len(self.modules), *self.modules[0].info.frame.shape)

    def gaps(self) -> dict[str, tuple[LedgerEntry, ...]]:
        """Each module's ledger, by its name."""
        return {module.info.name: module.ledger for module in self.modules}

    def __getitem__(self, index: int) -> np.ma.MaskedArray[Any, Any]:
        frames, missing = [], []
        for module in self.modules:
            try:
                frames.append(module[index])
                missing.append(False)
            except BlockMissing:
                frames.append(np.zeros([size or 0 for size in module.info.frame.shape], module.dtype))
                missing.append(True)
        if all(missing):
            raise BlockMissing(f"join {self.name!r}: no module has block {index}", index=index, reason="out of range")
        mask = np.zeros((len(frames), *frames[0].shape), bool)
        mask[missing] = True
        return np.ma.MaskedArray(np.stack(frames), mask)

    def __iter__(self) -> Iterator[tuple[int, np.ma.MaskedArray[Any, Any]]]:
        for index in self.index.tolist():
            yield index, self[index]


def bound_kernels(kernels: Sequence[Any], store: Store) -> tuple[BoundKernel, ...]:
    """Kernels as users write them: bound, bare where they need no parameters, or a name: built in or registered."""

    def bound(kernel: Any) -> BoundKernel:
        if isinstance(kernel, BoundKernel):
            return kernel
        if isinstance(kernel, str):
            return BoundKernel(BUILTIN[kernel] if kernel in BUILTIN else store.kernel(kernel).definition)
        made: BoundKernel = kernel.bind()
        return made

    return tuple(bound(kernel) for kernel in kernels)


def _time_ns(time: TimeRange) -> tuple[int | None, int | None]:
    start, stop = (
        None if each is None else np.asarray(each, "datetime64[ns]").astype(np.int64).item() for each in time
    )
    return start, stop


def _ranges(where: Where) -> tuple[ColumnRange, ...]:
    """Numbers of NumPy as Python's, so that they travel."""
    plain = {name: [None if each is None else np.asarray(each).item() for each in pair] for name, pair in where.items()}
    return tuple(ColumnRange(name, low, high) for name, (low, high) in plain.items())


def blocks_of(extent: Extent, info: StreamInfo) -> Iterator[Block]:
    """The blocks of an extent as users hold them; they share its memory."""
    offsets = extent.offsets
    for i in range(len(extent)):
        raw = extent.data[offsets[i] : offsets[i + 1]]
        data = raw.tobytes() if info.frame.opaque else info.frame.block_array(raw)
        row = {column.name: extent.columns[column.name][i] for column in info.columns}
        yield Block(int(extent.index[i]), int(extent.time_ns[i]), data, row)
