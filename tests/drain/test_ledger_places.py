"""One stream that lacks blocks for every reason there is, and its ledger in every place that has to have it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import hiss
from hiss.cli.main import root
from hiss.drain import drain
from hiss.gathering import GapRange
from hiss.limits import MiB
from hiss.model import BlockStatus, LedgerEntry
from hiss.testing.conformance import bright, double, frames

PLACES = {  # index: what becomes of it; 30 and 31 are beyond the last block and were announced by the total
    3: "vetoed", 4: "vetoed", 7: "never received", 8: "never received", 10: "declared missing", 12: "shed",
    14: "shed: drop", 15: "shed: drop", 17: "shed: prescale", 30: "never received", 31: "never received",
}  # fmt: skip
STAGE = {"vetoed": "bright", "never received": "transport"}
LEDGER = [
    (3, 4, "bright", "vetoed"),
    (7, 8, "transport", "never received"),
    (10, 10, "producer", "declared missing"),
    (12, 12, "producer", "shed"),
    (14, 15, "producer", "shed: drop"),
    (17, 17, "producer", "shed: prescale"),
    (30, 31, "transport", "never received"),
]


def opened(data: Path) -> hiss.Buffer:
    return hiss.open(data, arena_bytes=16 * MiB, segment_bytes=16 * MiB, backend="numpy")


def write(buffer: hiss.Buffer, name: str, *, abort: bool = False) -> None:
    """The stream, each block by the way that its fate asks for."""
    s = buffer.collection("scan").create_stream(
        name, dtype="uint16", shape=(4, 6), kernels=[bright.bind(least=1), double]
    )
    by_hand = {"declared missing": False, "shed": True}
    policies = {"shed: drop": BlockStatus.DROPPED, "shed: prescale": BlockStatus.PRESCALED}
    for index, frame in enumerate(frames(30)):
        fate = PLACES.get(index)
        if fate in by_hand:
            s.gap(index, index, shed=by_hand[fate])
        elif fate in policies:
            with s._cond:
                s._declare(GapRange(index, index, policies[fate]))
        elif fate != "never received":
            s.append(frame * (fate != "vetoed") + (fate is None), index=index)
    if abort:
        s.abort("the beam was lost")
    else:
        s.seal(end_index=32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was closed since."""
    data = tmp_path_factory.mktemp("ledger") / "data"
    with opened(data) as buffer:
        write(buffer, "s")
        write(buffer, "given-up", abort=True)
    return data


@pytest.fixture
def buffer(data: Path) -> Iterator[hiss.Buffer]:
    with opened(data) as buffer:
        yield buffer


def rows(entries: tuple[LedgerEntry, ...]) -> list[tuple[int, int, str, str]]:
    return [(entry.first, entry.last, entry.stage, entry.reason) for entry in entries]


def test_with_the_stream(buffer: hiss.Buffer) -> None:
    whole = buffer["scan/s"].info.completeness
    assert rows(whole.ledger) == LEDGER
    assert (whole.gaps, whole.blocks) == (len(PLACES), 32 - len(PLACES))
    assert rows(buffer["scan/given-up"].ledger) == LEDGER[:-1], "an aborted stream has its ledger too"


def test_in_the_completion_event(buffer: hiss.Buffer) -> None:
    events = list(buffer.store.events(0, threading.Event(), follow=False))
    found = {event.path: event for event in events if event.kind in ("stream.sealed", "stream.aborted")}
    sealed, aborted = found["scan/s"], found["scan/given-up"]
    assert [tuple(row) for row in sealed.data["ledger"]] == LEDGER
    assert (sealed.data["complete"], sealed.data["gaps"]) == (False, len(PLACES))
    assert [tuple(row) for row in aborted.data["ledger"]] == LEDGER[:-1]


def test_in_stat(data: Path) -> None:
    said = CliRunner().invoke(root, ["stat", "scan/s", "--data", str(data), "--json"]).stdout
    ledger = json.loads(said)["completeness"]["ledger"]
    assert [(row["first"], row["last"], row["stage"], row["reason"]) for row in ledger] == LEDGER
    text = CliRunner().invoke(root, ["stat", "scan/s", "--data", str(data)]).stdout
    for first, last, stage, reason in LEDGER:
        assert f"{first if first == last else f'{first} to {last}'}: {reason} ({stage})" in text


def test_in_the_nexus_file(buffer: hiss.Buffer, tmp_path: Path) -> None:
    drain(buffer.store, "scan/s", tmp_path / "s.nxs")
    with h5py.File(tmp_path / "s.nxs") as file:
        ledger = file["entry/hiss/s/ledger"]
        found = zip(
            ledger["first"][()].tolist(),
            ledger["last"][()].tolist(),
            ledger["stage"].asstr()[()],
            ledger["reason"].asstr()[()],
            strict=True,
        )
        assert list(found) == LEDGER
        assert file["entry/hiss/s/gaps"][()] == len(PLACES)


def test_in_the_zarr_directory(buffer: hiss.Buffer, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed: pip install 'hiss[zarr]'")
    drain(buffer.store, "scan/s", tmp_path / "s.zarr")
    record = zarr.open_group(tmp_path / "s.zarr", mode="r")["s"].attrs["hiss"]
    assert [tuple(row) for row in record["ledger"]] == LEDGER
    assert record["gaps"] == len(PLACES)


def test_to_whoever_asks_for_a_block(buffer: hiss.Buffer) -> None:
    stream = buffer["scan/s"]
    for index, reason in PLACES.items():
        with pytest.raises(hiss.errors.BlockMissing) as caught:
            stream[index]
        assert caught.value.details["reason"] == f"{reason} ({STAGE.get(reason, 'producer')})"
    assert np.array_equal(stream[0], (frames(30)[0] + 1) * 2)
