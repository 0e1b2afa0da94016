"""Kernels of the library with what they are for, and the same as an analyst writes it with NumPy or scipy.ndimage.

Workload: 2048 x 2048 frames of a fixed seed. Counts are Poisson of mean 900; JUNGFRAU words have 99.5 % of their pixels
in the first gain stage, in spots of 8 x 8 the second, as under diffraction; spots and hot pixels are one in 5,000.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from hiss.kernels import library
from hiss.kernels.authoring import Kernel
from hiss.model import KernelDef, ScalarParam

Plain = Callable[[Any], Any]
SEED: Final = 21
BINS: Final = 1000
Row = tuple[str, KernelDef, dict[str, Any], Any, dict[str, Plain], dict[str, str], float]


def rows(side: int, count: int) -> Iterator[Row]:
    """Name, kernel, parameters, frames, peers of one frame, absent peers, and how close they agree (relative)."""
    rng = np.random.default_rng(SEED)
    shape = (side, side)
    counts = rng.poisson(900, (count, *shape)).astype(np.uint16)
    dark = rng.normal(100, 3, shape).astype(np.float32)
    flat = rng.normal(2000, 50, shape).astype(np.float32)
    yield _row("dark_flat", counts, lambda frame: _dark_flat(frame, dark, flat), 1e-6, dark=dark, flat=flat)
    transmission = _dark_flat(counts, dark, flat)
    yield _row("minus_log", transmission, lambda frame: -np.log(np.maximum(frame, np.float32(1e-6))), 1e-6)
    yield _row("binned", counts, lambda frame: _binned(frame, side), 0.0)
    yield from _detectors(rng, counts)
    yield from _hits(rng, counts)


def _detectors(rng: np.random.Generator, counts: Any) -> Iterator[Row]:
    count, *shape = counts.shape
    pedestal = rng.normal(2000, 20, (3, *shape)).astype(np.float32)
    gain = np.stack([rng.normal(mean, 1, shape) for mean in (41, -1.4, -0.1)]).astype(np.float32)
    words = rng.integers(0, 1 << 14, counts.shape).astype(np.uint16)
    for place in rng.integers(0, shape[0] - 8, (count, shape[0] * shape[1] // 12_800, 2)):
        for y, x in place:
            words[:, y : y + 8, x : x + 8] |= np.uint16(1 << 14)
    yield _row("jungfrau", words, lambda raw: _jungfrau(raw, pedestal, gain), 2e-6, pedestal=pedestal, gain=gain)
    energy = rng.normal(1.0, 0.4, counts.shape).astype(np.float32)
    photon = ScalarParam(1.2)
    yield _row("photons", energy, _photons, 0.0, photon=photon)
    noise = rng.uniform(0.1, 0.3, shape).astype(np.float32)
    yield _row(
        "zero_suppress", energy, lambda e: np.where(e > np.float32(5) * noise, e, np.float32(0)), 0.0, noise=noise
    )
    yield _row(
        "common_mode",
        counts,
        lambda frame: frame.astype(np.float32) - np.median(frame, axis=1, keepdims=True).astype(np.float32),
        0.0,
    )


def _hits(rng: np.random.Generator, counts: Any) -> Iterator[Row]:
    shape = counts.shape[1:]
    mask = rng.choice([0, 1, 2], shape, p=[0.98, 0.0198, 0.0002]).astype(np.uint8)
    bright = np.where(rng.random(counts.shape) < 2e-4, 5000, counts).astype(np.uint16)
    yield _row("pilatus_mask", bright, lambda frame: _pilatus_mask(frame, mask), 0.0, mask=mask)
    hot, spots, absent = _scipy(mask)
    yield _row("hot_pixels", bright, hot, 0.0, absent, mask=mask, cutoff=ScalarParam(4000))
    yield _row("spots", bright, spots, 0.0, absent, mask=mask, threshold=ScalarParam(2000), pixels=ScalarParam(1))
    y, x = np.ogrid[: shape[0], : shape[1]]
    index = np.minimum(np.hypot(y - shape[0] / 2, x - shape[1] / 2), BINS - 1).astype(np.int32)
    where, pixels = index.ravel(), np.bincount(index.ravel(), minlength=BINS).astype(np.float64)
    pixels[pixels == 0] = np.nan
    yield _row(
        "azimuthal",
        counts,
        lambda frame: np.bincount(where, frame.ravel(), BINS) / pixels,
        1e-12,
        index=index,
        bins=ScalarParam(BINS),
    )


def _row(
    name: str, frames: Any, peer: Plain | None, tolerance: float, absent: dict[str, str] | None = None, **params: Any
) -> Row:
    kernel: Kernel[..., object] = getattr(library, name)
    peers = {} if peer is None else {"scipy" if absent is not None else "numpy": peer}
    return name, kernel.definition, params, frames, peers, absent or {}, tolerance


def _dark_flat(frame: Any, dark: Any, flat: Any) -> Any:
    return (frame.astype(np.float32) - dark) / np.maximum(flat - dark, np.float32(1))


def _binned(frame: Any, side: int) -> Any:
    return frame.reshape(side // 2, 2, side // 2, 2).sum(axis=(1, 3), dtype=np.uint32)


def _jungfrau(raw: Any, pedestal: Any, gain: Any) -> Any:
    """Stage by stage: fewer passes over the maps than `np.choose`."""
    adu, stage = (raw & 0x3FFF).astype(np.float32), raw >> 14
    energy = (adu - pedestal[0]) / gain[0]
    for code, number in ((1, 1), (3, 2)):
        pixels = stage == code
        energy[pixels] = (adu[pixels] - pedestal[number][pixels]) / gain[number][pixels]
    energy[stage == 2] = np.nan
    return energy


def _photons(energy: Any) -> Any:
    return np.clip(np.floor(energy / np.float32(1.2) + np.float32(0.5)), 0, 65535).astype(np.uint16)


def _pilatus_mask(frame: Any, mask: Any) -> Any:
    return np.where(mask == 0, frame.astype(np.int32), -mask.astype(np.int32))


def _scipy(mask: Any) -> tuple[Plain | None, Plain | None, dict[str, str]]:
    """`hot_pixels` and `spots` in scipy.ndimage."""
    if not importlib.util.find_spec("scipy"):
        return None, None, {"scipy": "pip install scipy"}
    from scipy import ndimage

    def hot(frame: Any) -> Any:
        return np.where((mask == 2) | (frame > 4000), ndimage.median_filter(frame, 3, mode="nearest"), frame)

    def spots(frame: Any) -> Any:
        return ndimage.label((frame >= 2000) & (mask == 0), np.ones((3, 3)))[1]

    return hot, spots, {}
