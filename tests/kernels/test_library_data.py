"""The library on real instrument data, against the references that come with it, or plain NumPy, SciPy and pyFAI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hiss.kernels import Compiler, Reduction, ResolvedStage, library
from hiss.kernels.authoring import Kernel
from hiss.model import BlockStatus, ScalarParam
from kernels.building import NO_COLUMNS, built

GRID_SCAN_COUNTS = [22537, 6365, 168, 7, 12]  # pixels >= 20 counts outside the mask, from the data's own description


def read(path: Path, *names: str) -> list[Any]:
    if not path.is_file():
        pytest.skip(f"no {path}")
    with h5py.File(path) as file:
        return [file[name][...] for name in names]


def run(kernel: Kernel[..., Any], frames: Any, compiler: Compiler, **params: Any) -> Any:
    """The blocks' outcome; Python numbers are weak parameters, as `bind` makes them."""
    weak = {name: ScalarParam(value) if isinstance(value, int | float) else value for name, value in params.items()}
    pipeline = built(kernel.definition, frames.dtype, frames.shape[1:], compiler, **weak)
    return pipeline.run(frames, np.zeros(len(frames), NO_COLUMNS))


def frames_of(kernel: Kernel[..., Any], frames: Any, compiler: Compiler, **params: Any) -> Any:
    outcome = run(kernel, frames, compiler, **params)
    assert not outcome.faults
    assert (outcome.status == BlockStatus.STORED).all()
    return outcome.frames


def reduced(kernel: Kernel[..., Any], frames: Any, compiler: Compiler) -> Any:
    reduction = Reduction.build(ResolvedStage(kernel.definition), frames.dtype, frames.shape[1:], compiler)
    reduction.update(frames[:3])
    reduction.update(frames[3:])
    return reduction.result()


# ------------------------------------------------------------------------------------------------ JUNGFRAU


def _jungfrau(folder: Path) -> tuple[Any, Any, Any, Any]:
    """Raw frames, pedestals and gains by stage (those of G1 and G2 are not known: NaN), and the converted frame."""
    raw, p0, p1, p2, gain, expected = read(
        folder / "jungfrau_mod5.h5", "raw", "pedestal_g0", "pedestal_g1", "pedestal_g2", "gain_g0_derived",
        "expected_converted",
    )  # fmt: skip
    unknown = np.full_like(gain, np.nan)
    return raw, np.stack((p0, p1, p2)), np.stack((gain, unknown, unknown)), expected


def test_jungfrau(data_dir: Path, compiler: Compiler) -> None:
    """To 2e-6 of what the detector's own software gives, where the gain is known: 99.88 % of the pixels."""
    raw, pedestal, gain, expected = _jungfrau(data_dir)
    energy = frames_of(library.jungfrau, raw, compiler, pedestal=pedestal, gain=gain)
    assert energy.dtype == np.float32
    compared = (raw[0] >> 14 == 0) & np.isfinite(gain[0])
    assert 0.9988 <= compared.mean() < 0.9989
    difference = np.abs(energy[0][compared] - expected[0][compared])
    assert np.max(difference / np.maximum(np.abs(expected[0][compared]), 1)) <= 2e-6
    assert np.isnan(energy[0][~compared]).all()


def test_photons_of_jungfrau(data_dir: Path, compiler: Compiler) -> None:
    """The gain map is in ADU for each photon, so the energies have peaks at 0, 1, 2 …; rounding is that of float64."""
    raw, pedestal, gain, _ = _jungfrau(data_dir)
    energy = frames_of(library.jungfrau, raw, compiler, pedestal=pedestal, gain=gain)
    counts = frames_of(library.photons, energy, compiler, photon=1.0)
    expected = np.clip(np.nan_to_num(np.floor(energy.astype(np.float64) + 0.5)), 0, 65535)
    assert counts.dtype == np.uint16
    assert (counts != expected).mean() < 1e-5  # within float32's rounding of a half
    assert np.abs(counts - expected).max() <= 1
    assert 0.5 < (counts > 0).mean() < 0.8


def test_zero_suppression_of_jungfrau(data_dir: Path, compiler: Compiler) -> None:
    """At five times a noise of a tenth of a photon, what is left is what holds a photon."""
    raw, pedestal, gain, _ = _jungfrau(data_dir)
    energy = frames_of(library.jungfrau, raw, compiler, pedestal=pedestal, gain=gain)
    noise = np.full(energy.shape[1:], 0.1, np.float32)
    kept = frames_of(library.zero_suppress, energy, compiler, noise=noise)
    np.testing.assert_array_equal(kept, np.where(energy > np.float32(5) * noise, energy, 0))
    counts = frames_of(library.photons, energy, compiler, photon=1.0)
    assert ((kept > 0) == (counts > 0)).mean() > 0.9999


# ------------------------------------------------------------------------------------------------ tomography


def test_dark_and_flat_of_diamond(data_dir: Path, compiler: Compiler) -> None:
    """The banding of the beam goes: the air's spread falls to less than half; its level is 0.69, then 1."""
    frames, dark, flat = read(data_dir / "tomo_dls_91x135x160.h5", "projections", "dark_mean", "flat_mean")
    found = frames_of(library.dark_flat, frames, compiler, dark=dark, flat=flat)
    wide = frames.astype(np.float64)
    np.testing.assert_allclose(
        found, (wide - dark) / np.maximum(flat.astype(np.float64) - dark, 1), rtol=3e-6, atol=1e-6
    )
    assert found.dtype == np.float32
    before, after = wide[0, 5:90, :16], found[0, 5:90, :16]
    assert after.std() / after.mean() < before.std() / before.mean() / 2
    assert np.median(after) == pytest.approx(0.69, abs=0.02)
    air = frames_of(library.air_level, found, compiler, margin=8)
    outer = np.concatenate((air[:, :, :8], air[:, :, -8:]), axis=2)
    np.testing.assert_allclose(outer.mean(axis=(1, 2)), 1, rtol=1e-5)
    absorption = frames_of(library.minus_log, air, compiler)
    np.testing.assert_allclose(absorption, -np.log(np.maximum(air.astype(np.float64), 1e-6)), rtol=2e-6, atol=1e-6)


def test_dark_and_flat_of_neutrons(data_dir: Path, compiler: Compiler) -> None:
    """1.004 in the open beam and 0.035 behind the plate, as the data's description has it."""
    frames, beam, dark = read(data_dir / "neutron_edge_ob_dc.h5", "frames", "open_beam", "dark_current")
    found = frames_of(library.dark_flat, frames, compiler, dark=dark, flat=beam)
    wide = (frames - dark.astype(np.float64)) / np.maximum(beam - dark.astype(np.float64), 1)
    np.testing.assert_allclose(found, wide, rtol=1e-6, atol=1e-7)
    columns = np.median(found[0], axis=0)
    rows = np.median(found[0], axis=1)
    lowest, highest = min(columns.min(), rows.min()), max(columns.max(), rows.max())
    assert lowest == pytest.approx(0.035, abs=0.02)
    assert highest == pytest.approx(1.004, abs=0.03)


def test_tooth_with_its_own_darks_and_flats(data_dir: Path, compiler: Compiler) -> None:
    """Darks and flats go through the running mean, as they do in a beamline; the noise model is that of the data."""
    names = ("exchange/data", "exchange/data_dark", "exchange/data_white")
    frames, darks, flats = read(data_dir / "tomo_tooth.h5", *names)
    dark, flat = reduced(library.mean, darks, compiler), reduced(library.mean, flats, compiler)
    np.testing.assert_allclose(dark, darks.astype(np.float64).mean(axis=0), rtol=1e-6)
    spread = reduced(library.variance, flats, compiler)
    np.testing.assert_allclose(spread, flats.astype(np.float64).var(axis=0), rtol=1e-9)
    assert np.median(spread * 10 / 9 / (flat - dark)) == pytest.approx(0.62, abs=0.1)  # counts for each count
    np.testing.assert_array_equal(reduced(library.maximum, flats, compiler), flats.max(axis=0))
    np.testing.assert_array_equal(reduced(library.minimum, flats, compiler), flats.min(axis=0))
    np.testing.assert_allclose(reduced(library.total, flats, compiler), flats.sum(axis=0, dtype=np.float64), rtol=1e-12)
    transmission = frames_of(library.dark_flat, frames, compiler, dark=dark, flat=flat)
    absorption = frames_of(library.minus_log, transmission, compiler)
    wide = (frames.astype(np.float64) - dark) / np.maximum(flat.astype(np.float64) - dark, 1)
    np.testing.assert_allclose(absorption, -np.log(np.maximum(wide, 1e-6)), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------ PILATUS


def test_hits_of_the_grid_scan(data_dir: Path, compiler: Compiler) -> None:
    """Frames off the crystal are vetoed; the counts are known."""
    frames, mask = read(data_dir / "pilatus6m_gridscan_5f.h5", "frames", "mask")
    assert frames_of(library.bright_pixels, frames, compiler, mask=mask).tolist() == GRID_SCAN_COUNTS
    outcome = run(library.hit, frames, compiler, mask=mask)
    stored, vetoed = BlockStatus.STORED, BlockStatus.VETOED
    assert outcome.status.tolist() == [stored, stored, stored, vetoed, vetoed]
    unmasked = frames_of(library.bright_pixels, frames, compiler, mask=np.zeros_like(mask))
    assert (unmasked >= GRID_SCAN_COUNTS).all()


def test_masked_pixels_of_pilatus_are_negative(data_dir: Path, compiler: Compiler) -> None:
    """-1 in gaps and -2 in bad pixels, as in the CBF files that the frames come from."""
    frames, mask = read(data_dir / "pilatus6m_gridscan_5f.h5", "frames", "mask")
    found = frames_of(library.pilatus_mask, frames[:2], compiler, mask=mask)
    assert found.dtype == np.int32
    for code, value in ((1, -1), (2, -2)):
        assert np.unique(found[:, mask == code]).tolist() == [value]
    np.testing.assert_array_equal(found[:, mask == 0], frames[:2, mask == 0])
    (powder,) = read(data_dir / "ceo2_pilatus1m.h5", "frame")
    marked = frames_of(library.pilatus_mask, powder[np.newaxis], compiler, mask=np.zeros(powder.shape, np.uint8))
    np.testing.assert_array_equal(marked[0], powder)


def test_a_region_of_a_lambda_module(data_dir: Path, compiler: Compiler) -> None:
    (frames,) = read(data_dir / "lambda_asapo_m1_part00000.nxs", "entry/instrument/detector/data")
    found = frames_of(library.roi, frames, compiler, top=100, left=256, height=200, width=512)
    np.testing.assert_array_equal(found, frames[:, 100:300, 256:768])
