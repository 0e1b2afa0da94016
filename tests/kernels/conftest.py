"""A compiler of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiss.kernels import Compiler


@pytest.fixture(scope="session")
def numba_compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """One cache for all tests, filled in this process, which spares the start of another for each kernel."""
    from hiss.kernels.numba_backend import NumbaBackend

    directory = tmp_path_factory.mktemp("kernel-cache")
    compiler = Compiler(directory, "numba")
    compiler.backend = NumbaBackend(directory, lambda paths: dict.fromkeys(paths, "ok"))  # loading compiles
    return compiler


@pytest.fixture(scope="session")
def numpy_compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return Compiler(tmp_path_factory.mktemp("no-cache"), "numpy")


@pytest.fixture(params=["numpy", "numba"])
def compiler(request: pytest.FixtureRequest, numba_compiler: Compiler, numpy_compiler: Compiler) -> Compiler:
    """Each back end in turn."""
    return numba_compiler if request.param == "numba" else numpy_compiler


@pytest.fixture
def shared_hostile(data_dir: Path) -> Path:
    """The collection of hostile sources that lies beside the instrument data."""
    path = data_dir.parent / "hostile_kernels.py"
    if not path.is_file():
        pytest.skip(f"no hostile kernels at {path}")
    return path
