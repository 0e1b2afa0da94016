"""Certificates: what a server shows, and what a client trusts and shows. gRPC and lanes take the same.

Files are PEM. Nothing falls back from TLS to a plain connection. Pure but for reading the files; any thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hiss.errors import InvalidInput

if TYPE_CHECKING:
    import ssl  # imported where it is needed: this module is for `hiss --help` too

HOW_TO: Final = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -keyout key.pem -out cert.pem "
    '-subj "/CN=HOST" -addext "subjectAltName=DNS:HOST,DNS:localhost,IP:127.0.0.1"'
)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """A server's certificate (with what leads to its authority) and key; with `client_ca` clients show one, too."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For lanes: TLS 1.3. Raises `InvalidInput` for files that cannot be used, which shows for gRPC as well."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _load(context, self.cert, self.key)
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            _trust(context, self.client_ca)
        return context


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What a client trusts, and shows where it is asked.

    Parameters
    ----------
    ca : path, optional
        Certificates of authorities, or the server's own if it signed that itself; by default the system's authorities.
    cert, key : path, optional
        Of the client, for servers that ask (mutual TLS).
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidInput("TLS: a client's certificate and its key go together")

    @classmethod
    def of(
        cls, what: ClientTls | Path | str | bool | None, environment: Mapping[str, str] = os.environ
    ) -> ClientTls | None:
        """From what `hiss.connect` was given; None: from `HISS_TLS_CA`, `HISS_TLS_CERT` and `HISS_TLS_KEY`."""
        if isinstance(what, ClientTls):
            return what
        told = [environment.get(f"HISS_TLS_{name}") for name in ("CA", "CERT", "KEY")]
        ca, cert, key = (Path(text) if text else None for text in told)
        if what is None and ca is None and cert is None:
            return None
        if what is False:
            return None
        return cls(ca if what is None or what is True else Path(what), cert, key)

    def context(self) -> ssl.SSLContext:
        """For lanes: TLS 1.3. Raises `InvalidInput` for files that cannot be used."""
        import ssl

        context = ssl.create_default_context()
        if self.ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            _trust(context, self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.cert is not None and self.key is not None:
            _load(context, self.cert, self.key)
        return context


def read(path: Path) -> bytes:
    """A file, for gRPC. Raises `InvalidInput`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"TLS: {path}: {error}") from None


def _load(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"TLS: certificate {cert} with key {key}: {error}") from None


def _no_password() -> str:
    raise ValueError("the key has a passphrase; a server that starts by itself cannot ask for it")


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"TLS: certificates to trust {ca}: {error}") from None
