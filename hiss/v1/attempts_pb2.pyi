from hiss.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CommitAttemptRequest(_message.Message):
    __slots__ = ("attempt", "event_kind", "event_json")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EVENT_KIND_FIELD_NUMBER: _ClassVar[int]
    EVENT_JSON_FIELD_NUMBER: _ClassVar[int]
    attempt: str
    event_kind: str
    event_json: str
    def __init__(self, attempt: _Optional[str] = ..., event_kind: _Optional[str] = ..., event_json: _Optional[str] = ...) -> None: ...

class CommitAttemptResponse(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[_types_pb2.StreamReference]
    def __init__(self, streams: _Optional[_Iterable[_Union[_types_pb2.StreamReference, _Mapping]]] = ...) -> None: ...

class DiscardAttemptRequest(_message.Message):
    __slots__ = ("attempt",)
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    attempt: str
    def __init__(self, attempt: _Optional[str] = ...) -> None: ...

class DiscardAttemptResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAttemptReadsRequest(_message.Message):
    __slots__ = ("attempt",)
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    attempt: str
    def __init__(self, attempt: _Optional[str] = ...) -> None: ...

class GetAttemptReadsResponse(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[_types_pb2.StreamReference]
    def __init__(self, streams: _Optional[_Iterable[_Union[_types_pb2.StreamReference, _Mapping]]] = ...) -> None: ...

class GetAttemptWritesRequest(_message.Message):
    __slots__ = ("attempt",)
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    attempt: str
    def __init__(self, attempt: _Optional[str] = ...) -> None: ...

class GetAttemptWritesResponse(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[_types_pb2.StreamReference]
    def __init__(self, streams: _Optional[_Iterable[_Union[_types_pb2.StreamReference, _Mapping]]] = ...) -> None: ...
