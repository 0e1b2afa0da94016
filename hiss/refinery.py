"""Kernels in transit: from the blocks that are new to the records that are stored.

The raw blocks go to the raw companion as `keep` says, and always where a kernel failed; what leaves the pipeline goes
to the stream itself, with the reason for every block that did not. Called from the stream's own thread only."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hiss.blocks import Region
from hiss.blocks.index import StreamIndex
from hiss.elements import elements
from hiss.extent import Extent, block_digests
from hiss.kernel_report import KernelReport
from hiss.kernels import Memory, Outcome, Pipeline
from hiss.model import BlockStatus, ByteArray, FrameSpec, Keep, StreamInfo
from hiss.scan_memory import ScanMemory
from hiss.shadow import Shadows

_PROCESSED = (BlockStatus.STORED, BlockStatus.VETOED, BlockStatus.KERNEL_FAILED)  # blocks that met the pipeline
log = logging.getLogger(__name__)


class Refinery:
    """The pipeline of one open stream.

    Parameters
    ----------
    info : StreamInfo
        Of the stream; it has a raw companion.
    came_as : FrameSpec
        The producer's frames.
    pipeline : Pipeline
        Compiled for them.
    on_quarantine : callable
        Told the number of a stage that was just quarantined.
    memory : ScanMemory, optional
        Where to keep what the pipeline's scans remember; there if it has any.
    reports : sequence of KernelReport
        How each stage fares.
    shadows : Shadows, optional
        What runs beside it.

    Attributes
    ----------
    turn : Lock
        Held while an extent goes through: who holds it may change the pipeline.
    """

    def __init__(
        self,
        info: StreamInfo,
        came_as: FrameSpec,
        pipeline: Pipeline,
        on_quarantine: Callable[[int], None],
        memory: ScanMemory | None = None,
        reports: Sequence[KernelReport] = (),
        shadows: Shadows | None = None,
    ) -> None:
        assert info.raw_id is not None
        self.turn = threading.Lock()
        self.reports = list(reports)
        self.shadows = shadows or Shadows(info.path, ())
        self.next_index = 0  # one past the highest that went through
        self.info = info
        self.raw_id = info.raw_id
        self.came_as = came_as
        self.pipeline = pipeline
        self.on_quarantine = on_quarantine
        self.memory = memory

    def result_bytes(self, blocks: int, data_bytes: int) -> int:
        """Space that the results of so many blocks take at most; none where all are filters, which hand on what they
        got."""
        items = data_bytes // self.came_as.item_bytes
        return self.pipeline.result_bytes(blocks, items) if self.pipeline.changes else 0

    def resume(self, index: StreamIndex) -> None:
        """Set the scans to where the log is, before the first extent of a session.

        Without the snapshot of the last block a scan cannot go on: it is quarantined, and its blocks are kept raw.
        """
        self.next_index = max(self.next_index, index.next_index)
        if self.memory is None:
            return
        found = [index.newest(status) for status in _PROCESSED]
        last = max((one for one in found if one is not None), default=None)
        memory = self.memory.after(last)
        if memory is not None:
            self.pipeline.remember(memory)
            return
        self.pipeline.remember(Memory(last, tuple(None for _ in self.pipeline.scans)))
        for stage in self.pipeline.scans if last is not None else ():
            log.error(
                "stream %s: what kernel stage %d remembered after block %d is gone; it is quarantined",
                self.info.path,
                stage,
                last,
            )
            self.pipeline.quarantine(stage)
            self.on_quarantine(stage)

    def refine(self, fresh: Extent, space: Region | None) -> list[tuple[str, Extent]]:
        """The records to write, each with the id of its stream, in the order in which to write them."""
        if not len(fresh):
            return []
        with self.turn:
            return self._refine(fresh, space)

    def promote(self, stage: int, pipeline: Pipeline, report: KernelReport) -> None:
        """From the next extent on use `pipeline`, which has one more `stage`. The caller holds `turn`."""
        if (remembered := self.pipeline.memory) is not None:
            pipeline.remember(remembered)
        self.pipeline = pipeline
        self.reports.insert(stage, report)

    def _refine(self, fresh: Extent, space: Region | None) -> list[tuple[str, Extent]]:
        came = fresh.status == BlockStatus.STORED
        status, cause = fresh.status.copy(), fresh.cause.copy()
        outcome = None
        if came.any():
            blocks = fresh.select(came)
            outcome = self.pipeline.run(
                elements(blocks, self.came_as), blocks.columns, None if space is None else space.data, blocks.index
            )
            if self.memory is not None and (remembered := self.pipeline.memory) is not None:
                self.memory.keep(remembered)
            self._report(outcome, blocks)
            self.shadows.offer(outcome.frames, blocks.columns, outcome.status == BlockStatus.STORED)
            status[came], cause[came] = outcome.status, outcome.cause
        self.next_index = max(self.next_index, int(fresh.index.max()) + 1)
        records = []
        raw = came if self.info.keep is not Keep.RESULT else status == BlockStatus.KERNEL_FAILED
        if raw.any():
            records.append((self.raw_id, fresh.select(raw)))
        records.append((self.info.id, self._result(fresh, outcome, status, cause)))
        return records

    def _report(self, outcome: Outcome, blocks: Extent) -> None:
        reached, each = len(blocks), blocks.data.size // len(blocks)
        faulty = {fault.stage for fault in outcome.faults}
        for stage, (report, seconds) in enumerate(zip(self.reports, outcome.spent_s, strict=True)):
            here = outcome.cause == stage
            vetoed = int((here & (outcome.status == BlockStatus.VETOED)).sum())
            failed = int((here & (outcome.status == BlockStatus.KERNEL_FAILED)).sum())
            report.ran(
                seconds,
                blocks=reached,
                bytes=reached * each,
                vetoed=vetoed,
                failed=failed,
                faults=int(stage in faulty),
            )
            reached -= vetoed + failed
        for fault in outcome.faults:
            log.warning("stream %s, kernel stage %d: %s", self.info.path, fault.stage, fault.text)
        for stage in outcome.quarantined:
            log.error("stream %s: kernel stage %d is quarantined", self.info.path, stage)
            self.on_quarantine(stage)

    def _result(self, fresh: Extent, outcome: Outcome | None, status: ByteArray, cause: ByteArray) -> Extent:
        stored = status == BlockStatus.STORED
        data = np.zeros(0, np.uint8)
        length = np.zeros(len(fresh), np.int64)
        if self.info.keep is Keep.RAW:
            status = np.where(stored, np.uint8(BlockStatus.RAW_ONLY), status)
        elif outcome is not None and stored.any():
            data, length[stored] = outcome.packed()
        digest = block_digests(data, length)
        return replace(fresh, length=length, digest=digest, data=data, status=status, cause=cause)
