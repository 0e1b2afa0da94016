"""Pipelines: order of stages, vetoes, budgets, faults, quarantine, and what is refused when they are built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiss import limits
from hiss.errors import InvalidInput, KernelRejected, LimitExceeded, ParameterMismatch, SpecMismatch
from hiss.kernels import Compiler, Outcome, Pipeline, ResolvedStage, builtin
from hiss.model import BlockStatus, ColumnParam, KernelDef, ScalarParam
from kernels.building import NO_COLUMNS, built, expression, filter_of, map_of

STORED, VETOED, FAILED = BlockStatus.STORED, BlockStatus.VETOED, BlockStatus.KERNEL_FAILED
ANGLES = np.dtype([("angle", "<f8"), ("shot", "<i4"), ("name", "S8")])
ABOVE = filter_of("def f(x, least=5):\n    return np.max(x) >= least\n", "above")
DOUBLE = map_of("def k(x):\n    return x * 2\n", "double")
ROW = map_of("def k(x):\n    return np.mean(x, axis=0)\n", "row")


class Clock:
    """Each reading is later by the next of `steps` seconds, and by `step` when they have run out."""

    def __init__(self, step: float = 0.0, steps: list[float] | None = None) -> None:
        self.now, self.step, self.steps = 0.0, step, steps or []

    def __call__(self) -> float:
        self.now += self.steps.pop(0) if self.steps else self.step
        return self.now


def _frames(*tops: int) -> np.ndarray[Any, Any]:
    frames = np.zeros((len(tops), 2, 3), np.uint16)
    frames[:, 1, 2] = tops
    return frames


def _run(pipeline: Pipeline, frames: Any, out: Any = None) -> Outcome:
    return pipeline.run(frames, np.zeros(len(frames), NO_COLUMNS), out)


def test_a_filter_vetoes_and_a_map_changes(compiler: Compiler) -> None:
    pipeline = built([ABOVE, DOUBLE, ROW], "u2", (2, 3), compiler)
    outcome = _run(pipeline, _frames(9, 1, 5))
    assert (pipeline.out_dtype, pipeline.out_shape, pipeline.changes) == (np.float64, (3,), True)
    assert outcome.status.tolist() == [STORED, VETOED, STORED]
    assert outcome.cause.tolist() == [0, 0, 0]
    assert outcome.frames[[0, 2]].tolist() == [[0, 0, 9], [0, 0, 5]]
    assert outcome.frames.flags.c_contiguous
    assert (outcome.faults, outcome.quarantined) == ((), ())


def test_stages_in_any_order(compiler: Compiler) -> None:
    """A filter after a map sees what the map made, and names its own place."""
    pipeline = built([DOUBLE, ABOVE, DOUBLE], "u2", (2, 3), compiler)
    outcome = _run(pipeline, _frames(2, 3, 1, 4))
    assert outcome.status.tolist() == [VETOED, STORED, VETOED, STORED]
    assert outcome.cause.tolist() == [1, 0, 1, 0]
    assert outcome.frames[[1, 3], 1, 2].tolist() == [12, 16]


def test_results_go_where_the_caller_wants_them(compiler: Compiler) -> None:
    frames = _frames(9, 1, 5)
    out = np.full(200, 77, np.uint8)
    outcome = _run(built(DOUBLE, "u2", (2, 3), compiler), frames, out)
    assert np.shares_memory(outcome.frames, out)
    np.testing.assert_array_equal(outcome.frames, frames * 2)
    assert (out[frames.nbytes :] == 77).all()
    only_filter = built(ABOVE, "u2", (2, 3), compiler)
    assert not only_filter.changes
    assert np.shares_memory(_run(only_filter, frames).frames, frames), "nothing to copy"
    np.testing.assert_array_equal(_run(only_filter, frames, out).frames, frames)
    for wrong in (np.zeros(5, np.uint8), np.zeros(100, np.int8), np.zeros((10, 10), np.uint8)):
        with pytest.raises(SpecMismatch, match="expected at least 36 contiguous bytes"):
            _run(built(DOUBLE, "u2", (2, 3), compiler), frames, wrong)


def test_frames_of_another_type_are_refused(numpy_compiler: Compiler) -> None:
    pipeline = built(DOUBLE, "u2", (2, 3), numpy_compiler)
    for wrong in (np.zeros((2, 2, 3), np.int16), np.zeros((2, 3, 2), np.uint16)):
        with pytest.raises(SpecMismatch):
            _run(pipeline, wrong)
    with pytest.raises(SpecMismatch):
        pipeline.run(np.zeros((2, 2, 3), np.uint16), np.zeros(1, NO_COLUMNS))


def test_an_empty_extent(compiler: Compiler) -> None:
    outcome = _run(built([ABOVE, DOUBLE], "u2", (2, 3), compiler), _frames())
    assert outcome.frames.shape == (0, 2, 3)
    assert outcome.status.shape == (0,)


def test_columns(compiler: Compiler) -> None:
    definition = map_of("def k(x, angle, shot):\n    return x * np.cos(angle) + shot\n")
    params = {"angle": ColumnParam("angle"), "shot": ColumnParam("shot")}
    pipeline = built(definition, "f8", (2,), compiler, columns=ANGLES, **params)
    records = np.zeros(3, ANGLES)
    records["angle"], records["shot"] = [0, np.pi, 0], [1, 2, -3]
    outcome = pipeline.run(np.ones((3, 2)), records)
    np.testing.assert_allclose(outcome.frames, [[2, 2], [1, 1], [-2, -2]])


@settings(max_examples=25, deadline=None)
@given(tops=st.lists(st.integers(0, 9), min_size=1, max_size=12), data=st.data())
def test_the_cut_into_extents_does_not_show(tops: list[int], data: st.DataObject, numba_compiler: Compiler) -> None:
    cut = data.draw(st.integers(0, len(tops)))
    frames = _frames(*tops)
    pipeline = built([DOUBLE, ABOVE, ROW], "u2", (2, 3), numba_compiler)
    whole = _run(pipeline, frames)
    parts = [_run(pipeline, frames[:cut]), _run(pipeline, frames[cut:])]
    assert whole.status.tolist() == [*parts[0].status, *parts[1].status]
    assert whole.cause.tolist() == [*parts[0].cause, *parts[1].cause]
    stored = whole.status == STORED
    assert whole.frames[stored].tolist() == np.concatenate([part.frames for part in parts])[stored].tolist()


# ---------------------------------------------------------------------------------------------------- failing open


def _sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block a slice."""
    monkeypatch.setattr(limits, "KERNEL_SLICE_BYTES", 1)


def test_a_stage_over_its_budget_fails_the_rest_of_the_extent(
    monkeypatch: pytest.MonkeyPatch, compiler: Compiler
) -> None:
    _sliced(monkeypatch)
    pipeline = built([ABOVE, DOUBLE], "u2", (2, 3), compiler, budget_s=2.5, clock=Clock(0.5))
    outcome = _run(pipeline, _frames(9, 9, 1, 9, 9, 9, 9))
    assert outcome.status.tolist() == [STORED, STORED, VETOED, STORED, STORED, FAILED, FAILED]
    assert outcome.cause.tolist() == [0] * 7
    (fault,) = outcome.faults
    assert fault.stage == 0
    assert "'above' took 3 s on an extent, allowed are 2.5 s" in fault.text
    assert outcome.frames[:2, 1, 2].tolist() == [18, 18]


def test_a_budget_is_for_each_extent(compiler: Compiler) -> None:
    pipeline = built(DOUBLE, "u2", (2, 3), compiler, budget_s=2.5, clock=Clock(2.0))
    for _ in range(5):
        assert _run(pipeline, _frames(9)).status.tolist() == [STORED]


def test_no_time_at_all(compiler: Compiler) -> None:
    pipeline = built(DOUBLE, "u2", (2, 3), compiler, budget_s=0.0)
    outcome = _run(pipeline, _frames(9, 9))
    assert outcome.status.tolist() == [FAILED, FAILED]
    assert len(outcome.faults) == 1


def test_vetoed_blocks_stay_vetoed_when_a_later_stage_fails(numpy_compiler: Compiler) -> None:
    pipeline = built([ABOVE, DOUBLE], "u2", (2, 3), numpy_compiler)
    _break(pipeline, 1)
    outcome = _run(pipeline, _frames(9, 1, 9))
    assert outcome.status.tolist() == [FAILED, VETOED, FAILED]
    assert outcome.cause.tolist() == [1, 0, 1]


class Broken:
    backend = "broken"

    def run(self, *_: object) -> None:
        raise MemoryError("no room")


def _break(pipeline: Pipeline, place: int) -> Callable[[], None]:
    stage = pipeline._stages[place]
    working, stage.executable = stage.executable, Broken()  # type: ignore[assignment]
    return lambda: setattr(stage, "executable", working)


def test_a_stage_that_raises_fails_its_slice_only(monkeypatch: pytest.MonkeyPatch, numpy_compiler: Compiler) -> None:
    _sliced(monkeypatch)
    pipeline = built(DOUBLE, "u2", (2, 3), numpy_compiler)
    stage = pipeline._stages[0]
    real = stage.executable

    class Second:
        backend = "numpy"
        calls = 0

        def run(self, *args: Any) -> None:
            self.calls += 1
            if self.calls == 2:
                raise MemoryError("no room")
            real.run(*args)

    stage.executable = Second()  # type: ignore[assignment]
    outcome = _run(pipeline, _frames(7, 8, 9))
    assert outcome.status.tolist() == [STORED, FAILED, STORED]
    assert outcome.frames[[0, 2], 1, 2].tolist() == [14, 18]
    (fault,) = outcome.faults
    assert "'double' raised MemoryError('no room')" in fault.text


def test_faults_in_a_row_lead_to_quarantine(numpy_compiler: Compiler) -> None:
    pipeline = built([ABOVE, DOUBLE], "u2", (2, 3), numpy_compiler)
    repair = _break(pipeline, 1)
    for _ in range(limits.KERNEL_FAULTS_MAX - 1):
        assert _run(pipeline, _frames(9)).quarantined == ()
    repair()
    assert _run(pipeline, _frames(9)).status.tolist() == [STORED], "which ends the row"
    repair = _break(pipeline, 1)
    for _ in range(limits.KERNEL_FAULTS_MAX - 1):
        assert _run(pipeline, _frames(9, 1)).quarantined == ()
    assert _run(pipeline, _frames(1)).faults == (), "an extent that does not reach the stage"
    outcome = _run(pipeline, _frames(9, 1))
    assert outcome.quarantined == (1,)
    assert len(outcome.faults) == 1
    repair()
    outcome = _run(pipeline, _frames(9, 1))
    assert outcome.status.tolist() == [FAILED, VETOED]
    assert outcome.cause.tolist() == [1, 0]
    assert (outcome.faults, outcome.quarantined) == ((), ()), "it fails at once, and is no news"
    assert pipeline.quarantined == (1,)


def test_quarantine_is_restored(compiler: Compiler) -> None:
    pipeline = built([ABOVE, DOUBLE], "u2", (2, 3), compiler)
    pipeline.quarantine(0)
    outcome = _run(pipeline, _frames(9, 1))
    assert outcome.status.tolist() == [FAILED, FAILED]
    assert outcome.cause.tolist() == [0, 0]


# ---------------------------------------------------------------------------------------------------- building


def test_parameters_that_do_not_fit(numpy_compiler: Compiler) -> None:
    definition = map_of("def k(x, dark, gain=2):\n    return (x - dark) * gain\n", "flatfield")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "kernel 'flatfield': no value for 'dark'"),
        ({"dark": 1, "drak": 1}, "no parameter 'drak'; did you mean 'dark'?"),
        ({"dark": np.ones((3, 2))}, "float64 (3, 2) (parameter dark)"),
        ({"dark": np.ones(2, complex)}, "parameter 'dark' is complex128"),
        ({"dark": np.ones(2, np.float16)}, "parameter 'dark' is float16"),
        ({"dark": np.ones((0, 3))}, "parameter 'dark' has the shape (0, 3)"),
        ({"dark": ColumnParam("angel")}, "column 'angel', which the stream does not have; it has: angle, shot, name"),
        ({"dark": ColumnParam("name")}, "parameter 'dark' is |S8"),
        ({"dark": ScalarParam(-1)}, "-1 does not fit uint16 (parameter dark)"),
    ]
    for params, message in cases:
        bound = {name: ScalarParam(value) if isinstance(value, int) else value for name, value in params.items()}
        with pytest.raises(ParameterMismatch) as caught:
            built(definition, "u2", (2, 3), numpy_compiler, columns=ANGLES, **bound)
        assert message in str(caught.value)


def test_frames_that_do_not_fit(numpy_compiler: Compiler) -> None:
    with pytest.raises(ParameterMismatch, match="frames of complex64 are not in the language"):
        built(DOUBLE, "c8", (2, 3), numpy_compiler)
    with pytest.raises(KernelRejected, match="a filter returns one truth, this is bool"):
        built(filter_of("def f(x):\n    return x > 1\n"), "u2", (2, 3), numpy_compiler)
    with pytest.raises(KernelRejected, match="axis 1 of an array with 1 dim"):
        built([ROW, map_of("def k(x):\n    return x.sum(axis=1)\n")], "u2", (2, 3), numpy_compiler)
    with pytest.raises(InvalidInput, match="is a reduction"):
        built(builtin("mean"), "u2", (2, 3), numpy_compiler)
    with pytest.raises(LimitExceeded, match="17 kernels"):
        built([DOUBLE] * 17, "u2", (2, 3), numpy_compiler)


def test_arrays_of_other_byte_order(compiler: Compiler) -> None:
    big = np.arange(3, dtype=">u2")
    assert _run(built(expression("x + d", "d"), "u2", (2, 3), compiler, d=big), _frames(1)).frames.tolist() == [
        [[0, 1, 2], [0, 1, 3]]
    ]


def test_nothing_is_compiled_on_a_frame(numba_compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = built([ABOVE, DOUBLE], "u2", (2, 3), numba_compiler)
    monkeypatch.setattr(type(numba_compiler), "compile", None)
    assert _run(pipeline, _frames(9)).status.tolist() == [STORED]


def test_source_is_checked_again_where_it_is_built(numpy_compiler: Compiler) -> None:
    """A definition that came over the wire was checked by nobody."""
    hostile = KernelDef("k", DOUBLE.kind, "def k(x):\n    return np.load('/etc/passwd')\n")
    with pytest.raises(KernelRejected):
        Pipeline.build([ResolvedStage(hostile)], np.dtype("u2"), (2,), NO_COLUMNS, numpy_compiler)
