"""A running statistic over a stream: the state of a `reduce` kernel, advanced block by block.

The state advances in the order of the frames that `update` gets and does not depend on how they were cut into extents.
Whoever feeds it decides which blocks count (the stored ones, in the order of their index). `init` sees the first frame
and makes the state before it; every frame then goes through `step`, the first one too. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss.errors import InvalidInput, KernelRejected, SpecMismatch
from hiss.kernels.backend import Array, Executable
from hiss.kernels.checker import check
from hiss.kernels.compiler import Compiler, ResolvedStage, program_of
from hiss.kernels.interpreter import evaluate
from hiss.kernels.ir import Node, Program
from hiss.kernels.specialiser import FrameType
from hiss.kernels.untyped import CheckedKernel
from hiss.model import KernelKind


class Reduction:
    """A compiled reduction for one frame type. Made by `build`.

    Attributes
    ----------
    out_dtype, out_shape
        Of the result.
    count : int
        Frames that it has seen.
    warnings : tuple of str
    """

    def __init__(
        self,
        name: str,
        frame: FrameType,
        programs: tuple[Program, Program],
        step: Executable,
        warnings: tuple[str, ...],
    ) -> None:
        self._name, self._frame = name, frame
        self._init, self._finish = programs
        self._step = step
        self._states: list[Array] = []
        self.warnings = warnings
        self.count = 0
        self.out_dtype = self._finish.outputs[0].dtype
        self.out_shape = self._finish.outputs[0].shape

    @classmethod
    def build(cls, stage: ResolvedStage, dtype: npt.DTypeLike, shape: tuple[int, ...], compiler: Compiler) -> Reduction:
        """Check the reduction against the frames and compile its step.

        Raises
        ------
        KernelRejected, ParameterMismatch, LimitExceeded
            Also where `step` gives a state of other dtypes or shapes than `init`.
        """
        if stage.definition.kind is not KernelKind.REDUCE:
            raise InvalidInput(f"kernel {stage.definition.name!r} is no reduction")
        checked = check(stage.definition)
        frame = FrameType(np.dtype(dtype).newbyteorder("="), tuple(int(size) for size in shape), np.dtype([]))
        init = program_of(checked, frame, stage, "init")
        states = tuple((output.dtype, output.shape) for output in init.program.outputs)
        step = program_of(checked, frame, stage, "step", states)
        check_state(checked, init.program.outputs, step.program.outputs)
        finish = program_of(checked, frame, stage, "finish", states)
        (executable,) = compiler.compile([step.program])
        texts = dict.fromkeys((*checked.warnings, *init.warnings, *step.warnings, *finish.warnings))
        warnings = tuple(f"kernel {stage.definition.name!r}, {text}" for text in texts)
        return cls(stage.definition.name, frame, (init.program, finish.program), executable, warnings)

    @property
    def backend(self) -> str:
        return self._step.backend

    def update(self, frames: Array) -> None:
        """Advance by `frames` (n, *shape), in their order."""
        frame = self._frame
        if frames.dtype != frame.dtype or frames.shape[1:] != frame.shape:
            raise SpecMismatch(
                f"reduction {self._name!r} takes {frame.dtype} blocks of shape {frame.shape}; "
                f"found {frames.dtype} {frames.shape}"
            )
        if not len(frames):
            return
        if not self._states:
            self._states = [np.array(value, order="C") for value in evaluate(self._init, frames[0])]
        self._step.step(frames, self._states)
        self.count += len(frames)

    def restart(self) -> None:
        """Forget what has been seen."""
        self._states, self.count = [], 0

    def result(self) -> npt.NDArray[Any]:
        """The statistic of what has been seen, as a new array.

        Raises
        ------
        InvalidInput
            No frame has been seen.
        """
        if not self._states:
            raise InvalidInput(f"reduction {self._name!r}: there is no block to reduce")
        (value,) = evaluate(self._finish, None, (), self._states)
        return np.array(value, order="C")


def check_state(checked: CheckedKernel, before: Sequence[Node], after: Sequence[Node]) -> None:
    """Raise `KernelRejected` unless `step` gives the state that `init` made: as many parts, dtypes and shapes."""
    where = checked.functions["step"].result.where
    if len(before) != len(after):
        raise checked.source.error(where, f"`step` gives {len(after)} parts of the state, `init` {len(before)}")
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        if (old.dtype, old.shape) != (new.dtype, new.shape):
            reason = f"part {place} of the state is {old.dtype} {old.shape} after `init`, but {new.dtype} {new.shape}"
            advice = f"give `init` that shape, such as np.zeros({new.shape}, np.{new.dtype})"
            if old.shape == new.shape:
                advice = f"make it np.{new.dtype} in `init`, or use .astype(np.{old.dtype}) in `step`"
            raise checked.source.error(where, f"{reason} after `step`; {advice}", KernelRejected)
