"""A producer's short ways: memory that is lent instead of copied, small extents that the user's own thread writes.

What is written so is what the long way writes: the suite runs on the main thread, which takes that one."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hiss
from hiss import limits
from hiss.client import Buffer
from hiss.errors import BlockConflict, DigestMismatch, HissError, ProducerFenced, SpecMismatch, StreamFinal
from hiss.extent import block_digests
from hiss.limits import KiB, MiB
from hiss.testing.conformance import wait_for
from hiss.writer import StreamWriter


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    with hiss.open(tmp_path / "data", arena_bytes=64 * MiB, segment_bytes=64 * MiB, backend="numpy") as buffer:
        yield buffer


def beside(work: Callable[[], Any]) -> Any:
    """What `work` returns, or raises, on a thread that is not the main one."""
    done: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    if failed:
        raise failed[0]
    return done[0]


# ---- lent


def test_a_lent_block_is_not_copied(buffer: Buffer) -> None:
    block = np.ones(8 * MiB, "u1")
    peaks = {}
    for copy in (True, False):
        spec = {"dtype": "u1", "shape": block.shape, "overload": "drop"}  # with a policy it does not wait for a slot
        with buffer.collection("c").create_stream(f"s{copy}", **spec) as s:
            tracemalloc.start()
            try:
                s.append(block, copy=copy)
                s.flush()
                _, peaks[copy] = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert peaks[True] >= block.nbytes, "else this test sees nothing"
    assert peaks[False] < block.nbytes // 2


@pytest.mark.parametrize("how", ["append", "extend"])
@pytest.mark.parametrize("copy", [True, False])
def test_a_block_that_changes_before_it_travels_is_refused_when_it_was_lent(
    buffer: Buffer, how: str, copy: bool
) -> None:
    block = np.ones((1, limits.DIRECT_BYTES + 1), "u1")
    s = buffer.collection("c").create_stream("s", dtype="u1", shape=block.shape[1:], linger_s=0.0)
    with s._session._sending:  # type: ignore[attr-defined]  # it does not travel yet
        s.extend(block, copy=copy) if how == "extend" else s.append(block[0], copy=copy)
        block[0, 7] = 2
    if copy:
        s.seal()
        assert np.asarray(buffer["c/s"]).max() == 1
        return
    with pytest.raises(DigestMismatch, match="block 0"):
        s.flush()
    s.abort("changed")
    assert buffer["c/s"].info.completeness.blocks == 0, "nothing of it is there"


def test_a_lent_block_may_change_after_its_ack(buffer: Buffer) -> None:
    block = np.zeros(MiB, "u1")
    with buffer.collection("c").create_stream("s", dtype="u1", shape=block.shape) as s:
        for k in range(6):
            block[:] = k
            s.append(block, copy=False)
            s.flush()
    assert np.asarray(buffer["c/s"])[:, 0].tolist() == list(range(6))


ALIKE = st.tuples(st.integers(0, 9), st.integers(0, 6)).map(lambda pair: [pair[0]] * pair[1])


@given(st.lists(st.integers(0, 9), max_size=6) | ALIKE)
def test_digests_of_blocks_of_one_length_are_those_of_any(lengths: list[int]) -> None:
    data = np.arange(sum(lengths), dtype="u1")
    ends = np.cumsum([0, *lengths]).tolist()
    wanted = [xxhash.xxh3_64_intdigest(data[a:b].tobytes()) for a, b in itertools.pairwise(ends)]
    assert block_digests(data, np.array(lengths, np.int64)).tolist() == wanted


def test_an_array_is_no_opaque_block_whatever_its_shape(buffer: Buffer) -> None:
    with buffer.collection("c").create_stream("s") as s:
        with pytest.raises(SpecMismatch, match="takes bytes"):
            s.append(np.array(3, "u1"))
        with pytest.raises(SpecMismatch, match="takes bytes"):
            s.append(np.zeros(3, "u1"))


# ---- written by the user's own thread


def threads_of(path: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if path in thread.name]


def test_small_extents_need_no_thread_and_the_main_thread_never_writes_itself(buffer: Buffer) -> None:
    block = np.ones((10, 4 * KiB), "u1")

    def write(name: str) -> list[str]:
        with buffer.collection("c").create_stream(name, dtype="u1", shape=block.shape[1:]) as s:
            s.extend(block)
            s.flush()
            return threads_of(f"c/{name}")

    assert beside(lambda: write("aside")) == []
    assert write("main") == ["writer c/main"]
    assert np.array_equal(np.asarray(buffer["c/aside"]), np.asarray(buffer["c/main"]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("extend"), st.integers(1, 12)),
            st.tuples(st.just("large"), st.integers(70, 90)),
            st.tuples(st.just("append"), st.integers(1, 3)),
            st.tuples(st.just("gap"), st.integers(1, 5)),
            st.tuples(st.just("lend"), st.integers(1, 3)),
            st.tuples(st.just("flush"), st.just(0)),
        ),
        max_size=8,
    )
)
def test_whatever_way_blocks_go_they_come_back_in_their_order(buffer: Buffer, steps: list[tuple[str, int]]) -> None:
    collection = buffer.collection("c")

    def write() -> tuple[list[int], StreamWriter]:
        wanted: list[int] = []
        with collection.create_stream("s", dtype="u4", shape=(KiB,), new_version=True) as s:
            for step, count in steps:
                index = np.arange(s.next_index, s.next_index + count)
                blocks = np.repeat(index.astype("u4")[:, None], KiB, axis=1)
                if step == "gap":
                    s.gap(int(index[0]), int(index[-1]))
                    continue
                if step == "flush":
                    s.flush()
                elif step in ("extend", "large"):
                    s.extend(blocks)
                else:
                    for block in blocks:
                        s.append(block, copy=step == "append")
                wanted += index.tolist()
        return wanted, s

    wanted, writer = beside(write)
    stream = buffer["c/s"]
    assert stream.index.tolist() == wanted
    assert [int(block[0]) for block in stream[:]] == wanted if wanted else True
    assert writer.acknowledged >= len(wanted)


def test_what_goes_wrong_on_the_short_way_is_raised(buffer: Buffer) -> None:
    def conflict() -> None:
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(4,))
        s.extend(np.zeros((2, 4), "u1"))
        s.extend(np.ones((1, 4), "u1"), index=[1])
        s.flush()

    with pytest.raises(BlockConflict, match="block 1"):
        beside(conflict)


def test_a_producer_on_the_short_way_is_fenced_and_stopped(buffer: Buffer) -> None:
    collection = buffer.collection("c")
    blocks = np.zeros((2, 4), "u1")

    def go_on(writer: StreamWriter) -> None:
        while True:
            writer.extend(blocks)

    first = beside(lambda: collection.create_stream("s", dtype="u1", shape=(4,)))
    beside(lambda: first.extend(blocks))
    second = collection.create_stream("s", dtype="u1", shape=(4,), resume=True)
    with pytest.raises(ProducerFenced):
        beside(lambda: go_on(first))
    running = threading.Event()
    over: list[HissError] = []

    def until_it_is_over() -> None:
        try:
            while True:
                second.extend(blocks)
                running.set()
        except HissError as error:
            over.append(error)

    thread = threading.Thread(target=until_it_is_over)
    thread.start()
    assert running.wait(60)
    buffer.store.seal_stream(second.info.id)
    thread.join(60)
    assert isinstance(over[0], StreamFinal)
    assert buffer["c/s"].info.completeness.gaps == 0
    used = buffer.store._node.storage.usage  # type: ignore[attr-defined]
    wait_for(lambda: used().arena_free_bytes == buffer.store.status().arena_bytes)
