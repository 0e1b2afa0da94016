"""Random kernels over the whole function table, and frames full of extreme values.

A program is made line by line: a candidate line calls a function of the table on earlier values, and stays if the
checker and the specialiser accept it. So what is generated is in the language by construction, and everything that is
not must be refused with a `HissError`, never with another exception.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiss import limits
from hiss.errors import HissError
from hiss.kernels.checker import check
from hiss.kernels.dtypes import SUPPORTED
from hiss.kernels.functions import FUNCTIONS, TableFunction
from hiss.kernels.ir import Program, in_order
from hiss.kernels.lowering_joins import EDGES
from hiss.kernels.passes import optimise
from hiss.kernels.primitives import PRIMITIVES
from hiss.kernels.specialiser import FrameType, specialise
from hiss.model import ColumnParam, KernelDef, KernelKind, ScalarParam

SHAPES = ((), (1,), (5,), (130,), (3, 4), (7, 1), (2, 3, 5), (4, 70), (65, 3), (1, 64), (3, 2, 4, 2), (2, 200))
COLUMNS = np.dtype([("angle", "<f8"), ("stage", "u1"), ("shot", "<i4")])
_VALUES = frozenset({"x", "x1", "x2", "a", "m", "array", "y", "condition", "fill_value", "indices", "weights", "mask"})
_AXES = ("None", "None", "0", "1", "-1", "2", "(0, 1)", "(0, 2)", "(-1,)", "(1, 0)")
_STATIC = {  # texts for parameters that are known before the kernel runs, by their names in the table
    **dict.fromkeys(("axis", "axes", "axis1", "axis2"), _AXES),
    "shape": ("frame.shape", "-1", "(-1,)", "(2, -1)", "(-1, 2)", "(5, -1)", "(2, 3)", "(-1, 2, 5)"),
    "keepdims": ("True", "False"),
    "ddof": ("0", "1"),
    "pad_width": ("1", "(0, 2)", "((1, 0), (2, 1))", "0"),
    "constant_values": ("0", "7", "-1.5"),
    "k": ("1", "2", "-1", "0"),
    "shift": ("1", "-2", "0", "1000"),
    **dict.fromkeys(("source", "destination"), ("0", "1", "-1")),
    "start": ("5", "1", "0"),
    "stop": ("None", "9", "-7"),
    "step": ("1", "2", "-3"),
    "nan": ("0", "2.5"),
    **dict.fromkeys(("posinf", "neginf"), ("None", "1", "-1.5")),
    "decimals": ("0",),
    "length": ("1", "5", "300"),
    "factor": ("1", "2", "5"),
    "size": ("1", "3", "5", "(3, 1)", "(1, 7)"),
    "mode": ("'reflect'", "'mirror'", "'nearest'", "'wrap'"),
    "sigma": ("0.5", "1", "2.3"),
    "truncate": ("2.0", "4"),
    "q": ("0", "50", "33.3", "100"),
    "connectivity": ("4", "8"),
    "least": ("1", "2"),
    "first": ("0", "3"),
    "count": ("1", "5"),
    **dict.fromkeys(("b0", "b1", "a1"), ("0", "1", "0.5", "-0.25")),
}
_AMPLIFIERS = {"divide", "floor_divide", "remainder", "power", "arctan2"}  # of the sign of zero


@dataclass(frozen=True)
class Generated:
    """A kernel with several results, and what it is bound to."""

    source: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    params: dict[str, Any]
    typed: Program  # as it was specialised
    program: Program  # as it is compiled

    def exact(self, output: int) -> bool:
        """Whether back ends must agree to the bit: no transcendental function, and no trace of the sign of zero."""
        nodes = list(in_order([self.program.outputs[output]]))
        names = {node.op for node in nodes}
        loose = {name for name in names if name in PRIMITIVES and not PRIMITIVES[name].exact}
        chosen = any(n.op in ("minimum", "maximum", "min", "max") and n.dtype.kind == "f" for n in nodes)
        return not loose and not (chosen and names & _AMPLIFIERS)


class Maker:
    """Makes programs from a source of randomness."""

    def __init__(self, rng: random.Random, functions: dict[str, TableFunction] = FUNCTIONS) -> None:
        self.rng = rng
        self.functions = [row for row in functions.values() if row.forms != "o" or row.name == "getitem"]

    def program(self, lines: int = 14) -> Generated:
        rng = self.rng
        dtype = rng.choice(list(SUPPORTED.values()))
        shape = rng.choice(SHAPES)
        params = self.params(shape)
        frame = FrameType(dtype, shape, COLUMNS)
        names, body = ["frame", *params], list[str]()
        for _ in range(lines * 4):
            if len(body) == lines:
                break
            line = f"v{len(body)} = {self.call(names)}"
            if self.accepted([*body, line], params, frame) is not None:
                body.append(line)
                names.append(f"v{len(body) - 1}")
        results = [f"v{k}" for k in range(len(body)) if rng.random() < 0.5] or ["frame"]
        source = source_of(params, body, results)
        return self.generated(source, params, frame)

    def covering(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[Generated, set[str]]:
        """A program with a line for each function that can be had for such frames, and which those are."""
        params = self.params(shape)
        frame = FrameType(dtype, shape, COLUMNS)
        body: list[str] = []
        used: set[str] = set()
        for row in self.functions:
            maker = Maker(self.rng, {row.name: row})
            for _ in range(200):
                line = f"v{len(body)} = {maker.call(['frame', 'frame', 'angle', 'dark'])}"
                if (
                    "frame" in line
                    and self.accepted([line.replace(f"v{len(body)} ", "v0 ")], params, frame) is not None
                ):
                    body.append(line)
                    used.add(row.name)
                    break
        results = [f"v{k}" for k, line in enumerate(body) if not line.endswith((".shape", ".dtype"))]
        source = source_of(params, body, results[: limits.KERNEL_PARAMETERS_MAX])
        return self.generated(source, params, frame), used

    def generated(self, source: str, params: dict[str, Any], frame: FrameType) -> Generated:
        typed = specialised(source, params, frame)
        return Generated(source, frame.dtype, frame.shape, params, typed, optimise(typed))

    def params(self, shape: tuple[int, ...]) -> dict[str, Any]:
        rng = self.rng
        some = rng.choice(list(SUPPORTED.values()))
        part = rng.choice([shape, shape[-1:], (1, *shape[1:]) if shape else (), ()])
        strong = rng.choice(list(SUPPORTED.values()))
        return {
            "dark": values(rng, some, part),
            "weak": ScalarParam(rng.choice([0, 1, 2, 3, 100, -1, 0.5, 3.75, True])),
            "strong": ScalarParam(values(rng, strong, ()).item(), strong.str),
            "angle": ColumnParam(rng.choice(["angle", "stage", "shot"])),
        }

    def accepted(self, body: list[str], params: dict[str, Any], frame: FrameType) -> Program | None:
        try:
            return specialised(source_of(params, body, [body[-1].split(" = ")[0]]), params, frame)
        except HissError:
            return None

    def call(self, names: list[str]) -> str:
        rng = self.rng
        row = rng.choice(self.functions)
        if row.name == "getitem":
            return f"{rng.choice(names)}[{self.key()}]"
        args = [self.argument(row, p.names[0], names) for p in row.parameters]
        if row.forms == "a":
            return f"{args[0]}.{row.name}"
        given = [
            (f"{p.names[0]}={arg}" if p.keyword_only else arg)
            for p, arg in zip(row.parameters, args, strict=True)
            if p.required or not p.keyword_only or rng.random() < 0.4  # keyword-only ones may be required
        ]
        if "n" in row.forms:
            return f"np.{row.name}({', '.join(given)})"
        if "h" in row.forms:
            return f"hk.{row.name}({', '.join(given)})"
        return f"{given[0]}.{row.name}({', '.join(given[1:])})"

    def argument(self, row: TableFunction, name: str, names: list[str]) -> str:
        rng = self.rng
        if name in _VALUES and row.name == "power" and name == "x2" and rng.random() < 0.7:
            return rng.choice(["0", "1", "2", "3", "4", "7", "0.5", "-1", "2.5"])
        if name == "index":
            return f"{rng.choice(names)}.astype(np.{rng.choice(['int64', 'uint8', 'int16'])})"
        if row.name == "correlate" and name == "weights":
            return rng.choice([f"{rng.choice(names)}[:1, :3]", "frame[:3, :5]", "frame[:7]", "np.full((3, 3), 0.5)"])
        if name in _VALUES or name in ("a_min", "a_max"):
            literals = ["0", "1", "-1", "2", "7", "255", "70000", "0.5", "-2.25", "1e30", "np.inf", "np.nan", "True"]
            optional = ["None"] if name.startswith("a_") else []
            return rng.choice([*names * 3, *rng.sample(literals, 2), *optional])
        if name == "arrays":
            return f"({', '.join(rng.choices(names, k=rng.randint(1, 3)))},)"
        if name == "mode" and row.name == "pad":
            return repr(rng.choice(EDGES))
        if name == "dtype":
            some = [f"np.{dtype}" for dtype in SUPPORTED]
            return rng.choice(some if row.name == "astype" else [*some, *["None"] * 6])
        return rng.choice(_STATIC[name])

    def key(self) -> str:
        parts = ["0", "-1", ":", "1:", ":-1", "::2", "1::2", "::-1", "2:1:-1", "None", "...", "3:0:-2", "-2:"]
        return ", ".join(self.rng.choice(parts) for _ in range(self.rng.randint(1, 3)))


def source_of(params: dict[str, Any], body: list[str], results: list[str]) -> str:
    """A kernel with these lines and results."""
    arguments = ", ".join(["frame", *params])
    lines = [*body, f"return {', '.join(results)},"]
    init = f"    def init({arguments}):\n" + "".join(f"        {line}\n" for line in lines)
    rest = "    def step(state, frame):\n        return state\n    def finish(state):\n        return state\n"
    return "class k:\n" + init + rest


def specialised(source: str, params: dict[str, Any], frame: FrameType) -> Program:
    """Its typed program."""
    checked = check(KernelDef("k", KernelKind.REDUCE, source))
    return specialise(checked, frame, params, "init").program


def values(rng: random.Random, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """An array with many extreme values."""
    generator = np.random.default_rng(rng.getrandbits(64))
    if dtype.kind == "b":
        return np.asarray(generator.integers(0, 2, shape), dtype)
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        common = generator.integers(bounds.min, bounds.max, shape, dtype, endpoint=True)
        small = generator.integers(0 if dtype.kind == "u" else -4, 9, shape).astype(dtype)
        extremes = np.array([0, 1, bounds.min, bounds.max, bounds.max - 1], dtype)
    else:
        bounds_f = np.finfo(dtype)
        common = (generator.standard_normal(shape) * 10.0 ** generator.integers(-4, 9, shape)).astype(dtype)
        small = generator.integers(-4, 9, shape).astype(dtype) / dtype.type(2)
        tiny = bounds_f.smallest_subnormal
        extremes = np.array(
            [0.0, -0.0, np.nan, np.inf, -np.inf, bounds_f.max, bounds_f.tiny, tiny, 2.0**31, 2.0**63], dtype
        )
    which = generator.integers(0, 10, shape)
    chosen = np.where(which < 5, small, np.where(which < 9, common, generator.choice(extremes, shape)))
    return np.asarray(chosen, dtype)


def columns(rng: random.Random, count: int) -> np.ndarray[Any, Any]:
    """Records of `COLUMNS`."""
    found = np.zeros(count, COLUMNS)
    for name in COLUMNS.names or ():
        found[name] = values(rng, COLUMNS[name], (count,))
    return found


def same(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    """Equal to the bit, but for the payload of a NaN and the sign of zero."""
    return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
