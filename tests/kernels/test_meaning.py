"""What a kernel computes: NumPy's results, but for the differences that docs/kernel-language.md names."""

from __future__ import annotations

import random
import re
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hiss.errors import ParameterMismatch
from hiss.kernels import Compiler
from hiss.kernels.backend import NumpyBackend
from hiss.kernels.functions import FUNCTIONS
from hiss.kernels.interpreter import reduce
from hiss.kernels.ir import in_order
from hiss.model import ColumnParam, ScalarParam
from kernels.building import applied, built, expression, several
from kernels.programs import Generated, Maker, columns, values

NUMPYS = {  # what is the language's own, clips where NumPy raises, or rounds otherwise, has tests of its own
    name: row for name, row in FUNCTIONS.items() if "h" not in row.forms and name not in ("take", "percentile")
}
PERIODIC = ("sin", "cos", "tan")
GIVEN = ("frame", "array", "column", "const", "cast", "broadcast")
IN_OWN_ORDER = ("sum", "prod", "running_add", "running_multiply")
I64_MIN, I64_MAX = np.iinfo(np.int64).min, np.iinfo(np.int64).max


# ---------------------------------------------------------------------------------------------------- as NumPy


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**63))
@example(2674097)  # the tangent of 8.7e8
@example(2108)  # a quantile of integers at 0
def test_random_kernels_give_what_numpy_gives(seed: int) -> None:
    """The source is executed as Python, with NumPy, and must give the same dtypes, shapes and values."""
    made = Maker(random.Random(seed), NUMPYS).program(lines=8)
    rng = random.Random(seed)
    frames, records = values(rng, made.dtype, (1, *made.shape)), columns(rng, 1)
    outs = [np.zeros((1, *node.shape), node.dtype) for node in made.program.outputs]
    taken = [np.ascontiguousarray(records[name], dtype) for name, dtype in made.program.columns]
    NumpyBackend().compile([made.program])[0].run(frames, taken, np.array([0]), outs)
    expected = _as_python(made, frames[0], records[0])
    if expected is None or re.search(r"full|(weak|\d)\.astype|quantile\(\w+, \(?[01]\b(?!\.)", made.source):
        return  # no answer; a number, not an array, that saturates; or NumPy's quantile of a whole q, which is no float
    for out, node, value in zip(outs, made.typed.outputs, expected, strict=True):
        if any(n.op == "cast" and n.dtype.kind in "iu" and n.args[0].dtype.kind == "f" for n in in_order([node])):
            continue  # saturates, where NumPy's result is undefined
        assert (out.dtype, out[0].shape) == (np.asarray(value).dtype, np.shape(value))
        if any(n.op in IN_OWN_ORDER and n.dtype.kind == "f" for n in in_order([node])):
            continue  # in another order, and in float64
        if any(n.op in PERIODIC and n.args[0].op not in GIVEN for n in in_order([node])):
            continue  # the last digit of a large angle that was computed is most of what is left of it
        np.testing.assert_allclose(out[0], value, rtol=2e-5, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", ["f4", "f8", "u2", "i8", "?"])
def test_statistics_are_numpys(dtype: str, numpy_compiler: Compiler) -> None:
    frame = np.random.default_rng(0).integers(0, 2 if dtype == "?" else 900, (4, 5, 70)).astype(dtype)
    texts = [
        f"np.{name}(x, axis={axis}, keepdims={keepdims})"
        for name in ("sum", "mean", "var", "std", "max", "min", "any", "all", "count_nonzero")
        for axis, keepdims in ((None, False), (0, True), (-1, False), ((0, 2), False))
    ]
    texts += ["np.prod(x[:, 0, :2])", "np.var(x, ddof=1)", "x.sum(axis=1, dtype=np.float64)"]
    for text, got in zip(texts, several(texts, frame, numpy_compiler), strict=True):
        expected = np.asarray(eval(text, {"np": np, "x": frame}))
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape), text
        np.testing.assert_allclose(got, expected, rtol=1e-4 if dtype == "f4" else 1e-12, err_msg=text)


def _as_python(made: Generated, frame: Any, record: Any) -> list[Any] | None:
    """The results by NumPy; None where it has no answer (float16 on the way, a method of a Python number)."""
    source = re.sub(r"return (v.*|frame),$", r"return (\1,), locals()", made.source, count=1, flags=re.MULTILINE)
    namespace: dict[str, Any] = {"np": np}
    exec(source, namespace)
    given: dict[str, Any] = {}
    for name, param in made.params.items():
        if isinstance(param, ScalarParam):
            given[name] = param.value if param.dtype is None else np.dtype(param.dtype).type(param.value)
        else:
            given[name] = record[param.name] if isinstance(param, ColumnParam) else param
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing, in nan functions
        try:
            results, everything = namespace["k"].init(frame, **given)
        except (AttributeError, TypeError) as error:
            if not any(text in str(error) for text in ("has no attribute", "not subscriptable", "for the input types")):
                raise
            return None  # a Python number where the kernel has a NumPy one, or float16 where it has none
    return None if any(np.asarray(value).dtype == np.float16 for value in everything.values()) else list(results)


def _vary(text: str, frame: Any, compiler: Compiler) -> Any:
    return applied(expression(text), frame, compiler)


# ---------------------------------------------------------------------------------------------------- differences


INTEGERS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


@pytest.mark.parametrize("source", ["f4", "f8"])
def test_floats_saturate_in_integers(source: str, compiler: Compiler) -> None:
    edges = [0.9, -0.9, 1.5, -1.5, np.nan, np.inf, -np.inf, 1e30, -1e30, 127.5, 255.5, 65535.9]
    exact = [2.0**k for k in (7, 8, 15, 16, 31, 32, 63, 64)]
    frame = np.array([*edges, *exact, *[-value for value in exact], *[value - 1 for value in exact]], source)
    results = several([f"x.astype(np.{np.dtype(dtype).name})" for dtype in INTEGERS], frame, compiler)
    for dtype, got in zip(INTEGERS, results, strict=True):
        bounds = np.iinfo(dtype)
        expected = [
            0 if np.isnan(value) else max(bounds.min, min(bounds.max, int(np.clip(value, -1e20, 1e20))))
            for value in frame
        ]
        assert got.dtype == np.dtype(dtype)
        assert got.tolist() == expected


def _pairs(first: list[int], second: list[int], dtype: str) -> tuple[Any, Any]:
    """Every number of one list with every one of the other, where the dtype holds them."""
    bounds = np.iinfo(dtype)
    fitting = [[n for n in numbers if bounds.min <= n <= bounds.max] for numbers in (first, second)]
    return tuple(np.array(part, dtype) for part in zip(*[(p, q) for p in fitting[0] for q in fitting[1]], strict=True))


def _wrapped(value: int, dtype: str) -> int:
    bounds = np.iinfo(dtype)
    return (value - bounds.min) % (1 << bounds.bits) + bounds.min


@pytest.mark.parametrize("dtype", ["i1", "u2", "i8", "u8"])
def test_integer_operators_are_defined_everywhere(dtype: str, compiler: Compiler) -> None:
    """Division by zero, the smallest integer by -1, shifts by too much or less than 0: by Python's integers."""
    bounds = np.iinfo(dtype)
    numbers = [0, 1, 2, 5, 7, -1, -2, -7, bounds.min, bounds.max]
    counts = [0, 1, bounds.bits - 1, bounds.bits, bounds.bits + 1, -8]
    a, b = _pairs(numbers, numbers + counts, dtype)
    texts = ["x // d", "x % d", "x << d", "x >> d", "x + d", "x - d", "x * d", "-x", "abs(x)", "~x", "x ** 3"]
    results = [result.tolist() for result in several(texts, a, compiler, d=b)]
    for p, q, *got in zip(a.tolist(), b.tolist(), *results, strict=True):
        inside = 0 <= q < bounds.bits
        expected = [
            p // q if q else 0,
            p % q if q else 0,
            p << q if inside else 0,
            p >> q if inside else -(p < 0),
            *(p + q, p - q, p * q, -p, abs(p), ~p, p**3),
        ]
        assert got == [_wrapped(value, dtype) for value in expected], (p, q)


SIGNS = ("<", "<=", ">", ">=", "==", "!=")


def test_integers_compare_exactly(compiler: Compiler) -> None:
    signed = [I64_MIN, -1, 0, 1, I64_MAX, I64_MAX]
    unsigned = [0, 2**64 - 1, 0, 1, I64_MAX, 2**63]
    a, b = np.array(signed, np.int64), np.array(unsigned, np.uint64)
    texts = [f"{left} {sign} {right}" for sign in SIGNS for left, right in (("x", "d"), ("d", "x"))]
    for text, got in zip(texts, several(texts, a, compiler, d=b), strict=True):
        assert got.tolist() == [eval(text, {"x": p, "d": q}) for p, q in zip(signed, unsigned, strict=True)]


def test_integers_compare_with_numbers_beyond_their_range(compiler: Compiler) -> None:
    frame = np.array([0, 200, 255], np.uint8)
    pairs = [("x", str(number)) for number in (300, -1, 255, 0, 2.5)]
    texts = [f"{left} {sign} {right}" for sign in SIGNS for p in pairs for left, right in (p, p[::-1])]
    for text, got in zip(texts, several(texts, frame, compiler), strict=True):
        assert got.tolist() == [eval(text, {"x": x}) for x in frame.tolist()], text


def test_small_integers_go_to_float32(compiler: Compiler) -> None:
    dtypes = {"bool": "f4", "uint8": "f4", "int8": "f4", "uint16": "f4", "int32": "f8", "uint64": "f8"}
    results = several([f"np.sqrt(x.astype(np.{name}))" for name in dtypes], np.array([1, 0], np.uint8), compiler)
    for expected, got in zip(dtypes.values(), results, strict=True):
        assert got.dtype == np.dtype(expected)
        assert got.tolist() == [1, 0]


def test_float32_sums_are_those_of_float64(compiler: Compiler) -> None:
    frame = np.full(1 << 16, 0.1, np.float32)
    frame[0] = 1e8
    got = _vary("np.sum(x)", frame, compiler)
    assert got.dtype == np.float32
    assert got == np.float32(frame.astype(np.float64).sum())
    assert _vary("np.mean(x)", frame, compiler) == np.float32(frame.astype(np.float64).mean())


@pytest.mark.parametrize("shape", [(64,), (9, 70), (70, 9), (3, 5, 67)])
def test_the_stated_order(shape: tuple[int, ...], compiler: Compiler) -> None:
    """64 interleaved lanes, each in order, then a pairwise tree: by plain Python floats."""
    rng = np.random.default_rng(1)
    frame = rng.uniform(0.8, 1.2, shape) * rng.choice([-1, 1], shape)
    axes: list[Any] = [None, *range(len(shape))] + [(0, 2)] * (len(shape) == 3)
    calls = [("prod", None), *(("sum", axis) for axis in axes)]
    results = several([f"np.{name}(x, axis={axis})" for name, axis in calls], frame, compiler)
    for (name, axis), got in zip(calls, results, strict=True):
        reduced = axis if isinstance(axis, tuple) else (axis,) if axis is not None else tuple(range(len(shape)))
        kept = [k for k in range(len(shape)) if k not in reduced]
        rows = frame.transpose(*kept, *reduced).reshape(got.size, -1)
        assert got.ravel().tolist() == [_in_order(name, row.tolist()) for row in rows]


def _in_order(name: str, row: list[float]) -> float:
    lanes = [0.0 if name == "sum" else 1.0] * 64
    join = (lambda a, b: a + b) if name == "sum" else (lambda a, b: a * b)
    for place, value in enumerate(row):
        lanes[place % 64] = join(lanes[place % 64], value)
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [join(a, b) for a, b in zip(lanes[:half], lanes[half:], strict=True)]
    return lanes[0]


def test_the_order_does_not_depend_on_memory(numpy_compiler: Compiler) -> None:
    """The interpreter's chunks do not show: longer than one of them, and strided."""
    frame = np.random.default_rng(2).standard_normal((3, 1 << 17))[:, ::2]
    expected = [_in_order("sum", row.tolist()) for row in frame]
    assert reduce("sum", frame, (1,), (3,)).tolist() == expected


# ---------------------------------------------------------------------------------------------------- results


def test_results_of_every_rank_and_kind(compiler: Compiler) -> None:
    frame = np.arange(6, dtype=np.uint16).reshape(2, 3)
    single = built(expression("np.max(x)"), "u2", (2, 3), compiler)
    assert (single.out_dtype, single.out_shape) == (np.uint16, ())
    assert single.run(frame[None], np.zeros(1, np.dtype([]))).frames.tolist() == [5]
    assert _vary("x > 2", frame, compiler).dtype == np.bool_
    assert _vary("x * np.nan", frame, compiler).dtype == np.float64
    assert np.isnan(_vary("x * np.nan", frame, compiler)).all()
    assert _vary("2.5", frame, compiler) == 2.5
    assert _vary("x.shape[1]", frame, compiler) == 3
    assert _vary("x[:, ::-1].T", frame, compiler).tolist() == frame[:, ::-1].T.tolist()


def test_weak_and_strong_scalars(compiler: Compiler) -> None:
    frame = np.array([1, 2], np.uint16)
    definition = expression("x * gain", "gain")
    for param, dtype in (
        (ScalarParam(2), "u2"),
        (ScalarParam(2.5), "f8"),
        (ScalarParam(True), "u2"),
        (ScalarParam(2, "<i8"), "i8"),
        (ScalarParam(2.5, "<f4"), "f4"),
        (np.array(2, np.int32), "i4"),
    ):
        got = applied(definition, frame, compiler, gain=param)
        assert got.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(got, frame * (param if isinstance(param, np.ndarray) else param.value))


def test_weak_scalars_are_checked_when_bound(numpy_compiler: Compiler) -> None:
    with pytest.raises(ParameterMismatch, match=r"70000 does not fit uint16 \(parameter gain\)"):
        built(expression("x * gain", "gain"), "u2", (2,), numpy_compiler, gain=ScalarParam(70000))
    with pytest.raises(ParameterMismatch, match="300 does not fit"):
        built(expression("x * gain", "gain"), "u2", (2,), numpy_compiler, gain=ScalarParam(300, "|u1"))


def test_clip_takes_bounds_beyond_the_dtype(compiler: Compiler) -> None:
    texts = ["np.clip(x, -5, 65535)", "np.clip(x, None, None)", "x.clip(5)", "x.clip(max=5)"]
    results = several(texts, np.array([0, 7, 255], np.uint8), compiler)
    assert [got.dtype for got in results] == [np.uint8] * 4
    assert [got.tolist() for got in results] == [[0, 7, 255], [0, 7, 255], [5, 7, 255], [0, 5, 5]]


def test_logic_of_single_values(compiler: Compiler) -> None:
    texts = ["np.max(x) > 5 and not np.min(x) > 5", "np.max(x) > 50 or np.min(x) > 5", "2 < np.min(x) < 5"]
    assert [bool(got) for got in several(texts, np.array([3, 9], np.uint16), compiler)] == [True, False, True]
