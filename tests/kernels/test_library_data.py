"""The library on real instrument data, against the references that come with it, or plain NumPy, SciPy and pyFAI.

What has a reference of its own runs on every back end, the rest in Numba: that back ends agree is tested elsewhere.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from hiss.kernels import Compiler, Packets, Pipeline, Reduction, ResolvedStage, library
from hiss.kernels.authoring import Kernel
from hiss.kernels.library.powder import azimuthal_index
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


def test_photons_of_jungfrau(data_dir: Path, numba_compiler: Compiler) -> None:
    """The gain map is in ADU for each photon, so the energies have peaks at 0, 1, 2 …; rounding is that of float64."""
    raw, pedestal, gain, _ = _jungfrau(data_dir)
    energy = frames_of(library.jungfrau, raw, numba_compiler, pedestal=pedestal, gain=gain)
    counts = frames_of(library.photons, energy, numba_compiler, photon=1.0)
    expected = np.clip(np.nan_to_num(np.floor(energy.astype(np.float64) + 0.5)), 0, 65535)
    assert counts.dtype == np.uint16
    assert (counts != expected).mean() < 1e-5  # within float32's rounding of a half
    assert np.abs(counts - expected).max() <= 1
    assert 0.5 < (counts > 0).mean() < 0.8


def test_zero_suppression_of_jungfrau(data_dir: Path, numba_compiler: Compiler) -> None:
    """At five times a noise of a tenth of a photon, what is left is what holds a photon."""
    raw, pedestal, gain, _ = _jungfrau(data_dir)
    energy = frames_of(library.jungfrau, raw, numba_compiler, pedestal=pedestal, gain=gain)
    noise = np.full(energy.shape[1:], 0.1, np.float32)
    kept = frames_of(library.zero_suppress, energy, numba_compiler, noise=noise)
    np.testing.assert_array_equal(kept, np.where(energy > np.float32(5) * noise, energy, 0))
    counts = frames_of(library.photons, energy, numba_compiler, photon=1.0)
    assert ((kept > 0) == (counts > 0)).mean() > 0.9999


# ------------------------------------------------------------------------------------------------ tomography


def test_dark_and_flat_of_diamond(data_dir: Path, numba_compiler: Compiler) -> None:
    """The banding of the beam goes: the air's spread falls to less than half; its level is 0.69, then 1."""
    frames, dark, flat = read(data_dir / "tomo_dls_91x135x160.h5", "projections", "dark_mean", "flat_mean")
    found = frames_of(library.dark_flat, frames, numba_compiler, dark=dark, flat=flat)
    wide = frames.astype(np.float64)
    np.testing.assert_allclose(
        found, (wide - dark) / np.maximum(flat.astype(np.float64) - dark, 1), rtol=3e-6, atol=1e-6
    )
    assert found.dtype == np.float32
    before, after = wide[0, 5:90, :16], found[0, 5:90, :16]
    assert after.std() / after.mean() < before.std() / before.mean() / 2
    assert np.median(after) == pytest.approx(0.69, abs=0.02)
    air = frames_of(library.air_level, found, numba_compiler, margin=8)
    outer = np.concatenate((air[:, :, :8], air[:, :, -8:]), axis=2)
    np.testing.assert_allclose(outer.mean(axis=(1, 2)), 1, rtol=1e-5)
    absorption = frames_of(library.minus_log, air, numba_compiler)
    np.testing.assert_allclose(absorption, -np.log(np.maximum(air.astype(np.float64), 1e-6)), rtol=2e-6, atol=1e-6)


def test_dark_and_flat_of_neutrons(data_dir: Path, numba_compiler: Compiler) -> None:
    """1.004 in the open beam and 0.035 behind the plate, as the data's description has it."""
    frames, beam, dark = read(data_dir / "neutron_edge_ob_dc.h5", "frames", "open_beam", "dark_current")
    found = frames_of(library.dark_flat, frames, numba_compiler, dark=dark, flat=beam)
    wide = (frames - dark.astype(np.float64)) / np.maximum(beam - dark.astype(np.float64), 1)
    np.testing.assert_allclose(found, wide, rtol=1e-6, atol=1e-7)
    columns = np.median(found[0], axis=0)
    rows = np.median(found[0], axis=1)
    lowest, highest = min(columns.min(), rows.min()), max(columns.max(), rows.max())
    assert lowest == pytest.approx(0.035, abs=0.02)
    assert highest == pytest.approx(1.004, abs=0.03)


def test_tooth_with_its_own_darks_and_flats(data_dir: Path, numba_compiler: Compiler) -> None:
    """Darks and flats go through the running mean, as they do in a beamline; the noise model is that of the data."""
    names = ("exchange/data", "exchange/data_dark", "exchange/data_white")
    frames, darks, flats = read(data_dir / "tomo_tooth.h5", *names)
    dark, flat = reduced(library.mean, darks, numba_compiler), reduced(library.mean, flats, numba_compiler)
    np.testing.assert_allclose(dark, darks.astype(np.float64).mean(axis=0), rtol=1e-6)
    spread = reduced(library.variance, flats, numba_compiler)
    np.testing.assert_allclose(spread, flats.astype(np.float64).var(axis=0), rtol=1e-9)
    assert np.median(spread * 10 / 9 / (flat - dark)) == pytest.approx(0.62, abs=0.1)  # counts for each count
    np.testing.assert_array_equal(reduced(library.maximum, flats, numba_compiler), flats.max(axis=0))
    np.testing.assert_array_equal(reduced(library.minimum, flats, numba_compiler), flats.min(axis=0))
    np.testing.assert_allclose(
        reduced(library.total, flats, numba_compiler), flats.sum(axis=0, dtype=np.float64), rtol=1e-12
    )
    transmission = frames_of(library.dark_flat, frames, numba_compiler, dark=dark, flat=flat)
    absorption = frames_of(library.minus_log, transmission, numba_compiler)
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


def test_masked_pixels_of_pilatus_are_negative(data_dir: Path, numba_compiler: Compiler) -> None:
    """-1 in gaps and -2 in bad pixels, as in the CBF files that the frames come from."""
    frames, mask = read(data_dir / "pilatus6m_gridscan_5f.h5", "frames", "mask")
    found = frames_of(library.pilatus_mask, frames[:2], numba_compiler, mask=mask)
    assert found.dtype == np.int32
    for code, value in ((1, -1), (2, -2)):
        assert np.unique(found[:, mask == code]).tolist() == [value]
    np.testing.assert_array_equal(found[:, mask == 0], frames[:2, mask == 0])
    (powder,) = read(data_dir / "ceo2_pilatus1m.h5", "frame")
    marked = frames_of(library.pilatus_mask, powder[np.newaxis], numba_compiler, mask=np.zeros(powder.shape, np.uint8))
    np.testing.assert_array_equal(marked[0], powder)


def test_a_region_of_a_lambda_module(data_dir: Path, numba_compiler: Compiler) -> None:
    (frames,) = read(data_dir / "lambda_asapo_m1_part00000.nxs", "entry/instrument/detector/data")
    found = frames_of(library.roi, frames, numba_compiler, top=100, left=256, height=200, width=512)
    np.testing.assert_array_equal(found, frames[:, 100:300, 256:768])


def test_hot_pixels_of_the_grid_scan(data_dir: Path, numba_compiler: Compiler) -> None:
    """Nothing is left beyond the detector's cutoff; SciPy's median stands where it was."""
    frames, mask = read(data_dir / "pilatus6m_gridscan_5f.h5", "frames", "mask")
    frames, mask = np.ascontiguousarray(frames[3:, 900:1600, :1500]), np.ascontiguousarray(mask[900:1600, :1500])
    cutoff = 115897  # Count_cutoff of the frames' header
    hot = (frames > cutoff) & (mask == 0)
    assert hot.any()
    found = frames_of(library.hot_pixels, frames, numba_compiler, mask=mask, cutoff=cutoff)
    assert (found <= cutoff).all()
    for frame, repaired, bad in zip(frames, found, hot | (mask == 2), strict=True):
        np.testing.assert_array_equal(repaired[~bad], frame[~bad])
        np.testing.assert_array_equal(repaired[bad], scipy.ndimage.median_filter(frame, 3)[bad])


def test_spots_of_the_grid_scan(data_dir: Path, numba_compiler: Compiler) -> None:
    """As many as SciPy labels; frames off the crystal have none to speak of."""
    frames, mask = read(data_dir / "pilatus6m_gridscan_5f.h5", "frames", "mask")
    expected = []
    for frame in frames:
        labels, _ = scipy.ndimage.label((frame >= 20) & (mask == 0), np.ones((3, 3)))
        expected.append(int((np.bincount(labels.reshape(-1))[1:] >= 2).sum()))
    found = frames_of(library.spots, frames, numba_compiler, mask=mask)
    assert found.tolist() == expected
    stored, vetoed = BlockStatus.STORED, BlockStatus.VETOED
    status = run(library.spot_hit, frames, numba_compiler, mask=mask).status.tolist()
    assert status == [stored if count >= 10 else vetoed for count in expected]
    assert status[:2] == [stored, stored]
    assert status[3:] == [vetoed, vetoed]


def test_azimuthal_integration_of_ceria(data_dir: Path, compiler: Compiler) -> None:
    """The powder rings of CeO2 as pyFAI integrates them: median deviation 1e-6, pixels on bin edges excepted."""
    pytest.importorskip("pyFAI", reason="pip install 'hiss[azimuthal]'")
    (frame,) = read(data_dir / "ceo2_pilatus1m.h5", "frame")
    reference = np.load(data_dir / "ceo2_pilatus1m_pyfai_ref.npz")
    index, two_theta = azimuthal_index(
        data_dir / "ceo2_pilatus1m.poni",
        frame.shape,
        bins=1000,
        two_theta_deg=(0.5, 30.0),
        mask=frame < 0,
        flip_rows=True,
    )
    np.testing.assert_allclose(two_theta, reference["two_theta_deg"], rtol=2e-7)
    (found,) = frames_of(library.azimuthal, frame[np.newaxis], compiler, index=index, bins=1000)
    filled = reference["count"] > 0
    assert np.isnan(found[~filled]).all()
    deviation = np.abs(found - reference["intensity"])[filled] / np.maximum(reference["intensity"][filled], 1)
    assert np.median(deviation) <= 1e-6
    assert deviation.max() <= 0.02
    plain = np.bincount(index[index >= 0], frame[index >= 0], 1000) / np.bincount(index[index >= 0], minlength=1000)
    np.testing.assert_allclose(found[filled], plain[filled], rtol=1e-12)


# ------------------------------------------------------------------------------------------------ medians and bins


def test_common_mode_of_jungfrau(data_dir: Path, numba_compiler: Compiler) -> None:
    raw, pedestal, gain, _ = _jungfrau(data_dir)
    gain = np.nan_to_num(gain, nan=1.0)
    energy = frames_of(library.jungfrau, raw, numba_compiler, pedestal=pedestal, gain=gain)
    found = frames_of(library.common_mode, energy, numba_compiler)
    np.testing.assert_array_equal(found, energy - np.median(energy, axis=2, keepdims=True))
    assert np.abs(np.median(found, axis=2)).max() < 1e-6


def test_spots_of_gamma_rays_are_taken_out(data_dir: Path, numba_compiler: Compiler) -> None:
    """The dark current of a neutron camera has bright spots, up to 52886 counts."""
    (dark,) = read(data_dir / "neutron_edge_ob_dc.h5", "dark_current")
    (found,) = frames_of(library.despike, dark[np.newaxis], numba_compiler, excess=500)
    around = scipy.ndimage.median_filter(dark, 3)
    np.testing.assert_array_equal(found, np.where(dark > around + 500.0, around, dark))
    assert dark.max() == 52886
    assert found.max() < 5000
    assert 0 < (found != dark).mean() < 0.05


def test_binning(data_dir: Path, numba_compiler: Compiler) -> None:
    frames, _, _ = read(data_dir / "tomo_dls_91x135x160.h5", "projections", "dark_mean", "flat_mean")
    even = np.ascontiguousarray(frames[:5, :134])
    found = frames_of(library.binned, even, numba_compiler)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, even.reshape(5, 67, 2, 80, 2).sum(axis=(2, 4)))
    assert found.sum() == even.sum(dtype=np.uint64)


def test_segmentation_of_fibres(data_dir: Path, numba_compiler: Compiler) -> None:
    """Slices of a micro-CT of carbon fibres: bright and dark as the best of all thresholds has them."""
    path = data_dir / "fiberform_100.tif"
    if not path.is_file():
        pytest.skip(f"no {path}")
    volume = np.frombuffer(path.read_bytes()[-1_000_000 - 0 :], np.uint8)[: 100**3].reshape(100, 100, 100)
    found = frames_of(library.segment, np.ascontiguousarray(volume[:4]), numba_compiler, size=3)
    for image, bright in zip(volume[:4], found, strict=True):
        smooth = scipy.ndimage.median_filter(image, 3)
        assert _variance_between(smooth, bright) == pytest.approx(
            max(_variance_between(smooth, smooth > level) for level in np.unique(smooth)[:-1]), rel=1e-9
        )


def _variance_between(image: Any, bright: Any) -> float:
    high, low = image[bright].astype(np.float64), image[~bright].astype(np.float64)
    return float(len(high) * len(low) * (high.mean() - low.mean()) ** 2)


# ------------------------------------------------------------------------------------------------ Timepix3


def _words(folder: Path) -> Any:
    path = folder / "tpx3_ornl_background.tpx3"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return np.fromfile(path, "<u8")


def test_hits_of_timepix3(data_dir: Path, numba_compiler: Compiler) -> None:
    """98,548 hits of four chips, as the file's description has them; coordinates and times as taken apart in Python."""
    words = _words(data_dir)
    (fields,) = frames_of(library.tpx3_fields, words[np.newaxis], numba_compiler)
    kinds = np.bincount(fields[:, 0], minlength=16)
    assert (kinds[0xB], kinds[0x6]) == (98_548, 28_800)
    hits = fields[fields[:, 0] == 0xB]
    assert np.unique(hits[:, 1]).tolist() == [0, 1, 2, 3]
    assert (hits[:, 2:4].min(), hits[:, 2:4].max()) == (0, 255)
    chip, expected = -1, []
    for word in words[:30_000].tolist():
        if word & 0xFFFFFFFF == 0x33585054:
            chip = word >> 32 & 0xFF
        elif word >> 60 == 0xB:
            address = word >> 44 & 0xFFFF
            pixel = address & 7
            column, row = (address & 0xFE00) >> 8, (address & 0x1F8) >> 1
            arrival = ((word & 0xFFFF) << 14 | word >> 30 & 0x3FFF) * 16 - (word >> 16 & 0xF)
            expected.append([0xB, chip, column + pixel // 4, row + pixel % 4, arrival, word >> 20 & 0x3FF])
    assert len(expected) > 1000
    np.testing.assert_array_equal(hits[: len(expected)], expected)


def test_pictures_of_timepix3(data_dir: Path, numba_compiler: Compiler) -> None:
    words = _words(data_dir)
    (fields,) = frames_of(library.tpx3_fields, words[np.newaxis], numba_compiler)
    hits = fields[(fields[:, 0] == 0xB) & (fields[:, 5] >= 5)]
    (image,) = frames_of(library.tpx3_image, words[np.newaxis], numba_compiler, least=5)
    expected = np.zeros((4, 256, 256), np.uint32)
    np.add.at(expected, (hits[:, 1], hits[:, 3], hits[:, 2]), 1)
    np.testing.assert_array_equal(image, expected)
    (every,) = frames_of(library.tpx3_image, words[np.newaxis], numba_compiler)
    assert every.sum() == 98_548


def _chunks(words: Any) -> list[Any]:
    """The packets: each a whole number of chunks, the first ones of one chunk, and an empty one."""
    heads = np.flatnonzero((words & 0xFFFFFFFF) == 0x33585054)
    ends = [*heads[1:40], *heads[40::500], len(words)]
    return [words[:0], *(words[a:b] for a, b in itertools.pairwise([0, *ends]))]


def _packet_pipeline(kernel: Any, compiler: Compiler, **params: int) -> Pipeline:
    bound = {name: ScalarParam(value) for name, value in params.items()}
    return Pipeline.build([ResolvedStage(kernel.definition, bound)], "u8", (None,), np.dtype([]), compiler)


def test_hits_of_timepix3_packets(data_dir: Path, numba_compiler: Compiler) -> None:
    """Of each packet the hits that are long enough, as a decoder in plain Python has them."""
    words = _words(data_dir)
    sent = _chunks(words)
    packets = Packets.of(words, np.array([len(packet) for packet in sent]))
    columns = np.zeros(len(sent), np.dtype([]))
    hits = _packet_pipeline(library.tpx3_hits, numba_compiler, least=10).run(packets, columns)
    kept = _packet_pipeline(library.tpx3_veto, numba_compiler, least=10).run(packets, columns)
    every = _packet_pipeline(library.tpx3_hits, numba_compiler).run(packets, columns)
    assert (hits.faults, kept.faults, every.faults) == ((), (), ())
    assert sum(len(packet) for packet in every.frames) == 98_548
    for packet, found, left in zip(sent[:60], hits.frames, kept.frames, strict=False):
        chip, expected, others = -1, [], []
        for word in packet.tolist():
            tot = word >> 20 & 0x3FF
            if word & 0xFFFFFFFF == 0x33585054:
                chip = word >> 32 & 0xFF
            if word >> 60 != 0xB:
                others.append(word)
            elif tot >= 10:
                address = word >> 44 & 0xFFFF
                x, y = ((address & 0xFE00) >> 8) + (address & 7) // 4, ((address & 0x1F8) >> 1) + (address & 3)
                arrival = ((word & 0xFFFF) << 14 | word >> 30 & 0x3FFF) * 16 - (word >> 16 & 0xF)
                expected.append([chip, x, y, arrival, tot])
                others.append(word)
        assert found.tolist() == expected
        assert left.tolist() == others
    images = _packet_pipeline(library.tpx3_image, numba_compiler, least=10).run(packets, columns)
    counted = np.zeros((4, 256, 256), np.int64)
    for packet in hits.frames:
        np.add.at(counted, (packet[:, 0], packet[:, 2], packet[:, 1]), 1)
    assert np.array_equal(images.frames.sum(axis=0), counted)


# ------------------------------------------------------------------------------------------------ fibre


def _fibre(folder: Path) -> Any:
    (block,) = read(folder / "das_idas005_1000x1152.h5", "Acquisition/Raw[0]/RawData")
    return block


def test_detrended_fibre(data_dir: Path, numba_compiler: Compiler) -> None:
    block = _fibre(data_dir)
    (found,) = frames_of(library.detrend, block[np.newaxis], numba_compiler)
    expected = scipy.signal.detrend(block.astype(np.float64), axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(block).max())
    (level,) = frames_of(library.rms, found[np.newaxis], numba_compiler)
    np.testing.assert_allclose(level, np.sqrt(np.mean(found.astype(np.float64) ** 2, axis=0)), rtol=1e-6)


def test_quiet_fibre_is_vetoed(data_dir: Path, numba_compiler: Compiler) -> None:
    """The second of fibre cut into ten blocks; which are loud follows from NumPy's root mean squares."""
    block = _fibre(data_dir)
    parts = block.reshape(10, 100, -1).astype(np.float64)
    flat = scipy.signal.detrend(parts, axis=1).astype(np.float32)
    levels = np.sqrt(np.mean(flat.astype(np.float64) ** 2, axis=1))
    threshold = float(np.quantile(levels, 0.95)) * (1 + 1e-9)
    loud = (levels >= threshold).sum(axis=1)
    least = int(np.median(loud)) + 1
    status = run(library.loud, flat, numba_compiler, threshold=threshold, least=least).status
    np.testing.assert_array_equal(status == BlockStatus.STORED, loud >= least)
    assert 0 < (status == BlockStatus.VETOED).sum() < 10


def test_smoothed_fibre(data_dir: Path, numba_compiler: Compiler) -> None:
    block = _fibre(data_dir)[:, :200].copy()
    (found,) = frames_of(library.smoothed, block[np.newaxis], numba_compiler, share=0.2)
    expected = scipy.signal.lfilter([0.2], [1, -0.8], block.astype(np.float64), axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(block).max())


def test_trigger_of_fibre(data_dir: Path, numba_compiler: Compiler) -> None:
    """One time sample a block; the averages are those of SciPy's recursive filter over the whole second."""
    samples = scipy.signal.detrend(_fibre(data_dir)[:, ::16].astype(np.float64), axis=0)
    found = frames_of(library.sta_lta, samples, numba_compiler, short=20, long=200)
    sta, lta = (scipy.signal.lfilter([1 / n], [1, 1 / n - 1], samples**2, axis=0) for n in (20, 200))
    np.testing.assert_allclose(found[200:], (sta / lta)[200:], rtol=1e-9)
    assert not found[:200].any()
    assert found.max() > 2


def test_slow_drift_of_fibre(data_dir: Path, numba_compiler: Compiler) -> None:
    samples = _fibre(data_dir)[:, ::64].copy()
    found = frames_of(library.drift, samples, numba_compiler, rate=0.05)
    wide = samples.astype(np.float64)
    start = wide[0] * (1 - 0.05)
    baseline, _ = scipy.signal.lfilter([0.05], [1, -0.95], wide, axis=0, zi=start[np.newaxis])
    np.testing.assert_allclose(found[1:], wide[1:] - baseline[:-1], rtol=1e-9, atol=1e-6)
