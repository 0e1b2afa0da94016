"""Blocks that come from a server, checked: what does not have its digest is never handed on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hiss.errors import BlockDamaged
from hiss.extent import Extent, block_digests
from hiss.model import BlockStatus
from hiss.transport.extent_wire import ExtentDecoder


class CheckedExtents:
    """The extents of one read. One thread at a time."""

    def __init__(self, what: str, without_data: bool) -> None:
        self._what = what
        self._without_data = without_data
        self._decoder = ExtentDecoder(what, without_data)

    def decode(self, body: bytes) -> Iterator[Extent]:
        """The extent of one message, as `good`, if it has data."""
        extent = self._decoder.decode(body)
        if self._without_data:
            yield extent
        else:
            yield from self.good(extent)

    def good(self, extent: Extent) -> Iterator[Extent]:
        """The extent; of one with a damaged block those before it, and then `BlockDamaged`."""
        good = block_digests(extent.data, extent.length) == extent.digest
        good |= extent.status != BlockStatus.STORED
        if good.all():
            yield extent
            return
        bad = int(np.argmin(good))
        if bad:
            yield extent.select(np.arange(bad))
        index = int(extent.index[bad])
        raise BlockDamaged(
            f"{self._what}: block {index} does not have its digest {int(extent.digest[bad]):016x}; it was damaged on "
            "the way here, or in the server after it was checked; read it again",
            index=index,
        )
