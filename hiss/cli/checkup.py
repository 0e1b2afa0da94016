"""The checks of `hiss doctor`: Python and its packages, the machine (`machine`), and the server that runs here.

Each looks for real and says what it found. Nothing is changed: the probe files are removed, the data directory is not
made. Called from the main thread.
"""

from __future__ import annotations

import errno
import importlib
import socket
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from hiss.blocks import StorageOptions
from hiss.blocks.storage import IO_MODE, IO_REASON
from hiss.cli.machine import Finding, Outcome, machine
from hiss.cli.output import size
from hiss.config import ServeConfig
from hiss.errors import HissError
from hiss.limits import GiB

if TYPE_CHECKING:
    from hiss.model import NodeStatus
    from hiss.tls import ClientTls

_NEEDED: Final = {
    "numpy": "numpy",
    "numba": "numba",
    "h5py": "h5py",
    "grpcio": "grpc",
    "protobuf": "google.protobuf",
    "pyopencl": "pyopencl",
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
    "pyFAI": ("pyFAI", "azimuthal integration", "pip install 'hiss[azimuthal]'"),
    "distributed": ("distributed", "jobs on a Dask cluster", "pip install 'hiss[dask]'"),
    "tifffile": ("tifffile", "TIFF files for hiss put", "pip install 'hiss[files]'"),
    "fabio": ("fabio", "CBF and EDF files for hiss put", "pip install 'hiss[files]'"),
    "pvapy": ("pvaccess", "the bridge from EPICS", "pip install 'hiss[pva]'"),
    "watchdog": ("watchdog", "watched directories", "pip install 'hiss[watch]'"),
    "rocrate": ("rocrate", "provenance as RO-Crates", "pip install 'hiss[provenance]'"),
}
_PYTHON_MIN: Final = (3, 11)
_ROOM_MIN: Final = 2 * GiB
_RECOVERED: Final = {
    "blocks": "blocks in the log",
    "torn_records": "writes cut by a crash",
    "rewritten_blocks": "blocks written again",
    "damages_count": "damages",
}


def checkup(config: ServeConfig, address: str | None, token: str | None, tls: ClientTls | None = None) -> list[Finding]:
    """All findings, in an order in which a later one may follow from an earlier one."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _compiler,
        lambda: iter((Finding("log", Outcome.OK, f"{IO_MODE}: {IO_REASON}"),)),
        lambda: machine(config.data, config.arena_bytes or StorageOptions().arena_bytes),
        lambda: _server(config, address, token, tls),
        lambda: _access(config),
    )
    return [finding for check in checks for finding in check()]


def _python() -> Iterator[Finding]:
    import hiss

    found = f"{sys.version.split()[0]} at {sys.executable}, hiss {hiss.__version__}"
    if sys.version_info >= _PYTHON_MIN:
        yield Finding("python", Outcome.OK, found)
    else:
        yield Finding("python", Outcome.FAIL, found, "hiss needs Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    for package, module in _NEEDED.items():
        yield _package(package, module, Outcome.FAIL, f"pip install {package}")
    for package, (module, use, line) in _OPTIONAL.items():
        yield _package(package, module, Outcome.WARN, f"needed for {use}: {line}")


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


def _server(config: ServeConfig, address: str | None, token: str | None, tls: ClientTls | None) -> Iterator[Finding]:
    import hiss
    from hiss.link import Link

    where = Link.parse(address).address if address else config.address
    if _silent(where):
        yield Finding("server", Outcome.WARN, f"nothing listens at {where}", "start one: hiss serve")
        return
    try:
        with hiss.connect(address or where, token=token, tls=tls) as buffer:
            status = buffer.status()
        yield Finding("server", Outcome.OK, f"hiss {status.version} at {where}: {status.streams} streams")
        yield promises(status)
        yield recovery(status)
    except HissError as error:
        advice = "another program may have the port; `ss -ltnp` names it, `hiss serve --port` takes another"
        yield Finding("server", Outcome.FAIL, f"{where}: {type(error).__name__}: {error}", advice)


def _access(config: ServeConfig) -> Iterator[Finding]:
    """Who reaches the server that is configured here, and how."""
    if config.tls is not None:
        clients = ", clients show a certificate" if config.tls_client_ca else ""
        yield Finding("access", Outcome.OK, f"{config.address}: TLS with {config.tls_cert}, and tokens{clients}")
    elif config.is_loopback:
        yield Finding("access", Outcome.OK, f"{config.address}: from this machine only, with a token")
    else:
        advice = "give it a certificate: docs/security.md"
        yield Finding("access", Outcome.WARN, f"{config.address}: tokens and data cross the network in clear", advice)


def promises(status: NodeStatus) -> Finding:
    """Whether the log has room for what is promised and not used."""
    left = max(0, status.promised_bytes - status.promised_used_bytes)
    said = f"{size(left)} are promised and not used, the log has room for {size(status.room_bytes)}"
    if left > status.room_bytes:
        advice = "another program took the space: make room, evict streams, or release a reservation"
        return Finding("space", Outcome.FAIL, said, advice)
    if status.room_bytes - left < _ROOM_MIN:
        return Finding("space", Outcome.WARN, said, "drain and evict streams; `hiss retention` does that by itself")
    return Finding("space", Outcome.OK, said)


def recovery(status: NodeStatus) -> Finding:
    """What the server found when it opened its log."""
    found = status.recovery
    said = ", ".join(f"{found.get(key, 0)} {text}" for key, text in _RECOVERED.items())
    if found.get("damages_count"):
        damage = "; ".join(f"{one['stream'] or 'a segment'}: {one['what']}" for one in found["damages"][:3])
        advice = f"{damage}. `hiss verify` names every block; check the disk"
        return Finding("recovery", Outcome.FAIL, said, advice)
    if found.get("stray_records"):
        return Finding("recovery", Outcome.WARN, said, str(found.get("warning", "")))
    return Finding("recovery", Outcome.OK, said)


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
