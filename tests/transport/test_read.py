"""Reading, following, watching, and the short calls of a Store, over a real socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hiss.errors import (
    AlreadyExists,
    BlockDamaged,
    CollectionNotFound,
    Conflict,
    InvalidInput,
    InvalidName,
    KernelNotFound,
    StreamNotFinal,
    StreamNotFound,
)
from hiss.extent import Extent
from hiss.model import Event, FrameSpec, KernelDef, KernelKind, Selection, StreamInfo, StreamSpec, StreamState
from hiss.transport import RemoteStore
from transport.memory_store import MemoryStore
from transport.test_append import Producer, frames_of
from transport.waiting import LIMIT_S, wait_until


@pytest.fixture
def filled(remote: RemoteStore, frames: StreamInfo) -> StreamInfo:
    """Twenty frames, 0 to 19."""
    producer = Producer(remote, frames.id)
    producer.session.send(frames_of(frames, 0, 20))
    producer.session.close()
    return frames


# ------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(), range(20)),
        (Selection(start=5), range(5, 20)),
        (Selection(stop=5), range(5)),
        (Selection(start=3, stop=15, step=4), range(3, 15, 4)),
        (Selection(newest=True), [19]),
        (Selection(start=40), []),
    ],
)
def test_selections_reach_the_store(selection: Selection, wanted: Any, remote: RemoteStore, filled: StreamInfo) -> None:
    found = [int(index) for extent in remote.read(filled.id, selection) for index in extent.index]
    assert found == list(wanted)


def test_blocks_without_their_bytes(remote: RemoteStore, filled: StreamInfo) -> None:
    for extent in remote.read(filled.id, Selection(data=False)):
        assert extent.data.size == 0
        assert extent.length.tolist() == [256]
        assert extent.columns["angle"] == extent.index / 10


def test_reading_what_is_not_there_is_named(remote: RemoteStore) -> None:
    with pytest.raises(StreamNotFound):
        next(remote.read("0" * 32, Selection()))


@pytest.mark.parametrize("bad", [0, 2])
def test_a_block_that_was_damaged_is_never_handed_on(
    bad: int, remote: RemoteStore, filled: StreamInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three blocks in one extent one has a flipped bit: those before it come, then the error."""
    extent = frames_of(filled, 10, 3)
    data = extent.data.copy()
    data[bad * 256 + 100] ^= 4

    def read(self: Any, stream_id: str, selection: Selection) -> Iterator[Extent]:
        yield replace(extent, data=data)

    monkeypatch.setattr(MemoryStore, "read", read)
    items = remote.read(filled.id, Selection())
    if bad:
        assert next(items).index.tolist() == [10, 11]
    with pytest.raises(BlockDamaged, match=f"block {10 + bad} ") as caught:
        next(items)
    assert caught.value.details["index"] == str(10 + bad)


def test_a_reader_that_stops_early_frees_the_server(
    server: Any, remote: RemoteStore, filled: StreamInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    extent = frames_of(filled, 0, 20)

    def read(self: Any, stream_id: str, selection: Selection) -> Iterator[Extent]:
        while True:
            yield extent

    monkeypatch.setattr(MemoryStore, "read", read)
    items = remote.read(filled.id, Selection())
    next(items)
    items.close()  # type: ignore[attr-defined]
    wait_until(lambda: server._long_calls.inside == 0, "the call ends")


def test_a_slow_reader_slows_the_store_and_nothing_is_queued(
    remote: RemoteStore, filled: StreamInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = Extent.of([0], np.zeros(1 << 20, np.uint8), [1 << 20])
    sent = 0

    def read(self: Any, stream_id: str, selection: Selection) -> Iterator[Extent]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield big

    monkeypatch.setattr(MemoryStore, "read", read)
    items = remote.read(filled.id, Selection())
    most = 0
    for received, _ in enumerate(items, 1):
        most = max(most, sent - received)
    assert received == 100
    assert most < 60, "the kernel's and gRPC's own buffers hold a few MiB, not the whole stream"


# ------------------------------------------------------------------------------------------------------ following


def test_a_follower_sees_blocks_as_they_come_and_the_end(remote: RemoteStore, frames: StreamInfo) -> None:
    stop = threading.Event()
    found: list[int] = []
    follower = threading.Thread(
        target=lambda: found.extend(int(i) for extent in remote.follow(frames.id, 2, stop) for i in extent.index)
    )
    follower.start()
    producer = Producer(remote, frames.id)
    for index in range(0, 10, 2):
        producer.session.send(frames_of(frames, index, 2))
        wait_until(lambda: len(found) >= index, lambda: f"{found}")  # noqa: B023
    producer.session.close()
    remote.seal_stream(frames.id)
    follower.join(LIMIT_S)
    assert found == list(range(2, 10))


def _consume(items: Callable[[], Iterator[Any]]) -> tuple[threading.Thread, list[Any], list[BaseException]]:
    """Iterate in a thread; what came, and how it ended."""
    found: list[Any] = []
    ended: list[BaseException] = []

    def run() -> None:
        try:
            found.extend(items())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found, ended


def test_stop_ends_a_follower_that_waits(server: Any, remote: RemoteStore, frames: StreamInfo) -> None:
    stop = threading.Event()
    thread, found, ended = _consume(lambda: remote.follow(frames.id, None, stop))
    wait_until(lambda: server._long_calls.inside == 1, "the call is there")
    stop.set()
    thread.join(LIMIT_S)
    assert (found, ended) == ([], [])
    wait_until(lambda: server._long_calls.inside == 0, "the call is gone")


def test_following_what_is_not_there_is_named(remote: RemoteStore) -> None:
    with pytest.raises(StreamNotFound):
        next(remote.follow("0" * 32, None, threading.Event()))


# ------------------------------------------------------------------------------------------------------ events


def test_events_come_in_order_from_a_cursor(remote: RemoteStore) -> None:
    remote.create_collection("c", {}, [])
    for number in range(5):
        remote.seal_stream(remote.create_stream("c", f"s{number}", StreamSpec(FrameSpec("u1", (1,)))).id)
    remote.seal_collection("c")
    stop = threading.Event()
    every = list(remote.events(0, stop, follow=False))
    assert [event.seq for event in every] == [1, 2, 3, 4, 5, 6]
    assert [event.kind for event in every] == ["stream.sealed"] * 5 + ["collection.sealed"]
    assert every[0].path == "c/s0"
    assert isinstance(every[0].data["id"], str)
    assert list(remote.events(4, stop, follow=False)) == every[4:]


def test_a_watcher_sees_events_to_come_until_it_stops(server: Any, remote: RemoteStore, frames: StreamInfo) -> None:
    stop = threading.Event()
    seen: list[Event] = []

    def watch() -> Iterator[Event]:
        for event in remote.events(0, stop):
            seen.append(event)
            yield event

    thread, found, ended = _consume(watch)
    wait_until(lambda: server._long_calls.inside == 1, "the call is there")
    remote.abort_stream(frames.id, "the beam is off")
    wait_until(lambda: seen, "the event")
    stop.set()
    thread.join(LIMIT_S)
    assert ended == []
    assert [event.kind for event in found] == ["stream.aborted"]


def test_a_stop_that_is_set_already_gives_nothing(remote: RemoteStore) -> None:
    stop = threading.Event()
    stop.set()
    assert list(remote.events(0, stop)) == []


# ------------------------------------------------------------------------------------------------------ short calls


def test_collections(remote: RemoteStore) -> None:
    made = remote.create_collection("a/b", {"sample": "foam", "n": 2**60}, ["x"])
    assert (made.path, made.attrs, made.expect, made.sealed) == ("a/b", {"sample": "foam", "n": 2**60}, ("x",), False)
    assert remote.create_collection("a/b", {"more": None}, ["y"]).expect == ("x", "y")
    assert remote.collection("a/b").attrs == {"sample": "foam", "n": 2**60, "more": None}
    remote.create_collection("c", {}, [])
    assert [info.path for info in remote.collections()] == ["a/b", "c"]
    assert [info.path for info in remote.collections("a")] == ["a/b"]
    assert remote.join("a/b", "det", ["m1", "m2"]).joins == {"det": ("m1", "m2")}
    assert remote.seal_collection("a/b").sealed
    remote.delete_collection("a/b")
    with pytest.raises(CollectionNotFound):
        remote.collection("a/b")
    with pytest.raises(InvalidName):
        remote.create_collection("-", {}, [])
    with pytest.raises(InvalidInput):
        remote.create_collection("d", {"x": object()}, [])


def test_streams(remote: RemoteStore, frames: StreamInfo) -> None:
    assert remote.stream("beam/scan/proj") == frames
    with pytest.raises(AlreadyExists):
        remote.create_stream("beam/scan", "proj", StreamSpec(frames.frame))
    assert remote.create_stream("beam/scan", "proj", StreamSpec(frames.frame), resume=True).id == frames.id
    assert remote.amend_stream(frames.id, {"k": 1.5}).attrs == {"k": 1.5}
    with pytest.raises(StreamNotFinal):
        remote.seal_collection("beam/scan")
    assert remote.seal_stream(frames.id).state is StreamState.SEALED
    second = remote.create_stream("beam/scan", "proj", StreamSpec(frames.frame), new_version=True)
    assert second.version == 2
    assert [info.version for info in remote.streams("beam/scan")] == [2]
    assert sorted(info.version for info in remote.streams("beam/scan", all_versions=True)) == [1, 2]
    assert remote.stream("beam/scan/proj", 1).id == frames.id
    assert remote.abort_stream(second.id, "why not").abort_reason == "why not"
    remote.delete_stream(second.id)
    assert remote.stream("beam/scan/proj").version == 1
    assert remote.out_frame(frames.id, []) == frames.frame


def test_reductions_arrive_as_arrays(remote: RemoteStore, filled: StreamInfo) -> None:
    with pytest.raises(StreamNotFinal):
        remote.reduce("beam/scan/proj", None, "mean")
    remote.seal_stream(filled.id)
    pixels = frames_of(filled, 0, 20).frames(filled.frame)
    mean = remote.reduce("beam/scan/proj", None, "mean")
    assert mean.dtype == np.float64
    np.testing.assert_array_equal(mean, pixels.mean(axis=0))
    np.testing.assert_array_equal(remote.reduce("beam/scan/proj", 1, "maximum"), pixels.max(axis=0))


def test_kernels(remote: RemoteStore) -> None:
    definition = KernelDef("twice", KernelKind.MAP, "def twice(frame):\n    return frame * 2  # ×\n")
    info = remote.register_kernel(definition)
    assert info.definition == definition
    assert remote.kernels() == [info]
    assert remote.kernel("twice") == remote.kernel(info.hash) == info
    with pytest.raises(KernelNotFound):
        remote.kernel("thrice")


def test_attempts(remote: RemoteStore, connect: Callable[..., RemoteStore], filled: StreamInfo) -> None:
    job = connect(attempt="attempt-1")
    job.stream("beam/scan/proj")
    out = job.create_stream("beam/scan", "out", StreamSpec(FrameSpec("u1", (1,))))
    with pytest.raises(StreamNotFound):
        remote.stream("beam/scan/out")
    with pytest.raises(StreamNotFinal):
        remote.commit_attempt("attempt-1", "job.finished", {})
    job.seal_stream(out.id)
    refs = remote.commit_attempt("attempt-1", "job.finished", {"job": "j"})
    assert [(ref.path, ref.version) for ref in refs] == [("beam/scan/out", 1)]
    assert remote.commit_attempt("attempt-1", "job.finished", {"job": "j"}) == refs
    assert next(ref.path for ref in remote.attempt_reads("attempt-1")) == "beam/scan/proj"
    assert list(remote.events(1, threading.Event(), follow=False))[-1].data == {"job": "j"}
    with pytest.raises(Conflict):
        remote.discard_attempt("attempt-1")
    remote.discard_attempt("attempt-2")
