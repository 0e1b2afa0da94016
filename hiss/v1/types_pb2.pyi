from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AckLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACK_LEVEL_UNSPECIFIED: _ClassVar[AckLevel]
    ACK_LEVEL_RECEIVED: _ClassVar[AckLevel]
    ACK_LEVEL_WRITTEN: _ClassVar[AckLevel]
    ACK_LEVEL_DURABLE: _ClassVar[AckLevel]
    ACK_LEVEL_ARCHIVED: _ClassVar[AckLevel]

class Keep(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEEP_UNSPECIFIED: _ClassVar[Keep]
    KEEP_RESULT: _ClassVar[Keep]
    KEEP_RAW: _ClassVar[Keep]
    KEEP_BOTH: _ClassVar[Keep]

class StreamState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STREAM_STATE_UNSPECIFIED: _ClassVar[StreamState]
    STREAM_STATE_OPEN: _ClassVar[StreamState]
    STREAM_STATE_SEALED: _ClassVar[StreamState]
    STREAM_STATE_ABORTED: _ClassVar[StreamState]

class BlockStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BLOCK_STATUS_STORED: _ClassVar[BlockStatus]
    BLOCK_STATUS_VETOED: _ClassVar[BlockStatus]
    BLOCK_STATUS_KERNEL_FAILED: _ClassVar[BlockStatus]
    BLOCK_STATUS_SHED: _ClassVar[BlockStatus]
    BLOCK_STATUS_DECLARED: _ClassVar[BlockStatus]
    BLOCK_STATUS_LOST: _ClassVar[BlockStatus]
    BLOCK_STATUS_RAW_ONLY: _ClassVar[BlockStatus]
    BLOCK_STATUS_DROPPED: _ClassVar[BlockStatus]
    BLOCK_STATUS_PRESCALED: _ClassVar[BlockStatus]

class KernelKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KERNEL_KIND_UNSPECIFIED: _ClassVar[KernelKind]
    KERNEL_KIND_MAP: _ClassVar[KernelKind]
    KERNEL_KIND_FILTER: _ClassVar[KernelKind]
    KERNEL_KIND_SCAN: _ClassVar[KernelKind]
    KERNEL_KIND_REDUCE: _ClassVar[KernelKind]
ACK_LEVEL_UNSPECIFIED: AckLevel
ACK_LEVEL_RECEIVED: AckLevel
ACK_LEVEL_WRITTEN: AckLevel
ACK_LEVEL_DURABLE: AckLevel
ACK_LEVEL_ARCHIVED: AckLevel
KEEP_UNSPECIFIED: Keep
KEEP_RESULT: Keep
KEEP_RAW: Keep
KEEP_BOTH: Keep
STREAM_STATE_UNSPECIFIED: StreamState
STREAM_STATE_OPEN: StreamState
STREAM_STATE_SEALED: StreamState
STREAM_STATE_ABORTED: StreamState
BLOCK_STATUS_STORED: BlockStatus
BLOCK_STATUS_VETOED: BlockStatus
BLOCK_STATUS_KERNEL_FAILED: BlockStatus
BLOCK_STATUS_SHED: BlockStatus
BLOCK_STATUS_DECLARED: BlockStatus
BLOCK_STATUS_LOST: BlockStatus
BLOCK_STATUS_RAW_ONLY: BlockStatus
BLOCK_STATUS_DROPPED: BlockStatus
BLOCK_STATUS_PRESCALED: BlockStatus
KERNEL_KIND_UNSPECIFIED: KernelKind
KERNEL_KIND_MAP: KernelKind
KERNEL_KIND_FILTER: KernelKind
KERNEL_KIND_SCAN: KernelKind
KERNEL_KIND_REDUCE: KernelKind

class Dimension(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class FrameSpec(_message.Message):
    __slots__ = ("dtype", "shape", "encoding")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedCompositeFieldContainer[Dimension]
    encoding: str
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[_Union[Dimension, _Mapping]]] = ..., encoding: _Optional[str] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "dtype", "unit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    unit: str
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., unit: _Optional[str] = ...) -> None: ...

class Extent(_message.Message):
    __slots__ = ("index", "time_ns", "length", "digest", "status", "columns", "column_types", "received_ns", "cause", "source_digest", "padding", "data")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    COLUMN_TYPES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_NS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    index: _containers.RepeatedScalarFieldContainer[int]
    time_ns: _containers.RepeatedScalarFieldContainer[int]
    length: _containers.RepeatedScalarFieldContainer[int]
    digest: _containers.RepeatedScalarFieldContainer[int]
    status: bytes
    columns: bytes
    column_types: _containers.RepeatedCompositeFieldContainer[Column]
    received_ns: _containers.RepeatedScalarFieldContainer[int]
    cause: bytes
    source_digest: _containers.RepeatedScalarFieldContainer[int]
    padding: bytes
    data: bytes
    def __init__(self, index: _Optional[_Iterable[int]] = ..., time_ns: _Optional[_Iterable[int]] = ..., length: _Optional[_Iterable[int]] = ..., digest: _Optional[_Iterable[int]] = ..., status: _Optional[bytes] = ..., columns: _Optional[bytes] = ..., column_types: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., received_ns: _Optional[_Iterable[int]] = ..., cause: _Optional[bytes] = ..., source_digest: _Optional[_Iterable[int]] = ..., padding: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ScalarParameter(_message.Message):
    __slots__ = ("boolean", "integer", "unsigned", "real", "dtype")
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    UNSIGNED_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    boolean: bool
    integer: int
    unsigned: int
    real: float
    dtype: str
    def __init__(self, boolean: _Optional[bool] = ..., integer: _Optional[int] = ..., unsigned: _Optional[int] = ..., real: _Optional[float] = ..., dtype: _Optional[str] = ...) -> None: ...

class StreamParameter(_message.Message):
    __slots__ = ("path", "version", "reduce")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REDUCE_FIELD_NUMBER: _ClassVar[int]
    path: str
    version: int
    reduce: str
    def __init__(self, path: _Optional[str] = ..., version: _Optional[int] = ..., reduce: _Optional[str] = ...) -> None: ...

class Parameter(_message.Message):
    __slots__ = ("scalar", "array", "stream", "column")
    SCALAR_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    scalar: ScalarParameter
    array: Array
    stream: StreamParameter
    column: str
    def __init__(self, scalar: _Optional[_Union[ScalarParameter, _Mapping]] = ..., array: _Optional[_Union[Array, _Mapping]] = ..., stream: _Optional[_Union[StreamParameter, _Mapping]] = ..., column: _Optional[str] = ...) -> None: ...

class KernelDefinition(_message.Message):
    __slots__ = ("name", "kind", "source")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: KernelKind
    source: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[KernelKind, str]] = ..., source: _Optional[str] = ...) -> None: ...

class BoundKernel(_message.Message):
    __slots__ = ("kernel", "params", "budget_s", "shadow", "every", "feedback_every")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Parameter
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Parameter, _Mapping]] = ...) -> None: ...
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_S_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_EVERY_FIELD_NUMBER: _ClassVar[int]
    kernel: KernelDefinition
    params: _containers.MessageMap[str, Parameter]
    budget_s: float
    shadow: bool
    every: int
    feedback_every: int
    def __init__(self, kernel: _Optional[_Union[KernelDefinition, _Mapping]] = ..., params: _Optional[_Mapping[str, Parameter]] = ..., budget_s: _Optional[float] = ..., shadow: _Optional[bool] = ..., every: _Optional[int] = ..., feedback_every: _Optional[int] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("name", "kind", "hash", "source", "params_json", "budget_s", "quarantined", "report_json", "since", "every", "attached", "feedback_every", "warnings")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PARAMS_JSON_FIELD_NUMBER: _ClassVar[int]
    BUDGET_S_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    REPORT_JSON_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_EVERY_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: KernelKind
    hash: str
    source: str
    params_json: str
    budget_s: float
    quarantined: bool
    report_json: str
    since: int
    every: int
    attached: bool
    feedback_every: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[KernelKind, str]] = ..., hash: _Optional[str] = ..., source: _Optional[str] = ..., params_json: _Optional[str] = ..., budget_s: _Optional[float] = ..., quarantined: _Optional[bool] = ..., report_json: _Optional[str] = ..., since: _Optional[int] = ..., every: _Optional[int] = ..., attached: _Optional[bool] = ..., feedback_every: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class LedgerEntry(_message.Message):
    __slots__ = ("first", "last", "stage", "reason")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    stage: str
    reason: str
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ..., stage: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Completeness(_message.Message):
    __slots__ = ("blocks", "bytes", "gaps", "first_index", "last_index", "ledger")
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    blocks: int
    bytes: int
    gaps: int
    first_index: int
    last_index: int
    ledger: _containers.RepeatedCompositeFieldContainer[LedgerEntry]
    def __init__(self, blocks: _Optional[int] = ..., bytes: _Optional[int] = ..., gaps: _Optional[int] = ..., first_index: _Optional[int] = ..., last_index: _Optional[int] = ..., ledger: _Optional[_Iterable[_Union[LedgerEntry, _Mapping]]] = ...) -> None: ...

class Stream(_message.Message):
    __slots__ = ("id", "collection", "name", "version", "frame", "columns", "ack", "keep", "attrs_json", "stages", "state", "completeness", "digest", "created_ns", "final_ns", "raw_of", "raw_id", "produced_by", "abort_reason", "expendable", "archives", "eviction", "shadows")
    ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    ATTRS_JSON_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COMPLETENESS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    FINAL_NS_FIELD_NUMBER: _ClassVar[int]
    RAW_OF_FIELD_NUMBER: _ClassVar[int]
    RAW_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCED_BY_FIELD_NUMBER: _ClassVar[int]
    ABORT_REASON_FIELD_NUMBER: _ClassVar[int]
    EXPENDABLE_FIELD_NUMBER: _ClassVar[int]
    ARCHIVES_FIELD_NUMBER: _ClassVar[int]
    EVICTION_FIELD_NUMBER: _ClassVar[int]
    SHADOWS_FIELD_NUMBER: _ClassVar[int]
    id: str
    collection: str
    name: str
    version: int
    frame: FrameSpec
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    ack: AckLevel
    keep: Keep
    attrs_json: str
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    state: StreamState
    completeness: Completeness
    digest: str
    created_ns: int
    final_ns: int
    raw_of: str
    raw_id: str
    produced_by: str
    abort_reason: str
    expendable: bool
    archives: _containers.RepeatedCompositeFieldContainer[Archive]
    eviction: Eviction
    shadows: _containers.RepeatedCompositeFieldContainer[Stage]
    def __init__(self, id: _Optional[str] = ..., collection: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., frame: _Optional[_Union[FrameSpec, _Mapping]] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., ack: _Optional[_Union[AckLevel, str]] = ..., keep: _Optional[_Union[Keep, str]] = ..., attrs_json: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., state: _Optional[_Union[StreamState, str]] = ..., completeness: _Optional[_Union[Completeness, _Mapping]] = ..., digest: _Optional[str] = ..., created_ns: _Optional[int] = ..., final_ns: _Optional[int] = ..., raw_of: _Optional[str] = ..., raw_id: _Optional[str] = ..., produced_by: _Optional[str] = ..., abort_reason: _Optional[str] = ..., expendable: _Optional[bool] = ..., archives: _Optional[_Iterable[_Union[Archive, _Mapping]]] = ..., eviction: _Optional[_Union[Eviction, _Mapping]] = ..., shadows: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ...) -> None: ...

class Archive(_message.Message):
    __slots__ = ("location", "verified_ns")
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_NS_FIELD_NUMBER: _ClassVar[int]
    location: str
    verified_ns: int
    def __init__(self, location: _Optional[str] = ..., verified_ns: _Optional[int] = ...) -> None: ...

class Eviction(_message.Message):
    __slots__ = ("time_ns", "policy")
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    time_ns: int
    policy: str
    def __init__(self, time_ns: _Optional[int] = ..., policy: _Optional[str] = ...) -> None: ...

class StreamReference(_message.Message):
    __slots__ = ("id", "path", "version", "digest")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    id: str
    path: str
    version: int
    digest: str
    def __init__(self, id: _Optional[str] = ..., path: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...
