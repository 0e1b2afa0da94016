# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Radiographs: dark and flat field, logarithm, level of the air beside the sample, spots, regions, binning, threshold.

Constant after import; any thread.
"""

from __future__ import annotations

import numpy as np

from hiss.kernels import hk
from hiss.kernels.authoring import kernel


@kernel
def dark_flat(frame, dark, flat, least=1.0):
    """Transmission: (frame - dark) / (flat - dark), the divisor at least `least` counts.

    The flat-field correction of J. A. Seibert, J. M. Boone, K. K. Lindfors, Proc. SPIE 3336 (1998) 348,
    doi:10.1117/12.317034.

    Parameters
    ----------
    frame : (h, w), counts
        Any integer or float dtype.
    dark, flat : (h, w), counts
        Mean frames without beam, and with beam but without sample.
    least : float, counts
        Pixels that see less of the beam are divided by this, so a dead pixel gives no infinity.

    Returns
    -------
    float32 (h, w), dimensionless
        1 where the sample lets everything pass. Float64 where dark or flat is float64 or an integer of 32 bits.
    """
    open_beam = np.maximum(flat - dark.astype(np.float32), least)
    return (frame.astype(np.float32) - dark) / open_beam


@kernel
def minus_log(transmission, least=1e-6):
    """Absorption along the beam: -log(transmission), for tomography.

    Beer's law; A. C. Kak, M. Slaney, "Principles of Computerized Tomographic Imaging", IEEE Press 1988, chapter 4
    (doi:10.1137/1.9780898719277).

    Parameters
    ----------
    transmission : float (h, w), dimensionless
        As `dark_flat` gives it.
    least : float, dimensionless
        Smaller ones, zeros and negative ones are taken as this.

    Returns
    -------
    as the transmission, dimensionless: absorption coefficient times length.
    """
    return -np.log(np.maximum(transmission, least))


@kernel
def air_level(transmission, margin=8):
    """The transmission divided by that of the air beside the sample: its mean over the outer columns of each view.

    Corrects a beam that was brighter or weaker than when the flat was taken.

    Parameters
    ----------
    transmission : float (h, w), dimensionless
    margin : int, pixels
        So many columns at the left and at the right edge see no sample.

    Returns
    -------
    as the transmission, (h, w), dimensionless
    """
    left = np.mean(transmission[:, :margin])
    right = np.mean(transmission[:, -margin:])
    return transmission / ((left + right) / 2)


@kernel
def roi(frame, top, left, height, width):
    """A region of interest: `height` rows from `top`, `width` columns from `left`, of the last two axes.

    Parameters
    ----------
    frame : (..., h, w)
        Any dtype; it is kept.
    top, left, height, width : int, pixels
        What lies outside the frame is left out, as in NumPy.
    """
    return frame[..., top : top + height, left : left + width]


@kernel
def despike(frame, excess, size=3):
    """Spots taken out: a pixel that is more than `excess` above the median around it becomes that median.

    Gamma rays and cosmics in neutron and X-ray radiographs, "zingers": M. L. Rivers, "tomoRecon", Proc. SPIE 8506
    (2012) 85060U, doi:10.1117/12.930022; ImageJ calls it "remove outliers".

    Parameters
    ----------
    frame : (h, w), counts
    excess : number, counts
    size : int, pixels
        The median is over size x size pixels: 3 or 5.

    Returns
    -------
    as the frame
    """
    around = hk.median_filter(frame, size)
    return np.where(frame > around.astype(np.float64) + excess, around, frame)


@kernel
def binned(frame, factor=2):
    """Sums over blocks of factor x factor pixels, as a coarser detector would count.

    Parameters
    ----------
    frame : integers (..., h, w), counts
        h and w are multiples of the factor. At most 16 bits for each pixel.
    factor : int, pixels

    Returns
    -------
    uint32 (..., h / factor, w / factor), counts
    """
    return hk.bin2d(frame, factor).astype(np.uint32)


@kernel
def segment(frame, size=3):
    """Bright from dark: whether each pixel, smoothed by a median, is above Otsu's threshold for the frame.

    N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979) 62, doi:10.1109/TSMC.1979.4310076.

    Parameters
    ----------
    frame : (h, w)
        Integers or floats without NaN.
    size : int, pixels
        The median is over size x size pixels; 1 leaves the frame as it is.

    Returns
    -------
    bool (h, w)
    """
    smooth = hk.median_filter(frame, size)
    return smooth > hk.otsu(smooth)
