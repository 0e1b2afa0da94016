"""Sources and parameters that mean harm, beyond the collection beside the data: refused or bounded, with clean errors.

`REFUSED` never gets past the checker. `BOUNDED` may be accepted; then it compiles, runs and ends within its bounds, on
both back ends, and the frame stays as it was.
"""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hiss import limits
from hiss.errors import KernelRejected, LimitExceeded, ParameterMismatch
from hiss.kernels import Compiler, kernel
from hiss.kernels.checker import check
from hiss.model import ArrayParam, BlockStatus, KernelDef, KernelKind, ScalarParam
from kernels.building import NO_COLUMNS, built, expression, several


def _k(body: str, args: str = "x") -> str:
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    return f"def k({args}):\n{lines}"


REFUSED = {
    # what runs at definition, or under another name
    "default that calls": _k("return x", "x, y=print(1)"),
    "default that is a list": _k("return x", "x, y=[]"),
    "default of the frame": _k("return x", "x=1"),
    "default with a walrus": _k("return x", "x, y=(z := 1)"),
    "default f-string": _k("return x", "x, y=f'{1}'"),
    "keyword-only": _k("return x", "x, *, y=1"),
    "positional-only": _k("return x", "x, y, /"),
    "star arguments": _k("return x", "x, *args"),
    "double star": _k("return x", "x, **kw"),
    "return annotation": "def k(x) -> open('/etc/passwd'):\n    return x\n",
    "annotated local": _k("y: open('/etc/passwd') = x\nreturn y"),
    "type parameters": "def k[T](x):\n    return x\n",
    "type alias": "type X = int\n" + _k("return x"),
    "decorator": "@staticmethod\n" + _k("return x"),
    "class decorator": "@open\nclass k:\n    def init(x):\n        return x\n",
    "two functions": _k("return x") + _k("return x"),
    "code after": _k("return x") + "open('/tmp/x', 'w')\n",
    "lambda as kernel": "k = lambda x: x\n",
    "an expression": "x + 1\n",
    "nothing": "",
    "only a comment": "# def k(x): return x\n",
    "only a docstring": "def k(x):\n    'just text'\n",
    "async": "async def k(x):\n    return x\n",
    "generator": _k("yield x"),
    "yield from": _k("return (yield from x)"),
    "await": "async def k(x):\n    return await x\n",
    # statements
    "global": _k("global np\nreturn x"),
    "nonlocal": _k("nonlocal np\nreturn x"),
    "del": _k("del x\nreturn 1"),
    "assert": _k("assert x\nreturn x"),
    "with": _k("with open('/etc/passwd') as f:\n    return x"),
    "match": _k("match x:\n    case _:\n        return x"),
    "while": _k("while True:\n    pass"),
    "try star": _k("try:\n    y = 1\nexcept* ValueError:\n    y = 2\nreturn x"),
    "early return": _k("return x\nreturn x"),
    "import star": _k("from os import *\nreturn x"),
    "ellipsis body": _k("..."),
    "chained attribute target": _k("x.shape = (3,)\nreturn x"),
    "slice target": _k("x[:] = 0\nreturn x"),
    "starred target": _k("a, *b = x.shape\nreturn x"),
    "nested target": _k("(a, (b, c)) = (1, (2, 3))\nreturn x"),
    "list target": _k("[a, b] = 1, 2\nreturn x"),
    "walrus in a condition": _k("return x if (n := 3) > 2 else x"),
    "augmented": _k("y = x\ny <<= 1\nreturn y"),
    # expressions
    "set": _k("return {1, 2}"),
    "dict": _k("return {'a': x}"),
    "dict comprehension": _k("return {a: a for a in x}"),
    "generator expression": _k("return np.sum(a for a in x)"),
    "conditional import": _k("return __builtins__"),
    "dunder name": _k("__class__ = 1\nreturn x"),
    "dunder attribute": _k("return x.__class__"),
    "dunder method": _k("return x.__array_interface__"),
    "private attribute": _k("return np._core.multiarray"),
    "method of a method": _k("return x.sum.__self__"),
    "call of a call": _k("return x.sum()()"),
    "call of a subscript": _k("return x[0](1)"),
    "call of a literal": _k("return (1)(x)"),
    "subscript of np": _k("return np['sum']"),
    "np as a value": _k("return np"),
    "hk as a value": _k("y = hk\nreturn x"),
    "hk assigned": _k("hk = x\nreturn x"),
    "np as a parameter": _k("return np", "x, np"),
    "True as a target": "def k(x):\n    True = x\n    return x\n",
    "function as a value": _k("f = np.sum\nreturn x"),
    "reduce of a ufunc": _k("return np.add.reduce(x)"),
    "at of a ufunc": _k("return np.add.at(x, 0, 1)"),
    "outer of a ufunc": _k("return np.multiply.outer(x, x)"),
    "accumulate of another": _k("return np.add.accumulate(x)"),
    "out": _k("return np.add(x, 1, out=x)"),
    "where of a ufunc": _k("return np.add(x, 1, where=x > 2)"),
    "starred call": _k("return np.add(*x)"),
    "double-starred call": _k("return np.sum(x, **{'axis': 0})"),
    "matmul": _k("return x @ x"),
    "is": _k("return x is x"),
    "in": _k("return 3 in x"),
    "complex": _k("return x + 1j"),
    "bytes": _k("return x + b'1'"),
    "string": _k("return 'abc'"),
    "string multiplied": _k("return 'abc' * 9"),
    "f-string": _k("return f'{x}'"),
    "format spec": _k("return f'{1:{9**9}}'"),
    "float16": _k("return x.astype(np.float16)"),
    "object dtype": _k("return x.astype(object)"),
    "void dtype": _k("return x.astype('V9999999999')"),
    "structured dtype": _k("return x.astype('f4,f4')"),
    "datetime": _k("return x.astype('M8[s]')"),
    "ctypes": _k("return x.ctypes"),
    "view": _k("return x.view(np.uint8)"),
    "base": _k("return x.base"),
    "data": _k("return x.data"),
    "setflags": _k("x.setflags(write=True)\nreturn x"),
    "tobytes": _k("return x.tobytes()"),
    "memmap": _k("return np.memmap('/etc/passwd')"),
    "frombuffer": _k("return np.frombuffer(x)"),
    "frompyfunc": _k("return np.frompyfunc(len, 1, 1)(x)"),
    "apply_along_axis": _k("return np.apply_along_axis(len, 0, x)"),
    "piecewise": _k("return np.piecewise(x, [x < 0], [len])"),
    "testing": _k("return np.testing.assert_equal(x, x)"),
    "f2py": _k("return np.f2py.compile('x')"),
    "ndarray": _k("return np.ndarray((10,), buffer=x)"),
    "save": _k("return np.save('/tmp/x', x)"),
    "seterr": _k("return np.seterr(all='raise')"),
    # characters
    "cyrillic name": _k("return \u0445", "\u0445"),
    "fullwidth attribute": _k("return np.\uff53um(x)"),
    "ligature": _k("return np.\ufb01x(x)"),
    "mathematical name": _k("\U0001d431 = x\nreturn \U0001d431"),
    "zero-width joiner": _k("return x\u200d"),
    "bidi in a string": _k("'\u202e'\nreturn x"),
    "line separator": _k("return x\u2028"),
    "carriage return": "def k(x):\r    return x\ropen('/tmp/x')\r",
    "vertical tab": _k("\x0breturn x"),
    "escape": _k("return x # \x1b[2J"),
    "lone surrogate": _k("return x # \ud800"),
    "byte order mark within": _k("return \ufeffx"),
    "private use": _k("return x # \ue000"),
    "continuation": "def k(x):\n    return x \\\n\n    + open\n",
    "tabs and spaces": "def k(x):\n\ty = x\n        return y\n",
    # numbers
    "infinite literal": _k("return x + 1e400"),
    "huge integer": _k(f"return x + {2**200}"),
    "huge hexadecimal": _k("return x + 0x" + "f" * 4000),
    "huge shift": _k("return x + (1 << 1000000)"),
    "shift tower": _k("return 1 << (1 << (1 << 40))"),
    "power tower": _k("return 7 ** 7 ** 7 ** 7"),
    "negative shift": _k("return 1 << -1"),
    "division by literal zero": _k("return x + 1 // 0"),
    "complex power": _k("return (-8) ** 0.5"),
    "product of products": _k("a = 2 ** 100\nb = a * a\nreturn x"),
    # arguments
    "missing argument": _k("return np.where(x)"),
    "twice": _k("return np.sum(x, axis=0, axis=1)"),
    "by place and name": _k("return np.sum(x, 0, axis=1)"),
    "too many": _k("return np.sqrt(x, x, x)"),
    "unknown keyword": _k("return np.sum(x, initial=3)"),
    "two parameters of one name": "def k(x, a, a):\n    return x\n",
}
BOMBS = {
    "ternaries": _k("return " + "x if 1 else (" * 300 + "x" + ")" * 300),
    "ternary chain": _k("return " + "x if 0 else " * 4000 + "x"),
    "comparisons": _k("return 1" + " < 2" * 9000),
    "assignments": _k("\n".join(f"v{k} = x + {k}" for k in range(4000)) + "\nreturn v3999"),
    "one name again and again": _k("\n".join("x = x + x" for _ in range(4000)) + "\nreturn x"),
    "minus signs": _k("return " + "-" * 8000 + "x"),
    "tildes": _k("return " + "~" * 8000 + "x"),
    "attributes": _k("return x" + ".T" * 8000),
    "slices": _k("return x[" + "1:," * 4000 + "]"),
    "tuple": _k("return (" + "x," * 4000 + ")"),
    "parameters": _k("return x", ", ".join(f"a{k}" for k in range(500))),
    "long name": _k(f"{'a' * 60000} = x\nreturn x"),
    "long attribute": _k(f"return x.{'a' * 60000}"),
    "long number": _k("return x + " + "1" * 60000),
    "nested subscripts": _k("return " + "x[" * 70 + "0" + "]" * 70),
    "nested calls": _k("return " + "abs(" * 70 + "x" + ")" * 70),
    "line continuations": _k("return x" + " \\\n + 1" * 3000),
    "long comment": _k("return x  # " + "a" * 70000),
    "strings side by side": _k("return " + "'a' " * 9000),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(KernelRejected) as caught:
        check(KernelDef("k", KernelKind.MAP, REFUSED[name]))
    assert "kernel 'k', line " in str(caught.value)
    assert all(character.isprintable() or character == "\n" for character in str(caught.value))
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name: str) -> None:
    """Within little memory, and whatever time a slow machine needs for a few thousand tokens."""
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises((KernelRejected, LimitExceeded)):
            check(KernelDef("k", KernelKind.MAP, BOMBS[name]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * limits.MiB
    assert time.process_time() - started < 20


def test_a_kernel_that_doubles_itself_is_computed_once_each(numpy_compiler: Compiler) -> None:
    """2**60 if it were written out."""
    source = _k("\n".join("x = x + x" for _ in range(60)) + "\nreturn x")
    frame = np.ones((2, 2), np.uint64)
    pipeline = built(KernelDef("k", KernelKind.MAP, source), frame.dtype, frame.shape, numpy_compiler)
    assert pipeline.run(frame[None], np.zeros(1, NO_COLUMNS)).frames[0, 0, 0] == 1 << 60


BOUNDED = {  # expressions of a uint16 frame of 64 x 64
    "broadcast of broadcasts": "(x.ravel()[:, None] + x.ravel()[None, :])[:, :, None] * x.ravel()",
    "stack of stacks": "np.stack((np.broadcast_to(x, (9000, 64, 64)),) * 1)",
    "giant pad": "np.pad(x, 100000)",
    "giant pad, edge": "np.pad(x, 200000, 'edge')",
    "wrapping pad": "np.pad(x, 65, 'wrap')",
    "negative pad": "np.pad(x, -1)",
    "giant range": "np.arange(1 << 40)",
    "empty range": "np.arange(0)",
    "giant full": "np.full((1 << 20, 1 << 20), 1)",
    "negative shape": "np.zeros((-3,))",
    "zero shape": "np.zeros((0, 3))",
    "many dimensions": "np.ones((1,) * 3)",
    "giant bincount": "hk.bincount(x, length=1 << 31)",
    "bincount of nothing": "hk.bincount(x, length=0)",
    "giant window": "hk.median_filter(x, 999)",
    "even window": "hk.median_filter(x, 4)",
    "negative window": "hk.uniform_filter(x, -3)",
    "giant sigma": "hk.gaussian_filter(x, 1e9)",
    "sigma that is no number": "hk.gaussian_filter(x, np.nan)",
    "giant factor": "hk.bin2d(x, 1 << 20)",
    "roll by too much": "np.roll(x, 10**30)",
    "percentile beyond": "np.percentile(x, 1000)",
    "percentile that is no number": "np.percentile(x, np.nan)",
    "iir that explodes": "hk.iir(x.astype(np.float32), 1.0, 0.0, 1e30)",
    "take far away": "np.take(x, x.astype(np.int64) * (1 << 48))",
    "take before": "np.take(x, -x.astype(np.int64) - (1 << 62))",
    "float indices": "np.take(x, x * 0.5)",
    "shift by what the data say": "x << x",
    "power of powers": "(x.astype(np.float64) ** x) ** x",
    "division by the data": "x // (x - x)",
    "smallest integer": "(x.astype(np.int64) - x - (1 << 62) * 2) // -1",
    "everything NaN": "np.nanmedian(x * np.nan) + np.nanmean(x * np.nan)",
    "casts of infinities": "(x / 0.0).astype(np.int8) + (x * np.nan).astype(np.int8)",
    "rot90 of a row": "np.rot90(x[0])",
    "tuple bomb": "np.concatenate((x,) * 1000)",
}


def test_bounded(numpy_compiler: Compiler, numba_compiler: Compiler) -> None:
    """Each is refused, or has a result within the bounds, the same on both back ends; the frame stays as it was."""
    frame = np.arange(64 * 64, dtype=np.uint16).reshape(1, 64, 64)
    before = frame.copy()
    accepted: dict[str, Any] = {}
    for name, text in BOUNDED.items():
        with contextlib.suppress(KernelRejected, LimitExceeded):
            pipeline = built(expression(text), np.uint16, (64, 64), numpy_compiler)
            outcome = pipeline.run(frame, np.zeros(1, NO_COLUMNS))
            assert outcome.status.tolist() == [BlockStatus.STORED], name
            assert outcome.frames.nbytes <= limits.KERNEL_OUTPUT_BYTES_MAX
            accepted[name] = outcome.frames[0]
    assert len(accepted) > 5
    small = {name: result for name, result in accepted.items() if result.nbytes < limits.MiB}
    compiled = several([BOUNDED[name] for name in small], frame[0], numba_compiler)
    for (name, expected), got in zip(small.items(), compiled, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, equal_nan=True, err_msg=name)
    np.testing.assert_array_equal(frame, before)


# ---------------------------------------------------------------------------------------------------- parameters

PARAMETERS: dict[str, Callable[[], Any]] = {
    "NaN": lambda: np.full((4, 6), np.nan),
    "infinities": lambda: np.array([[np.inf, -np.inf] * 3] * 4, np.float32),
    "big-endian": lambda: np.arange(24, dtype=">i4").reshape(4, 6),
    "big-endian float": lambda: np.arange(24, dtype=">f8").reshape(4, 6),
    "read-only": lambda: _frozen(np.arange(24).reshape(4, 6)),
    "strided": lambda: np.arange(192).reshape(8, 24)[::2, ::4],
    "backwards": lambda: np.arange(24).reshape(4, 6)[::-1, ::-1],
    "Fortran order": lambda: np.asfortranarray(np.arange(24).reshape(4, 6)),
    "unaligned": lambda: np.frombuffer(b"\0" + np.arange(24, dtype="<i8").tobytes(), "<i8", 24, 1).reshape(4, 6),
    "broadcast": lambda: np.broadcast_to(np.int16(3), (4, 6)),
    "one value": lambda: np.array(3, np.uint8),
    "a subclass": lambda: np.ma.masked_array(np.arange(24).reshape(4, 6), mask=np.ones((4, 6), bool)),
    "a matrix of bool": lambda: np.eye(4, 6, dtype=bool),
    "the extremes": lambda: np.full((4, 6), np.iinfo(np.int64).min),
}
BAD_PARAMETERS: dict[str, Callable[[], Any]] = {
    "objects": lambda: np.array([[None] * 6] * 4, object),
    "complex": lambda: np.ones((4, 6), complex),
    "float16": lambda: np.ones((4, 6), np.float16),
    "texts": lambda: np.array([["a"] * 6] * 4),
    "times": lambda: np.zeros((4, 6), "M8[s]"),
    "records": lambda: np.zeros((4, 6), [("a", "i4")]),
    "long doubles": lambda: np.ones((4, 6), np.longdouble),
    "empty": lambda: np.ones((0, 6)),
    "of another shape": lambda: np.ones((4, 7)),
    "of too many dimensions": lambda: np.ones((1,) * 9),
}


def _frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_in_any_memory(name: str, compiler: Compiler) -> None:
    """They are copied when they are bound: what happens to the array afterwards changes nothing."""
    array = PARAMETERS[name]()
    frame = np.arange(24, dtype=np.int32).reshape(4, 6)
    expected = np.where(np.asarray(array) > 3, frame, np.asarray(array))
    pipeline = built(expression("np.where(p > 3, x, p)", "p"), frame.dtype, frame.shape, compiler, p=array)
    if isinstance(array, np.ndarray) and array.flags.writeable:
        array[...] = 1
    result = pipeline.run(frame[None], np.zeros(1, NO_COLUMNS)).frames[0]
    assert result.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_parameters_that_are_refused(name: str, compiler: Compiler) -> None:
    with pytest.raises(ParameterMismatch) as caught:
        built(expression("x + p", "p"), np.int32, (4, 6), compiler, p=BAD_PARAMETERS[name]())
    assert caught.value.details["parameter"] == "p"


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u4", "i8", "u8"])
def test_index_maps_out_of_range(dtype: str, compiler: Compiler) -> None:
    """Computed ones are clipped in `take`, dropped in `bincount`, whatever the numbers: nothing outside is touched."""
    bounds = np.iinfo(dtype)
    numbers = [0, 1, 5, 6, 23, 24, bounds.max, bounds.min, bounds.max - 1, 100]
    index = np.array([n for n in numbers if bounds.min <= n <= bounds.max] * 3, dtype)
    frame = np.arange(24, dtype=np.uint16).reshape(4, 6)
    signed = np.array([min(int(n), (1 << 63) - 1) if n < 1 << 63 else int(n) - (1 << 64) for n in index.tolist()])
    taken = built(expression("np.take(x, p ^ 0)", "p"), frame.dtype, frame.shape, compiler, p=index)
    result = taken.run(frame[None], np.zeros(1, NO_COLUMNS)).frames[0]
    np.testing.assert_array_equal(result, frame.ravel()[np.clip(signed, 0, 23)])
    counted = built(expression("hk.bincount(p, length=24)", "p"), frame.dtype, frame.shape, compiler, p=index)
    result = counted.run(frame[None], np.zeros(1, NO_COLUMNS)).frames[0]
    np.testing.assert_array_equal(result, np.bincount(signed[(signed >= 0) & (signed < 24)], minlength=24))


@pytest.mark.parametrize("wrong", [24, -1, 1 << 40])
def test_index_maps_of_parameters_are_checked_when_they_are_bound(wrong: int, numpy_compiler: Compiler) -> None:
    index = np.array([0, 23, wrong])
    with pytest.raises(ParameterMismatch, match=r"the index map goes from .*, the axis from 0 to 23 \(parameter p\)"):
        built(expression("np.take(x, p.reshape(3, 1))", "p"), np.uint16, (4, 6), numpy_compiler, p=index)
    built(expression("np.take(x, p)", "p"), np.uint16, (4, 6), numpy_compiler, p=index[:2])


@pytest.mark.parametrize("index", [np.zeros((3,), np.float32), np.zeros((3,), bool)])
def test_index_maps_that_are_no_integers(index: Any, numpy_compiler: Compiler) -> None:
    with pytest.raises(ParameterMismatch, match="indices are integers"):
        built(expression("np.take(x, p)", "p"), np.uint16, (4, 6), numpy_compiler, p=index)


@pytest.mark.parametrize(
    "value",
    [ScalarParam(10**30), ScalarParam(-1), ScalarParam(70000), ScalarParam(float("inf")), ScalarParam(1, "<c8")],
)
def test_numbers_that_do_not_fit(value: ScalarParam, numpy_compiler: Compiler) -> None:
    with pytest.raises(ParameterMismatch):
        built(expression("x[: p] | p", "p"), np.uint16, (4, 6), numpy_compiler, p=value)


@kernel
def plus(frame, more):  # type: ignore[no-untyped-def]
    return frame + more


@pytest.mark.parametrize("value", [None, "text", b"bytes", [1, 2], {"a": 1}, 1j, object(), np.array(["a"]), int, ...])
def test_values_that_are_no_parameter(value: Any) -> None:
    with pytest.raises(ParameterMismatch, match="'more'"):
        plus.bind(more=value)


def test_parameters_are_taken_when_they_are_bound() -> None:
    """Also a giant one costs only itself, and an array keeps what it had."""
    array = np.zeros(4)
    bound = plus.bind(more=array)
    param = bound.params["more"]
    assert isinstance(param, ArrayParam)
    with pytest.raises(ParameterMismatch):
        plus.bind(more=1, most=2)
    with pytest.raises(ParameterMismatch):
        plus.bind()
