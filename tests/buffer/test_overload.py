"""Overload policies under random stalls, breaks and restarts: every block is stored as it was, or in the ledger.

It stands there with the policy's name, and nothing else is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hiss
from hiss import limits
from hiss.client import Buffer
from hiss.errors import InvalidInput, Unavailable
from hiss.limits import KiB, MiB
from hiss.model import BlockStatus
from hiss.overload import Overload, OverloadPolicy
from hiss.testing.conformance import stalled, wait_for
from hiss.testing.processes import DataProcess
from hiss.writer import StreamWriter

SIZE = 512 * KiB
REASONS = {"drop": "shed: drop", "prescale:3": "shed: prescale"}
_names = count()


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buffer]:
    data = tmp_path_factory.mktemp("overload")
    with hiss.open(data, arena_bytes=16 * MiB, segment_bytes=8 * MiB, backend="numpy") as buffer:
        yield buffer


def cut_off(writer: StreamWriter) -> None:
    """The connection breaks: what was not acknowledged is sent again."""
    writer._on_error(writer._generation, Unavailable("cut"))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 12)),
        st.tuples(st.just("extend"), st.integers(1, 12)),
        st.tuples(st.just("stall"), st.just(0)),
        st.tuples(st.just("go on"), st.just(0)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("skip"), st.integers(1, 5)),
    ),
    max_size=25,
)


@given(st.sampled_from(sorted(REASONS)), STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stored_and_shed_are_what_was_offered(buffer: Buffer, overload: str, steps: list[tuple[str, int]]) -> None:
    name = f"s{next(_names)}"
    offered: list[int] = []
    s = buffer.collection("o").create_stream(name, dtype="u1", shape=(SIZE,), overload=overload, patience_s=0.0)
    with ExitStack() as stall:
        for what, number in steps:
            following = range(s.next_index, s.next_index + number)
            if what == "append":
                for index in following:
                    s.append(np.full(SIZE, index, "u1"))
                offered += following
            elif what == "extend":
                s.extend(np.stack([np.full(SIZE, index, "u1") for index in following]))
                offered += following
            elif what == "stall":
                stall.enter_context(stalled(s))
            elif what == "go on":
                stall.close()
            elif what == "cut":
                cut_off(s)
            else:
                s.next_index += number
    s.seal()
    stream = buffer[f"o/{name}"]
    stored = stream.index.tolist()
    shed = [
        i for entry in stream.ledger if entry.reason == REASONS[overload] for i in range(entry.first, entry.last + 1)
    ]
    assert sorted(stored + shed) == offered
    assert {entry.reason for entry in stream.ledger} <= {REASONS[overload], "never received"}
    assert len(shed) == s.shed_blocks
    assert all((block.data == block.index % 256).all() for block in stream)
    assert s.acknowledged == len(offered)
    if overload != "drop":
        under = [index for index in shed if index % 3]
        assert len(under) >= len(shed) // 2, "it is the others that go"
    buffer.store.delete_stream(stream.info.id)


def test_a_long_stall_takes_little_memory(buffer: Buffer) -> None:
    """A million shed blocks are one range until they are told."""
    s = buffer.collection("o").create_stream("long", dtype="u1", shape=(SIZE,), overload="drop", patience_s=0.0)
    block = np.zeros(SIZE, "u1")
    with stalled(s):
        for _ in range(200):
            s.append(block)
        assert s.shed_blocks > 150
        assert len(s._ready) < 12
        s.gap(s.next_index, s.next_index + limits.GAP_BLOCKS_MAX - 1)
        assert len(s._ready) < 13
    s.seal()
    whole = buffer["o/long"].info.completeness
    assert whole.blocks + whole.gaps == 200 + limits.GAP_BLOCKS_MAX
    assert [entry.reason for entry in whole.ledger] == ["shed: drop", "declared missing"]


def test_the_reason_survives_a_killed_server(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with DataProcess(tmp_path / "data") as server:
        with server.connect() as buffer:
            s = buffer.collection("c").create_stream(
                "s", dtype="u1", shape=(2 * MiB,), overload="prescale:5", patience_s=0.0
            )
            with stalled(s):
                for index in range(60):
                    s.append(np.full(2 * MiB, index, "u1"))
                server.kill()
            server.start()
            s.flush()
            server.kill()
            server.start()
            s.close()
            shed = s.shed_blocks
        assert shed > 0
        server.kill()
        server.start()
        with server.connect() as buffer:
            whole = buffer["c/s"].info.completeness
            assert {(entry.stage, entry.reason) for entry in whole.ledger} == {("producer", "shed: prescale")}
            assert (whole.blocks, whole.gaps) == (60 - shed, shed)


def test_patience_is_how_long_a_producer_waits(buffer: Buffer) -> None:
    """With time to spare, a stall that ends soon costs nothing."""
    import threading

    s = buffer.collection("o").create_stream("patient", dtype="u1", shape=(SIZE,), overload="drop", patience_s=60.0)
    thread = threading.Thread(target=lambda: [s.append(np.zeros(SIZE, "u1")) for _ in range(20)])
    with stalled(s):
        thread.start()
        wait_for(lambda: s.next_index >= 7)
    thread.join(60)
    s.seal()
    assert s.shed_blocks == 0


def test_policies_as_users_write_them() -> None:
    assert Overload.parse("wait") == Overload()
    assert Overload.parse("prescale:10", 0.5) == Overload(OverloadPolicy.PRESCALE, 10, 0.5)
    assert Overload.parse("drop").status is BlockStatus.DROPPED
    assert Overload.parse(Overload(OverloadPolicy.DROP, patience_s=3.0)).patience_s == 3.0
    with pytest.raises(InvalidInput, match="patience_s"):
        Overload.parse("drop", -1.0)


def test_without_the_declaration_blocks_go_missing(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a writer that sheds and does not say so leaves indices that nobody accounts for by name."""
    monkeypatch.setattr(StreamWriter, "_declare", lambda *_: None)
    s = buffer.collection("o").create_stream("silent", dtype="u1", shape=(SIZE,), overload="drop", patience_s=0.0)
    with stalled(s):
        for _ in range(40):
            s.append(np.zeros(SIZE, "u1"))
    s.flush()
    s.append(np.zeros(SIZE, "u1"))
    s.seal()
    assert s.shed_blocks
    assert {entry.reason for entry in buffer["o/silent"].ledger} == {"never received"}
