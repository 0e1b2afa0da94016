from hiss.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StreamSpec(_message.Message):
    __slots__ = ("frame", "columns", "ack", "attrs_json", "keep", "kernels", "expendable")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    ATTRS_JSON_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    EXPENDABLE_FIELD_NUMBER: _ClassVar[int]
    frame: _types_pb2.FrameSpec
    columns: _containers.RepeatedCompositeFieldContainer[_types_pb2.Column]
    ack: _types_pb2.AckLevel
    attrs_json: str
    keep: _types_pb2.Keep
    kernels: _containers.RepeatedCompositeFieldContainer[_types_pb2.BoundKernel]
    expendable: bool
    def __init__(self, frame: _Optional[_Union[_types_pb2.FrameSpec, _Mapping]] = ..., columns: _Optional[_Iterable[_Union[_types_pb2.Column, _Mapping]]] = ..., ack: _Optional[_Union[_types_pb2.AckLevel, str]] = ..., attrs_json: _Optional[str] = ..., keep: _Optional[_Union[_types_pb2.Keep, str]] = ..., kernels: _Optional[_Iterable[_Union[_types_pb2.BoundKernel, _Mapping]]] = ..., expendable: _Optional[bool] = ...) -> None: ...

class CreateStreamRequest(_message.Message):
    __slots__ = ("collection", "name", "spec", "resume", "new_version")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    NEW_VERSION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    spec: StreamSpec
    resume: bool
    new_version: bool
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ..., spec: _Optional[_Union[StreamSpec, _Mapping]] = ..., resume: _Optional[bool] = ..., new_version: _Optional[bool] = ...) -> None: ...

class CreateStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: _types_pb2.Stream
    def __init__(self, stream: _Optional[_Union[_types_pb2.Stream, _Mapping]] = ...) -> None: ...

class GetStreamRequest(_message.Message):
    __slots__ = ("path", "version")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    path: str
    version: int
    def __init__(self, path: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: _types_pb2.Stream
    def __init__(self, stream: _Optional[_Union[_types_pb2.Stream, _Mapping]] = ...) -> None: ...

class ListStreamsRequest(_message.Message):
    __slots__ = ("collection", "all_versions")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ALL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    all_versions: bool
    def __init__(self, collection: _Optional[str] = ..., all_versions: _Optional[bool] = ...) -> None: ...

class ListStreamsResponse(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[_types_pb2.Stream]
    def __init__(self, streams: _Optional[_Iterable[_Union[_types_pb2.Stream, _Mapping]]] = ...) -> None: ...

class AmendStreamRequest(_message.Message):
    __slots__ = ("stream_id", "attrs_json")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRS_JSON_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    attrs_json: str
    def __init__(self, stream_id: _Optional[str] = ..., attrs_json: _Optional[str] = ...) -> None: ...

class AmendStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: _types_pb2.Stream
    def __init__(self, stream: _Optional[_Union[_types_pb2.Stream, _Mapping]] = ...) -> None: ...

class AppendOpen(_message.Message):
    __slots__ = ("stream_id",)
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    def __init__(self, stream_id: _Optional[str] = ...) -> None: ...

class AppendRequest(_message.Message):
    __slots__ = ("open", "extent")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    EXTENT_FIELD_NUMBER: _ClassVar[int]
    open: AppendOpen
    extent: _types_pb2.Extent
    def __init__(self, open: _Optional[_Union[AppendOpen, _Mapping]] = ..., extent: _Optional[_Union[_types_pb2.Extent, _Mapping]] = ...) -> None: ...

class IndexRange(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class AppendStart(_message.Message):
    __slots__ = ("credit_bytes", "next_index", "gaps", "boot_id", "credit_level")
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    CREDIT_LEVEL_FIELD_NUMBER: _ClassVar[int]
    credit_bytes: int
    next_index: int
    gaps: _containers.RepeatedCompositeFieldContainer[IndexRange]
    boot_id: str
    credit_level: _types_pb2.AckLevel
    def __init__(self, credit_bytes: _Optional[int] = ..., next_index: _Optional[int] = ..., gaps: _Optional[_Iterable[_Union[IndexRange, _Mapping]]] = ..., boot_id: _Optional[str] = ..., credit_level: _Optional[_Union[_types_pb2.AckLevel, str]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("received", "written", "durable", "archived", "credit_bytes")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    received: int
    written: int
    durable: int
    archived: int
    credit_bytes: int
    def __init__(self, received: _Optional[int] = ..., written: _Optional[int] = ..., durable: _Optional[int] = ..., archived: _Optional[int] = ..., credit_bytes: _Optional[int] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("data_json", "time_ns")
    DATA_JSON_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    data_json: str
    time_ns: int
    def __init__(self, data_json: _Optional[str] = ..., time_ns: _Optional[int] = ...) -> None: ...

class AppendResponse(_message.Message):
    __slots__ = ("start", "ack", "feedback")
    START_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    start: AppendStart
    ack: Ack
    feedback: Feedback
    def __init__(self, start: _Optional[_Union[AppendStart, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., feedback: _Optional[_Union[Feedback, _Mapping]] = ...) -> None: ...

class OpenLaneRequest(_message.Message):
    __slots__ = ("stream_id", "read")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    read: bool
    def __init__(self, stream_id: _Optional[str] = ..., read: _Optional[bool] = ...) -> None: ...

class LaneOffer(_message.Message):
    __slots__ = ("address", "ticket")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    address: str
    ticket: bytes
    def __init__(self, address: _Optional[str] = ..., ticket: _Optional[bytes] = ...) -> None: ...

class OpenLaneResponse(_message.Message):
    __slots__ = ("lanes",)
    LANES_FIELD_NUMBER: _ClassVar[int]
    lanes: _containers.RepeatedCompositeFieldContainer[LaneOffer]
    def __init__(self, lanes: _Optional[_Iterable[_Union[LaneOffer, _Mapping]]] = ...) -> None: ...

class SealStreamRequest(_message.Message):
    __slots__ = ("stream_id", "end_index")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    END_INDEX_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    end_index: int
    def __init__(self, stream_id: _Optional[str] = ..., end_index: _Optional[int] = ...) -> None: ...

class SealStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: _types_pb2.Stream
    def __init__(self, stream: _Optional[_Union[_types_pb2.Stream, _Mapping]] = ...) -> None: ...

class AbortStreamRequest(_message.Message):
    __slots__ = ("stream_id", "reason")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    reason: str
    def __init__(self, stream_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AbortStreamResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: _types_pb2.Stream
    def __init__(self, stream: _Optional[_Union[_types_pb2.Stream, _Mapping]] = ...) -> None: ...

class DeleteStreamRequest(_message.Message):
    __slots__ = ("stream_id",)
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    def __init__(self, stream_id: _Optional[str] = ...) -> None: ...

class DeleteStreamResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Selection(_message.Message):
    __slots__ = ("start", "stop", "step", "newest", "kernels", "without_data", "time_start_ns", "time_stop_ns", "where", "from_disk")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_DATA_FIELD_NUMBER: _ClassVar[int]
    TIME_START_NS_FIELD_NUMBER: _ClassVar[int]
    TIME_STOP_NS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    FROM_DISK_FIELD_NUMBER: _ClassVar[int]
    start: int
    stop: int
    step: int
    newest: bool
    kernels: _containers.RepeatedCompositeFieldContainer[_types_pb2.BoundKernel]
    without_data: bool
    time_start_ns: int
    time_stop_ns: int
    where: _containers.RepeatedCompositeFieldContainer[ColumnRange]
    from_disk: bool
    def __init__(self, start: _Optional[int] = ..., stop: _Optional[int] = ..., step: _Optional[int] = ..., newest: _Optional[bool] = ..., kernels: _Optional[_Iterable[_Union[_types_pb2.BoundKernel, _Mapping]]] = ..., without_data: _Optional[bool] = ..., time_start_ns: _Optional[int] = ..., time_stop_ns: _Optional[int] = ..., where: _Optional[_Iterable[_Union[ColumnRange, _Mapping]]] = ..., from_disk: _Optional[bool] = ...) -> None: ...

class ColumnRange(_message.Message):
    __slots__ = ("column", "low", "high")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    column: str
    low: _types_pb2.ScalarParameter
    high: _types_pb2.ScalarParameter
    def __init__(self, column: _Optional[str] = ..., low: _Optional[_Union[_types_pb2.ScalarParameter, _Mapping]] = ..., high: _Optional[_Union[_types_pb2.ScalarParameter, _Mapping]] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("stream_id", "selection")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    selection: Selection
    def __init__(self, stream_id: _Optional[str] = ..., selection: _Optional[_Union[Selection, _Mapping]] = ...) -> None: ...

class ReadResponse(_message.Message):
    __slots__ = ("extent",)
    EXTENT_FIELD_NUMBER: _ClassVar[int]
    extent: _types_pb2.Extent
    def __init__(self, extent: _Optional[_Union[_types_pb2.Extent, _Mapping]] = ...) -> None: ...

class GetOutputFrameRequest(_message.Message):
    __slots__ = ("stream_id", "kernels")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    kernels: _containers.RepeatedCompositeFieldContainer[_types_pb2.BoundKernel]
    def __init__(self, stream_id: _Optional[str] = ..., kernels: _Optional[_Iterable[_Union[_types_pb2.BoundKernel, _Mapping]]] = ...) -> None: ...

class GetOutputFrameResponse(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: _types_pb2.FrameSpec
    def __init__(self, frame: _Optional[_Union[_types_pb2.FrameSpec, _Mapping]] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("stream_id", "start")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    start: int
    def __init__(self, stream_id: _Optional[str] = ..., start: _Optional[int] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("extent",)
    EXTENT_FIELD_NUMBER: _ClassVar[int]
    extent: _types_pb2.Extent
    def __init__(self, extent: _Optional[_Union[_types_pb2.Extent, _Mapping]] = ...) -> None: ...

class ReduceRequest(_message.Message):
    __slots__ = ("path", "version", "reduction")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    path: str
    version: int
    reduction: str
    def __init__(self, path: _Optional[str] = ..., version: _Optional[int] = ..., reduction: _Optional[str] = ...) -> None: ...

class ReduceResponse(_message.Message):
    __slots__ = ("array",)
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    array: _types_pb2.Array
    def __init__(self, array: _Optional[_Union[_types_pb2.Array, _Mapping]] = ...) -> None: ...

class SendFeedbackRequest(_message.Message):
    __slots__ = ("stream_id", "data_json")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_JSON_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    data_json: str
    def __init__(self, stream_id: _Optional[str] = ..., data_json: _Optional[str] = ...) -> None: ...

class SendFeedbackResponse(_message.Message):
    __slots__ = ("delivered",)
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    delivered: bool
    def __init__(self, delivered: _Optional[bool] = ...) -> None: ...

class PromoteKernelRequest(_message.Message):
    __slots__ = ("stream_id", "kernel")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    kernel: str
    def __init__(self, stream_id: _Optional[str] = ..., kernel: _Optional[str] = ...) -> None: ...

class PromoteKernelResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: _types_pb2.Stream
    def __init__(self, stream: _Optional[_Union[_types_pb2.Stream, _Mapping]] = ...) -> None: ...

class ReplayKernelRequest(_message.Message):
    __slots__ = ("stream_id", "kernel")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    kernel: _types_pb2.KernelDefinition
    def __init__(self, stream_id: _Optional[str] = ..., kernel: _Optional[_Union[_types_pb2.KernelDefinition, _Mapping]] = ...) -> None: ...

class ReplayKernelResponse(_message.Message):
    __slots__ = ("blocks", "same", "different", "vetoed", "kept", "recovered", "failed", "first", "largest")
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SAME_FIELD_NUMBER: _ClassVar[int]
    DIFFERENT_FIELD_NUMBER: _ClassVar[int]
    VETOED_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    blocks: int
    same: int
    different: int
    vetoed: int
    kept: int
    recovered: int
    failed: int
    first: int
    largest: float
    def __init__(self, blocks: _Optional[int] = ..., same: _Optional[int] = ..., different: _Optional[int] = ..., vetoed: _Optional[int] = ..., kept: _Optional[int] = ..., recovered: _Optional[int] = ..., failed: _Optional[int] = ..., first: _Optional[int] = ..., largest: _Optional[float] = ...) -> None: ...
