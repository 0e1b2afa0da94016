"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from s3_server import S3Server

# the machine may be busy: how long an example takes says nothing
settings.register_profile("hiss", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hiss")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real instrument data; tests that need it are skipped where it is missing."""
    folder = Path(os.environ.get("HISS_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no instrument data at {folder}; set HISS_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'hiss[s3]'")
    pytest.importorskip("moto", reason="moto is not installed")
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    """An S3 endpoint over HTTP, empty at the beginning and at the end."""
    s3_server.clear()  # of what those left who share the server
    yield s3_server
    s3_server.clear()


@pytest.fixture(autouse=True)
def no_region_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever closes a storage has given back all of its arena: a region that is still owned is a leak."""
    from hiss.blocks import Storage

    closed: list[Storage] = []
    close = Storage.close

    def closing(storage: Storage) -> None:
        close(storage)
        closed.append(storage)

    monkeypatch.setattr(Storage, "close", closing)
    yield
    for storage in closed:
        assert not storage.arena.live(), f"{storage.directory}: regions that nobody released: {storage.arena.live()}"


class Tally:
    """Counts of the runs that break things, for the table at the end: what was done, and what was broken by it."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, int]] = {}
        self.controls: dict[str, int] = {}

    def __call__(self, part: str, audit: Any = None, **counts: int) -> None:
        """Add to one part: `audit` has `acknowledged`, `lost`, `duplicates`, `wrong` and `unexplained`."""
        row = self.parts.setdefault(part, {})
        for name in AUDITED:
            row[name] = row.get(name, 0) + (getattr(audit, name) if audit is not None else 0)
        for name, count in counts.items():
            row[name] = row.get(name, 0) + count

    def control(self, part: str) -> None:
        """A protection was taken out, and the run failed as it must."""
        self.controls[part] = self.controls.get(part, 0) + 1


AUDITED = ("acknowledged", "lost", "duplicates", "wrong", "unexplained")
_TALLY = Tally()


@pytest.fixture(scope="session")
def tally() -> Tally:
    return _TALLY


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where several processes run the tests, each hands on what it counted."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tally"] = {"parts": _TALLY.parts, "controls": _TALLY.controls}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """A process has ended: its counts join the others."""
    counted = getattr(node, "workeroutput", {}).get("tally", {"parts": {}, "controls": {}})
    for part, row in counted["parts"].items():
        _TALLY(part, None, **row)
    for part, count in counted["controls"].items():
        _TALLY.controls[part] = _TALLY.controls.get(part, 0) + count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was broken on purpose, and what came of it."""
    if not _TALLY.parts and not _TALLY.controls:
        return
    terminalreporter.section("what was broken, and what came of it")
    totals = dict.fromkeys(AUDITED, 0)
    for part in dict.fromkeys([*_TALLY.parts, *_TALLY.controls]):
        row = _TALLY.parts.get(part, dict.fromkeys(AUDITED, 0))
        done = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in row.items() if name not in AUDITED)
        controls = _TALLY.controls.get(part, 0)
        failed = f"; controls that failed as they must: {controls}" if controls else ""
        broken = " / ".join(str(row[name]) for name in AUDITED[1:])
        terminalreporter.write_line(f"{part:24} {done}; acknowledged {row['acknowledged']:,}; broken {broken}{failed}")
        for name in AUDITED:
            totals[name] += row[name]
    terminalreporter.write_line(
        f"acknowledged blocks {totals['acknowledged']:,}: lost {totals['lost']}, duplicates {totals['duplicates']}, "
        f"wrong bytes {totals['wrong']}, unexplained gaps {totals['unexplained']}; controls failed as they must: "
        f"{sum(_TALLY.controls.values())}"
    )
