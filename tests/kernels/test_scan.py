"""Scans: a memory that goes from block to block, in the order of the index, whatever the extents."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from hiss.errors import KernelRejected
from hiss.kernels import Compiler, Pipeline, ResolvedStage, scan
from hiss.kernels.checker import check
from hiss.model import BlockStatus, ColumnParam, KernelDef, KernelKind
from kernels.building import NO_COLUMNS, expression, filter_of


def scan_of(init: str, step: str, parameters: str = "") -> KernelDef:
    more = f", {parameters}" if parameters else ""
    source = (
        f"class s:\n    def init(frame{more}):\n        return {init}\n"
        f"    def step(state, frame{more}):\n        return {step}\n"
    )
    return KernelDef("s", KernelKind.SCAN, source)


SMOOTH = scan_of("frame * 0.0", "state * 0.75 + frame * 0.25, frame - (state * 0.75 + frame * 0.25)")
DIFFERENCE = scan_of("frame, 0", "(frame, state[1] + 1), (frame.astype(np.int32) - state[0]) * state[1]")


def _pipeline(
    kernels: list[KernelDef], compiler: Compiler, columns: Any = NO_COLUMNS, dtype: str = "u2", **params: Any
) -> Pipeline:
    stages = [ResolvedStage(one, params if place == 0 else {}) for place, one in enumerate(kernels)]
    return Pipeline.build(stages, np.dtype(dtype), (3, 4), columns, compiler)


def _frames(count: int = 9) -> Any:
    return np.random.default_rng(1).integers(0, 60000, (count, 3, 4)).astype(np.uint16)


def _smoothed(frames: Any) -> list[Any]:
    state, results = frames[0] * 0.0, []
    for frame in frames:
        state = state * 0.75 + frame * 0.25
        results.append(frame - state)
    return results


@pytest.mark.parametrize("cuts", [(), (1,), (4,), (2, 2, 5), tuple(range(1, 9))])
def test_the_memory_does_not_show_how_blocks_were_cut(cuts: tuple[int, ...], compiler: Compiler) -> None:
    frames = _frames()
    pipeline = _pipeline([SMOOTH], compiler)
    assert (pipeline.out_dtype, pipeline.out_shape) == (np.float64, (3, 4))
    parts = [
        pipeline.run(frames[first:last], np.zeros(last - first, NO_COLUMNS)).frames
        for first, last in itertools.pairwise((0, *cuts, len(frames)))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), _smoothed(frames))


def test_slices_of_an_extent_do_not_show(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiss.limits.KERNEL_SLICE_BYTES", 200)
    frames = _frames()
    result = _pipeline([SMOOTH], compiler).run(frames, np.zeros(len(frames), NO_COLUMNS)).frames
    np.testing.assert_array_equal(result, _smoothed(frames))


def test_states_of_several_parts(compiler: Compiler) -> None:
    frames = _frames()
    result = _pipeline([DIFFERENCE], compiler).run(frames, np.zeros(len(frames), NO_COLUMNS)).frames
    expected = [(frames[n].astype(np.int32) - frames[max(n - 1, 0)]) * n for n in range(len(frames))]
    np.testing.assert_array_equal(result, expected)


def test_blocks_that_do_not_reach_it_leave_it_alone(compiler: Compiler) -> None:
    """Vetoed before: no effect. Vetoed after: it has been seen."""
    frames = _frames()
    odd = filter_of("def f(x):\n    return x[0, 0] % 2 == 1\n")
    columns = np.zeros(len(frames), NO_COLUMNS)
    before = _pipeline([odd, SMOOTH], compiler).run(frames, columns)
    passed = before.status == BlockStatus.STORED
    assert 0 < passed.sum() < len(frames)
    np.testing.assert_array_equal(before.frames[passed], _smoothed(frames[passed]))
    low = filter_of("def f(x):\n    return x[0, 0] > 0\n")
    after = _pipeline([SMOOTH, low], compiler).run(frames, columns)
    kept = after.status == BlockStatus.STORED
    assert 0 < kept.sum() < len(frames)
    np.testing.assert_array_equal(after.frames[kept], np.array(_smoothed(frames))[kept])


def test_gaps_have_no_effect_and_late_blocks_fail(compiler: Compiler) -> None:
    frames = _frames()
    pipeline = _pipeline([SMOOTH], compiler)
    order = np.array([0, 1, 4, 3, 5, 5, 2, 9])
    taken = np.array([True, True, True, False, True, False, False, True])
    outcome = pipeline.run(frames[: len(order)], np.zeros(len(order), NO_COLUMNS), index=order)
    assert (outcome.status == np.where(taken, BlockStatus.STORED, BlockStatus.KERNEL_FAILED)).all()
    np.testing.assert_array_equal(outcome.frames[taken], _smoothed(frames[: len(order)][taken]))
    late = pipeline.run(frames[:2], np.zeros(2, NO_COLUMNS), index=np.array([8, 10]))
    assert late.status.tolist() == [BlockStatus.KERNEL_FAILED, BlockStatus.STORED]
    assert not late.quarantined, "a late block is not the kernel's fault"


def test_a_fault_leaves_the_memory_as_it_was(numpy_compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, columns = _frames(), np.zeros(3, NO_COLUMNS)
    pipeline = _pipeline([SMOOTH], numpy_compiler)
    pipeline.run(frames[:3], columns)
    with monkeypatch.context() as patch:
        patch.setattr("hiss.kernels.backend.evaluate", _fails)
        assert (pipeline.run(frames[3:6], columns).status == BlockStatus.KERNEL_FAILED).all()
    result = pipeline.run(frames[6:], columns)
    np.testing.assert_array_equal(result.frames, _smoothed(np.concatenate((frames[:3], frames[6:])))[3:])


def _fails(*args: Any) -> Any:
    raise FloatingPointError("out of order")


def test_what_it_remembers_can_be_kept_and_set_again(compiler: Compiler) -> None:
    frames, columns = _frames(), np.zeros(3, NO_COLUMNS)
    pipeline = _pipeline([SMOOTH, DIFFERENCE], compiler)
    pipeline.run(frames[:3], columns)
    memory = pipeline.memory
    assert memory is not None
    assert memory.frontier == 2
    first = pipeline.run(frames[3:6], columns).frames.copy()
    other = _pipeline([SMOOTH, DIFFERENCE], compiler)
    for one in (pipeline, other):
        one.remember(memory)
        np.testing.assert_array_equal(one.run(frames[3:6], columns).frames, first)
    assert _pipeline([expression("x")], compiler).memory is None


def test_columns_and_parameters(compiler: Compiler) -> None:
    records = np.zeros(9, np.dtype([("gain", "<f8")]))
    records["gain"] = np.arange(2, 11)
    definition = scan_of("frame * gain + offset", "state + 1, frame * gain + state", "gain, offset")
    pipeline = _pipeline([definition], compiler, records.dtype, gain=ColumnParam("gain"), offset=np.array(5.0))
    frames = _frames()
    result = pipeline.run(frames, records).frames
    expected = [frames[n] * (n + 2.0) + (frames[0] * 2.0 + 5) + n for n in range(9)]
    np.testing.assert_array_equal(result, expected)


def test_identity_knows_the_kind() -> None:
    assert check(SMOOTH).hash == check(scan_of("frame * 0.0", SMOOTH.source.split("return ")[2].strip())).hash


def test_decorated() -> None:
    @scan
    class drift:
        def init(frame):  # type: ignore[no-untyped-def]
            return frame

        def step(state, frame):  # type: ignore[no-untyped-def]
            return frame, frame - state

    assert drift.definition.kind is KernelKind.SCAN
    np.testing.assert_array_equal(drift(np.array([3, 5, 4])), [0, 2, -1])


@pytest.mark.parametrize(
    ("init", "step", "message"),
    [
        ("frame", "frame", "returns two things: `return state, out`"),
        ("frame", "state, frame, frame", "returns two things"),
        ("frame", "(state, state), frame", "`step` gives 2 parts of the state, `init` 1"),
        ("frame", "state * 0.5, frame", r"is uint16 \(3, 4\) after `init`, but float64"),
        ("frame", "(), frame", "the state is empty"),
        ("frame", "state, frame.shape", "one array or number"),
    ],
)
def test_what_is_refused(init: str, step: str, message: str, numpy_compiler: Compiler) -> None:
    with pytest.raises(KernelRejected, match=message):
        _pipeline([scan_of(init, step)], numpy_compiler)


def test_sources_that_are_no_scan() -> None:
    for source, message in (
        ("def s(frame):\n    return frame\n", "one class with init and step"),
        ("class s:\n    def init(frame):\n        return frame\n", "the scan has no step"),
        ("class s:\n    def finish(state):\n        return state\n", "consists of `init` and `step`, once each"),
    ):
        with pytest.raises(KernelRejected, match=message):
            check(KernelDef("s", KernelKind.SCAN, source))
