"""Who calls: the owner's token, tokens that were handed out, and those that the rule engine hands to jobs.

The first start of a buffer writes `DATA/token`, readable by its owner only. A server also puts a copy where the
clients of that user look (`token_file`), so that on one machine nobody has to type it. A job's token is signed with
the owner's (HMAC-SHA256, RFC 2104) and names its attempt, the path below which it may write, and when it ends: it
needs no table and is worth nothing once the owner's token changes. In the same way the data process vouches for a
caller whom it knows, when it passes a call on to the rule engine's process. Tokens that were handed out (`hiss.tokens`)
are in the catalog. Any thread."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from hiss import tokens
from hiss.errors import PermissionRefused
from hiss.model import Caller

_JOB: Final = "hissjob"
_VOUCHED: Final = "hisscall"
_VOUCHED_NS: Final = 60 * 10**9  # so long after it was passed on is a call taken by the rule engine


class HandedOut(Protocol):
    """The tokens that were handed out and not revoked: `blocks.token_table`."""

    def find(self, token_id: str) -> tuple[tokens.TokenInfo, bytes] | None: ...


def token_file(port: int) -> Path:
    """Where the clients of this user find the token of the server at a port of this machine."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "hiss" / f"{port}.token"


def socket_file(port: int) -> Path:
    """Where they find the Unix socket of the server at a port, if that speaks TLS there."""
    return token_file(port).with_suffix(".socket")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read; it never exists half-written or with other rights."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Access:
    """The tokens of one data directory.

    Parameters
    ----------
    owner_token : str
        The secret; whoever has it may do everything.
    handed_out : HandedOut, optional
        Without it, only the owner's token and those of jobs are known.
    """

    def __init__(self, owner_token: str, handed_out: HandedOut | None = None) -> None:
        self.owner_token = owner_token
        self._handed_out = handed_out

    @classmethod
    def of_directory(cls, directory: Path, handed_out: HandedOut | None = None) -> Access:
        """The access of a data directory; its token is made at the first use."""
        path = directory / "token"
        if not path.exists():
            write_secret(path, secrets.token_urlsafe(32))
        return cls(path.read_text().strip(), handed_out)

    def authenticate(self, token: str | None, now_ns: int, peer_address: str | None = None) -> Caller:
        """Who shows `token` at an IP address; None is a Unix socket of this host.

        Raises
        ------
        PermissionRefused
        """
        if not token:
            raise PermissionRefused(
                "this buffer asks for a token: give one to hiss.connect(token=…), or set HISS_TOKEN; "
                "its owner finds it in the data directory, file 'token'"
            )
        if token.startswith(_JOB + "."):
            return self._job_caller(token, now_ns)
        if token.startswith(_VOUCHED + "."):
            return self._vouched_caller(token, now_ns)
        if token.startswith(tokens.SCHEME + "."):
            return self._known_caller(token, now_ns, peer_address)
        if not hmac.compare_digest(token.encode(), self.owner_token.encode()):
            raise PermissionRefused(
                "this buffer does not know the token; the owner's is in the data directory, file 'token'"
            )
        return Caller()

    def is_valid(self, caller: Caller, now_ns: int) -> bool:
        """Whether the token that made somebody this caller is still good: not revoked, and has not run out."""
        if caller.token is None or self._handed_out is None:
            return True
        found = self._handed_out.find(caller.token)
        return found is not None and not (found[0].expires_ns and now_ns > found[0].expires_ns)

    def vouch(self, caller: Caller, now_ns: int) -> str | None:
        """A token by which a process that knows the owner's token, and no others, knows this caller for a minute; None
        where its own token will do."""
        if caller.token is None:
            return None
        return self._signed(_VOUCHED, dataclasses.asdict(caller) | {"until_ns": now_ns + _VOUCHED_NS})

    def job_token(self, attempt: str, write_prefix: str, until_ns: int, rights: Sequence[str] = ()) -> str:
        """A token for one attempt of a job, valid until `until_ns`."""
        told = {"attempt": attempt, "write": write_prefix, "until_ns": until_ns, "rights": list(rights)}
        return self._signed(_JOB, told)

    def _known_caller(self, token: str, now_ns: int, peer_address: str | None) -> Caller:
        token_id, secret = tokens.split_token(token)
        found = None if self._handed_out is None else self._handed_out.find(token_id)
        if found is None or not tokens.is_secret(secret, found[1]):
            raise PermissionRefused(
                f"this buffer does not know token {token_id}: it was revoked, or is of another buffer", token=token_id
            )
        info = found[0]
        info.check_now(now_ns)
        info.check_address(peer_address)
        return info.caller()

    def _job_caller(self, token: str, now_ns: int) -> Caller:
        claims = self._claims(token, now_ns, "job token")
        return Caller(str(claims["attempt"]), str(claims["write"]), tuple(claims.get("rights", ())))

    def _vouched_caller(self, token: str, now_ns: int) -> Caller:
        claims = self._claims(token, now_ns, "token of the data process")
        return Caller(**{**claims, "rights": tuple(claims["rights"])})

    def _signed(self, scheme: str, claims: dict[str, Any]) -> str:
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
        return f"{scheme}.{body}.{self._sign(body, scheme)}"

    def _claims(self, token: str, now_ns: int, what: str) -> dict[str, Any]:
        """What a signed token says, without its end, which has not come yet."""
        scheme, _, rest = token.partition(".")
        body, _, signature = rest.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(body, scheme).encode()):
            raise PermissionRefused(f"this {what} was not made by this buffer")
        try:
            claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body))
            until_ns = int(claims.pop("until_ns"))
        except (ValueError, KeyError, binascii.Error):
            raise PermissionRefused(f"this {what} cannot be read") from None
        if now_ns > until_ns:
            raise PermissionRefused(f"this {what} has run out")
        return claims

    def _sign(self, body: str, scheme: str) -> str:
        """Of one kind of token only: what one says is worth nothing as another."""
        return hmac.new(self.owner_token.encode(), f"{scheme}.{body}".encode(), hashlib.sha256).hexdigest()
