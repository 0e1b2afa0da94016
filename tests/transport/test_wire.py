"""The model comes back from the wire as it went, and whatever else comes is refused by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from hiss import limits
from hiss.errors import InvalidInput, LimitExceeded
from hiss.model import Ack, ArrayParam, BoundKernel, KernelDef, KernelKind, ScalarParam, StreamSpec
from hiss.transport import drain_wire, space_wire, wire, workflow_wire
from hiss.transport.methods import MEOW, STORE
from hiss.v1 import meow_pb2, streams_pb2, types_pb2
from transport import strategies

ROUND_TRIPS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "frame": (strategies.frame, wire.encode_frame, wire.decode_frame),
    "column": (strategies.column, wire.encode_column, wire.decode_column),
    "scalar": (strategies.scalar, wire.encode_param, wire.decode_param),
    "kernel": (strategies.kernel_def, wire.encode_kernel_def, wire.decode_kernel_def),
    "kernel info": (strategies.kernel_info, wire.encode_kernel_info, wire.decode_kernel_info),
    "stage": (strategies.stage, wire.encode_stage, wire.decode_stage),
    "completeness": (strategies.completeness, wire.encode_completeness, wire.decode_completeness),
    "stream": (strategies.stream_info, wire.encode_stream_info, wire.decode_stream_info),
    "append start": (strategies.append_start, wire.encode_append_start, wire.decode_append_start),
    "ack": (strategies.ack, lambda ack: wire.encode_ack(ack, 7), wire.decode_ack),
    "feedback": (strategies.feedback, wire.encode_feedback, wire.decode_feedback),
    "collection": (strategies.collection, wire.encode_collection, wire.decode_collection),
    "event": (strategies.event, wire.encode_event, wire.decode_event),
    "status": (strategies.status, wire.encode_status, wire.decode_status),
    "recipe": (strategies.recipes(), workflow_wire.encode_recipe, workflow_wire.decode_recipe),
    "pattern": (strategies.patterns(), workflow_wire.encode_pattern, workflow_wire.decode_pattern),
    "rule": (strategies.rule, workflow_wire.encode_rule, workflow_wire.decode_rule),
    "job": (strategies.job, workflow_wire.encode_job, workflow_wire.decode_job),
    "provenance": (strategies.provenance, workflow_wire.encode_provenance, workflow_wire.decode_provenance),
    "reservation": (strategies.reservation, space_wire.encode_reservation, space_wire.decode_reservation),
    "retention": (strategies.retention, space_wire.encode_retention, space_wire.decode_retention),
    "evicted": (strategies.evicted, space_wire.encode_evicted, space_wire.decode_evicted),
    "drain policy": (strategies.drain_policy, drain_wire.encode_policy, drain_wire.decode_policy),
    "drain": (strategies.drain, drain_wire.encode_drain, drain_wire.decode_drain),
    "references": (strategies.tuples(strategies.stream_ref), workflow_wire.encode_refs, workflow_wire.decode_refs),
}


@pytest.mark.parametrize("what", ROUND_TRIPS)
@settings(max_examples=40)
@given(data=st.data())
def test_what_is_sent_arrives(what: str, data: st.DataObject) -> None:
    strategy, encode, decode = ROUND_TRIPS[what]
    value = data.draw(strategy)
    message = encode(value)
    if not isinstance(message, list):
        message = type(message).FromString(message.SerializeToString())
    assert decode(message) == value


def _same_param(a: Any, b: Any) -> bool:
    if isinstance(a, ArrayParam) and isinstance(b, ArrayParam):
        return (a.array.dtype, a.array.shape, a.array.tobytes()) == (b.array.dtype, b.array.shape, b.array.tobytes())
    return bool(a == b and repr(a) == repr(b))  # 1 and True and 1.0 are not the same parameter


def _same_kernel(a: BoundKernel, b: BoundKernel) -> bool:
    return (
        (a.kernel, a.budget_s) == (b.kernel, b.budget_s)
        and a.params.keys() == b.params.keys()
        and all(_same_param(a.params[name], b.params[name]) for name in a.params)
    )


@settings(max_examples=40)
@given(strategies.bound_kernel)
def test_kernel_parameters_arrive_with_their_types(bound: BoundKernel) -> None:
    assert _same_kernel(wire.decode_bound_kernel(wire.encode_bound_kernel(bound)), bound)


@settings(max_examples=40)
@given(strategies.stream_spec)
def test_what_a_producer_says_of_a_stream_arrives(spec: StreamSpec) -> None:
    back = wire.decode_stream_spec(wire.encode_stream_spec(spec))
    for field in ("frame", "columns", "ack", "attrs", "keep"):
        assert getattr(back, field) == getattr(spec, field)
    assert all(map(_same_kernel, back.kernels, spec.kernels))
    assert len(back.kernels) == len(spec.kernels)


@settings(max_examples=40)
@given(strategies.selection)
def test_selections_arrive(selection: Any) -> None:
    back = wire.decode_selection(wire.encode_selection(selection))
    for field in ("start", "stop", "step", "newest", "data"):
        assert getattr(back, field) == getattr(selection, field)
    assert all(map(_same_kernel, back.kernels, selection.kernels))


def test_big_endian_and_strided_arrays_arrive_with_their_values() -> None:
    for array in (np.arange(12, dtype=">f4").reshape(3, 4), np.arange(24)[::2].reshape(3, 4).T, np.float64(3)):
        back = wire.decode_array(wire.encode_array(array))
        np.testing.assert_array_equal(back, array)
        assert back.dtype == np.asarray(array).dtype.newbyteorder("<")


def test_requests_mean_their_defaults_where_nothing_is_said() -> None:
    frame = types_pb2.FrameSpec(dtype="<u2", shape=[types_pb2.Dimension(size=4)])
    spec = wire.decode_stream_spec(streams_pb2.StreamSpec(frame=frame))
    assert spec == StreamSpec(spec.frame)
    bound = types_pb2.BoundKernel(kernel=wire.encode_kernel_def(KernelDef("k", KernelKind.MAP, "")))
    assert wire.decode_bound_kernel(bound).budget_s == limits.KERNEL_BUDGET_S


HOSTILE: list[tuple[str, Callable[[Any], Any], Any]] = [
    ("a dtype of Python objects", wire.decode_column, types_pb2.Column(name="a", dtype="O")),
    ("a dtype that is none", wire.decode_column, types_pb2.Column(name="a", dtype="{'names':")),
    ("a record dtype", wire.decode_frame, types_pb2.FrameSpec(dtype="i4,i4")),
    ("a dtype with a shape", wire.decode_frame, types_pb2.FrameSpec(dtype="(9,)f8")),
    ("a long dtype", wire.decode_frame, types_pb2.FrameSpec(dtype="f8," * 1000)),
    (
        "too many dimensions",
        wire.decode_frame,
        types_pb2.FrameSpec(dtype="u1", shape=[types_pb2.Dimension(size=1)] * 9),
    ),
    ("a huge block", wire.decode_frame, types_pb2.FrameSpec(dtype="u1", shape=[types_pb2.Dimension(size=2**62)] * 4)),
    ("a size below 1", wire.decode_frame, types_pb2.FrameSpec(dtype="u1", shape=[types_pb2.Dimension(size=-4)])),
    ("an encoding", wire.decode_frame, types_pb2.FrameSpec(dtype="u1", encoding="zip")),
    ("a short array", wire.decode_array, types_pb2.Array(dtype="<f8", shape=[2], data=bytes(15))),
    ("a negative shape", wire.decode_array, types_pb2.Array(dtype="<f8", shape=[-1, -1], data=bytes(8))),
    ("a bool of 2", wire.decode_array, types_pb2.Array(dtype="|b1", shape=[1], data=b"\2")),
    ("an array of objects", wire.decode_array, types_pb2.Array(dtype="O", shape=[1], data=bytes(8))),
    ("no parameter", wire.decode_param, types_pb2.Parameter()),
    ("no number", wire.decode_param, types_pb2.Parameter(scalar=types_pb2.ScalarParameter())),
    ("a kernel of no kind", wire.decode_kernel_def, types_pb2.KernelDefinition(name="k")),
    ("a kernel of an unknown kind", wire.decode_kernel_def, types_pb2.KernelDefinition(name="k", kind=77)),  # type: ignore[arg-type]
    ("a budget that is no number", wire.decode_bound_kernel, types_pb2.BoundKernel(budget_s=float("nan"))),
    ("attributes that are no JSON", lambda text: wire.decode_attrs(text, "x"), "{"),
    ("attributes that are no object", lambda text: wire.decode_attrs(text, "x"), "[1]"),
    ("deep JSON", lambda text: wire.decode_attrs(text, "x"), "[" * 100_000),
    ("a long number in JSON", lambda text: wire.decode_attrs(text, "x"), '{"a": ' + "9" * 10_000 + "}"),
    ("long JSON", lambda text: wire.decode_attrs(text, "x"), " " * (limits.ATTRS_BYTES_MAX + 1)),
    ("an unknown job state", workflow_wire.decode_job_state, 99),
    ("a recipe of no kind", workflow_wire.decode_recipe, meow_pb2.Recipe(name="a")),
    ("a pattern without a name", workflow_wire.decode_pattern, meow_pb2.Pattern()),
]


@pytest.mark.parametrize(("decode", "message"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_nonsense_is_refused(decode: Callable[[Any], Any], message: Any) -> None:
    with pytest.raises(InvalidInput):
        decode(message)


def test_counts_are_bounded() -> None:
    parameter = types_pb2.Parameter(column="c")
    many = types_pb2.BoundKernel(params={f"p{i}": parameter for i in range(limits.KERNEL_PARAMETERS_MAX + 1)})
    with pytest.raises(LimitExceeded):
        wire.decode_bound_kernel(many)
    columns = [types_pb2.Column(name=f"c{i}", dtype="<f8") for i in range(limits.COLUMNS_MAX + 1)]
    with pytest.raises(LimitExceeded):
        wire.decode_stream_spec(streams_pb2.StreamSpec(columns=columns))
    with pytest.raises(LimitExceeded):
        wire.bounded_names(map(str, range(limits.EXPECTED_STREAMS_MAX + 1)), "x")


def test_values_that_cannot_be_sent_are_named() -> None:
    with pytest.raises(InvalidInput):
        wire.encode_attrs({"a": object()})
    with pytest.raises(InvalidInput):
        wire.encode_param(ScalarParam(2**64))
    with pytest.raises(InvalidInput):
        wire.encode_ack(Ack(2**63, 0, 0), 0)
    with pytest.raises(InvalidInput):
        wire.encode_kernel_def(KernelDef("k", KernelKind.MAP, "\ud800"))


REQUEST_DECODERS: list[tuple[str, Callable[[Any], Any]]] = [
    ("Streams.CreateStream", lambda request: wire.decode_stream_spec(request.spec)),
    ("Streams.Read", lambda request: wire.decode_selection(request.selection)),
    ("Kernels.RegisterKernel", lambda request: wire.decode_kernel_def(request.definition)),
    ("Meow.AddRecipe", lambda request: workflow_wire.decode_recipe(request.recipe)),
    ("Meow.AddPattern", lambda request: workflow_wire.decode_pattern(request.pattern)),
    ("Streams.Append", lambda request: request.open.stream_id),
]


@pytest.mark.parametrize(("key", "decode"), REQUEST_DECODERS, ids=[key for key, _ in REQUEST_DECODERS])
@settings(max_examples=200)
@given(body=st.binary(max_size=300))
def test_garbage_raises_named_errors_only(key: str, decode: Callable[[Any], Any], body: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        decode({**STORE, **MEOW}[key].parse_request(body))


@settings(max_examples=150)
@given(spec=strategies.stream_spec, data=st.data())
def test_damaged_requests_raise_named_errors_only(spec: StreamSpec, data: st.DataObject) -> None:
    request = streams_pb2.CreateStreamRequest(collection="a", name="b", spec=wire.encode_stream_spec(spec))
    body = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidInput):
        wire.decode_stream_spec(STORE["Streams.CreateStream"].parse_request(bytes(body)).spec)


def test_a_response_that_cannot_be_parsed_is_named() -> None:
    with pytest.raises(InvalidInput, match="DecodeError"):
        STORE["Admin.GetStatus"].parse_response(b"\xff")
    with pytest.raises(DecodeError):  # the library's own error, which is what would come out otherwise
        STORE["Admin.GetStatus"].response.FromString(b"\xff")


def test_every_call_has_both_ends() -> None:
    """No call of the schema without a handler, and no handler without a call."""
    from hiss.transport import meow_calls, store_calls, stream_calls

    served = {*store_calls.SHORT, *stream_calls.CALLS, "Streams.Append", "Streams.OpenLane"}
    assert served == set(STORE)
    assert set(meow_calls.CALLS) == set(MEOW)
