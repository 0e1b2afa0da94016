"""All back ends agree with the interpreter, and none shows how blocks were cut: programs over the whole table.

The generator draws dtypes, shapes, parameters and functions; frames hold extremes, NaN and infinities. What failed once
stands in `REGRESSIONS`, cut down to the lines that matter.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiss import limits
from hiss.kernels import Compiler
from hiss.kernels.functions import FUNCTIONS
from hiss.kernels.specialiser import FrameType
from hiss.model import ColumnParam, ScalarParam
from kernels.equality import disagreement, scan_disagreement, shrunk, unit
from kernels.programs import COLUMNS, Generated, Maker, source_of

PROGRAMS = 20  # in a unit
UNITS = {"numba": 12, "opencl": 3}  # of each back end in the tests
UNITS_TORTURE = {"numba": 1000, "opencl": 100}
_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


def _compiler(request: pytest.FixtureRequest, name: str) -> Compiler:
    chosen: Compiler = request.getfixturevalue(f"{name}_compiler")
    return chosen


def _check(seed: int, compiler: Compiler) -> None:
    made = unit(random.Random(seed), PROGRAMS)
    reason = disagreement(made, compiler, seed)
    if reason:
        least = shrunk(made, lambda smaller: disagreement(smaller, compiler, seed))
        pytest.fail(f"{compiler.backend.name}, seed {seed}: {reason}\n{_shown(least)}")
    if seed % 4 == 0:
        reason, source = scan_disagreement(random.Random(seed), compiler)
        assert not reason, f"{compiler.backend.name}, seed {seed}: {reason}\n{source}"


def _shown(made: Generated) -> str:
    return f"frames {made.dtype} {made.shape}, {made.params}\n{made.source}"


@pytest.mark.parametrize("backend", UNITS)
def test_programs_agree(backend: str, request: pytest.FixtureRequest) -> None:
    """Units of the same seeds each time, so that a failure is everybody's; `torture` draws others."""
    compiler = _compiler(request, backend)
    for seed in range(UNITS[backend]):
        _check(seed, compiler)


@pytest.mark.torture
@pytest.mark.parametrize("backend", UNITS_TORTURE)
def test_many_programs_agree(backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 programs with Numba."""
    monkeypatch.setattr(limits, "KERNELS_LIVE_MAX", 100_000)
    compiler = _compiler(request, backend)

    @settings(max_examples=UNITS_TORTURE[backend], deadline=None, suppress_health_check=_QUIET, database=None)
    @given(seed=st.integers(1 << 20, 1 << 62))
    def run(seed: int) -> None:
        _check(seed, compiler)

    run()


def test_the_generator_reaches_the_whole_table() -> None:
    """Every function is drawn in some hundreds of programs; a new one that the generator cannot call fails here."""
    written: set[str] = set()
    for seed in range(40):
        source = unit(random.Random(seed), PROGRAMS).source
        written |= {name for name, row in FUNCTIONS.items() if f".{name}" in source or name == "getitem"}
    missing = set(FUNCTIONS) - written - {"len"}
    assert len(missing) <= len(FUNCTIONS) // 20, f"never drawn: {sorted(missing)}"


def test_a_wrong_back_end_is_found_and_cut_down(numpy_compiler: Compiler) -> None:
    """The control: one operation that is off by a little shows, and what is left is the line that has it."""

    class Wrong:
        backend = "numpy"

        def __init__(self, inner: Any, program: Any) -> None:
            self.inner, self.program = inner, program

        def run(self, frames: Any, columns: Any, rows: Any, outs: Any) -> None:
            self.inner.run(frames, columns, rows, outs)
            for out, node in zip(outs, self.program.outputs, strict=True):
                if any(one.op == "bitwise_xor" for one in _below(node)):
                    out[rows] ^= 1 if out.dtype.kind in "iu" else True

    class WrongBackend:
        name = "numpy"

        def compile(self, programs: Any) -> list[Any]:
            inner = numpy_compiler.compile(programs)
            return [Wrong(run, program) for run, program in zip(inner, programs, strict=True)]

    wrong: Any = type("C", (), {"backend": WrongBackend(), "compile": lambda self, some: self.backend.compile(some)})()
    frame = FrameType(np.dtype("u2"), (4, 5), COLUMNS)
    body = ["v0 = frame + 1", "v1 = v0 ^ frame", "v2 = v0 * 2", "v3 = np.sum(v2)"]
    made = Maker(random.Random(0)).generated(source_of({}, body, ["v0", "v1", "v3"]), {}, frame)
    assert disagreement(made, wrong, 1)
    least = shrunk(made, lambda smaller: disagreement(smaller, wrong, 1))
    assert [line.strip() for line in least.source.split("def step")[0].split("\n")[2:] if line.strip()] == [
        "v0 = frame + 1",
        "v1 = v0 ^ frame",
        "return v1,",
    ]


def _below(node: Any) -> list[Any]:
    from hiss.kernels.ir import in_order

    return list(in_order([node]))


REGRESSIONS: dict[str, tuple[str, tuple[int, ...], list[str]]] = {
    # what it was: dtype, shape, lines; every line is a result
    "log2 of both floats in one function": ("int8", (), ["v0 = np.log2(frame)", "v1 = np.log2(dark)"]),
    "a whole-array operation on what was turned": (
        "f8",
        (2, 3, 5),
        [
            "v0 = np.nanmedian(frame, (0, 2))",
            "v1 = np.cumsum(frame.T)",
            "v2 = np.take((frame + 1).T, frame.T.astype(np.int64))",
        ],
    ),
    "a whole-array operation on a single value": (
        "f8",
        (3,),
        ["v0 = np.argmin(angle)", "v1 = np.concatenate((angle, frame), None)", "v2 = np.median(angle, keepdims=True)"],
    ),
    "sums of int64 that wrap, compared": (  # Numba tells LLVM that signed sums do not
        "i8",
        (130,),
        [
            "v0 = (frame + weak) <= weak",
            "v1 = (frame - weak) <= frame",
            "v2 = (frame * 2) // 2 == frame",
            "v3 = abs(frame) >= 0",
            "v4 = -frame == frame",
            "v5 = (frame // (weak - 4)) + 1 > 1",
            "v6 = np.cumsum(frame) >= frame",
            "v7 = np.sum(frame) + weak <= weak",
        ],
    ),
    "a shape that NumPy's arange counts from its stop": ("u1", (3,), ["v0 = np.arange(5, None, 2) + frame[0]"]),
}
_PARAMS: dict[str, Any] = {
    "dark": np.array([7, 1 << 30], np.uint32)[:1],
    "weak": ScalarParam(3),
    "strong": ScalarParam(True, "|b1"),
    "angle": ColumnParam("shot"),
}


@pytest.mark.parametrize("backend", UNITS)
@pytest.mark.parametrize("name", REGRESSIONS)
def test_what_once_differed(name: str, backend: str, request: pytest.FixtureRequest) -> None:
    dtype, shape, body = REGRESSIONS[name]
    frame = FrameType(np.dtype(dtype), shape, COLUMNS)
    results = [line.partition(" = ")[0] for line in body]
    made = Maker(random.Random(0)).generated(source_of(_PARAMS, body, results), _PARAMS, frame)
    assert not disagreement(made, _compiler(request, backend), 3)
