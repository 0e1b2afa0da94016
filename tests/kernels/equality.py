"""Whether a compiled back end gives what the interpreter gives, for many programs at once; and the least that does not.

Compiling costs a fraction of a second for each function, however short, so programs come in units: independent ones on
frames of one type, compiled as one function with all their results. A unit that fails is cut down, line by line, to
what still fails: that text is what a regression test holds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from hiss.kernels import Compiler
from hiss.kernels.backend import Executable, NumpyBackend
from hiss.kernels.passes import optimise
from hiss.kernels.specialiser import FrameType
from hiss.model import KernelDef, KernelKind
from kernels.building import specialised_step
from kernels.programs import COLUMNS, Generated, Maker, columns, same, source_of, values

Fails = Callable[[Generated], str]
COUNT, ROWS = 5, np.array([0, 1, 3, 4])
CUTS = (ROWS[:1], ROWS[1:])


def unit(rng: random.Random, programs: int, lines: int = 3) -> Generated:
    """Independent programs of at most `lines` lines each, as one; each has its last line as a result at least."""
    maker = Maker(rng)
    first = maker.program(rng.randint(1, lines))
    frame, params = FrameType(first.dtype, first.shape, COLUMNS), first.params
    body: list[str] = []
    results: list[str] = []
    for _ in range(programs):
        names, own = ["frame", *params], list[str]()
        for _ in range(rng.randint(1, lines)):
            name = f"v{len(body) + len(own)}"
            for _ in range(20):
                line = f"{name} = {maker.call(names)}"
                if maker.accepted([*own, line], params, frame) is not None:
                    own.append(line)
                    names = [*names, name]
                    break
        body += own
        results += names[-1:] if own else []
    return maker.generated(source_of(params, body, results), params, frame)


def disagreement(made: Generated, compiler: Compiler, seed: int) -> str:
    """What is wrong with a unit on this back end; empty where all is well."""
    try:
        (executable,) = compiler.compile([made.program])
    except Exception as error:  # a bug of the compiler, to be cut down like a wrong result
        return f"the compiler fails: {error!r}"
    if executable.backend != compiler.backend.name:
        return f"it runs in {executable.backend}"
    frames, taken = _data(made, seed)
    (reference,) = NumpyBackend().compile([made.program])
    expected = _results(reference, made, frames, taken, (ROWS,))
    got = _results(executable, made, frames, taken, (ROWS,))
    cut = _results(executable, made, frames, taken, CUTS)
    for place in range(len(expected)):
        if not same(got[place], cut[place]):
            return f"result {place} depends on how the blocks were cut"
        if made.exact(place) and not same(expected[place], got[place]):
            return f"result {place}: {_difference(expected[place], got[place])}"
    return ""


def _data(made: Generated, seed: int) -> tuple[Any, list[Any]]:
    rng = random.Random(seed)
    frames, records = values(rng, made.dtype, (COUNT, *made.shape)), columns(rng, COUNT)
    return frames, [np.ascontiguousarray(records[name], dtype) for name, dtype in made.program.columns]


def _results(run: Executable, made: Generated, frames: Any, taken: list[Any], parts: Any) -> list[Any]:
    outs = [np.zeros((COUNT, *node.shape), node.dtype) for node in made.program.outputs]
    for rows in parts:
        run.run(frames, taken, rows, outs)
    return outs


def _difference(expected: Any, got: Any) -> str:
    other = (
        expected != got if expected.dtype.kind != "f" else ~((expected == got) | (np.isnan(expected) & np.isnan(got)))
    )
    where = tuple(int(axis[0]) for axis in np.nonzero(other))
    return f"at {where} the interpreter has {expected[where]!r}, it has {got[where]!r}"


def shrunk(made: Generated, fails: Fails) -> Generated:
    """The least of a failing unit that still fails: results first, then lines."""
    body, results = _lines(made)
    results = _fewer(results, lambda some: _again(made, body, some), fails)
    kept = [line for line in body if _needed(line, body, results)]
    kept = _fewer(kept, lambda some: _again(made, some, results), fails)
    smaller = _again(made, kept, results)
    return smaller if smaller is not None and fails(smaller) else made


def _fewer(parts: list[str], build: Callable[[list[str]], Generated | None], fails: Fails) -> list[str]:
    place = 0
    while place < len(parts):
        fewer = parts[:place] + parts[place + 1 :]
        smaller = build(fewer) if fewer else None
        if smaller is not None and fails(smaller):
            parts = fewer
        else:
            place += 1
    return parts


def _lines(made: Generated) -> tuple[list[str], list[str]]:
    lines = [line.strip() for line in made.source.split("def step")[0].split("\n")[2:]]
    *body, last = [line for line in lines if line]
    return body, [name.strip() for name in last.removeprefix("return ").split(",") if name.strip()]


def _needed(line: str, body: list[str], results: list[str]) -> bool:
    wanted = set(results)
    for other in reversed(body):
        name, _, text = other.partition(" = ")
        if name in wanted:
            wanted |= {part for part in _words(text) if part.startswith("v")}
    return line.partition(" = ")[0] in wanted


def _words(text: str) -> list[str]:
    return "".join(character if character.isalnum() or character == "_" else " " for character in text).split()


def _again(made: Generated, body: list[str], results: list[str]) -> Generated | None:
    from hiss.errors import HissError

    frame = FrameType(made.dtype, made.shape, COLUMNS)
    try:
        return Maker(random.Random(0)).generated(source_of(made.params, body, results), made.params, frame)
    except HissError:
        return None


# ---------------------------------------------------------------------------------------------------- states


def scan_disagreement(rng: random.Random, compiler: Compiler) -> tuple[str, str]:
    """A random scan on both back ends, its blocks cut in two ways: what is wrong, and its source."""
    maker = Maker(rng)
    first = maker.program(1)
    frame, params = FrameType(first.dtype, first.shape, COLUMNS), first.params
    dtypes = [rng.choice(["uint16", "int32", "int64", "float32", "float64"]) for _ in range(2)]
    init = f"frame.astype(np.{dtypes[0]}), np.sum(frame).astype(np.{dtypes[1]})"
    made = None
    body: list[str] = []
    results = {"s0": "s0", "s1": "s1", "out": "frame"}
    for _ in range(40):
        name = f"v{len(body)}"
        line = f"{name} = {maker.call(['frame', 's0', 's1', *params, *(f'v{k}' for k in range(len(body)))])}"
        for place, cast in (
            ("s0", f"{name}.astype(np.{dtypes[0]})"),
            ("s1", f"{name}.astype(np.{dtypes[1]})"),
            ("out", name),
        ):
            wanted = {**results, place: cast}
            tried = specialised_step(_scan(params, init, [*body, line], wanted), frame, params)
            if tried is not None:
                body, results, made = [*body, line], wanted, tried
                break
        if len(body) == 5:
            break
    source = _scan(params, init, body, results).source
    if made is None:
        return "", source
    program = optimise(made)
    seed = rng.getrandbits(32)
    data = random.Random(seed)
    frames, records = values(data, frame.dtype, (COUNT, *frame.shape)), columns(data, COUNT)
    taken = [np.ascontiguousarray(records[name], dtype) for name, dtype in program.columns]
    (compiled,) = compiler.compile([program])
    (reference,) = NumpyBackend().compile([program])
    runs = [(reference, (ROWS,)), (compiled, (ROWS,)), (compiled, CUTS)]
    found = [_stepped(run, program, frames, taken, parts, seed) for run, parts in runs]
    generated = Generated(source, frame.dtype, frame.shape, params, made, program)
    exact = all(generated.exact(place) for place in range(len(program.outputs)))
    for place, (expected, got, cut) in enumerate(zip(*found, strict=True)):
        if not same(got, cut):
            return f"result {place} depends on how the blocks were cut", source
        if exact and not same(expected, got):
            return f"result {place}: {_difference(expected, got)}", source
    return "", source


def _stepped(run: Executable, program: Any, frames: Any, taken: list[Any], parts: Any, seed: int) -> list[Any]:
    data = random.Random(seed + 1)
    states = [np.array(values(data, dtype, shape), order="C") for dtype, shape in program.states]
    (last,) = program.outputs[len(states) :]
    out = np.zeros((COUNT, *last.shape), last.dtype)
    for rows in parts:
        run.step(frames, states, taken, rows, [out])
    return [*states, out]


def _scan(params: dict[str, Any], init: str, body: list[str], results: dict[str, str]) -> KernelDef:
    arguments = "".join(f", {name}" for name in params)
    lines = "".join(f"        {line}\n" for line in ["s0, s1 = state", *body])
    source = (
        f"class k:\n    def init(frame{arguments}):\n        return {init}\n"
        f"    def step(state, frame{arguments}):\n{lines}"
        f"        return ({results['s0']}, {results['s1']}), {results['out']}\n"
    )
    return KernelDef("k", KernelKind.SCAN, source)
