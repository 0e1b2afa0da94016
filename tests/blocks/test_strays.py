"""Blocks of streams that the catalog has lost are reported and their space is kept; what was deleted is not."""

from __future__ import annotations

import logging
import shutil
import sqlite3

import pytest

from hiss import limits
from hiss.blocks import Catalog, Storage
from hiss.errors import PermissionRefused, StreamNotFound
from hiss.local import LocalStore
from hiss.model import Caller
from hiss.node import Node

from .conftest import OPTIONS
from .test_storage import append, expected, read

BLOCKS = [(k, 400_000) for k in range(8)]


def catalog_files(directory) -> list:
    return [path for path in directory.iterdir() if path.name.startswith("catalog.db")]


class Lost:
    """A buffer whose catalog is older than its log: the stream `late` is not in it."""

    def __init__(self, opened) -> None:
        self.opened = opened
        self.early = opened.stream("early")
        append(opened.storage, self.early, [(0, 5)])
        self.old, self.new = opened.directory.parent / "old", opened.directory.parent / "new"
        opened.storage.close()
        self._copy(opened.directory, self.old)
        opened.storage = Storage(opened.directory, OPTIONS)
        self.late = opened.stream("late")
        append(opened.storage, self.late, BLOCKS)
        opened.storage.close()
        self._copy(opened.directory, self.new)
        self.put_back(self.old)

    @staticmethod
    def _copy(source, target) -> None:
        target.mkdir(exist_ok=True)
        for path in catalog_files(target):
            path.unlink()
        for path in catalog_files(source):
            shutil.copy(path, target)

    def put_back(self, which) -> Storage:
        self.opened.storage.close()
        self._copy(which, self.opened.directory)
        self.opened.storage = Storage(self.opened.directory, OPTIONS)
        return self.opened.storage

    def fill(self) -> None:
        """Write and delete more than all segments hold."""
        storage = self.opened.storage
        for round_ in range(3):
            info = self.opened.stream(f"filler{round_}")
            append(storage, info, BLOCKS)
            storage.delete(info.id)


def test_streams_that_the_catalog_has_lost_are_reported_and_kept(opened, caplog):
    with caplog.at_level(logging.ERROR):
        lost = Lost(opened)
    report = opened.storage.recovery
    assert report.stray_streams == opened.storage.stray_streams == (lost.late.id,)
    assert report.stray_records == 4  # one for each segment that the extent was cut for
    assert report.stray_bytes >= sum(size for _, size in BLOCKS)
    assert report.dead_records == 0
    assert lost.late.id in caplog.text
    assert "put a later copy" in report.attrs()["warning"].lower()
    lost.fill()
    opened.again()
    lost.fill()
    storage = lost.put_back(lost.new)
    assert lost.late.id not in storage.stray_streams
    assert read(storage, lost.late) == expected(lost.late, BLOCKS)
    assert read(storage, lost.early) == expected(lost.early, [(0, 5)])


def test_without_the_protection_they_are_gone(opened, monkeypatch):
    """The negative control: a recovery that takes all unknown streams for deleted ones."""
    lost = Lost(opened)
    opened.storage.close()
    original = Catalog.deleted_streams
    monkeypatch.setattr(Catalog, "deleted_streams", lambda self: original(self) | {lost.late.id})
    opened.storage = Storage(opened.directory, OPTIONS)
    assert not opened.storage.recovery.stray_records
    lost.fill()
    monkeypatch.undo()
    storage = lost.put_back(lost.new)
    assert read(storage, lost.late) != expected(lost.late, BLOCKS)


def test_a_stray_stream_is_deleted_by_its_id(opened):
    lost = Lost(opened)
    held = opened.storage.usage().live_bytes
    opened.storage.delete(lost.late.id)
    assert opened.storage.usage().live_bytes < held - 3_000_000
    assert not opened.storage.stray_streams
    storage = opened.again()
    assert not storage.recovery.stray_records
    assert read(storage, lost.early) == expected(lost.early, [(0, 5)])


def test_a_stray_stream_is_deleted_by_an_operator_only(opened):
    lost = Lost(opened)
    opened.storage.close()
    node = Node(opened.directory, OPTIONS, backend="numpy")
    try:
        with pytest.raises(PermissionRefused, match="operator"):
            LocalStore(node, Caller(write_prefix="test")).delete_stream(lost.late.id)
        store = LocalStore(node)
        assert store.status().recovery["stray_streams"] == [lost.late.id]
        store.delete_stream(lost.late.id)
        with pytest.raises(StreamNotFound):
            store.delete_stream(lost.late.id)
    finally:
        node.close()
    opened.storage = Storage(opened.directory, OPTIONS)
    assert not opened.storage.stray_streams


def test_deleted_streams_are_dead_and_forgotten_when_the_log_has_nothing_of_them(opened):
    keep, gone = opened.stream("keep"), opened.stream("gone")
    append(opened.storage, keep, [(0, 5)])
    append(opened.storage, gone, [(0, 5)])
    never = opened.stream("never")
    opened.storage.delete(gone.id)
    opened.storage.delete(never.id)
    storage = opened.again()
    assert storage.recovery.dead_records == 1
    assert not storage.recovery.stray_records
    assert storage.catalog.deleted_streams() == {gone.id}, "only what the log has records of is remembered"
    append(storage, keep, [(1, 5)])
    storage = opened.again()
    assert storage.recovery.dead_records == 1
    assert read(storage, keep) == expected(keep, [(0, 5), (1, 5)])


def test_every_way_of_deleting_is_remembered(opened):
    catalog = opened.storage.catalog
    one, two = opened.stream("one"), opened.stream("two", attempt="job.1")
    catalog.discard_attempt("job.1")
    assert catalog.deleted_streams() == {two.id}
    catalog.delete_collection("test/run")
    assert catalog.deleted_streams() == {one.id, two.id}


def test_the_memory_of_deleted_streams_is_bounded(opened, monkeypatch):
    monkeypatch.setattr("hiss.blocks.catalog.DELETED_STREAMS_MAX", 3)
    infos = [opened.stream(f"s{k}") for k in range(5)]
    for info in infos:
        opened.storage.catalog.delete_stream(info.id)
    assert opened.storage.catalog.deleted_streams() == {info.id for info in infos[2:]}
    assert limits.DELETED_STREAMS_MAX >= 10_000


def test_a_catalog_of_the_first_format_is_taken_over(opened):
    info = opened.stream()
    append(opened.storage, info, [(0, 5)])
    opened.storage.close()
    with sqlite3.connect(opened.directory / "catalog.db") as connection:
        for statement in (
            "DROP TABLE attachment",
            "DROP TABLE drain",
            "DROP TABLE drain_policy",
            "DROP TABLE deleted",
            "DROP TABLE reservation",
            "DROP TABLE retention",
            "ALTER TABLE stream DROP COLUMN archives",
            "ALTER TABLE stream DROP COLUMN eviction",
            "PRAGMA user_version=1",
        ):
            connection.execute(statement)
    connection.close()
    opened.storage = Storage(opened.directory, OPTIONS)
    opened.storage.delete(info.id)
    assert opened.storage.catalog.deleted_streams() == {info.id}
