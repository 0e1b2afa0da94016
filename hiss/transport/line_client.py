"""A line, the client's side: as much of a gRPC channel as `remote` uses, over a bare Unix socket.

Short calls and reads go by the line; the few calls that last (append, follow, watch) by gRPC, over a channel that is
opened when the first of them comes. Connections are kept and used again, each by one call at a time, so any thread may
call.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc

from hiss import limits
from hiss.transport.error_wire import DETAIL_KEY
from hiss.transport.line_framing import STREAMED, Kind, error_of_body, receive_reply, send_request


class LineFailure(grpc.RpcError):
    """What ended a call, in the way that gRPC tells it."""

    def __init__(self, code: grpc.StatusCode, text: str, detail: bytes = b"") -> None:
        super().__init__(text)
        self._code, self._text, self._detail = code, text, detail

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> Any:
        return ((DETAIL_KEY, self._detail),) if self._detail else ()


class LineChannel:
    """
    Parameters
    ----------
    path : str
        Of the server's socket.
    open_channel : callable
        Opens a gRPC channel to the same server.
    """

    def __init__(self, path: str, open_channel: Callable[[], grpc.Channel]) -> None:
        self._path = path
        self._open_channel = open_channel
        self._channel: Any = None
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closed = False

    def unary_unary(self, path: str) -> Callable[..., bytes]:
        def call(body: bytes, timeout: float | None, metadata: tuple[tuple[str, str], ...]) -> bytes:
            connection = self._connection()
            try:
                connection.settimeout(timeout)
                send_request(connection, path, dict(metadata), body)
                kind, reply = receive_reply(connection)
            except TimeoutError:
                connection.close()
                raise LineFailure(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time") from None
            except OSError as error:
                connection.close()
                raise LineFailure(grpc.StatusCode.UNAVAILABLE, str(error)) from None
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
            if kind is Kind.ERROR:
                raise _failure(reply)
            return reply

        return call

    def unary_stream(self, path: str) -> Callable[..., Any]:
        if path != STREAMED:
            return self._grpc().unary_stream(path)  # type: ignore[no-any-return]
        return lambda body, metadata: _Replies(self._connection(), path, dict(metadata), body, self._give_back)

    def stream_stream(self, path: str) -> Callable[..., Any]:
        return self._grpc().stream_stream(path)  # type: ignore[no-any-return]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            channel = self._channel
        for connection in idle:
            connection.close()
        if channel is not None:
            channel.close()

    def _grpc(self) -> Any:
        with self._lock:
            if self._channel is None:
                self._channel = self._open_channel()
            return self._channel

    def _connection(self) -> socket.socket:
        with self._lock:
            if self._closed:
                raise ValueError("the line is closed")
            if self._idle:
                return self._idle.pop()
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(limits.CONNECT_S)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise LineFailure(grpc.StatusCode.UNAVAILABLE, f"failed to connect: {error}") from None
        return connection

    def _give_back(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


class _Replies:
    """The replies of one call. One thread at a time; `cancel` from any."""

    def __init__(
        self,
        connection: socket.socket,
        path: str,
        metadata: Mapping[str, str],
        body: bytes,
        give_back: Callable[[socket.socket], None],
    ) -> None:
        self._connection: socket.socket | None = connection
        self._give_back = give_back
        try:
            connection.settimeout(2 * limits.KEEPALIVE_S)
            send_request(connection, path, metadata, body)
        except OSError as error:
            self.cancel()
            raise LineFailure(grpc.StatusCode.UNAVAILABLE, str(error)) from None

    def __iter__(self) -> Iterator[bytes]:
        while (connection := self._connection) is not None:
            try:
                kind, reply = receive_reply(connection)
            except OSError as error:
                self.cancel()
                raise LineFailure(grpc.StatusCode.UNAVAILABLE, str(error)) from None
            if kind is Kind.REPLY:
                yield reply
                continue
            self._connection = None
            self._give_back(connection)
            if kind is Kind.ERROR:
                raise _failure(reply)

    def is_active(self) -> bool:
        return self._connection is not None

    def cancel(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _failure(body: bytes) -> LineFailure:
    found = error_of_body(body)
    return LineFailure(grpc.StatusCode[found["code"]], found["text"], bytes.fromhex(found["detail"]))
