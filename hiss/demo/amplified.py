"""More data than the instrument gave, made honestly: zoomed projections with fresh noise.

A projection minus the dark is zoomed linearly and drawn anew from Normal(mean, k x mean + r^2). Zoom makes no new
detail: good for rates, not for image quality. `POOL` frames are made in advance, from different views and with
different noise, and are sent round and round; the ratios by which gzip shrinks a source frame and a product frame are
told, so that nobody takes one for the other. Pure; called from the instrument's process.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss.demo.scan import COUNTS_PER_PHOTON, READ_NOISE_COUNTS, SEED, Scan, noisy

ZOOM: Final = 8
POOL: Final = 24

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Amplified:
    """A pool of frames, the zoomed mean dark and flat that belong to them, and how they were made."""

    frames: Array
    dark: npt.NDArray[np.float32]
    flat: npt.NDArray[np.float32]
    method: str


def amplified(scan: Scan) -> Amplified:
    """The pool of a scan."""
    dark = scan.dark.mean(axis=0)
    random = np.random.default_rng(SEED)
    views = np.linspace(0, len(scan.projections) - 1, POOL).round().astype(int)
    dtype = scan.projections.dtype
    large_dark = _zoomed(dark)
    frames = np.stack(
        [noisy(_zoomed(scan.projections[view] - dark), COUNTS_PER_PHOTON, random, dtype, large_dark) for view in views]
    )
    source, product = _gzip_ratio(scan.projections[views[0]]), _gzip_ratio(frames[0])
    method = (
        f"AMPLIFIED: {POOL} projections zoomed x{ZOOM} (linear) to {frames.shape[1]} x {frames.shape[2]}, noise of "
        f"variance {COUNTS_PER_PHOTON:g} x counts + {READ_NOISE_COUNTS:g}^2, seed {SEED}, sent round and round; gzip "
        f"shrinks a source frame {source:.2f} times, a product frame {product:.2f} times"
    )
    return Amplified(frames, large_dark, _zoomed(scan.flat.mean(axis=0)), method)


def _zoomed(image: Array) -> npt.NDArray[np.float32]:
    """Linear interpolation on a grid `ZOOM` times as fine, edges held."""
    along = [np.clip((np.arange(size * ZOOM) + 0.5) / ZOOM - 0.5, 0, size - 1) for size in image.shape]
    rows = _interpolated(image.astype(np.float32), along[0])
    return _interpolated(rows.T, along[1]).T.astype(np.float32)


def _interpolated(image: npt.NDArray[np.float32], places: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    low = np.minimum(places.astype(int), max(0, len(image) - 2))
    high = np.minimum(low + 1, len(image) - 1)
    part = (places - low).astype(np.float32)[:, None]
    mixed: npt.NDArray[np.float32] = image[low] * (1 - part) + image[high] * part
    return mixed


def _gzip_ratio(frame: Array) -> float:
    shuffled = np.ascontiguousarray(frame).view(np.uint8).reshape(-1, frame.dtype.itemsize).T.tobytes()
    return frame.nbytes / len(zlib.compress(shuffled, 1))
