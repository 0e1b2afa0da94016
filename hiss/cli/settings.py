"""What the command line is told from outside: `hiss.toml` and the environment, read once.

Order, strongest first: an option; the environment (`HISS_ADDRESS`, `HISS_TOKEN`, `HISS_DATA`); `hiss.toml` in the
working directory, else `~/.config/hiss/hiss.toml`; the defaults. The file holds `address` and `token` for clients,
for `hiss serve` the names of `config.ServeConfig`, and for both a table `[s3]`; what that lacks is taken from the
`AWS_…` variables. Called from the main thread before anything else.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hiss.config import ServeConfig
from hiss.errors import InvalidInput
from hiss.s3_options import S3Options

_CLIENT: Final = ("address", "token")
_SERVER: Final = tuple(member.name for member in dataclasses.fields(ServeConfig))


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the buffer is. None means: as `hiss.connect` and `ServeConfig` have it by default."""

    address: str | None = None
    token: str | None = None
    serve: Mapping[str, Any] = field(default_factory=dict)
    s3: S3Options = field(default_factory=S3Options)

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
    for key in (*_CLIENT, "data"):
        if environment.get(f"HISS_{key.upper()}"):
            found[key] = environment[f"HISS_{key.upper()}"]
    client = {key: found.pop(key, None) for key in _CLIENT}
    if "data" in found:
        found["data"] = Path(found["data"]).expanduser()
    s3 = found.pop("s3", {})
    if not isinstance(s3, dict):
        raise InvalidInput(f"s3 = {s3!r} should be a table, [s3]")
    return Settings(client["address"], client["token"], found, S3Options.read(s3, environment))


def _read(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{file}: {error}") from None
    for key, value in found.items():
        if key not in (*_CLIENT, *_SERVER):
            raise InvalidInput(f"{file}: unknown key {key!r}; known are {', '.join((*_CLIENT, *_SERVER))}")
        if key in (*_CLIENT, "data") and not isinstance(value, str):
            raise InvalidInput(f"{file}: {key} = {value!r} should be text")
    return found


def settings_of_this_process() -> Settings:
    """From this process's environment and working directory."""
    return read_settings(os.environ)
