"""Reductions that are attached to a stream: computed when it is sealed, stored as streams of their own.

A reduction reads the stored blocks in index order, so that its value depends neither on the order in which they came
nor on how often the server was restarted meanwhile. It becomes final in the same transaction as its stream."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss import binding
from hiss.blocks import Catalog, Storage
from hiss.errors import HissError
from hiss.extent import Extent
from hiss.model import AckLevel, Completeness, FrameSpec, Keep, KernelKind, StageInfo, StreamInfo, StreamState
from hiss.readout import Readout


def store(info: StreamInfo, storage: Storage, readout: Readout, attempt: str | None, now_ns: int) -> list[StreamInfo]:
    """Write `NAME.KERNEL` for each `reduce` stage of `info`; the caller makes them final together with it.

    Where there is no block there is no result, and no stream.
    """
    made = []
    for stage in info.stages:
        if stage.kind is not KernelKind.REDUCE:
            continue
        reduction = readout.reduction(info, binding.stage(stage, storage.catalog))
        frame = FrameSpec(reduction.out_dtype.str, reduction.out_shape)
        stream: StreamInfo | None = None
        for index, value in readout.results(info, reduction, stage.every):
            if stream is None:
                stream = _stream_for(info, stage, frame, storage.catalog, attempt, now_ns)
                made.append(stream)
            _write(storage, stream, index, np.ascontiguousarray(value))
    return made


def _stream_for(
    info: StreamInfo, stage: StageInfo, frame: FrameSpec, catalog: Catalog, attempt: str | None, now_ns: int
) -> StreamInfo:
    """A stream for the results: the one that a crash before the seal left behind, or a new one."""
    name = f"{info.name}.{stage.name}"
    for stream in catalog.streams(info.collection, all_versions=True, attempt=attempt):
        if stream.name == name and not stream.state.final and stream.attrs.get("reduction_of") == info.id:
            return stream
    stream = StreamInfo(
        id=uuid.uuid4().hex,
        collection=info.collection,
        name=name,
        version=0,
        frame=frame,
        columns=(),
        ack=AckLevel.DURABLE,
        keep=Keep.RESULT,
        attrs={
            "reduction": stage.name,
            "reduction_of": info.id,
            **({"reduction_every": stage.every} if stage.every else {}),
        },
        stages=(),
        state=StreamState.OPEN,
        completeness=Completeness(0, 0, 0, None, None),
        digest="",
        created_ns=now_ns,
        final_ns=0,
        produced_by=info.produced_by,
    )
    return catalog.add_streams([stream], new_version=True, attempt=attempt)[0]


def _write(storage: Storage, stream: StreamInfo, index: int, value: npt.NDArray[Any]) -> None:
    if storage.index(stream.id).handled(np.array([index])).all():  # before a crash
        return
    failed: list[HissError] = []
    data = value.reshape(-1).view(np.uint8)
    storage.append(
        stream.id, Extent.of([index], data, [data.size]), lambda error: failed.append(error) if error else None
    )
    storage.sync()
    if failed:
        raise failed[0]
