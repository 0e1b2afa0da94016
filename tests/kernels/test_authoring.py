"""What an analyst writes: decorators, calls for trying out, bindings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import hiss
from hiss.errors import InvalidInput, KernelRejected, ParameterMismatch
from hiss.kernels import Compiler, Kernel, check
from hiss.model import ArrayParam, ColumnParam, KernelKind, ScalarParam, StreamParam
from kernels.building import applied


@hiss.kernel
def flatfield(frame, dark, flat):  # type: ignore[no-untyped-def]
    """Transmission, as minus its logarithm."""
    t = (frame.astype(np.float32) - dark) / np.maximum(flat - dark, 1)  # unsigned integers would wrap
    return -np.log(np.clip(t, 1e-6, None))


@hiss.filter  # False vetoes the block
def enough(frame, mask, threshold=20, least=50):  # type: ignore[no-untyped-def]
    return np.count_nonzero((frame >= threshold) & (mask == 0)) >= least


@hiss.reduce(name="rms")
class RootMeanSquare:
    """The root of the mean square."""

    def init(frame):  # type: ignore[no-untyped-def]
        return np.zeros_like(frame, np.float64), 0

    def step(state, frame):  # type: ignore[no-untyped-def]
        total, count = state
        return total + frame.astype(np.float64) ** 2, count + 1

    def finish(state):  # type: ignore[no-untyped-def]
        return np.sqrt(state[0] / state[1])


def test_decorated(numpy_compiler: Compiler) -> None:
    assert isinstance(flatfield, Kernel)
    assert flatfield.definition.name == "flatfield"
    assert flatfield.definition.kind is KernelKind.MAP
    assert flatfield.definition.source.startswith("def flatfield(frame, dark, flat):")
    assert flatfield.__doc__ == "Transmission, as minus its logarithm."
    assert flatfield.hash == check(flatfield.definition).hash
    assert (enough.definition.kind, RootMeanSquare.definition.kind) == (KernelKind.FILTER, KernelKind.REDUCE)
    assert RootMeanSquare.definition.name == "rms"
    assert RootMeanSquare.definition.source.startswith("class RootMeanSquare:\n")
    assert "flatfield(dark, flat)" in repr(flatfield)


def test_called_directly_it_is_numpy(numpy_compiler: Compiler) -> None:
    frame = np.full((2, 3), 700, np.uint16)
    dark, flat = np.full((2, 3), 100, np.float32), np.full((2, 3), 1100, np.float32)
    direct = flatfield(frame, dark, flat=flat)
    np.testing.assert_allclose(direct, -np.log(np.float32(0.6)), rtol=1e-6)
    np.testing.assert_allclose(direct, applied(flatfield.definition, frame, numpy_compiler, dark=dark, flat=flat))
    assert enough(frame, np.zeros((2, 3), np.uint8), least=6)
    frames = np.stack([frame, 3 * frame])
    reduced = RootMeanSquare(frames)
    np.testing.assert_allclose(reduced, np.sqrt(np.mean(frames.astype(np.float64) ** 2, axis=0)))
    with pytest.raises(InvalidInput, match="at least one"):
        RootMeanSquare(frames[:0])


def test_a_mistake_of_classes_says_what_to_write() -> None:
    with pytest.raises(KernelRejected, match="has no `self`: its first argument is the frame"):

        @hiss.reduce
        class selfish:
            def init(self, frame):  # type: ignore[no-untyped-def]
                return frame

            def step(state, frame):  # type: ignore[no-untyped-def]
                return state

            def finish(state):  # type: ignore[no-untyped-def]
                return state

    with pytest.raises(KernelRejected, match="the reduce has no step"):

        @hiss.reduce
        class stepless:
            def init(frame):  # type: ignore[no-untyped-def]
                return frame

            def finish(state):  # type: ignore[no-untyped-def]
                return state


def test_indented_and_with_other_decorators() -> None:
    @hiss.kernel(name="named")
    def inner(frame):  # type: ignore[no-untyped-def]
        return frame + 1

    assert inner.definition.name == "named"
    assert inner.definition.source == "def inner(frame):  # type: ignore[no-untyped-def]\n    return frame + 1\n"


def test_refused_where_it_is_written() -> None:
    with pytest.raises(KernelRejected, match=r"line 2, column 16: `np\.fft` is not in the language"):

        @hiss.kernel
        def spectrum(frame):  # type: ignore[no-untyped-def]
            return abs(np.fft.fft2(frame))

    with pytest.raises(KernelRejected, match="lambdas have no name"):
        hiss.kernel(lambda frame: frame)
    with pytest.raises(KernelRejected, match="a map is a function"):
        hiss.kernel(type("k", (), {}))
    with pytest.raises(KernelRejected, match="a reduce is a class"):
        hiss.reduce(lambda frame: frame)
    namespace: dict[str, Any] = {}
    exec("def k(x):\n    return x\n", namespace)
    with pytest.raises(KernelRejected, match="source cannot be read"):
        hiss.kernel(namespace["k"])


@dataclass
class Dark:
    """What the client's streams look like to `bind`."""

    path: str

    def __hiss_param__(self) -> StreamParam:
        return StreamParam(self.path, reduce="mean")


def test_bound() -> None:
    bound = flatfield.bind(dark=Dark("scan/dark"), flat=np.ones((2, 2)), budget_s=2)
    assert bound.kernel is flatfield.definition
    assert bound.budget_s == 2.0
    assert bound.params["dark"] == StreamParam("scan/dark", reduce="mean")
    assert isinstance(bound.params["flat"], ArrayParam)
    bound = enough.bind(mask=hiss.column("angle"), threshold=np.uint8(7), least=True)
    assert bound.params == {
        "mask": ColumnParam("angle"),
        "threshold": ScalarParam(7, "|u1"),
        "least": ScalarParam(True),
    }
    assert enough.bind(mask=np.float64(0.5)).params["mask"] == ScalarParam(0.5, "<f8")


def test_bound_wrongly() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"dark": 1}, "no value for 'flat'"),
        ({"dark": 1, "flat": 2, "flt": 3}, "no parameter 'flt'; did you mean 'flat'?"),
        ({"dark": "dark.npy", "flat": 1}, "'dark' is of class str"),
        ({"dark": 1j, "flat": 1}, "'dark' is of class complex"),
        ({"dark": np.ones(2, complex), "flat": 1}, "'dark' is of dtype complex128"),
        ({"dark": [1, 2], "flat": 1}, "'dark' is of class list"),
    ]
    for params, message in cases:
        with pytest.raises(ParameterMismatch) as caught:
            flatfield.bind(**params)
        assert message in str(caught.value)
    with pytest.raises(InvalidInput, match="budget_s"):
        flatfield.bind(dark=1, flat=1, budget_s=-1)
