"""Errors on the wire: canonical status codes with a typed detail, and back.

The server side turns a `HissError` into code, text and trailing metadata; the client side turns what gRPC raised into
the class of the same name. Pure functions; any thread.
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from hiss import errors, limits
from hiss.errors import HissError
from hiss.v1 import errors_pb2

DETAIL_KEY: Final = "hiss-error-bin"

_CODES: Final[dict[type[HissError], grpc.StatusCode]] = {
    HissError: grpc.StatusCode.UNKNOWN,
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.ProducerFenced: grpc.StatusCode.ABORTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Damaged: grpc.StatusCode.DATA_LOSS,
    errors.PermissionRefused: grpc.StatusCode.PERMISSION_DENIED,
    errors.JobFailed: grpc.StatusCode.ABORTED,
    errors.MissingExtra: grpc.StatusCode.UNIMPLEMENTED,
}

# What a code means when no detail came with it: another server, a proxy, or gRPC itself said so.
_CLASSES: Final[dict[grpc.StatusCode, type[HissError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Conflict,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.CANCELLED: errors.Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Exhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.DATA_LOSS: errors.Damaged,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionRefused,
    grpc.StatusCode.UNAUTHENTICATED: errors.PermissionRefused,
}


def code_of(error: HissError) -> grpc.StatusCode:
    """The canonical status code of an error: that of the nearest class that has one."""
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def text_of(error: HissError) -> str:
    """The status text: the beginning of the message, for clients that do not know the detail."""
    return _cut(str(error), limits.STATUS_TEXT_BYTES_MAX)


def detail_of(error: HissError) -> bytes:
    """The `ErrorDetail` for the trailing metadata."""
    return limited_detail(error).SerializeToString()


def limited_detail(error: HissError) -> errors_pb2.ErrorDetail:
    """An error as it travels, within `limits.ERROR_TEXT_BYTES_MAX` for message and for details."""
    detail = errors_pb2.ErrorDetail(name=type(error).__name__, message=_cut(str(error), limits.ERROR_TEXT_BYTES_MAX))
    left = limits.ERROR_TEXT_BYTES_MAX
    for key, value in error.details.items():
        text = _cut(value, max(left - len(key), 0))
        left -= len(key) + len(text.encode())
        if left < 0 or (value and not text):
            break
        detail.details[key] = text
    return detail


def _cut(text: str, bytes_max: int) -> str:
    return text.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")


def _advice(text: str) -> str:
    """What to do about a connection that could not be made."""
    if "verification check failed" in text:
        return "the certificate that the server shows is for another name than the one that you connect to"
    if "handshake failed" in text.lower():
        return "TLS was not agreed on: does the server speak it, and is its certificate among those that `tls=` trusts?"
    if "Socket closed" in text or "reset" in text:
        return "it hung up: if it speaks TLS, say so with `tls=`, `--tls-ca` or HISS_TLS_CA"
    return "start the server with `hiss serve`, or check the address"


def error_of(failure: Any, address: str) -> HissError:
    """What a call to `address` that ended with gRPC's `failure` (an `RpcError` that is a call) means."""
    code, text = failure.code(), failure.details() or ""
    detail = _detail(failure.trailing_metadata() or ())
    if detail is not None:
        return errors.from_name(detail.name, detail.message, dict(detail.details))
    if code is grpc.StatusCode.UNAVAILABLE and _never_connected(text):
        return errors.ServerUnreachable(
            f"nothing answers at {address} ({text}); {_advice(text)}",
            address=address,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded(
            f"the server at {address} did not answer in time; try again, or look at its log", address=address
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        text = f"the connection to {address} broke: {text}; try again"
    elif code is grpc.StatusCode.CANCELLED:
        text = f"the call to {address} was cancelled"
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        text = f"the server at {address} does not offer this: {text}"
    kind = _CLASSES.get(code, HissError)
    return kind(f"{text or code}", address=address, code=code.name)


def _never_connected(text: str) -> bool:
    return "failed to connect" in text or "DNS resolution failed" in text or "connection attempt timed out" in text


def _detail(metadata: Any) -> errors_pb2.ErrorDetail | None:
    for key, value in metadata:
        if key == DETAIL_KEY and isinstance(value, bytes):
            try:
                return errors_pb2.ErrorDetail.FromString(value)
            except DecodeError:
                return None
    return None
