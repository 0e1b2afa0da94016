"""What the demo's instrument plays: real frames unchanged, derived ones marked, three forms of file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hiss.demo.amplified import POOL, ZOOM, amplified
from hiss.demo.instrument import Plan
from hiss.demo.scan import DERIVED, DIAMOND, load_scan
from hiss.errors import InvalidInput

RANDOM = np.random.default_rng(3)
FRAMES = RANDOM.integers(100, 1000, (5, 8, 12), np.uint16)
DARK, FLAT = RANDOM.integers(0, 9, (2, 8, 12), np.uint16), RANDOM.integers(1000, 1100, (3, 8, 12), np.uint16)
ANGLES = np.linspace(0, 180, 5)


def test_the_diamond_scan_is_real_but_for_what_is_marked(data_dir: Path) -> None:
    scan = load_scan(data_dir / DIAMOND)
    with h5py.File(data_dir / DIAMOND) as file:
        np.testing.assert_array_equal(scan.projections, file["projections"])
        np.testing.assert_array_equal(scan.dark[0], file["dark_mean"])
        np.testing.assert_array_equal(scan.flat[0], file["flat_mean"])
    assert scan.derived == DERIVED == len(scan.flat) - 1 == len(scan.dark) - 1
    assert scan.origin[0].startswith("REAL")
    assert "derived" in scan.origin[1]
    again = load_scan(data_dir / DIAMOND)
    np.testing.assert_array_equal(again.flat, scan.flat)


def test_without_real_data_it_says_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HISS_TEST_DATA", str(tmp_path))
    scan = load_scan(None)
    assert scan.origin[0].startswith("SIMULATED")
    assert str(tmp_path) in scan.origin[0]
    assert len(scan.projections) == len(scan.angles)


def test_data_exchange_and_nxtomo_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "exchange.h5", "w") as file:
        for name, values in {"data": FRAMES, "data_dark": DARK, "data_white": FLAT, "theta": ANGLES}.items():
            file[f"exchange/{name}"] = values
    with h5py.File(tmp_path / "tomo.nxs", "w") as file:
        file["entry/data/data"] = np.concatenate([DARK, FLAT, FRAMES])
        file["entry/data/image_key"] = [2] * 2 + [1] * 3 + [0] * 5
        file["entry/data/rotation_angle"] = [0.0] * 5 + list(ANGLES)
    for name in ("exchange.h5", "tomo.nxs"):
        scan = load_scan(tmp_path / name)
        np.testing.assert_array_equal(scan.projections, FRAMES)
        np.testing.assert_array_equal(scan.dark, DARK)
        np.testing.assert_array_equal(scan.flat, FLAT)
        np.testing.assert_array_equal(scan.angles, ANGLES)
        assert scan.derived == 0


@pytest.mark.parametrize("kind", ["text", "empty", "no flats"])
def test_a_file_that_is_no_scan_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "scan.h5"
    if kind == "text":
        file.write_text("not HDF5")
    else:
        with h5py.File(file, "w") as target:
            if kind == "no flats":
                target["entry/data/data"] = FRAMES
                target["entry/data/image_key"] = [0] * 5
    with pytest.raises(InvalidInput, match=r"scan\.h5"):
        load_scan(file)


def test_amplified_frames_keep_the_brightness_and_say_how_they_were_made(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "exchange.h5", "w") as file:
        for name, values in {"data": FRAMES, "data_dark": DARK, "data_white": FLAT, "theta": ANGLES}.items():
            file[f"exchange/{name}"] = values
    scan = load_scan(tmp_path / "exchange.h5")
    pool = amplified(scan)
    assert pool.frames.shape == (POOL, 8 * ZOOM, 12 * ZOOM)
    assert pool.frames.dtype == np.uint16
    assert len({frame.tobytes() for frame in pool.frames}) == POOL
    assert abs(pool.frames.mean() / FRAMES.mean() - 1) < 0.05
    assert all(word in pool.method for word in ("AMPLIFIED", f"x{ZOOM}", "seed", "gzip"))


def test_a_plan_survives_its_way_to_the_instrument() -> None:
    plan = Plan("127.0.0.1:5001", source="a.h5", withheld=(3, 4), rate_seconds=2.0)
    assert Plan.from_json(plan.to_json()) == plan
