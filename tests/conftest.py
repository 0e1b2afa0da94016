"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real instrument data; tests that need it are skipped where it is missing."""
    folder = Path(os.environ.get("HISS_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no instrument data at {folder}; set HISS_TEST_DATA")
    return folder
