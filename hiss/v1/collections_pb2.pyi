from hiss.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Join(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, streams: _Optional[_Iterable[str]] = ...) -> None: ...

class Attachment(_message.Message):
    __slots__ = ("streams", "stage", "shadow", "attached_ns")
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_NS_FIELD_NUMBER: _ClassVar[int]
    streams: str
    stage: _types_pb2.Stage
    shadow: bool
    attached_ns: int
    def __init__(self, streams: _Optional[str] = ..., stage: _Optional[_Union[_types_pb2.Stage, _Mapping]] = ..., shadow: _Optional[bool] = ..., attached_ns: _Optional[int] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("path", "attrs_json", "expect", "joins", "sealed", "created_ns", "streams", "kernels")
    class JoinsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Join
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Join, _Mapping]] = ...) -> None: ...
    PATH_FIELD_NUMBER: _ClassVar[int]
    ATTRS_JSON_FIELD_NUMBER: _ClassVar[int]
    EXPECT_FIELD_NUMBER: _ClassVar[int]
    JOINS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    path: str
    attrs_json: str
    expect: _containers.RepeatedScalarFieldContainer[str]
    joins: _containers.MessageMap[str, Join]
    sealed: bool
    created_ns: int
    streams: _containers.RepeatedScalarFieldContainer[str]
    kernels: _containers.RepeatedCompositeFieldContainer[Attachment]
    def __init__(self, path: _Optional[str] = ..., attrs_json: _Optional[str] = ..., expect: _Optional[_Iterable[str]] = ..., joins: _Optional[_Mapping[str, Join]] = ..., sealed: _Optional[bool] = ..., created_ns: _Optional[int] = ..., streams: _Optional[_Iterable[str]] = ..., kernels: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("path", "attrs_json", "expect")
    PATH_FIELD_NUMBER: _ClassVar[int]
    ATTRS_JSON_FIELD_NUMBER: _ClassVar[int]
    EXPECT_FIELD_NUMBER: _ClassVar[int]
    path: str
    attrs_json: str
    expect: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, path: _Optional[str] = ..., attrs_json: _Optional[str] = ..., expect: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class GetCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ("prefix",)
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    def __init__(self, prefix: _Optional[str] = ...) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[Collection]
    def __init__(self, collections: _Optional[_Iterable[_Union[Collection, _Mapping]]] = ...) -> None: ...

class DeleteCollectionRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class DeleteCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SealCollectionRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class SealCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class JoinStreamsRequest(_message.Message):
    __slots__ = ("collection", "name", "streams")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    streams: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ..., streams: _Optional[_Iterable[str]] = ...) -> None: ...

class JoinStreamsResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class AttachKernelRequest(_message.Message):
    __slots__ = ("collection", "kernel", "streams")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    kernel: _types_pb2.BoundKernel
    streams: str
    def __init__(self, collection: _Optional[str] = ..., kernel: _Optional[_Union[_types_pb2.BoundKernel, _Mapping]] = ..., streams: _Optional[str] = ...) -> None: ...

class AttachKernelResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class DetachKernelRequest(_message.Message):
    __slots__ = ("collection", "kernel", "streams")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    kernel: str
    streams: str
    def __init__(self, collection: _Optional[str] = ..., kernel: _Optional[str] = ..., streams: _Optional[str] = ...) -> None: ...

class DetachKernelResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...
