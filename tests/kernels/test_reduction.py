"""Reductions: the built-in ones, states of several parts, independence of extents, what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from hiss.errors import InvalidInput, KernelNotFound, KernelRejected, ParameterMismatch, SpecMismatch
from hiss.kernels import Compiler, Reduction, ResolvedStage, builtin
from hiss.model import KernelDef, KernelKind
from kernels.building import expression


def reduction_of(init: str, step: str, finish: str, parameters: str = "") -> KernelDef:
    more = f", {parameters}" if parameters else ""
    source = (
        f"class r:\n    def init(frame{more}):\n        return {init}\n"
        f"    def step(state, frame{more}):\n        return {step}\n    def finish(state):\n        return {finish}\n"
    )
    return KernelDef("r", KernelKind.REDUCE, source)


def _over(definition: KernelDef, frames: Any, compiler: Compiler, cuts: tuple[int, ...] = (), **params: Any) -> Any:
    reduction = Reduction.build(ResolvedStage(definition, params), frames.dtype, frames.shape[1:], compiler)
    for first, last in itertools.pairwise((0, *cuts, len(frames))):
        reduction.update(frames[first:last])
    assert reduction.count == len(frames)
    result = reduction.result()
    assert (result.dtype, result.shape) == (reduction.out_dtype, reduction.out_shape)
    return result


@pytest.mark.parametrize("dtype", ["u2", "f4", "i8"])
def test_the_built_in_ones_are_numpys(dtype: str, compiler: Compiler) -> None:
    frames = np.random.default_rng(0).integers(0, 60000, (9, 4, 5)).astype(dtype)
    mean = _over(builtin("mean"), frames, compiler)
    assert mean.dtype == np.mean(frames, axis=0).dtype
    expected = np.mean(frames.astype(np.float64), axis=0)
    np.testing.assert_allclose(mean, expected, rtol=1e-7 if dtype == "f4" else 1e-15)
    largest = _over(builtin("maximum"), frames, compiler)
    assert largest.dtype == frames.dtype
    np.testing.assert_array_equal(largest, frames.max(axis=0))


def test_float32_means_are_computed_in_float64(compiler: Compiler) -> None:
    frames = np.full((1001, 1), 0.1, np.float32)
    frames[0] = 1e8
    assert _over(builtin("mean"), frames, compiler) == np.float32(frames.astype(np.float64).mean())


def test_one_block(compiler: Compiler) -> None:
    frames = np.array([[3, 7]], np.uint16)
    assert _over(builtin("mean"), frames, compiler).tolist() == [3, 7]
    assert _over(builtin("maximum"), frames, compiler).tolist() == [3, 7]


def test_single_value_blocks(compiler: Compiler) -> None:
    assert _over(builtin("mean"), np.array([1, 2, 6], np.int32), compiler) == 3.0


STATES = {
    "a swap": ("frame, frame * 0", "state[1] + frame, state[0]", "state[0] - state[1]"),
    "a shift by one": ("frame, 0", "np.where(frame > 3, state[0][::-1], frame), state[1] + 1", "state[0] * state[1]"),
    "a mean beside": (
        "frame.astype(np.float64), np.sum(frame) * 0.0",
        "(state[0] - np.mean(state[0])) * 0.5 + frame, state[1] + np.sum(state[0])",
        "state[0] + state[1]",
    ),
    "counts": ("np.zeros((2,), np.int64)", "state + np.sum(frame.reshape(2, -1) > 4, axis=1)", "state"),
    "one that stays": ("frame, frame + 1", "state[0] + frame, state[1]", "state[0] * state[1]"),
}


@pytest.mark.parametrize("name", STATES)
def test_states_do_not_see_each_other_half_written(
    name: str, numpy_compiler: Compiler, numba_compiler: Compiler
) -> None:
    """The new state is made of the old one, whole, whatever the back end writes in place; extents do not show."""
    definition = reduction_of(*STATES[name])
    frames = np.random.default_rng(3).integers(0, 9, (7, 6)).astype(np.int64)
    expected = _over(definition, frames, numpy_compiler)
    np.testing.assert_array_equal(_plain(STATES[name], frames), expected)
    for cuts in ((), (1,), (3,), (2, 2, 5), tuple(range(1, 7))):
        for compiler in (numpy_compiler, numba_compiler):
            np.testing.assert_array_equal(_over(definition, frames, compiler, cuts), expected)


def _plain(texts: tuple[str, str, str], frames: Any) -> Any:
    """The same as Python, with NumPy."""
    state = eval(texts[0], {"np": np, "frame": frames[0]})
    for frame in frames:
        state = eval(texts[1], {"np": np, "frame": frame, "state": state})
    return eval(texts[2], {"np": np, "state": state})


def test_parameters(compiler: Compiler) -> None:
    definition = reduction_of("frame * 0.0", "state + frame * weight", "state", "weight")
    frames = np.arange(6, dtype=np.float64).reshape(3, 2)
    weight = np.array([1.0, 10.0])
    np.testing.assert_array_equal(_over(definition, frames, compiler, weight=weight), frames.sum(axis=0) * weight)
    with pytest.raises(ParameterMismatch, match="'weight'"):
        _over(definition, frames, compiler)


def test_results_are_the_callers(compiler: Compiler) -> None:
    """A result does not change when more comes, and changing it changes nothing."""
    frames = np.array([[3, 7], [5, 1]], np.uint16)
    reduction = Reduction.build(ResolvedStage(builtin("maximum")), frames.dtype, (2,), compiler)
    reduction.update(frames[:1])
    first = reduction.result()
    reduction.update(frames[1:])
    assert first.tolist() == [3, 7]
    first[:] = 99
    assert reduction.result().tolist() == [5, 7]
    assert frames.tolist() == [[3, 7], [5, 1]]


def test_no_block(compiler: Compiler) -> None:
    reduction = Reduction.build(ResolvedStage(builtin("mean")), np.dtype("u2"), (2,), compiler)
    reduction.update(np.zeros((0, 2), np.uint16))
    with pytest.raises(InvalidInput, match="no block to reduce"):
        reduction.result()


def test_what_is_refused(numpy_compiler: Compiler) -> None:
    frames = np.zeros((2, 3), np.uint16)
    with pytest.raises(KernelRejected, match=r"part 0 of the state is uint16 \(3,\) after `init`, but float64"):
        _over(reduction_of("frame", "state * 0.5", "state"), frames, numpy_compiler)
    with pytest.raises(KernelRejected, match="`step` gives 1 parts of the state, `init` 2"):
        _over(reduction_of("frame, frame", "state[0]", "state[0]"), frames, numpy_compiler)
    with pytest.raises(InvalidInput, match="is no reduction"):
        Reduction.build(ResolvedStage(expression("x")), np.dtype("u2"), (2,), numpy_compiler)
    with pytest.raises(KernelNotFound, match="maximum, mean"):
        builtin("median")
    reduction = Reduction.build(ResolvedStage(builtin("mean")), np.dtype("u2"), (3,), numpy_compiler)
    with pytest.raises(SpecMismatch):
        reduction.update(np.zeros((1, 4), np.uint16))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def r(frame):\n    return frame\n", "one class with init, step and finish"),
        ("class r:\n    def init(frame):\n        return frame\n", "has no step and no finish"),
        ("class r(object):\n    pass\n", "no bases"),
        ("class r:\n    x = 1\n", "consists of `init`, `step` and `finish`"),
        ("class r:\n    def init():\n        return 1\n", "starts with the frame"),
        ("class r:\n    def step(frame):\n        return 1\n", "starts with the state and frame"),
        (
            "class r:\n    def init(frame, a=1):\n        return frame\n"
            "    def step(state, frame, a=2):\n        return state\n"
            "    def finish(state):\n        return state\n",
            "two defaults",
        ),
    ],
)
def test_sources_that_are_no_reduction(source: str, message: str, numpy_compiler: Compiler) -> None:
    with pytest.raises(KernelRejected, match=message):
        _over(KernelDef("r", KernelKind.REDUCE, source), np.zeros((1, 2), np.uint16), numpy_compiler)
