"""Channels to a server: addresses and options, the same for the client and for servers that pass calls on."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

import grpc

from hiss import limits
from hiss.errors import InvalidInput
from hiss.tls import ClientTls, read

UNIX: Final = "unix:"
TLS: Final = "tls:"  # of lanes
_UNIX_PATH_BYTES_MAX: Final = 107  # sun_path of Linux, less its final zero


def check_address(address: str) -> str:
    """Return `address` if it is `HOST:PORT` or `unix:PATH`, else raise `InvalidInput`."""
    if address.startswith(UNIX):
        path = address.removeprefix(UNIX)
        if not 0 < len(path.encode()) <= _UNIX_PATH_BYTES_MAX:
            raise InvalidInput(f"address {address!r}: a socket's path has 1 to {_UNIX_PATH_BYTES_MAX} bytes")
        return address
    host, colon, port = address.rpartition(":")
    if not host or not colon or not port.isdecimal() or int(port) > 65535 or "/" in host:
        raise InvalidInput(f"address {address!r}: expected HOST:PORT, such as localhost:5001, or unix:PATH")
    return address


def peer_address(peer: str) -> str | None:
    """The IP address of a gRPC peer such as `ipv4:127.0.0.1:4242` or `ipv6:%5B::1%5D:4242`; None for a Unix socket."""
    family, _, rest = peer.partition(":")
    if family == "unix":
        return None
    return unquote(rest.rpartition(":")[0]).strip("[]")


def open_channel(address: str, tls: ClientTls | None = None) -> grpc.Channel:
    """A channel to `address`; it connects when it is first used, and again by itself; with `tls` never without."""
    milliseconds = 1000
    options = (
        ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
        ("grpc.enable_http_proxy", 0),  # a proxy of the web is no way to an instrument
        ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each channel
        ("grpc.min_reconnect_backoff_ms", int(limits.CONNECT_S * milliseconds)),  # the time that connecting may take
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.keepalive_time_ms", int(limits.KEEPALIVE_S * milliseconds)),
        ("grpc.keepalive_timeout_ms", int(limits.KEEPALIVE_S * milliseconds)),
        # while one of gRPC's own pings is under way no other is sent, and its patience, not keepalive's, counts
        ("grpc.http2.ping_timeout_ms", int(limits.KEEPALIVE_S * milliseconds)),
        ("grpc.http2.max_pings_without_data", 0),
    )
    if tls is None:
        return grpc.insecure_channel(check_address(address), options=options)
    trusted, key, cert = (None if path is None else read(path) for path in (tls.ca, tls.key, tls.cert))
    credentials = grpc.ssl_channel_credentials(trusted, key, cert)
    return grpc.secure_channel(check_address(address), credentials, options=options)
