"""A stream's pipeline run once more over its retained raw blocks, compared with what was stored.

With the recorded kernels it says whether the results can be had again; with another version of one of them, what that
would have changed. Nothing is stored. Called from any thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hiss.blocks import Storage
from hiss.elements import elements
from hiss.errors import InvalidInput, KernelNotFound
from hiss.extent import Extent
from hiss.kernels import Outcome, Packets, check
from hiss.model import BlockStatus, ByteArray, IntArray, KernelDef, Replay, StageInfo, StreamInfo
from hiss.readout import Readout


def replay(info: StreamInfo, storage: Storage, readout: Readout, kernel: KernelDef | None) -> Replay:
    """Run the pipeline of a stream over its raw blocks, with `kernel` in the place of the stage of that name.

    Raises
    ------
    InvalidInput
        The stream has no kernels, or the kernel is of another kind than the stage.
    KernelNotFound
        No stage has its name.
    """
    if info.raw_id is None or not info.stages:
        raise InvalidInput(f"stream {info.path} has no kernels; there is nothing to replay")
    raw = storage.catalog.stream_by_id(info.raw_id)
    stages = [replace(stage, quarantined=False) for stage in _replaced(info, kernel)]
    pipeline = readout.pipeline(replace(info, stages=tuple(stages)), raw.frame)
    whole = Replay(0, 0, 0, 0, 0, 0, 0, None, 0.0)
    for extent in readout.source(raw).read():
        outcome = pipeline.run(elements(extent, raw.frame), extent.columns, None, extent.index)
        whole = _together(whole, _compared(info, storage, extent, outcome))
    return whole


def _replaced(info: StreamInfo, kernel: KernelDef | None) -> Iterator[StageInfo]:
    if kernel is None:
        yield from info.stages
        return
    names = [stage.name for stage in info.stages]
    if kernel.name not in names:
        raise KernelNotFound(
            f"stream {info.path} has no kernel {kernel.name!r}; it has {', '.join(names)}", name=kernel.name
        )
    for stage in info.stages:
        if stage.name != kernel.name:
            yield stage
        elif stage.kind is not kernel.kind:
            raise InvalidInput(
                f"kernel {kernel.name!r} is a {kernel.kind.name.lower()}; in stream {info.path} it is a "
                f"{stage.kind.name.lower()}"
            )
        else:
            yield replace(stage, source=kernel.source, hash=check(kernel).hash)


def _compared(info: StreamInfo, storage: Storage, raw: Extent, outcome: Outcome) -> Replay:
    """One extent of raw blocks against what became of them."""
    before = storage.index(info.id).status(raw.index)
    now = outcome.status
    stored = before == BlockStatus.STORED
    good = now == BlockStatus.STORED
    equal, largest = _equal(info, storage, raw.index, stored & good, outcome)
    judged_alike = (before == now) & ~stored
    computed = (before == BlockStatus.RAW_ONLY) & good  # of which no result was stored
    same = judged_alike | computed | equal
    return Replay(
        blocks=len(raw),
        same=int(same.sum()),
        different=int((stored & good & ~equal).sum()),
        vetoed=int(((now == BlockStatus.VETOED) & (before != now)).sum()),
        kept=int((good & (before == BlockStatus.VETOED)).sum()),
        recovered=int((good & (before == BlockStatus.KERNEL_FAILED)).sum()),
        failed=int(((now == BlockStatus.KERNEL_FAILED) & (before != now)).sum()),
        first=None if same.all() else int(raw.index[np.argmin(same)]),
        largest=largest,
    )


def _equal(
    info: StreamInfo, storage: Storage, index: IntArray, wanted: ByteArray, outcome: Outcome
) -> tuple[ByteArray, float]:
    """Which of the wanted blocks have the bits that were stored, and the largest difference of any pixel."""
    equal = np.zeros(len(index), bool)
    largest = 0.0
    if not wanted.any():
        return equal, largest
    places = {int(at): place for place, at in enumerate(index.tolist()) if wanted[place]}
    now = list(outcome.frames)
    shape = (None, *outcome.frames.item) if isinstance(outcome.frames, Packets) else outcome.frames.shape[1:]
    fits = (outcome.frames.dtype, shape) == (info.frame.numpy_dtype, info.frame.shape)
    for extent in storage.read(info.id, int(index.min()), int(index.max()) + 1, 1) if fits else ():
        before = list(elements(extent, info.frame))
        for row, at in enumerate(extent.index.tolist()):
            if at not in places:
                continue
            made, stored = now[places[at]], before[row]
            equal[places[at]] = made.tobytes() == stored.tobytes()
            if not equal[places[at]] and made.shape == stored.shape:
                apart = np.abs(made.astype(np.float64) - stored.astype(np.float64))
                largest = max(largest, float(np.nanmax(apart, initial=0.0)))
    return equal, largest


def _together(first: Replay, second: Replay) -> Replay:
    names = ("blocks", "same", "different", "vetoed", "kept", "recovered", "failed")
    return replace(
        second,
        **{name: getattr(first, name) + getattr(second, name) for name in names},
        first=first.first if first.first is not None else second.first,
        largest=max(first.largest, second.largest),
    )
