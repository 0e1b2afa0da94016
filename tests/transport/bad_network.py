"""A bad network between a client and a server: it slices, delays, ends, resets, and loses one way or both.

What happens to a connection is drawn from a seed when it is opened: after how many bytes of which direction it breaks
and how, in what pieces and how late bytes are passed on. `calm` spares the connections that are opened from then on.
TCP and Unix sockets; descriptors that are sent over the latter go along. A thread for each address, and one for each
connection.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_RESET = struct.pack("ii", 1, 0)  # linger on, 0 s: closing sends a reset
_PIECES = (1, 7, 100, 4096, 65536)
_SLICED_BYTES = 2_000  # of a direction; what follows goes in large pieces
_LATE_S = 0.003
_LOOK_MS = 50.0  # whether the network was closed
_DESCRIPTORS_MAX = 16
UP, DOWN = 0, 1  # from the client to the server, and back


@dataclass(frozen=True)
class Weather:
    """What happens to one connection."""

    left: tuple[int | None, int | None]  # bytes up and down until it breaks; None: it does not
    how: str = "end"  # "reset", "end" or "hole"
    lost: tuple[bool, bool] = (True, True)  # of a hole: whether nothing goes up any more, or down
    piece_bytes: int = 65536
    late: float = 0.0  # the part of the pieces that comes late

    @classmethod
    def drawn(cls, rng: random.Random, spans: tuple[int, ...], holes: float) -> Weather:
        left = rng.randrange(rng.choice(spans))
        return cls(
            left=(left, None) if rng.random() < 0.7 else (None, left // 8),  # far less comes down
            how="hole" if rng.random() < holes else rng.choice(["reset", "end"]),
            lost=rng.choice([(True, True), (True, False), (False, True)]),
            piece_bytes=rng.choice(_PIECES),
            late=rng.choice([0.0, 0.0, 0.05]),
        )


FAIR = Weather((None, None))


class BadNetwork:
    """Leads to any number of targets, each by an address of its own.

    Parameters
    ----------
    folder : Path
        For Unix sockets; a short path.
    seed : int
        Of the weather.
    spans : tuple of int
        A connection breaks after fewer bytes than one of these says, drawn for it.
    holes : float
        The part of the connections that breaks without a word.
    """

    def __init__(self, folder: Path, seed: int, spans: tuple[int, ...], holes: float = 0.0) -> None:
        self._folder = folder
        self._rng = random.Random(seed)
        self._spans = spans
        self._holes = holes
        self._lock = threading.Lock()
        self._doors: dict[str, _Door] = {}
        self._threads: list[threading.Thread] = []
        self.weather: Weather | None = None  # of every connection, in place of what is drawn
        self.closed = False
        self.calm = False
        self.deaf = False  # nothing goes up any more, of no connection
        self.counts = {"reset": 0, "end": 0, "hole": 0}

    @property
    def cuts(self) -> int:
        """Connections that were broken on purpose."""
        return sum(self.counts.values())

    def towards(self, target: str, name: str) -> str:
        """The address of the door of this name, which leads from now on to `target`: `HOST:PORT`, or `KIND:PATH` of a
        Unix socket."""
        with self._lock:
            door = self._doors.get(name)
            if door is None:
                door = self._doors[name] = _Door(target, self._folder / f"door{len(self._doors)}")
                self._run(self._accept, door)
            door.target = target
        return door.address

    def close(self) -> None:
        self.closed = True
        for door in self._doors.values():
            door.close()
        while self._threads:
            self._threads.pop().join()

    def broke(self, how: str) -> None:
        with self._lock:
            self.counts[how] += 1

    def _run(self, work: Any, *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, name="network", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self, door: _Door) -> None:
        while True:
            try:
                client, _ = door.listener.accept()
            except OSError:
                return
            try:
                server = door.dial()
            except OSError:  # there is no server now
                client.close()
                continue
            with self._lock:
                drawn = Weather.drawn(self._rng, self._spans, self._holes)
                weather = FAIR if self.calm else self.weather or drawn
                link = _Link(self, client, server, weather, random.Random(self._rng.random()))
                self._run(link.run)


class _Door:
    """Where clients knock."""

    def __init__(self, target: str, path: Path) -> None:
        self.target = target
        kind, _, rest = target.partition(":")
        if rest.startswith("/"):
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.listener.listen()
            self.address = f"{kind}:{path}"
        else:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"

    def dial(self) -> socket.socket:
        host, _, rest = self.target.rpartition(":")
        if self.listener.family != socket.AF_UNIX:
            return socket.create_connection((host, int(rest)), 10.0)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(rest)
        except OSError:
            server.close()
            raise
        return server

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class _Link:
    """One connection, from its beginning until it breaks or both sides have ended."""

    def __init__(
        self, network: BadNetwork, client: socket.socket, server: socket.socket, weather: Weather, rng: random.Random
    ) -> None:
        self._network = network
        self._ends = (client, server)
        self._weather = weather
        self._rng = rng
        self._left = list(weather.left)
        self._passed = [0, 0]
        self._open = [True, True]  # whether bytes of this direction are taken
        self._lost = [False, False]
        for end in self._ends:
            end.settimeout(None)

    def run(self) -> None:
        try:
            while any(self._open) or any(self._lost):
                if self._network.closed or not self._round():
                    break
        except OSError:
            self._reset()  # one side is gone: so is the other
        for end in self._ends:
            end.close()

    def _round(self) -> bool:
        """Pass on what there is. False: it broke."""
        poll = select.poll()
        for way in (UP, DOWN):
            wanted = select.POLLIN if self._open[way] else select.POLLRDHUP if self._lost[way] else 0
            poll.register(self._ends[way], wanted)
        for number, found in poll.poll(_LOOK_MS):
            way = UP if number == self._ends[UP].fileno() else DOWN
            if self._open[way]:
                if not self._pass(way):
                    return False
            elif found & (select.POLLRDHUP | select.POLLHUP | select.POLLERR):
                return False  # whoever was not heard any more has given up
        return True

    def _pass(self, way: int) -> bool:
        source, sink = self._ends[way], self._ends[1 - way]
        size = self._weather.piece_bytes if self._passed[way] < _SLICED_BYTES else 65536
        left = self._left[way]
        if left is not None:
            size = min(size, left)
        if way == UP and self._network.deaf:
            self._open[UP], self._lost[UP] = False, True
            return True
        if size == 0:
            return self._break()
        data, descriptors = _receive(source, size)
        if not data:
            self._open[way] = False
            sink.shutdown(socket.SHUT_WR)
            return True
        if self._rng.random() < self._weather.late and self._passed[way] < _SLICED_BYTES:
            time.sleep(_LATE_S * self._rng.random())
        _send(sink, data, descriptors)
        self._passed[way] += len(data)
        if left is not None:
            self._left[way] = left - len(data)
        return True

    def _break(self) -> bool:
        self._network.broke(self._weather.how)
        self._left = [None, None]
        if self._weather.how == "hole":
            self._lost = list(self._weather.lost)
            self._open = [taken and not lost for taken, lost in zip(self._open, self._lost, strict=True)]
            return True
        if self._weather.how == "reset":
            self._reset()
        return False

    def _reset(self) -> None:
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _receive(source: socket.socket, size: int) -> tuple[bytes, list[int]]:
    if source.family != socket.AF_UNIX:
        return source.recv(size), []
    data, descriptors, _, _ = socket.recv_fds(source, size, _DESCRIPTORS_MAX)
    return data, list(descriptors)


def _send(sink: socket.socket, data: bytes, descriptors: list[int]) -> None:
    try:
        sent = socket.send_fds(sink, [data], descriptors) if descriptors else 0
        sink.sendall(data[sent:])
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
