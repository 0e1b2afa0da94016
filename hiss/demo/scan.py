"""The tomography scan that the demo's instrument plays: real frames from a file, or simulated ones; it says which.

Files have one of three forms: Data Exchange (`exchange/data`, `data_dark`, `data_white`, `theta`), NXtomo (`image_key`)
and that of the Diamond scan that the demo knows best (`projections`, `dark_mean`, `flat_mean`, `angle_deg`), of which
one dark and one flat are real and nine of each are derived from it by noise. Pure but for reading the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import hiss
from hiss.errors import InvalidInput
from hiss.testing.simulator import ParallelScan

Array = npt.NDArray[Any]

DIAMOND: Final = "tomo_dls_91x135x160.h5"
GRIDSCAN: Final = "pilatus6m_gridscan_5f.h5"
DERIVED: Final = 9  # darks, and flats, derived from the real one
SEED: Final = 42
COUNTS_PER_PHOTON: Final = 2.0  # variance of the air of the Diamond scan over its mean
READ_NOISE_COUNTS: Final = 2.8  # of the tooth scan with ten separate darks
_CALIBRATION_FRAMES: Final = 10


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """Frames `(n, rows, columns)` of one dtype, the angle of each projection in degrees, and where they are from.

    `derived` is the number of darks, and of flats, at the end that are not real. `rows` are two rows worth a picture.
    """

    origin: tuple[str, ...]
    sample: str
    dark: Array
    flat: Array
    projections: Array
    angles: npt.NDArray[np.float64]
    derived: int
    rows: tuple[int, int]


def data_folder() -> Path:
    """Where real instrument data would be: `HISS_TEST_DATA`, else `shared/data` beside the checkout."""
    beside = Path(hiss.__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("HISS_TEST_DATA", beside))


def load_scan(source: Path | None) -> Scan:
    """The scan of a file; without one the Diamond scan where it is there, else a simulated one.

    Raises
    ------
    InvalidInput
        The file is not HDF5, or none of the three forms.
    """
    if source is None:
        source = data_folder() / DIAMOND
        if not source.is_file():
            return _simulated()
    import h5py

    try:
        file = h5py.File(source, "r")
    except OSError as error:
        raise InvalidInput(f"{source}: not an HDF5 file that can be read: {error}") from None
    with file:
        for member, read in _FORMS.items():
            if member in file:
                return read(file, source)
    raise InvalidInput(f"{source}: no scan found; expected one of the datasets {', '.join(_FORMS)}")


def _simulated() -> Scan:
    scan = ParallelScan(seed=SEED)
    return Scan(
        origin=(
            f"SIMULATED: a ball of foam with a stone, {scan.views} views, noise of {scan.photons:.0f} photons a pixel, "
            f"seed {scan.seed}; no real scan was found at {data_folder()}",
        ),
        sample="simulated foam",
        dark=np.stack([scan.dark(number) for number in range(_CALIBRATION_FRAMES)]),
        flat=np.stack([scan.flat(number) for number in range(_CALIBRATION_FRAMES)]),
        projections=np.stack([scan.projection(view) for view in range(scan.views)]),
        angles=scan.angles,
        derived=0,
        rows=(scan.rows // 4, scan.rows // 2),
    )


def _diamond(file: Any, source: Path) -> Scan:
    dark, flat = file["dark_mean"][()], file["flat_mean"][()]
    projections = file["projections"][()]
    return Scan(
        origin=(
            f"REAL: {len(projections)} projections of a stone on a pin, Diamond Light Source, {source}",
            f"of its darks and flats one each is real; {DERIVED} each are derived: the real one + normal noise of "
            f"variance {COUNTS_PER_PHOTON:g} x counts + {READ_NOISE_COUNTS:g}^2 (darks: {READ_NOISE_COUNTS:g}^2), "
            f"seed {SEED}",
        ),
        sample="stone on a pin (Diamond Light Source)",
        dark=_with_derived(dark, 0.0, SEED, projections.dtype),
        flat=_with_derived(flat, COUNTS_PER_PHOTON, SEED + 1, projections.dtype),
        projections=projections,
        angles=file["angle_deg"][()].astype(np.float64),
        derived=DERIVED,
        rows=(50, 85) if projections.shape[1:] == (135, 160) else _two_rows(projections),
    )


def _data_exchange(file: Any, source: Path) -> Scan:
    projections = file["exchange/data"][()]
    return Scan(
        origin=(f"REAL: {len(projections)} projections, darks and flats of {source}",),
        sample=source.stem,
        dark=file["exchange/data_dark"][()],
        flat=file["exchange/data_white"][()],
        projections=projections,
        angles=file["exchange/theta"][()].astype(np.float64),
        derived=0,
        rows=_two_rows(projections),
    )


def _nxtomo(file: Any, source: Path) -> Scan:
    data, key = file["entry/data/data"][()], file["entry/data/image_key"][()]
    if not all(np.any(key == wanted) for wanted in (0, 1, 2)):
        raise InvalidInput(f"{source}: image_key lacks projections (0), flats (1) or darks (2)")
    angles = file["entry/data/rotation_angle"][()]
    return Scan(
        origin=(f"REAL: {np.count_nonzero(key == 0)} projections, darks and flats of {source} (NXtomo)",),
        sample=source.stem,
        dark=data[key == 2],
        flat=data[key == 1],
        projections=data[key == 0],
        angles=angles[key == 0].astype(np.float64),
        derived=0,
        rows=_two_rows(data),
    )


_FORMS: Final[dict[str, Callable[[Any, Path], Scan]]] = {
    "projections": _diamond,
    "exchange/data": _data_exchange,
    "entry/data/image_key": _nxtomo,
}


def _two_rows(frames: Array) -> tuple[int, int]:
    return frames.shape[1] * 3 // 8, frames.shape[1] * 5 // 8


def noisy(
    mean: Array, counts_per_photon: float, random: np.random.Generator, dtype: np.dtype[Any], dark: Array | float = 0.0
) -> Array:
    """A frame: `dark` + Normal(mean, counts_per_photon x mean + r^2), rounded and clipped to an integer dtype."""
    spread = np.sqrt(counts_per_photon * np.clip(mean, 0, None) + READ_NOISE_COUNTS**2)
    drawn = dark + mean + spread * random.standard_normal(mean.shape, np.float32)
    if np.issubdtype(dtype, np.integer):
        drawn = np.clip(np.rint(drawn), np.iinfo(dtype).min, np.iinfo(dtype).max)
    return drawn.astype(dtype)


def _with_derived(real: Array, counts_per_photon: float, seed: int, dtype: np.dtype[Any]) -> Array:
    random = np.random.default_rng(seed)
    derived = [noisy(real, counts_per_photon, random, dtype) for _ in range(DERIVED)]
    return np.stack([real.astype(dtype), *derived])
