"""Reductions that are attached to a stream: computed when it is sealed, stored as streams of their own.

A reduction reads the stored blocks in index order, so that its value depends neither on the order in which they came
nor on how often the server was restarted meanwhile. It becomes final in the same transaction as its stream. One that
fails is left out, with the event `kernel.quarantined`: it never keeps a stream from being sealed."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss import binding
from hiss.blocks import Catalog, Storage
from hiss.errors import HissError, Stopping, Unavailable
from hiss.extent import Extent
from hiss.model import AckLevel, Completeness, FrameSpec, Keep, KernelKind, StageInfo, StreamInfo, StreamState
from hiss.readout import Readout

log = logging.getLogger(__name__)


def store(info: StreamInfo, storage: Storage, readout: Readout, attempt: str | None, now_ns: int) -> list[StreamInfo]:
    """Write `NAME.KERNEL` for each `reduce` stage of `info`; the caller makes them final together with it.

    Where there is no block there is no result, and no stream.
    """
    made = []
    for place, stage in enumerate(info.stages):
        if stage.kind is not KernelKind.REDUCE:
            continue
        stream: StreamInfo | None = None
        for index, value in _results(info, place, stage, storage, readout):
            if stream is None:
                frame = FrameSpec(value.dtype.str, value.shape)
                stream = _stream_for(info, stage, frame, storage.catalog, attempt, now_ns)
                made.append(stream)
            _write(storage, stream, index, np.ascontiguousarray(value))
    return made


def _results(
    info: StreamInfo, place: int, stage: StageInfo, storage: Storage, readout: Readout
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """The results as far as they can be had: a reduction that fails costs its own, and neither blocks nor the seal."""
    try:
        reduction = readout.reduction(info, binding.stage(stage, storage.catalog))
        yield from readout.results(info, reduction, stage.every)
    except (Stopping, Unavailable):
        raise
    except Exception as error:  # of the kernel or its parameters, or of a block that is damaged
        log.error("stream %s: reduction %r failed and is quarantined: %r", info.path, stage.name, error)
        storage.catalog.set_stage(info.id, place, quarantined=True)


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
