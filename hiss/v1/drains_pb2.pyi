from hiss.v1 import space_pb2 as _space_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DrainTarget(_message.Message):
    __slots__ = ("url", "form", "compression", "when", "priority", "bytes_per_s")
    URL_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    WHEN_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    url: str
    form: str
    compression: str
    when: str
    priority: int
    bytes_per_s: int
    def __init__(self, url: _Optional[str] = ..., form: _Optional[str] = ..., compression: _Optional[str] = ..., when: _Optional[str] = ..., priority: _Optional[int] = ..., bytes_per_s: _Optional[int] = ...) -> None: ...

class DrainPolicy(_message.Message):
    __slots__ = ("targets",)
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedCompositeFieldContainer[DrainTarget]
    def __init__(self, targets: _Optional[_Iterable[_Union[DrainTarget, _Mapping]]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("id", "source", "version", "url", "target", "state", "attempts", "reason", "due_ns", "next_ns", "changed_ns", "began")
    ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DUE_NS_FIELD_NUMBER: _ClassVar[int]
    NEXT_NS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_NS_FIELD_NUMBER: _ClassVar[int]
    BEGAN_FIELD_NUMBER: _ClassVar[int]
    id: str
    source: str
    version: int
    url: str
    target: DrainTarget
    state: str
    attempts: int
    reason: str
    due_ns: int
    next_ns: int
    changed_ns: int
    began: bool
    def __init__(self, id: _Optional[str] = ..., source: _Optional[str] = ..., version: _Optional[int] = ..., url: _Optional[str] = ..., target: _Optional[_Union[DrainTarget, _Mapping]] = ..., state: _Optional[str] = ..., attempts: _Optional[int] = ..., reason: _Optional[str] = ..., due_ns: _Optional[int] = ..., next_ns: _Optional[int] = ..., changed_ns: _Optional[int] = ..., began: _Optional[bool] = ...) -> None: ...

class GetDrainPolicyRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class GetDrainPolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: DrainPolicy
    def __init__(self, policy: _Optional[_Union[DrainPolicy, _Mapping]] = ...) -> None: ...

class SetDrainPolicyRequest(_message.Message):
    __slots__ = ("collection", "policy")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    policy: DrainPolicy
    def __init__(self, collection: _Optional[str] = ..., policy: _Optional[_Union[DrainPolicy, _Mapping]] = ...) -> None: ...

class SetDrainPolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: DrainPolicy
    def __init__(self, policy: _Optional[_Union[DrainPolicy, _Mapping]] = ...) -> None: ...

class PlanDrainsRequest(_message.Message):
    __slots__ = ("paths", "cursor", "ask", "dry_run")
    PATHS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    paths: _containers.RepeatedScalarFieldContainer[str]
    cursor: int
    ask: bool
    dry_run: bool
    def __init__(self, paths: _Optional[_Iterable[str]] = ..., cursor: _Optional[int] = ..., ask: _Optional[bool] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class PlanDrainsResponse(_message.Message):
    __slots__ = ("drains",)
    DRAINS_FIELD_NUMBER: _ClassVar[int]
    drains: _containers.RepeatedCompositeFieldContainer[Drain]
    def __init__(self, drains: _Optional[_Iterable[_Union[Drain, _Mapping]]] = ...) -> None: ...

class ListDrainsRequest(_message.Message):
    __slots__ = ("path", "unfinished")
    PATH_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_FIELD_NUMBER: _ClassVar[int]
    path: str
    unfinished: bool
    def __init__(self, path: _Optional[str] = ..., unfinished: _Optional[bool] = ...) -> None: ...

class ListDrainsResponse(_message.Message):
    __slots__ = ("drains",)
    DRAINS_FIELD_NUMBER: _ClassVar[int]
    drains: _containers.RepeatedCompositeFieldContainer[Drain]
    def __init__(self, drains: _Optional[_Iterable[_Union[Drain, _Mapping]]] = ...) -> None: ...

class GetNextDrainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetNextDrainResponse(_message.Message):
    __slots__ = ("drain", "cursor")
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    drain: Drain
    cursor: int
    def __init__(self, drain: _Optional[_Union[Drain, _Mapping]] = ..., cursor: _Optional[int] = ...) -> None: ...

class MarkDrainRequest(_message.Message):
    __slots__ = ("id", "state", "reason", "began")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BEGAN_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: str
    reason: str
    began: bool
    def __init__(self, id: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., began: _Optional[bool] = ...) -> None: ...

class MarkDrainResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RecordArchivesRequest(_message.Message):
    __slots__ = ("archives",)
    ARCHIVES_FIELD_NUMBER: _ClassVar[int]
    archives: _containers.RepeatedCompositeFieldContainer[_space_pb2.RecordArchiveRequest]
    def __init__(self, archives: _Optional[_Iterable[_Union[_space_pb2.RecordArchiveRequest, _Mapping]]] = ...) -> None: ...

class RecordArchivesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IsArchivedRequest(_message.Message):
    __slots__ = ("stream_id",)
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    def __init__(self, stream_id: _Optional[str] = ...) -> None: ...

class IsArchivedResponse(_message.Message):
    __slots__ = ("archived",)
    ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    archived: bool
    def __init__(self, archived: _Optional[bool] = ...) -> None: ...
