"""A simulated instrument: a parallel-beam tomography scan of a phantom of spheres, with photon noise, darks and flats.

The path of a ray through a sphere is known in closed form, so projections need no numerical integration and the truth
is exact: a reconstruction can be compared with it. Every frame depends on the seed, its kind and its number only, and
is the same in any process and order. Pure; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint16]
_DARK, _FLAT, _PROJECTION = 1, 2, 3
_DARK_COUNTS: Final = 100.0
_READ_NOISE_COUNTS: Final = 2.8
_COUNTS_MAX: Final = 65535


def foam(seed: int = 7, bubbles: int = 60) -> npt.NDArray[np.float64]:
    """A ball of solid foam with a dense stone in it, in units of half the detector's width.

    Returns
    -------
    ndarray of (n, 5)
        Spheres: x, y, z of the centre (z along the axis of rotation), radius, and attenuation for a path of one unit.
        Spheres add up: a bubble is a sphere of the foam's attenuation with the opposite sign.
    """
    random = np.random.default_rng(seed)
    spheres = [(0.0, 0.0, 0.0, 0.72, 1.1), (0.18, -0.12, 0.1, 0.16, 5.0)]
    solid = [(0.18, -0.12, 0.1, 0.16)]
    for _ in range(200 * bubbles):
        if len(solid) > bubbles:
            break
        radius = random.uniform(0.03, 0.13)
        x, y, z = random.uniform(-0.7, 0.7, 3)
        apart = all((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 > (radius + r + 0.01) ** 2 for a, b, c, r in solid)
        if apart and x * x + y * y + z * z < (0.70 - radius) ** 2:
            solid.append((x, y, z, radius))
            spheres.append((x, y, z, radius, -1.1))
    return np.array(spheres)


@dataclass(frozen=True)
class ParallelScan:
    """A scan over 180 degrees about a vertical axis.

    Parameters
    ----------
    rows, columns : int
        Of the detector, pixels.
    views : int
        Projections, at equal steps from 0 to 180 degrees, both included: the last mirrors the first.
    centre : float
        Column of the axis of rotation.
    photons : float
        In the middle of the beam, for each pixel and frame; the detector gives one count for each.
    seed : int
        Of the photon and read-out noise.
    spheres : ndarray of (n, 5)
        See `foam`.
    """

    rows: int = 120
    columns: int = 160
    views: int = 121
    centre: float = 82.3
    photons: float = 20_000.0
    seed: int = 42
    spheres: npt.NDArray[np.float64] = field(default_factory=foam)

    @property
    def unit(self) -> float:
        """Pixels of one unit of the phantom."""
        return self.columns / 2

    @property
    def angles(self) -> npt.NDArray[np.float64]:
        """Degrees."""
        return np.linspace(0.0, 180.0, self.views)

    def dark(self, number: int) -> Frame:
        """A frame without beam."""
        return self._counted(np.zeros((self.rows, self.columns)), _DARK, number)

    def flat(self, number: int) -> Frame:
        """A frame without the sample."""
        return self._counted(self.beam, _FLAT, number)

    def projection(self, view: int) -> Frame:
        """The sample at angle `angles[view]`."""
        return self._counted(self.beam * np.exp(-self.attenuation(view)), _PROJECTION, view)

    def attenuation(self, view: int) -> npt.NDArray[np.float64]:
        """The line integral of the attenuation for each pixel, without noise: what `-log` of a transmission is."""
        theta = np.deg2rad(self.angles[view])
        across = (np.arange(self.columns) - self.centre) / self.unit
        along = (np.arange(self.rows) - (self.rows - 1) / 2) / self.unit
        total = np.zeros((self.rows, self.columns))
        for x, y, z, radius, strength in self.spheres:
            middle = x * np.cos(theta) + y * np.sin(theta)
            left = radius**2 - (across[None, :] - middle) ** 2 - (along[:, None] - z) ** 2
            total += strength * 2 * np.sqrt(np.clip(left, 0, None))
        return total

    def truth(self, row: int) -> npt.NDArray[np.float64]:
        """The attenuation per pixel of path in the slice of a detector row, `(columns, columns)`.

        First axis y, second x, both about the axis of rotation at `(columns - 1) / 2`.
        """
        place = (np.arange(self.columns) - (self.columns - 1) / 2) / self.unit
        height = (row - (self.rows - 1) / 2) / self.unit
        total = np.zeros((self.columns, self.columns))
        for x, y, z, radius, strength in self.spheres:
            distance = (place[None, :] - x) ** 2 + (place[:, None] - y) ** 2 + (height - z) ** 2
            total += strength * (distance < radius**2)
        return total / self.unit

    @cached_property
    def beam(self) -> npt.NDArray[np.float64]:
        """Photons for each pixel: a broad maximum with the horizontal bands of a multilayer monochromator."""
        down = np.linspace(-1, 1, self.rows)[:, None]
        across = np.linspace(-1, 1, self.columns)[None, :]
        bands = 1 + 0.12 * np.sin(9 * down) + 0.05 * np.sin(31 * down + 1)
        beam: npt.NDArray[np.float64] = self.photons * bands * (1 - 0.35 * across**2) * (1 - 0.15 * down**2)
        return beam

    def _counted(self, photons: npt.NDArray[Any], kind: int, number: int) -> Frame:
        random = np.random.default_rng((self.seed, kind, number))
        counts = random.poisson(photons) + random.normal(_DARK_COUNTS, _READ_NOISE_COUNTS, photons.shape)
        return np.clip(np.rint(counts), 0, _COUNTS_MAX).astype(np.uint16)
