"""What every buffer does, whatever is between it and its user: one suite for embedded, gRPC, and lanes to come.

Subclass `BufferConformance` in a test module and give it a fixture `buffer`, an empty `client.Buffer`. pytest is
imported by this module, so it is for tests only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import hiss
from hiss import errors
from hiss.client import Buffer
from hiss.drain_policy import DrainPolicy, DrainState, DrainTarget
from hiss.model import AckLevel, Selection, StreamState
from hiss.testing.archived import ArchiveConformance
from hiss.testing.attachments import AttachmentConformance
from hiss.testing.consumers import FeedbackConformance
from hiss.testing.tokens import TokenConformance
from hiss.testing.waiting import wait_for as wait_for
from hiss.writer import StreamWriter


@hiss.kernel
def double(frame, gain=2):  # type: ignore[no-untyped-def]
    return frame * gain


@hiss.kernel
def corrected(frame, dark, flat):  # type: ignore[no-untyped-def]
    return (frame.astype(np.float32) - dark) / np.maximum(flat - dark, 1)


@hiss.filter
def bright(frame, least=10):  # type: ignore[no-untyped-def]
    return np.count_nonzero(frame >= least) >= 1


@hiss.kernel
def bin2(frame):  # type: ignore[no-untyped-def]
    return frame[::2, ::2] + frame[1::2, ::2] + frame[::2, 1::2] + frame[1::2, 1::2]


def frames(count: int, shape: tuple[int, ...] = (4, 6), dtype: str = "uint16", seed: int = 1) -> npt.NDArray[Any]:
    """Reproducible frames `(count, *shape)`, each pixel below 10."""
    return np.random.default_rng(seed).integers(0, 10, (count, *shape)).astype(dtype)


class BufferConformance(AttachmentConformance, ArchiveConformance, FeedbackConformance, TokenConformance):
    """The suite."""

    # ---- streams and blocks

    @pytest.mark.parametrize("ack", ["received", "written", "durable"])
    def test_blocks_come_back_byte_for_byte(self, buffer: Buffer, ack: str) -> None:
        data = frames(37)
        with buffer.collection("a/b").create_stream("s", dtype="uint16", shape=(4, 6), ack=ack) as s:
            for frame in data:
                s.append(frame)
        stream = buffer["a/b/s"]
        assert np.array_equal(np.asarray(stream), data)
        assert stream.shape == (37, 4, 6)
        assert stream.info.state is StreamState.SEALED
        assert not stream.ledger
        assert np.array_equal(stream[5], data[5])
        assert np.array_equal(stream[3:9], data[3:9])
        assert np.array_equal(stream[::5], data[::5])

    def test_extend_equals_append(self, buffer: Buffer) -> None:
        data, angle = frames(50), np.linspace(0, 180, 50)
        scan = buffer.collection("scan")
        with scan.create_stream("one", dtype="uint16", shape=(4, 6), columns={"angle": "f8 deg"}) as s:
            for frame, value in zip(data, angle, strict=True):
                s.append(frame, angle=value, time_ns=7)
        with scan.create_stream("all", dtype="uint16", shape=(4, 6), columns={"angle": "f8 deg"}) as s:
            s.extend(data, angle=angle, time_ns=np.full(50, 7))
        one, every = scan["one"], scan["all"]
        assert np.array_equal(np.asarray(one), np.asarray(every))
        assert np.array_equal(one.columns["angle"], angle)
        assert np.array_equal(every.columns["angle"], angle)
        assert np.array_equal(one.time_ns, every.time_ns)
        assert one.info.digest == every.info.digest, "the same blocks have the same digest, however they were cut"

    def test_blocks_that_are_lent_come_back_as_copied_ones_do(self, buffer: Buffer) -> None:
        data = frames(40)
        data[:, 0, 0] = np.arange(40)
        with buffer.collection("c").create_stream("s", dtype="uint16", shape=(4, 6), columns={"angle": "f8"}) as s:
            for k in range(10):
                s.append(data[k], copy=bool(k % 3), angle=k)
            s.extend(data[10:20], copy=False, angle=np.arange(10, 20))
            s.append(data[20, :, :].T.copy().T, copy=False, angle=20)  # not in a row: copied all the same
            s.extend(np.asfortranarray(data[21:]), copy=False, angle=np.arange(21, 40))
            s.flush()
            assert s.acknowledged == 40
        assert np.array_equal(np.asarray(buffer["c/s"]), data)
        assert buffer["c/s"].columns["angle"].tolist() == list(range(40))

    def test_any_first_index_and_jumps_are_gaps(self, buffer: Buffer) -> None:
        with buffer.collection("c").create_stream("s", dtype="u1", shape=(3,)) as s:
            for index in (5, 6, 9):
                s.append(np.full(3, index, "u1"), index=index)
        stream = buffer["c/s"]
        assert stream.index.tolist() == [5, 6, 9]
        assert [(entry.first, entry.last, entry.reason) for entry in stream.ledger] == [(7, 8, "never received")]
        with pytest.raises(errors.BlockMissing, match="never received"):
            stream[7]
        with pytest.raises(errors.BlockMissing, match="5 to 9"):
            stream[4]
        assert "2 gaps" in str(s.report())

    def test_a_late_block_fills_its_gap(self, buffer: Buffer) -> None:
        with buffer.collection("c").create_stream("s", dtype="u1", shape=(1,)) as s:
            for index in (0, 2, 1):
                s.append(np.array([index], "u1"), index=index)
        assert np.asarray(buffer["c/s"]).ravel().tolist() == [0, 1, 2]

    def test_a_declared_end_shows_the_missing_tail(self, buffer: Buffer) -> None:
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(1,))
        s.append(np.zeros(1, "u1"))
        info = s.seal(end_index=4)
        assert info.completeness.gaps == 3
        assert (info.completeness.ledger[0].first, info.completeness.ledger[0].last) == (1, 3)

    def test_declared_gaps_say_why(self, buffer: Buffer) -> None:
        with buffer.collection("c").create_stream("s", dtype="u1", shape=(1,)) as s:
            s.append(np.zeros(1, "u1"))
            s.gap(1, 5000)
            s.gap(5001, 5001, shed=True)
            s.append(np.zeros(1, "u1"))
        ledger = buffer["c/s"].ledger
        assert [(entry.first, entry.last, entry.reason) for entry in ledger] == [
            (1, 5000, "declared missing"),
            (5001, 5001, "shed"),
        ]

    def test_opaque_bytes(self, buffer: Buffer) -> None:
        parts = [b"", b"x", b"hello" * 1000]
        with buffer.collection("c").create_stream("s") as s:
            for part in parts:
                s.append(part)
        assert buffer["c/s"][:] == parts
        assert buffer["c/s"][2] == parts[2]

    def test_a_variable_first_dimension(self, buffer: Buffer) -> None:
        packets = [np.arange(3 * n, dtype="<i4").reshape(n, 3) for n in (0, 1, 5)]
        with buffer.collection("c").create_stream("s", dtype="i4", shape=(None, 3)) as s:
            for packet in packets:
                s.append(packet)
        assert all(np.array_equal(a, b) for a, b in zip(buffer["c/s"][:], packets, strict=True))
        with pytest.raises(errors.SpecMismatch, match="variable"):
            np.asarray(buffer["c/s"])

    def test_zero_dimensional_blocks_and_every_kind_of_column(self, buffer: Buffer) -> None:
        columns = {"f": "f4 mm", "i": "i8", "b": "?", "s": "S4"}
        with buffer.collection("c").create_stream("s", dtype="f8", shape=(), columns=columns) as s:
            s.append(np.float64(1.5), f=2.5, i=-1, b=True, s=b"ab")
        stream = buffer["c/s"]
        assert np.asarray(stream).tolist() == [1.5]
        assert {name: values[0] for name, values in stream.columns.items()} == {
            "f": 2.5,
            "i": -1,
            "b": True,
            "s": b"ab",
        }

    def test_an_empty_stream_is_complete(self, buffer: Buffer) -> None:
        buffer.collection("c").create_stream("s", dtype="u2", shape=(2, 2)).close()
        stream = buffer["c/s"]
        assert np.asarray(stream).shape == (0, 2, 2)
        assert stream.latest() is None
        assert stream.info.completeness.first_index is None

    def test_attributes_are_amended_until_the_stream_is_final(self, buffer: Buffer) -> None:
        s = buffer.collection("c", attrs={"sample": "foam"}).create_stream("s", dtype="u1", shape=(1,), attrs={"a": 1})
        buffer.store.amend_stream(s.info.id, {"b": [2, 3]})
        assert dict(buffer["c/s"].attrs) == {"a": 1, "b": [2, 3]}
        s.close()
        with pytest.raises(errors.StreamFinal):
            buffer.store.amend_stream(s.info.id, {"b": 4})
        buffer.collection("c", attrs={"more": True})
        assert dict(buffer["c"].attrs) == {"sample": "foam", "more": True}

    # ---- the life of a stream

    def test_an_exception_aborts(self, buffer: Buffer) -> None:
        def acquire() -> None:
            with buffer.collection("c").create_stream("s", dtype="u1", shape=(1,)) as s:
                s.append(np.ones(1, "u1"))
                raise RuntimeError("the detector stopped")

        with pytest.raises(RuntimeError):
            acquire()
        stream = buffer["c/s"]
        assert stream.info.state is StreamState.ABORTED
        assert "the detector stopped" in stream.info.abort_reason
        assert np.asarray(stream).tolist() == [[1]]

    def test_names_are_taken_and_versions_are_new(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        for value in (1, 2):
            with scan.create_stream("s", dtype="u1", shape=(1,), new_version=value > 1) as s:
                s.append(np.full(1, value, "u1"))
        with pytest.raises(errors.AlreadyExists, match="c/s"):
            scan.create_stream("s", dtype="u1", shape=(1,))
        assert np.asarray(buffer["c/s"]).tolist() == [[2]]
        assert np.asarray(buffer.stream("c/s", 1)).tolist() == [[1]]
        assert [info.version for info in buffer.store.streams("c", all_versions=True)] == [1, 2]

    def test_resume_goes_on_where_the_stream_stands(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        s = scan.create_stream("s", dtype="u1", shape=(1,))
        s.append(np.zeros(1, "u1"))
        s.detach()
        with scan.create_stream("s", dtype="u1", shape=(1,), resume=True) as s:
            assert s.next_index == 1
            s.append(np.ones(1, "u1"))
        assert np.asarray(buffer["c/s"]).tolist() == [[0], [1]]
        with pytest.raises(errors.StreamFinal):
            scan.create_stream("s", dtype="u1", shape=(1,), resume=True)

    def test_resume_as_something_else_is_refused(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        scan.create_stream("s", dtype="u1", shape=(1,)).detach()
        with pytest.raises(errors.SpecMismatch, match="other blocks"):
            scan.create_stream("s", dtype="u2", shape=(1,), resume=True)

    def test_sent_again_is_stored_once(self, buffer: Buffer) -> None:
        data = frames(5)
        scan = buffer.collection("c")
        s = scan.create_stream("s", dtype="uint16", shape=(4, 6))
        s.extend(data)
        s.flush()
        s.extend(data, index=np.arange(5))
        s.close()
        assert np.array_equal(np.asarray(scan["s"]), data)

    def test_the_same_index_with_other_bytes_is_an_error_and_the_first_stays(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        s = scan.create_stream("s", dtype="u1", shape=(1,))
        s.append(np.zeros(1, "u1"), index=0)
        s.flush()
        s.append(np.ones(1, "u1"), index=0)
        with pytest.raises(errors.BlockConflict, match="block 0"):
            s.close()
        assert buffer["c/s"].info.state is StreamState.OPEN
        with scan.create_stream("s", dtype="u1", shape=(1,), resume=True) as s:
            pass
        assert np.asarray(buffer["c/s"]).tolist() == [[0]]

    def test_a_producer_that_was_replaced_is_fenced(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        first = scan.create_stream("s", dtype="u1", shape=(1,))
        with scan.create_stream("s", dtype="u1", shape=(1,), resume=True) as second:
            second.append(np.zeros(1, "u1"))
            with pytest.raises(errors.ProducerFenced):
                append_and_flush(first, np.ones(1, "u1"))
            second.append(np.full(1, 2, "u1"))
        with pytest.raises(errors.ProducerFenced):
            first.close()
        assert np.asarray(buffer["c/s"]).tolist() == [[0], [2]]

    def test_a_final_stream_takes_nothing(self, buffer: Buffer) -> None:
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(1,))
        s.append(np.zeros(1, "u1"))
        s.flush()
        buffer.store.seal_stream(s.info.id)
        with pytest.raises(errors.StreamFinal):
            append_and_flush(s, np.zeros(1, "u1"))
        assert buffer["c/s"].info.completeness.blocks == 1

    def test_seal_is_idempotent_and_abort_after_it_is_refused(self, buffer: Buffer) -> None:
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(1,))
        info = s.seal()
        assert buffer.store.seal_stream(info.id).final_ns == info.final_ns
        with pytest.raises(errors.StreamFinal):
            buffer.store.abort_stream(info.id, "too late")

    # ---- bad input

    def test_blocks_that_do_not_fit_are_refused_and_the_stream_goes_on(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        with scan.create_stream("s", dtype="uint16", shape=(4, 6), columns={"angle": "f8 deg"}) as s:
            for block in (np.zeros((4, 6), "i2"), np.zeros((6, 4), "u2"), np.zeros(24, "u2")):
                with pytest.raises(errors.SpecMismatch):
                    s.append(block, angle=0.0)
            with pytest.raises(errors.SpecMismatch, match="missing: \\['angle'\\]"):
                s.append(np.zeros((4, 6), "u2"))
            with pytest.raises(errors.SpecMismatch, match="unknown: \\['angel'\\]"):
                s.append(np.zeros((4, 6), "u2"), angle=0.0, angel=0.0)
            s.append(np.zeros((4, 6), "u2"), angle=1.0)
        assert scan["s"].info.completeness.blocks == 1

    @pytest.mark.parametrize("name", ["", "a b", "../x", "-x", ".hidden", "x.raw", "x" * 200, "ü"])
    def test_bad_names(self, buffer: Buffer, name: str) -> None:
        with pytest.raises(errors.InvalidName):
            buffer.collection("c").create_stream(name, dtype="u1", shape=(1,))

    def test_what_is_not_there(self, buffer: Buffer) -> None:
        with pytest.raises(errors.CollectionNotFound, match="nowhere"):
            buffer.store.collection("nowhere")
        buffer.collection("c")
        with pytest.raises(errors.StreamNotFound, match="c/s"):
            buffer["c/s"]
        with pytest.raises(errors.StreamNotFound):
            buffer.store.read("0" * 32, Selection()).__next__()

    def test_an_oversized_block_is_refused_before_it_is_sent(self, buffer: Buffer) -> None:
        with pytest.raises(errors.BlockTooLarge, match="allowed"):
            buffer.collection("c").create_stream("s", dtype="u1", shape=(1 << 29,))

    # ---- collections

    def test_a_collection_is_sealed_when_all_that_it_expects_is_final(self, buffer: Buffer) -> None:
        scan = buffer.collection("c", expect=["a", "b"])
        for name in ("a", "b"):
            assert not scan.info.sealed
            scan.create_stream(name, dtype="u1", shape=(1,)).close()
        assert scan.info.sealed
        with pytest.raises(errors.CollectionSealed):
            scan.create_stream("late", dtype="u1", shape=(1,))

    def test_a_collection_with_an_open_stream_is_not_sealed(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        s = scan.create_stream("s", dtype="u1", shape=(1,))
        with pytest.raises(errors.StreamNotFinal):
            scan.seal()
        s.close()
        scan.seal()
        assert scan.info.sealed

    def test_collections_are_listed_by_prefix_and_deleted_whole(self, buffer: Buffer) -> None:
        for path in ("beamtime1/scan1", "beamtime1/scan2", "other"):
            with buffer.collection(path).create_stream("s", dtype="u1", shape=(1,)) as s:
                s.append(np.zeros(1, "u1"))
        assert [scan.path for scan in buffer.collections("beamtime1/")] == ["beamtime1/scan1", "beamtime1/scan2"]
        buffer.store.delete_collection("beamtime1/scan1")
        assert [scan.path for scan in buffer.collections()] == ["beamtime1/scan2", "other"]
        with pytest.raises(errors.NotFound):
            buffer["beamtime1/scan1/s"]

    def test_modules_are_joined_by_index(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        for number, name in enumerate(["m1", "m2", "m3"]):
            with scan.create_stream(name, dtype="u1", shape=(2,), attrs={"offset": [0, 2 * number]}) as s:
                for index in range(4):
                    if (name, index) != ("m2", 2):
                        s.append(np.full(2, 10 * number + index, "u1"), index=index)
        det = scan.join("det", ["m1", "m2", "m3"])
        assert det.index.tolist() == [0, 1, 2, 3]
        assert det[1].tolist() == [[1, 1], [11, 11], [21, 21]]
        assert np.ma.getmaskarray(det[2]).all(axis=1).tolist() == [False, True, False]
        assert det.offsets == [[0, 0], [0, 2], [0, 4]]
        assert [entry.first for entry in scan.join("det").gaps()["m2"]] == [2]

    # ---- live

    def test_followers_see_every_block_in_order_until_the_seal(self, buffer: Buffer) -> None:
        data = frames(200)
        s = buffer.collection("c").create_stream("s", dtype="uint16", shape=(4, 6))
        seen: list[int] = []
        follower = threading.Thread(target=lambda: seen.extend(block.index for block in buffer["c/s"].follow()))
        follower.start()
        for frame in data:
            s.append(frame)
        s.close()
        follower.join(60)
        assert not follower.is_alive()
        assert seen == list(range(200))

    def test_blocks_are_found_by_time_and_by_the_values_of_columns(self, buffer: Buffer) -> None:
        columns = {"angle": "f8 deg", "shot": "i8"}
        with buffer.collection("c").create_stream("s", dtype="u1", shape=(2,), columns=columns) as s:
            for k in range(40):
                angle = float("nan") if k == 7 else k / 2
                s.append(np.full(2, k, "u1"), time_ns=1000 + 10 * k, angle=angle, shot=(1 << 62) + k)
        p = buffer["c/s"]
        assert p.read(time=(1100, 1130))[:, 0].tolist() == [10, 11, 12]
        assert p.find(time=(1390, None)).tolist() == [39]
        assert p.find(time=(None, 1000)).tolist() == []
        since = np.datetime64(1380, "ns")
        assert p.find(time=(since, None)).tolist() == [38, 39]
        assert p.read(where={"angle": (3.0, 4.0)})[:, 0].tolist() == [6, 8], "both ends, and NaN is in no range"
        assert p.find(where={"shot": ((1 << 62) + 38, None)}).tolist() == [38, 39], "to the last bit"
        assert p.find(where={"angle": (None, 5.0), "shot": ((1 << 62) + 9, None)}).tolist() == [9, 10]
        assert p.read(2, 30, 2, time=(1000, 1200), where={"angle": (5, np.float32(9))})[:, 0].tolist() == [
            10,
            12,
            14,
            16,
            18,
        ]
        assert p.read(where={"angle": (50, None)}).shape == (0, 2)
        newest = p.latest(where={"angle": (None, 9.75)})
        assert newest is not None
        assert (newest.index, newest.data.tolist()) == (19, [19, 19])
        assert p.latest(time=(0, 10)) is None
        with pytest.raises(errors.InvalidInput, match=r"angle, shot"):
            p.find(where={"angel": (0, 1)})

    def test_latest_is_the_newest_block(self, buffer: Buffer) -> None:
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(1,))
        for value in range(3):
            s.append(np.full(1, value, "u1"))
            s.flush()
            block = buffer["c/s"].latest()
            assert block is not None
            assert (block.index, block.data.tolist()) == (value, [value])
        s.close()

    def test_feedback_reaches_the_producer(self, buffer: Buffer) -> None:
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(1,))
        assert buffer.store.send_feedback(s.info.id, {"veto_rate": 0.5})
        wait_for(lambda: bool(s._feedback))
        assert s.feedback() == [{"veto_rate": 0.5}]
        assert s.feedback() == []
        s.close()
        assert not buffer.store.send_feedback(s.info.id, "stop")

    # ---- kernels

    def test_a_map_in_transit_with_both_kept(self, buffer: Buffer) -> None:
        data = frames(20)
        scan = buffer.collection("c")
        with scan.create_stream("s", dtype="uint16", shape=(4, 6), keep="both", kernels=[double.bind(gain=3)]) as s:
            s.extend(data)
        assert np.array_equal(np.asarray(scan["s"]), data * 3)
        assert np.array_equal(np.asarray(scan["s"].raw), data)
        stage = scan["s"].info.stages[0]
        assert (stage.name, stage.hash) == ("double", double.hash)
        assert stage.params["gain"] == {"scalar": 3, "dtype": None}

    def test_keep_result_and_keep_raw_read_the_same(self, buffer: Buffer) -> None:
        data = frames(20)
        data[7, 0, 0] = 50
        scan = buffer.collection("c")
        for keep in ("result", "raw", "both"):
            kernels = [bright.bind(least=9), double]
            with scan.create_stream(keep, dtype="uint16", shape=(4, 6), keep=keep, kernels=kernels) as s:
                s.extend(data)
        kept = data[(data >= 9).any(axis=(1, 2))]
        for keep in ("result", "raw", "both"):
            stream = scan[keep]
            assert np.array_equal(np.asarray(stream), kept * 2), keep
            assert {entry.reason for entry in stream.ledger} <= {"vetoed"}
            assert sum(entry.count for entry in stream.ledger) == len(data) - len(kept)
        assert scan["result"].raw.info.completeness.blocks == 0
        assert np.array_equal(np.asarray(scan["raw"].raw), data)

    def test_a_veto_is_in_the_ledger_with_the_kernels_name(self, buffer: Buffer) -> None:
        data = np.zeros((5, 4, 6), "uint16")
        data[[1, 3]] = 99
        scan = buffer.collection("c")
        with scan.create_stream("s", dtype="uint16", shape=(4, 6), kernels=[bright]) as s:
            s.extend(data)
        stream = scan["s"]
        assert stream.index.tolist() == [1, 3]
        assert {(entry.stage, entry.reason) for entry in stream.ledger} == {("bright", "vetoed")}
        with pytest.raises(errors.BlockMissing, match="vetoed \\(bright\\)"):
            stream[0]

    def test_reductions_of_streams_are_parameters(self, buffer: Buffer) -> None:
        rng = np.random.default_rng(3)
        dark, flat, data = (rng.integers(low, low + 9, (10, 4, 6)).astype("u2") for low in (10, 200, 100))
        scan = buffer.collection("c")
        for name, stack in (("dark", dark), ("flat", flat)):
            with scan.create_stream(name, dtype="u2", shape=(4, 6)) as s:
                s.extend(stack)
        assert np.allclose(np.asarray(scan["dark"].mean()), dark.mean(axis=0))
        assert np.array_equal(np.asarray(scan["dark"].maximum()), dark.max(axis=0))
        kernel = corrected.bind(dark=scan["dark"].mean(), flat=scan["flat"].mean())
        with scan.create_stream("proj", dtype="u2", shape=(4, 6), kernels=[kernel]) as s:
            s.extend(data)
        want = (data.astype("f4") - dark.mean(axis=0)) / np.maximum(flat.mean(axis=0) - dark.mean(axis=0), 1)
        assert np.allclose(np.asarray(scan["proj"]), want, rtol=1e-6)
        recorded = scan["proj"].info.stages[0].params["dark"]
        assert (recorded["stream"], recorded["version"], recorded["reduce"]) == ("c/dark", 1, "mean")

    def test_an_attached_reduction_becomes_a_stream(self, buffer: Buffer) -> None:
        data = frames(12)
        scan = buffer.collection("c")
        with scan.create_stream("s", dtype="uint16", shape=(4, 6), kernels=[double, "mean"]) as s:
            s.extend(data)
        assert np.allclose(np.asarray(scan["s.mean"])[0], 2 * data.mean(axis=0))
        assert scan["s.mean"].info.state is StreamState.SEALED

    def test_kernels_on_the_way_out(self, buffer: Buffer) -> None:
        data = frames(6)
        with buffer.collection("c").create_stream("s", dtype="uint16", shape=(4, 6)) as s:
            s.extend(data)
        small = buffer["c/s"].read(kernels=[bin2])
        assert small.shape == (6, 2, 3)
        assert np.array_equal(small, data.reshape(6, 2, 2, 3, 2).sum(axis=(2, 4)).astype("u2"))

    def test_a_kernel_that_does_not_fit_is_refused_when_it_is_attached(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        with pytest.raises(errors.ParameterMismatch):
            scan.create_stream(
                "s", dtype="u2", shape=(4, 6), kernels=[corrected.bind(dark=np.zeros((3, 3)), flat=np.ones((4, 6)))]
            )
        with pytest.raises(errors.ParameterMismatch):
            scan.create_stream("s", dtype="u2", shape=(4, 6), kernels=[corrected.bind(dark=np.zeros((4, 6)))])
        with pytest.raises(errors.SpecMismatch, match="variable"):
            scan.create_stream("s", dtype="u2", shape=(None, 6), kernels=["mean"])
        assert scan.info.streams == ()

    def test_an_open_stream_is_no_parameter(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        s = scan.create_stream("dark", dtype="u2", shape=(4, 6))
        with pytest.raises(errors.StreamNotFinal, match="c/dark"):
            scan.create_stream(
                "p",
                dtype="u2",
                shape=(4, 6),
                kernels=[corrected.bind(dark=scan["dark"].mean(), flat=scan["dark"].mean())],
            )
        s.close()

    def test_a_kernel_that_breaks_costs_no_data(self, buffer: Buffer) -> None:
        data = frames(30)
        scan = buffer.collection("c")
        kernels = [double.bind(budget_s=1e-9)]
        with scan.create_stream("s", dtype="uint16", shape=(4, 6), keep="result", kernels=kernels) as s:
            for frame in data:
                s.append(frame)
                s.flush()
        stream = scan["s"]
        assert stream.info.completeness.blocks == 0
        assert {(entry.stage, entry.reason) for entry in stream.ledger} == {("double", "kernel-failed")}
        assert np.array_equal(np.asarray(stream.raw), data), "the raw blocks are kept, whatever `keep` says"
        assert stream.info.stages[0].quarantined
        kinds = [event.kind for event in buffer.store.events(0, threading.Event(), follow=False)]
        assert kinds.count("kernel.quarantined") == 1

    def test_kernels_are_registered_by_hash_and_name(self, buffer: Buffer) -> None:
        info = buffer.register(double)
        assert buffer.register(double).hash == info.hash
        assert buffer.store.kernel("double").definition.source == double.definition.source
        assert buffer.store.kernel(info.hash).definition.name == "double"
        with pytest.raises(errors.KernelNotFound):
            buffer.store.kernel("nothing")

    def test_hostile_source_is_refused_with_its_place(self, buffer: Buffer) -> None:
        from hiss.model import KernelDef, KernelKind

        with pytest.raises(errors.KernelRejected) as caught:
            buffer.store.register_kernel(
                KernelDef("evil", KernelKind.MAP, "def evil(x):\n    return __import__('os').system('id')\n")
            )
        assert caught.value.details["line"] == "2"

    # ---- events

    def test_events_tell_what_happened_in_order(self, buffer: Buffer) -> None:
        scan = buffer.collection("c", expect=["a"])
        with scan.create_stream("a", dtype="u1", shape=(1,), attrs={"x": 1}) as s:
            s.append(np.zeros(1, "u1"), index=2)
            s.append(np.zeros(1, "u1"), index=4)
        events = list(buffer.store.events(0, threading.Event(), follow=False))
        assert [event.kind for event in events][-2:] == ["stream.sealed", "collection.sealed"]
        sealed = events[-2]
        assert (sealed.path, sealed.version) == ("c/a", 1)
        assert (sealed.data["blocks"], sealed.data["gaps"], sealed.data["complete"]) == (2, 1, False)
        assert sealed.data["attrs"] == {"x": 1}
        assert [event.seq for event in buffer.store.events(sealed.seq, threading.Event(), follow=False)] == [
            events[-1].seq
        ]

    def test_a_watcher_gets_events_as_they_happen(self, buffer: Buffer) -> None:
        stop, seen = threading.Event(), []

        def watch() -> None:
            for event in buffer.store.events(0, stop):
                seen.append(event.kind)
                if event.kind == "stream.sealed":
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        buffer.collection("c").create_stream("s", dtype="u1", shape=(1,)).close()
        watcher.join(60)
        assert not watcher.is_alive()
        assert "stream.sealed" in seen

    def test_status_counts(self, buffer: Buffer) -> None:
        with buffer.collection("c").create_stream("s", dtype="u1", shape=(100,)) as s:
            s.extend(np.zeros((10, 100), "u1"))
            s.flush()
            assert buffer.status().streams_open == 1
        status = buffer.status()
        assert (status.collections, status.streams, status.streams_open) == (1, 1, 0)
        assert (status.blocks_received, status.bytes_received) == (10, 1000)
        assert status.arena_free_bytes == status.arena_bytes, "every region came back"

    # ---- overload, gathering, acknowledgements

    @pytest.mark.parametrize(("overload", "reason"), [("drop", "shed: drop"), ("prescale:4", "shed: prescale")])
    def test_what_an_overloaded_producer_does_not_keep_is_in_the_ledger(
        self, buffer: Buffer, overload: str, reason: str
    ) -> None:
        size = 1 << 19
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(size,), overload=overload, patience_s=0.0)
        with stalled(s):
            for index in range(40):
                s.append(np.full(size, index, "u1"))
        s.flush()
        kept = 40 - s.shed_blocks
        assert 0 < kept < 40
        for index in range(40, 44):  # overload is over
            s.append(np.full(size, index, "u1"))
        s.close()
        assert f"{s.shed_blocks} {reason} (producer)" in str(buffer["c/s"].info.completeness)
        stream = buffer["c/s"]
        assert {(entry.stage, entry.reason) for entry in stream.ledger} == {("producer", reason)}
        assert sum(entry.count for entry in stream.ledger) == s.shed_blocks == s.report().shed_blocks
        assert stream.info.completeness.blocks == kept + 4
        assert all((block.data == block.index).all() for block in stream)
        shed = next(entry.first for entry in stream.ledger)
        with pytest.raises(errors.BlockMissing, match=reason):
            stream[shed]
        assert s.acknowledged == 44

    def test_a_producer_that_waits_sheds_nothing(self, buffer: Buffer) -> None:
        """The control."""
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(1 << 19,), patience_s=0.0)
        done = threading.Thread(target=lambda: [s.append(np.zeros(1 << 19, "u1")) for _ in range(40)])
        with stalled(s):
            done.start()
            wait_for(lambda: s.next_index > 2)
        done.join(60)
        s.close()
        assert (s.shed_blocks, buffer["c/s"].info.completeness.blocks) == (0, 40)

    @pytest.mark.parametrize("overload", ["prescale", "prescale:1", "drop:2", "shed", "prescale:-3", ""])
    def test_an_overload_policy_that_is_none(self, buffer: Buffer, overload: str) -> None:
        with pytest.raises(errors.InvalidInput, match="prescale"):
            buffer.collection("c").create_stream("s", dtype="u1", shape=(1,), overload=overload)
        assert buffer["c"].info.streams == ()

    def test_small_blocks_travel_together_and_are_acknowledged_one_by_one(self, buffer: Buffer) -> None:
        told: list[int] = []
        scan = buffer.collection("c")
        s = scan.create_stream("s", dtype="u1", shape=(100,), extent_bytes=1000, linger_s=60.0, on_ack=told.append)
        for index in range(9):
            s.append(np.full(100, index, "u1"))
        assert s.acknowledged == 0, "nine wait for the tenth"
        s.append(np.full(100, 9, "u1"))
        wait_for(lambda: s.acknowledged == 10)
        s.append(np.full(100, 10, "u1"))
        s.flush()
        assert s.acknowledged == 11
        s.close()
        assert told[-1] == 11
        assert told == sorted(set(told))
        lingering = scan.create_stream("t", dtype="u1", shape=(100,), linger_s=0.0)
        lingering.append(np.zeros(100, "u1"))
        wait_for(lambda: lingering.acknowledged == 1)
        lingering.close()
        with pytest.raises(errors.InvalidInput, match="linger_s"):
            scan.create_stream("u", dtype="u1", shape=(100,), linger_s=-1.0)

    # ---- space

    def test_room_is_reserved_listed_and_released(self, buffer: Buffer) -> None:
        scan = buffer.collection("c/scan")
        made = scan.reserve("1 MiB", hours=2.0)
        assert (made.collection, made.bytes, made.used_bytes) == ("c/scan", 1 << 20, 0)
        assert made.expires_ns - made.created_ns == 7200 * 10**9
        with scan.create_stream("s", dtype="u1", shape=(100,)) as s:
            s.extend(np.zeros((10, 100), "u1"))
        (kept,) = buffer.reservations()
        assert (kept.id, kept.used_bytes) == (made.id, 4096), "a record is a page at least"
        assert scan.reservation == kept
        status = buffer.status()
        assert (status.promised_bytes, status.promised_used_bytes) == (1 << 20, 4096)
        with pytest.raises(errors.Conflict, match=made.id):
            scan.reserve(1, hours=1)
        with pytest.raises(errors.SpaceExhausted, match="promised and not used") as caught:
            buffer.collection("other").reserve("1000 PB", hours=1)
        assert caught.value.details.keys() >= {"room", "disk_free", "promised", "evictable"}
        with pytest.raises(errors.CollectionNotFound):
            buffer.store.reserve("nowhere", 1, 1.0)
        buffer.store.release(made.id)
        assert buffer.reservations() == []
        with pytest.raises(errors.ReservationNotFound):
            buffer.store.release(made.id)

    def test_an_archived_stream_is_evicted_and_says_where_it_is(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        for name in ("a", "b"):
            with scan.create_stream(name, dtype="u1", shape=(2,), kernels=[]) as s:
                s.extend(np.ones((4, 2), "u1"))
        info = scan["a"].info
        with pytest.raises(errors.Conflict, match="--undrained"):
            buffer.evict("c/a")
        with pytest.raises(errors.Conflict):
            buffer.store.record_archive(info.id, "/tape/1", "0" * 16)
        marked = buffer.store.record_archive(info.id, "/tape/1", info.digest)
        assert [archive.location for archive in marked.archives] == ["/tape/1"]
        assert scan["a"].info.archives == marked.archives
        (would,) = buffer.evict("c", dry_run=True)
        assert buffer.evict("c") == [would]
        assert (would.path, would.bytes, would.policy, would.location) == ("c/a", 8, "request", "/tape/1")
        gone = scan["a"].info
        assert gone.eviction is not None
        assert gone.completeness == info.completeness, "it is whole, at another place"
        with pytest.raises(errors.ArchiveUnreachable, match="/tape/1") as caught:
            scan["a"][0]
        assert caught.value.details["archive"] == "/tape/1"
        assert np.asarray(scan["b"]).sum() == 8
        kinds = [event.kind for event in buffer.store.events(0, threading.Event(), follow=False)]
        assert kinds[-2:] == ["stream.archived", "stream.evicted"]
        with scan.create_stream("a", dtype="u1", shape=(2,), new_version=True) as s:
            s.append(np.zeros(2, "u1"))
        assert np.asarray(scan["a"]).tolist() == [[0, 0]]

    def test_what_its_owner_gives_up_is_in_the_ledger(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        with scan.create_stream("s", dtype="u1", shape=(1,), expendable=True) as s:
            s.extend(np.zeros((3, 1), "u1"), index=[0, 1, 5])
        assert scan["s"].info.expendable
        assert [gone.location for gone in buffer.evict("c/s")] == [""]
        assert [(entry.first, entry.last, entry.stage, entry.reason) for entry in scan["s"].ledger] == [
            (0, 1, "retention", "evicted: request"),
            (2, 4, "transport", "never received"),
            (5, 5, "retention", "evicted: request"),
        ]

    def test_retention_is_kept_for_a_collection_and_those_below(self, buffer: Buffer) -> None:
        scan = buffer.collection("c/scan")
        top = buffer.collection("c")
        policy = hiss.Retention(age_s=60.0, drained_s=5.0, pressure=False, undrained=True)
        assert top.retain(policy) == policy
        assert scan.retention == policy
        assert scan.retain(hiss.Retention()) == hiss.Retention()
        assert scan.retain(None) == policy
        with pytest.raises(errors.InvalidInput):
            top.retain(hiss.Retention(age_s=-1.0))

    # ---- draining by itself

    def test_what_is_to_be_drained_is_planned_marked_and_archived(self, buffer: Buffer) -> None:
        policy = DrainPolicy(
            (
                DrainTarget("/archive/{collection}/{stream}.nxs", priority=3, bytes_per_s=10**6, compression="zstd"),
                DrainTarget("s3://bucket/{collection}/{stream}.zarr", "zarr", when="every 6h"),
            )
        )
        scan, store = buffer.collection("c/scan"), buffer.store
        assert buffer.collection("c").drain_to(*policy.targets) == policy
        assert scan.drain_policy == store.drain_policy("c/scan") == policy
        s = scan.create_stream("s", dtype="u1", shape=(1,), ack="archived")
        assert s.info.ack is AckLevel.ARCHIVED
        s.append(np.zeros(1, "u1"))
        with pytest.raises(errors.StreamNotFinal):
            s.wait_archived(0.0)
        assert store.plan_drains(["c"], dry_run=True) == store.drains() == []
        s.close()
        assert store.next_drain() == (None, 0)
        planned = store.plan_drains(["c/scan/s"], cursor=5)
        assert planned == store.drains("c") == store.drains("c/scan/s")
        assert [(each.url, each.target, each.state) for each in planned] == [
            ("/archive/c/scan/s.nxs", policy.targets[0], DrainState.WANTED),
            ("s3://bucket/c/scan/s.zarr", policy.targets[1], DrainState.WANTED),
        ]
        near, far = planned
        assert store.next_drain() == (near, 5)
        store.mark_drain(near.id, DrainState.RUNNING, began=True)
        store.mark_drain(near.id, DrainState.FAILED, reason="the disk is full")
        (failed, _) = store.drains("c")
        assert (failed.attempts, failed.reason, failed.began) == (1, "the disk is full", False)
        assert failed.next_ns > failed.changed_ns
        for each in (near, far):
            assert not store.archived(s.info.id)
            with pytest.raises(errors.Conflict):
                store.record_archives([(s.info.id, "/x", s.info.digest), (s.info.id, "/x", "0" * 16)])
            store.record_archives([(s.info.id, f"{each.url}::/data", s.info.digest)])
            assert not store.archived(s.info.id), "its entry is not done"
            store.mark_drain(each.id, DrainState.DONE)
        assert store.archived(s.info.id)
        assert len(s.wait_archived(0.0).archives) == 2
        assert buffer["c/scan/s"].wait_archived(0.0).path == "c/scan/s"
        assert scan.drain_to() == DrainPolicy()
        assert buffer.collection("c").drain_policy == policy
        with pytest.raises(errors.InvalidInput):
            scan.drain_to("relative")

    def test_ack_levels_are_kept(self, buffer: Buffer) -> None:
        s = buffer.collection("c").create_stream("s", dtype="u1", shape=(1,), ack="written")
        assert s.info.ack is AckLevel.WRITTEN
        s.close()


@contextmanager
def stalled(writer: StreamWriter) -> Iterator[None]:
    """A producer whose extents do not get through for as long as the context lasts."""
    gate, session = threading.Event(), writer._session
    real = session.send

    def send(extent: Any) -> None:
        gate.wait()
        real(extent)

    session.send = send  # type: ignore[method-assign]
    try:
        yield
    finally:
        gate.set()


def append_and_flush(writer: StreamWriter, block: npt.NDArray[Any]) -> None:
    """What goes wrong in the background is raised by one or the other."""
    writer.append(block)
    writer.flush()
