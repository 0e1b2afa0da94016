from hiss.v1 import streams_pb2 as _streams_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TakeBlocksRequest(_message.Message):
    __slots__ = ("stream_id", "group", "member", "blocks", "timeout_s", "wait_s")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    group: str
    member: str
    blocks: int
    timeout_s: float
    wait_s: float
    def __init__(self, stream_id: _Optional[str] = ..., group: _Optional[str] = ..., member: _Optional[str] = ..., blocks: _Optional[int] = ..., timeout_s: _Optional[float] = ..., wait_s: _Optional[float] = ...) -> None: ...

class TakeBlocksResponse(_message.Message):
    __slots__ = ("ranges", "complete")
    RANGES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[_streams_pb2.IndexRange]
    complete: bool
    def __init__(self, ranges: _Optional[_Iterable[_Union[_streams_pb2.IndexRange, _Mapping]]] = ..., complete: _Optional[bool] = ...) -> None: ...

class SettleBlocksRequest(_message.Message):
    __slots__ = ("stream_id", "group", "member", "done", "back")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    BACK_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    group: str
    member: str
    done: _containers.RepeatedCompositeFieldContainer[_streams_pb2.IndexRange]
    back: _containers.RepeatedCompositeFieldContainer[_streams_pb2.IndexRange]
    def __init__(self, stream_id: _Optional[str] = ..., group: _Optional[str] = ..., member: _Optional[str] = ..., done: _Optional[_Iterable[_Union[_streams_pb2.IndexRange, _Mapping]]] = ..., back: _Optional[_Iterable[_Union[_streams_pb2.IndexRange, _Mapping]]] = ...) -> None: ...

class SettleBlocksResponse(_message.Message):
    __slots__ = ("refused",)
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    refused: _containers.RepeatedCompositeFieldContainer[_streams_pb2.IndexRange]
    def __init__(self, refused: _Optional[_Iterable[_Union[_streams_pb2.IndexRange, _Mapping]]] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ("stream_id",)
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    def __init__(self, stream_id: _Optional[str] = ...) -> None: ...

class ConsumerGroup(_message.Message):
    __slots__ = ("name", "acknowledged", "held", "left", "members")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    acknowledged: int
    held: int
    left: int
    members: int
    def __init__(self, name: _Optional[str] = ..., acknowledged: _Optional[int] = ..., held: _Optional[int] = ..., left: _Optional[int] = ..., members: _Optional[int] = ...) -> None: ...

class ListGroupsResponse(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[ConsumerGroup]
    def __init__(self, groups: _Optional[_Iterable[_Union[ConsumerGroup, _Mapping]]] = ...) -> None: ...

class DeleteGroupRequest(_message.Message):
    __slots__ = ("stream_id", "group")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    group: str
    def __init__(self, stream_id: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

class DeleteGroupResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
