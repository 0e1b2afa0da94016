"""A reduction that does not fit is refused before the first block; one that fails later costs its result alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss.client import Buffer
from hiss.errors import KernelRejected, KernelWarning, ParameterMismatch, StreamNotFound
from hiss.limits import MiB
from hiss.readout import Readout

FRAMES = np.arange(4 * 6, dtype=np.uint16).reshape(4, 2, 3)


@hiss.reduce
class widening:
    def init(frame):
        return np.zeros_like(frame)

    def step(state, frame):
        return state + frame * 0.5

    def finish(state):
        return state


@hiss.reduce
class offset:
    def init(frame, dark):
        return frame.astype(np.float64) - dark

    def step(state, frame, dark):
        return state + frame - dark

    def finish(state):
        return state


@hiss.reduce
class total:
    def init(frame):
        return np.zeros_like(frame, np.float64)

    def step(state, frame):
        return state + frame

    def finish(state):
        return state


@hiss.kernel
def difference(frame, dark):
    return frame - dark


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    with hiss.open(tmp_path / "data", arena_bytes=16 * MiB, segment_bytes=8 * MiB, backend="numpy") as opened:
        yield opened


def created(buffer: Buffer, *kernels: Any, name: str = "s") -> Any:
    return buffer.collection("c").create_stream(name, dtype="u2", shape=(2, 3), kernels=kernels)


def test_what_does_not_fit_is_refused_when_the_stream_is_created(buffer: Buffer) -> None:
    with pytest.raises(KernelRejected, match=r"make it np\.float64 in `init`"):
        created(buffer, widening)
    with pytest.raises((KernelRejected, ParameterMismatch), match="dark"):
        created(buffer, offset.bind(dark=np.zeros((5, 5))))
    with pytest.raises(StreamNotFound):
        buffer["c/s"]


def test_one_that_fails_is_quarantined_and_the_stream_sealed(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Readout.results

    def failing(readout: Readout, info: Any, reduction: Any, every: int) -> Any:
        if reduction._name == "total":
            raise MemoryError("no room")
        return real(readout, info, reduction, every)

    with created(buffer, total, "mean") as stream:
        stream.extend(FRAMES)
        monkeypatch.setattr(Readout, "results", failing)
    info = buffer["c/s"].info
    assert info.state.final
    assert [stage.quarantined for stage in info.stages] == [True, False]
    np.testing.assert_array_equal(np.asarray(buffer["c/s"]), FRAMES)
    np.testing.assert_allclose(np.asarray(buffer["c/s.mean"])[0], FRAMES.mean(axis=0))
    with pytest.raises(StreamNotFound):
        buffer["c/s.total"]
    events = [event.kind for event in buffer.store.events(0, threading.Event(), follow=False)]
    assert events.count("kernel.quarantined") == 1


def test_a_line_that_may_not_mean_what_it_says_is_told(buffer: Buffer) -> None:
    dark = np.ones((2, 3), np.uint16)
    with pytest.warns(KernelWarning, match="wraps below zero"):
        stream = created(buffer, difference.bind(dark=dark))
    stream.close()
    (text,) = buffer["c/s"].info.stages[0].warnings
    assert "line 2" in text


def test_scans_and_reductions_are_tried_out_on_frames() -> None:
    @hiss.scan
    class drift:
        def init(frame, weight):
            return frame.astype(np.float64)

        def step(state, frame, weight=0.5):
            state = state * (1 - weight) + frame * weight
            return state, frame - state

    np.testing.assert_array_equal(total(FRAMES), FRAMES.sum(axis=0))
    results = drift(FRAMES, weight=0.5)
    assert results.shape == FRAMES.shape
    np.testing.assert_allclose(results[1], 3.0)
