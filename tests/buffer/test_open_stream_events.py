"""Events of streams that are still written: `stream.progress` at stated counts, `stream.stalled`, each exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.errors import InvalidInput, InvalidPattern
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.model import Caller, Event, StreamWatch
from hiss.node import Node
from hiss.testing.conformance import frames, wait_for
from hiss.testing.processes import DataProcess
from hiss.writer import StreamWriter


class Held:
    """A buffer whose clock a test moves, and that can be closed and opened again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now_s = 1000.0
        self.open()

    def open(self) -> None:
        self.node = Node(
            self.directory,
            StorageOptions(arena_bytes=32 * MiB, segment_bytes=16 * MiB),
            backend="numpy",
            monotonic_s=lambda: self.now_s,
        )
        self.store = LocalStore(self.node)
        self.buffer = Buffer(self.store)

    def close(self) -> None:
        self.node.close()

    def again(self) -> None:
        self.close()
        self.open()

    def events(self, *kinds: str) -> list[Event]:
        self.node.milestones.look()
        found = self.store.events(0, threading.Event(), follow=False)
        return [event for event in found if event.kind in kinds]

    def counts(self) -> list[int]:
        return [event.data["blocks"] for event in self.events("stream.progress")]

    def stalls(self) -> list[tuple[str, float]]:
        return [(event.path, event.data["after_s"]) for event in self.events("stream.stalled")]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    held = Held(tmp_path / "data")
    yield held
    held.close()


def writer(buffer: Buffer, name: str = "s", **more: Any) -> StreamWriter:
    return buffer.collection("scan").create_stream(name, dtype="u2", shape=(4, 6), ack="written", **more)


def put(stream: StreamWriter, first: int, count: int) -> None:
    stream.extend(frames(count, seed=first), index=np.arange(first, first + count))
    stream.flush()


def test_progress_comes_at_the_stated_counts_and_before_the_seal(held: Held) -> None:
    with writer(held.buffer, attrs={"progress_every": 10}) as stream:
        put(stream, 0, 7)
        assert held.counts() == []
        put(stream, 7, 18)
        assert held.counts() == [10, 20]
        put(stream, 25, 5)
    kinds = [event.kind for event in held.events("stream.progress", "stream.sealed")]
    assert kinds == ["stream.progress"] * 3 + ["stream.sealed"]
    assert held.counts() == [10, 20, 30]
    first = held.events("stream.progress")[0]
    assert (first.path, first.version, first.data["end_index"]) == ("scan/s", 1, 10)
    assert first.data["id"] == held.buffer["scan/s"].info.id


def test_counts_are_of_blocks_and_the_end_is_an_index(held: Held) -> None:
    """The producer's index begins anywhere and jumps; a vetoed block is no block that can be read."""

    @hiss.filter
    def lit(frame):  # type: ignore[no-untyped-def]
        return np.count_nonzero(frame) >= 1

    with writer(held.buffer, attrs={"progress_every": 4}, kernels=[lit]) as stream:
        data = frames(12)
        data += 1
        data[2] = 0
        stream.extend(data, index=np.arange(100, 124, 2))
        stream.flush()
        found = [(event.data["blocks"], event.data["end_index"]) for event in held.events("stream.progress")]
        assert found == [(4, 109), (8, 117)]
        part = held.buffer["scan/s"].index
        assert [int(np.count_nonzero(part < end)) for _, end in found] == [4, 8]


def test_each_count_once_across_restarts(held: Held) -> None:
    stream = writer(held.buffer, attrs={"progress_every": 5})
    put(stream, 0, 13)
    assert held.counts() == [5, 10]
    held.again()
    assert held.counts() == [5, 10]
    again = writer(held.buffer, attrs={"progress_every": 5}, resume=True)
    put(again, 0, 13)  # sent once more
    put(again, 13, 4)
    assert held.counts() == [5, 10, 15]
    again.close()
    assert held.counts() == [5, 10, 15]


def test_a_crash_between_the_blocks_and_their_event_makes_the_event_later(held: Held) -> None:
    """What the thread did not come to is told after the restart."""
    held.node.milestones.close()
    stream = writer(held.buffer, attrs={"progress_every": 5})
    put(stream, 0, 11)
    found = list(held.store.events(0, threading.Event(), follow=False))
    assert [event.kind for event in found] == []
    held.again()
    assert held.counts() == [5, 10]


def test_patterns_ask_by_watches_and_streams_by_attributes(held: Held) -> None:
    """One event for a count, whoever asked; counts that had passed when somebody first asked are not told."""
    one = writer(held.buffer, "one")
    other = writer(held.buffer, "other", attrs={"progress_every": 4})
    put(one, 0, 7)
    put(other, 0, 7)
    held.store.watch_streams([StreamWatch("scan/*", every=3)])
    put(one, 7, 5)
    put(other, 7, 5)
    found = [(event.stream, event.data["blocks"]) for event in held.events("stream.progress")]
    assert sorted(found) == [("one", 9), ("one", 12), ("other", 4), ("other", 8), ("other", 9), ("other", 12)]
    held.again()
    assert held.node.catalog.milestones.watches() == [StreamWatch("scan/*", every=3)]
    held.store.watch_streams([])
    put(writer(held.buffer, "one", resume=True), 12, 30)
    assert len(held.events("stream.progress")) == 6, "nobody asks any more"


def test_amended_wishes_hold_from_then_on(held: Held) -> None:
    stream = writer(held.buffer)
    put(stream, 0, 9)
    held.store.amend_stream(held.buffer["scan/s"].info.id, {"progress_every": 2})
    put(stream, 9, 3)
    assert held.counts() == [10, 12]


def test_a_stall_is_told_once_and_ends_with_the_next_block(held: Held) -> None:
    with writer(held.buffer, attrs={"stalled_after_s": 30}) as stream:
        put(stream, 0, 3)
        held.now_s += 29
        assert held.stalls() == []
        held.now_s += 2
        assert held.stalls() == [("scan/s", 30.0)]
        held.now_s += 1000
        assert len(held.stalls()) == 1
        put(stream, 3, 1)
        held.now_s += 29
        assert len(held.stalls()) == 1, "the clock runs from the newest block"
        held.now_s += 2
        assert len(held.stalls()) == 2
    held.now_s += 1000
    assert len(held.stalls()) == 2, "a final stream does not stall"
    assert [event.data["blocks"] for event in held.events("stream.stalled")] == [3, 4]


def test_the_clock_of_a_stall_starts_anew_with_the_process(held: Held) -> None:
    writer(held.buffer, "told", attrs={"stalled_after_s": 30})
    held.now_s += 20
    writer(held.buffer, "untold", attrs={"stalled_after_s": 30})
    held.now_s += 15
    assert held.stalls() == [("scan/told", 30.0)], "one that never got a block, too"
    held.again()
    held.now_s += 20
    assert held.stalls() == [("scan/told", 30.0)]
    held.now_s += 15
    assert held.stalls() == [("scan/told", 30.0), ("scan/untold", 30.0)], "and the stall that was told is the same one"


def test_a_pattern_wishes_for_stalls(held: Held) -> None:
    held.store.watch_streams([StreamWatch("scan/**", stalled_s=5.0), StreamWatch("scan/s", stalled_s=9.0)])
    writer(held.buffer)
    writer(held.buffer, "t")
    held.now_s += 6
    assert sorted(held.stalls()) == [("scan/s", 5.0), ("scan/t", 5.0)]
    held.now_s += 6
    assert len(held.stalls()) == 3


def test_what_a_job_stages_is_not_watched(held: Held) -> None:
    job = Buffer(LocalStore(held.node, Caller("job.1", "scan")))
    with writer(job, attrs={"progress_every": 2, "stalled_after_s": 1}) as stream:
        put(stream, 0, 6)
        held.now_s += 10
        assert held.events("stream.progress", "stream.stalled") == []


@pytest.mark.parametrize(
    "attrs", [{"progress_every": 0}, {"progress_every": 2.5}, {"progress_every": True}, {"stalled_after_s": "soon"}]
)
def test_wishes_that_are_no_numbers_are_refused(held: Held, attrs: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(attrs))):
        writer(held.buffer, attrs=attrs)


@pytest.mark.parametrize(
    ("event", "more", "said"),
    [
        ("stream.sealed", {"every": 3}, "stream.progress"),
        ("stream.progress", {"stalled_s": 3}, "stream.stalled"),
        ("stream.progress", {"every": 0}, "every is 0"),
        ("stream.progress", {"every": 3, "variables": {"blocks": 1}}, "blocks"),
    ],
)
def test_patterns_that_ask_for_nonsense(event: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidPattern, match=said):
        hiss.Pattern("p", "scan/*", "r", event=event, **more)


# ---- on a server


def events_of(buffer: Buffer, kind: str) -> list[Event]:
    return [event for event in buffer.store.events(0, threading.Event(), follow=False) if event.kind == kind]


def some(find: Callable[[], Sequence[Any]], count: int) -> list[Any]:
    wait_for(lambda: len(find()) >= count, 60)
    return list(find())


def test_progress_stalls_and_aborts_of_a_real_server(tmp_path: Path) -> None:
    """Killed in the middle: no count is told twice, and none is left out."""
    with DataProcess(tmp_path / "data") as server, server.connect() as buffer:
        buffer.store.watch_streams([StreamWatch("scan/*", every=5, stalled_s=0.05)])
        stream = writer(buffer)
        put(stream, 0, 12)
        some(lambda: events_of(buffer, "stream.progress"), 2)
        some(lambda: events_of(buffer, "stream.stalled"), 1)
        server.kill()
        server.start()
        put(stream, 12, 12)
        found = some(lambda: events_of(buffer, "stream.progress"), 4)
        assert [event.data["blocks"] for event in found] == [5, 10, 15, 20]
        stream.abort("enough")
        (aborted,) = some(lambda: events_of(buffer, "stream.aborted"), 1)
        assert aborted.path == "scan/s"
        stalls = [event.data["blocks"] for event in events_of(buffer, "stream.stalled")]
        assert 12 in stalls
        assert len(stalls) == len(set(stalls)), "once for each, the restart in between or not"
