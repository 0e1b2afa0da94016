"""The model on the wire and back: streams, collections, kernels, events, status. Extents are in `extent_wire`.

Pure functions, `encode_*` from model to message and `decode_*` from message to model; any thread. What comes in may
be anything: a decoder returns something that checked itself, or raises an `InvalidInput`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from hiss import limits
from hiss.errors import HissError, InvalidInput, LimitExceeded
from hiss.model import (
    Ack,
    AckLevel,
    AppendStart,
    ArrayParam,
    Attachment,
    Attrs,
    BoundKernel,
    CollectionInfo,
    Column,
    ColumnParam,
    ColumnRange,
    Completeness,
    Event,
    Feedback,
    FrameSpec,
    Keep,
    KernelDef,
    KernelInfo,
    KernelKind,
    LedgerEntry,
    NodeStatus,
    Param,
    Replay,
    ScalarParam,
    Selection,
    StageInfo,
    StreamInfo,
    StreamParam,
    StreamSpec,
    StreamState,
    StreamWatch,
    checked_attrs,
)
from hiss.space import Archive, Eviction
from hiss.v1 import admin_pb2, collections_pb2, events_pb2, kernels_pb2, streams_pb2, types_pb2

P = ParamSpec("P")
R = TypeVar("R")

_DTYPE_CHARS_MAX: Final = 16
_ARRAY_KINDS: Final = "biufc"


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Let a conversion raise `HissError`s only: whatever else it raises becomes an `InvalidInput`."""

    @functools.wraps(function)
    def convert(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except HissError:
            raise
        except (
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            OverflowError,
            RecursionError,
            SyntaxError,
            DecodeError,
        ) as error:
            what = function.__name__.removeprefix("decode_").removeprefix("encode_").replace("_", " ")
            raise InvalidInput(f"{what}: {type(error).__name__}: {str(error)[:300]}") from None

    return convert


# ---------------------------------------------------------------------------------------------------------- JSON


@checked
def encode_json(value: Any) -> str:
    return json.dumps(value)


@checked
def decode_json(text: str, bytes_max: int | None = None) -> Any:
    """A JSON value; empty text is an empty object. `bytes_max` bounds the text, for what comes from a client."""
    if bytes_max is not None and len(text) > bytes_max:
        raise LimitExceeded(f"JSON text of {len(text)} characters, allowed are {bytes_max}", allowed=bytes_max)
    return json.loads(text) if text else {}


def decode_object(text: str, bytes_max: int | None = None) -> dict[str, Any]:
    """A JSON object."""
    value = decode_json(text, bytes_max)
    if not isinstance(value, dict):
        raise InvalidInput(f"JSON {text[:60]!r}: expected an object")
    return value


def decode_attrs(text: str, what: str) -> Attrs:
    """Attributes that a client sent."""
    return checked_attrs(decode_object(text, limits.ATTRS_BYTES_MAX), what)


def encode_attrs(attrs: Attrs) -> str:
    return encode_json(dict(attrs))


# ---------------------------------------------------------------------------------------------------------- types


@checked
def encode_frame(frame: FrameSpec) -> types_pb2.FrameSpec:
    shape = () if frame.opaque else frame.shape
    return types_pb2.FrameSpec(
        dtype=frame.dtype, shape=[types_pb2.Dimension(size=size) for size in shape], encoding=frame.encoding
    )


@checked
def decode_frame(message: types_pb2.FrameSpec) -> FrameSpec:
    if len(message.shape) > limits.RANK_MAX or len(message.dtype) > _DTYPE_CHARS_MAX:
        raise LimitExceeded(f"a shape of {len(message.shape)} dimensions, allowed are {limits.RANK_MAX}")
    shape = tuple(size.size if size.HasField("size") else None for size in message.shape)
    return FrameSpec(message.dtype if message.HasField("dtype") else None, shape, message.encoding or "none")


@checked
def encode_column(column: Column) -> types_pb2.Column:
    return types_pb2.Column(name=column.name, dtype=column.dtype, unit=column.unit)


@checked
def decode_column(message: types_pb2.Column) -> Column:
    if len(message.dtype) > _DTYPE_CHARS_MAX or len(message.unit) > limits.NAME_CHARS_MAX:
        raise InvalidInput(f"column {message.name[:80]!r}: dtype {message.dtype[:40]!r} or unit is too long")
    if "a" in message.dtype:  # an alias of 'S' that NumPy warns of, and that nobody's array interface says
        raise InvalidInput(f"column {message.name[:80]!r}: dtype {message.dtype[:40]!r}; byte strings are '|S16'")
    return Column(message.name, message.dtype, message.unit)


@checked
def encode_array(array: npt.NDArray[Any]) -> types_pb2.Array:
    array = np.asarray(array)
    packed = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return types_pb2.Array(dtype=packed.dtype.str, shape=packed.shape, data=packed.tobytes())


@checked
def decode_array(message: types_pb2.Array) -> npt.NDArray[Any]:
    """A read-only array over the message's own bytes."""
    if len(message.dtype) > _DTYPE_CHARS_MAX or len(message.shape) > limits.RANK_MAX:
        raise InvalidInput(f"array of {len(message.shape)} dimensions and dtype {message.dtype[:40]!r}")
    dtype, shape = np.dtype(message.dtype), tuple(message.shape)
    if dtype.kind not in _ARRAY_KINDS or dtype.subdtype is not None:
        raise InvalidInput(f"array of dtype {dtype}: expected a bool, integer, float or complex type")
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(message.data):
        raise InvalidInput(f"array of shape {shape} and dtype {dtype} with {len(message.data)} bytes")
    flat = np.frombuffer(message.data, dtype)
    if dtype.kind == "b" and flat.size and int(flat.view(np.uint8).max()) > 1:
        raise InvalidInput("array of bool with a byte that is neither 0 nor 1")
    return flat.reshape(shape)


# ---------------------------------------------------------------------------------------------------------- kernels


@checked
def encode_param(param: Param) -> types_pb2.Parameter:
    match param:
        case ScalarParam():
            return types_pb2.Parameter(scalar=_encode_scalar(param))
        case ArrayParam():
            return types_pb2.Parameter(array=encode_array(param.array))
        case StreamParam():
            stream = types_pb2.StreamParameter(path=param.path, version=param.version, reduce=param.reduce)
            return types_pb2.Parameter(stream=stream)
        case ColumnParam():
            return types_pb2.Parameter(column=param.name)
    raise InvalidInput(f"a kernel's parameter is a number, array, stream or column, not {type(param).__name__}")


def _encode_scalar(param: ScalarParam) -> types_pb2.ScalarParameter:
    value = param.value
    if isinstance(value, bool | np.bool_):
        return types_pb2.ScalarParameter(boolean=bool(value), dtype=param.dtype)
    if isinstance(value, int | np.integer):
        if value >= 1 << 63:
            return types_pb2.ScalarParameter(unsigned=int(value), dtype=param.dtype)
        return types_pb2.ScalarParameter(integer=int(value), dtype=param.dtype)
    return types_pb2.ScalarParameter(real=float(value), dtype=param.dtype)


@checked
def decode_param(message: types_pb2.Parameter) -> Param:
    kind = message.WhichOneof("kind")
    if kind == "scalar":
        return _decode_scalar(message.scalar)
    if kind == "array":
        return ArrayParam(decode_array(message.array))
    if kind == "stream":
        stream = message.stream
        return StreamParam(
            stream.path,
            stream.version if stream.HasField("version") else None,
            stream.reduce if stream.HasField("reduce") else None,
        )
    if kind == "column":
        return ColumnParam(message.column)
    raise InvalidInput("a kernel's parameter without a value, or of a kind that this server does not know")


def _decode_scalar(message: types_pb2.ScalarParameter) -> ScalarParam:
    kind = message.WhichOneof("value")
    if kind is None:
        raise InvalidInput("a kernel's number without a value")
    dtype = message.dtype if message.HasField("dtype") else None
    if dtype is not None and (len(dtype) > _DTYPE_CHARS_MAX or np.dtype(dtype).kind not in _ARRAY_KINDS):
        raise InvalidInput(f"a kernel's number of dtype {dtype[:40]!r}: expected a bool, integer or float type")
    return ScalarParam(getattr(message, kind), dtype)


@checked
def encode_kernel_def(kernel: KernelDef) -> types_pb2.KernelDefinition:
    return types_pb2.KernelDefinition(name=kernel.name, kind=int(kernel.kind), source=kernel.source)  # type: ignore[arg-type]


@checked
def decode_kernel_def(message: types_pb2.KernelDefinition) -> KernelDef:
    return KernelDef(message.name, KernelKind(message.kind), message.source)


@checked
def encode_bound_kernel(bound: BoundKernel) -> types_pb2.BoundKernel:
    return types_pb2.BoundKernel(
        kernel=encode_kernel_def(bound.kernel),
        params={name: encode_param(param) for name, param in bound.params.items()},
        budget_s=bound.budget_s,
        shadow=bound.shadow,
        every=bound.every,
        feedback_every=bound.feedback_every,
    )


@checked
def decode_bound_kernel(message: types_pb2.BoundKernel) -> BoundKernel:
    if len(message.params) > limits.KERNEL_PARAMETERS_MAX:
        raise LimitExceeded(f"{len(message.params)} kernel parameters, allowed are {limits.KERNEL_PARAMETERS_MAX}")
    budget_s = message.budget_s or limits.KERNEL_BUDGET_S
    if not 0 < budget_s < math.inf:
        raise InvalidInput(f"kernel {message.kernel.name[:80]!r}: budget_s {budget_s} is no number of seconds above 0")
    params = {name: decode_param(message.params[name]) for name in sorted(message.params)}
    return BoundKernel(
        decode_kernel_def(message.kernel), params, budget_s, message.shadow, message.every, message.feedback_every
    )


def decode_pipeline(messages: Any) -> tuple[BoundKernel, ...]:
    """The stages of a pipeline, within `limits.PIPELINE_STAGES_MAX`."""
    if len(messages) > limits.PIPELINE_STAGES_MAX:
        raise LimitExceeded(f"{len(messages)} kernels, allowed are {limits.PIPELINE_STAGES_MAX}")
    return tuple(map(decode_bound_kernel, messages))


@checked
def encode_kernel_info(info: KernelInfo) -> kernels_pb2.Kernel:
    return kernels_pb2.Kernel(
        definition=encode_kernel_def(info.definition), hash=info.hash, registered_ns=info.registered_ns
    )


@checked
def decode_kernel_info(message: kernels_pb2.Kernel) -> KernelInfo:
    return KernelInfo(decode_kernel_def(message.definition), message.hash, message.registered_ns)


@checked
def encode_replay(replay: Replay) -> streams_pb2.ReplayKernelResponse:
    return streams_pb2.ReplayKernelResponse(**dataclasses.asdict(replay))


@checked
def decode_replay(message: streams_pb2.ReplayKernelResponse) -> Replay:
    counts = {name: getattr(message, name) for name in Replay.__dataclass_fields__ if name != "first"}
    return Replay(**counts, first=message.first if message.HasField("first") else None)


@checked
def encode_stage(stage: StageInfo) -> types_pb2.Stage:
    return types_pb2.Stage(
        name=stage.name,
        kind=int(stage.kind),  # type: ignore[arg-type]
        hash=stage.hash,
        source=stage.source,
        params_json=encode_attrs(stage.params),
        budget_s=stage.budget_s,
        quarantined=stage.quarantined,
        report_json=encode_attrs(stage.report),
        since=stage.since,
        every=stage.every,
        attached=stage.attached,
        feedback_every=stage.feedback_every,
        warnings=stage.warnings,
    )


@checked
def decode_stage(message: types_pb2.Stage) -> StageInfo:
    return StageInfo(
        message.name,
        KernelKind(message.kind),
        message.hash,
        message.source,
        decode_object(message.params_json),
        message.budget_s,
        message.quarantined,
        decode_object(message.report_json) if message.report_json else {},
        message.since if message.HasField("since") else None,
        message.every,
        message.attached,
        message.feedback_every,
        tuple(message.warnings),
    )


# ---------------------------------------------------------------------------------------------------------- streams


@checked
def encode_stream_spec(spec: StreamSpec) -> streams_pb2.StreamSpec:
    return streams_pb2.StreamSpec(
        frame=encode_frame(spec.frame),
        columns=map(encode_column, spec.columns),
        ack=int(spec.ack),  # type: ignore[arg-type]
        attrs_json=encode_attrs(spec.attrs),
        keep=int(spec.keep),  # type: ignore[arg-type]
        kernels=map(encode_bound_kernel, spec.kernels),
        expendable=spec.expendable,
    )


@checked
def decode_stream_spec(message: streams_pb2.StreamSpec) -> StreamSpec:
    if len(message.columns) > limits.COLUMNS_MAX:
        raise LimitExceeded(f"{len(message.columns)} columns, allowed are {limits.COLUMNS_MAX}")
    return StreamSpec(
        frame=decode_frame(message.frame),
        columns=tuple(map(decode_column, message.columns)),
        ack=AckLevel(message.ack or AckLevel.DURABLE),
        attrs=decode_attrs(message.attrs_json, "the stream"),
        keep=Keep(message.keep or Keep.RESULT),
        kernels=decode_pipeline(message.kernels),
        expendable=message.expendable,
    )


@checked
def encode_completeness(completeness: Completeness) -> types_pb2.Completeness:
    return types_pb2.Completeness(
        blocks=completeness.blocks,
        bytes=completeness.bytes,
        gaps=completeness.gaps,
        first_index=completeness.first_index,
        last_index=completeness.last_index,
        ledger=[
            types_pb2.LedgerEntry(first=entry.first, last=entry.last, stage=entry.stage, reason=entry.reason)
            for entry in completeness.ledger
        ],
    )


@checked
def decode_completeness(message: types_pb2.Completeness) -> Completeness:
    return Completeness(
        message.blocks,
        message.bytes,
        message.gaps,
        message.first_index if message.HasField("first_index") else None,
        message.last_index if message.HasField("last_index") else None,
        tuple(LedgerEntry(entry.first, entry.last, entry.stage, entry.reason) for entry in message.ledger),
    )


@checked
def encode_stream_info(info: StreamInfo) -> types_pb2.Stream:
    gone = info.eviction
    return types_pb2.Stream(
        id=info.id,
        collection=info.collection,
        name=info.name,
        version=info.version,
        frame=encode_frame(info.frame),
        columns=map(encode_column, info.columns),
        ack=int(info.ack),  # type: ignore[arg-type]
        keep=int(info.keep),  # type: ignore[arg-type]
        attrs_json=encode_attrs(info.attrs),
        stages=map(encode_stage, info.stages),
        state=int(info.state),  # type: ignore[arg-type]
        completeness=encode_completeness(info.completeness),
        digest=info.digest,
        created_ns=info.created_ns,
        final_ns=info.final_ns,
        raw_of=info.raw_of,
        raw_id=info.raw_id,
        produced_by=info.produced_by,
        abort_reason=info.abort_reason,
        expendable=info.expendable,
        archives=[types_pb2.Archive(location=each.location, verified_ns=each.verified_ns) for each in info.archives],
        eviction=None if gone is None else types_pb2.Eviction(time_ns=gone.time_ns, policy=gone.policy),
        shadows=map(encode_stage, info.shadows),
    )


@checked
def decode_stream_info(message: types_pb2.Stream) -> StreamInfo:
    gone = message.eviction
    return StreamInfo(
        id=message.id,
        collection=message.collection,
        name=message.name,
        version=message.version,
        frame=decode_frame(message.frame),
        columns=tuple(map(decode_column, message.columns)),
        ack=AckLevel(message.ack),
        keep=Keep(message.keep),
        attrs=decode_object(message.attrs_json),
        stages=tuple(map(decode_stage, message.stages)),
        state=StreamState(message.state),
        completeness=decode_completeness(message.completeness),
        digest=message.digest,
        created_ns=message.created_ns,
        final_ns=message.final_ns,
        raw_of=message.raw_of if message.HasField("raw_of") else None,
        raw_id=message.raw_id if message.HasField("raw_id") else None,
        produced_by=message.produced_by if message.HasField("produced_by") else None,
        abort_reason=message.abort_reason,
        expendable=message.expendable,
        archives=tuple(Archive(each.location, each.verified_ns) for each in message.archives),
        eviction=Eviction(gone.time_ns, gone.policy) if message.HasField("eviction") else None,
        shadows=tuple(map(decode_stage, message.shadows)),
    )


@checked
def encode_selection(selection: Selection) -> streams_pb2.Selection:
    return streams_pb2.Selection(
        start=selection.start,
        stop=selection.stop,
        step=selection.step,
        newest=selection.newest,
        kernels=map(encode_bound_kernel, selection.kernels),
        without_data=not selection.data,
        time_start_ns=selection.time_ns[0],
        time_stop_ns=selection.time_ns[1],
        where=map(_encode_column_range, selection.where),
        from_disk=selection.from_disk,
    )


def _encode_column_range(each: ColumnRange) -> streams_pb2.ColumnRange:
    def bound(value: float | None) -> types_pb2.ScalarParameter | None:
        return None if value is None else _encode_scalar(ScalarParam(value))

    return streams_pb2.ColumnRange(column=each.column, low=bound(each.low), high=bound(each.high))


@checked
def decode_selection(message: streams_pb2.Selection) -> Selection:
    return Selection(
        start=message.start if message.HasField("start") else None,
        stop=message.stop if message.HasField("stop") else None,
        step=message.step or 1,
        newest=message.newest,
        data=not message.without_data,
        kernels=decode_pipeline(message.kernels),
        time_ns=(
            message.time_start_ns if message.HasField("time_start_ns") else None,
            message.time_stop_ns if message.HasField("time_stop_ns") else None,
        ),
        where=tuple(map(_decode_column_range, message.where)),
        from_disk=message.from_disk,
    )


def _decode_column_range(message: streams_pb2.ColumnRange) -> ColumnRange:
    return ColumnRange(
        message.column,
        _decode_scalar(message.low).value if message.HasField("low") else None,
        _decode_scalar(message.high).value if message.HasField("high") else None,
    )


# ---------------------------------------------------------------------------------------------------------- appending


@checked
def encode_append_start(start: AppendStart) -> streams_pb2.AppendStart:
    return streams_pb2.AppendStart(
        credit_bytes=start.credit_bytes,
        next_index=start.next_index,
        gaps=[streams_pb2.IndexRange(first=first, last=last) for first, last in start.gaps],
        boot_id=start.boot_id,
        credit_level=int(start.credit_level),  # type: ignore[arg-type]
    )


@checked
def decode_append_start(message: streams_pb2.AppendStart) -> AppendStart:
    gaps = tuple((gap.first, gap.last) for gap in message.gaps)
    level = AckLevel(message.credit_level or AckLevel.RECEIVED)
    return AppendStart(message.credit_bytes, message.next_index, gaps, message.boot_id, level)


@checked
def encode_ack(ack: Ack, credit_bytes: int) -> streams_pb2.Ack:
    return streams_pb2.Ack(
        received=ack.received,
        written=ack.written,
        durable=ack.durable,
        archived=ack.archived,
        credit_bytes=credit_bytes,
    )


@checked
def decode_ack(message: streams_pb2.Ack) -> Ack:
    return Ack(message.received, message.written, message.durable, message.archived)


@checked
def encode_feedback(feedback: Feedback) -> streams_pb2.Feedback:
    return streams_pb2.Feedback(data_json=encode_json(feedback.data), time_ns=feedback.time_ns)


@checked
def decode_feedback(message: streams_pb2.Feedback) -> Feedback:
    return Feedback(decode_json(message.data_json), message.time_ns)


# ---------------------------------------------------------------------------------------------------------- collections


@checked
def encode_collection(info: CollectionInfo) -> collections_pb2.Collection:
    return collections_pb2.Collection(
        path=info.path,
        attrs_json=encode_attrs(info.attrs),
        expect=info.expect,
        joins={name: collections_pb2.Join(streams=streams) for name, streams in info.joins.items()},
        sealed=info.sealed,
        created_ns=info.created_ns,
        streams=info.streams,
        kernels=[
            collections_pb2.Attachment(
                streams=one.streams, stage=encode_stage(one.stage), shadow=one.shadow, attached_ns=one.attached_ns
            )
            for one in info.kernels
        ],
    )


@checked
def decode_collection(message: collections_pb2.Collection) -> CollectionInfo:
    return CollectionInfo(
        path=message.path,
        attrs=decode_object(message.attrs_json),
        expect=tuple(message.expect),
        joins={name: tuple(message.joins[name].streams) for name in sorted(message.joins)},
        sealed=message.sealed,
        created_ns=message.created_ns,
        streams=tuple(message.streams),
        kernels=tuple(
            Attachment(one.streams, decode_stage(one.stage), one.shadow, one.attached_ns) for one in message.kernels
        ),
    )


def bounded_names(names: Iterable[str], what: str) -> list[str]:
    """Names of streams that a client sent, within `limits.EXPECTED_STREAMS_MAX`."""
    found = list(names)
    if len(found) > limits.EXPECTED_STREAMS_MAX:
        raise LimitExceeded(
            f"{what}: {len(found)} streams, allowed are {limits.EXPECTED_STREAMS_MAX}",
            limit="EXPECTED_STREAMS_MAX",
            allowed=limits.EXPECTED_STREAMS_MAX,
            found=len(found),
        )
    return found


# ---------------------------------------------------------------------------------------------------------- events


@checked
def encode_event(event: Event) -> events_pb2.Event:
    return events_pb2.Event(
        node=event.node,
        seq=event.seq,
        kind=event.kind,
        time_ns=event.time_ns,
        collection=event.collection,
        stream=event.stream,
        version=event.version,
        data_json=encode_attrs(event.data),
    )


@checked
def decode_event(message: events_pb2.Event) -> Event:
    return Event(
        message.node,
        message.seq,
        message.kind,
        message.time_ns,
        message.collection,
        message.stream,
        message.version,
        decode_object(message.data_json),
    )


@checked
def encode_stream_watch(watch: StreamWatch) -> events_pb2.StreamWatch:
    return events_pb2.StreamWatch(trigger=watch.trigger, every=watch.every, stalled_s=watch.stalled_s)


@checked
def decode_stream_watch(message: events_pb2.StreamWatch) -> StreamWatch:
    return StreamWatch(message.trigger, message.every, message.stalled_s)


_STATUS_FIELDS: Final = tuple(
    field for field in NodeStatus.__dataclass_fields__ if field not in ("recovery", "kernels")
)


@checked
def encode_status(status: NodeStatus) -> admin_pb2.GetStatusResponse:
    values = {name: getattr(status, name) for name in _STATUS_FIELDS}
    return admin_pb2.GetStatusResponse(
        **values, recovery_json=encode_attrs(status.recovery), kernels_json=encode_attrs(status.kernels)
    )


@checked
def decode_status(message: admin_pb2.GetStatusResponse) -> NodeStatus:
    values = {name: getattr(message, name) for name in _STATUS_FIELDS}
    kernels = decode_object(message.kernels_json) if message.kernels_json else {}
    return NodeStatus(**values, recovery=decode_object(message.recovery_json), kernels=kernels)
