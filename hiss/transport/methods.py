"""The calls of the wire schema, as both ends need them: path, message classes, and how long a client waits.

Derived from the descriptors of `proto/`, so that there is no second list to keep in step. Read-only; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from hiss import limits
from hiss.transport.wire import checked
from hiss.transport.wire_format import check_counts
from hiss.v1 import (
    admin_pb2,
    attempts_pb2,
    collections_pb2,
    consumers_pb2,
    drains_pb2,
    events_pb2,
    kernels_pb2,
    meow_pb2,
    space_pb2,
    streams_pb2,
    tokens_pb2,
)

TOKEN_KEY: Final = "authorization"
TOKEN_SCHEME: Final = "Bearer "
ATTEMPT_KEY: Final = "hiss-attempt"

# Where the server compiles, reduces a stream, waits for the disk, or walks all that is there.
_SLOW: Final = {
    "CreateStream",
    "SealStream",
    "SealCollection",
    "AttachKernel",
    "DeleteCollection",
    "Reduce",
    "GetOutputFrame",
    "RegisterKernel",
    "CommitAttempt",
    "AddPattern",
    "AddRecipe",
    "CountExisting",
    "RerunJob",
    "Reserve",
    "Evict",
}


@dataclass(frozen=True, slots=True)
class Method:
    """One call of one service."""

    service: str  # 'hiss.v1.Streams'
    name: str  # 'GetStream'
    request: type[Message]
    response: type[Message]
    deadline_s: float | None  # None: as long as it takes

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"

    def parse_request(self, body: bytes) -> Any:
        """What a client sent, its counts bounded before an object is built."""
        return _parse(body, self.request, bounded=True)

    def parse_response(self, body: bytes) -> Any:
        return _parse(body, self.response, bounded=False)


@checked
def _parse(body: bytes, kind: type[Message], bounded: bool) -> Any:
    if bounded:
        descriptor: Any = kind.DESCRIPTOR
        check_counts(body, descriptor)
    return kind.FromString(body)


def _methods(file: FileDescriptor) -> Iterator[tuple[str, Method]]:
    services: Any = file.services_by_name
    for service_name, service in services.items():
        for method in service.methods:
            streaming = method.server_streaming or method.client_streaming
            deadline_s = limits.SLOW_CALL_S if method.name in _SLOW else limits.CALL_S
            yield (
                f"{service_name}.{method.name}",
                Method(
                    service=service.full_name,
                    name=method.name,
                    request=GetMessageClass(method.input_type),
                    response=GetMessageClass(method.output_type),
                    deadline_s=None if streaming else deadline_s,
                ),
            )


STORE: Final[dict[str, Method]] = {
    name: method
    for module in (
        collections_pb2,
        streams_pb2,
        consumers_pb2,
        kernels_pb2,
        events_pb2,
        attempts_pb2,
        admin_pb2,
        space_pb2,
        drains_pb2,
        tokens_pb2,
    )
    for name, method in _methods(module.DESCRIPTOR)
}
MEOW: Final[dict[str, Method]] = dict(_methods(meow_pb2.DESCRIPTOR))
"""Keys are `SERVICE.METHOD` without the package, such as `Streams.GetStream`."""
