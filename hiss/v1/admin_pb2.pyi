from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("node", "version", "boot_id", "started_ns", "data_directory", "disk_free_bytes", "arena_bytes", "arena_free_bytes", "segments", "log_bytes", "collections", "streams", "streams_open", "blocks_received", "bytes_received", "recovery_json", "room_bytes", "promised_bytes", "promised_used_bytes", "kernel_backend", "kernel_notice", "kernels_json", "last_event")
    NODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_NS_FIELD_NUMBER: _ClassVar[int]
    DATA_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ARENA_BYTES_FIELD_NUMBER: _ClassVar[int]
    ARENA_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_OPEN_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_JSON_FIELD_NUMBER: _ClassVar[int]
    ROOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROMISED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROMISED_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    KERNEL_BACKEND_FIELD_NUMBER: _ClassVar[int]
    KERNEL_NOTICE_FIELD_NUMBER: _ClassVar[int]
    KERNELS_JSON_FIELD_NUMBER: _ClassVar[int]
    LAST_EVENT_FIELD_NUMBER: _ClassVar[int]
    node: str
    version: str
    boot_id: str
    started_ns: int
    data_directory: str
    disk_free_bytes: int
    arena_bytes: int
    arena_free_bytes: int
    segments: int
    log_bytes: int
    collections: int
    streams: int
    streams_open: int
    blocks_received: int
    bytes_received: int
    recovery_json: str
    room_bytes: int
    promised_bytes: int
    promised_used_bytes: int
    kernel_backend: str
    kernel_notice: str
    kernels_json: str
    last_event: int
    def __init__(self, node: _Optional[str] = ..., version: _Optional[str] = ..., boot_id: _Optional[str] = ..., started_ns: _Optional[int] = ..., data_directory: _Optional[str] = ..., disk_free_bytes: _Optional[int] = ..., arena_bytes: _Optional[int] = ..., arena_free_bytes: _Optional[int] = ..., segments: _Optional[int] = ..., log_bytes: _Optional[int] = ..., collections: _Optional[int] = ..., streams: _Optional[int] = ..., streams_open: _Optional[int] = ..., blocks_received: _Optional[int] = ..., bytes_received: _Optional[int] = ..., recovery_json: _Optional[str] = ..., room_bytes: _Optional[int] = ..., promised_bytes: _Optional[int] = ..., promised_used_bytes: _Optional[int] = ..., kernel_backend: _Optional[str] = ..., kernel_notice: _Optional[str] = ..., kernels_json: _Optional[str] = ..., last_event: _Optional[int] = ...) -> None: ...
