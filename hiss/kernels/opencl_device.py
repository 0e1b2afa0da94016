"""Which OpenCL device runs kernels, and whether it computes as the table says.

A device is taken if it has float64, keeps denormals, infinities and NaN, and divides and takes square roots rounded
correctly; otherwise kernels run in Numba, and the notice says which of these it lacks. `pyopencl` is imported here,
when a device is wanted and not before. Call from one thread while a server starts; a `Device` may be used from any.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_KINDS: Final = ("cpu", "gpu", "accelerator")
INSTALL: Final = 'pip install "pyopencl[pocl]"'
OPTIONS: Final = ("-cl-fp32-correctly-rounded-divide-sqrt",)


class NoDevice(Exception):
    """No device can be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device and its context. `identity` changes with the driver; `unified` says that it works in the host's
    memory.
    """

    cl: Any  # the pyopencl module
    device: Any
    context: Any
    name: str
    platform: str
    identity: str
    unified: bool

    @property
    def workers(self) -> int:
        """How many work-items are busy at once, at least."""
        return int(self.device.max_compute_units)


def choose(selector: str, cache_directory: Path | None = None) -> Device:
    """The first device that is meant and can be used.

    Parameters
    ----------
    selector : str
        Empty for any (graphics processors first), `cpu`, `gpu`, `accelerator`, or a part of a device's or platform's
        name.
    cache_directory : Path, optional
        Where PoCL keeps compiled code, private to this user; only where PoCL has not been loaded yet.

    Raises
    ------
    NoDevice
    """
    if cache_directory is not None:
        cache_directory.mkdir(mode=0o700, exist_ok=True)
        os.environ["POCL_CACHE_DIR"] = str(cache_directory)
    try:
        import pyopencl as cl
    except ImportError as error:
        raise NoDevice(f"pyopencl cannot be imported ({error}); {INSTALL}") from None
    found = _devices(cl)
    if not found:
        raise NoDevice(f"no OpenCL device; for the processor itself: {INSTALL}")
    meant = [entry for entry in found if _is_meant(cl, selector, *entry)]
    if not meant:
        names = ", ".join(f"{device.name} ({platform.name})" for platform, device in found)
        raise NoDevice(f"no OpenCL device {selector!r}; there are: {names}")
    reasons: list[str] = []
    for platform, device in sorted(meant, key=lambda entry: entry[1].type != cl.device_type.GPU):
        missing = lacking(cl, device)
        if not missing:
            return _opened(cl, platform, device)
        reasons.append(f"{device.name} lacks {', '.join(missing)}")
    raise NoDevice("; ".join(reasons))


def lacking(cl: Any, device: Any) -> list[str]:
    """What a device would need to compute as the table of primitives says."""
    config = cl.device_fp_config
    if "cl_khr_fp64" not in device.extensions.split() or not device.double_fp_config:
        return ["float64"]
    wanted = {
        "denormals": config.DENORM,
        "infinities and NaN": config.INF_NAN,
        "rounding to nearest": config.ROUND_TO_NEAREST,
    }
    found = [f"{name} in float64" for name, bit in wanted.items() if not device.double_fp_config & bit]
    wanted["correctly rounded division and square roots"] = config.CORRECTLY_ROUNDED_DIVIDE_SQRT
    found += [f"{name} in float32" for name, bit in wanted.items() if not device.single_fp_config & bit]
    if not device.endian_little:
        found.append("little-endian memory")
    return found


def _devices(cl: Any) -> list[tuple[Any, Any]]:
    try:
        return [(platform, device) for platform in cl.get_platforms() for device in platform.get_devices()]
    except cl.Error:  # an installation without any driver
        return []


def _is_meant(cl: Any, selector: str, platform: Any, device: Any) -> bool:
    wanted = selector.lower()
    if not device.available or not device.compiler_available:
        return False
    if wanted in _KINDS:
        return bool(device.type & getattr(cl.device_type, wanted.upper()))
    return wanted in device.name.lower() or wanted in platform.name.lower()


def _opened(cl: Any, platform: Any, device: Any) -> Device:
    identity = repr((platform.name, platform.version, device.name, device.version, device.driver_version))
    unified = bool(device.host_unified_memory) and bool(device.type & cl.device_type.CPU)
    return Device(cl, device, cl.Context([device]), device.name, platform.name, identity, unified)
