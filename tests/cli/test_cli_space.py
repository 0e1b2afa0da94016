"""`hiss reserve`, `retention`, `evict`, and what `drain`, `stat`, `ls` and `verify` tell of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

FRAMES = np.random.default_rng(5).integers(0, 60000, (5, 4, 6), np.uint16)


@pytest.fixture
def scan(hiss):
    np.save("frames.npy", FRAMES)
    for path in ("beam/scan1/a", "beam/scan2/b"):
        assert hiss("put", "frames.npy", path).status == 0
    return hiss


def test_reserve_list_release(scan) -> None:
    made = scan("reserve", "beam/scan1", "20MB", "--hours", "8", "--json")
    assert made.status == 0, made.err
    assert (made.json["collection"], made.json["bytes"]) == ("beam/scan1", 20_000_000)
    (listed,) = scan("reserve", "--list", "--json").json
    assert listed["id"] == made.json["id"]
    assert listed["used_bytes"] == 0
    assert "20 MB" in scan("reserve", "--list").out
    assert "0 B of 20 MB" in scan("ls").out
    assert "0 B of 20 MB used, until" in scan("stat", "beam/scan1").out
    assert scan("stat", "beam/scan1", "--json").json["reservation"]["id"] == listed["id"]
    assert "20 MB, 0 B of it used" in scan("status").out
    assert scan("put", "frames.npy", "beam/scan1/c").status == 0
    assert scan("reserve", "--list", "--json").json[0]["used_bytes"] == 4096
    assert scan("reserve", "beam/scan1", "1MB", "--hours", "1").status == 4
    assert scan("reserve", "--release", listed["id"]).status == 0
    assert scan("reserve", "--list", "--json").json == []
    assert scan("reserve", "--release", listed["id"]).status == 3


def test_a_refusal_has_its_figures_and_its_status(scan) -> None:
    said = scan("reserve", "beam/scan1", "4 PB", "--hours", "1")
    assert said.status == 6
    assert "are free on the disk" in said.err


@pytest.mark.parametrize(
    "words",
    [(), ("beam/scan1",), ("beam/scan1", "1GB"), ("beam/scan1", "big", "--hours", "1"), ("--list", "--release", "x")],
)
def test_a_half_said_reservation_is_wrong_usage(scan, words: tuple[str, ...]) -> None:
    assert scan("reserve", *words).status == 2


def test_retention_is_shown_and_changed(scan) -> None:
    said = scan("retention", "beam/scan1", "--age-hours", "24", "--undrained", "--json")
    assert (said.json["age_s"], said.json["undrained"], said.json["drained_s"]) == (86400, True, None)
    assert "after 24 h" in scan("retention", "beam/scan1").out
    assert "never" in scan("retention", "beam/scan2").out
    assert scan("retention", "beam/scan1", "--age-hours", "-1", "--json").json["age_s"] is None
    assert scan("retention", "beam/scan1", "--default", "--json").json["undrained"] is False
    assert scan("retention", "--age-hours", "1").status == 2
    assert scan("retention").status == 0


def test_what_was_drained_may_be_evicted_and_is_told_where_it_is(scan) -> None:
    assert scan("evict", "beam/scan1/a", "-y").status == 4, "it is archived nowhere"
    assert scan("drain", "beam/scan1/a", "bare.npy", "--json").json["recorded"] is False
    assert scan("evict", "beam/scan1/a", "-y").status == 4, "a bare file is no archive"
    assert scan("drain", "beam/scan1", "scan.nxs", "--json").json["recorded"] is True
    where = f"{Path('scan.nxs').absolute()}::/entry/"
    (archive,) = scan("stat", "beam/scan1/a", "--json").json["archives"]
    assert archive["location"].startswith(where)
    assert where in scan("stat", "beam/scan1/a").out
    assert "sealed, archived" in scan("ls", "beam/scan1").out
    assert scan("evict", "beam/scan1/a", "-n", "--json").json["streams"][0]["policy"] == "request"
    before = scan("get", "beam/scan1/a", "-", "--format", "raw")
    assert before.status == 0
    assert scan("evict", "beam/scan1/a", "-y").status == 0
    assert "by policy request" in scan("stat", "beam/scan1/a").out
    assert "sealed, evicted" in scan("ls", "beam/scan1").out
    assert scan("get", "beam/scan1/a", "-", "--format", "raw").out == before.out, "read from its archive"
    Path("scan.nxs").rename("elsewhere.nxs")
    said = scan("get", "beam/scan1/a", "-", "--format", "raw")
    assert (said.status, where in said.err) == (5, True)
    Path("elsewhere.nxs").rename("scan.nxs")
    verified = scan("verify", "beam", "--json")
    assert verified.status == 0
    assert [(stream["path"], stream["state"]) for stream in verified.json["streams"]] == [
        ("beam/scan1/a", "evicted"),
        ("beam/scan2/b", "sealed"),
    ]
    assert scan("verify", "scan.nxs", embedded=False).status == 0
    assert scan("evict", "--json").json["streams"] == []


def test_a_drain_that_fails_is_no_archive(scan, monkeypatch: pytest.MonkeyPatch) -> None:
    from hiss.drain.nexus import Nexus
    from hiss.errors import BlockDamaged

    def broken(*_: object) -> None:
        raise BlockDamaged("read back wrong")

    monkeypatch.setattr(Nexus, "compare", broken)
    assert scan("drain", "beam/scan1", "scan.nxs").status == 7
    assert scan("stat", "beam/scan1/a", "--json").json["archives"] == []
