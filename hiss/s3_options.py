"""How S3-compatible stores are reached: a frozen record that the configuration makes and the drain uses.

The secret is shown by no `repr` and travels in no command line: processes of the supervisor get it in their
environment (`to_environment`), which only their owner can read. Nothing here does I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Self

from hiss.errors import InvalidInput

_VARIABLE: Final = "HISS_S3"
_AWS: Final = {
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN",),
}


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where and as whom. Without an endpoint it is Amazon's; without keys what the machine itself is allowed."""

    endpoint: str = ""  # https://HOST[:PORT] of another store than Amazon's
    region: str = "us-east-1"
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for each in fields(self):
            if not isinstance(getattr(self, each.name), str):
                raise InvalidInput(f"s3: {each.name} should be text")
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise InvalidInput(f"s3: endpoint {self.endpoint!r}; expected http://HOST:PORT or https://HOST")
        if bool(self.access_key_id) != bool(self.secret_access_key):
            raise InvalidInput("s3: access_key_id and secret_access_key come together")

    @classmethod
    def read(cls, table: Mapping[str, Any], environment: Mapping[str, str]) -> Self:
        """From the table `[s3]` of hiss.toml; what it lacks from the `AWS_…` variables."""
        known = [each.name for each in fields(cls)]
        unknown = sorted(set(table) - set(known))
        if unknown:
            raise InvalidInput(f"[s3] has an unknown {', '.join(unknown)}; known are {', '.join(known)}")
        values = dict(table)
        keys = "access_key_id" in table or "secret_access_key" in table
        for name, variables in _AWS.items():
            if name in values or (keys and name == "session_token"):  # a session's token belongs to its own keys
                continue
            if keys and name.endswith(("_key", "_key_id")):
                continue
            found = next((environment[each] for each in variables if environment.get(each)), None)
            if found is not None:
                values[name] = found
        return cls(**values)

    def to_environment(self) -> dict[str, str]:
        """For a process that `of_environment` reads it in."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Self:
        text = environment.get(_VARIABLE)
        return cls.read({}, environment) if text is None else cls(**json.loads(text))
