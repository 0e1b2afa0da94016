"""The Numba back end: programs become files, compiled by another process, loaded here from Numba's cache.

A compilation takes a good part of a second, stalls other threads and can fail in ways that end a process, so it happens
in a process of its own, which is killed after `limits.KERNEL_COMPILE_S_MAX`. A file is named by the hash of its text
(so of the typed form and the generator), of the versions of Numba, llvmlite and NumPy, and of the CPU; it is never
rewritten. What cannot be compiled runs in the interpreter, with a logged notice: a back end may cost speed, never a
stream.

Any thread may compile; one at a time does. Executables may be called by any number of threads at once: temporaries
belong to the thread.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import llvmlite
import llvmlite.binding
import numba
import numpy as np

from hiss import limits
from hiss.errors import LimitExceeded
from hiss.kernels import numba_compile
from hiss.kernels.backend import Array, Executable, Frames, NumpyExecutable, Rows
from hiss.kernels.compile_helper import CompileHelper
from hiss.kernels.ir import Program
from hiss.kernels.lengths import at
from hiss.kernels.numba_printer import Printed, print_program
from hiss.kernels.packets import Packets

_log = logging.getLogger(__name__)
_NAME_DIGITS: Final = 40
CompileFiles = Callable[[list[Path]], dict[Path, str]]
_lock = threading.Lock()  # Numba's compiler, its configuration and the table of loaded functions are the process's
_loaded: dict[Path, Callable[..., None]] = {}


class NumbaExecutable:
    """A compiled program with its parameters."""

    backend = "numba"

    def __init__(self, program: Program, printed: Printed, function: Callable[..., None]) -> None:
        self._function = function
        self._fixed = (*(array.reshape(-1) for array in program.arrays), *program.scalars)
        self._temporaries = printed.temporaries
        self._selects, self._mask_size = program.selects, program.outputs[-1].size
        self._local = threading.local()

    def run(self, frames: Frames, columns: Sequence[Array], rows: Rows, outs: Sequence[Frames]) -> None:
        if not len(rows):
            return
        if isinstance(frames, Packets):
            self._call_packets(frames, columns, rows, outs[0])
        else:
            self._call(frames, (), columns, rows, [out for out in outs if not isinstance(out, Packets)])

    def _call_packets(self, packets: Packets, columns: Sequence[Array], rows: Rows, out: Frames) -> None:
        """One call for all of them; temporaries are as long as the longest packet needs."""
        longest = int(packets.lengths[rows].max())
        none = np.zeros(0, np.int64)
        target = out if isinstance(out, Packets) else Packets(out, none, none, none)
        placed = np.ascontiguousarray(target.starts), np.ascontiguousarray(target.lengths)
        flat = [target.items.reshape(-1)]
        if self._selects:
            flat.append(np.empty(at(self._mask_size, longest), np.bool_))
        self._function(
            rows,
            _flat(packets.items),
            *flat,
            *map(_flat, columns),
            *self._fixed,
            *self._scratch(longest),
            _flat(packets.starts),
            _flat(packets.lengths),
            *placed,
            target.used,
        )
        target.starts[:], target.lengths[:] = placed

    def step(
        self,
        frames: Array,
        states: Sequence[Array],
        columns: Sequence[Array] = (),
        rows: Rows | None = None,
        outs: Sequence[Array] = (),
    ) -> None:
        self._call(frames, states, columns, np.arange(len(frames), dtype=np.int64) if rows is None else rows, outs)

    def _call(
        self, frames: Array, states: Sequence[Array], columns: Sequence[Array], rows: Rows, outs: Sequence[Array]
    ) -> None:
        targets = [out if _writable_as_is(out) else np.empty(out.shape, out.dtype) for out in outs]
        flat = [target.reshape(-1) for target in (*states, *targets)]
        self._function(rows, _flat(frames), *flat, *map(_flat, columns), *self._fixed, *self._scratch())
        for out, target in zip(outs, targets, strict=True):
            if out is not target:
                out[rows] = target[rows]

    def _scratch(self, longest: int = 0) -> list[Array]:
        """This thread's temporaries, for packets of at most `longest` items."""
        scratch: list[Array] | None = getattr(self._local, "scratch", None)
        if scratch is None or longest > self._local.longest:
            sizes = [at(size, longest) for _, size in self._temporaries]
            nbytes = sum(size * dtype.itemsize for size, (dtype, _) in zip(sizes, self._temporaries, strict=True))
            if longest and nbytes > limits.KERNEL_TEMPORARY_BYTES_MAX:
                raise LimitExceeded(
                    f"a packet of {longest} items needs {nbytes} bytes of temporaries; "
                    f"allowed: {limits.KERNEL_TEMPORARY_BYTES_MAX} (KERNEL_TEMPORARY_BYTES_MAX); send shorter packets"
                )
            scratch = [np.empty(size, dtype) for size, (dtype, _) in zip(sizes, self._temporaries, strict=True)]
            self._local.scratch, self._local.longest = scratch, longest
        return scratch


def _flat(array: Array) -> Array:
    """The array as one axis, contiguous and aligned; a copy only where it is not."""
    return np.require(array, requirements=["C", "A"]).reshape(-1)


def _writable_as_is(array: Array) -> bool:
    return array.flags.c_contiguous and array.flags.aligned


class NumbaBackend:
    """Compiles programs with Numba.

    Parameters
    ----------
    directory : Path
        Of generated files and compiled code; private to this user.
    compile_files : callable, optional
        Fills Numba's cache for files, and says for each `ok` or what went wrong; by default in another process.
    """

    name = "numba"

    def __init__(self, directory: Path, compile_files: CompileFiles | None = None) -> None:
        self.directory = directory.absolute()
        _prune(directory)
        self._compiled_by = compile_files or compile_in_helper
        versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
        self._target = repr((*versions, llvmlite.binding.get_host_cpu_name(), dict(_cpu_features())))

    def warm(self) -> None:
        """Have the process that compiles ready before the first kernel comes."""
        if self._compiled_by is compile_in_helper:
            _helper(numba_compile.__file__).warm()

    def compile(self, programs: Sequence[Program]) -> list[Executable]:
        """Executables of the programs; those without a cache entry are compiled in one helper process.

        Raises
        ------
        LimitExceeded
            One took longer than `limits.KERNEL_COMPILE_S_MAX`.
        """
        printed = [print_program(program) for program in programs]
        paths = [self._path(one.text) for one in printed]
        with _lock:
            missing: dict[Path, str] = {}
            for path, one in zip(paths, printed, strict=True):
                if path not in _loaded and not _is_compiled(path):
                    missing[path] = one.text
            self._compile_files(missing)
            functions = [self._function(path) for path in paths]
        return [
            NumpyExecutable(program) if function is None else NumbaExecutable(program, one, function)
            for program, one, function in zip(programs, printed, functions, strict=True)
        ]

    def _path(self, text: str) -> Path:
        digest = hashlib.sha256(f"{self._target}\n{text}".encode()).hexdigest()
        return self.directory / f"hiss_kernel_{digest[:_NAME_DIGITS]}.py"

    def _compile_files(self, texts: dict[Path, str]) -> None:
        for path, text in texts.items():
            _write_once(path, text)
        if texts:
            for path, result in self._compiled_by(list(texts)).items():
                if result == "ok":
                    _write_once(_stamp_path(path), _stamp(path))
                else:
                    _log.warning("kernel %s cannot be compiled and runs in NumPy, slowly: %s", path.name, result)

    def _function(self, path: Path) -> Callable[..., None] | None:
        """The compiled function, from the process's table or Numba's cache; None: interpret instead."""
        if path in _loaded:
            return _loaded[path]
        if not _is_compiled(path):
            return None
        if len(_loaded) >= limits.KERNELS_LIVE_MAX:
            _log.warning(
                "%d compiled kernels are loaded (KERNELS_LIVE_MAX); kernel %s runs in NumPy, slowly, until a restart",
                len(_loaded),
                path.name,
            )
            return None
        try:
            with _own_cache():
                function: Callable[..., None] = numba_compile.load(path).kernel
        except Exception as error:  # a damaged cache; whatever Numba makes of it
            _log.warning("kernel %s cannot be loaded and runs in NumPy, slowly: %r", path.name, error)
            _forget(path)
            return None
        os.utime(_stamp_path(path))  # used now
        _loaded[path] = function
        return function


def _cpu_features() -> dict[str, bool]:
    features: dict[str, bool] = llvmlite.binding.get_host_cpu_features()
    return features


def _stamp(path: Path) -> str:
    """What Numba's cache index is keyed by: a file that was copied or touched is compiled again."""
    status = path.stat()
    return f"{status.st_mtime_ns} {status.st_size}"


def _stamp_path(path: Path) -> Path:
    return path.with_suffix(".compiled")


def _is_compiled(path: Path) -> bool:
    try:
        return _stamp_path(path).read_text() == _stamp(path)
    except FileNotFoundError:
        return False


def _forget(path: Path) -> None:
    _stamp_path(path).unlink(missing_ok=True)
    for part in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        part.unlink(missing_ok=True)


def _prune(directory: Path) -> None:
    """Drop the compiled kernels that have not been used for longest, beyond `limits.KERNEL_CACHE_FILES_MAX`."""
    stamps = sorted(directory.glob("*.compiled"), key=lambda stamp: stamp.stat().st_mtime_ns)
    for stamp in stamps[: max(0, len(stamps) - limits.KERNEL_CACHE_FILES_MAX)]:
        path = stamp.with_suffix(".py")
        _forget(path)
        path.unlink(missing_ok=True)


def _write_once(path: Path, text: str) -> None:
    """Write a file whole or not at all; one that holds the text already is left alone."""
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)


def compile_in_helper(paths: list[Path]) -> dict[Path, str]:
    """Compile in another process; for each file `ok` or what went wrong. Raises as `CompileHelper.compile`."""
    return _helper(numba_compile.__file__).compile(paths)


@functools.cache
def _helper(script: str) -> CompileHelper:
    """The process that compiles for this one, whatever the directory."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    return CompileHelper([sys.executable, "-P", script], environment)


@contextmanager
def _own_cache() -> Iterator[None]:
    """Have Numba keep its cache beside the generated files, wherever the environment would put it."""
    config: Any = numba.config
    directory, config.CACHE_DIR = config.CACHE_DIR, ""
    try:
        yield
    finally:
        config.CACHE_DIR = directory
