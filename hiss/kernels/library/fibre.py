# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Seismic and fibre-optic arrays (distributed acoustic sensing): detrending, vetoes by loudness, triggers.

Blocks are (time, channels), or one time sample (channels,) for `sta_lta`. Constant after import; any thread.
"""

from __future__ import annotations

import numpy as np

from hiss.kernels import hk
from hiss.kernels.authoring import filter, kernel, scan


@kernel
def detrend(block):
    """Each channel less its straight line of least squares over the block's time.

    J. S. Bendat, A. G. Piersol, "Random Data", 4th ed., Wiley 2010, doi:10.1002/9781118032428.

    Parameters
    ----------
    block : (time, channels)

    Returns
    -------
    float32 (time, channels), the unit of the block
        Computed in float64.
    """
    samples = block.shape[0]
    time = np.arange(samples).astype(np.float64) - (samples - 1) / 2
    values = block.astype(np.float64)
    slope = np.sum(values * time[:, None], axis=0) / np.maximum(np.sum(time * time), 1)
    return (values - np.mean(values, axis=0) - slope * time[:, None]).astype(np.float32)


@kernel
def rms(block):
    """The root mean square of each channel over the block's time: float32 (channels,), the unit of the block."""
    values = block.astype(np.float64)
    return np.sqrt(np.mean(values * values, axis=0)).astype(np.float32)


@filter
def loud(block, threshold, least=1):
    """Whether the root mean square of at least `least` channels reaches `threshold`; quiet blocks are vetoed.

    Parameters
    ----------
    block : (time, channels)
        Detrended, as `detrend` does it: an offset is no signal.
    threshold : number, the unit of the block
    least : int, channels
    """
    values = block.astype(np.float64)
    return np.count_nonzero(np.sqrt(np.mean(values * values, axis=0)) >= threshold) >= least


@kernel
def smoothed(block, share=0.1):
    """Each channel through a recursive low pass, y[k] = share * x[k] + (1 - share) * y[k - 1], from rest.

    A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd ed., Pearson 2010.

    Parameters
    ----------
    block : (time, channels)
    share : float
        1 - exp(-2 pi f / rate) for a corner at the frequency f.

    Returns
    -------
    float32 (time, channels); float64 of float64 and of integers of 32 bits or more
    """
    return hk.iir(block, share, 0.0, 1 - share, 0)


@scan
class sta_lta:
    """The ratio of short-term to long-term average energy of each channel, sample by sample: a trigger.

    The recursive form: sta = x**2 / short + (1 - 1 / short) * sta, and lta likewise. M. Withers et al., Bull. Seism.
    Soc. Am. 88 (1998) 95, doi:10.1785/BSSA0880010095; ObsPy's `recursive_sta_lta`.

    Parameters
    ----------
    sample : (channels,)
        One time sample a block; the mean has been taken off.
    short, long : number, samples

    Returns
    -------
    float64 (channels,)
        0 for the first `long` samples.
    """

    def init(sample):
        nothing = np.zeros_like(sample, np.float64)
        return nothing, nothing, 0

    def step(state, sample, short=50, long=500):
        sta, lta, count = state
        energy = sample.astype(np.float64) * sample
        sta = energy / short + (1 - 1 / short) * sta
        lta = energy / long + (1 - 1 / long) * lta
        ratio = sta / np.where(lta > 0, lta, 1)
        return (sta, lta, count + 1), np.where(count >= long, ratio, 0.0)
