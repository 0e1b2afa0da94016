"""A map with a memory: the state of a `scan` kernel, advanced block by block in the order of the index.

`init` sees the first block that reaches the scan and makes the state before it; every block then goes through `step`,
the first one too, which gives the new state and the block's result. States are never changed in place: a new one
replaces the old one when the results of a slice count, so that what was remembered before can be set again. One thread
at a time, that of the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hiss.kernels.backend import Array, Executable, Rows
from hiss.kernels.compiler import ResolvedStage, program_of
from hiss.kernels.interpreter import evaluate
from hiss.kernels.ir import Program
from hiss.kernels.reduction import check_state
from hiss.kernels.specialiser import FrameType, Specialised
from hiss.kernels.untyped import CheckedKernel

States = tuple[Array, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What the scans of a pipeline remember.

    Attributes
    ----------
    frontier : int or None
        The highest index that the pipeline has seen, whatever became of the block; None before the first.
    states : tuple
        Of each scan its state, None where no block has reached it.
    """

    frontier: int | None
    states: tuple[States | None, ...]


class Scan:
    """One compiled scan.

    Attributes
    ----------
    states : tuple of array, or None
        The state after the last block that counted; None before the first.
    """

    def __init__(self, init: Program, step: Program, executable: Executable) -> None:
        self._init, self._executable = init, executable
        self.kinds = step.states
        self.states: States | None = None

    def run(self, frames: Array, records: Array, columns: Sequence[Array], rows: Rows, out: Array) -> States:
        """The state after `frames[rows]`, whose results are written to `out[rows]`; `states` stays as it is.

        `records` are all columns of the blocks, `columns` those that `step` takes.
        """
        before = self.states
        if before is None:
            first = int(rows[0])
            before = evaluate(self._init, frames[first], [records[first][name] for name, _ in self._init.columns])
        states = tuple(np.array(state, order="C") for state in before)
        self._executable.step(frames, states, columns, rows, (out,))
        return states


def scan_programs(checked: CheckedKernel, frame: FrameType, stage: ResolvedStage) -> tuple[Program, Specialised]:
    """The programs of `init` and of `step`.

    Raises
    ------
    KernelRejected, ParameterMismatch, LimitExceeded
        Also where `step` gives a state of other dtypes or shapes than `init`.
    """
    init = program_of(checked, frame, stage, "init")
    states = tuple((output.dtype, output.shape) for output in init.program.outputs)
    step = program_of(checked, frame, stage, "step", states)
    check_state(checked, init.program.outputs, step.program.outputs[:-1])
    warnings = tuple(dict.fromkeys((*init.warnings, *step.warnings)))
    return init.program, Specialised(step.program, warnings)
