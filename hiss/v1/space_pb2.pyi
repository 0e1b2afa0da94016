from hiss.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Reservation(_message.Message):
    __slots__ = ("id", "collection", "bytes", "used_bytes", "created_ns", "expires_ns")
    ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    id: str
    collection: str
    bytes: int
    used_bytes: int
    created_ns: int
    expires_ns: int
    def __init__(self, id: _Optional[str] = ..., collection: _Optional[str] = ..., bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., created_ns: _Optional[int] = ..., expires_ns: _Optional[int] = ...) -> None: ...

class ReserveRequest(_message.Message):
    __slots__ = ("collection", "bytes", "hours")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    HOURS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    bytes: int
    hours: float
    def __init__(self, collection: _Optional[str] = ..., bytes: _Optional[int] = ..., hours: _Optional[float] = ...) -> None: ...

class ReserveResponse(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: Reservation
    def __init__(self, reservation: _Optional[_Union[Reservation, _Mapping]] = ...) -> None: ...

class ListReservationsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListReservationsResponse(_message.Message):
    __slots__ = ("reservations",)
    RESERVATIONS_FIELD_NUMBER: _ClassVar[int]
    reservations: _containers.RepeatedCompositeFieldContainer[Reservation]
    def __init__(self, reservations: _Optional[_Iterable[_Union[Reservation, _Mapping]]] = ...) -> None: ...

class ReleaseReservationRequest(_message.Message):
    __slots__ = ("reservation_id",)
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    reservation_id: str
    def __init__(self, reservation_id: _Optional[str] = ...) -> None: ...

class ReleaseReservationResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RecordArchiveRequest(_message.Message):
    __slots__ = ("stream_id", "location", "digest")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    location: str
    digest: str
    def __init__(self, stream_id: _Optional[str] = ..., location: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class RecordArchiveResponse(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: _types_pb2.Stream
    def __init__(self, stream: _Optional[_Union[_types_pb2.Stream, _Mapping]] = ...) -> None: ...

class Retention(_message.Message):
    __slots__ = ("age_s", "drained_s", "pressure", "undrained")
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    DRAINED_S_FIELD_NUMBER: _ClassVar[int]
    PRESSURE_FIELD_NUMBER: _ClassVar[int]
    UNDRAINED_FIELD_NUMBER: _ClassVar[int]
    age_s: float
    drained_s: float
    pressure: bool
    undrained: bool
    def __init__(self, age_s: _Optional[float] = ..., drained_s: _Optional[float] = ..., pressure: _Optional[bool] = ..., undrained: _Optional[bool] = ...) -> None: ...

class GetRetentionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class GetRetentionResponse(_message.Message):
    __slots__ = ("retention",)
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    retention: Retention
    def __init__(self, retention: _Optional[_Union[Retention, _Mapping]] = ...) -> None: ...

class SetRetentionRequest(_message.Message):
    __slots__ = ("collection", "retention")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    retention: Retention
    def __init__(self, collection: _Optional[str] = ..., retention: _Optional[_Union[Retention, _Mapping]] = ...) -> None: ...

class SetRetentionResponse(_message.Message):
    __slots__ = ("retention",)
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    retention: Retention
    def __init__(self, retention: _Optional[_Union[Retention, _Mapping]] = ...) -> None: ...

class EvictRequest(_message.Message):
    __slots__ = ("path", "version", "dry_run")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    path: str
    version: int
    dry_run: bool
    def __init__(self, path: _Optional[str] = ..., version: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class EvictedStream(_message.Message):
    __slots__ = ("path", "version", "bytes", "policy", "location")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    path: str
    version: int
    bytes: int
    policy: str
    location: str
    def __init__(self, path: _Optional[str] = ..., version: _Optional[int] = ..., bytes: _Optional[int] = ..., policy: _Optional[str] = ..., location: _Optional[str] = ...) -> None: ...

class EvictResponse(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[EvictedStream]
    def __init__(self, streams: _Optional[_Iterable[_Union[EvictedStream, _Mapping]]] = ...) -> None: ...
