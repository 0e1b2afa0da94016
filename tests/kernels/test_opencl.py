"""The OpenCL back end: where it takes its device, memory and compiled code from, and what it does when one of them
fails.

That it computes what the interpreter computes is tested with the other back ends, in `test_backends`, `test_meaning`
and where else the fixtures `compiler` and `compiled` are used.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from hiss import limits
from hiss.errors import LimitExceeded
from hiss.kernels import Compiler, Reduction, ResolvedStage, builtin, opencl_backend, opencl_compile, opencl_memory
from hiss.kernels.backend import NumpyBackend
from hiss.kernels.opencl_backend import OpenclBackend, OpenclExecutable
from hiss.kernels.opencl_device import Device, NoDevice, choose, lacking
from hiss.kernels.opencl_functions import FunctionPrinter
from hiss.kernels.opencl_printer import print_opencl
from hiss.kernels.opencl_terms import Untranslatable
from hiss.model import BlockStatus
from kernels.building import NO_COLUMNS, built, expression, map_of, opencl_compiler_for
from kernels.programs import Maker, columns, same, values

SOME = np.arange(40, dtype=np.uint16).reshape(5, 8)


def _run(compiler: Compiler, text: str, frames: Any = SOME) -> tuple[Any, Any]:
    pipeline = built(expression(text), frames.dtype, frames.shape[1:], compiler)
    return pipeline, pipeline.run(frames, np.zeros(len(frames), NO_COLUMNS))


# ---------------------------------------------------------------------------------------------------- the device


def test_a_device_by_name(opencl_device: Device) -> None:
    assert choose("").device.available
    assert choose(opencl_device.name[3:9].upper()).name == opencl_device.name
    with pytest.raises(NoDevice, match="no OpenCL device 'abacus'; there are: .*" + opencl_device.name[:5]):
        choose("abacus")


def test_a_device_that_computes_otherwise_is_not_taken(opencl_device: Device) -> None:
    cl = opencl_device.cl
    assert lacking(cl, opencl_device.device) == []

    class Another:
        extensions, double_fp_config, endian_little = "cl_khr_fp64", 0xFFFF, True
        single_fp_config = 0xFFFF & ~(cl.device_fp_config.DENORM | cl.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT)

    wanting = ["denormals in float32", "correctly rounded division and square roots in float32"]
    assert lacking(cl, Another) == wanting
    Another.extensions = "cl_khr_fp16"
    assert lacking(cl, Another) == ["float64"]


def test_without_a_device_kernels_run_in_numba(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compiler = Compiler(tmp_path / "cache", "opencl:abacus")
    assert compiler.backend.name == "numba"
    assert compiler.notice.startswith("kernels run in Numba: no OpenCL device")
    assert compiler.notice in caplog.text


# ---------------------------------------------------------------------------------------------------- memory


def test_arrays_are_used_where_they_lie(opencl_compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames and results at multiples of 64 bytes are not copied; others are, and come out the same."""
    pipeline, _ = _run(opencl_compiler, "x * 3 + 1", np.zeros((2, 32), np.uint16))
    copies: list[int] = []
    real = opencl_memory._copied
    monkeypatch.setattr(opencl_memory, "_copied", lambda array: copies.append(array.nbytes) or real(array))
    frames = opencl_memory.aligned(64, np.dtype("u2")).reshape(2, 32)
    out = opencl_memory.aligned(256, np.dtype("u1"))
    frames[...] = np.arange(64).reshape(2, 32)
    outcome = pipeline.run(frames, np.zeros(2, NO_COLUMNS), out)
    assert copies == [8 * 2] or copies == [], "the numbers of the rows at most"
    assert outcome.frames.tolist() == (frames * 3 + 1).tolist()
    copies.clear()
    outcome = pipeline.run(frames, np.zeros(2, NO_COLUMNS), out[2:])
    assert 128 in copies
    assert outcome.frames.tolist() == (frames * 3 + 1).tolist()


@pytest.fixture
def distant(tmp_path: Path, opencl_device: Device, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """The processor, addressed as if it had memory of its own, of which little is on the way at a time."""
    monkeypatch.setattr(limits, "OPENCL_TRANSFER_BYTES", 1000)
    return opencl_compiler_for(tmp_path, dataclasses.replace(opencl_device, unified=False))


def test_a_device_with_memory_of_its_own(distant: Compiler) -> None:
    """Random programs over chosen rows; those that are not chosen stay."""
    made = [Maker(random.Random(seed)).program(8) for seed in (1, 2)]
    for one, executable in zip(made, distant.compile([one.program for one in made]), strict=True):
        assert executable.backend == "opencl"
        rng = random.Random(1)
        frames, records = values(rng, one.dtype, (40, *one.shape)), columns(rng, 40)
        taken = [np.ascontiguousarray(records[name], dtype) for name, dtype in one.program.columns]
        rows = np.array([0, 1, 2, 5, *range(9, 30), 39])
        results = []
        for run in (executable, NumpyBackend().compile([one.program])[0]):
            outs = [np.full((40, *node.shape), 1, node.dtype) for node in one.program.outputs]
            run.run(frames, taken, rows, outs)
            results.append(outs)
        for place, (got, expected) in enumerate(zip(*results, strict=True)):
            assert same(got[[3, 4, 38]], np.full_like(got[[3, 4, 38]], 1))
            if one.exact(place):
                assert same(got, expected), one.source


def test_states_on_a_device_with_memory_of_its_own(distant: Compiler) -> None:
    frames = np.random.default_rng(1).integers(0, 9000, (100, 7, 9)).astype(np.uint16)
    reduction = Reduction.build(ResolvedStage(builtin("mean")), frames.dtype, frames.shape[1:], distant)
    for first, last in ((0, 1), (1, 60), (60, 100)):
        reduction.update(frames[first:last])
    assert reduction.backend == "opencl"
    np.testing.assert_array_equal(reduction.result(), frames.mean(axis=0))


def test_threads_at_once(opencl_compiler: Compiler) -> None:
    """One pipeline's executable, several threads: each has its own arguments and scratch."""
    frames = np.random.default_rng(3).integers(0, 60000, (4, 30, 70)).astype(np.uint16)
    pipeline, outcome = _run(opencl_compiler, "x - np.mean(x, axis=1, keepdims=True)", frames)
    (stage,) = pipeline._stages
    wrong: list[int] = []

    def work(part: int) -> None:
        out = np.zeros((4, 30, 70))
        for _ in range(50):
            stage.executable.run(frames, (), np.array([part]), (out,))
            if not np.array_equal(out[part], outcome.frames[part]):
                wrong.append(part)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "narrowed"),
    [
        ("np.count_nonzero(x > 7)", True),
        ("np.count_nonzero((x > 7) & ~(x == 9) | (x == 11))", True),
        ("np.sum(x > 7, axis=1)", True),
        ("np.sum(x)", False),
        ("np.sum((x > 7) * x.astype(np.int64))", False),
        ("np.count_nonzero(x.ravel()[:9] > 7)", False),
    ],
)
def test_counts_are_taken_in_16_bits(text: str, narrowed: bool, opencl_compiler: Compiler) -> None:
    """And come out the same, beyond what 16 bits can count too."""
    frames = np.random.default_rng(5).integers(0, 20, (3, 400, 330)).astype(np.uint16)
    frames[0] = 8
    pipeline, outcome = _run(opencl_compiler, text, frames)
    expected = [eval(text, {"np": np, "x": frame}) for frame in frames]
    assert outcome.frames.tolist() == np.array(expected).tolist()
    assert ("_count = " in print_opencl(pipeline._stages[0].program).text) == narrowed


# ---------------------------------------------------------------------------------------------------- compiling


@pytest.mark.parametrize("dtype", ["f4", "f8", "?", "i2", "u2"])
def test_medians_of_all_types_are_said_in_opencl(dtype: str, opencl_compiler: Compiler) -> None:
    """Those of floats go by keys: one name had two types in one function."""
    frames = np.random.default_rng(3).integers(-9, 9, (2, 5, 4)).astype(dtype)
    pipeline, outcome = _run(opencl_compiler, "hk.median_filter(x, (3, 1), 'reflect')", frames)
    assert pipeline.backends == ("opencl",)
    expected = ndimage.median_filter(frames.view("u1") if dtype == "?" else frames, (1, 3, 1), mode="reflect")
    np.testing.assert_array_equal(outcome.frames, expected.astype(dtype))


def test_the_cache_is_used_and_damage_costs_speed_only(
    tmp_path: Path, opencl_device: Device, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(opencl_compiler_for(tmp_path, opencl_device), "x * 3 + 71")
    monkeypatch.setattr(opencl_compile, "build", None)
    pipeline, outcome = _run(opencl_compiler_for(tmp_path, opencl_device), "x * 3 + 71")
    assert pipeline.backends == ("opencl",)
    (binary,) = tmp_path.glob("*.bin")
    binary.write_bytes(b"damaged")
    monkeypatch.undo()
    pipeline, again = _run(opencl_compiler_for(tmp_path, opencl_device), "x * 3 + 71")
    assert pipeline.backends == ("numpy",)
    assert "cannot be loaded and runs in numpy" in caplog.text
    assert again.frames.tolist() == outcome.frames.tolist()
    pipeline, _ = _run(opencl_compiler_for(tmp_path, opencl_device), "x * 3 + 71")
    assert pipeline.backends == ("opencl",), "it is compiled anew"


def test_the_cache_on_disk_is_bounded(tmp_path: Path, opencl_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = opencl_compiler_for(tmp_path, opencl_device)
    for k in (3, 4):
        _run(compiler, f"x * {k} + 72")
    first, second = sorted(tmp_path.glob("*.bin"))
    os.utime(first, ns=(1, 1))
    monkeypatch.setattr(limits, "KERNEL_CACHE_FILES_MAX", 1)
    opencl_compiler_for(tmp_path, opencl_device)
    assert list(tmp_path.glob("*.bin")) == [second]
    assert not first.with_suffix(".cl").exists()


@pytest.mark.parametrize("script", ["import os; os.abort()", "raise SystemExit(3)"])
def test_a_driver_that_crashes_does_so_in_the_helper(
    script: str,
    tmp_path: Path,
    opencl_device: Device,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(script)
    monkeypatch.setattr(opencl_compile, "__file__", str(broken))
    compiler = Compiler(tmp_path / "c", "numpy")
    (tmp_path / "c").mkdir()
    compiler.backend = OpenclBackend(tmp_path / "c", opencl_device, NumpyBackend())
    pipeline, outcome = _run(compiler, "x * 3 + 73")
    assert pipeline.backends == ("numpy",)
    assert "cannot be compiled" in caplog.text
    assert "cannot be compiled" in compiler.notice, "a status shows it"
    monkeypatch.setattr(opencl_backend.compile_process, "run", None)
    assert _run(compiler, "x * 3 + 73")[0].backends == ("numpy",), "and nobody asks that compiler again"
    assert outcome.frames.tolist() == (SOME * 3 + 73).tolist()


def test_the_helper_compiles_or_says_why_not(tmp_path: Path, opencl_device: Device) -> None:
    """PoCL of today's age knows no processor of tomorrow: then the helper says so, and the kernel runs elsewhere."""
    backend = OpenclBackend(tmp_path, opencl_device, NumpyBackend())
    path = tmp_path / "some.cl"
    path.write_text(
        "__kernel void hiss_kernel(const ulong n, __global int *x) { for (ulong k = 0; k < n; ++k) x[k] = 1; }"
    )
    (result,) = backend._in_helper([path]).values()
    assert (result == "ok") == path.with_suffix(".bin").exists()
    assert result == "ok" or "unknown target CPU" in result


def test_a_hanging_driver_is_killed(tmp_path: Path, opencl_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = tmp_path / "hanging.py"
    hanging.write_text("import signal\nsignal.pause()\n")
    monkeypatch.setattr(opencl_compile, "__file__", str(hanging))
    monkeypatch.setattr(limits, "KERNEL_COMPILE_S_MAX", 0.5)
    compiler = Compiler(tmp_path / "c", "numpy")
    (tmp_path / "c").mkdir()
    compiler.backend = OpenclBackend(tmp_path / "c", opencl_device, NumpyBackend())
    with pytest.raises(LimitExceeded, match=r"longer than 0\.5 s to compile"):
        _run(compiler, "x * 3 + 74")


def test_what_cannot_be_said_in_c_runs_on_the_spare(
    opencl_compiler: Compiler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Any) -> Any:
        raise Untranslatable("a loop in verse")

    monkeypatch.setattr(FunctionPrinter, "run", refuse)
    pipeline, outcome = _run(opencl_compiler, "x * 3 + 75")
    assert pipeline.backends == ("numpy",)
    assert "a loop in verse" in caplog.text
    assert outcome.frames.tolist() == (SOME * 3 + 75).tolist()


# ---------------------------------------------------------------------------------------------------- failing open


def test_a_device_that_fails_costs_one_extent(
    tmp_path: Path, opencl_device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its blocks fail, so that their raw data are kept; the next extent runs on the spare, with the same bits."""
    pipeline, before = _run(opencl_compiler_for(tmp_path, opencl_device), "np.mean(x) * x")
    (stage,) = pipeline._stages
    assert isinstance(stage.executable, OpenclExecutable)
    cl = opencl_device.cl

    def lost(*_: Any) -> None:
        raise cl.RuntimeError("clEnqueueNDRangeKernel failed: OUT_OF_RESOURCES")

    with monkeypatch.context() as patch:
        patch.setattr(opencl_memory.Session, "launch", lost)
        failed = pipeline.run(SOME, np.zeros(5, NO_COLUMNS))
    assert failed.status.tolist() == [BlockStatus.KERNEL_FAILED] * 5
    assert "OUT_OF_RESOURCES" in failed.faults[0].text
    after = pipeline.run(SOME, np.zeros(5, NO_COLUMNS))
    assert after.status.tolist() == [BlockStatus.STORED] * 5
    assert after.frames.tolist() == before.frames.tolist()
    assert pipeline.backends == ("numpy",)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_statistic_misses_no_block_when_its_device_fails(
    tmp_path: Path, opencl_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = opencl_compiler_for(tmp_path, opencl_device)
    reduction = Reduction.build(ResolvedStage(builtin("mean")), SOME.dtype, SOME.shape[1:], compiler)
    reduction.update(SOME[:2])
    real = opencl_backend.opencl_memory.in_place

    def half(session: Any, rows: Any, given: Any) -> None:
        real(session, rows[:1], given)
        raise session.device.cl.RuntimeError("lost")

    monkeypatch.setattr(opencl_memory, "in_place", half)
    reduction.update(SOME[2:])
    np.testing.assert_array_equal(reduction.result(), SOME.mean(axis=0))


def test_generated_source_holds_nothing_of_the_user(tmp_path: Path, opencl_device: Device) -> None:
    source = '''
    def SECRET(SECRET_frame, SECRET_param):
        """SECRET docstring."""
        SECRET_local = SECRET_frame - SECRET_param  # SECRET comment
        return SECRET_local * 2
    '''
    built(map_of(source), "i4", (8,), opencl_compiler_for(tmp_path, opencl_device), SECRET_param=np.arange(8))
    (path,) = tmp_path.glob("*.cl")
    assert "SECRET" not in path.read_text()
