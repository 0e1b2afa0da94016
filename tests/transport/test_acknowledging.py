"""How acknowledgements leave a server: at once where somebody waits for them, never an older one after a newer one, and
frames whole whoever sends them."""

from __future__ import annotations

import itertools
import random
import socket
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiss import limits
from hiss.errors import InvalidInput
from hiss.model import Ack, AckLevel, AppendStart, Feedback
from hiss.transport.append_call import Outbox
from hiss.transport.lane_call import LaneCall
from hiss.transport.lane_framing import prepare_socket, set_patience
from transport.test_lanes import replies_in

STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=40)  # which watermark rises, by how much


def acks_of(steps: list[tuple[int, int]]) -> list[Ack]:
    """Watermarks that rise, `received` before `written` before `durable`."""
    marks, out = [0, 0, 0], []
    for which, count in steps:
        marks[which] += count
        if which:
            marks[which] = min(marks[which], marks[which - 1])
        out.append(Ack(*marks))
    return out


@settings(max_examples=100, deadline=None)
@given(steps=STEPS, level=st.sampled_from([AckLevel.RECEIVED, AckLevel.DURABLE]), taken=st.lists(st.booleans()))
def test_what_is_told_only_rises_and_ends_with_the_last(
    steps: list[tuple[int, int]], level: AckLevel, taken: list[bool]
) -> None:
    told: list[Ack] = []
    saying = threading.Lock()
    takes = iter(taken)

    def tell_now(ack: Ack) -> bool:
        if not next(takes, True) or not saying.acquire(blocking=False):
            return False
        told.append(ack)
        saying.release()
        return True

    outbox = Outbox(tell_now)
    outbox.level = level

    def tell() -> None:
        for _ in outbox.rounds():
            with saying:
                told.extend(reply for reply in outbox.left() if isinstance(reply, Ack))

    teller = threading.Thread(target=tell)
    teller.start()
    acks = acks_of(steps)
    for ack in acks:
        outbox.acknowledge(ack)
    outbox.finish()
    teller.join(60)
    assert not teller.is_alive()
    for earlier, later in itertools.pairwise(told):
        assert earlier.received <= later.received
        assert earlier.written <= later.written
        assert earlier.durable <= later.durable
    assert told[-1:] == acks[-1:]


def test_what_a_producer_waits_for_is_told_by_the_thread_that_has_it() -> None:
    told: list[tuple[Ack, threading.Thread]] = []
    outbox = Outbox(lambda ack: not told.append((ack, threading.current_thread())))
    outbox.level = AckLevel.DURABLE
    for ack in (Ack(1, 0, 0), Ack(1, 1, 0), Ack(1, 1, 1), Ack(1, 1, 1)):
        outbox.acknowledge(ack)
    assert told == [(Ack(1, 1, 1), threading.current_thread())]


def test_what_nobody_waits_for_is_told_once_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ACK_LINGER_S", 60.0)
    outbox = Outbox()
    rounds = outbox.rounds()
    outbox.acknowledge(Ack(1, 0, 0))
    assert next(rounds)
    assert outbox.left() == [Ack(1, 0, 0)], "the producer has credit for it: at once"
    for ack in (Ack(1, 1, 0), Ack(1, 1, 1)):
        outbox.acknowledge(ack)
    monkeypatch.setattr(limits, "ACK_LINGER_S", 0.01)
    assert next(rounds)
    assert outbox.left() == [Ack(1, 1, 1)]
    outbox.acknowledge(Ack(1, 1, 1))
    outbox.feed_back(Feedback("stop", 0))
    monkeypatch.setattr(limits, "ACK_LINGER_S", 60.0)
    assert next(rounds), "feedback does not linger, and takes along what does"
    assert outbox.left() == [Feedback("stop", 0), Ack(1, 1, 1)]


def test_nothing_is_told_past_an_error() -> None:
    told: list[Ack] = []
    outbox = Outbox(lambda ack: not told.append(ack))
    outbox.fail(InvalidInput("no"))
    outbox.acknowledge(Ack(1, 0, 0))
    assert told == []


class Niggard(socket.socket):
    """Takes a part of what it need not wait for, as a full socket may."""

    random = random.Random(1)

    def send(self, data: Any, flags: int = 0) -> int:
        assert flags & socket.MSG_DONTWAIT
        return super().send(data[: self.random.randrange(len(data) + 1)] if self.random.random() < 0.3 else data, flags)


def test_frames_are_whole_where_the_peer_takes_a_part_of_them() -> None:
    """The one thread goes on where the other stopped, with what it says itself behind that."""
    ours, theirs = socket.socketpair()
    niggard = Niggard(fileno=ours.detach())
    prepare_socket(niggard)
    set_patience(niggard, 60.0, 60.0)
    call = LaneCall(niggard, "lane", lambda _: None)  # type: ignore[arg-type,return-value]  # it is not asked
    teller = threading.Thread(target=call._reply, args=(AppendStart(1, 0, (), "boot"),))
    stream: list[bytes] = []

    def read() -> None:
        while piece := theirs.recv(65536):
            stream.append(piece)

    reader = threading.Thread(target=read)
    teller.start()
    reader.start()
    count = parts = 0
    while parts < 100 and count < 100_000:
        count += 1
        call._outbox.acknowledge(Ack(count, 0, 0))
        parts += bool(call._unsaid)
    call._outbox.finish()
    teller.join(60)
    reader.join(60)
    assert not teller.is_alive()
    assert not reader.is_alive()
    niggard.close()
    theirs.close()
    assert parts == 100, "else this test sees nothing"
    found = replies_in(b"".join(stream))
    assert isinstance(found[0], AppendStart)
    assert found[-1] is None, "END"
    received = [reply[0].received for reply in found[1:-1]]
    assert received == sorted(received)
    assert received[-1] == count
