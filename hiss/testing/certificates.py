"""Certificates for tests, of an authority that is made anew for each process. trustme is imported; for tests only."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trustme

from hiss.tls import ClientTls, ServerTls


@dataclass(frozen=True)
class Certificates:
    """What a server and its clients need, and what a stranger has, whose authority nobody knows."""

    directory: Path
    server: ServerTls  # for localhost and 127.0.0.1
    mutual: ServerTls  # the same, and clients must show a certificate
    client: ClientTls
    known_client: ClientTls  # with a certificate of its own
    stranger: ClientTls  # trusts another authority, and shows a certificate of that
    impostor: ClientTls  # trusts the right authority, and shows a certificate of the other
    elsewhere: ServerTls  # of the right authority, for another host


@functools.cache
def certificates() -> Certificates:
    """The certificates of this process."""
    directory = Path(tempfile.mkdtemp(prefix="hiss-certificates-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    ours, foreign = trustme.CA(), trustme.CA()

    def authority(name: str, ca: trustme.CA) -> Path:
        path = directory / f"{name}.pem"
        ca.cert_pem.write_to_path(str(path))
        return path

    def leaf(name: str, ca: trustme.CA, *identities: str) -> tuple[Path, Path]:
        made = ca.issue_cert(*identities)
        cert, key = directory / f"{name}.pem", directory / f"{name}.key"
        made.private_key_pem.write_to_path(str(key))
        for number, part in enumerate(made.cert_chain_pems):
            part.write_to_path(str(cert), append=number > 0)
        return cert, key

    ca, other_ca = authority("ca", ours), authority("other-ca", foreign)
    here = leaf("server", ours, "localhost", "127.0.0.1")
    return Certificates(
        directory,
        ServerTls(*here),
        ServerTls(*here, client_ca=ca),
        ClientTls(ca),
        ClientTls(ca, *leaf("client", ours, "client@example.org")),
        ClientTls(other_ca, *leaf("stranger", foreign, "client@example.org")),
        ClientTls(ca, *leaf("impostor", foreign, "client@example.org")),
        ServerTls(*leaf("elsewhere", ours, "elsewhere.example.org")),
    )
