"""The drain process killed at random, its targets cut off, gone, slow or full: right files, nothing evicted early."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from killing import Archives, DrainProcess, evicted_early
from s3_server import S3Server

from hiss import eviction
from hiss.drain_policy import DrainPolicy, DrainState, DrainTarget
from hiss.space import Retention
from hiss.testing.conformance import wait_for
from hiss.testing.processes import DataProcess

FAULTS = ("none", "cut", "gone", "full")
WAITING_MAX = 6  # entries; so that kills meet drains at work, not a backlog


@pytest.mark.parametrize(
    ("kills", "seed"), [pytest.param(8, 1, id="slice"), pytest.param(200, 2, id="200", marks=pytest.mark.torture)]
)
def test_a_drain_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, s3: S3Server, tally: Any, kills: int, seed: int
) -> None:
    counts, amid = dict.fromkeys(FAULTS, 0), 0
    with ExitStack() as stack:
        data = stack.enter_context(DataProcess(tmp_path / "data"))
        buffer = stack.enter_context(data.connect())
        archives = Archives(buffer.store, tmp_path / "archive", s3, seed)
        for collection, policy in archives.policies.items():
            buffer.collection(collection).retain(Retention(drained_s=0.0))
            buffer.store.set_drain_policy(collection, policy)
        process = stack.enter_context(DrainProcess(data.config, archives.options))
        for number in range(kills):
            if archives.waiting() < WAITING_MAX:
                archives.write(buffer, f"s{number}", (4, 150, 200))
            fault = FAULTS[number % len(FAULTS)]
            counts[fault] += 1
            archives.due_now()
            archives.cutting = fault == "cut"
            if fault == "gone":
                s3.stop()
            process.start(file_bytes=120_000 if fault == "full" else 0)
            archives.pause()
            process.end(signal.SIGKILL)
            amid += any(each.state is DrainState.RUNNING for each in buffer.store.drains())
            archives.cutting = False
            if fault == "gone":
                s3.start()
        process.start()
        wait_for(archives.all_done, 300)
        process.end(signal.SIGTERM)
        wait_for(lambda: all(buffer[path].info.eviction for path in archives.frames), 60)
        audit = archives.audit(buffer.store.events(0, threading.Event(), follow=False))
        archives.close()
        assert not list((data.config.data / "drain").glob("*")), "nothing is left on the way"
    failures = {f"targets_{name}": count for name, count in counts.items() if name != "none"}
    tally("drain", audit, kills=kills, amid_a_drain=amid, **failures, evictions=len(archives.frames))
    assert (audit.lost, audit.wrong, audit.unexplained, audit.early) == (0, 0, 0, [])


def test_the_drain_goes_on_when_the_data_process_comes_back(tmp_path: Path, s3: S3Server, tally: Any) -> None:
    with ExitStack() as stack:
        data = stack.enter_context(DataProcess(tmp_path / "data"))
        buffer = stack.enter_context(data.connect())
        archives = Archives(buffer.store, tmp_path / "archive", s3, 1)
        archives.policies = {"near": archives.policies["near"]}
        buffer.collection("near").drain_to(*archives.policies["near"].targets)
        archives.write(buffer, "s", (6, 200, 300))
        process = stack.enter_context(DrainProcess(data.config, archives.options))
        process.start()
        wait_for(lambda: any(each.state is DrainState.RUNNING for each in buffer.store.drains()), 60)
        data.kill()
        data.start()
        wait_for(archives.all_done, 120)
        process.end(signal.SIGTERM)
        audit = archives.audit(buffer.store.events(0, threading.Event(), follow=False))
        archives.close()
    tally("drain", audit, data_process_kills=1)
    assert (audit.lost, audit.wrong, audit.unexplained, audit.early) == (0, 0, 0, [])


@pytest.mark.control
def test_an_eviction_after_the_first_of_two_places_is_found(
    tmp_path: Path, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The protection is taken out: what is archived anywhere may go."""
    from test_worker import Place

    monkeypatch.setattr(eviction.Evictor, "_archived", lambda self: lambda info: bool(info.archives))
    place = Place(tmp_path)
    later = place.target("{collection}-{stream}.zarr", when="manual")
    policies = {"beam": DrainPolicy((place.target("{collection}-{stream}.nxs"), later))}
    place.policy("beam", *policies["beam"].targets)
    place.write("beam/s")
    place.work()
    place.buffer.evict("beam/s")
    events = list(place.store.events(0, threading.Event(), follow=False))
    place.node.close()
    assert evicted_early(events, policies) == ["beam/s"]
    tally.control("drain")


@pytest.mark.control
def test_a_drain_that_gives_its_file_a_name_at_once_is_found(
    tmp_path: Path, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other protection is taken out: the file has its name while it is written, and a kill leaves half of it."""
    from contextlib import contextmanager

    from test_worker import Place

    from hiss.drain import targets, verify_file

    @contextmanager
    def at_once(target: Path, **_: object) -> Any:
        yield target

    class Killed(BaseException):
        pass

    def killed(_: Path) -> None:
        raise Killed

    monkeypatch.setattr(targets, "published", at_once)
    place = Place(tmp_path)
    place.policy("beam", DrainTarget(f"{place.archive}/{{stream}}.nxs"))
    place.write("beam/s")
    monkeypatch.setattr("hiss.drain.nexus.add_contents", lambda *_: killed(Path()))
    with pytest.raises(Killed):
        place.worker.step()
    place.node.close()
    assert place.files() == {"s.nxs"}
    assert not verify_file(place.archive / "s.nxs").ok
    tally.control("drain")
