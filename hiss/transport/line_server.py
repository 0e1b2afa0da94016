"""Where lines are opened: a Unix socket, a thread for each connection, and the very handlers that serve gRPC.

A connection of another user is refused, one that is silent for `limits.IDLE_CONNECTION_S` closed, and the one that
would be more than `limits.LINES_MAX` not taken. A call's context is `_Context`, as much of gRPC's as the handlers use.
`start` and `stop` are called by one thread, once each.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import grpc

from hiss import limits
from hiss.errors import HissError
from hiss.transport.channel import UNIX, check_address
from hiss.transport.error_wire import DETAIL_KEY
from hiss.transport.lane_server import same_user
from hiss.transport.line_framing import STREAMED, Kind, error_body, receive_request, send_reply

log = logging.getLogger(__name__)


class LineServer:
    """
    Parameters
    ----------
    address : str
        `unix:PATH`.
    services : mapping
        By service and method, the handlers that gRPC serves.
    """

    def __init__(self, address: str, services: Mapping[str, Mapping[str, Any]]) -> None:
        self._path = check_address(address).removeprefix(UNIX)
        self._handlers = {
            f"/{service}/{name}": handler
            for service, handlers in services.items()
            for name, handler in handlers.items()
        }
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def start(self) -> None:
        """Listen. What a server that was killed left at the address is replaced."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        os.chmod(self._path, 0o600)
        self._listener.listen(limits.LINES_MAX)
        threading.Thread(target=self._accept, args=(self._listener,), name="hiss lines", daemon=True).start()

    def stop(self) -> None:
        """Cut all lines. More than once is fine."""
        self._stopping = True
        with self._lock:
            connections = list(self._connections)
            listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping:
            try:
                connection, _ = listener.accept()
            except OSError:
                if self._stopping:
                    return
                threading.Event().wait(0.1)  # no descriptors left, most likely: somebody has to close one first
                continue
            with self._lock:
                welcome = same_user(connection) and len(self._connections) < limits.LINES_MAX
                if welcome:
                    self._connections.add(connection)
            if not welcome:
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="hiss line", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Thread: the calls of one connection, one after the other."""
        try:
            connection.settimeout(limits.IDLE_CONNECTION_S)
            while (request := receive_request(connection)) is not None:
                self._call(connection, *request)
        except (OSError, HissError):
            pass  # the client went away, or is none
        except Exception:
            log.exception("a line: a bug")
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _call(self, connection: socket.socket, path: str, metadata: dict[str, str], body: bytes) -> None:
        handler = self._handlers.get(path)
        context = _Context(metadata)
        if handler is None or (handler.response_streaming and path != STREAMED):
            send_reply(connection, Kind.ERROR, error_body("UNIMPLEMENTED", f"no {path} on a line", None))
            return
        try:
            if handler.response_streaming:
                for reply in handler.stream_stream(iter((body,)), context):
                    send_reply(connection, Kind.REPLY, reply)
                send_reply(connection, Kind.END)
            else:
                send_reply(connection, Kind.REPLY, handler.stream_unary(iter((body,)), context))
        except _Aborted as end:
            send_reply(connection, Kind.ERROR, error_body(end.code.name, end.text, context.detail))
        finally:
            context.over()


class _Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class _Context:
    """What a handler asks of a call's `grpc.ServicerContext`."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = metadata
        self._callbacks: list[Callable[[], None]] = []
        self._active = True
        self.detail: bytes | None = None

    def invocation_metadata(self) -> Iterator[tuple[str, str]]:
        return iter(self._metadata.items())

    def peer(self) -> str:
        return UNIX

    def is_active(self) -> bool:
        return self._active

    def time_remaining(self) -> None:
        return None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self._callbacks.append(callback)
        return self._active

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.detail = dict(metadata).get(DETAIL_KEY)

    def abort(self, code: grpc.StatusCode, text: str) -> NoReturn:
        raise _Aborted(code, text)

    def cancel(self) -> None:
        self._active = False

    def over(self) -> None:
        self._active = False
        for callback in self._callbacks:
            callback()
