"""The kernels of the library: they are what their names say, documented, and in the language without a warning.

What back ends make of them is tested with the real data, and where back ends are compared.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from hiss.errors import InvalidInput, MissingExtra, ParameterMismatch
from hiss.kernels import Compiler, Reduction, ResolvedStage, library
from hiss.kernels.authoring import Kernel
from hiss.kernels.library.powder import azimuthal_index
from kernels.building import applied


def kernels() -> list[Kernel[..., Any]]:
    return [getattr(library, name) for name in library.KERNELS]


def test_every_kernel_goes_by_its_name() -> None:
    assert [kernel.definition.name for kernel in kernels()] == list(library.KERNELS)
    assert set(library.KERNELS) <= set(dir(library))
    with pytest.raises(AttributeError, match="no kernel 'jungfrou'; it has: mean, "):
        _ = library.jungfrou


def test_no_kernel_draws_a_warning() -> None:
    assert {kernel.definition.name: kernel.warnings for kernel in kernels() if kernel.warnings} == {}


def test_every_kernel_says_what_it_takes() -> None:
    for kernel in kernels():
        text = kernel.__doc__
        assert text is not None, kernel
        assert text.splitlines()[0].endswith((".", ":")), kernel
        assert len(kernel.definition.source) < 4096


def test_the_library_is_imported_when_it_is_used() -> None:
    code = "import sys, hiss.kernels.library; print('hiss.kernels.library.detectors' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_bind_names_a_wrong_parameter() -> None:
    with pytest.raises(ParameterMismatch, match="did you mean 'pedestal'"):
        library.jungfrau.bind(pedestals=np.zeros((3, 2, 2)), gain=np.ones((3, 2, 2)))


def test_running_statistics(compiler: Compiler) -> None:
    rng = np.random.default_rng(4)
    frames = rng.integers(0, 60000, (9, 5, 7)).astype(np.uint16)
    wide = frames.astype(np.float64)
    expected = {
        "mean": wide.mean(axis=0),
        "maximum": frames.max(axis=0),
        "minimum": frames.min(axis=0),
        "total": frames.sum(axis=0, dtype=np.uint64),
        "variance": wide.var(axis=0),
    }
    for name, values in expected.items():
        found = _reduced(name, frames, compiler)
        assert found.dtype == values.dtype, name
        np.testing.assert_allclose(found, values, rtol=1e-13, err_msg=name)
    np.testing.assert_allclose(_reduced("variance", frames, compiler, ddof=1), wide.var(axis=0, ddof=1), rtol=1e-13)
    assert np.isnan(_reduced("variance", frames[:1], compiler, ddof=1)).all()


def test_variance_keeps_its_digits_on_a_large_mean(numpy_compiler: Compiler) -> None:
    """The textbook formula, mean of squares minus square of the mean, loses them all here."""
    frames = 1e9 + np.arange(6.0)[:, np.newaxis]
    assert _reduced("variance", frames, numpy_compiler)[0] == pytest.approx(35 / 12, rel=1e-12)
    assert (frames**2).mean() - frames.mean() ** 2 != pytest.approx(35 / 12, rel=1e-2)


def _reduced(name: str, frames: Any, compiler: Compiler, **params: Any) -> Any:
    bound = getattr(library, name).bind(**params)
    reduction = Reduction.build(ResolvedStage(bound.kernel, bound.params), frames.dtype, frames.shape[1:], compiler)
    reduction.update(frames[:2])
    reduction.update(frames[2:])
    return reduction.result()


def test_jungfrau_takes_each_pixel_by_its_stage(compiler: Compiler) -> None:
    raw = np.array([[100, 100 | 1 << 14, 100 | 2 << 14, 100 | 3 << 14]], np.uint16)
    pedestal = np.array([[[90] * 4], [[200] * 4], [[300] * 4]], np.float32)
    gain = np.array([[[2] * 4], [[-4] * 4], [[-8] * 4]], np.float32)
    found = applied(library.jungfrau.definition, raw, compiler, pedestal=pedestal, gain=gain)
    np.testing.assert_array_equal(found, np.array([[5, 25, np.nan, 25]], np.float32))
    assert found.dtype == np.float32


def test_photons_are_rounded_from_the_threshold(compiler: Compiler) -> None:
    energy = np.array([[-3, 0, 4.9, 5, 14.9, 15, 1e9, np.nan]], np.float32)
    found = applied(library.photons.definition, energy, compiler, photon=_weak(10.0))
    assert found.tolist() == [[0, 0, 0, 1, 1, 2, 65535, 0]]
    high = applied(library.photons.definition, energy, compiler, photon=_weak(10.0), threshold=_weak(0.75))
    assert high.tolist() == [[0, 0, 0, 0, 1, 1, 65535, 0]]


def test_zero_suppression(numpy_compiler: Compiler) -> None:
    frame = np.array([-9, 1, 5, 6, np.nan], np.float32)
    found = applied(library.zero_suppress.definition, frame, numpy_compiler, noise=np.full(5, 1.0, np.float32))
    assert found.tolist() == [0, 0, 0, 6, 0]


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_common_mode_of_each_dtype(dtype: str, numpy_compiler: Compiler) -> None:
    frame = np.random.default_rng(6).integers(0, 5000, (4, 10)).astype(dtype)
    found = applied(library.common_mode.definition, frame, numpy_compiler)
    assert found.dtype == (np.float64 if dtype == "float64" else np.float32)
    np.testing.assert_array_equal(found, frame - np.median(frame, axis=1, keepdims=True))


def test_roi_is_cut_as_numpy_cuts(numpy_compiler: Compiler) -> None:
    frame = np.arange(42, dtype=np.int16).reshape(6, 7)
    box = {"top": _weak(1), "left": _weak(5), "height": _weak(3), "width": _weak(9)}
    found = applied(library.roi.definition, frame, numpy_compiler, **box)
    np.testing.assert_array_equal(found, frame[1:4, 5:14])


def test_the_air_beside_the_sample_becomes_one(numpy_compiler: Compiler) -> None:
    frame = np.full((4, 10), 0.5, np.float32)
    frame[:, :3] = 0.8
    frame[:, -3:] = 0.6
    found = applied(library.air_level.definition, frame, numpy_compiler, margin=_weak(3))
    np.testing.assert_allclose(found, frame / 0.7, rtol=1e-6)


def test_an_index_map_without_pyfai_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyFAI.geometry", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hiss\[azimuthal\]'"):
        azimuthal_index("no.poni", (4, 5), bins=3, two_theta_deg=(1, 2))


def test_an_index_map_that_makes_no_sense() -> None:
    with pytest.raises(InvalidInput, match="ascending"):
        azimuthal_index("no.poni", (4, 5), bins=3, two_theta_deg=(2, 1))


def test_bins_without_pixels_are_nan(numpy_compiler: Compiler) -> None:
    frame = np.array([[1, 2, 3], [4, 5, 6]], np.uint16)
    index = np.array([[0, 0, 3], [-1, 3, 9]])
    found = applied(library.azimuthal.definition, frame, numpy_compiler, index=index, bins=_weak(4))
    np.testing.assert_array_equal(found, [1.5, np.nan, np.nan, 4])


def _weak(value: float) -> Any:
    from hiss.model import ScalarParam

    return ScalarParam(value)
