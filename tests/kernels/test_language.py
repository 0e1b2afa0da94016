"""What is in the language and what is not: refused sources, places of errors, identity."""

from __future__ import annotations

import contextlib
import runpy
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiss import limits
from hiss.errors import HissError, InvalidInput, KernelRejected, LimitExceeded
from hiss.kernels import Compiler, check
from hiss.model import KernelDef, KernelKind, ScalarParam
from kernels.building import built, expression, map_of

REFUSED = {
    "import": "import os\ndef k(x):\n    return x\n",
    "second statement": "def k(x):\n    return x\nprint(1)\n",
    "nothing": "",
    "decorator": "@print\ndef k(x):\n    return x\n",
    "annotation": "def k(x: print(1)):\n    return x\n",
    "return annotation": "def k(x) -> print(1):\n    return x\n",
    "computed default": "def k(x, y=print(1)):\n    return x\n",
    "text default": "def k(x, y='a'):\n    return x\n",
    "keyword only": "def k(x, *, y=1):\n    return x\n",
    "star": "def k(x, *y):\n    return x\n",
    "no frame": "def k():\n    return 1\n",
    "parameter np": "def k(x, np):\n    return x\n",
    "rebinding np": "def k(x):\n    np = x\n    return x\n",
    "unpacking into np": "def k(x):\n    np, y = x.shape\n    return x\n",
    "dunder": "def k(x):\n    __y__ = x\n    return x\n",
    "async": "async def k(x):\n    return x\n",
    "lambda": "k = lambda x: x\n",
    "class": "class k:\n    pass\n",
    "yield": "def k(x):\n    yield x\n",
    "global": "def k(x):\n    global y\n    return x\n",
    "assert": "def k(x):\n    assert x\n    return x\n",
    "del": "def k(x):\n    del x\n    return 1\n",
    "with": "def k(x):\n    with x:\n        return x\n",
    "match": "def k(x):\n    match x:\n        case 1:\n            return x\n",
    "no return": "def k(x):\n    y = x\n",
    "bare return": "def k(x):\n    return\n",
    "code after return": "def k(x):\n    return x\n    y = x\n",
    "attribute assignment": "def k(x):\n    x.shape = 1\n    return x\n",
    "item assignment": "def k(x):\n    x[0] = 1\n    return x\n",
    "starred assignment": "def k(x):\n    a, *b = x.shape\n    return x\n",
    "too many to unpack": "def k(x):\n    a, b = 1, 2, 3\n    return x\n",
    "bytes literal": "def k(x):\n    return b'a'\n",
    "text": "def k(x):\n    return x.astype('U9')\n",
    "f-string": "def k(x):\n    return f'{x}'\n",
    "complex": "def k(x):\n    return x * 1j\n",
    "matmul": "def k(x):\n    return x @ x\n",
    "is": "def k(x):\n    return x is None\n",
    "in": "def k(x):\n    return 1 in x\n",
    "set": "def k(x):\n    return {1}\n",
    "dict": "def k(x):\n    return {1: 2}\n",
    "await": "def k(x):\n    return await x\n",
    "np itself": "def k(x):\n    return np\n",
    "np submodule": "def k(x):\n    return np.linalg.norm(x)\n",
    "np.load": "def k(x):\n    return np.load('/etc/passwd')\n",
    "hk": "def k(x):\n    return hk.median(x)\n",
    "function not called": "def k(x):\n    return np.sum\n",
    "method not called": "def k(x):\n    return x.sum\n",
    "attribute called": "def k(x):\n    return x.ndim()\n",
    "call of a call": "def k(x):\n    return np.sum(x)(x)\n",
    "ufunc method": "def k(x):\n    return np.add.reduce(x)\n",
    "out argument": "def k(x):\n    return np.add(x, x, out=x)\n",
    "double star": "def k(x):\n    return np.sum(x, **x)\n",
    "argument given twice": "def k(x):\n    return np.clip(x, 1, a_min=2)\n",
    "too many arguments": "def k(x):\n    return np.sqrt(x, x)\n",
    "missing argument": "def k(x):\n    return np.where(x)\n",
    "power bomb": "def k(x):\n    return x + 9 ** 9 ** 9\n",
    "shift bomb": "def k(x):\n    return x + (1 << 10 ** 9)\n",
    "product bomb": "def k(x):\n    return x + 10 ** 30 * 10 ** 30\n",
    "division by zero": "def k(x):\n    return x + 1 // 0\n",
    "infinite literal": "def k(x):\n    return x + 1e999\n",
    "huge integer": "def k(x):\n    return x + " + "9" * 300 + "\n",
    "unclosed": "def k(x):\n    return (x\n",
    "bad indent": "def k(x):\n  y = x\n    return y\n",
    "tabs and spaces": "def k(x):\n    y = x\n\treturn y\n",
    "form feed": "def k(x):\n    return x\n\x0cimport os\n",
    "NUL": "def k(x):\n    return x\n\x00import os\n",
    "bidi": "def k(x):\n    return x  # \u202e\n",
    "zero width": "def k(x):\n    return x\u200b\n",
    "line separator": "def k(x):\n    return x\u2028import os\n",
    "lone surrogate": "def k(x):\n    return x  # \ud800\n",
    "folded name": "def k(x):\n    return \uff4e\uff50.sqrt(x)\n",
    "folded attribute": "def k(x):\n    return np.\uff53qrt(x)\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_place(name: str) -> None:
    with pytest.raises(KernelRejected) as caught:
        check(KernelDef("k", KernelKind.MAP, REFUSED[name]))
    assert int(caught.value.details["line"]) >= 1
    assert int(caught.value.details["column"]) >= 1
    assert "kernel 'k'" in str(caught.value)


BOMBS = {
    "parentheses": "def k(x):\n    return " + "(" * 500 + "x" + ")" * 500,
    "lists": "def k(x):\n    return " + "[" * 5000 + "]" * 5000,
    "not": "def k(x):\n    return " + "not " * 15000 + "x",
    "minus": "def k(x):\n    return " + "-" * 60000 + "x",
    "power": "def k(x):\n    return x" + "**x" * 20000,
    "subscripts": "def k(x):\n    return x" + "[0]" * 20000,
    "attributes": "def k(x):\n    return x" + ".T" * 30000,
    "sum": "def k(x):\n    return x" + "+x" * 30000,
    "conditions": "def k(x):\n    return " + "x if x else " * 5000 + "x",
    "and": "def k(x):\n    return x" + " and x" * 10000,
    "comparison": "def k(x):\n    return x" + " < x" * 10000,
    "assignments": "def k(x):\n" + "    x = x + 1\n" * 4000 + "    return x",
    "parameters": "def k(x, " + ", ".join(f"a{i}" for i in range(3000)) + "):\n    return x",
    "tuple": "def k(x):\n    return (" + "x, " * 20000 + ")",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_meet_a_bound(name: str) -> None:
    with pytest.raises(LimitExceeded) as caught:
        check(KernelDef("k", KernelKind.MAP, BOMBS[name]))
    assert caught.value.details["limit"].startswith("KERNEL_")


def test_large_source_is_refused_before_it_is_read() -> None:
    with pytest.raises(LimitExceeded, match="65536"):
        check(KernelDef("k", KernelKind.MAP, "def k(x):\n    return x #" + "A" * 20_000_000))


def test_bytes_are_no_source() -> None:
    with pytest.raises(InvalidInput):
        check(KernelDef("k", KernelKind.MAP, b"def k(x):\n    return x\n"))  # type: ignore[arg-type]


def test_shared_hostile_kernels(shared_hostile: Path, numpy_compiler: Compiler) -> None:
    cases = runpy.run_path(str(shared_hostile))
    for name, must, source, reason in cases["HOSTILE"]:
        for shape in ((64, 64), (2048, 2048)):
            accepted = False
            with contextlib.suppress(KernelRejected, LimitExceeded):
                definition = KernelDef("k", KernelKind.MAP, source)
                check(definition)
                accepted = True
                built(definition, np.uint16, shape, numpy_compiler)
            assert must == "bound" or not accepted, f"{name} was accepted: {reason}"
    for name, source in cases["BENIGN"]:
        checked = check(KernelDef("k", KernelKind.MAP, source))
        params = {parameter: np.ones((64, 64), np.uint16) for parameter in checked.parameters}
        assert built(checked.definition, np.uint16, (64, 64), numpy_compiler, **params) is not None, name


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with contextlib.suppress(HissError):
        check(KernelDef("k", KernelKind.MAP, text))


_WORDS = st.sampled_from(
    [
        "x",
        "np",
        ".",
        "(",
        ")",
        "[",
        "]",
        ",",
        ":",
        "sum",
        "1",
        "0.5",
        "+",
        "-",
        "**",
        "if",
        "else",
        "lambda",
        "=",
        "not",
    ]
)


@given(st.lists(_WORDS, max_size=25))
def test_no_tokens_do_more_than_be_refused(words: list[str]) -> None:
    with contextlib.suppress(HissError):
        check(KernelDef("k", KernelKind.MAP, "def k(x):\n    return " + " ".join(words) + "\n"))


@pytest.mark.parametrize(
    ("source", "line", "column", "message"),
    [
        ("def k(x):\n    y = x + 1\n    return np.summ(y)\n", 3, 12, "did you mean `np.sum`"),
        ("def k(frame):\n    return frme\n", 2, 12, "did you mean `frame`"),
        ("def k(x):\n    return x.means()\n", 2, 12, "did you mean `.mean`"),
        ("def k(x):\n    return x.astype('flaot32')\n", 2, 21, "did you mean 'float32'"),
        ("def k(x):\n    return sum(x)\n", 2, 12, "use `np.sum`"),
        ("def k(x):\n    return float(x)\n", 2, 12, "it is .astype(np.float64)"),
        ("def k(x):\n    for i in x:\n        pass\n", 2, 5, "whole arrays"),
        ("def k(x):\n    x += 1\n    return x\n", 2, 5, "write `x = x + 1`"),
    ],
)
def test_errors_point_and_advise(source: str, line: int, column: int, message: str) -> None:
    with pytest.raises(KernelRejected) as caught:
        check(KernelDef("k", KernelKind.MAP, source))
    error = caught.value
    assert (error.details["line"], error.details["column"]) == (str(line), str(column))
    assert error.details["source_line"] == source.split("\n")[line - 1]
    assert message in str(error)
    shown, caret = str(error).split("\n")[-2:]
    assert shown.strip() == source.split("\n")[line - 1].strip()
    assert caret.index("^") == 4 + column - 1


@pytest.mark.parametrize(
    ("text", "dtype", "shape", "message"),
    [
        ("x.sum(axis=2)", "u2", (4, 5), "axis 2 of an array with 2 dimensions"),
        ("x[7]", "u2", (4, 5), "index 7 of axis 0, whose size is 4"),
        ("x[0, 0, 0]", "u2", (4, 5), "3 indices"),
        ("x[5:3]", "u2", (9,), "is empty"),
        ("x.reshape(3, 3)", "u2", (4, 5), "cannot take the shape (3, 3)"),
        ("x & 1.5", "u2", (4,), "bitwise_and of floats"),
        ("x - x", "?", (4,), "bools are not subtracted"),
        ("-x", "?", (4,), "negative of bools"),
        ("x ** x", "u2", (4,), "exponent of an integer"),
        ("x ** -1", "u2", (4,), "exponent of an integer"),
        ("x + 70000", "u2", (4,), "70000 does not fit uint16"),
        ("x + x[:-1]", "u2", (4,), "do not broadcast"),
        ("1 if x[0] > 2 else 0", "u2", (4,), "use np.where"),
        ("x > 1 and x < 5", "u2", (4,), "write (a) & (b)"),
        ("not x", "u2", (4,), "write ~a"),
        ("1 < x < 5", "u2", (4,), "a chain such as 5 < x < 9"),
        ("x[x > 1]", "u2", (4,), "np.where(mask, x, 0)"),
        ("np.zeros(x)", "u2", (4,), "known before the kernel runs"),
        ("x.shape", "u2", (4,), "one array or number"),
        ("np.var(x, ddof=4)", "u2", (4,), "ddof"),
        ("np.zeros((2, 2, 2, 2, 2, 2, 2, 2, 2))", "u2", (4,), "RANK_MAX"),
    ],
)
def test_what_makes_no_sense_for_the_frames(
    text: str, dtype: str, shape: tuple[int, ...], message: str, numpy_compiler: Compiler
) -> None:
    with pytest.raises((KernelRejected, LimitExceeded)) as caught:
        built(expression(text), dtype, shape, numpy_compiler)
    assert message in str(caught.value)
    assert caught.value.details["line"] == "2"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("x.ravel()[:, None] * x.ravel()[None, :]", "KERNEL_TEMPORARY_BYTES_MAX"),
        ("np.broadcast_to(x, (100000, 1024, 1024)).sum()", "KERNEL_TEMPORARY_BYTES_MAX"),
        ("np.full((300, 1024, 1024), 1, np.uint8)", "KERNEL_OUTPUT_BYTES_MAX"),
        ("np.tan(np.tan(x[0, 0] + np.zeros((90, 1024, 1024)))).sum()", "KERNEL_OPS_PER_BYTE_MAX"),
    ],
)
def test_bounds_on_memory_and_work(text: str, limit: str, numpy_compiler: Compiler) -> None:
    frame = (8, 8) if "OPS" in limit else (1024, 1024)
    with pytest.raises(LimitExceeded) as caught:
        built(expression(text), "u1", frame, numpy_compiler)
    details = caught.value.details
    assert details["limit"] == limit
    assert float(details["found"]) > float(details["allowed"]) == getattr(limits, limit)


def test_unsigned_subtraction_is_pointed_out(numpy_compiler: Compiler) -> None:
    dark = np.ones((4,), np.uint16)
    definition = expression("x - dark", "dark")
    (warning,) = built(definition, "u2", (4,), numpy_compiler, dark=dark).warnings
    assert "line 2, column 12: " in warning
    assert "wraps" in warning
    assert warning.split("\n")[1:] == ["        return x - dark", "               ^"]
    assert built(definition, "i4", (4,), numpy_compiler, dark=dark).warnings == ()
    assert built(expression("np.ptp(x) + np.var(x)"), "u2", (4,), numpy_compiler).warnings == ()
    assert built(expression("np.diff(x)"), "u2", (4,), numpy_compiler).warnings


def test_unused_parameter_is_pointed_out() -> None:
    (warning,) = check(expression("x + 1", "gain")).warnings
    assert "'gain'" in warning


# ---------------------------------------------------------------------------------------------------- identity

BASE = """
    def k(frame, dark, gain=2):
        t = frame - dark
        return np.clip(t * gain, 0, None)
    """
SAME = {
    "other locals": BASE.replace("t = ", "difference = ").replace("t * gain", "difference * gain"),
    "other frame and function": BASE.replace("frame", "image").replace("def k", "def correct"),
    "comments": BASE.replace("t = frame - dark", "# µ-corrected\n        t = (frame  -  dark)  # why"),
    "docstring": BASE.replace("        t = ", '        """Étalonné."""\n        t = '),
    "by keyword": BASE.replace("0, None)", "a_max=None, a_min=0)"),
    "method": BASE.replace("np.clip(t * gain, 0, None)", "(t * gain).clip(0)"),
    "unused local": BASE.replace("        return", "        u = frame + 1\n        return"),
    "folded literal": BASE.replace("0, None", "5 - 5, None"),
}
OTHER = {
    "parameter's name": BASE.replace("gain", "scale"),
    "default": BASE.replace("gain=2", "gain=3"),
    "default's class": BASE.replace("gain=2", "gain=2.0"),
    "literal": BASE.replace("0, None", "1, None"),
    "literal's class": BASE.replace("0, None", "0.0, None"),
    "sign of zero": BASE.replace("0, None", "-0.0, None"),
    "order of operands": BASE.replace("frame - dark", "dark - frame"),
    "function": BASE.replace("np.clip(t * gain, 0, None)", "np.minimum(t * gain, 0)"),
}
_BASE_HASH = check(map_of(BASE)).hash


@pytest.mark.parametrize("name", SAME)
def test_identity_does_not_change_with(name: str) -> None:
    assert check(map_of(SAME[name])).hash == _BASE_HASH


@pytest.mark.parametrize("name", OTHER)
def test_identity_changes_with(name: str) -> None:
    assert check(map_of(OTHER[name])).hash != _BASE_HASH


def test_identity_knows_the_kind() -> None:
    source = textwrap.dedent("def k(x):\n    return np.any(x)\n")
    hashes = {check(KernelDef("k", kind, source)).hash for kind in (KernelKind.MAP, KernelKind.FILTER)}
    assert len(hashes) == 2


def test_identity_is_pinned() -> None:
    """Provenance refers to this; a change of it needs a new `primitives.VERSION`."""
    definition = map_of("def k(x, dark):\n    return np.sqrt(x.astype(np.float32) - dark)[..., ::2]\n")
    assert check(definition).hash == "3b620c2a7b5cdf6b79c44215e92d32c92d0e6412c8bca565f96ea66e0bfb1c8d"


def test_python_never_runs_the_source(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    for source in (
        f"def k(x, y=open({str(trace)!r}, 'w')):\n    return x\n",
        f"@open({str(trace)!r}, 'w')\ndef k(x):\n    return x\n",
        f"class k:\n    open({str(trace)!r}, 'w')\n",
    ):
        for kind in KernelKind:
            with pytest.raises(KernelRejected):
                check(KernelDef("k", kind, source))
    assert not trace.exists()


def test_static_python(numpy_compiler: Compiler) -> None:
    """Sizes, conditions on them, tuples and unpacking are Python's."""
    source = """
    def k(x, bins=2):
        h, w = x.shape
        last = x.ndim - 1
        if_wide = w // bins if w % bins == 0 and not h > 10 else w
        part = x[: h // 2, -if_wide:]
        return part.reshape((h // 2, if_wide, bins - 2)).sum(axis=last + 1) if len(x.shape) == 2 else x
    """
    frame = np.arange(24, dtype=np.int32).reshape(4, 6)
    pipeline = built(map_of(source), frame.dtype, frame.shape, numpy_compiler, bins=ScalarParam(3))
    result = pipeline.run(frame[None], np.zeros(1, np.dtype([]))).frames[0]
    namespace: dict[str, Any] = {"np": np}
    exec(textwrap.dedent(source), namespace)
    np.testing.assert_array_equal(result, namespace["k"](frame, bins=3))
