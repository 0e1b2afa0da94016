"""Tokens on the wire and back, and the short calls of the Tokens service; as `space_wire` and `space_calls`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hiss.store import Store
from hiss.tokens import TokenInfo
from hiss.transport.wire import bounded_names, checked
from hiss.v1 import tokens_pb2


@checked
def encode_token(info: TokenInfo) -> tokens_pb2.Token:
    return tokens_pb2.Token(
        id=info.id,
        label=info.label,
        rights=info.rights,
        prefix=info.prefix,
        addresses=info.addresses,
        created_ns=info.created_ns,
        expires_ns=info.expires_ns,
        parent=info.parent,
    )


@checked
def decode_token(message: tokens_pb2.Token) -> TokenInfo:
    return TokenInfo(
        message.id,
        message.label,
        tuple(message.rights),
        message.prefix,
        message.addresses,
        message.created_ns,
        message.expires_ns,
        message.parent,
    )


def create_token(store: Store, request: tokens_pb2.CreateTokenRequest) -> Any:
    made = store.create_token(
        request.label,
        bounded_names(request.rights, "a token's rights"),
        prefix=request.prefix,
        hours=request.hours if request.HasField("hours") else None,
        addresses=request.addresses,
    )
    return tokens_pb2.CreateTokenResponse(token=encode_token(made.info), text=made.text)


def list_tokens(store: Store, request: tokens_pb2.ListTokensRequest) -> Any:
    return tokens_pb2.ListTokensResponse(tokens=map(encode_token, store.tokens()))


def revoke_token(store: Store, request: tokens_pb2.RevokeTokenRequest) -> Any:
    return tokens_pb2.RevokeTokenResponse(tokens=map(encode_token, store.revoke_token(request.token_id)))


CALLS: Final[dict[str, Callable[[Store, Any], Any]]] = {
    "Tokens.CreateToken": create_token,
    "Tokens.ListTokens": list_tokens,
    "Tokens.RevokeToken": revoke_token,
}
