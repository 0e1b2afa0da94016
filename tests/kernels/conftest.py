"""A compiler of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiss.kernels import Compiler
from hiss.kernels.opencl_device import Device, NoDevice, choose
from hiss.testing.pocl_processor import name_processor
from kernels.building import opencl_compiler_for


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


@pytest.fixture(scope="session")
def opencl_device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    """The processor as an OpenCL device; tests that need it are skipped where there is none."""
    try:
        device = choose("cpu", tmp_path_factory.mktemp("pocl"))
    except NoDevice as reason:
        pytest.skip(str(reason))
    name_processor(device.device)
    return device


@pytest.fixture(scope="session")
def opencl_compiler(tmp_path_factory: pytest.TempPathFactory, opencl_device: Device) -> Compiler:
    """One cache for all tests, filled in this process; what cannot be said in OpenCL would run in NumPy."""
    return opencl_compiler_for(tmp_path_factory.mktemp("opencl-cache"), opencl_device)


@pytest.fixture(params=["numpy", "numba", "opencl"])
def compiler(request: pytest.FixtureRequest) -> Compiler:
    """Each back end in turn."""
    chosen: Compiler = request.getfixturevalue(f"{request.param}_compiler")
    return chosen


@pytest.fixture
def shared_hostile(data_dir: Path) -> Path:
    """The collection of hostile sources that lies beside the instrument data."""
    path = data_dir.parent / "hostile_kernels.py"
    if not path.is_file():
        pytest.skip(f"no hostile kernels at {path}")
    return path
