"""When and where policies drain: pure functions of their records."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiss import limits
from hiss.drain.compression import NAMES
from hiss.drain.draining import FORMATS
from hiss.drain.rate import Rate
from hiss.drain_policy import COMPRESSIONS, FORMS, Drain, DrainPolicy, DrainTarget, due_ns, entry, policy_of
from hiss.errors import InvalidInput

HOUR_NS = 3600 * 10**9


def test_policies_know_all_formats_and_compressions() -> None:
    assert set(FORMS) == {"auto", *FORMATS}
    assert set(COMPRESSIONS) == set(NAMES)


@given(final_ns=st.integers(0, 4 * 10**18), hour=st.integers(0, 23), minute=st.integers(0, 59))
def test_a_time_of_day_is_the_next_one(final_ns: int, hour: int, minute: int) -> None:
    due = due_ns(f"at {hour:02}:{minute:02}", final_ns)
    assert due is not None
    assert 0 < due - final_ns <= 24 * HOUR_NS
    clock = datetime.datetime.fromtimestamp(due / 1e9, datetime.UTC)
    assert (clock.hour, clock.minute) == (hour, minute)


@given(final_ns=st.integers(0, 4 * 10**18), hours=st.integers(1, 99))
def test_every_so_many_hours_is_the_next_multiple(final_ns: int, hours: int) -> None:
    due = due_ns(f"every {hours}h", final_ns)
    assert due is not None
    assert 0 < due - final_ns <= hours * HOUR_NS
    assert due % (hours * HOUR_NS) == 0


def test_other_times() -> None:
    assert due_ns("seal", 5) == 5
    assert due_ns("pressure", 5) is due_ns("manual", 5) is None
    for wrong in ("", "at 24:00", "at 7:00", "every 0h", "every 100h", "continuously", "at 02:30 "):
        with pytest.raises(InvalidInput, match="when"):
            due_ns(wrong, 0)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("relative/{stream}.nxs", {}), ("s3://", {}), ("s3://{collection}/x", {}), ("s3://bucket", {}), ("", {}),
        ("/a/{name}.nxs", {}), ("/a/{stream.nxs", {}), ("/a/../b.nxs", {}), ("/a/", {}), ("/a/\n.nxs", {}),
        ("/" + "a" * limits.DRAIN_URL_CHARS_MAX, {}), ("/a/{version}.nxs", {}), ("/a/all.npy", {}),
        ("/a/{stream}.x", {"form": "tiff"}), ("/a/{stream}.npy", {"compression": "gzip"}),
        ("/a/{stream}.x", {"compression": "lzma"}), ("/a/b.nxs", {"priority": 1001}),
        ("/a/b.nxs", {"bytes_per_s": -1}), ("/a/b.nxs", {"when": "sometimes"}),
    ],
)  # fmt: skip
def test_targets_that_make_no_sense(url: str, options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        DrainTarget(url, **options)  # type: ignore[arg-type]


def test_where_things_go() -> None:
    each = DrainTarget("/archive/{collection}/{stream}.nxs")
    assert each.place("beam/7", "proj", 1) == "/archive/beam/7/proj.nxs"
    assert each.place("beam/7", "proj", 2) == "/archive/beam/7/proj.v2.nxs"
    versioned = DrainTarget("s3://bucket//raw/{collection}/{version}/{stream}.zarr")
    assert versioned.place("beam/7", "proj", 2) == "s3://bucket/raw/beam/7/2/proj.zarr"
    whole = DrainTarget("/archive/{collection}.nxs")
    assert (whole.place("beam/7"), whole.of_streams) == ("/archive/beam/7.nxs", False)
    assert [DrainTarget(f"/a/{{stream}}{end}").bare for end in (".npy", ".nxs", ".zarr")] == [True, False, False]
    made = entry(each, "beam/7", "proj", 2, 9)
    assert (made.source, made.version, made.collection, made.due_ns) == ("beam/7/proj", 2, "beam/7", 9)
    assert made.id == entry(each, "beam/7", "proj", 2, 100).id != entry(each, "beam/7", "proj", 1, 9).id
    assert entry(whole, "beam/7", "", 0, 9).collection == "beam/7"


def test_the_nearest_policy_holds_and_travels_as_json() -> None:
    top = DrainPolicy((DrainTarget("/a/{stream}.nxs", priority=3, bytes_per_s=7, when="at 02:00"),))
    nowhere = DrainPolicy()
    own = {"beam": top, "beam/7": nowhere}
    assert policy_of("beam/8", own) == top
    assert policy_of("beam/7/x", own) == nowhere == policy_of("beams", own)
    assert DrainPolicy.from_json(top.to_json()) == top
    with pytest.raises(InvalidInput, match="once"):
        DrainPolicy((*top.targets, *top.targets))
    with pytest.raises(InvalidInput, match="at most"):
        DrainPolicy(tuple(DrainTarget(f"/{n}/{{stream}}") for n in range(limits.DRAIN_TARGETS_MAX + 1)))
    assert Drain("0", "a", 0, "/x", top.targets[0]).to_json()["state"] == "wanted"


@given(counts=st.lists(st.integers(1, 10_000), min_size=1, max_size=50), bytes_per_s=st.integers(1, 100_000))
def test_the_rate_is_kept_whatever_is_taken_at_once(counts: list[int], bytes_per_s: int) -> None:
    now_s = 0.0

    def wait(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    rate = Rate(bytes_per_s, wait, lambda: now_s)
    for count in counts:
        rate.take(count)
    least_s = sum(counts) / bytes_per_s - limits.DRAIN_BURST_S
    assert least_s - 1e-6 <= now_s <= max(0.0, least_s) + 1e-6
