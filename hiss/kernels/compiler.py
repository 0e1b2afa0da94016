"""From a resolved stage to an executable: check, specialise, passes, bounds, back end. One `Compiler` per process.

Compilation happens when a kernel is attached, never on a frame. The cache directory holds pickles of compiled code
(Numba's), so it belongs to this user alone: mode 0700, checked at every start. Any thread may call; compilations of the
Numba back end run in a process of their own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from hiss import limits
from hiss.errors import InvalidInput, PermissionRefused
from hiss.kernels import bounds, passes
from hiss.kernels.backend import Backend, Executable, NumpyBackend
from hiss.kernels.dtypes import DType
from hiss.kernels.ir import Program, Shape
from hiss.kernels.specialiser import FrameType, Specialised, specialise
from hiss.kernels.untyped import CheckedKernel
from hiss.model import ColumnParam, KernelDef, ScalarParam

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResolvedStage:
    """One stage whose streams have been read: parameters are arrays, scalars and columns."""

    definition: KernelDef
    params: Mapping[str, npt.NDArray[Any] | ScalarParam | ColumnParam] = field(default_factory=dict)
    budget_s: float = limits.KERNEL_BUDGET_S


class Compiler:
    """Makes executables of programs.

    Parameters
    ----------
    cache_directory : Path
        For compiled code; made if it is not there. Nobody else may be able to write to it.
    backend : str
        `numba`, `numpy`, `opencl` (a device that is there), or `opencl:` and `cpu`, `gpu` or a part of a device's name.

    Attributes
    ----------
    backend : Backend
        The one that runs kernels: Numba where no OpenCL device can be used, NumPy where Numba cannot be imported.
    notice : str
        Why it is not the one that was asked for, or the newest kernel does not run on it; empty if it is, and does.
    """

    def __init__(self, cache_directory: Path, backend: str = "numba") -> None:
        check_backend(backend)
        kind, _, selector = backend.partition(":")
        self._notice = ""
        self.backend: Backend = NumpyBackend()
        if kind == "numpy":
            return
        directory = _private(Path(cache_directory))
        try:
            from hiss.kernels.numba_backend import NumbaBackend
        except ImportError as error:
            self._note(f"kernels run in NumPy, slowly: Numba cannot be imported ({error})")
            return
        self.backend = NumbaBackend(directory)
        if kind == "opencl":
            self._take_device(directory, selector)

    @property
    def notice(self) -> str:
        return self._notice or getattr(self.backend, "notice", "")

    def _take_device(self, directory: Path, selector: str) -> None:
        """Run kernels on an OpenCL device, if one can be used; what it cannot run runs in Numba."""
        from hiss.kernels.opencl_device import NoDevice, choose

        try:
            device = choose(selector, directory / "pocl")
        except NoDevice as reason:
            self._note(f"kernels run in Numba: {reason}")
            return
        from hiss.kernels.opencl_backend import OpenclBackend

        self.backend = OpenclBackend(directory, device, self.backend)

    def _note(self, text: str) -> None:
        self._notice = text
        _log.warning("%s", text)

    def warm(self) -> None:
        """Have the compiler ready before the first kernel comes; returns at once."""
        self.backend.warm()

    def compile(self, programs: Sequence[Program]) -> list[Executable]:
        """One executable for each program; those that are not cached are compiled together."""
        return self.backend.compile(programs)


def check_backend(name: str) -> None:
    """Raise `InvalidInput` unless a back end has this name."""
    kind, colon, selector = name.partition(":")
    if kind not in ("numba", "numpy", "opencl") or (colon and (kind != "opencl" or not selector)):
        raise InvalidInput(
            f"backend {name!r}: expected 'numba', 'numpy', 'opencl', 'opencl:cpu', 'opencl:gpu', or 'opencl:' "
            "and a part of a device's name"
        )


def program_of(
    checked: CheckedKernel,
    frame: FrameType,
    stage: ResolvedStage,
    function: str = "",
    states: tuple[tuple[DType, Shape], ...] = (),
) -> Specialised:
    """The optimised program of one function of a kernel, within the bounds."""
    typed = specialise(checked, frame, stage.params, function, states)
    program = passes.optimise(typed.program)
    bounds.check(program, checked.source)
    return Specialised(program, typed.warnings)


def _private(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.geteuid():
        raise PermissionRefused(
            f"the kernel cache {directory} belongs to user {status.st_uid}; it holds code, so it must be yours alone"
        )
    if status.st_mode & 0o077:
        directory.chmod(0o700)
    return directory.resolve()
