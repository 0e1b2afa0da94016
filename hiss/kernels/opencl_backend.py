"""The OpenCL back end: programs become OpenCL C, are compiled and first run by another process, and run on one device.

A generated file is named by the hash of its text and of the device and driver; its binary lies beside it. Whatever
goes wrong costs speed, never a stream: what cannot be said in C, compiled or loaded runs on the spare back end, with a
logged notice, and so does from the next extent on a kernel whose device reported an error (the extent at hand fails,
with a gap and its raw blocks kept). The driver itself works in this process: one that crashes takes it down, as one of
Numba's functions would; so each kernel first runs in the helper, and restarting is what the log and the
acknowledgements are for.

Any thread may compile; one at a time does. Executables may be called by any number of threads at once.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from hiss import limits
from hiss.kernels import compile_process, opencl_compile, opencl_memory
from hiss.kernels.backend import Array, Backend, Executable, Frames, Rows
from hiss.kernels.ir import Program
from hiss.kernels.numba_backend import NumbaExecutable
from hiss.kernels.opencl_device import OPTIONS, Device
from hiss.kernels.opencl_memory import Session
from hiss.kernels.opencl_printer import PrintedOpencl, print_opencl

_log = logging.getLogger(__name__)
_NAME_DIGITS: Final = 40
CompileFiles = Callable[[list[Path]], dict[Path, str]]


class OpenclFunction:
    """A loaded kernel, called as the Numba function that it says again: with `rows`, then every other argument."""

    def __init__(self, device: Device, binary: Any, printed: PrintedOpencl, program: Program, workers: int) -> None:
        self._device, self._binary, self._printed = device, binary, printed
        self._workers = _workers(printed, workers if device.unified else limits.OPENCL_WORKERS_MAX)
        self._constants = {f"a{k}": opencl_memory.constant(device, array) for k, array in enumerate(program.arrays)}
        self._per_row = {"frame": math.prod(program.shape)}
        self._per_row |= {f"o{k}": output.size for k, output in enumerate(program.outputs)}
        self._per_row |= {f"c{k}": 1 for k in range(len(program.columns))}
        self._local = threading.local()

    def __call__(self, rows: Rows, *arguments: Any) -> None:
        session = self._session()
        names = [one.name for one in self._printed.arguments]
        given = dict(zip(names, (rows, *arguments), strict=True))
        (opencl_memory.in_place if self._device.unified else opencl_memory.by_chunks)(session, rows, given)

    def _session(self) -> Session:
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            cl, workers = self._device.cl, self._workers
            scratch = {
                one.name: cl.Buffer(
                    self._device.context,
                    cl.mem_flags.READ_WRITE,
                    self._printed.scratch[one.name] * one.dtype.itemsize * workers,
                )
                for one in self._printed.arguments
                if one.name in self._printed.scratch
            }
            session = Session(
                device=self._device,
                kernel=self._binary.all_kernels()[0],
                arguments=self._printed.arguments,
                constants=self._constants,
                scratch=scratch,
                per_row=self._per_row,
                parallel=self._printed.parallel,
                workers=workers,
            )
            self._local.session = session
        return session


def _workers(printed: PrintedOpencl, wanted: int) -> int:
    """Work-items at a time: one where each block needs the one before, fewer than wanted where scratch is large."""
    scratch = [one for one in printed.arguments if one.name in printed.scratch]
    each = sum(printed.scratch[one.name] * one.dtype.itemsize for one in scratch)
    return max(1, min(wanted, limits.OPENCL_SCRATCH_BYTES_MAX // max(each, 1))) if printed.parallel else 1


class OpenclExecutable(NumbaExecutable):
    """A program on a device, until that reports an error; then the same program on the spare back end."""

    def __init__(self, program: Program, printed: PrintedOpencl, function: OpenclFunction, spare: Executable) -> None:
        super().__init__(program, printed.numba, function)
        self.backend = "opencl"
        self._spare, self._failed = spare, False

    def run(self, frames: Frames, columns: Sequence[Array], rows: Rows, outs: Sequence[Frames]) -> None:
        if self._failed:
            self._spare.run(frames, columns, rows, outs)
            return
        try:
            super().run(frames, columns, rows, outs)
        except Exception as error:
            self._give_up(error)
            raise

    def step(
        self,
        frames: Array,
        states: Sequence[Array],
        columns: Sequence[Array] = (),
        rows: Rows | None = None,
        outs: Sequence[Array] = (),
    ) -> None:
        if self._failed:
            self._spare.step(frames, states, columns, rows, outs)
            return
        before = [state.copy() for state in states]
        try:
            super().step(frames, states, columns, rows, outs)
        except Exception as error:  # a state misses no block
            self._give_up(error)
            for state, value in zip(states, before, strict=True):
                state[...] = value
            self._spare.step(frames, states, columns, rows, outs)

    def _give_up(self, error: Exception) -> None:
        self._failed, self.backend = True, self._spare.backend
        _log.error("an OpenCL kernel failed on its device; from now on it runs in %s: %r", self._spare.backend, error)


class OpenclBackend:
    """Compiles programs for one device.

    Parameters
    ----------
    directory : Path
        Of generated files and binaries; private to this user.
    device : Device
    spare : Backend
        Runs what this one cannot.
    workers : int, optional
        Work-items at a time on a device in the host's memory; by default one for each of its compute units.
    compile_files : callable, optional
        Leaves a binary beside each file, and says for each `ok` or what went wrong; by default in another process.
    """

    name = "opencl"

    def __init__(
        self,
        directory: Path,
        device: Device,
        spare: Backend,
        workers: int | None = None,
        compile_files: CompileFiles | None = None,
    ) -> None:
        self.directory, self.device, self.spare = directory, device, spare
        self.workers = workers or device.workers
        self._compiled_by = compile_files or self._in_helper
        self._lock = threading.Lock()
        self._loaded: dict[Path, Any] = {}
        self._refused: set[Path] = set()  # by the driver's compiler; it is not asked again
        self.notice = ""  # the newest reason why a kernel does not run on the device
        _prune(directory)

    def warm(self) -> None:
        """Have ready what compiles for the back end that runs what this one cannot."""
        self.spare.warm()

    def compile(self, programs: Sequence[Program]) -> list[Executable]:
        """Executables of the programs; those without a binary are compiled in one helper process.

        Raises
        ------
        LimitExceeded
            One took longer than `limits.KERNEL_COMPILE_S_MAX`.
        """
        spares = self.spare.compile(programs)
        printed = [self._printed(program) for program in programs]
        paths = [None if one is None else self._path(one.text) for one in printed]
        with self._lock:
            wanted = dict(zip(paths, printed, strict=True))
            missing = {
                path: one.text
                for path, one in wanted.items()
                if path is not None and one is not None and self._is_missing(path)
            }
            self._compile_files(missing)
            binaries = [None if path is None else self._binary(path) for path in paths]
        return [
            spare
            if one is None or binary is None
            else OpenclExecutable(program, one, OpenclFunction(self.device, binary, one, program, self.workers), spare)
            for program, one, binary, spare in zip(programs, printed, binaries, spares, strict=True)
        ]

    def _printed(self, program: Program) -> PrintedOpencl | None:
        try:
            return print_opencl(program)
        except Exception as error:  # a form that this back end does not know: its own gap, not the user's
            self._note(f"a kernel cannot be said in OpenCL and runs in {self.spare.name}: {error!r}")
            return None

    def _note(self, text: str) -> None:
        self.notice = text
        _log.warning("%s", text)

    def _path(self, text: str) -> Path:
        digest = hashlib.sha256(f"{self.device.identity}\n{OPTIONS}\n{text}".encode()).hexdigest()
        return self.directory / f"hiss_kernel_{digest[:_NAME_DIGITS]}.cl"

    def _compile_files(self, texts: dict[Path, str]) -> None:
        for path, text in texts.items():
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(text)
            partial.replace(path)
        if texts:
            for path, result in self._compiled_by(list(texts)).items():
                if result != "ok":
                    self._refused.add(path)
                    where = f"{self.device.name} and runs in {self.spare.name}"
                    self._note(f"kernel {path.name} cannot be compiled for {where}: {result}")

    def _is_missing(self, path: Path) -> bool:
        return path not in self._loaded and path not in self._refused and not _binary_of(path).exists()

    def _in_helper(self, paths: list[Path]) -> dict[Path, str]:
        script = [sys.executable, "-P", opencl_compile.__file__, self.device.platform, self.device.name]
        return compile_process.run([*script, *OPTIONS, "--", *map(str, paths)], paths, os.environ)

    def _binary(self, path: Path) -> Any:
        """The loaded program, from this back end's table or its file; None: run on the spare."""
        if path in self._loaded:
            return self._loaded[path]
        binary = _binary_of(path)
        if not binary.exists():
            return None
        if len(self._loaded) >= limits.KERNELS_LIVE_MAX:
            loaded = f"{len(self._loaded)} compiled kernels are loaded (KERNELS_LIVE_MAX)"
            self._note(f"{loaded}; kernel {path.name} runs in {self.spare.name} until a restart")
            return None
        cl, device = self.device.cl, self.device.device
        try:
            program = cl.Program(self.device.context, [device], [binary.read_bytes()]).build(list(OPTIONS))
        except Exception as error:  # of another driver, or damaged
            self._note(f"kernel {path.name} cannot be loaded and runs in {self.spare.name}: {error!r}")
            binary.unlink(missing_ok=True)
            return None
        os.utime(binary)  # used now
        self._loaded[path] = program
        return program


def _binary_of(path: Path) -> Path:
    return path.with_suffix(".bin")


def _prune(directory: Path) -> None:
    """Drop the binaries that have not been used for longest, beyond `limits.KERNEL_CACHE_FILES_MAX`."""
    binaries = sorted(directory.glob("hiss_kernel_*.bin"), key=lambda binary: binary.stat().st_mtime_ns)
    for binary in binaries[: max(0, len(binaries) - limits.KERNEL_CACHE_FILES_MAX)]:
        binary.unlink(missing_ok=True)
        binary.with_suffix(".cl").unlink(missing_ok=True)
