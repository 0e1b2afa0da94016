"""What is the same for every call that a server takes: who calls, the body, errors as status codes.

Bodies go in and out as bytes. gRPC sees every call as one with a stream of requests, so that the token is looked at
before the body is waited for. Runs in the server's pool threads, many calls at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

import grpc

from hiss import limits
from hiss.errors import HissError, InvalidInput, LimitExceeded, PermissionRefused
from hiss.model import Caller
from hiss.transport.admission import Ending, Gate, Patience, Standing, Stops
from hiss.transport.channel import peer_address
from hiss.transport.error_wire import DETAIL_KEY, code_of, detail_of, text_of
from hiss.transport.methods import ATTEMPT_KEY, TOKEN_KEY, TOKEN_SCHEME, Method

log = logging.getLogger(__name__)

Authenticate = Callable[[str | None, str | None], Caller]  # token and IP address; None: a Unix socket of this host
Bodies = Iterator[bytes]

OWN_ERROR: Final = "the server met an error of its own; its log says which"


@dataclass(frozen=True, slots=True)
class Reception:
    """What the calls of one server share."""

    authenticate: Authenticate
    long_calls: Gate
    patience: Patience
    stops: Stops
    standing: Standing


class Ended(Exception):
    """Raised in a call to end it with a status of its own; never leaves the server."""

    def __init__(self, code: grpc.StatusCode, text: str, detail: bytes | None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.detail = detail


@contextmanager
def errors_as_status(context: grpc.ServicerContext, what: str) -> Iterator[None]:
    """End the call with the status and detail of whatever is raised; what nobody meant to raise is logged."""
    try:
        yield
    except Ended as end:
        _end(context, end)
    except HissError as error:
        _end(context, _ending(code_of(error), error))
    except grpc.RpcError:
        raise  # the client went away
    except Exception:
        if not context.is_active():
            raise
        log.exception("%s: a bug", what)
        _end(context, _ending(grpc.StatusCode.INTERNAL, HissError(OWN_ERROR)))


def _ending(code: grpc.StatusCode, error: HissError) -> Ended:
    return Ended(code, text_of(error), detail_of(error))


def _end(context: grpc.ServicerContext, end: Ended) -> NoReturn:
    if end.detail is not None:
        context.set_trailing_metadata(((DETAIL_KEY, end.detail),))
    context.abort(end.code, end.text)


def metadata_of(context: grpc.ServicerContext) -> dict[str, str]:
    """The call's text metadata; of a key that comes twice, the last."""
    return {str(key): value for key, value in context.invocation_metadata() if isinstance(value, str)}


def caller_of(context: grpc.ServicerContext, authenticate: Authenticate) -> Caller:
    """Who calls. A token that is refused ends the call as UNAUTHENTICATED."""
    metadata = metadata_of(context)
    try:
        caller = authenticate(_token(metadata.get(TOKEN_KEY)), peer_address(context.peer()))
        attempt = metadata.get(ATTEMPT_KEY)
        if attempt and caller.attempt not in (None, attempt):
            raise PermissionRefused(f"this token is for attempt {caller.attempt} only")
        if attempt and caller.token is not None:
            raise PermissionRefused(f"token {caller.token} is for no attempt of a job")
    except PermissionRefused as error:
        raise _ending(grpc.StatusCode.UNAUTHENTICATED, error) from None
    return replace(caller, attempt=attempt) if attempt else caller


def _token(text: str | None) -> str | None:
    if text is None:
        return None
    if len(text) > limits.TOKEN_CHARS_MAX or not text.startswith(TOKEN_SCHEME):
        raise PermissionRefused(f"metadata {TOKEN_KEY!r}: expected {TOKEN_SCHEME!r} and a token")
    return text.removeprefix(TOKEN_SCHEME)


def body_of(requests: Bodies, context: grpc.ServicerContext, patience: Patience, what: str) -> bytes:
    """The first request of a call."""
    with patience.waiting(context):
        body = next(requests, None)
    if body is None:
        raise InvalidInput(f"{what}: a call without a request")
    return body


def short_handler(
    method: Method, reception: Reception, subject: Callable[[Caller], Any], function: Callable[[Any, Any], Any]
) -> grpc.RpcMethodHandler[Any, Any]:
    """A call with one request and one reply: `function(subject(caller), request)`."""

    def serve(requests: Bodies, context: grpc.ServicerContext) -> bytes:
        with errors_as_status(context, method.path):
            caller = caller_of(context, reception.authenticate)
            request = method.parse_request(body_of(requests, context, reception.patience, method.path))
            reply: bytes = function(subject(caller), request).SerializeToString()
            if len(reply) > limits.MESSAGE_BYTES_MAX:
                raise LimitExceeded(
                    f"{method.path}: a reply of {len(reply)} bytes, allowed are {limits.MESSAGE_BYTES_MAX}",
                    limit="MESSAGE_BYTES_MAX",
                    allowed=limits.MESSAGE_BYTES_MAX,
                    found=len(reply),
                )
        return reply

    return grpc.stream_unary_rpc_method_handler(serve)


def long_handler(
    method: Method,
    reception: Reception,
    subject: Callable[[Caller], Any],
    function: Callable[[Any, Any, grpc.ServicerContext, Ending], Iterator[bytes]],
) -> grpc.RpcMethodHandler[Any, Any]:
    """A call with one request and a stream of replies: `function(subject(caller), request, context, ending)`."""

    def serve(requests: Bodies, context: grpc.ServicerContext) -> Iterator[bytes]:
        with errors_as_status(context, method.path):
            caller = caller_of(context, reception.authenticate)
            with reception.long_calls.place(caller):
                request = method.parse_request(body_of(requests, context, reception.patience, method.path))
                with reception.standing.ending(caller, reception.stops) as ending:
                    yield from function(subject(caller), request, context, ending)

    return grpc.stream_stream_rpc_method_handler(serve)
