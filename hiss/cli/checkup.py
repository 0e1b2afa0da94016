"""The checks of `hiss doctor`: each looks at one thing of this machine for real and says what it found.

Nothing is changed: the probe file of the disk check is removed, the data directory is not made. Called from the main
thread.
"""

from __future__ import annotations

import enum
import errno
import importlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from hiss.cli.output import size
from hiss.config import ServeConfig
from hiss.errors import HissError
from hiss.limits import GiB

_NEEDED: Final = {
    "numpy": "numpy",
    "numba": "numba",
    "h5py": "h5py",
    "grpcio": "grpc",
    "protobuf": "google.protobuf",
    "xxhash": "xxhash",
    "rich": "rich",
}
_OPTIONAL: Final = {
    "papermill": ("papermill", "recipes that are notebooks", "pip install 'hiss[notebook]'"),
    "ipykernel": ("ipykernel", "recipes that are notebooks", "pip install 'hiss[notebook]'"),
    "scikit-image": ("skimage", "the demo's reconstruction", "pip install 'hiss[demo]'"),
    "matplotlib": ("matplotlib", "the demo's pictures", "pip install 'hiss[demo]'"),
    "hdf5plugin": ("hdf5plugin", "drain with bitshuffle+LZ4", "pip install 'hiss[hdf5]'"),
    "zarr": ("zarr", "drain to Zarr", "pip install 'hiss[zarr]'"),
}
_PYTHON_MIN: Final = (3, 11)
_PROBES: Final = 5
_SLOW_SYNC_S: Final = 0.1


class Outcome(enum.IntEnum):
    OK = 0
    NOTE = 1  # works, but not all of it, or slowly
    FAIL = 2


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    outcome: Outcome
    found: str
    advice: str = ""


def checkup(config: ServeConfig, address: str | None, token: str | None) -> list[Finding]:
    """All findings, in an order in which a later one may follow from an earlier one."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _compiler,
        lambda: _disk(config.data),
        lambda: _data_directory(config.data),
        lambda: _server(config, address, token),
    )
    return [finding for check in checks for finding in check()]


def _python() -> Iterator[Finding]:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info >= _PYTHON_MIN:
        yield Finding("python", Outcome.OK, found)
    else:
        yield Finding("python", Outcome.FAIL, found, "hiss needs Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    for package, module in _NEEDED.items():
        yield _package(package, module, Outcome.FAIL, f"pip install {package}")
    for package, (module, use, line) in _OPTIONAL.items():
        yield _package(package, module, Outcome.NOTE, f"needed for {use}: {line}")


def _package(package: str, module: str, absent: Outcome, advice: str) -> Finding:
    try:
        importlib.import_module(module)
        return Finding(package, Outcome.OK, version(package))
    except (ImportError, PackageNotFoundError) as error:
        return Finding(package, absent, f"not usable: {error}", advice)


def _compiler() -> Iterator[Finding]:
    """Compile and run one small function: finds a numba that does not work with this NumPy or machine."""
    try:
        import numba
        import numpy as np

        began = time.monotonic()
        added = numba.njit(lambda x: x + 1)(np.arange(3))
        took = time.monotonic() - began
    except Exception as error:  # whatever is wrong with the compiler is the finding
        yield Finding("compiler", Outcome.FAIL, f"{type(error).__name__}: {error}", "reinstall numba and llvmlite")
        return
    right = added.tolist() == [1, 2, 3]
    yield Finding("compiler", Outcome.OK if right else Outcome.FAIL, f"compiled and ran in {took:.2f} s")


def _disk(data: Path) -> Iterator[Finding]:
    place = next(parent for parent in (data, *data.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < 2 * GiB:
        yield Finding("disk", Outcome.FAIL, f"{size(free)} free at {place}", "make room, or choose another --data")
        return
    try:
        sync_s = _sync_seconds(place)
    except OSError as error:
        yield Finding("disk", Outcome.FAIL, f"cannot write at {place}: {error.strerror}", "choose another --data")
        return
    found = f"{size(free)} free at {place}; a durable 4 KiB write takes {sync_s * 1e3:.2g} ms"
    if sync_s > _SLOW_SYNC_S:
        yield Finding("disk", Outcome.NOTE, found, "durable acknowledgements will be slow here; a local SSD helps")
    else:
        yield Finding("disk", Outcome.OK, found)


def _sync_seconds(place: Path) -> float:
    """The median time of a 4 KiB write with fdatasync."""
    times = []
    with tempfile.NamedTemporaryFile(dir=place, prefix=".hiss-doctor-") as probe:
        for _ in range(_PROBES):
            began = time.monotonic()
            os.pwrite(probe.fileno(), b"\0" * 4096, 0)
            os.fdatasync(probe.fileno())
            times.append(time.monotonic() - began)
    return sorted(times)[_PROBES // 2]


def _data_directory(data: Path) -> Iterator[Finding]:
    if not data.exists():
        yield Finding("data directory", Outcome.OK, f"{data}: not there yet; `hiss serve` makes it")
    elif not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("data directory", Outcome.FAIL, f"{data}: not writable for this user", "choose another --data")
    else:
        yield Finding("data directory", Outcome.OK, str(data))


def _server(config: ServeConfig, address: str | None, token: str | None) -> Iterator[Finding]:
    import hiss

    where = address or config.address
    if _silent(where):
        yield Finding("server", Outcome.NOTE, f"nothing listens at {where}", "start one: hiss serve")
        return
    try:
        with hiss.connect(where, token=token) as buffer:
            status = buffer.status()
        yield Finding("server", Outcome.OK, f"hiss {status.version} at {where}: {status.streams} streams")
    except HissError as error:
        advice = "another program may have the port; `ss -ltnp` names it, `hiss serve --port` takes another"
        yield Finding("server", Outcome.FAIL, f"{where}: {type(error).__name__}: {error}", advice)


def _silent(where: str) -> bool:
    """Whether nothing accepts a connection at `host:port`; False for other kinds of address."""
    host, _, port = where.rpartition(":")
    if not port.isdigit() or where.startswith("unix:"):
        return False
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError as error:
        return error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ETIMEDOUT) or isinstance(
            error, TimeoutError
        )
    return False
