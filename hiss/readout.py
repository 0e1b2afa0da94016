"""The way out: stored blocks, kernels on the way, and reductions over a whole stream.

A stream with `keep="raw"` stores no result: its blocks are computed here, from the raw companion, with the pipeline
that ran in transit. A stream that was evicted is read from its archive. Called from any thread; keeps no state but the
storage, the archives and the compiler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss import binding, limits
from hiss.archives import Archives
from hiss.blocks import Storage
from hiss.elements import elements
from hiss.errors import InvalidInput, SpecMismatch, StreamEvicted, StreamNotFinal
from hiss.extent import Extent, block_digests
from hiss.kernels import Compiler, Pipeline, Reduction, ResolvedStage, builtin
from hiss.model import (
    BlockStatus,
    BoundKernel,
    Chooser,
    FrameSpec,
    Keep,
    KernelKind,
    Selection,
    StageInfo,
    StreamInfo,
    StreamParam,
    now_text,
)

_EMPTY = np.zeros(0, np.uint8)


def check_here(info: StreamInfo) -> None:
    """Raise `StreamEvicted` where the stream has left the log, and is archived nowhere."""
    if info.eviction is None or info.archives:
        return
    raise StreamEvicted(
        f"stream {info.path} version {info.version} was evicted ({info.eviction.policy}) at "
        f"{now_text(info.eviction.time_ns)}; it is archived nowhere",
        archive="",
        policy=info.eviction.policy,
    )


class Source:
    """Where the blocks of one stream come from: the log, its archive where it was evicted, and with `keep="raw"` the
    pipeline."""

    def __init__(
        self,
        storage: Storage,
        archives: Archives,
        info: StreamInfo,
        raw: StreamInfo | None,
        pipeline: Pipeline | None,
    ) -> None:
        self._storage = storage
        self._archives = archives
        self._info = info
        self._raw = raw
        self._pipeline = pipeline

    def read(
        self,
        start: int | None = None,
        stop: int | None = None,
        step: int = 1,
        choose: Chooser | None = None,
        *,
        data: bool = True,
        from_disk: bool = False,
    ) -> Iterator[Extent]:
        """Stored blocks of a range, in index order. The stream is not evicted meanwhile; `StreamEvicted` where it was
        before and is archived nowhere. Without `data` stored bytes are not read; computed ones come all the same."""
        with self.held():
            if self._raw is None or self.evicted:
                yield from self._stored(self._info, start, stop, step, choose, data=data, from_disk=from_disk)
            else:
                for extent in self._stored(self._raw, start, stop, step, choose, from_disk=from_disk):
                    yield from self._compute(extent)

    def _stored(self, info: StreamInfo, *range_: Any, **how: Any) -> Iterator[Extent]:
        """Of a stream that is held: from the log, or its archive."""
        now = self._storage.catalog.stream_by_id(info.id)
        if now.eviction is None:
            return self._storage.read(info.id, *range_, **how)
        return self._archives.read(now, *range_, **how)

    @property
    def evicted(self) -> bool:
        """Whether the stream has left the log; while it is held it does not."""
        return self._storage.catalog.stream_by_id(self._info.id).eviction is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing that is read here is evicted before the end of the block. Raises `StreamEvicted`."""
        streams = [self._info] if self._raw is None else [self._info, self._raw]
        with self._storage.pins.reading(*(stream.id for stream in streams)):
            for stream in streams:
                check_here(self._storage.catalog.stream_by_id(stream.id))
            yield

    def newest(self, choose: Chooser | None = None) -> Iterator[Extent]:
        """The stored block of the highest index of those that are chosen, if there is one."""
        if self.evicted:
            last = self._archives.newest(self._storage.catalog.stream_by_id(self._info.id), choose)
        elif choose is not None:
            last = self._last(choose)
        else:
            last = self._storage.index(self._info.id).newest(
                BlockStatus.STORED if self._raw is None else BlockStatus.RAW_ONLY
            )
        return iter(()) if last is None else self.read(last, last + 1)

    def _last(self, choose: Chooser) -> int | None:
        """The highest index that is chosen."""
        last = None
        with self.held():
            for extent in self._stored(self._raw or self._info, choose=choose, data=False):
                index = extent.index
                if self._raw is not None:
                    index = index[self._storage.index(self._info.id).status(index) == BlockStatus.RAW_ONLY]
                last = int(index[-1]) if len(index) else last
        return last

    def arrivals(self, cursor: int) -> tuple[list[Extent], int]:
        """What became readable since `cursor`, in the order in which it came, and the next cursor."""
        extents, after = self._storage.arrivals(self._info.id, cursor)
        if self._raw is None:
            found = [extent.select(extent.status == BlockStatus.STORED) for extent in extents]
        else:
            computed = [extent.index[extent.status == BlockStatus.RAW_ONLY].tolist() for extent in extents]
            found = [block for index in computed for i in index for block in self.read(i, i + 1)]
        return [extent for extent in found if len(extent)], after

    def _compute(self, extent: Extent) -> Iterator[Extent]:
        assert self._raw is not None
        assert self._pipeline is not None
        status = self._storage.index(self._info.id).status(extent.index)
        wanted = extent.select(status == BlockStatus.RAW_ONLY)
        if len(wanted):
            yield from through(self._pipeline, wanted, self._raw.frame)


class Readout:
    """Reads of one node."""

    def __init__(self, storage: Storage, compiler: Compiler, archives: Archives) -> None:
        self._storage = storage
        self._archives = archives
        self.compiler = compiler

    def warm(self) -> None:
        """Have the compiler of kernels ready; returns at once."""
        self.compiler.warm()

    def source(self, info: StreamInfo) -> Source:
        check_here(info)
        if info.keep is not Keep.RAW or info.raw_id is None or info.eviction is not None:
            return Source(self._storage, self._archives, info, None, None)
        raw = self._storage.catalog.stream_by_id(info.raw_id)
        return Source(self._storage, self._archives, info, raw, self.pipeline(info, raw.frame))

    def read(self, info: StreamInfo, selection: Selection) -> Iterator[Extent]:
        """Stored blocks in index order, through the selection's kernels."""
        if selection.step < 1:
            raise InvalidInput(f"stream {info.path}: step {selection.step}; it is at least 1")
        source = self.source(info)
        choose = selection.chooser(info.columns, f"stream {info.path}")
        if selection.newest:
            extents = source.newest(choose)
        else:
            data = selection.data or bool(selection.kernels)
            extents = source.read(
                selection.start, selection.stop, selection.step, choose, data=data, from_disk=selection.from_disk
            )
        if selection.kernels:
            pipeline = self._build(self.record(selection.kernels), info.frame, info)
            extents = (found for extent in extents for found in through(pipeline, extent, info.frame))
        if not selection.data:
            extents = (replace(extent, data=_EMPTY) for extent in extents)
        return extents

    def reduction(self, info: StreamInfo, stage: ResolvedStage) -> Reduction:
        """A `reduce` kernel, compiled for the blocks of a stream."""
        return Reduction.build(stage, info.frame.numpy_dtype, _fixed_shape(info.frame, info), self.compiler)

    def reduce(self, info: StreamInfo, stage: ResolvedStage) -> npt.NDArray[Any]:
        """Run a `reduce` kernel over a stream, in index order."""
        reduction = self.reduction(info, stage)
        for extent in self.source(info).read():
            reduction.update(extent.frames(info.frame))
        return reduction.result()

    def results(self, info: StreamInfo, reduction: Reduction, every: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """A reduction's results over a stream: with `every` one for each window of so many indices that has a block,
        under the window's number; without, one for all, under 0."""
        window = 0
        for extent in self.source(info).read():
            numbers = extent.index // every if every else np.zeros(len(extent), np.int64)
            for number in np.unique(numbers).tolist():
                if number != window and reduction.count:
                    yield window, reduction.result()
                    reduction.restart()
                window = number
                reduction.update(extent.select(numbers == number).frames(info.frame))
        if reduction.count:
            yield window, reduction.result()

    def parameter(self, param: StreamParam) -> tuple[StreamInfo, npt.NDArray[Any]]:
        """The value of a stream as a kernel's parameter: its reduction, or its only block."""
        info = self._storage.catalog.stream(param.path, param.version)
        if not info.state.final:
            raise StreamNotFinal(f"stream {info.path} is still open; seal it before a kernel takes it as a parameter")
        if param.reduce is not None:
            return info, self.reduce(info, ResolvedStage(builtin(param.reduce), {}, 0.0))
        if info.completeness.blocks != 1:
            raise InvalidInput(
                f"stream {info.path} has {info.completeness.blocks} blocks; as a kernel's parameter it has one, "
                "or name a reduction such as .mean()"
            )
        _fixed_shape(info.frame, info)
        return info, next(iter(self.source(info).read())).frames(info.frame)[0]

    def record(self, kernels: Sequence[BoundKernel]) -> tuple[StageInfo, ...]:
        """The record of kernels that are attached to a stream or a read."""
        return tuple(binding.record(kernel, self._storage.catalog, self.parameter) for kernel in kernels)

    def pipeline(self, info: StreamInfo, came_as: FrameSpec) -> Pipeline:
        """The compiled maps and filters of a stream, as its record says."""
        pipeline = self._build(info.stages, came_as, info)
        for number, stage in enumerate(info.stages):
            if stage.quarantined:
                pipeline.quarantine(number)
        return pipeline

    def shadow(self, stage: StageInfo, info: StreamInfo) -> Pipeline:
        """A pipeline of one kernel, for the blocks that leave a stream's own."""
        return self._build([stage], info.frame, info)

    def out_frame(self, stages: Sequence[StageInfo], info: StreamInfo) -> FrameSpec:
        """The blocks that leave `stages` when those of `info` enter them; compiles."""
        return self.fitted(stages, info)[0]

    def fitted(self, stages: Sequence[StageInfo], info: StreamInfo) -> tuple[FrameSpec, tuple[StageInfo, ...]]:
        """The same, and the stages with what there is to warn of. Reductions are checked and compiled, too."""
        pipeline = self._build(stages, info.frame, info)
        leaving = replace(info, frame=_leaving(pipeline))
        reductions = [stage for stage in stages if stage.kind is KernelKind.REDUCE]
        built = [self.reduction(leaving, binding.stage(stage, self._storage.catalog)) for stage in reductions]
        texts = [*pipeline.warnings, *(text for each in built for text in each.warnings)]
        return leaving.frame, tuple(with_warnings(stage, texts) for stage in stages)

    def _build(self, stages: Sequence[StageInfo], came_as: FrameSpec, info: StreamInfo) -> Pipeline:
        inner = [stage for stage in stages if stage.kind is not KernelKind.REDUCE]
        if came_as.opaque and inner:
            raise SpecMismatch(
                f"stream {info.path}: its blocks are bytes without a dtype; kernels take numbers. Create it with the "
                "dtype of the items, such as dtype='uint64', shape=(None,)"
            )
        resolved = [binding.stage(stage, self._storage.catalog) for stage in inner]
        built = Pipeline.build(resolved, came_as.numpy_dtype, came_as.shape, info.columns_dtype, self.compiler)
        if len(inner) < len(stages):  # what is left are reductions
            _fixed_shape(_leaving(built), info)
        return built


def _leaving(pipeline: Pipeline) -> FrameSpec:
    return FrameSpec(pipeline.out_dtype.str, pipeline.out_shape)


def through(pipeline: Pipeline, extent: Extent, frame: FrameSpec) -> Iterator[Extent]:
    """The blocks of `extent` that come through `pipeline`, in pieces whose results are no larger than an extent."""
    first = 0
    for stop in _stops(pipeline, extent, frame):
        result = _through(pipeline, extent.select(np.arange(first, stop)), frame)
        first = stop
        if len(result):
            yield result


def _stops(pipeline: Pipeline, extent: Extent, frame: FrameSpec) -> Iterator[int]:
    """Where to cut an extent so that the results of each piece fit one, if those of one block do."""
    made = [pipeline.result_bytes(1, length // frame.item_bytes) for length in extent.length.tolist()]
    taken = 0
    for row, nbytes in enumerate(made):
        if taken and taken + nbytes > limits.EXTENT_BYTES_TARGET:
            yield row
            taken = 0
        taken += nbytes
    if made:
        yield len(made)


def _through(pipeline: Pipeline, extent: Extent, frame: FrameSpec) -> Extent:
    outcome = pipeline.run(elements(extent, frame), extent.columns, None)
    good = outcome.status == BlockStatus.STORED
    data, length = outcome.packed()
    kept = replace(extent, data=_EMPTY, length=np.zeros(len(extent), np.int64)).select(good)
    return replace(kept, data=data, length=length, digest=block_digests(data, length))


def _fixed_shape(frame: FrameSpec, info: StreamInfo) -> tuple[int, ...]:
    if frame.variable:
        raise SpecMismatch(
            f"stream {info.path}: this takes blocks of one shape; these are {frame.shape}, of variable length; a map "
            "before it may make something of one shape of each"
        )
    return tuple(size for size in frame.shape if size is not None)


def with_warnings(stage: StageInfo, texts: Sequence[str]) -> StageInfo:
    """The stage with those of the texts that are about it."""
    begin = f"kernel {stage.name!r}, "
    return replace(stage, warnings=tuple(text for text in texts if text.startswith(begin)))
