"""Commits that several callers share: each returns when its change is on the disk, and fails alone or with all."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing

import pytest

from hiss.blocks.catalog_database import CatalogDatabase
from hiss.errors import CatalogDamaged

from .test_arena import wait_until


@pytest.fixture
def database(tmp_path):
    made = CatalogDatabase(tmp_path / "catalog.db")
    with made.transaction() as writer:
        writer.execute("CREATE TABLE entry (name TEXT PRIMARY KEY)")
    yield made
    made.close()


def put(database, name, **options) -> None:
    with database.transaction(**options) as writer:
        writer.execute("INSERT INTO entry VALUES (?)", (name,))


def names(path) -> set[str]:
    """What a process finds that opens the database as it is on the disk at this moment."""
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM entry")}


def as_after_a_crash(database, directory) -> set[str]:
    directory.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{database.path}{suffix}", directory / f"catalog.db{suffix}")
    return names(directory / "catalog.db")


def together(database, callers):
    """Run these while the lock is held, so that all arrive before the first may begin; how many commits they took."""
    statements: list[str] = []
    database._connection.set_trace_callback(statements.append)
    threads = [threading.Thread(target=caller) for caller in callers]
    with database.lock:
        for thread in threads:
            thread.start()
        wait_until(lambda: database._arriving == len(threads))
    for thread in threads:
        thread.join(60)
    database._connection.set_trace_callback(None)
    return statements.count("COMMIT")


def test_who_arrives_together_shares_one_commit(database, tmp_path):
    commits = together(database, [lambda k=k: put(database, f"n{k}") for k in range(24)])
    assert commits == 1
    assert as_after_a_crash(database, tmp_path / "copy") == {f"n{k}" for k in range(24)}


def test_a_change_is_on_the_disk_when_its_caller_returns(database, tmp_path):
    failures: list[str] = []

    def work(worker: int) -> None:
        for k in range(6):
            name = f"w{worker}.{k}"
            put(database, name)
            if name not in as_after_a_crash(database, tmp_path / name):
                failures.append(name)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_a_change_that_nobody_waited_for_is_not(database, tmp_path):
    """The control of the test before: without waiting for the commit it finds what is missing."""
    put(database, "hasty", wait=False)
    assert "hasty" not in as_after_a_crash(database, tmp_path / "before")
    assert not database.rows("SELECT * FROM entry"), "and nobody reads what is not committed"
    put(database, "next")
    assert as_after_a_crash(database, tmp_path / "after") == {"hasty", "next"}


def test_what_nobody_waited_for_is_there_after_an_orderly_end(database):
    put(database, "hasty", wait=False)
    database.close()
    assert names(database.path) == {"hasty"}


def test_one_that_fails_takes_back_its_own_changes_only(database):
    told: list[str] = []

    def fail() -> None:
        try:
            with database.transaction() as writer:
                writer.execute("INSERT INTO entry VALUES ('gone')")
                raise ValueError("changed its mind")
        except ValueError as error:
            told.append(str(error))

    for k in range(3):
        together(database, [lambda k=k: put(database, f"a{k}"), fail, lambda k=k: put(database, f"b{k}")])
    assert told == ["changed its mind"] * 3
    assert names(database.path) == {f"{which}{k}" for which in "ab" for k in range(3)}


def test_a_commit_that_fails_is_told_to_all_and_changes_nothing(database):
    real, told = database._connection, []

    class Failing:
        def execute(self, statement, *values):
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return real.execute(statement, *values)

        def __getattr__(self, name):
            return getattr(real, name)

    def work(name: str) -> None:
        try:
            put(database, name)
        except CatalogDamaged as error:
            told.append(str(error))

    database._connection = Failing()
    together(database, [lambda k=k: work(f"n{k}") for k in range(8)])
    database._connection = real
    assert len(told) == 8
    assert names(database.path) == set()
    put(database, "again")
    assert names(database.path) == {"again"}


def test_where_sqlite_gives_up_everything_all_are_told(database):
    """A full disk in the middle of one caller's change may roll back those of the others in the batch."""
    told: list[type] = []

    def work(k: int) -> None:
        try:
            with database.transaction() as writer:
                writer.execute("INSERT INTO entry VALUES (?)", (f"n{k}",))
                if k == 5:
                    writer.execute("ROLLBACK")
                    raise sqlite3.OperationalError("database or disk is full")
        except Exception as error:
            told.append(type(error))

    together(database, [lambda k=k: work(k) for k in range(8)])
    assert len(told) + len(names(database.path)) == 8
    assert told, "at least the one that failed"
    assert names(database.path) == {row["name"] for row in database.rows("SELECT name FROM entry")}


def test_a_transaction_sees_its_own_changes_and_others_do_not(database):
    with database.transaction() as writer:
        writer.execute("INSERT INTO entry VALUES ('mine')")
        assert [row["name"] for row in database.rows("SELECT name FROM entry")] == ["mine"]
        with database.transaction() as inner:
            inner.execute("INSERT INTO entry VALUES ('inner')")
        seen: list[int] = []
        other = threading.Thread(target=lambda: seen.append(len(database.rows("SELECT name FROM entry"))))
        other.start()
        other.join(60)
        assert seen == [0]
    assert names(database.path) == {"mine", "inner"}
