# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Azimuthal integration of powder rings: the kernel, and the index map for it from a pyFAI geometry.

pyFAI is needed to make a map, not to use one. Constant after import; any thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss.errors import InvalidInput, MissingExtra
from hiss.kernels import hk
from hiss.kernels.authoring import kernel


@kernel
def azimuthal(frame, index, bins):
    """Mean counts of the pixels in each bin of the scattering angle.

    Each pixel belongs to one bin (no splitting), no correction for solid angle or polarisation: G. Ashiotis et al.,
    J. Appl. Cryst. 48 (2015) 510, doi:10.1107/S1600576715004306.

    Parameters
    ----------
    frame : (h, w), counts
    index : integers (h, w)
        The bin of each pixel, from `azimuthal_index`; pixels below 0 or from `bins` on do not count.
    bins : int

    Returns
    -------
    float64 (bins,), counts for each pixel
        NaN where a bin has no pixel.
    """
    counts = hk.group_sum(np.ones_like(index, np.uint32), index, length=bins)
    return hk.group_sum(frame, index, length=bins) / np.where(counts == 0, np.nan, counts)


def azimuthal_index(
    poni: str | Path,
    shape: tuple[int, int],
    *,
    bins: int,
    two_theta_deg: tuple[float, float],
    mask: npt.ArrayLike | None = None,
    flip_rows: bool = False,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """The bin of each pixel in two theta, and the middle of each bin.

    Parameters
    ----------
    poni : path
        A geometry in pyFAI's format, as `pyFAI-calib2` and Dioptas write it.
    shape : (h, w)
        Of the frames.
    bins : int
        Equal ones.
    two_theta_deg : (float, float), degrees
        From where to where.
    mask : (h, w), optional
        Not 0 where a pixel shall not count; in the order of the frames.
    flip_rows : bool
        The geometry is that of the frames upside down, as where it was made by a program that shows row 0 below.

    Returns
    -------
    index : int32 (h, w)
        -1 where a pixel does not count. For the kernel `azimuthal`.
    two_theta : float64 (bins,), degrees

    Raises
    ------
    MissingExtra
        pyFAI is not installed.
    InvalidInput
        The range or the mask makes no sense.
    """
    low, high = two_theta_deg
    if not low < high or bins < 1:
        raise InvalidInput(f"two_theta_deg {two_theta_deg} with {bins} bins: expected a range, ascending, and a bin")
    angle = np.rad2deg(_two_theta(Path(poni), shape))
    if flip_rows:
        angle = angle[::-1]
    place = np.floor((angle - low) * (bins / (high - low)))
    valid = (place >= 0) & (place < bins)
    if mask is not None:
        if np.shape(mask) != tuple(shape):
            raise InvalidInput(f"the mask is {np.shape(mask)}, the frames are {tuple(shape)}")
        valid &= np.asarray(mask) == 0
    index = np.where(valid, place, -1).astype(np.int32)
    return index, np.asarray(low + (np.arange(bins) + 0.5) * ((high - low) / bins), np.float64)


def _two_theta(poni: Path, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The angle of each pixel's middle, in rad."""
    try:
        from pyFAI.geometry import Geometry
    except ImportError:
        raise MissingExtra("the map of an azimuthal integration needs pyFAI: pip install 'hiss[azimuthal]'") from None
    geometry: Any = Geometry()
    geometry.load(str(poni))
    return np.asarray(geometry.center_array(tuple(shape), unit="2th_rad"), np.float64)
