"""Tickets for lanes: who may open which one, once, for a short time. Any thread.

A ticket is 32 random bytes; the server keeps its hash only. It is bound to the caller that it was handed to, the
stream, the kind of lane and the host that asked for it, and is worth nothing after its first use, whoever that was.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hiss import limits
from hiss.errors import PermissionRefused
from hiss.model import Caller
from hiss.transport.lane_framing import TICKET_BYTES

HERE: Final = "this host"


def host_of(address: str) -> str:
    """The host of a peer, as tickets know it: all ways of reaching a server from its own host are one."""
    try:
        return HERE if ipaddress.ip_address(address).is_loopback else address
    except ValueError:
        return address


@dataclass(frozen=True, slots=True)
class Grant:
    """What a ticket is good for."""

    caller: Caller
    stream_id: str
    kind: str  # 'shm', 'unix', 'tcp' or 'tls'; 'read'
    host: str

    @property
    def carrier(self) -> str:
        """The kind of socket that it is opened on."""
        return "unix" if self.kind in ("shm", "read") else self.kind


class Tickets:
    """The tickets of one server that were not used yet."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._grants: OrderedDict[bytes, tuple[float, Grant]] = OrderedDict()  # by hash; the oldest first
        self._lock = threading.Lock()

    def issue(self, grant: Grant) -> bytes:
        ticket = secrets.token_bytes(TICKET_BYTES)
        with self._lock:
            while self._grants and (len(self._grants) >= limits.LANE_TICKETS_MAX or self._oldest_is_over()):
                self._grants.popitem(last=False)
            self._grants[_hash(ticket)] = self._clock_s() + limits.LANE_TICKET_S, grant
        return ticket

    def redeem(self, ticket: bytes, kind: str, host: str) -> Grant:
        """What the ticket is good for, once.

        Raises
        ------
        PermissionRefused
            It is unknown, used, too old, or for another kind of lane or host.
        """
        with self._lock:
            until_s, grant = self._grants.pop(_hash(ticket), (0.0, None))
        if grant is None:
            raise PermissionRefused("this lane's ticket is not known, or was used before; ask OpenLane for another one")
        if self._clock_s() > until_s:
            raise PermissionRefused(
                f"this lane's ticket is older than {limits.LANE_TICKET_S} s; ask OpenLane for another one"
            )
        if (grant.carrier, grant.host) != (kind, host):
            raise PermissionRefused(
                f"this ticket is for a {grant.kind} lane from {grant.host}, not for a {kind} lane from {host}"
            )
        return grant

    def _oldest_is_over(self) -> bool:
        return self._clock_s() > next(iter(self._grants.values()))[0]


def _hash(ticket: bytes) -> bytes:
    return hashlib.sha256(ticket).digest()
