"""`hiss kernel attach` and `detach`, and what `stat` shows of them."""

from __future__ import annotations

import numpy as np
import pytest

FRAMES = np.random.default_rng(5).integers(3, 60, (5, 4, 6), np.uint16)
KERNELS = """
import hiss

@hiss.kernel
def less(frame, dark, gain=1):
    return (frame - dark) * gain

@hiss.filter
def lit(frame, least):
    return np.count_nonzero(frame >= least) >= 1
"""


@pytest.fixture
def scan(hiss):
    with open("kernels.py", "w") as file:
        file.write(KERNELS)
    np.save("frames.npy", FRAMES)
    np.save("dark.npy", np.full((1, 4, 6), 2, np.uint16))
    assert hiss("put", "dark.npy", "c/dark").status == 0
    return hiss


def test_attach_put_detach(scan) -> None:
    attached = ("kernels.py:less", "c", "--streams", "proj*", "--param", "dark=c/dark", "--param", "gain=3")
    said = scan("kernel", "attach", *attached)
    assert said.status == 0, said.err
    assert said.out == "less: attached to c for streams proj*\n"
    shadow = scan("kernel", "attach", "kernels.py:lit", "c", "--param", "least=100", "--shadow", "--json")
    assert [(one["stage"]["name"], one["streams"], one["shadow"]) for one in shadow.json] == [
        ("less", "proj*", False),
        ("lit", "*", True),
    ]
    assert shadow.json[0]["stage"]["params"]["dark"]["stream"] == "c/dark"
    shown = scan("stat", "c").out
    assert "for streams proj*\n" in shown
    assert "for streams *, as a shadow" in shown
    assert scan("stat", "c", "--json").json["kernels"][0]["stage"]["name"] == "less"
    assert scan("put", "frames.npy", "c/proj").status == 0
    assert scan("kernel", "detach", "less", "c", "--streams", "proj*").out == (
        "less: detached from c for streams proj*\n"
    )
    assert "of the collection" in scan("stat", "c/proj").out
    assert scan("get", "c/proj", "out.npy").status == 0
    assert np.array_equal(np.load("out.npy"), (FRAMES - 2) * 3)
    assert scan("kernel", "detach", "lit", "c", "--json").json == []
    assert scan("kernel", "detach", "lit", "c").status == 3


def test_a_stream_that_does_not_fit_is_told_both_names(scan) -> None:
    np.save("small.npy", FRAMES[:, :2])
    np.save("array.npy", np.ones((4, 6), np.uint16))
    assert scan("kernel", "attach", "kernels.py:less", "c", "--param", "dark=array.npy").status == 0
    said = scan("put", "small.npy", "c/proj")
    assert said.status != 0
    assert "stream c/proj" in said.err
    assert "'less'" in said.err


@pytest.mark.parametrize("wrong", ["dark", "dark=none.npy", "dark=c/nothing"])
def test_a_parameter_that_is_none_attaches_nothing(scan, wrong: str) -> None:
    assert scan("kernel", "attach", "kernels.py:less", "c", "--param", wrong).status != 0
    assert scan("stat", "c", "--json").json["kernels"] == []
