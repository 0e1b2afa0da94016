"""Tokens that were handed out: what each is good for, and the hash of its secret. Rows of the catalog.

All are in memory as well, because each call asks for one: a change is durable before it is seen, and seen by every
later look. A token goes with the one that it was handed out with. Any thread.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

from hiss import limits
from hiss.blocks.catalog_database import CatalogDatabase
from hiss.errors import LimitExceeded, TokenNotFound
from hiss.model import Attrs, Event
from hiss.tokens import NewToken, TokenInfo, hash_of, new_id, new_secret, token_text

SCHEMA: Final = (  # made where it lacks: a program that is older knows no such token and refuses it
    "CREATE TABLE IF NOT EXISTS token (id TEXT PRIMARY KEY, label TEXT NOT NULL, rights TEXT NOT NULL, "
    "prefix TEXT NOT NULL, addresses TEXT NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL, "
    "parent TEXT NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID"
)


class TokenTable:
    """Part of a `Catalog`, which makes it.

    Parameters
    ----------
    database : CatalogDatabase
    insert_event : callable
        `(kind, collection, stream, version, data)`, within a transaction.
    events : callable
        Around a transaction that may add events.
    clock_ns : callable
    """

    def __init__(
        self,
        database: CatalogDatabase,
        insert_event: Callable[[str, str, str, int, Attrs], Event],
        events: Callable[[], AbstractContextManager[None]],
        clock_ns: Callable[[], int],
    ) -> None:
        self._database = database
        self._insert_event = insert_event
        self._events = events
        self._clock_ns = clock_ns
        self._lock = threading.Lock()  # of changes; looking needs none
        with database.transaction() as writer:
            writer.execute(SCHEMA)
        self._known = {row["id"]: (_info(row), bytes(row["hash"])) for row in database.rows("SELECT * FROM token")}
        self.on_revoked: Callable[[], None] = lambda: None  # called when tokens are gone; must not block

    def find(self, token_id: str) -> tuple[TokenInfo, bytes] | None:
        """The token and the hash of its secret; None where there is none of that id."""
        return self._known.get(token_id)

    def get(self, token_id: str) -> TokenInfo:
        """Raises `TokenNotFound`."""
        found = self._known.get(token_id)
        if found is None:
            raise TokenNotFound(f"no token {token_id[:40]!r}; `hiss token ls` lists them", token=token_id[:40])
        return found[0]

    def tokens(self) -> list[TokenInfo]:
        """All that were not revoked, those that have run out too; the oldest first."""
        return sorted((info for info, _ in self._known.values()), key=lambda info: (info.created_ns, info.id))

    def create(self, wanted: TokenInfo) -> NewToken:
        """Make a token that is good for what `wanted` says; id and time are given here. Those that ran out are
        forgotten first. Raises `LimitExceeded`."""
        now_ns = self._clock_ns()
        info, secret = replace(wanted, id=new_id(), created_ns=now_ns), new_secret()
        with self._lock:
            over = [old.id for old, _ in self._known.values() if old.expires_ns and old.expires_ns < now_ns]
            known = {key: value for key, value in self._known.items() if key not in over}
            if len(known) >= limits.TOKENS_MAX:
                raise LimitExceeded(f"{len(known)} tokens, allowed are {limits.TOKENS_MAX}; revoke some")
            with self._events(), self._database.transaction() as writer:
                writer.executemany("DELETE FROM token WHERE id = ?", [(each,) for each in over])
                writer.execute(
                    "INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(info.id, info.label, json.dumps(info.rights), info.prefix, info.addresses),
                        *(info.created_ns, info.expires_ns, info.parent, hash_of(secret)),
                    ),
                )
                self._tell("token.created", info)
            self._known = {**known, info.id: (info, hash_of(secret))}
        return NewToken(info, token_text(info.id, secret))

    def revoke(self, token_id: str) -> list[TokenInfo]:
        """Forget a token and those that were handed out with it. Raises `TokenNotFound`."""
        with self._lock:
            gone = [self.get(token_id)]
            for parent in gone:
                gone += [info for info, _ in self._known.values() if info.parent == parent.id]
            with self._events(), self._database.transaction() as writer:
                writer.executemany("DELETE FROM token WHERE id = ?", [(info.id,) for info in gone])
                for info in gone:
                    self._tell("token.revoked", info)
            ids = {info.id for info in gone}
            self._known = {key: value for key, value in self._known.items() if key not in ids}
        self.on_revoked()
        return gone

    def _tell(self, kind: str, info: TokenInfo) -> None:
        data = {"token": info.id, "label": info.label, "rights": list(info.rights), "prefix": info.prefix}
        self._insert_event(kind, "", "", 0, data)


def _info(row: sqlite3.Row) -> TokenInfo:
    return TokenInfo(
        id=row["id"],
        label=row["label"],
        rights=tuple(json.loads(row["rights"])),
        prefix=row["prefix"],
        addresses=row["addresses"],
        created_ns=row["created_ns"],
        expires_ns=row["expires_ns"],
        parent=row["parent"],
    )
