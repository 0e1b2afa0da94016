"""What every buffer does with kernels that are attached to a collection: a part of `conformance.BufferConformance`."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import hiss
from hiss import errors
from hiss.client import Buffer
from hiss.model import KernelKind


@hiss.kernel
def scaled(frame, gain=2):  # type: ignore[no-untyped-def]
    return frame * gain


@hiss.kernel
def less(frame, dark):  # type: ignore[no-untyped-def]
    return np.maximum(frame.astype(np.int32) - dark, 0)


@hiss.filter
def lit(frame, least=1):  # type: ignore[no-untyped-def]
    return np.count_nonzero(frame >= least) >= 1


DATA = np.random.default_rng(4).integers(1, 10, (6, 4, 6)).astype("uint16")


class AttachmentConformance:
    """Attached kernels. Subclassed with a fixture `buffer`, an empty `client.Buffer`."""

    def test_streams_to_come_get_what_is_attached_in_its_order(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        _stored(scan, "before")
        scan.attach(scaled.bind(gain=3), streams="proj*")
        scan.attach(less.bind(dark=np.full((4, 6), 2, "i4")))
        assert [(one.stage.name, one.streams, one.shadow) for one in scan.attached] == [
            ("scaled", "proj*", False),
            ("less", "*", False),
        ]
        for name in ("proj1", "dark"):
            _stored(scan, name)
        assert np.array_equal(np.asarray(scan["before"]), DATA)
        assert np.array_equal(np.asarray(scan["proj1"]), np.maximum(3 * DATA.astype("i4") - 2, 0))
        assert np.array_equal(np.asarray(scan["dark"]), np.maximum(DATA.astype("i4") - 2, 0))
        assert [(stage.name, stage.attached) for stage in scan["proj1"].info.stages] == [
            ("scaled", True),
            ("less", True),
        ]

    def test_a_stream_with_kernels_of_its_own_gets_only_those(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        scan.attach(less.bind(dark=np.ones((4, 6), "i4")), scaled)
        with scan.create_stream("s", dtype="u2", shape=(4, 6), kernels=[scaled.bind(gain=5)]) as s:
            s.extend(DATA)
        assert np.array_equal(np.asarray(scan["s"]), 5 * DATA)
        assert [stage.attached for stage in scan["s"].info.stages] == [False]
        buffer.collection("c/below")
        _stored(buffer["c/below"], "s")
        assert np.array_equal(np.asarray(buffer["c/below/s"]), DATA), "collections below are not meant"

    def test_nothing_about_a_stream_changes_when_its_attachment_does(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        scan.attach(scaled.bind(gain=3))
        s = scan.create_stream("s", dtype="u2", shape=(4, 6), keep="raw")
        s.extend(DATA[:3])
        s.detach()
        scan.attach(scaled.bind(gain=7))
        scan.detach("scaled")
        assert scan.attached == ()
        with scan.create_stream("s", dtype="u2", shape=(4, 6), keep="raw", resume=True) as s:
            s.extend(DATA[3:])
        assert np.array_equal(np.asarray(scan["s"]), 3 * DATA)
        assert scan["s"].info.stages[0].params["gain"] == {"scalar": 3, "dtype": None}
        _stored(scan, "after")
        assert np.array_equal(np.asarray(scan["after"]), DATA)

    def test_a_producer_that_named_kernels_resumes_with_them(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        scan.create_stream("s", dtype="u2", shape=(4, 6), kernels=[scaled]).detach()
        with pytest.raises(errors.SpecMismatch, match="other kernels"):
            scan.create_stream("s", dtype="u2", shape=(4, 6), resume=True)
        scan.attach(scaled)
        scan.create_stream("t", dtype="u2", shape=(4, 6)).detach()
        with pytest.raises(errors.SpecMismatch, match="other kernels"):
            scan.create_stream("t", dtype="u2", shape=(4, 6), kernels=[lit], resume=True)
        scan.create_stream("t", dtype="u2", shape=(4, 6), kernels=[scaled], resume=True).close()

    def test_attached_again_takes_its_old_place(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        scan.attach(scaled.bind(gain=3), less.bind(dark=np.ones((4, 6), "i4")))
        scan.attach(scaled.bind(gain=4))
        assert [one.stage.name for one in scan.attached] == ["scaled", "less"]
        _stored(scan, "s")
        assert np.array_equal(np.asarray(scan["s"]), 4 * DATA.astype("i4") - 1)

    def test_of_one_name_the_last_that_matches_counts(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        scan.attach(scaled.bind(gain=3))
        scan.attach(scaled.bind(gain=4), streams="proj[0-9]")
        for name in ("proj1", "projx"):
            _stored(scan, name)
        assert np.array_equal(np.asarray(scan["proj1"]), 4 * DATA)
        assert np.array_equal(np.asarray(scan["projx"]), 3 * DATA)
        scan.detach("scaled", streams="*")
        assert [one.streams for one in scan.attached] == ["proj[0-9]"]
        with pytest.raises(
            errors.KernelNotFound, match=r"'scaled' attached for '\*'; it has: scaled for 'proj\[0-9\]'"
        ):
            scan.detach("scaled", streams="*")

    def test_shadows_and_reductions_are_attached_too(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        scan.attach("mean")
        scan.attach(scaled.bind(gain=3), lit.bind(least=1000, shadow=True))
        _stored(scan, "s")
        info = scan["s"].info
        assert [stage.kind for stage in info.stages] == [KernelKind.MAP, KernelKind.REDUCE]
        assert [(stage.name, stage.attached) for stage in info.shadows] == [("lit", True)]
        assert np.array_equal(np.asarray(scan["s"]), 3 * DATA), "a shadow vetoes nothing"
        assert np.allclose(np.asarray(scan["s.mean"])[0], 3 * DATA.mean(axis=0))

    def test_a_stream_that_does_not_fit_is_refused_with_both_names(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        scan.attach(less.bind(dark=np.ones((4, 6), "i4")), streams="p*")
        with pytest.raises(errors.ParameterMismatch, match=r"stream c/proj .* collection c: 'less' \(streams 'p\*'\)"):
            scan.create_stream("proj", dtype="u2", shape=(5, 7))
        with pytest.raises(errors.ParameterMismatch, match=r"'less'.*complex128"):
            scan.create_stream("proj", dtype="c16", shape=(4, 6))
        with pytest.raises(errors.InvalidInput, match=r"stream c/proj .*'less'"):
            scan.create_stream("proj", dtype="u2", shape=(None, 6))
        assert scan.info.streams == ()
        _stored(scan, "other", shape=(2, 2))

    def test_what_cannot_be_attached_is_refused(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        missing = hiss.model.BoundKernel(less.definition)
        with pytest.raises(errors.ParameterMismatch, match="no value for 'dark'"):
            scan.attach(missing)
        for glob in ("", "a/b", "a" * 200, "a b"):
            with pytest.raises(errors.InvalidName, match="'scaled': streams"):
                scan.attach(scaled, streams=glob)
        with pytest.raises(errors.KernelNotFound):
            scan.detach("scaled")
        with pytest.raises(errors.CollectionNotFound):
            buffer.store.attach("nowhere", scaled.bind(), "*")
        with pytest.raises(errors.CollectionNotFound):
            buffer.store.detach("nowhere", "scaled")
        scan.seal()
        with pytest.raises(errors.CollectionSealed):
            scan.attach(scaled)
        assert scan.attached == ()

    def test_parameters_are_read_when_it_is_attached(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        _stored(scan, "dark", value=2)
        scan.attach(less.bind(dark=scan["dark"].mean()), streams="proj*")
        _stored(scan, "dark", value=9, new_version=True)
        _stored(scan, "proj")
        assert np.allclose(np.asarray(scan["proj"]), np.maximum(DATA.astype("i4") - 2, 0))
        recorded = scan["proj"].info.stages[0].params["dark"]
        assert (recorded["stream"], recorded["version"], recorded["reduce"]) == ("c/dark", 1, "mean")

    def test_attaching_and_detaching_are_events(self, buffer: Buffer) -> None:
        scan = buffer.collection("c")
        scan.attach(scaled, streams="p*")
        scan.detach("scaled")
        found = [event for event in buffer.store.events(0, threading.Event(), follow=False) if "tached" in event.kind]
        assert [(event.kind, event.path, event.data["kernel"], event.data["streams"]) for event in found] == [
            ("kernel.attached", "c", "scaled", "p*"),
            ("kernel.detached", "c", "scaled", "p*"),
        ]
        assert found[0].data["hash"] == scaled.hash

    def test_a_deleted_collection_takes_its_attachments_along(self, buffer: Buffer) -> None:
        buffer.collection("c").attach(scaled)
        buffer.store.delete_collection("c")
        assert buffer.collection("c").attached == ()


def _stored(
    scan: hiss.Collection,
    name: str,
    *,
    value: int | None = None,
    shape: tuple[int, ...] = (4, 6),
    new_version: bool = False,
) -> None:
    """A sealed stream of DATA, or of one value."""
    data = DATA[:, : shape[0], : shape[1]] if value is None else np.full((2, *shape), value, "uint16")
    with scan.create_stream(name, dtype="uint16", shape=shape, new_version=new_version) as s:
        s.extend(data)
