"""Health and reflection: what load balancers and tools such as grpcurl ask of any gRPC server. No token is needed.

The health service is ours because a watcher that never reads would block the one that comes with gRPC; both services go
through a gate of their own, so that nobody can use up the server's threads with them. Protocols:
https://github.com/grpc/grpc/blob/master/doc/health-checking.md and doc/server-reflection.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from hiss import limits
from hiss.transport.admission import Gate, Patience
from hiss.transport.calls import Bodies, Ended, body_of, errors_as_status
from hiss.transport.wire import checked

HEALTH_SERVICE: Final = "grpc.health.v1.Health"
REFLECTION_SERVICES: Final = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)

_Status = health_pb2.HealthCheckResponse


class Health:
    """Says whether each service is served; `""` stands for the whole server."""

    def __init__(self, services: Iterable[str], gate: Gate, patience: Patience) -> None:
        self._services = {"", HEALTH_SERVICE, *services}
        self._gate = gate
        self._patience = patience
        self._changed = threading.Condition()
        self._serving = True

    def stop(self) -> None:
        """From now on nothing is served; watchers are told and their calls end."""
        with self._changed:
            self._serving = False
            self._changed.notify_all()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        parse, serialize = health_pb2.HealthCheckRequest.FromString, _Status.SerializeToString
        watch = _gated(self._watch, self._gate)
        return {
            "Check": grpc.stream_unary_rpc_method_handler(self._check, None, serialize),
            "Watch": grpc.unary_stream_rpc_method_handler(watch, parse, serialize),
        }

    def _check(self, requests: Bodies, context: grpc.ServicerContext) -> Any:
        with errors_as_status(context, HEALTH_SERVICE):
            body = body_of(requests, context, self._patience, HEALTH_SERVICE)
            request = _health_request(body)
            if request.service not in self._services:
                raise Ended(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:80]!r} here", None)
        return _Status(status=_Status.SERVING if self._serving else _Status.NOT_SERVING)

    def _watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(self._wake)
        if request.service not in self._services:
            yield _Status(status=_Status.SERVICE_UNKNOWN)
        elif self._serving:
            yield _Status(status=_Status.SERVING)
        with self._changed:
            self._changed.wait_for(lambda: not self._serving or not context.is_active())
        if context.is_active() and request.service in self._services:
            yield _Status(status=_Status.NOT_SERVING)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


@checked
def _health_request(body: bytes) -> Any:
    return health_pb2.HealthCheckRequest.FromString(body)


def reflection_handlers(services: Iterable[str], gate: Gate) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """The reflection service for `services`; both versions of it have the same messages."""
    servicer = reflection.ReflectionServicer([*services, HEALTH_SERVICE, *REFLECTION_SERVICES])
    return {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            _gated(servicer.ServerReflectionInfo, gate),
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }


def introspection_gate() -> Gate:
    return Gate(limits.INTROSPECTION_CALLS_MAX, "health watches and reflections")


def _gated(function: Callable[..., Iterator[Any]], gate: Gate) -> Callable[..., Iterator[Any]]:
    def serve(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        with errors_as_status(context, function.__name__), gate.place():
            yield from function(request, context)

    return serve
