"""The boundary of a back end: typed programs go in, callables over extents come out.

Two implementations: `NumpyBackend` here, which is the meaning, and `numba_backend.NumbaBackend`. Executables hold no
state of their own: any number of threads may call one at once, each with its own arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hiss.kernels.interpreter import evaluate
from hiss.kernels.ir import Program
from hiss.kernels.packets import Packets

Array = npt.NDArray[Any]
Frames = Array | Packets
Rows = npt.NDArray[np.int64]


class Executable(Protocol):
    """One compiled program."""

    backend: str  # 'numpy' or 'numba'

    def run(self, frames: Frames, columns: Sequence[Array], rows: Rows, outs: Sequence[Frames]) -> None:
        """Compute `outs[k][row]` from `frames[row]` and `columns[c][row]` for each of `rows`; other rows stay. Results
        that are packets are appended."""
        ...

    def step(
        self,
        frames: Array,
        states: Sequence[Array],
        columns: Sequence[Array] = (),
        rows: Rows | None = None,
        outs: Sequence[Array] = (),
    ) -> None:
        """Advance `states`, in place, by each of `frames[rows]` (all, if None) in order; a scan also gives `outs`."""
        ...


class Backend(Protocol):
    """Makes executables."""

    name: str

    def warm(self) -> None:
        """Prepare for the first compilation; returns at once."""
        ...

    def compile(self, programs: Sequence[Program]) -> list[Executable]: ...


class NumpyExecutable:
    """Interprets a program frame by frame."""

    backend = "numpy"

    def __init__(self, program: Program) -> None:
        self.program = program
        self.order = program.nodes

    def run(self, frames: Frames, columns: Sequence[Array], rows: Rows, outs: Sequence[Frames]) -> None:
        if isinstance(frames, Packets):
            self._run_packets(frames, columns, rows, outs[0])
            return
        for row in rows.tolist():
            values = evaluate(self.program, frames[row], [column[row] for column in columns], (), self.order)
            for out, value in zip(outs, values, strict=True):
                assert not isinstance(out, Packets)
                out[row] = value

    def _run_packets(self, packets: Packets, columns: Sequence[Array], rows: Rows, out: Frames) -> None:
        """Each by the program for its length."""
        for row in rows.tolist():
            packet = packets.packet(row)
            program = self.program.at(len(packet))
            values = evaluate(program, packet, [column[row] for column in columns])
            value = values[0][values[1]] if program.selects else values[0]
            if isinstance(out, Packets):
                out.append(row, value)
            else:
                out[row] = value

    def step(
        self,
        frames: Array,
        states: Sequence[Array],
        columns: Sequence[Array] = (),
        rows: Rows | None = None,
        outs: Sequence[Array] = (),
    ) -> None:
        for row in range(len(frames)) if rows is None else rows.tolist():
            values = evaluate(self.program, frames[row], [column[row] for column in columns], states, self.order)
            copies = [value.copy() for value in values]  # an output may be a view of a state that is written first
            for target, value in zip((*states, *(out[row : row + 1] for out in outs)), copies, strict=True):
                target[...] = value


class NumpyBackend:
    """The interpreter as a back end."""

    name = "numpy"

    def warm(self) -> None:
        """There is nothing to prepare."""

    def compile(self, programs: Sequence[Program]) -> list[Executable]:
        return [NumpyExecutable(program) for program in programs]
