"""What every buffer does for those who read while others write, and say something to them: a part of `conformance`."""

from __future__ import annotations

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


class ConsumerConformance:
    """Feedback and consumers. Subclassed with a fixture `buffer`, an empty `client.Buffer`."""

    # ---- feedback

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
