"""PoCL on a processor that is newer than the compiler in it.

LLVM calls a processor that it does not know `generic`, PoCL 3.0 hands that name to its own clang, and clang refuses it
(https://github.com/pocl/pocl/issues/1049), so that nothing can be built on such a machine. The name lies in the
driver's memory as a string of its own: here it is replaced by that of an older processor that this one is
compatible with. That is good enough to test and to measure the OpenCL back end everywhere, and nothing that a server
does: there, such a device is reported and kernels run in Numba. Call it before anything is built; Linux on x86-64
only.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hiss.kernels import opencl_compile
from hiss.kernels.opencl_device import OPTIONS, Device

_UNKNOWN: Final = b"generic\0"
_STRUCTURE_BYTES: Final = 1024  # of PoCL's description of a device in which the pointer to the name is looked for
_NAME_BYTES: Final = 24  # the least that malloc gives for a string, and so the room for a longer name
_MODELS: Final = (
    ({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "clwb"}, b"skylake-avx512\0"),
    ({"avx2", "fma", "bmi2", "movbe"}, b"haswell\0"),
    (set[str](), b"x86-64\0"),
)
assert all(len(name) <= _NAME_BYTES for _, name in _MODELS)


def name_processor(device: Any) -> bool:
    """Give PoCL a name for this processor that its compiler knows; whether there was anything to do."""
    if not device.version.endswith("-generic") or device.platform.name != "Portable Computing Language":
        return False
    flags = set(
        next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    )
    name = next(model for needed, model in _MODELS if needed <= flags)
    memory = os.open("/proc/self/mem", os.O_RDWR)  # which fails where a pointer in hand would crash
    try:
        structure = os.pread(memory, _STRUCTURE_BYTES, device.int_ptr)
        for (address,) in struct.iter_unpack("<Q", structure):
            if _read(memory, address) == _UNKNOWN:
                os.pwrite(memory, name, address)
                return True
    finally:
        os.close(memory)
    return False


def compile_here(device: Device) -> Callable[[list[Path]], dict[Path, str]]:
    """What `OpenclBackend` takes to compile in this process, which `name_processor` has told the processor's name."""

    def compile_files(paths: list[Path]) -> dict[Path, str]:
        for path in paths:
            opencl_compile.build(device.cl, device.device, path, list(OPTIONS))
        return dict.fromkeys(paths, "ok")

    return compile_files


def _read(memory: int, address: int) -> bytes:
    try:
        return os.pread(memory, len(_UNKNOWN), address)
    except (OSError, OverflowError):
        return b""
