"""Which buffer an array or a file system reads, in a form that another process finds it by.

A `Source` is an address and the name of a connection that this process has. It never holds a token: where the
connection is unknown, in the process of a dask worker, one is made with the token of that process (`HISS_TOKEN`, or
the one that a server of this user left). Connections are shared by all threads and are not made again for each array;
the oldest is forgotten beyond `limits.VIEW_CONNECTIONS_MAX`. Any thread may call.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
import weakref
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from hiss import client, limits
from hiss.errors import InvalidInput, Unavailable
from hiss.store import Store

SCHEME: Final = "hiss"
_PORT: Final = client.DEFAULT_ADDRESS.rpartition(":")[2]

_lock = threading.Lock()
_made: dict[tuple[int, str, str], Store] = {}  # by process, address, connection
_lent: weakref.WeakValueDictionary[str, Store] = weakref.WeakValueDictionary()  # of users, who close them
_names: weakref.WeakKeyDictionary[Store, str] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Source:
    """A buffer. Picklable, if it is a server."""

    address: str  # '' for a buffer that was opened in this process
    connection: str = ""

    @classmethod
    def at(cls, address: str | None = None, token: str | None = None) -> Source:
        """The server at an address, by default where `hiss.connect` finds one."""
        address = address or os.environ.get("HISS_ADDRESS") or client.DEFAULT_ADDRESS
        source = cls(address, hashlib.sha256(token.encode()).hexdigest()[:16] if token else "")
        if token:
            source._connect(token)
        return source

    @classmethod
    def of(cls, store: Store) -> Source:
        """The buffer behind a store that somebody else has opened and will close."""
        with _lock:
            name = _names.setdefault(store, uuid.uuid4().hex)
            _lent[name] = store
        return cls(str(getattr(store, "address", "")), name)

    @property
    def store(self) -> Store:
        """Raises `Unavailable` for a buffer that another process has opened."""
        with _lock:
            found = _lent.get(self.connection) or _made.get(self._key)
        if found is not None:
            return found
        if not self.address:
            raise Unavailable(
                "this array is of a buffer that was opened in another process by hiss.open; other processes reach a "
                "server only: start `hiss serve` and use hiss.connect"
            )
        return self._connect(None)

    @property
    def _key(self) -> tuple[int, str, str]:
        return os.getpid(), self.address, self.connection

    def _connect(self, token: str | None) -> Store:
        with _lock:
            if self._key not in _made:
                _made[self._key] = client.connect(self.address, token).store
                while len(_made) > limits.VIEW_CONNECTIONS_MAX:
                    del _made[next(iter(_made))]
            return _made[self._key]


def parse_url(url: str) -> tuple[str | None, str]:
    """The address (None: the default) and the path of `hiss://HOST[:PORT]/PATH`.

    Raises
    ------
    InvalidInput
        Another scheme, or a port that is none.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"{url[:200]!r}: {error}; expected hiss://HOST:PORT/COLLECTION/STREAM") from None
    if parts.scheme != SCHEME:
        raise InvalidInput(f"{url[:200]!r}: expected hiss://HOST:PORT/COLLECTION/STREAM")
    if host is None:
        return None, parts.path.strip("/")
    return f"{f'[{host}]' if ':' in host else host}:{port or _PORT}", parts.path.strip("/")
