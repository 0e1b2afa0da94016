"""What every buffer does for those who read while others write, and say something to them: parts of `conformance`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import hiss
from hiss import errors, limits
from hiss.client import Buffer
from hiss.model import BoundKernel, KernelDef, KernelKind
from hiss.testing.waiting import wait_for

PAGE = np.zeros((4, 6), "uint16")


@hiss.filter
def lit(frame, least=5):  # type: ignore[no-untyped-def]
    return np.max(frame) >= least


@hiss.kernel
def halved(frame):  # type: ignore[no-untyped-def]
    return frame // 2


def told(writer: Any, count: int) -> list[Any]:
    """The next `count` messages to a producer, whichever of them come together."""
    found: list[Any] = []

    def enough() -> bool:
        found.extend(writer.feedback())
        return len(found) >= count

    wait_for(enough)
    return found


class FeedbackConformance:
    """Feedback. Subclassed with a fixture `buffer`, an empty `client.Buffer`."""

    def test_feedback_comes_in_order_and_only_json(self, buffer: Buffer) -> None:
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(1,))
        stream = buffer["c/s"]
        messages: list[Any] = [{"veto_rate": 0.5}, "stop", [1, None, True], {"deep": {"er": [1.5]}}]
        assert all(stream.send_feedback(message) for message in messages)
        assert told(s, len(messages)) == messages
        for wrong in (b"bytes", {"a": object()}):
            with pytest.raises(errors.HissError, match=r"JSON|serializable"):
                stream.send_feedback(wrong)
        with pytest.raises(errors.LimitExceeded):
            stream.send_feedback("x" * limits.FEEDBACK_BYTES_MAX)
        s.close()
        assert not stream.send_feedback("anybody?")

    def test_kernels_tell_the_producer_how_they_fare(self, buffer: Buffer) -> None:
        kernels = [halved.bind(), lit.bind(least=5, feedback_every=10), lit.bind(least=8, shadow=True)]
        kernels[2] = BoundKernel(
            KernelDef("brighter", KernelKind.FILTER, kernels[2].kernel.source.replace("def lit", "def brighter")),
            kernels[2].params,
            shadow=True,
            feedback_every=10,
        )
        levels = [0, 12, 20, 30, 0] * 4  # halved: two of five below 5, three of five below 10
        scan = buffer.collection("c")
        s = scan.create_stream("s", dtype="uint16", shape=(4, 6), kernels=kernels, linger_s=60.0)
        for turn in range(2):
            for level in levels[:10]:
                s.append(PAGE + level)
            s.flush()
            messages = told(s, 1 + turn)  # the shadow has seen 6 and then 12 of the 10 that it waits for
            wait_for(lambda seen=6 * (turn + 1): scan["s"].info.shadows[0].report.get("blocks") == seen)
            assert messages[0] == {"kernel": "lit", "blocks": 10, "vetoed": 4, "failed": 0, "veto_rate": 0.4}
        assert messages[1] == {
            "kernel": "brighter", "shadow": True, "blocks": 12, "vetoed": 4, "failed": 0, "veto_rate": 1 / 3
        }  # fmt: skip
        assert buffer["c/s"].info.stages[1].feedback_every == 10
        s.close()

    def test_one_message_covers_an_extent_that_brings_more(self, buffer: Buffer) -> None:
        kernels = [lit.bind(feedback_every=3)]
        with buffer.collection("c").create_stream("s", dtype="uint16", shape=(4, 6), kernels=kernels) as s:
            s.extend(np.stack([PAGE, PAGE + 9, PAGE, PAGE, PAGE]))
            s.flush()
            assert told(s, 1) == [{"kernel": "lit", "blocks": 5, "vetoed": 4, "failed": 0, "veto_rate": 0.8}]
            s.append(PAGE)
            s.flush()
            assert s.feedback() == []

    def test_a_quarantine_is_told_to_the_producer(self, buffer: Buffer) -> None:
        kernel = halved.bind(budget_s=1e-9)
        with buffer.collection("c").create_stream("s", dtype="uint16", shape=(4, 6), kernels=[kernel]) as s:
            for _ in range(limits.KERNEL_FAULTS_MAX):
                s.append(PAGE)
                s.flush()
            assert told(s, 1) == [{"kernel": "halved", "quarantined": True}]

    def test_a_reduction_has_nothing_to_tell_before_the_seal(self, buffer: Buffer) -> None:
        del buffer
        mean = KernelDef("mean", KernelKind.REDUCE, "")
        with pytest.raises(errors.InvalidInput, match="not of a reduction"):
            BoundKernel(mean, feedback_every=5)
        with pytest.raises(errors.InvalidInput, match="number of blocks"):
            halved.bind(feedback_every=-1)


class SharingConformance:
    """Consumer groups, which no lane has a part in: for the embedded buffer and the one behind gRPC."""

    def test_members_share_a_stream_while_it_is_written(self, buffer: Buffer) -> None:
        s = buffer.collection("c").create_stream("s", dtype="u2", shape=(3,), columns={"n": "i4"})
        seen: list[list[int]] = [[], [], []]

        def consume(member: int, blocks: int) -> None:
            for block in buffer["c/s"].share("g", blocks=blocks):
                assert block.data.tolist() == [block.index] * 3
                assert block.columns["n"] == np.asarray(block)[0]
                seen[member].append(block.index)
                assert block.done()

        members = [threading.Thread(target=consume, args=(k, blocks)) for k, blocks in enumerate((1, 2, 7))]
        for member in members:
            member.start()
        for first in (0, 30, 60):
            for index in range(first, first + 30):
                s.append(np.full(3, index, "u2"), n=index)
            s.flush()
            wait_for(lambda end=first + 30: sum(map(len, seen)) == end)
        assert all(member.is_alive() for member in members), "an open stream goes on"
        s.close()
        for member in members:
            member.join(60)
            assert not member.is_alive()
        assert sorted(index for mine in seen for index in mine) == list(range(90)), "each block once"
        (group,) = buffer.store.consumer_groups(s.info.id)
        assert (group.name, group.acknowledged, group.held, group.left) == ("g", 90, 0, 0)

    def test_every_group_has_the_stream_to_itself(self, buffer: Buffer) -> None:
        self.numbered(buffer, 5)
        stream = buffer["c/s"]
        for name in ("one", "two"):
            assert [block.index for block in acknowledged(stream.share(name))] == [0, 1, 2, 3, 4]
            assert list(stream.share(name)) == [], "it is done with the stream"
        assert [group.name for group in buffer.store.consumer_groups(stream.info.id)] == ["one", "two"]
        buffer.store.delete_consumer_group(stream.info.id, "one")
        assert len(list(acknowledged(stream.share("one")))) == 5, "a new group of the name starts anew"
        for wrong in ("", "a/b", "x" * 200):
            with pytest.raises(errors.InvalidName):
                stream.share(wrong)
        with pytest.raises(errors.NotFound, match="no consumer group"):
            buffer.store.delete_consumer_group(stream.info.id, "three")

    def test_what_is_not_acknowledged_in_time_goes_to_another(self, buffer: Buffer) -> None:
        self.numbered(buffer, 3)
        stream = buffer["c/s"]
        slow = next(stream.share("g", timeout_s=0.05))
        assert slow.index == 0
        seen = [block.index for block in acknowledged(stream.share("g", timeout_s=60.0))]
        assert seen in ([0, 1, 2], [1, 0, 2], [1, 2, 0])
        assert slow.done(), "it is done, by whomever"
        late = next(stream.share("h", timeout_s=0.05))
        other = stream.share("h", timeout_s=60.0)
        taken = [next(other) for _ in range(3)]
        assert 0 in [block.index for block in taken]
        assert not late.done(), "another member has it now"
        assert all(block.done() for block in taken)

    def test_what_is_given_back_goes_out_again_at_once(self, buffer: Buffer) -> None:
        self.numbered(buffer, 4)
        stream = buffer["c/s"]
        with stream.share("g", blocks=3) as first:
            kept, back, _ = next(first.batches())
            back.release()
            with stream.share("g") as second:
                assert next(second).index == back.index == 1
            assert kept.done()
        assert [block.index for block in acknowledged(stream.share("g"))] == [1, 2, 3], "of members that left"

    def test_a_batch_is_acknowledged_in_one_call(self, buffer: Buffer) -> None:
        self.numbered(buffer, 10)
        with buffer["c/s"].share("g", blocks=4) as share:
            sizes = []
            for batch in share.batches():
                sizes.append(len(batch))
                assert share.done(*batch) == []
        assert sizes == [4, 4, 2]

    @pytest.mark.parametrize("keep", ["result", "raw", "both"])
    def test_members_get_what_a_reader_gets(self, buffer: Buffer, keep: str) -> None:
        kernels = [halved, lit.bind(least=5)]
        scan = buffer.collection("c")
        with scan.create_stream("s", dtype="u2", shape=(4, 6), keep=keep, kernels=kernels) as s:
            for index in (3, 4, 6, 9, 5):  # a late one, and two that never come
                s.append(PAGE + 4 * (index % 4), index=index)
            s.gap(10, 12)
        got = {block.index: block.data for block in acknowledged(scan["s"].share("g", blocks=2))}
        assert sorted(got) == scan["s"].index.tolist() == [3]
        assert np.array_equal(got[3], scan["s"][3])
        raw = [block.index for block in acknowledged(scan["s"].raw.share("g"))]
        assert raw == scan["s"].raw.index.tolist()

    def test_opaque_and_empty_streams_are_shared_too(self, buffer: Buffer) -> None:
        with buffer.collection("c").create_stream("s") as s:
            s.append(b"one")
            s.append(b"")
        assert [block.data for block in acknowledged(buffer["c/s"].share("g"))] == [b"one", b""]
        buffer.collection("c").create_stream("none", dtype="u1", shape=(1,)).close()
        assert list(buffer["c/none"].share("g")) == []

    @staticmethod
    def numbered(buffer: Buffer, count: int) -> None:
        with buffer.collection("c").create_stream("s", dtype="u2", shape=(1,)) as s:
            s.extend(np.arange(count, dtype="u2")[:, None])


def acknowledged(share: Any) -> Iterator[Any]:
    """The blocks of a share, each acknowledged before the next one is taken."""
    for block in share:
        yield block
        assert block.done()
