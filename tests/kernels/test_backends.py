"""The compiled back ends give what the interpreter gives; Numba compiles where and when it should."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiss import limits
from hiss.errors import InvalidInput, LimitExceeded
from hiss.kernels import Compiler, Pipeline, ResolvedStage, numba_backend, numba_compile
from hiss.kernels.backend import NumpyBackend
from hiss.kernels.checker import check
from hiss.kernels.functions import FUNCTIONS
from hiss.kernels.numba_printer import print_program
from hiss.kernels.passes import optimise
from hiss.kernels.primitives import PRIMITIVES, ULP_MAX
from hiss.kernels.specialiser import FrameType, specialise
from hiss.model import KernelDef, KernelKind, ScalarParam
from kernels.building import NO_COLUMNS, built, expression, filter_of, map_of, several
from kernels.programs import Generated, Maker, columns, same, values

BATCH = 4  # programs that are compiled by one process
_SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


@pytest.fixture(params=["numba", "opencl"])
def compiled(request: pytest.FixtureRequest) -> Compiler:
    """Each back end that compiles."""
    chosen: Compiler = request.getfixturevalue(f"{request.param}_compiler")
    return chosen


_OPENCL_AT_LENGTH = pytest.mark.parametrize(
    "compiled", ["numba", pytest.param("opencl", marks=pytest.mark.torture)], indirect=True
)


def _agree(batch: list[Generated], seed: int, compiler: Compiler) -> None:
    """Run each program by its meaning and compiled, on some rows, cut in two ways; compare what must be equal."""
    compiled = compiler.compile([made.program for made in batch])
    for made, executable in zip(batch, compiled, strict=True):
        assert executable.backend == compiler.backend.name, made.source
        rng = random.Random(seed)
        count, rows = 5, np.array([0, 1, 3, 4])
        frames, records = values(rng, made.dtype, (count, *made.shape)), columns(rng, count)
        taken = [np.ascontiguousarray(records[name], dtype) for name, dtype in made.program.columns]
        results: list[list[Any]] = []
        (reference,) = NumpyBackend().compile([made.program])
        for run, parts in ((reference, [rows]), (executable, [rows]), (executable, [rows[:1], rows[1:]])):
            outs = [np.zeros((count, *node.shape), node.dtype) for node in made.program.outputs]
            for part in parts:
                run.run(frames, taken, part, outs)
            results.append(outs)
        for place, (expected, got, cut) in enumerate(zip(*results, strict=True)):
            assert same(got, cut), f"depends on the cut\n{made.source}"
            if made.exact(place):
                assert same(expected, got), f"output {place} of frames {made.dtype} {made.shape}\n{made.source}"


@settings(max_examples=2, deadline=None, suppress_health_check=_SLOW, derandomize=True)
@given(seed=st.integers(0, 2**63))
def test_random_kernels_agree(seed: int, compiled: Compiler) -> None:
    _agree([Maker(random.Random(seed + k)).program() for k in range(BATCH)], seed, compiled)


@pytest.mark.torture
@settings(max_examples=100, deadline=None, suppress_health_check=_SLOW)
@given(seed=st.integers(0, 2**63))
def test_many_random_kernels_agree(seed: int, compiled: Compiler) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "KERNELS_LIVE_MAX", 100_000)
        _agree([Maker(random.Random(seed + k)).program(lines=24) for k in range(BATCH)], seed, compiled)


@pytest.mark.parametrize("dtype", ["uint16", "float32", pytest.param("int64", marks=pytest.mark.torture)])
def test_every_function_of_the_table(dtype: str, compiled: Compiler) -> None:
    """One kernel that uses each function that takes such frames."""
    made, used = Maker(random.Random(3)).covering(np.dtype(dtype), (6, 70))
    integers_only = {"bitwise_and", "bitwise_or", "bitwise_xor", "invert", "left_shift", "right_shift", "bits"}
    missing = set(FUNCTIONS) - used - {"len", "shape", "ndim", "size", "dtype", "arange"}
    assert missing <= (integers_only if dtype == "float32" else {"reciprocal"})
    _agree([made], 5, compiled)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_transcendental_functions_within_ulps(dtype: str, compiled: Compiler) -> None:
    names = [row.name for row in PRIMITIVES.values() if not row.exact]
    calls = [f"np.{name}({'x' if PRIMITIVES[name].arity == 1 else 'x, y'})" for name in names]
    body = ", ".join(calls)
    rest = "    def step(s, x):\n        return s\n    def finish(s):\n        return s\n"
    source = f"class k:\n    def init(x, y):\n        return {body},\n{rest}"
    rng = np.random.default_rng(0)
    size = 40_000
    magnitudes = 10.0 ** rng.uniform(-30, 30, size)
    x = np.concatenate([rng.standard_normal(size) * 3, rng.uniform(-90, 90, size), magnitudes, -magnitudes]).astype(
        dtype
    )
    y = rng.permutation(x)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1, -1, np.finfo(dtype).tiny, np.finfo(dtype).max], dtype)
    x[: len(special)] = special
    frame = FrameType(x.dtype, x.shape, NO_COLUMNS)
    typed = specialise(check(KernelDef("k", KernelKind.REDUCE, source)), frame, {"y": y}, "init")
    program = optimise(typed.program)
    results = []
    for backend in (NumpyBackend(), compiled):
        outs = [np.zeros((1, *x.shape), x.dtype) for _ in names]
        backend.compile([program])[0].run(x[None], (), np.array([0]), outs)
        results.append(outs)
    for name, expected, got in zip(names, *results, strict=True):
        ulps = _ulps_apart(expected[0], got[0])
        worst = int(np.argmax(ulps))
        assert ulps[worst] <= ULP_MAX, f"{name}({x[worst]!r}): {expected[0][worst]!r}, {got[0][worst]!r}"


def test_each_function_for_both_floats_in_one_kernel(numba_compiler: Compiler) -> None:
    """Numba 0.68 mixes up `log2` and `exp2` of the two."""
    frame = np.array([0.5, 1.0, 2.25])
    names = [name for name, row in PRIMITIVES.items() if "f" in row.kinds and row.arity == 1]
    texts = [f"np.{name}(x.astype(np.{dtype}))" for name in names for dtype in ("float32", "float64")]
    for text, got in zip(texts, several(texts, frame, numba_compiler), strict=True):
        np.testing.assert_allclose(got, eval(text, {"np": np, "x": frame}), rtol=1e-6, err_msg=text)


def _ulps_apart(first: Any, second: Any) -> Any:
    """How many floats lie between, for each pair; NaN and NaN are 0 apart."""
    whole = np.dtype(f"i{first.dtype.itemsize}")
    lines = []
    for part in (first, second):
        bits = part.view(whole).astype(np.float64 if whole.itemsize == 4 else np.longdouble)
        smallest = np.longdouble(np.iinfo(whole).min)
        lines.append(np.where(bits < 0, smallest - bits, bits))
    apart = np.abs(lines[0] - lines[1])
    return np.where(np.isnan(first) & np.isnan(second), 0, apart)


SHAPES_OF_FUSION = {
    "a mean and what uses it": "np.exp2((x - np.mean(x)) / 99) > 0.5",
    "two statistics in one pass": "np.max(x) - np.min(x) + np.sum(x) + np.mean(x)",
    "a stencil": "x[1:, 1:-1] + x[:-1, 1:-1] + x[1:, 2:] - x[:-1, :-2]",
    "a stencil of a stencil": "((x[1:] + x[:-1])[1:] + (x[1:] + x[:-1])[:-1])[:, ::-1]",
    "binning by slices": "x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]",
    "binning by reshape": "x.reshape(5, 2, 35, 2).sum(axis=(1, 3))",
    "binning of a computed array": "(x * 2).astype(np.float32).reshape(5, 2, 35, 2).mean(axis=(1, 3))",
    "a reshape that must copy": "(x.T * 2).reshape(20, 35)[::3]",
    "a reshape of a slice": "(x[:, 1:-1] + 1).reshape(-1)[::-7]",
    "rows minus their mean": "x - np.mean(x, axis=1, keepdims=True)",
    "columns minus their largest": "x - np.max(x, axis=0)",
    "a reduction of a reduction": "np.sum(np.max(x, axis=1) * 1.25)",
    "halves folded": "np.sum(x.reshape(2, 5, 70)[::-1] * 0.1, axis=0)",
    "variance by axis": "np.var(x, axis=0) + np.std(x)",
    "broadcast of an expensive row": "x + np.floor_divide(x[0].astype(np.float64), 0.3)",
    "a region": "np.sum(x[3:7, 5:66] * 0.5)",
    "three axes, the middle kept": "np.sum(x.reshape(2, 5, 70) / 3, axis=(0, 2))",
    "many views of one value": " + ".join(f"np.floor_divide(x, 7)[{k}:{k + 2}]" for k in range(8)),
    "a constant": "np.full(x.shape, 3, np.int16)",
    "a flipped sum": "np.sum(np.flip(x)[::3] * 1.5, axis=1)",
}


@pytest.mark.parametrize("dtype", ["u2", pytest.param("f4", marks=pytest.mark.torture)])
def test_shapes_of_fusion(dtype: str, numpy_compiler: Compiler, compiled: Compiler) -> None:
    """What the scheduler fuses, stores and folds gives the interpreter's bits."""
    rng = np.random.default_rng(4)
    frame = (rng.integers(0, 60000, (10, 70)) / (1 if dtype == "u2" else 7)).astype(dtype)
    texts = list(SHAPES_OF_FUSION.values())
    results = [several(texts, frame, compiler) for compiler in (numpy_compiler, compiled)]
    for name, expected, got in zip(SHAPES_OF_FUSION, *results, strict=True):
        assert same(expected, got), name


@_OPENCL_AT_LENGTH
def test_deep_halving(numpy_compiler: Compiler, compiled: Compiler) -> None:
    """Each result needs twice as many values of the line before: stored, not computed 2**9 times in the text."""
    halving = "".join("    h = h[::2] * 2 + h[1::2]\n" for _ in range(9))
    definition = map_of(f"def k(x):\n    h = x.ravel()[:512]\n{halving}    return h\n")
    frame = FrameType(np.dtype("i4"), (10, 70), NO_COLUMNS)
    assert len(print_program(optimise(specialise(check(definition), frame, {}).program)).text) < 10_000
    frames = np.random.default_rng(0).integers(0, 9, (1, 10, 70)).astype(np.int32)
    results = [
        built(definition, "i4", (10, 70), compiler).run(frames, np.zeros(1, NO_COLUMNS)).frames
        for compiler in (numpy_compiler, compiled)
    ]
    assert same(*results)


@_OPENCL_AT_LENGTH
def test_long_chains(numpy_compiler: Compiler, compiled: Compiler) -> None:
    """Hundreds of lines and reshapes: neither recursion nor more than a little time."""
    lines = "".join(f"    y = (y * 3 + {k}).reshape({(4, 6) if k % 2 else (24,)})\n" for k in range(150))
    definition = map_of(f"def k(x):\n    y = x\n{lines}    return np.sum(y, axis=0)\n")
    frames = np.arange(24, dtype=np.uint32).reshape(1, 24)
    results = [
        built(definition, "u4", (24,), compiler).run(frames, np.zeros(1, NO_COLUMNS)).frames
        for compiler in (numpy_compiler, compiled)
    ]
    assert same(*results)


def test_a_pointwise_map_and_a_count_are_one_pass(numba_compiler: Compiler) -> None:
    """No temporaries, and one loop over the pixels."""
    source = "(x.astype(np.float32) - dark) * np.clip(dark, 1, None)"
    for text, dtype in ((source, "u2"), ("np.count_nonzero((x > 3) & (dark == 0))", "u2")):
        dark = np.ones((64, 64), np.float32)
        frame = FrameType(np.dtype(dtype), (64, 64), NO_COLUMNS)
        typed = specialise(check(expression(text, "dark")), frame, {"dark": dark})
        printed = print_program(optimise(typed.program))
        assert printed.temporaries == ()
        assert printed.text.count("for i") == 1


@pytest.mark.parametrize("text", ["hk.bincount(p, weights=x, length=9)", "np.take(x, p.ravel()[:5])"])
def test_index_maps_are_converted_when_they_are_bound(text: str) -> None:
    frame = FrameType(np.dtype("f8"), (4, 6), NO_COLUMNS)
    index = np.arange(24, dtype=np.int32).reshape(4, 6)
    printed = print_program(optimise(specialise(check(expression(text, "p")), frame, {"p": index}).program))
    assert "int32" not in printed.text


def test_nothing_of_the_user_is_printed(numba_compiler: Compiler) -> None:
    source = '''
    def SECRET(SECRET_frame, SECRET_param, threshold=123456789):
        """SECRET docstring."""
        SECRET_local = SECRET_frame - SECRET_param  # SECRET comment
        return np.count_nonzero(SECRET_local > threshold) > 3
    '''
    frame = FrameType(np.dtype("i4"), (8,), NO_COLUMNS)
    params = {"SECRET_param": np.arange(8, dtype=np.int32)}
    printed = print_program(optimise(specialise(check(filter_of(source)), frame, params).program))
    assert "SECRET" not in printed.text
    assert "123456789" not in printed.text, "parameters are passed, so that their values need no new compilation"


def test_other_values_need_no_new_compilation(numba_compiler: Compiler) -> None:
    definition = expression("np.where(x > limit, x * gain, 0)", "limit, gain")
    frames = np.arange(8, dtype=np.uint16).reshape(1, 8)
    before = None
    for limit, gain in ((3, 2), (5, 7), (5, 5)):
        params = {"limit": ScalarParam(limit), "gain": ScalarParam(gain)}
        pipeline = built(definition, "u2", (8,), numba_compiler, **params)
        result = pipeline.run(frames, np.zeros(1, NO_COLUMNS)).frames
        np.testing.assert_array_equal(result, np.where(frames > limit, frames * gain, 0))
        loaded = len(numba_backend._loaded)
        assert before in (None, loaded)
        before = loaded


def test_frames_in_any_memory(compiler: Compiler) -> None:
    """Read-only, strided and unaligned frames; unaligned results."""
    wide = np.arange(4 * 6 * 8, dtype=np.uint32).reshape(4, 6, 8)
    pipeline = built(expression("x * 2 + x[::-1, ::-1]"), "u4", (3, 4), compiler)
    strided = wide[:, ::2, ::2]
    expected = strided * 2 + strided[:, ::-1, ::-1]
    raw = np.zeros(strided.size * 4 + 1, np.uint8)
    unaligned = raw[1:].view(np.uint32).reshape(strided.shape)
    unaligned[...] = strided
    frozen = np.ascontiguousarray(strided)
    frozen.flags.writeable = False
    for frames in (strided, unaligned, frozen):
        out = np.zeros(frames.size * 4 + 3, np.uint8)
        outcome = pipeline.run(frames, np.zeros(4, NO_COLUMNS), out[3:])
        np.testing.assert_array_equal(outcome.frames, expected)
        assert np.shares_memory(outcome.frames, out)
    np.testing.assert_array_equal(strided, wide[:, ::2, ::2])


# ---------------------------------------------------------------------------------------------------- compiling


def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process had loaded nothing yet."""
    monkeypatch.setattr(numba_backend, "_loaded", {})


def _run(compiler: Compiler, text: str) -> tuple[Pipeline, Any]:
    pipeline = built(expression(text), "u2", (8,), compiler)
    return pipeline, pipeline.run(np.arange(8, dtype=np.uint16)[None], np.zeros(1, NO_COLUMNS)).frames[0]


def test_the_cache_is_private_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "cache"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    compiler = Compiler(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    pipeline, result = _run(compiler, "x * 3 + 41")
    assert pipeline.backends == ("numba",)
    assert result.tolist() == [x * 3 + 41 for x in range(8)]
    _fresh(monkeypatch)
    monkeypatch.setattr(subprocess, "Popen", _must_not_run)
    pipeline, again = _run(Compiler(directory), "x * 3 + 41")
    assert pipeline.backends == ("numba",)
    assert again.tolist() == result.tolist()
    (path,) = directory.glob("*.py")
    assert sum(sys.modules[path.stem].kernel.stats.cache_hits.values()) == 1, "compiled here, instead of loaded"


def _must_not_run(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("a process was started")


def test_a_damaged_cache_costs_speed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    _run(Compiler(tmp_path / "c"), "x * 3 + 42")
    for part in (tmp_path / "c" / "__pycache__").glob("*.nb[ic]"):
        part.write_bytes(b"\x80\x04damaged")
    _fresh(monkeypatch)
    pipeline, result = _run(Compiler(tmp_path / "c"), "x * 3 + 42")
    assert result.tolist() == [x * 3 + 42 for x in range(8)]
    if pipeline.backends == ("numpy",):
        assert "runs in NumPy" in caplog.text
    _fresh(monkeypatch)
    pipeline, result = _run(Compiler(tmp_path / "c"), "x * 3 + 42")
    assert pipeline.backends == ("numba",), "it is compiled anew"
    assert result.tolist() == [x * 3 + 42 for x in range(8)]


@pytest.mark.parametrize("script", ["import os; os.abort()", "raise SystemExit(3)", "print('x\\tTypingError: no')"])
def test_a_failing_compiler_costs_speed_only(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(script)
    monkeypatch.setattr(numba_compile, "__file__", str(broken))
    pipeline, result = _run(Compiler(tmp_path / "c"), "x * 3 + 43")
    assert pipeline.backends == ("numpy",)
    assert result.tolist() == [x * 3 + 43 for x in range(8)]
    assert "runs in NumPy" in caplog.text


def test_a_hanging_compiler_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, pid = tmp_path / "hanging.py", tmp_path / "pid"
    hanging.write_text(f"import os, signal\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\nsignal.pause()\n")
    monkeypatch.setattr(numba_compile, "__file__", str(hanging))
    monkeypatch.setattr(limits, "KERNEL_COMPILE_S_MAX", 2.0)
    with pytest.raises(LimitExceeded, match="longer than 2 s to compile"):
        _run(Compiler(tmp_path / "c"), "x * 3 + 44")
    if pid.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


def test_compiled_kernels_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(limits, "KERNELS_LIVE_MAX", 0)
    _fresh(monkeypatch)
    pipeline, result = _run(Compiler(tmp_path / "c"), "x * 3 + 45")
    assert pipeline.backends == ("numpy",)
    assert result.tolist() == [x * 3 + 45 for x in range(8)]
    assert "KERNELS_LIVE_MAX" in caplog.text


def test_importing_the_package_imports_no_compiler() -> None:
    code = "import sys, hiss.kernels; sys.exit('numba' in sys.modules or 'llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_cache_on_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(tmp_path / "c")
    stages = [ResolvedStage(expression(f"x * {k} + 47")) for k in (3, 4)]
    Pipeline.build(stages, np.dtype("u2"), (8,), NO_COLUMNS, compiler)
    first, second = sorted((tmp_path / "c").glob("*.compiled"))
    os.utime(first, ns=(1, 1))
    monkeypatch.setattr(limits, "KERNEL_CACHE_FILES_MAX", 1)
    Compiler(tmp_path / "c")
    assert [path.stem for path in (tmp_path / "c").glob("*.py")] == [second.stem]
    assert not list((tmp_path / "c" / "__pycache__").glob(f"{first.stem}*"))


def test_unknown_back_end(tmp_path: Path) -> None:
    for name in ("cuda", "opencl:", "numba:2", ""):
        with pytest.raises(InvalidInput, match="expected 'numba', 'numpy', 'opencl'"):
            Compiler(tmp_path, name)


def test_stages_are_compiled_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    real = subprocess.Popen

    def counted(command: list[str], **kwargs: Any) -> Any:
        started.append(command)
        return real(command, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", counted)
    stages = [ResolvedStage(expression(f"x * {k} + 46")) for k in (3, 4)]
    Pipeline.build(stages, np.dtype("u2"), (8,), NO_COLUMNS, Compiler(tmp_path / "c"))
    assert len(started) <= 1, "the process that compiles is kept"
