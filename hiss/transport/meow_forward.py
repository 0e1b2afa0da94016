"""The Meow service of a rule engine in another process: calls are passed on byte for byte.

One channel, used by all pool threads. The engine's server looks at the token again, or, where it does not know it, at
one by which this server vouches for the caller; its errors come back as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import grpc

from hiss import limits
from hiss.errors import Unavailable
from hiss.model import Caller
from hiss.transport.calls import Bodies, Ended, Reception, body_of, caller_of, errors_as_status, metadata_of
from hiss.transport.channel import open_channel
from hiss.transport.error_wire import DETAIL_KEY
from hiss.transport.methods import ATTEMPT_KEY, MEOW, TOKEN_KEY, TOKEN_SCHEME, Method

_PASSED_ON: Final = (TOKEN_KEY, ATTEMPT_KEY, "traceparent")


class MeowForwarder:
    """Passes calls on to the rule engine at `address`; connects when the first one comes.

    `vouch` gives the token to pass on for a caller, None for his own.
    """

    def __init__(self, address: str, vouch: Callable[[Caller], str | None]) -> None:
        self._address = address
        self._vouch = vouch
        self._channel = open_channel(address)

    def close(self) -> None:
        self._channel.close()

    def handlers(self, reception: Reception) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {method.name: self._handler(method, reception) for method in MEOW.values()}

    def _handler(self, method: Method, reception: Reception) -> grpc.RpcMethodHandler[Any, Any]:
        invoke: Any = self._channel.unary_unary(method.path)

        def serve(requests: Bodies, context: grpc.ServicerContext) -> bytes:
            with errors_as_status(context, method.path):
                caller = caller_of(context, reception.authenticate)
                body = body_of(requests, context, reception.patience, method.path)
                given = metadata_of(context)
                vouched = self._vouch(caller)
                if vouched is not None:
                    given[TOKEN_KEY] = TOKEN_SCHEME + vouched
                metadata = tuple((key, given[key]) for key in _PASSED_ON if key in given)
                left_s = min(context.time_remaining() or limits.SLOW_CALL_S, limits.SLOW_CALL_S)
                try:
                    reply: bytes = invoke(body, timeout=left_s, metadata=metadata)
                except grpc.RpcError as error:
                    raise self._failure(error) from None
            return reply

        return grpc.stream_unary_rpc_method_handler(serve)

    def _failure(self, failure: Any) -> Exception:
        """What a call that the engine did not answer with a reply ends with here."""
        detail = dict(failure.trailing_metadata() or ()).get(DETAIL_KEY)
        if detail is None and failure.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return Unavailable(
                f"the rule engine at {self._address} does not answer; data is taken and served without it. "
                "Its log says why; try again when it runs",
                address=self._address,
            )
        return Ended(failure.code(), failure.details() or "", detail)
