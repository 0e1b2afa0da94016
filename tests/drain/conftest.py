"""What tests of draining share: an S3 endpoint."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from s3_server import S3Server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'hiss[s3]'")
    pytest.importorskip("moto", reason="moto is not installed")
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    """Empty at the beginning and at the end."""
    yield s3_server
    s3_server.clear()
