"""Addresses as users write them, and share links.

    HOST:PORT                                  a server
    unix:PATH                                  one of this host
    hiss://HOST:PORT/COLLECTION#TOKEN          with the collection that is meant and the token for it
    hiss+tls://HOST:PORT/COLLECTION#TOKEN      the same, over TLS

The token is the URL's fragment, which programs that follow URLs do not send to the server that they name (RFC 9110,
4.2.5), so that it is in nobody's log. Pure functions; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from hiss.errors import InvalidInput
from hiss.model import check_path

PLAIN: Final = "hiss"
TLS: Final = "hiss+tls"


@dataclass(frozen=True, slots=True)
class Link:
    """Where a buffer is, and what came with that. Its `repr` does not show the token."""

    address: str  # `HOST:PORT` or `unix:PATH`
    tls: bool = False
    collection: str = ""
    token: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Link:
        """Raises `InvalidInput` for a URL that is not ours. What is no URL is taken as an address, unchecked."""
        scheme, colon, _ = text.partition("://")
        if not colon:
            return cls(text)
        found = urlsplit(text)
        if scheme not in (PLAIN, TLS) or not found.netloc or found.query:
            raise InvalidInput(
                f"{scheme[:20]}://…: expected HOST:PORT, unix:PATH, or {PLAIN}://HOST:PORT/COLLECTION#TOKEN, with "
                f"{TLS}: for TLS"
            )
        path = unquote(found.path).strip("/")
        if path:
            check_path(path, "collection of a link")
        return cls(found.netloc, scheme == TLS, path, unquote(found.fragment))

    def url(self) -> str:
        """The whole link, token and all."""
        fragment = f"#{quote(self.token, safe='.-_')}" if self.token else ""
        return f"{TLS if self.tls else PLAIN}://{self.address}/{quote(self.collection)}{fragment}"
