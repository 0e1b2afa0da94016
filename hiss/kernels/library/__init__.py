"""Kernels that come with hiss, written in the kernel language itself; docs/kernel-library.md shows each at work.

Names are imported when they are first used. `KERNELS` says in which module each kernel is, in the order of the
documentation; a reduction of `statistics.BUILTIN` can also be named on the wire.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hiss.kernels.authoring import Kernel

KERNELS: Final = {
    "mean": "statistics",
    "maximum": "statistics",
    "minimum": "statistics",
    "total": "statistics",
    "variance": "statistics",
    "dark_flat": "imaging",
    "minus_log": "imaging",
    "air_level": "imaging",
    "despike": "imaging",
    "roi": "imaging",
    "binned": "imaging",
    "segment": "imaging",
    "jungfrau": "detectors",
    "photons": "detectors",
    "zero_suppress": "detectors",
    "common_mode": "detectors",
    "drift": "detectors",
    "pilatus_mask": "detectors",
    "hot_pixels": "detectors",
    "bright_pixels": "hits",
    "hit": "hits",
    "spots": "hits",
    "spot_hit": "hits",
    "azimuthal": "powder",
    "tpx3_fields": "events",
    "tpx3_hits": "events",
    "tpx3_veto": "events",
    "tpx3_image": "events",
    "detrend": "fibre",
    "rms": "fibre",
    "loud": "fibre",
    "smoothed": "fibre",
    "sta_lta": "fibre",
}

__all__ = ["KERNELS"]
__all__ += list(KERNELS)


def __getattr__(name: str) -> Kernel[..., object]:
    if name not in KERNELS:
        raise AttributeError(f"module {__name__!r} has no kernel {name!r}; it has: {', '.join(KERNELS)}")
    module = importlib.import_module(f"{__name__}.{KERNELS[name]}")
    kernel: Kernel[..., object] = getattr(module, name)
    globals()[name] = kernel
    return kernel


def __dir__() -> list[str]:
    return sorted(__all__)
