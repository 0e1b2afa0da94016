"""Kernels attached to collections, in the catalog: kept over restarts, from older formats on, within a bound."""

from __future__ import annotations

import sqlite3

import pytest

from hiss import limits
from hiss.blocks import Storage
from hiss.errors import LimitExceeded
from hiss.model import Attachment, KernelKind, StageInfo

from .conftest import OPTIONS

STAGE = StageInfo("k", KernelKind.MAP, "00", "def k(x):\n    return x\n", {}, 1.0)


@pytest.fixture
def attachments(opened):
    opened.stream()
    return opened.storage.catalog.attachments


def test_a_catalog_without_attachments_gets_their_table(opened):
    opened.stream()
    opened.storage.close()
    with sqlite3.connect(opened.directory / "catalog.db") as connection:
        for table in ("attachment", "drain", "drain_policy"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version=3")
    connection.close()
    opened.storage = Storage(opened.directory, OPTIONS)
    opened.storage.catalog.attachments.attach("test/run", Attachment("s*", STAGE, False, 5))
    opened.storage.close()
    opened.storage = Storage(opened.directory, OPTIONS)
    assert opened.storage.catalog.collection("test/run").kernels == (Attachment("s*", STAGE, False, 5),)


def test_attachments_of_a_collection_are_bounded(attachments, monkeypatch):
    monkeypatch.setattr(limits, "ATTACHMENTS_MAX", 2)
    for glob in ("a*", "b*"):
        attachments.attach("test/run", Attachment(glob, STAGE, False, 5))
    with pytest.raises(LimitExceeded, match="2 kernels attached"):
        attachments.attach("test/run", Attachment("c*", STAGE, False, 5))
    attachments.attach("test/run", Attachment("a*", STAGE, True, 6))  # in the place of the one before
    assert [one.shadow for one in attachments.of("test/run")] == [True, False]
