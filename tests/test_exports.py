"""The names that users import, pinned; and what importing costs."""

from __future__ import annotations

import subprocess
import sys

import hiss

PUBLIC = {
    "Block",
    "Buffer",
    "Collection",
    "DrainTarget",
    "HissError",
    "Join",
    "Overload",
    "Pattern",
    "Recipe",
    "Reservation",
    "Retention",
    "Stream",
    "StreamWriter",
    "__version__",
    "column",
    "connect",
    "filter",
    "hk",
    "job",
    "kernel",
    "open",
    "reduce",
    "scan",
}


def test_the_public_list() -> None:
    assert set(hiss.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(hiss, name) is not None


def test_importing_hiss_imports_nothing_heavy() -> None:
    code = "import hiss, sys; print(sorted({'numpy', 'grpc', 'numba', 'h5py', 'sqlite3'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
