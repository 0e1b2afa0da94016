"""Kernels that run beside a stream: they see what leaves its pipeline and report what they would have done.

A shadow never holds up its stream and changes nothing that is stored: it works on a copy of an extent, in a thread of
its own, and extents that come while it is busy are skipped, and counted. `offer` is called from the stream's thread,
the rest from any."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss.kernel_report import KernelReport
from hiss.kernels import Packets, Pipeline
from hiss.model import BlockStatus, StageInfo

log = logging.getLogger(__name__)
Elements = npt.NDArray[Any] | Packets
Blocks = tuple[Elements, npt.NDArray[Any]]


class Shadows:
    """The shadows of one open stream.

    Parameters
    ----------
    path : str
        Of the stream, for messages.
    shadows : sequence of (StageInfo, Pipeline, KernelReport)
        Each a pipeline of one kernel, for the blocks that leave the stream's pipeline.
    """

    def __init__(self, path: str, shadows: Sequence[tuple[StageInfo, Pipeline, KernelReport]]) -> None:
        self._path = path
        self._shadows = list(shadows)
        self._change = threading.Condition()
        self._waiting: Blocks | None = None
        self._busy = self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def stages(self) -> list[tuple[StageInfo, KernelReport]]:
        return [(stage, report) for stage, _, report in self._shadows]

    def offer(self, frames: Elements, columns: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> None:
        """Let them see the `good` ones of some blocks, unless they are still busy with others."""
        if not self._shadows or not good.any():
            return
        with self._change:
            if self._busy or self._closed:
                for _, _, report in self._shadows:
                    report.skipped(int(good.sum()))
                return
            self._busy = True
        blocks = frames[good], columns[good]  # copies: the memory of an extent is not theirs
        with self._change:
            self._waiting = blocks
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"shadow {self._path}", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def drop(self, name: str) -> None:
        """End the shadow of that name; it has become a stage."""
        with self._change:
            self._change.wait_for(lambda: not self._busy)
            self._shadows = [entry for entry in self._shadows if entry[0].name != name]

    def close(self) -> None:
        """Finish what they have been given, and end. More than once is fine."""
        with self._change:
            self._change.wait_for(lambda: not self._busy)
            self._closed = True
            self._change.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting is not None or self._closed)
                if self._waiting is None:
                    return
                (frames, columns), self._waiting = self._waiting, None
                shadows = list(self._shadows)
            try:
                for stage, pipeline, report in shadows:
                    self._look(stage, pipeline, report, frames, columns)
            finally:
                with self._change:
                    self._busy = False
                    self._change.notify_all()

    def _look(
        self, stage: StageInfo, pipeline: Pipeline, report: KernelReport, frames: Any, columns: npt.NDArray[Any]
    ) -> None:
        outcome = pipeline.run(frames, columns)
        vetoed = int((outcome.status == BlockStatus.VETOED).sum())
        stored = int((outcome.status == BlockStatus.STORED).sum())
        each = frames.nbytes // len(frames)
        for fault in outcome.faults:
            log.warning("stream %s, shadow %s: %s", self._path, stage.name, fault.text)
        report.ran(
            sum(outcome.spent_s),
            blocks=len(frames),
            bytes=frames.nbytes,
            vetoed=vetoed,
            vetoed_bytes=vetoed * each,
            failed=len(frames) - vetoed - stored,
            faults=len(outcome.faults),
            result_bytes=outcome.packed()[0].nbytes,
        )
