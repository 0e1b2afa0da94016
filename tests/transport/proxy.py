"""A proxy that cuts connections: each one after a given number of bytes from the client. TCP and Unix sockets."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Callable

_RESET = struct.pack("ii", 1, 0)  # linger on, 0 s: closing sends a reset


_numbers = itertools.count()


class CuttingProxy:
    """Listens at `address`; `cut_after()` says, for each connection, after how many bytes it is reset; None: never.

    `target` is a port of this host, or `unix:PATH`; then the proxy listens at that path with a number after it."""

    def __init__(self, target: int | str, cut_after: Callable[[], int | None]) -> None:
        self._target = target
        self._cut_after = cut_after
        if isinstance(target, str):
            self.address = f"{target}.{next(_numbers)}"
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(self.address.removeprefix("unix:"))
            self._listener.listen()
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self._run(self._accept)

    def close(self) -> None:
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            open_sockets = list(self._sockets)
        for one in open_sockets:
            _cut(one)
        for thread in self._threads:
            thread.join()

    def cut_all(self) -> None:
        """Reset every connection now."""
        with self._lock:
            open_sockets = list(self._sockets)
            self.cuts += bool(open_sockets)
        for one in open_sockets:
            _cut(one)

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:  # nobody is there; somebody may come back
                _cut(client)
                continue
            with self._lock:
                self._sockets |= {client, server}
            self._run(self._pump, client, server, self._cut_after())
            self._run(self._pump, server, client, None)

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._target.removeprefix("unix:"))
        return server

    def _pump(self, source: socket.socket, sink: socket.socket, left: int | None) -> None:
        try:
            while data := source.recv(65536):
                if left is not None and len(data) > left:
                    sink.sendall(data[:left])
                    self.cuts += 1
                    break
                left = None if left is None else left - len(data)
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            _cut(one)
            with self._lock:
                self._sockets.discard(one)


def _cut(one: socket.socket) -> None:
    """Reset a connection, and wake the thread that reads from it."""
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()
