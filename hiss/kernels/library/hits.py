# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Which frames are worth keeping: bright pixels and spots counted, and the vetoes that follow from it.

Constant after import; any thread.
"""

from __future__ import annotations

import numpy as np

from hiss.kernels import hk
from hiss.kernels.authoring import filter, kernel


@kernel
def bright_pixels(frame, mask, threshold=20):
    """How many valid pixels have at least `threshold` counts: one int64 for each frame.

    Parameters
    ----------
    frame : (h, w), counts
    mask : (h, w)
        0 where a pixel is valid.
    threshold : number, counts
    """
    return np.count_nonzero((frame >= threshold) & (mask == 0))


@filter
def hit(frame, mask, threshold=20, least=50):
    """Whether at least `least` valid pixels have at least `threshold` counts; other frames are vetoed.

    The plainest of hit finders in serial crystallography: A. Barty et al., J. Appl. Cryst. 47 (2014) 1118,
    doi:10.1107/S1600576714007626.

    Parameters
    ----------
    frame : (h, w), counts
    mask : (h, w)
        0 where a pixel is valid.
    threshold : number, counts
    least : int, pixels
    """
    return np.count_nonzero((frame >= threshold) & (mask == 0)) >= least


@kernel
def spots(frame, mask, threshold=20, pixels=2):
    """How many spots a frame has: groups of at least `pixels` touching pixels with at least `threshold` counts.

    Connected as in A. Barty et al., J. Appl. Cryst. 47 (2014) 1118, doi:10.1107/S1600576714007626 ("peakfinder 8");
    pixels that share a corner touch.

    Parameters
    ----------
    frame : (h, w), counts
    mask : (h, w)
        0 where a pixel is valid.
    threshold : number, counts
    pixels : int
        1 counts lone pixels too, among them hot ones.

    Returns
    -------
    int64, one for each frame
    """
    return hk.groups_count((frame >= threshold) & (mask == 0), 8, pixels)


@filter
def spot_hit(frame, mask, threshold=20, pixels=2, least=10):
    """Whether a frame has at least `least` spots, as `spots` counts them; other frames are vetoed."""
    return hk.groups_count((frame >= threshold) & (mask == 0), 8, pixels) >= least
