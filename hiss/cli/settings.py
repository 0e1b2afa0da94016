"""What the command line is told from outside: `hiss.toml` and the environment, read once.

Order, strongest first: an option; the environment (`HISS_ADDRESS`, `HISS_TOKEN`, `HISS_DATA`, and for TLS
`HISS_TLS_CA`, `HISS_TLS_CERT`, `HISS_TLS_KEY`); `hiss.toml` in the working directory, else `~/.config/hiss/hiss.toml`;
the defaults. The file holds `address`, `token`, `trust`, `client_cert` and `client_key` for clients, for `hiss serve`
the names of `config.ServeConfig`, certificates also as `[tls]`, and for both a table `[s3]`; what that lacks is taken
from the `AWS_…` variables. Called from the main thread before anything else.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hiss.config import ServeConfig, tls_table
from hiss.errors import InvalidInput
from hiss.s3_options import S3Options
from hiss.tls import ClientTls

_CLIENT: Final = ("address", "token", "trust", "client_cert", "client_key")
_ENVIRONMENT: Final = {
    "HISS_ADDRESS": "address",
    "HISS_TOKEN": "token",
    "HISS_DATA": "data",
    "HISS_TLS_CA": "trust",
    "HISS_TLS_CERT": "client_cert",
    "HISS_TLS_KEY": "client_key",
}
_SERVER: Final = tuple(member.name for member in dataclasses.fields(ServeConfig))


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the buffer is. None means: as `hiss.connect` and `ServeConfig` have it by default."""

    address: str | None = None
    token: str | None = None
    trust: str | None = None  # certificates, in a PEM file: then by TLS
    client_cert: str | None = None
    client_key: str | None = None
    serve: Mapping[str, Any] = field(default_factory=dict)
    s3: S3Options = field(default_factory=S3Options)

    @property
    def tls(self) -> ClientTls | None:
        """None: plain, unless the address is a link for TLS."""
        if self.trust is None and self.client_cert is None:
            return None
        files = (self.trust, self.client_cert, self.client_key)
        return ClientTls(*(Path(file).expanduser() if file else None for file in files))

    def serve_config(self, **options: Any) -> ServeConfig:
        """The server's configuration; options that are not None come first."""
        given = {name: value for name, value in options.items() if value is not None}
        return ServeConfig.load(None, **{**self.serve, "s3": self.s3, **given})


def read_settings(environment: Mapping[str, str], files: tuple[Path, ...] | None = None) -> Settings:
    """Settings from the first of `files` that is there, and from the environment.

    Raises
    ------
    InvalidInput
        A file that is no TOML, or a key that is not known.
    """
    if files is None:
        home = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        files = (Path("hiss.toml"), Path(home) / "hiss" / "hiss.toml")
    found = next((_read(file) for file in files if file.is_file()), {})
    for name, key in _ENVIRONMENT.items():
        if environment.get(name):
            found[key] = environment[name]
    client = {key: found.pop(key, None) for key in _CLIENT}
    if "data" in found:
        found["data"] = Path(found["data"]).expanduser()
    s3 = found.pop("s3", {})
    if not isinstance(s3, dict):
        raise InvalidInput(f"s3 = {s3!r} should be a table, [s3]")
    return Settings(**client, serve=found, s3=S3Options.read(s3, environment))


def _read(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{file}: {error}") from None
    found |= tls_table(found.pop("tls", {}), str(file))
    for key, value in found.items():
        if key not in (*_CLIENT, *_SERVER):
            raise InvalidInput(f"{file}: unknown key {key!r}; known are {', '.join((*_CLIENT, *_SERVER))}")
        if key in (*_CLIENT, "data") and not isinstance(value, str):
            raise InvalidInput(f"{file}: {key} = {value!r} should be text")
    return found


def settings_of_this_process() -> Settings:
    """From this process's environment and working directory."""
    return read_settings(os.environ)
