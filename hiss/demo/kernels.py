# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
"""The kernels of the demo: small array functions that the buffer compiles and runs on frames on their way."""

from __future__ import annotations

import numpy as np

import hiss


@hiss.kernel
def flatfield(frame, dark, flat):
    """Attenuation: dark and flat correction, normalised by the air beside the sample, and minus the logarithm.

    A beam that is weaker in the scan than in the flat shows in the air at both sides, ten columns each. Where the flat
    has no beam, as at a dead pixel, nothing is known and the attenuation is set to 0.
    """
    beam = (flat - dark).astype(np.float32)
    seen = (frame.astype(np.float32) - dark.astype(np.float32)) / np.maximum(beam, 1)
    air = (np.mean(seen[:, :10]) + np.mean(seen[:, -10:])) / 2
    transmission = np.where(beam > 100, seen / air, 1)
    return -np.log(np.clip(transmission, 1e-3, 10)).astype(np.float32)


@hiss.filter
def enough(frame, mask, threshold=20, least=50):
    """Whether a diffraction frame has `least` pixels at or above `threshold` counts outside the mask."""
    return np.count_nonzero((frame >= threshold) & (mask == 0)) >= least


@hiss.kernel
def strong_pixels(frame, mask, threshold=20):
    """How many pixels outside the mask are at or above `threshold` counts."""
    return np.count_nonzero((frame >= threshold) & (mask == 0))


@hiss.kernel
def too_slow(frame):
    """Harmless by itself; the demo gives it a time budget that no kernel can meet."""
    return np.sqrt(frame.astype(np.float64) + 1)


@hiss.kernel
def brightest(frame, mask):
    """The highest count outside the mask."""
    return np.max(np.where(mask == 0, frame, 0))
