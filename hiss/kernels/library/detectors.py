# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Corrections that belong to a kind of detector: JUNGFRAU, charge-integrating detectors, PILATUS, slow drifts.

Constant after import; any thread.
"""

from __future__ import annotations

import numpy as np

from hiss.kernels import hk
from hiss.kernels.authoring import kernel, scan


@kernel
def jungfrau(raw, pedestal, gain):
    """Deposited energy of a JUNGFRAU module: (ADU - pedestal) / gain, each of the pixel's gain stage.

    Bits 14 and 15 of a raw pixel hold the stage (0, 1 and 3 for G0, G1 and G2; 2 does not occur), bits 0 to 13 the
    ADU. Format and conversion: A. Mozzanica et al., J. Instrum. 11 (2016) C02047,
    doi:10.1088/1748-0221/11/02/C02047; S. Redford et al., J. Instrum. 13 (2018) C01027,
    doi:10.1088/1748-0221/13/01/C01027.

    Parameters
    ----------
    raw : uint16 (h, w)
    pedestal : (3, h, w), ADU
        Mean dark ADU for G0, G1, G2.
    gain : (3, h, w), ADU per unit of energy
        With its sign (negative for G1 and G2), in any unit of energy, usually ADU/keV; NaN where unknown.

    Returns
    -------
    float32 (h, w), energy in the unit of `gain`
        Float64 where pedestal or gain are. NaN in stage 2, and where the gain is NaN.
    """
    stage = hk.bits(raw, 14, 2)
    adu = hk.bits(raw, 0, 14).astype(np.float32)
    pedestal_of = np.where(stage == 0, pedestal[0], np.where(stage == 1, pedestal[1], pedestal[2]))
    gain_of = np.where(stage == 0, gain[0], np.where(stage == 1, gain[1], gain[2]))
    return np.where(stage == 2, np.nan, (adu - pedestal_of) / gain_of)


@kernel
def photons(energy, photon, threshold=0.5):
    """Photons in each pixel: energy / photon, rounded up from `threshold` of a photon.

    As charge-integrating detectors are read out for counting statistics: F. Leonarski et al., Nat. Methods 15 (2018)
    799, doi:10.1038/s41592-018-0143-7.

    Parameters
    ----------
    energy : float (h, w)
        As `jungfrau` gives it.
    photon : float, the unit of `energy`
        Energy of one photon.
    threshold : float, photons
        0.5 rounds; a larger one keeps noise out.

    Returns
    -------
    uint16 (h, w), photons
        0 below the threshold and where the energy is NaN; 65535 beyond.
    """
    return np.floor(energy / photon + (1 - threshold)).astype(np.uint16)


@kernel
def zero_suppress(frame, noise, sigmas=5.0):
    """Zero where the signal is within `sigmas` of the noise, as it was elsewhere.

    Parameters
    ----------
    frame : (h, w)
        Pedestal subtracted: signed integers or floats.
    noise : (h, w), the unit of the frame
        Standard deviation of each pixel in the dark (`variance` over dark frames, its root).
    sigmas : float

    Returns
    -------
    as the frame
        Zeros where the frame is NaN.
    """
    return np.where(frame > sigmas * noise, frame, 0)


@kernel
def pilatus_mask(frame, mask):
    """Counts of a PILATUS or EIGER frame with its invalid pixels negative, as DECTRIS writes them in CBF files.

    -1: gap between modules, -2: bad pixel (DECTRIS, "PILATUS CBF Header Specification", 2018).

    Parameters
    ----------
    frame : integers up to 32 bits (h, w), counts
        Counts below 2**31. Pixels that are negative already stay so.
    mask : integers (h, w)
        0 for a valid pixel, 1 for a gap, 2 for a bad one; other codes become their negative.

    Returns
    -------
    int32 (h, w), counts
    """
    return np.where(mask == 0, frame.astype(np.int32), -mask.astype(np.int32))


@kernel
def hot_pixels(frame, mask, cutoff):
    """Counts of a PILATUS frame whose bad and hot pixels hold the median of the 3 x 3 pixels around them.

    A pixel is repaired where the mask says that it is bad, and where it counts more than the detector can
    (`Count_cutoff` of the CBF header: DECTRIS, "PILATUS CBF Header Specification", 2018). Gaps stay as they are.

    Parameters
    ----------
    frame : integers (h, w), counts
    mask : (h, w)
        0 for a valid pixel, 1 for a gap, 2 for a bad one.
    cutoff : int, counts

    Returns
    -------
    as the frame
    """
    bad = (mask == 2) | (frame > cutoff)
    return np.where(bad, hk.median_filter(frame, 3), frame)


@kernel
def common_mode(frame):
    """The frame less the median of each row: noise that a row's pixels have in common.

    Common-mode correction by the median: G. Blaj et al., J. Synchrotron Rad. 22 (2015) 577,
    doi:10.1107/S1600577515005317.

    Parameters
    ----------
    frame : (h, w)
        Pedestal subtracted, with the signal in less than half of a row's pixels. For modules of several chips, whose
        rows are independent, reshape it first.

    Returns
    -------
    float32 (h, w)
        Float64 of float64. NaN in rows with a NaN.
    """
    wide = np.float64 if frame.dtype == np.float64 else np.float32
    return frame.astype(wide) - np.median(frame, axis=1, keepdims=True).astype(wide)


@scan
class drift:
    """Frames less their slow drift: a baseline for each pixel, which follows the frames at the rate `rate`.

    An exponential moving average, baseline + rate * (frame - baseline): S. W. Roberts, Technometrics 1 (1959) 239,
    doi:10.1080/00401706.1959.10489860. It starts with the first frame.

    Parameters
    ----------
    frame : any shape
    rate : float
        For each block; 0.01 forgets over some 100 blocks.

    Returns
    -------
    float64, as the frame: the frame less the baseline before it.
    """

    def init(frame):
        return frame.astype(np.float64)

    def step(state, frame, rate=0.01):
        excess = frame - state
        return state + rate * excess, excess
