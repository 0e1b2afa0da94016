"""Commands that show, emit and measure the code that a kernel becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hiss import client
from hiss.cli.kernels import definitions
from hiss.model import BoundKernel

KERNELS = '''
import hiss, numpy as np

@hiss.kernel
def calibrate(frame, dark, gain=2):
    """Counts."""
    t = (frame.astype(np.float32) - dark) * gain
    return np.clip(t, 0, 65535).astype(np.uint16)

@hiss.filter
def bright(frame, angle):
    return np.max(frame) > angle
'''
TYPES = ("--dtype", "uint16", "--shape", "8x16", "--param", "dark=float32:8x16")


@pytest.fixture
def file(outside: Path) -> str:
    Path("kernels.py").write_text(KERNELS)
    return "kernels.py"


def test_show_source_stands_beside_the_kernels_lines(hiss, file: str) -> None:
    for source, said in (("numba", "# 3: t = "), ("opencl", "/* 3: t = "), ("numpy", "# 4: return np.clip")):
        shown = hiss("kernel", "show", f"{file}:calibrate", "--source", source, *TYPES, embedded=False)
        assert said in shown.out, shown.err


def test_emitted_code_has_no_text_of_the_user(hiss, file: str) -> None:
    for target in ("numpy", "numba", "opencl", "fpga-opencl"):
        emitted = hiss("kernel", "emit", f"{file}:calibrate", "--target", target, *TYPES, embedded=False)
        assert emitted.status == 0, emitted.err
        assert "calibrate" not in emitted.out
        assert "t = (frame" not in emitted.out
    written = hiss("kernel", "emit", f"{file}:calibrate", *TYPES, "--output", "c.cl", embedded=False)
    assert written.out == ""
    assert "reqd_work_group_size(1, 1, 1)" in Path("c.cl").read_text()
    assert "get_global_id" not in Path("c.cl").read_text()


def test_like_a_stream_with_columns(hiss, file: str) -> None:
    frames = np.random.default_rng(0).integers(0, 99, (3, 8, 16)).astype(np.uint16)
    np.save("frames.npy", frames)
    np.save("dark.npy", frames[0].astype(np.float32))
    assert hiss("put", "frames.npy", "beam/a").status == 0
    assert hiss("kernel", "add", file).status == 0
    like = ("--like", "beam/a")
    emitted = hiss("kernel", "emit", "calibrate", "--target", "numba", *like, "--param", "dark=dark.npy").out
    assert "types.Array(types.uint16" in emitted
    assert hiss("kernel", "emit", "calibrate", "--target", "numba", *like, "--param", "dark=beam/a.mean()").status == 0
    refused = hiss("kernel", "emit", "bright", *like, "--param", "angle=column:angle")
    assert "column 'angle', which the stream does not have" in refused.err
    rows = hiss("kernel", "bench", "calibrate", *like, "--param", "dark=dark.npy", "--seconds", "0", "--json").json
    assert [row["backend"] for row in rows] == ["copy", "numba", "opencl", "numpy"]
    assert all(row["gb_per_s"] > 0 or row["note"] for row in rows if row["backend"] != "copy" and row["gb_per_s"])
    assert rows[1]["of_copy"] > 0
    assert rows[2]["gb_per_s"] or rows[2]["note"], "a back end that cannot be measured says why"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("emit", "kernels.py"), "name one: kernels.py:calibrate"),
        (("emit", "kernels.py:calibrate"), "--like STREAM, or --dtype and --shape"),
        (("emit", "kernels.py:calibrate", "--dtype", "u2", "--shape", "4x4"), "no value for 'dark'"),
        (("emit", "kernels.py:calibrate", "--dtype", "thin"), "no dtype of NumPy"),
        (("emit", "kernels.py:calibrate", "--param", "dark"), "expected NAME=VALUE"),
        (("emit", "kernels.py:calibrate", "--dtype", "u2", "--param", "dark=none.npy"), "none.npy"),
        (("show", "kernels.py:bright", "--source", "numba", "--dtype", "u2", "--param", "angle=3"), ""),
    ],
)
def test_what_does_not_fit_says_why(hiss, file: str, words: tuple[str, ...], said: str) -> None:
    answer = hiss("kernel", *words, embedded=False)
    assert said in answer.err
    assert (answer.status == 0) == (said == "")


def test_replay_and_promote(hiss, outside: Path) -> None:
    source = "import hiss, numpy as np\n\n@hiss.{}\ndef {}(frame):\n    return {}\n"
    Path("old.py").write_text(source.format("kernel", "double", "frame * 2"))
    Path("new.py").write_text(source.format("kernel", "double", "frame * 3"))
    Path("veto.py").write_text(source.format("filter", "bright", "np.max(frame) > 5"))
    (double,), (bright,) = definitions(Path("old.py")), definitions(Path("veto.py"))
    frames = np.arange(24, dtype=np.uint16).reshape(4, 2, 3)
    with client.open(outside.parent / "data", backend="numpy") as buffer:
        scan = buffer.collection("beam")
        kernels = [BoundKernel(double), BoundKernel(bright, shadow=True)]
        with scan.create_stream("s", dtype="u2", shape=(2, 3), keep="both", kernels=kernels) as stream:
            stream.extend(frames)
        scan.create_stream("t", dtype="u2", shape=(2, 3), kernels=kernels).detach()
    assert hiss("kernel", "replay", "double", "beam/s", "--recorded", "--json").json["same"] == 4
    told = hiss("kernel", "replay", "double", "beam/s", "--file", "new.py").out
    assert "the first that is not the same: 0; largest difference 23" in told
    assert "shadows" in hiss("stat", "beam/s").out
    assert hiss("kernel", "promote", "bright", "beam/t").out == "bright: a stage of beam/t from index 0 on\n"
    assert [stage["name"] for stage in hiss("stat", "beam/t", "--json").json["stages"]] == ["double", "bright"]
    refused = hiss("kernel", "promote", "bright", "beam/s")
    assert refused.status != 0
    assert "final" in refused.err
