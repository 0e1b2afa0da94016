"""What the catalog knows by heart is what its rows say, at every moment, and is gone before a row changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiss.blocks import Catalog
from hiss.blocks.fresh_streams import FreshStreams
from hiss.errors import AlreadyExists, HissError, StreamNotFound
from hiss.model import Completeness, LedgerEntry, StreamInfo, StreamState

from .bench_log import stream_info

WHOLE = Completeness(3, 30, 1, 0, 3, (LedgerEntry(2, 2, "enough", "vetoed"),))
STEPS = ("add", "staged", "amend", "seal", "abort", "fence", "stages", "delete", "commit", "discard", "fail", "clear")
_jobs = itertools.count()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    found = Catalog(tmp_path)
    yield found
    found.close()


def as_read(catalog: Catalog, stream_id: str) -> tuple[StreamInfo, str | None] | None:
    """What the rows say."""
    known, catalog._fresh._known = catalog._fresh._known, {}
    try:
        return catalog.stream_by_id(stream_id), catalog.attempt_of(stream_id)
    except StreamNotFound:
        return None
    finally:
        catalog._fresh._known = known


def differences(catalog: Catalog, ids: list[str]) -> list[str]:
    wrong = []
    for stream_id in ids:
        try:
            told = catalog.stream_by_id(stream_id), catalog.attempt_of(stream_id)
        except StreamNotFound:
            told = None
        if told != as_read(catalog, stream_id):
            wrong.append(stream_id)
    return wrong


def live(catalog: Catalog, steps: list[tuple[str, int]]) -> list[str]:
    """Do these; ids of streams of which something wrong was told after one of them."""
    ids: list[str] = []
    job = f"job{next(_jobs)}"
    catalog.create_collection("test/run", {}, [])
    catalog.delete_collection("test/run")
    catalog.create_collection("test/run", {}, [])
    for number, (step, choice) in enumerate(steps):
        one = ids[choice % len(ids)] if ids else ""
        info = replace(stream_info(f"s{number}"), attrs={"n": [number]} if number % 2 else {})
        try:
            if step in ("add", "staged"):
                attempt = f"{job}.{number % 2}" if step == "staged" else None
                ids.append(catalog.add_streams([info], new_version=False, attempt=attempt)[0].id)
            elif step == "fail":  # the second of them is refused, and the first goes with it
                ids.append(info.id)
                with pytest.raises(AlreadyExists):
                    catalog.add_streams([info, replace(info, id="f" * 32)], new_version=False, attempt=None)
            elif step == "amend":
                catalog.amend_stream(one, {"more": number})
            elif step in ("seal", "abort"):
                state = StreamState.SEALED if step == "seal" else StreamState.ABORTED
                final = catalog.finalise([one], state, {one: WHOLE}, {one: "00ff" * 4}, "why")
                if final != [catalog.stream_by_id(one)]:
                    return [one]
            elif step == "stages":
                catalog.set_stages(one, [], [])
            elif step == "fence":
                catalog.fence(one)
            elif step == "delete":
                catalog.delete_stream(one)
            elif step == "commit":
                catalog.commit_attempt(f"{job}.{choice % 2}", "job.done", {})
            elif step == "discard":
                catalog.discard_attempt(f"{job}.{choice % 2}")
            else:
                catalog.delete_collection("test/run")
                catalog.create_collection("test/run", {}, [])
        except HissError:
            pass  # of a stream that is final, or gone
        wrong = differences(catalog, ids)
        if wrong:
            return wrong
    return []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 7)), max_size=12))
def test_it_says_what_the_rows_say(catalog: Catalog, steps: list[tuple[str, int]]) -> None:
    assert live(catalog, steps) == []


def test_open_streams_are_known_and_final_ones_are_not(catalog: Catalog) -> None:
    catalog.create_collection("test/run", {}, [])
    info = catalog.add_streams([stream_info("s")], new_version=False, attempt=None)[0]
    assert list(catalog._fresh._known) == [info.id]
    told = catalog.stream_by_id(info.id)
    told.attrs["of the caller"] = 1  # type: ignore[index]
    assert catalog.stream_by_id(info.id) == info
    catalog.finalise([info.id], StreamState.SEALED, {info.id: WHOLE}, {info.id: "00ff" * 4})
    assert not catalog._fresh._known


@pytest.mark.control
@pytest.mark.parametrize("step", ["amend", "seal", "delete", "clear", "discard"])
def test_control_without_forgetting_something_old_is_told(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(FreshStreams, "changed", lambda *_: None)
    assert live(catalog, [("staged" if step == "discard" else "add", 0), (step, 0)])
