"""Tokens that are handed out: what one is good for, and how it is written.

`hisstok.ID.SECRET`: the id is public, the secret 192 random bits of which a buffer keeps the SHA-256 only (so many
random bits cannot be guessed from it; a slow hash is for passwords). Frozen records that cross boundaries, as in
`model`; nothing here does I/O.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import re
import secrets
from dataclasses import dataclass
from typing import Final

from hiss import limits
from hiss.errors import InvalidInput, PermissionRefused
from hiss.model import Caller, check_path

RIGHTS: Final = ("read", "write", "run", "admin")
SCHEME: Final = "hisstok"
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 24
_TEXT: Final = re.compile(r"hisstok\.([0-9a-f]{12})\.([A-Za-z0-9_-]{32})")
_LOOPBACK: Final = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What a token is good for. Its secret is not here.

    Raises
    ------
    InvalidInput
        No right, one that there is not, a prefix that is no path, or an address range that is none.
    """

    id: str  # 12 hex digits
    label: str
    rights: tuple[str, ...]  # of `RIGHTS`
    prefix: str = ""  # a collection, with those below it; '' for all
    addresses: str = ""  # the range that it is good from, such as `10.1.0.0/16`; '' for any
    created_ns: int = 0
    expires_ns: int = 0  # 0: never
    parent: str = ""  # the token with which it was handed out, and with which it goes; '' for the owner

    def __post_init__(self) -> None:
        rights = tuple(right for right in RIGHTS if right in self.rights)
        if not rights or set(self.rights) - set(RIGHTS):
            raise InvalidInput(f"a token's rights {list(self.rights)[:8]}: expected some of {', '.join(RIGHTS)}")
        object.__setattr__(self, "rights", rights)
        if len(self.label) > limits.NAME_CHARS_MAX or not self.label.isprintable():
            raise InvalidInput(f"a token's label has at most {limits.NAME_CHARS_MAX} printable characters")
        if self.prefix:
            check_path(self.prefix, "prefix of a token")
        if self.addresses:
            object.__setattr__(self, "addresses", str(_network(self.addresses)))

    def caller(self) -> Caller:
        return Caller(write_prefix=self.prefix, rights=self.rights, token=self.id, read_prefix=self.prefix)

    def check_now(self, now_ns: int) -> None:
        """Raises `PermissionRefused` when it has run out."""
        if self.expires_ns and now_ns > self.expires_ns:
            raise PermissionRefused(f"token {self.id} has run out; its owner can hand out another one", token=self.id)

    def check_address(self, peer: str | None) -> None:
        """Raises `PermissionRefused` unless it is good from `peer`; None is a Unix socket of the buffer's host."""
        if not self.addresses:
            return
        network = _network(self.addresses)
        found = _LOOPBACK if peer is None else (_address(peer),)
        if not any(address is not None and address in network for address in found):
            raise PermissionRefused(
                f"token {self.id} is good from {self.addresses} only, not from {peer or 'this host'}", token=self.id
            )


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made: the only time that its text is known to the buffer."""

    info: TokenInfo
    text: str


def expiry_ns(hours: float | None, now_ns: int) -> int:
    """When a token that is made now for so many hours runs out; 0 for None, never."""
    if hours is None:
        return 0
    if not 0 < hours <= limits.TOKEN_HOURS_MAX or not math.isfinite(hours):
        raise InvalidInput(f"{hours} hours: expected more than 0, and at most {limits.TOKEN_HOURS_MAX}")
    return now_ns + int(hours * 3600e9)


def check_not_more(wanted: TokenInfo, own: TokenInfo) -> None:
    """Raises `PermissionRefused` where a token that is handed out with `own` would be good for longer, or from more
    places. Rights and prefixes are `rights.Rights`'s."""
    if own.expires_ns and not 0 < wanted.expires_ns <= own.expires_ns:
        raise PermissionRefused(f"token {own.id} runs out, and hands out none that lasts longer", token=own.id)
    if not is_part_of(wanted.addresses, own.addresses):
        raise PermissionRefused(
            f"token {own.id} is good from {own.addresses} only, and hands out none that is good from elsewhere",
            token=own.id,
        )


def new_id() -> str:
    return secrets.token_hex(_ID_BYTES)


def new_secret() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def token_text(token_id: str, secret: str) -> str:
    return f"{SCHEME}.{token_id}.{secret}"


def split_token(text: str) -> tuple[str, str]:
    """Id and secret. Raises `PermissionRefused` for what was never a token of this kind."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise PermissionRefused("this token cannot be read; was all of it copied?")
    return match[1], match[2]


def hash_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def is_secret(secret: str, kept: bytes) -> bool:
    return hmac.compare_digest(hash_of(secret), kept)


def is_within(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or below it; everything is below ''."""
    return not prefix or path == prefix or path.startswith(prefix + "/")


def is_part_of(addresses: str, of: str) -> bool:
    """Whether a range of addresses, '' for all, lies in another one."""
    if not of:
        return True
    if not addresses:
        return False
    inner, outer = _network(addresses), _network(of)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidInput(f"addresses {text[:80]!r}: expected a range such as 10.1.0.0/16: {error}") from None


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
