"""Kernels: a small NumPy language, compiled. docs/kernel-language.md is the language, `ir` what it becomes."""

from hiss.kernels import hk
from hiss.kernels.authoring import Kernel, column, filter, kernel, reduce, scan
from hiss.kernels.checker import check
from hiss.kernels.compiler import Compiler, ResolvedStage
from hiss.kernels.library.statistics import BUILTIN, builtin
from hiss.kernels.memory import Memory
from hiss.kernels.packets import Packets
from hiss.kernels.pipeline import Fault, Outcome, Pipeline
from hiss.kernels.reduction import Reduction
from hiss.kernels.specialiser import check_parameters
from hiss.kernels.untyped import CheckedKernel

__all__ = [
    "BUILTIN",
    "CheckedKernel",
    "Compiler",
    "Fault",
    "Kernel",
    "Memory",
    "Outcome",
    "Packets",
    "Pipeline",
    "Reduction",
    "ResolvedStage",
    "builtin",
    "check",
    "check_parameters",
    "column",
    "filter",
    "hk",
    "kernel",
    "reduce",
    "scan",
]
