"""Who may do what: the owner's token, and the tokens that the rule engine hands to jobs.

The first start of a buffer writes `DATA/token`, readable by its owner only. A server also puts a copy where the
clients of that user look (`token_file`), so that on one machine nobody has to type it. A job's token is signed with
the owner's (HMAC-SHA256, RFC 2104) and names its attempt, the path below which it may write, and when it ends: it
needs no table and is worth nothing once the owner's token changes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from hiss.errors import PermissionRefused
from hiss.model import Caller

_JOB = "hissjob"


def token_file(port: int) -> Path:
    """Where the clients of this user find the token of the server at a port of this machine."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "hiss" / f"{port}.token"


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
    """

    def __init__(self, owner_token: str) -> None:
        self.owner_token = owner_token

    @classmethod
    def of_directory(cls, directory: Path) -> Access:
        """The access of a data directory; its token is made at the first use."""
        path = directory / "token"
        if not path.exists():
            write_secret(path, secrets.token_urlsafe(32))
        return cls(path.read_text().strip())

    def authenticate(self, token: str | None, now_ns: int) -> Caller:
        """Who presents `token`.

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
        if not hmac.compare_digest(token.encode(), self.owner_token.encode()):
            raise PermissionRefused(
                "this buffer does not know the token; the owner's is in the data directory, file 'token'"
            )
        return Caller()

    def job_token(self, attempt: str, write_prefix: str, until_ns: int, rights: Sequence[str] = ()) -> str:
        """A token for one attempt of a job, valid until `until_ns`."""
        told = {"attempt": attempt, "write": write_prefix, "until_ns": until_ns, "rights": list(rights)}
        claims = json.dumps(told).encode()
        body = base64.urlsafe_b64encode(claims).decode()
        return f"{_JOB}.{body}.{self._sign(body)}"

    def _job_caller(self, token: str, now_ns: int) -> Caller:
        _, _, rest = token.partition(".")
        body, _, signature = rest.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(body).encode()):
            raise PermissionRefused("this job token was not made by this buffer")
        try:
            claims = json.loads(base64.urlsafe_b64decode(body))
            attempt, prefix, until_ns = str(claims["attempt"]), str(claims["write"]), int(claims["until_ns"])
            rights = tuple(str(right) for right in claims.get("rights", ()))
        except (ValueError, KeyError, binascii.Error):
            raise PermissionRefused("this job token cannot be read") from None
        if now_ns > until_ns:
            raise PermissionRefused("this job token has run out")
        return Caller(attempt, prefix, rights)

    def _sign(self, body: str) -> str:
        return hmac.new(self.owner_token.encode(), body.encode(), hashlib.sha256).hexdigest()
