"""Kernels on real instrument data, against what the instruments' own software or plain NumPy gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hiss.kernels import Compiler, Reduction, ResolvedStage, builtin
from hiss.model import BlockStatus, ScalarParam
from kernels.building import NO_COLUMNS, built, filter_of, map_of

JUNGFRAU = map_of("""
def k(raw, pedestal, gain):
    stage = raw >> 14
    adu = raw & 0x3FFF
    return np.where(stage == 0, (adu - pedestal) / gain, np.nan)
""")
FLATFIELD = map_of("""
def k(frame, dark, flat):
    t = (frame.astype(np.float32) - dark) / np.maximum(flat - dark, 1)
    return -np.log(np.clip(t, 1e-6, None))
""")
HITS = filter_of("""
def f(frame, mask, threshold=20, least=50):
    return np.count_nonzero((frame >= threshold) & (mask == 0)) >= least
""")
COUNT = map_of("""
def k(frame, mask, threshold=20):
    return np.count_nonzero((frame >= threshold) & (mask == 0))
""")


def _read(path: Path, *names: str) -> list[Any]:
    if not path.is_file():
        pytest.skip(f"no {path}")
    with h5py.File(path) as file:
        return [file[name][...] for name in names]


def _over(pipeline: Any, frames: Any) -> Any:
    return pipeline.run(frames, np.zeros(len(frames), NO_COLUMNS))


def test_jungfrau_pedestal_and_gain(data_dir: Path, compiler: Compiler) -> None:
    """(ADU - pedestal) / gain where the gain stage is 0: 99.88 % of the pixels, to 2e-6."""
    names = ("raw", "pedestal_g0", "gain_g0_derived", "expected_converted")
    raw, pedestal, gain, expected = _read(data_dir / "jungfrau_mod5.h5", *names)
    pipeline = built(JUNGFRAU, raw.dtype, raw.shape[1:], compiler, pedestal=pedestal, gain=gain)
    assert pipeline.out_dtype == np.float32
    converted = _over(pipeline, raw).frames[0]
    compared = (raw[0] >> 14 == 0) & np.isfinite(gain)
    assert 0.9988 <= compared.mean() < 0.9989
    difference = np.abs(converted[compared] - expected[0][compared])
    assert np.max(difference / np.maximum(np.abs(expected[0][compared]), 1)) <= 2e-6
    assert np.isnan(converted[raw[0] >> 14 != 0]).all()


def test_diamond_tomography(data_dir: Path, compiler: Compiler) -> None:
    frames, dark, flat = _read(data_dir / "tomo_dls_91x135x160.h5", "projections", "dark_mean", "flat_mean")
    pipeline = built(FLATFIELD, frames.dtype, frames.shape[1:], compiler, dark=dark, flat=flat)
    outcome = _over(pipeline, frames)
    assert (outcome.status == BlockStatus.STORED).all()
    _as_numpy(outcome.frames, frames, dark, flat)


def test_tooth_tomography_with_dark_and_flat_reduced(data_dir: Path, compiler: Compiler) -> None:
    """Darks and flats go through the `mean` reduction first, as they do in a beamline."""
    names = ("exchange/data", "exchange/data_dark", "exchange/data_white")
    frames, darks, flats = _read(data_dir / "tomo_tooth.h5", *names)
    means = []
    for stack in (darks, flats):
        reduction = Reduction.build(ResolvedStage(builtin("mean")), stack.dtype, stack.shape[1:], compiler)
        reduction.update(stack[:3])
        reduction.update(stack[3:])
        means.append(reduction.result())
        np.testing.assert_allclose(means[-1], stack.astype(np.float64).mean(axis=0), rtol=1e-7)
        assert means[-1].dtype == np.float32
    pipeline = built(FLATFIELD, frames.dtype, frames.shape[1:], compiler, dark=means[0], flat=means[1])
    _as_numpy(_over(pipeline, frames).frames, frames, *means)


def _as_numpy(result: Any, frames: Any, dark: Any, flat: Any) -> None:
    expected = -np.log(np.clip((frames.astype(np.float32) - dark) / np.maximum(flat - dark, 1), 1e-6, None))
    assert result.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


def test_pilatus_veto(data_dir: Path, compiler: Compiler) -> None:
    """Of five frames of a grid scan, those off the crystal are vetoed; the counts are known."""
    frames, mask = _read(data_dir / "pilatus6m_gridscan_5f.h5", "frames", "mask")
    counts = _over(built(COUNT, frames.dtype, frames.shape[1:], compiler, mask=mask), frames).frames
    assert counts.tolist() == [22537, 6365, 168, 7, 12]
    pipeline = built(HITS, frames.dtype, frames.shape[1:], compiler, mask=mask, least=ScalarParam(50))
    stored, vetoed = BlockStatus.STORED, BlockStatus.VETOED
    assert _over(pipeline, frames).status.tolist() == [stored, stored, stored, vetoed, vetoed]
