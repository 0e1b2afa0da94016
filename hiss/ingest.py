"""The way of the data, composed once, whichever transport the bytes came in by.

    admit     reservations: is there room for it in the log            on the thread that received the extent
    receive   admission -> arena (or there already), digests checked     on the thread that received the extent
    process   what is new -> kernels -> log (raw first, then result)    on the stream's own thread, in order
    settled   the sync that covers it: memory freed, ack                on the log's committer thread

Invariants: an extent that was sent before is acknowledged again and stored once; memory is freed exactly once, when the
last record that was written from it is durable or has failed. `session` counts what has come how far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hiss.admission import check_extent
from hiss.blocks import Charge, Reservations, Storage, record_bytes
from hiss.errors import BlockConflict, HissError
from hiss.extent import Extent
from hiss.landing import ArenaSlots, Landed, Space, Spaces, land, land_in_place
from hiss.model import BlockStatus, FrameSpec, Keep, StreamInfo
from hiss.refinery import Refinery


class Ingest:
    """The steps for one open stream. One thread at a time calls `receive`, one `process`."""

    def __init__(
        self,
        info: StreamInfo,
        came_as: FrameSpec,
        storage: Storage,
        spaces: Spaces,
        refinery: Refinery | None,
        reservations: Reservations,
    ) -> None:
        self.info = info
        self.came_as = came_as  # the producer's frames; `info.frame` are those that leave the pipeline
        self.storage = storage
        self.spaces = spaces
        self.refinery = refinery
        self.reservations = reservations

    def admit(self, blocks: int, data_bytes: int, alive: Callable[[], bool]) -> Charge:
        """Wait until the log has room for an extent of so many blocks and bytes, and count it as on its way.

        Raises
        ------
        SpaceExhausted
            It has none within `limits.SPACE_WAIT_S`.
        """
        return self.reservations.admit(self.info.collection, *self.cost(blocks, data_bytes), alive)

    def cost(self, blocks: int, data_bytes: int) -> tuple[int, int]:
        """What an extent takes of the log, at most unless a kernel fails, and of the arena. Bytes."""
        columns = self.info.columns_dtype.itemsize
        came = record_bytes(blocks, columns, data_bytes)
        cost = came
        if self.refinery is not None:
            result = record_bytes(blocks, columns, self._result_bytes(blocks, data_bytes) or data_bytes)
            described = record_bytes(blocks, columns, 0)
            cost = {Keep.RESULT: result, Keep.RAW: came + described, Keep.BOTH: came + result}[self.info.keep]
        return cost, data_bytes + self._result_bytes(blocks, data_bytes)

    def _result_bytes(self, blocks: int, data_bytes: int) -> int:
        """Space for what the kernels make of so many blocks."""
        return self.refinery.result_bytes(blocks, data_bytes) if self.refinery else 0

    def reserve(self, blocks: int, data_bytes: int) -> Space | None:
        """Memory of the arena to receive an extent in; None where it is to come by the ordinary way."""
        return self.spaces.reserve(data_bytes, self._result_bytes(blocks, data_bytes))

    def slots(self, slot_bytes: int) -> ArenaSlots | None:
        """Memory of the arena for a producer in this process; None with kernels, whose results land beside. While there
        are reservations it gives none: what lies in the arena is counted then, from the extent's coming on."""
        if self.refinery is not None:
            return None
        return self.spaces.slots(slot_bytes, lambda: not self.reservations.are_some)

    def receive(
        self,
        extent: Extent,
        space: Space | ArenaSlots | None,
        received_ns: int,
        on_settled: Callable[[Landed, HissError | None], None],
        *,
        trusted: bool = False,
    ) -> Iterator[Landed]:
        """Check an extent and bring it into the arena, unless it is in its `space` there; what comes out must be
        processed or its `done` called. Digests of one that is `trusted` are not checked, unless kernels make others of
        its bytes."""
        check_extent(self.info, self.came_as, extent)
        if isinstance(space, ArenaSlots):
            landed = space.land(extent, received_ns, on_settled)
            if landed is not None:
                return iter((landed,))
        elif space is not None:
            trusted = trusted and self.refinery is None
            return iter((land_in_place(space, extent, received_ns, on_settled, trusted=trusted),))
        return land(self.storage.arena, extent, self._result_bytes, received_ns, on_settled)

    def process(self, landed: Landed) -> int:
        """Run the kernels and write the records; when this returns they are *written*, and take so many bytes."""
        taken = 0
        fresh = self._unseen(landed.extent)
        records = self.refinery.refine(fresh, landed.result) if self.refinery else [(self.info.id, fresh)]
        for stream_id, record in records:
            if stream_id != self.info.id:  # a crash may have come between the raw block and its result
                record = record.select(~self.storage.index(stream_id).handled(record.index))
            if len(record):
                landed.hold()
                try:
                    self.storage.append(stream_id, record, landed.done, landed.region_of(record.data))
                except BaseException:
                    landed.done()
                    raise
                taken += record_bytes(len(record), record.columns.dtype.itemsize, record.data.size)
        return taken

    def _unseen(self, extent: Extent) -> Extent:
        """The blocks that are not handled yet; raises `BlockConflict` for one that was sent with other bytes."""
        index = self.storage.index(self.info.id)
        seen = index.handled(extent.index)
        if not seen.any():
            return extent
        sent = seen & (extent.status == BlockStatus.STORED)
        other = index.source_digests(extent.index[sent]) != extent.source_digest[sent]
        if other.any():
            where = int(extent.index[sent][np.argmax(other)])
            raise BlockConflict(
                f"stream {self.info.path}: block {where} was sent before with other bytes; the first ones are kept; "
                "give the new block another index",
                index=where,
            )
        return extent.select(~seen)
