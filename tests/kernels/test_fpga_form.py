"""The form for FPGA tools, checked offline: what clang and oclgrind say of it, and what it computes when PoCL runs
it.
"""

from __future__ import annotations

import dataclasses
import random
import re
import shutil
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiss.kernels import Compiler, opencl_backend
from hiss.kernels.opencl_printer import Form, PrintedOpencl, print_opencl
from kernels.building import several
from kernels.programs import Generated, Maker, columns, same, values
from kernels.test_backends import SHAPES_OF_FUSION

DTYPES = ["uint16", *(pytest.param(name, marks=pytest.mark.torture) for name in ("float32", "int64"))]
ROWS = 2


def _tool(*names: str) -> str:
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip(f"no {names[0]}: apt install {names[0].removesuffix('-kernel')}")
    return found


def _covering(dtype: str) -> Generated:
    """A kernel with every function of the table that takes such frames."""
    return Maker(random.Random(3)).covering(np.dtype(dtype), (6, 70))[0]


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def _functions(text: str) -> dict[str, set[str]]:
    """Each function of a file, and those of the file that it calls."""
    text = _without_comments(text).replace("__attribute__((reqd_work_group_size(1, 1, 1)))\n", "")
    starts = list(re.finditer(r"^[\w ]*?(\w+)\([^;{]*\)\n\{", text, re.MULTILINE))
    bodies = {
        one.group(1): text[one.end() : following.start() if following else len(text)]
        for one, following in zip(starts, [*starts[1:], None], strict=True)
    }
    calls = {name: set(re.findall(r"\b(\w+)\(", body)) & bodies.keys() for name, body in bodies.items()}
    assert "hiss_kernel" in calls
    return calls


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_opencl_c_for_one_work_item(dtype: str, tmp_path: Path) -> None:
    clang = _tool("clang-16", "clang")
    text = print_opencl(_covering(dtype).program, Form.SINGLE).text
    path = tmp_path / "kernel.cl"
    for source, accepted in ((text, True), (text.replace("ulong row_count", "ulong* row_count", 1), False)):
        path.write_text(source)
        command = [clang, "-x", "cl", "-cl-std=CL1.2", "-fsyntax-only", "-Werror", str(path)]
        checked = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (checked.returncode == 0) == accepted, checked.stderr
    assert "get_global_id" not in text
    assert "get_local_id" not in text
    assert not re.search(r"\*\s*(const |restrict )*\*", _without_comments(text)), "a pointer to a pointer"


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_calls_itself(dtype: str) -> None:
    calls = _functions(print_opencl(_covering(dtype).program, Form.SINGLE).text)
    assert len(calls) > 5
    tuple(TopologicalSorter(calls).static_order())  # raises CycleError
    defined: set[str] = set()
    for name, called in calls.items():
        assert called <= defined, f"{name} calls what comes after it"
        defined.add(name)


def _simulation(path: Path, made: Generated, printed: PrintedOpencl) -> str:
    """For oclgrind: arrays of exactly the bytes that the kernel may touch."""
    per_row = {"frame": int(np.prod(made.program.shape))}
    per_row |= {f"o{k}": output.size for k, output in enumerate(made.program.outputs)}
    per_row |= {f"c{k}": 1 for k in range(len(made.program.columns))}
    kinds = {"i": "", "u": "u"}
    lines = [str(path), "hiss_kernel", "1 1 1", "1 1 1", f"<size=8 ulong> {ROWS}"]
    for one in printed.arguments:
        size = one.dtype.itemsize
        kind = {1: "char", 2: "short", 4: "int", 8: "long"}[size]
        word = {"f": {4: "float", 8: "double"}.get(size), "b": "uchar"}.get(one.dtype.kind) or (
            kinds[one.dtype.kind] + kind
        )
        if one.use == "scalar":
            lines.append(f"<size={size} {word}> 1")
        elif one.name == "rows":
            lines.append(f"<size={ROWS * 8} range=0:1:{ROWS - 1} long>")
        else:
            count = ROWS * per_row[one.name] if one.name in per_row else printed.scratch.get(one.name)
            count = made.program.arrays[int(one.name[1:])].size if count is None else count
            lines.append(f"<size={count * size} fill=1 {word}>")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_stays_within_its_arrays(dtype: str, tmp_path: Path) -> None:
    oclgrind = _tool("oclgrind-kernel")
    made = _covering(dtype)
    printed = print_opencl(made.program, Form.SINGLE)
    path, simulation = tmp_path / "kernel.cl", tmp_path / "kernel.sim"
    simulation.write_text(_simulation(path, made, printed))
    beyond = printed.text.replace("q < row_count", "q <= row_count")
    for source, clean in ((printed.text, True), (beyond, False)):
        path.write_text(source)
        command = [oclgrind, "--max-errors", "3", "--disable-pch", str(simulation)]
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
        said = ran.stdout + ran.stderr
        if unknown := re.search(r"Undefined external function: llvm\.\S+", said):
            pytest.skip(f"this oclgrind does not simulate what clang makes of it: {unknown[0]}")
        assert ("Invalid" not in said and "error" not in said.lower()) == clean, said[:3000]


@pytest.fixture
def single(opencl_compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """Compiles the form for FPGA tools, as a kernel that goes through its blocks one after the other."""

    def printed(program: Any) -> PrintedOpencl:
        return dataclasses.replace(print_opencl(program, Form.SINGLE), parallel=False)

    monkeypatch.setattr(opencl_backend, "print_opencl", printed)
    return opencl_compiler


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_computes_the_same(dtype: str, single: Compiler, numpy_compiler: Compiler) -> None:
    rng = random.Random(8)
    for made in (_covering(dtype), Maker(rng).program()):
        frames, records = values(rng, made.dtype, (3, *made.shape)), columns(rng, 3)
        taken = [np.ascontiguousarray(records[name], kind) for name, kind in made.program.columns]
        results = []
        for compiler in (numpy_compiler, single):
            outs = [np.zeros((3, *node.shape), node.dtype) for node in made.program.outputs]
            (executable,) = compiler.compile([made.program])
            assert executable.backend == compiler.backend.name
            executable.run(frames, taken, np.array([0, 2]), outs)
            results.append(outs)
        for place, (expected, got) in enumerate(zip(*results, strict=True)):
            assert not made.exact(place) or same(expected, got), f"output {place}\n{made.source}"


@pytest.mark.torture
def test_shapes_of_fusion_for_one_work_item(single: Compiler, numpy_compiler: Compiler) -> None:
    frame = np.random.default_rng(4).integers(0, 60000, (10, 70)).astype(np.uint16)
    texts = list(SHAPES_OF_FUSION.values())
    for name, expected, got in zip(
        SHAPES_OF_FUSION, *(several(texts, frame, compiler) for compiler in (numpy_compiler, single)), strict=True
    ):
        assert same(expected, got), name
