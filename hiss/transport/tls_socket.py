"""A TLS connection as lanes use sockets: one thread receives while another one sends.

OpenSSL allows one thread at a time in a connection (`SSL_read` and `SSL_write` share state), and a blocking read would
keep the sender out for as long as the peer says nothing. So neither call ever blocks in OpenSSL: the socket does not
wait, a lock covers each call, and whoever has to wait polls without it. Whoever waits for the lock has the next turn,
or a reader that always finds data would starve the acknowledgements.

A producer ends its side by that of the connection below, as on a plain lane, and without TLS's own farewell, after
which OpenSSL's peers may not be heard any more. So the server takes such an end for one, by OpenSSL's option
`SSL_OP_IGNORE_UNEXPECTED_EOF`: who makes one up cuts a lane as a broken cable does, and only what was acknowledged
counts.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any

from hiss import limits


class TlsSocket:
    """As much of a socket as `lane_framing` and lanes use.

    Parameters
    ----------
    connection : ssl.SSLSocket
        Connected, its handshake over; used by nobody else from now on.
    """

    def __init__(self, connection: ssl.SSLSocket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._descriptor = connection.fileno()
        self._turn = threading.Lock()  # held while one waits for the next
        self._alone = threading.Lock()  # held within OpenSSL
        self._receive_s = self._send_s = 0.0

    def getsockopt(self, level: int, option: int) -> int:
        return self._connection.getsockopt(level, option)

    def set_patience(self, receive_s: float, send_s: float) -> None:
        """Let one receive or send wait so long; 0 is for ever."""
        self._receive_s, self._send_s = receive_s, send_s

    def recv_into(self, buffer: Any, nbytes: int, flags: int = 0) -> int:
        """Fill `nbytes`, or what came before the peer's end or the end of patience, as with `MSG_WAITALL`.

        Raises `BlockingIOError` where nothing came in time, `OSError` where the connection broke.
        """
        del flags
        view, got = memoryview(buffer)[:nbytes], 0
        deadline_s = _deadline(self._receive_s)
        while got < nbytes:
            found = self._read(view[got : got + limits.LANE_TLS_BYTES])
            if found == 0:
                return got
            if found is not None:
                got += found
            elif not self._wait(select.POLLIN, deadline_s):
                if not got:
                    raise BlockingIOError("nothing came in time")
                return got
        return got

    def _read(self, view: memoryview) -> int | None:
        """What is here now; 0 at the peer's end, None where nothing is here. OpenSSL gives a record at a time."""
        got = 0
        self._enter()
        try:
            while got < view.nbytes and (found := self._connection.recv_into(view[got:])):
                got += found
        except ssl.SSLWantReadError:
            return got or None
        finally:
            self._alone.release()
        return got

    def sendmsg(self, buffers: Sequence[Any]) -> int:
        """Send all of them. Raises `TimeoutError` where the peer does not take them in time."""
        return sum(self._send(memoryview(buffer)) for buffer in buffers)

    def _send(self, view: memoryview) -> int:
        for begin in range(0, view.nbytes, limits.LANE_TLS_BYTES):
            part = view[begin : begin + limits.LANE_TLS_BYTES]
            deadline_s = _deadline(self._send_s)
            while not self._sent(part):
                if not self._wait(select.POLLOUT, deadline_s):
                    raise TimeoutError("the peer takes nothing")
        return view.nbytes

    def _sent(self, part: memoryview) -> bool:
        """Whether all of it is on its way; where not, it has to be tried again with the same bytes."""
        self._enter()
        try:
            self._connection.send(part)
        except ssl.SSLWantWriteError:
            return False
        finally:
            self._alone.release()
        return True

    def _enter(self) -> None:
        with self._turn:
            self._alone.acquire()

    def _wait(self, what: int, deadline_s: float | None) -> bool:
        left_ms = None if deadline_s is None else 1000 * (deadline_s - time.monotonic())
        if left_ms is not None and left_ms <= 0:
            return False
        poll = select.poll()
        poll.register(self._descriptor, what)
        return bool(poll.poll(left_ms))

    def shutdown(self, how: int) -> None:
        """Of the connection below, from any thread: whoever waits wakes up."""
        socket.socket.shutdown(self._connection, how)

    def close(self) -> None:
        self._connection.close()


def _deadline(patience_s: float) -> float | None:
    return time.monotonic() + patience_s if patience_s else None
