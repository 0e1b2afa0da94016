"""The simulated scan is what it says: exact geometry, photon noise, the same in every process."""

from __future__ import annotations

import numpy as np
import pytest

from hiss.testing.simulator import ParallelScan, foam

SCAN = ParallelScan(rows=24, columns=48, views=9, centre=25.3, photons=5000.0)


def test_frames_depend_on_seed_kind_and_number_only() -> None:
    again = ParallelScan(rows=24, columns=48, views=9, centre=25.3, photons=5000.0)
    np.testing.assert_array_equal(again.projection(4), SCAN.projection(4))
    assert not np.array_equal(SCAN.dark(0), SCAN.dark(1))
    other = ParallelScan(rows=24, columns=48, views=9, centre=25.3, photons=5000.0, seed=43)
    assert not np.array_equal(other.flat(0), SCAN.flat(0))


def test_a_turn_by_180_degrees_mirrors_about_the_axis() -> None:
    scan = ParallelScan(rows=16, columns=41, views=3, centre=20.0)
    np.testing.assert_allclose(scan.attenuation(0), scan.attenuation(2)[:, ::-1], atol=1e-12)


@pytest.mark.parametrize("view", [0, 4])
def test_projections_are_line_integrals_of_the_truth(view: int) -> None:
    """At 0 degrees rays run along y, at 90 along x; the truth sampled on pixels integrates to about the same."""
    scan = ParallelScan(rows=80, columns=160, views=9, centre=79.5)
    for row in (20, 40, 60):
        integral = scan.truth(row).sum(axis=0 if view == 0 else 1)
        assert np.abs(scan.attenuation(view)[row] - integral).max() < 0.08


def test_noise_is_that_of_the_photons() -> None:
    scan = ParallelScan(rows=16, columns=32, views=3, photons=400.0)
    flats = np.stack([scan.flat(number) for number in range(200)]).astype(float)
    darks = np.stack([scan.dark(number) for number in range(200)]).astype(float)
    signal = flats.mean() - darks.mean()
    assert abs(signal / scan.beam.mean() - 1) < 0.01
    assert abs(flats.var(axis=0).mean() / (signal + darks.var(axis=0).mean()) - 1) < 0.05


def test_bubbles_do_not_overlap() -> None:
    solid = foam()[1:]
    for place, (x, y, z, radius, _) in enumerate(solid):
        for a, b, c, other, _ in solid[:place]:
            assert (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 > (radius + other) ** 2
