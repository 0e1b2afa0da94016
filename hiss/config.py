"""The configuration of a server: read once, from `hiss.toml`, then handed down. Nothing else reads it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hiss import limits
from hiss.errors import InvalidInput
from hiss.s3_options import S3Options
from hiss.space import Retention
from hiss.tls import HOW_TO, ServerTls

_SOCKET_PATH_MAX = 100  # sun_path of unix(7) has 108 bytes
EXIT_UNUSABLE = 3  # a process's exit status: the configuration cannot work, starting again would not help


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What `hiss serve` runs.

    `hiss.toml` holds the same names, the back end of kernels also as `[kernels] backend`, certificates also as `[tls]`
    with `cert`, `key` and `client_ca`; command-line options override it.
    """

    data: Path = Path("hiss-data")
    host: str = "127.0.0.1"
    port: int = 5001
    http: int = 5080  # the port of HTTP for operators; 0: none
    arena_bytes: int = 0  # 0: 1 GiB, or a quarter of the machine's memory if that is less
    segment_bytes: int = limits.SEGMENT_BYTES
    log_bytes_max: int = 0  # of the disk that the log may take; 0: all of it
    compaction_bytes_per_s: int = limits.COMPACTION_BYTES_PER_S  # copied out of nearly empty segments; 0: none
    retention_age_hours: float = 0.0  # final streams that may go leave the log after so long; 0: not for their age
    retention_drained_hours: float = 0.0  # archived streams leave the log so long after it; 0: not for that
    retention_pressure: bool = True  # archived streams leave the log where space runs short
    backend: str = "numba"
    jobs_at_once: int = limits.JOBS_AT_ONCE
    tls_cert: str = ""  # PEM files; with a certificate and its key the server speaks TLS only
    tls_key: str = ""
    tls_client_ca: str = ""  # clients must show a certificate that one of these has signed
    plain_network_is_trusted: bool = False  # listen beyond loopback without TLS: all may be read and changed on its way
    s3: S3Options = field(default_factory=S3Options)  # the table [s3]; for the process that drains
    executor: str = "local"  # where jobs run: processes of this machine, or the address of a scheduler, `dask:tcp://…`

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", Path(self.data).absolute())
        self._check_tls()
        if not 0 < self.port < 65536:
            raise InvalidInput(f"port {self.port}: expected 1 to 65535")
        if not 0 <= self.http < 65536 or self.http == self.port:
            raise InvalidInput(f"http {self.http}: expected a port, other than the one of gRPC, or 0 for no HTTP")
        if self.arena_bytes and self.arena_bytes < limits.ARENA_BYTES_MIN:
            raise InvalidInput(f"arena_bytes {self.arena_bytes}: at least {limits.ARENA_BYTES_MIN}")
        if self.segment_bytes < limits.SEGMENT_BYTES_MIN:
            raise InvalidInput(f"segment_bytes {self.segment_bytes}: at least {limits.SEGMENT_BYTES_MIN}")
        if self.backend not in ("numba", "numpy"):
            from hiss.kernels.compiler import check_backend  # after the first look: it is not needed to read a default

            check_backend(self.backend)
        if self.compaction_bytes_per_s < 0:
            raise InvalidInput(f"compaction_bytes_per_s {self.compaction_bytes_per_s}: at least 0; 0 is none")
        if self.log_bytes_max and self.log_bytes_max < 2 * self.segment_bytes:
            raise InvalidInput(f"log_bytes_max {self.log_bytes_max}: room for two segments at least, or 0")
        if min(self.retention_age_hours, self.retention_drained_hours) < 0:
            raise InvalidInput("retention_age_hours and retention_drained_hours are at least 0")
        if self.executor != "local" and not self.executor.startswith("dask:"):
            raise InvalidInput(f"executor {self.executor!r}: expected 'local', or 'dask:' and a scheduler's address")
        if self.jobs_at_once < 1:
            raise InvalidInput(f"jobs_at_once {self.jobs_at_once}: at least 1")

    def _check_tls(self) -> None:
        """Beyond loopback there is TLS, unless its absence was asked for in plain words."""
        if bool(self.tls_cert) != bool(self.tls_key) or (self.tls_client_ca and not self.tls_cert):
            raise InvalidInput("tls_cert and tls_key go together, and tls_client_ca with them")
        for name in ("tls_cert", "tls_key", "tls_client_ca"):
            if getattr(self, name):
                object.__setattr__(self, name, str(Path(getattr(self, name)).expanduser().absolute()))
        if self.tls is not None:
            self.tls.context()
        elif not self.is_loopback and not self.plain_network_is_trusted:
            raise InvalidInput(
                f"host {self.host!r} is beyond loopback, where others could read and change what is sent: give a "
                f"certificate (--tls-cert and --tls-key). A line that makes one: {HOW_TO}. If that network is "
                "trusted without TLS, say so: --plain-network-is-trusted"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in ("127.0.0.1", "localhost", "::1", "[::1]")

    @property
    def http_host(self) -> str:
        """Where HTTP listens, which has no TLS: this machine, unless the network is trusted without."""
        return self.host if self.is_loopback or self.plain_network_is_trusted else "127.0.0.1"

    @property
    def tls(self) -> ServerTls | None:
        if not self.tls_cert:
            return None
        client_ca = Path(self.tls_client_ca) if self.tls_client_ca else None
        return ServerTls(Path(self.tls_cert), Path(self.tls_key), client_ca)

    @classmethod
    def load(cls, file: Path | None, **overrides: Any) -> Self:
        """From a TOML file, where one is given, and what is not None of `overrides`."""
        values: dict[str, Any] = {}
        if file is not None:
            try:
                values = tomllib.loads(file.read_text("utf-8"))
            except (OSError, tomllib.TOMLDecodeError) as error:
                raise InvalidInput(f"configuration {file}: {error}") from None
        kernels = values.pop("kernels", {})
        if not isinstance(kernels, dict) or kernels.keys() - {"backend"}:
            raise InvalidInput(f"configuration {file}: [kernels] has one entry, backend")
        values |= kernels
        rules = values.pop("rules", {})
        if not isinstance(rules, dict) or rules.keys() - {"executor", "jobs_at_once"}:
            raise InvalidInput(f"configuration {file}: [rules] has two entries, executor and jobs_at_once")
        values |= rules
        values |= tls_table(values.pop("tls", {}), f"configuration {file}")
        values["s3"] = _s3(overrides.pop("s3", values.pop("s3", {})), os.environ)
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(values.keys() - known.keys())
        if unknown:
            raise InvalidInput(f"configuration {file}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
        values |= {name: value for name, value in overrides.items() if value is not None}
        for name, value in values.items():
            if name == "s3":
                continue
            wanted = type(known[name].default)
            if not _fits(value, type(known[name].default)):
                raise InvalidInput(f"configuration {file}: {name} = {value!r}, expected {wanted.__name__}")
        return cls(**values)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def retention(self) -> Retention:
        """For collections that have no policy of their own."""
        age_s, drained_s = 3600 * self.retention_age_hours, 3600 * self.retention_drained_hours
        return Retention(age_s or None, drained_s or None, self.retention_pressure)

    def to_json(self) -> str:
        """For the processes that the supervisor starts; `s3` is not in it, others see a process's command line."""
        values = dataclasses.asdict(self) | {"data": str(self.data)}
        del values["s3"]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        return cls(**(values | {"data": Path(values["data"])}))


def tls_table(table: Any, what: str) -> dict[str, Any]:
    """The fields that `[tls]` stands for. Raises `InvalidInput` for other entries."""
    if not isinstance(table, dict) or table.keys() - {"cert", "key", "client_ca"}:
        raise InvalidInput(f"{what}: [tls] has the entries cert, key and client_ca")
    return {f"tls_{name}": value for name, value in table.items()}


def _s3(table: Any, environment: Mapping[str, str]) -> S3Options:
    if isinstance(table, S3Options):
        return table
    if not isinstance(table, dict):
        raise InvalidInput("s3 is a table: [s3] endpoint = ...")
    return S3Options.read(table, environment)


def _fits(value: Any, wanted: type) -> bool:
    """Whether a value of TOML may stand for a field; a whole number may for a float, true only for a bool."""
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    if issubclass(wanted, Path):
        return isinstance(value, str | Path)
    return isinstance(value, int | float) if wanted is float else isinstance(value, wanted)


def run_directory(data: Path) -> Path:
    """Where the processes of a buffer leave their sockets and pids: `DATA/run`, or a short path where that is too
    long."""
    directory = data / "run"
    if len(str(directory / "rules.sock")) > _SOCKET_PATH_MAX:
        name = hashlib.sha256(str(data).encode()).hexdigest()[:16]
        directory = Path(tempfile.gettempdir()) / f"hiss-{os.getuid()}-{name}"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory
