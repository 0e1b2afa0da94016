"""Short ways to make kernels of source text and pipelines of kernels."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hiss.errors import HissError
from hiss.kernels import Compiler, Pipeline, ResolvedStage
from hiss.kernels.backend import NumpyBackend
from hiss.kernels.checker import check
from hiss.kernels.ir import Program
from hiss.kernels.opencl_device import Device
from hiss.kernels.passes import optimise
from hiss.kernels.reduction import check_state
from hiss.kernels.specialiser import FrameType, specialise
from hiss.model import KernelDef, KernelKind
from hiss.testing.pocl_processor import compile_here

NO_COLUMNS = np.dtype([])


def opencl_compiler_for(directory: Path, device: Device) -> Compiler:
    """A compiler for a device, in this process, with the interpreter for what it cannot do."""
    from hiss.kernels.opencl_backend import OpenclBackend

    compiler = Compiler(directory, "numpy")
    compiler.backend = OpenclBackend(directory, device, NumpyBackend(), compile_files=compile_here(device))
    return compiler


def map_of(source: str, name: str = "k") -> KernelDef:
    return KernelDef(name, KernelKind.MAP, textwrap.dedent(source).strip("\n") + "\n")


def filter_of(source: str, name: str = "f") -> KernelDef:
    return KernelDef(name, KernelKind.FILTER, textwrap.dedent(source).strip("\n") + "\n")


def expression(text: str, parameters: str = "") -> KernelDef:
    """A map that returns one expression of `x` and `parameters`."""
    return map_of(f"def k(x{', ' + parameters if parameters else ''}):\n    return {text}\n")


def several(texts: list[str], frame: Any, compiler: Compiler, **params: Any) -> list[Any]:
    """The values of several expressions of one frame `x` and parameters, compiled as one program."""
    frame = np.asarray(frame)
    arguments = "".join(f", {name}" for name in params)
    lines = "".join(f"        r{place} = {text}\n" for place, text in enumerate(texts))
    results = "".join(f"r{place}, " for place in range(len(texts)))
    rest = "    def step(s, x):\n        return s\n    def finish(s):\n        return s\n"
    source = f"class k:\n    def init(x{arguments}):\n{lines}        return {results}\n{rest}"
    checked = check(KernelDef("k", KernelKind.REDUCE, source))
    program = optimise(specialise(checked, FrameType(frame.dtype, frame.shape, NO_COLUMNS), params, "init").program)
    outs = [np.zeros((1, *node.shape), node.dtype) for node in program.outputs]
    (executable,) = compiler.compile([program])
    assert executable.backend == compiler.backend.name
    executable.run(frame[np.newaxis], (), np.array([0]), outs)
    return [out[0] for out in outs]


def specialised_step(definition: KernelDef, frame: FrameType, params: dict[str, Any]) -> Program | None:
    """The program of a scan's step, or None where it is refused."""
    try:
        checked = check(definition)
        states = specialise(checked, frame, params, "init").program.outputs
        kinds = tuple((node.dtype, node.shape) for node in states)
        step = specialise(checked, frame, params, "step", kinds).program
        check_state(checked, states, step.outputs[:-1])
    except HissError:
        return None
    return step


def built(
    definitions: KernelDef | list[KernelDef],
    dtype: Any,
    shape: tuple[int, ...],
    compiler: Compiler,
    *,
    columns: np.dtype[Any] = NO_COLUMNS,
    budget_s: float = 30.0,
    clock: Callable[[], float] | None = None,
    **params: Any,
) -> Pipeline:
    """A pipeline of kernels; the parameters go to the first one."""
    listed = definitions if isinstance(definitions, list) else [definitions]
    stages = [ResolvedStage(one, params if k == 0 else {}, budget_s) for k, one in enumerate(listed)]
    extra = {} if clock is None else {"clock": clock}
    return Pipeline.build(stages, np.dtype(dtype), shape, columns, compiler, **extra)


def applied(definition: KernelDef, frame: Any, compiler: Compiler, **params: Any) -> Any:
    """The result of a map for one frame."""
    frame = np.asarray(frame)
    pipeline = built(definition, frame.dtype, frame.shape, compiler, **params)
    return pipeline.run(frame[np.newaxis], np.zeros(1, NO_COLUMNS)).frames[0]
