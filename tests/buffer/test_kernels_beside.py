"""Shadows, promotion, and how kernels are reported, on a buffer in this process and on a served one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss import errors
from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.kernel_report import KernelReport
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.model import Event, KernelDef, KernelKind, StageInfo
from hiss.node import Node
from hiss.shadow import Shadows
from hiss.transport.server import GrpcServer

SIZES = StorageOptions(arena_bytes=32 * MiB, segment_bytes=16 * MiB)


@hiss.kernel
def double(frame):
    return frame * 2


@hiss.filter
def bright(frame, least=6):
    return np.max(frame) >= least


@hiss.filter
def tilted(frame, angle, least=5.0):
    return angle >= least


@hiss.reduce
class total:
    def init(frame):
        return np.zeros_like(frame, np.int64)

    def step(state, frame):
        return state + frame

    def finish(state):
        return state


@pytest.fixture(params=["embedded", "served"])
def buffer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Buffer]:
    node = Node(tmp_path / "data", SIZES, backend="numpy")
    if request.param == "embedded":
        with Buffer(LocalStore(node)) as found:
            yield found
        node.close()
        return
    tokens = Access.of_directory(tmp_path / "data")
    server = GrpcServer(
        ["127.0.0.1:0"],
        store_for=lambda caller: LocalStore(node, caller),
        authenticate=lambda token, peer: tokens.authenticate(token, 0, peer),
        meow=None,
    )
    server.start()
    with hiss.connect(f"127.0.0.1:{server.ports[0]}", token=tokens.owner_token) as found:
        yield found
    server.stop(5.0)
    node.close()


def _frames(count: int = 10) -> Any:
    """Blocks whose largest pixel is their number."""
    frames = np.zeros((count, 2, 3), np.uint16)
    frames[:, 1, 2] = np.arange(count)
    return frames


def _append(buffer: Buffer, stream: Any, frames: Any, **columns: Any) -> None:
    """One extent for each block, the next one when the shadows have looked at it."""
    path = stream.info.path
    for place, frame in enumerate(frames):
        before = _seen(buffer, path)
        stream.append(frame, **{name: values[place] for name, values in columns.items()})
        stream.flush()
        if buffer[path].info.shadows:
            _wait(lambda before=before: _seen(buffer, path) > before)


def _seen(buffer: Buffer, path: str) -> int:
    return sum(stage.report.get("blocks", 0) for stage in buffer[path].info.shadows)


def _wait(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not happen")


def _events(buffer: Buffer, kind: str) -> list[Event]:
    return [event for event in buffer.store.events(0, threading.Event(), follow=False) if event.kind == kind]


def test_a_shadow_reports_and_changes_nothing(buffer: Buffer) -> None:
    data = _frames()
    scan = buffer.collection("c")
    kernels = [double, bright.bind(shadow=True), tilted.bind(angle=hiss.column("angle"), shadow=True)]
    with scan.create_stream("s", dtype="u2", shape=(2, 3), columns={"angle": "f8"}, kernels=kernels) as s:
        _append(buffer, s, data, angle=np.arange(10.0))
    stream = scan["s"]
    np.testing.assert_array_equal(np.asarray(stream), data * 2)
    assert stream.info.completeness.gaps == 0
    assert [stage.name for stage in stream.info.stages] == ["double"]
    seen, other = (stage.report for stage in stream.info.shadows)
    assert (seen["blocks"], seen["vetoed"], seen["vetoed_bytes"]) == (10, 3, 36), "it sees what leaves the pipeline"
    assert (other["blocks"], other["vetoed"]) == (10, 5)
    assert seen["p50_ms"] <= seen["p99_ms"]
    with buffer.collection("d").create_stream(
        "plain", dtype="u2", shape=(2, 3), kernels=[bright.bind(shadow=True)]
    ) as s:
        _append(buffer, s, data)
    np.testing.assert_array_equal(np.asarray(buffer["d/plain"]), data)
    assert buffer["d/plain"].info.shadows[0].report["vetoed"] == 6


def test_what_cannot_be_a_shadow(buffer: Buffer) -> None:
    scan = buffer.collection("c")
    with pytest.raises(errors.InvalidInput, match="only maps and filters"):
        scan.create_stream("s", dtype="u2", shape=(2, 3), kernels=[total.bind(shadow=True)])
    with pytest.raises(errors.InvalidInput, match="the name of another kernel"):
        scan.create_stream("s", dtype="u2", shape=(2, 3), kernels=[double, double.bind(shadow=True)])
    with pytest.raises(errors.ParameterMismatch, match="no value for 'angle'"):
        scan.create_stream("s", dtype="u2", shape=(2, 3), kernels=[tilted.bind(shadow=True)])
    with pytest.raises(errors.InvalidInput, match="keep='raw'"):
        scan.create_stream("s", dtype="u2", shape=(2, 3), keep="raw", kernels=[bright.bind(shadow=True)])
    assert scan.info.streams == ()


def test_a_shadow_that_breaks_costs_nothing(buffer: Buffer) -> None:
    data = _frames()
    scan = buffer.collection("c")
    with scan.create_stream("s", dtype="u2", shape=(2, 3), kernels=[bright.bind(budget_s=1e-9, shadow=True)]) as s:
        _append(buffer, s, data)
    assert scan["s"].info.completeness.gaps == 0
    report = scan["s"].info.shadows[0].report
    assert report["failed"] == 10
    assert report["faults"] >= 3
    assert not _events(buffer, "kernel.quarantined")


def test_a_filter_is_promoted_from_a_stated_index_on(buffer: Buffer) -> None:
    data = _frames()
    scan = buffer.collection("c")
    kernels = [double, bright.bind(least=18, shadow=True), total]
    with scan.create_stream("s", dtype="u2", shape=(2, 3), kernels=kernels) as s:
        _append(buffer, s, data[:5])
        info = buffer.store.promote(s.info.id, "bright")
        assert [stage.name for stage in info.stages] == ["double", "bright", "total"]
        assert info.stages[1].since == 5
        assert info.shadows == ()
        _append(buffer, s, data[5:])
        with pytest.raises(errors.KernelNotFound, match="no shadow 'bright'; it has none"):
            buffer.store.promote(s.info.id, "bright")
    stream = scan["s"]
    assert stream.index.tolist() == [0, 1, 2, 3, 4, 9]
    assert [(one.first, one.last, one.stage, one.reason) for one in stream.ledger] == [(5, 8, "bright", "vetoed")]
    assert stream.info.stages[1].report["vetoed"] == 4
    (event,) = _events(buffer, "kernel.promoted")
    assert (event.data["kernel"], event.data["since"]) == ("bright", 5)
    with pytest.raises(errors.StreamFinal):
        buffer.store.promote(stream.info.id, "bright")


def test_a_map_is_not_promoted(buffer: Buffer) -> None:
    with buffer.collection("c").create_stream("s", dtype="u2", shape=(2, 3), kernels=[double.bind(shadow=True)]) as s:
        with pytest.raises(errors.InvalidInput, match="attach it to a new stream"):
            buffer.store.promote(s.info.id, "double")
        assert [stage.name for stage in buffer["c/s"].info.shadows] == ["double"]


def test_kernels_report_how_they_fare(buffer: Buffer) -> None:
    data = _frames()
    buffer.register(bright)
    for name in ("a", "b"):
        with buffer.collection("c").create_stream(name, dtype="u2", shape=(2, 3), kernels=[bright, double]) as s:
            _append(buffer, s, data)
            open_report = buffer[f"c/{name}"].info.stages[1].report
        assert open_report["blocks"] == 4, "those that the filter let through"
    first, second = (stage.report for stage in buffer["c/a"].info.stages)
    assert (first["extents"], first["blocks"], first["bytes"], first["vetoed"]) == (10, 10, 120, 6)
    assert (second["blocks"], second["bytes"]) == (4, 48)
    status = buffer.status()
    assert status.kernel_backend == "numpy"
    assert status.kernels[bright.hash]["blocks"] == 20
    assert status.kernels[bright.hash]["vetoed"] == 12


def test_a_producer_resumes_a_stream_with_shadows_and_a_promoted_filter(buffer: Buffer) -> None:
    data = _frames()
    scan = buffer.collection("c")
    options: dict[str, Any] = {"dtype": "u2", "shape": (2, 3), "kernels": [double, bright.bind(least=18, shadow=True)]}
    first = scan.create_stream("s", **options)
    _append(buffer, first, data[:5])
    buffer.store.promote(first.info.id, "bright")
    first.detach()
    with scan.create_stream("s", resume=True, **options) as again:
        for frame in data[5:]:
            again.append(frame)
    assert scan["s"].index.tolist() == [0, 1, 2, 3, 4, 9]


def test_shadows_skip_blocks_while_they_are_busy() -> None:
    """And never hold up whoever offers them."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        def run(self, frames: Any, columns: Any) -> Any:
            begun.set()
            assert go_on.wait(20)
            from hiss.kernels import Outcome

            count = len(frames)
            return Outcome(frames, np.zeros(count, np.uint8), np.zeros(count, np.uint8), (), (), (0.5,))

    report = KernelReport()
    definition = KernelDef("slow", KernelKind.FILTER, "")
    stage = StageInfo(definition.name, definition.kind, "", "", {}, 1.0)
    shadows = Shadows("c/s", [(stage, Slow(), report)])  # type: ignore[list-item]
    frames, columns = _frames(4), np.zeros(4, np.dtype([]))
    good = np.array([True, True, False, True])
    shadows.offer(frames, columns, good)
    assert begun.wait(20)
    shadows.offer(frames, columns, good)
    frames[:] = 0  # the memory is another extent's by now
    go_on.set()
    shadows.close()
    shadows.close()
    shadows.offer(frames, columns, good)
    attrs = report.attrs()
    assert (attrs["blocks"], attrs["skipped"], attrs["p99_ms"]) == (3, 6, 500.0)


def test_a_replay_gives_what_was_stored(buffer: Buffer) -> None:
    data = _frames()
    scan = buffer.collection("c")
    with scan.create_stream("s", dtype="u2", shape=(2, 3), keep="both", kernels=[bright, double]) as s:
        s.extend(data)
    again = buffer.store.replay(s.info.id)
    assert (again.blocks, again.same, again.first, again.largest) == (10, 10, None, 0.0)
    other = KernelDef("double", KernelKind.MAP, "def double(frame):\n    return frame * 3\n")
    changed = buffer.store.replay(s.info.id, other)
    assert (changed.same, changed.different, changed.first, changed.largest) == (6, 4, 6, 9.0)
    stricter = KernelDef("bright", KernelKind.FILTER, "def bright(frame):\n    return np.max(frame) >= 8\n")
    assert (buffer.store.replay(s.info.id, stricter).vetoed, scan["s"].info.completeness.blocks) == (2, 4)
    looser = KernelDef("bright", KernelKind.FILTER, "def bright(frame):\n    return np.max(frame) >= 1\n")
    assert (buffer.store.replay(s.info.id, looser).kept, scan["s"].info.completeness.blocks) == (5, 4)
    wider = KernelDef("double", KernelKind.MAP, "def double(frame):\n    return frame * 2.0\n")
    assert buffer.store.replay(s.info.id, wider).different == 4
    with pytest.raises(errors.KernelNotFound, match="no kernel 'third'; it has bright, double"):
        buffer.store.replay(s.info.id, KernelDef("third", KernelKind.MAP, other.source))
    with pytest.raises(errors.InvalidInput, match="is a filter; in stream c/s it is a map"):
        buffer.store.replay(s.info.id, KernelDef("double", KernelKind.FILTER, stricter.source))


def test_what_a_kernel_failed_on_can_be_recovered(buffer: Buffer) -> None:
    """Of a stream that keeps results only, the raw blocks of the failures are there."""
    data = _frames()
    with buffer.collection("c").create_stream("s", dtype="u2", shape=(2, 3), kernels=[double.bind(budget_s=1e-9)]) as s:
        s.extend(data)
    assert buffer["c/s"].info.completeness.blocks == 0
    failing = buffer.store.replay(s.info.id)
    assert (failing.blocks, failing.same) == (10, 10), "it fails again, for the same reason"
    with buffer.collection("c").create_stream("plain", dtype="u2", shape=(2, 3)) as plain:
        plain.extend(data)
    with pytest.raises(errors.InvalidInput, match="has no kernels"):
        buffer.store.replay(plain.info.id)
