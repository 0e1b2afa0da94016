"""A kernel's generated code, for people and for other tools: what `hiss kernel show --source` and `hiss kernel emit`
print.

    numpy        the typed form, one NumPy call a line: what the interpreter does
    numba        the file that the Numba back end compiles
    opencl       what the OpenCL back end compiles
    fpga-opencl  one work-item with static loops, for the OpenCL compilers of FPGA makers

With `readable`, each line of the kernel's source stands as a comment above what was made of it. Without it nothing of
the user's text is in the result. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hiss.errors import InvalidInput
from hiss.kernels import opencl_printer
from hiss.kernels.checker import check
from hiss.kernels.compiler import ResolvedStage, program_of
from hiss.kernels.dtypes import DType
from hiss.kernels.ir import LEAVES, Node, Program, Shape
from hiss.kernels.numba_printer import print_program
from hiss.kernels.opencl_printer import Form
from hiss.kernels.specialiser import FrameType
from hiss.model import KernelKind

_Print = Callable[[Program, Sequence[str]], str]


def emit(stage: ResolvedStage, frame: FrameType, target: str, *, readable: bool = False) -> str:
    """The code of a kernel for blocks of one type; of a kernel with a state, of its `step`.

    Raises
    ------
    InvalidInput
        No such target.
    KernelRejected, ParameterMismatch, LimitExceeded
        The kernel does not fit the blocks or its parameters.
    """
    if target not in TARGETS:
        raise InvalidInput(f"target {target!r}: there are {', '.join(TARGETS)}")
    checked = check(stage.definition)
    function, states = "", tuple[tuple[DType, Shape], ...]()
    if stage.definition.kind in (KernelKind.REDUCE, KernelKind.SCAN):
        function = "step"
        init = program_of(checked, frame, stage, "init").program
        states = tuple((output.dtype, output.shape) for output in init.outputs)
    program = program_of(checked, frame, stage, function, states).program
    lines = stage.definition.source.splitlines() if readable else ()
    return TARGETS[target](program, lines)


def _numba(program: Program, source: Sequence[str]) -> str:
    return print_program(program, source).text


def _opencl(program: Program, source: Sequence[str]) -> str:
    return opencl_printer.print_opencl(program, Form.WORKERS, source).text


def _fpga(program: Program, source: Sequence[str]) -> str:
    return opencl_printer.print_opencl(program, Form.SINGLE, source).text


def _numpy(program: Program, source: Sequence[str]) -> str:
    """One line for each node, the single values of the source in their place."""
    names: dict[int, str] = {}
    lines: list[str] = []
    told = 0
    for node in program.nodes:
        if node.op == "const":
            names[id(node)] = f"np.{node.dtype.name}({node.attrs[0]!r})"
            continue
        if node.op in LEAVES:
            names[id(node)] = node.op + "".join(map(str, node.attrs))
            lines.append(f"{names[id(node)]}: {_type(node)}")
            continue
        if source and 0 < node.line != told:
            told = node.line
            lines += ["", f"# {told}: {source[told - 1].strip()}"]
        names[id(node)] = f"v{len(names)}"
        operands = [names[id(arg)] for arg in node.args]
        lines.append(f"{names[id(node)]} = {_call(node, operands)}  # {_type(node)}")
    return "\n".join([*lines, f"return {', '.join(names[id(output)] for output in program.outputs)}"]) + "\n"


def _type(node: Node) -> str:
    return f"{node.dtype.name} {node.shape}" if node.shape else node.dtype.name


def _call(node: Node, operands: list[str]) -> str:
    match node.op:
        case "cast":
            return f"{operands[0]}.astype(np.{node.dtype.name})"
        case "broadcast":
            return f"np.broadcast_to({operands[0]}, {node.shape})"
        case "reshape":
            return f"{operands[0]}.reshape({node.shape})"
        case "slice":
            starts, steps = node.attrs
            ends = [start + step * count for start, step, count in zip(starts, steps, node.shape, strict=True)]
            parts = [
                f"{start}:{'' if end < 0 else end}{f':{step}' if step != 1 else ''}"
                for start, end, step in zip(starts, ends, steps, strict=True)
            ]
            return f"{operands[0]}[{', '.join(parts)}]"
    attrs = [repr(attr) for attr in node.attrs]
    return f"{node.op}({', '.join([*operands, *attrs])})"


TARGETS: Final[dict[str, _Print]] = {"numpy": _numpy, "numba": _numba, "opencl": _opencl, "fpga-opencl": _fpga}
