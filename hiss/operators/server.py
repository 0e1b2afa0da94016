"""Serves the application: binds its port by itself, so that one that is taken is named, and runs uvicorn on it."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import uvicorn

from hiss import limits
from hiss.errors import PortInUse, Unavailable
from hiss.operators.app import Connect, Operators, application

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is a free one.

    Raises
    ------
    PortInUse, Unavailable
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=limits.HTTP_CONNECTIONS_MAX)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} of {host} is in use by another program; stop it, or choose another port: --http PORT",
                port=port,
            ) from None
        raise Unavailable(f"cannot listen at {host}:{port}: {error}") from None


class HttpServer:
    """HTTP on one socket; `run` returns when `stop` was called, or SIGTERM or SIGINT came in the main thread."""

    def __init__(self, listener: socket.socket, connect: Connect, owner_token: str, data: Path, host: str) -> None:
        self._listener = listener
        self._operators = Operators(connect, owner_token, data)
        self._server = uvicorn.Server(
            uvicorn.Config(
                application(self._operators, {host, *LOOPBACK}),
                lifespan="off",
                access_log=False,
                log_level="warning",
                server_header=False,
                date_header=False,
                proxy_headers=False,
                ws="none",
                limit_concurrency=limits.HTTP_CONNECTIONS_MAX,
                timeout_keep_alive=int(limits.HTTP_IDLE_S),
                timeout_graceful_shutdown=int(limits.HTTP_IDLE_S),
            )
        )

    @property
    def port(self) -> int:
        found: int = self._listener.getsockname()[1]
        return found

    def run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._operators.close()

    def stop(self) -> None:
        self._server.should_exit = True
