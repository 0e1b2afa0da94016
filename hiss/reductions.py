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
from hiss.model import AckLevel, Completeness, FrameSpec, Keep, KernelKind, StreamInfo, StreamState
from hiss.readout import Readout


def store(info: StreamInfo, storage: Storage, readout: Readout, attempt: str | None, now_ns: int) -> list[StreamInfo]:
    """Write `NAME.KERNEL` for each `reduce` stage of `info`; the caller makes them final together with it."""
    if not storage.index(info.id).next_index:
        return []
    made = []
    for stage in info.stages:
        if stage.kind is KernelKind.REDUCE:
            value = np.ascontiguousarray(readout.reduce(info, binding.stage(stage, storage.catalog)))
            stream = _stream_for(info, stage.name, value, storage.catalog, attempt, now_ns)
            _write(storage, stream, value)
            made.append(stream)
    return made


def _stream_for(
    info: StreamInfo, kernel: str, value: npt.NDArray[Any], catalog: Catalog, attempt: str | None, now_ns: int
) -> StreamInfo:
    """A stream for the value: the one that a crash before the seal left behind, or a new one."""
    name = f"{info.name}.{kernel}"
    for stream in catalog.streams(info.collection, all_versions=True, attempt=attempt):
        if stream.name == name and not stream.state.final and stream.attrs.get("reduction_of") == info.id:
            return stream
    stream = StreamInfo(
        id=uuid.uuid4().hex,
        collection=info.collection,
        name=name,
        version=0,
        frame=FrameSpec(value.dtype.str, value.shape),
        columns=(),
        ack=AckLevel.DURABLE,
        keep=Keep.RESULT,
        attrs={"reduction": kernel, "reduction_of": info.id},
        stages=(),
        state=StreamState.OPEN,
        completeness=Completeness(0, 0, 0, None, None),
        digest="",
        created_ns=now_ns,
        final_ns=0,
        produced_by=info.produced_by,
    )
    return catalog.add_streams([stream], new_version=True, attempt=attempt)[0]


def _write(storage: Storage, stream: StreamInfo, value: npt.NDArray[Any]) -> None:
    if storage.index(stream.id).next_index:
        return
    failed: list[HissError] = []
    data = value.reshape(-1).view(np.uint8)
    storage.append(stream.id, Extent.of([0], data, [data.size]), lambda error: failed.append(error) if error else None)
    storage.sync()
    if failed:
        raise failed[0]
