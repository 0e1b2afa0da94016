"""The blocks of an extent as kernels take them: one array, or packets where their length varies. Pure; any thread."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from hiss.extent import Extent
from hiss.kernels import Packets
from hiss.model import FrameSpec


def elements(extent: Extent, frame: FrameSpec) -> npt.NDArray[Any] | Packets:
    """All blocks, without a copy; every block is STORED."""
    if not frame.variable:
        return extent.frames(frame)
    items = extent.data.view(frame.numpy_dtype).reshape(-1, *(size for size in frame.shape[1:] if size is not None))
    return Packets.of(items, extent.length // frame.item_bytes)
