"""The catalog: names and versions, what becomes final and its events, attempts of jobs, kernels and arrays."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hiss.blocks import Catalog
from hiss.blocks.catalog_rows import dumps
from hiss.errors import (
    AlreadyExists,
    CatalogDamaged,
    CollectionNotFound,
    CollectionSealed,
    Conflict,
    InvalidInput,
    KernelNotFound,
    LimitExceeded,
    NotFound,
    StreamFinal,
    StreamNotFinal,
    StreamNotFound,
)
from hiss.limits import EVENT_DATA_BYTES_MAX
from hiss.model import (
    AckLevel,
    Column,
    Completeness,
    FrameSpec,
    Keep,
    KernelDef,
    KernelInfo,
    KernelKind,
    LedgerEntry,
    StageInfo,
    StreamState,
)

from .bench_log import stream_info

WHOLE = Completeness(3, 30, 1, 0, 3, (LedgerEntry(2, 2, "enough", "vetoed"),))


@pytest.fixture
def catalog(tmp_path):
    ticks = iter(range(1_000, 10_000_000))
    found = Catalog(tmp_path, clock_ns=lambda: next(ticks))
    found.create_collection("test/run", {}, [])
    yield found
    found.close()


def add(catalog, name="s", *, new_version=False, attempt=None):
    return catalog.add_streams([stream_info(name)], new_version=new_version, attempt=attempt)[0]


def seal(catalog, *infos, state=StreamState.SEALED, whole=WHOLE, reason=""):
    ids = [info.id for info in infos]
    catalog.finalise(ids, state, dict.fromkeys(ids, whole), dict.fromkeys(ids, "00ff" * 4), reason)


def kinds(catalog, after=0):
    return [(event.kind, event.path) for event in catalog.events_after(after, 100)]


def test_counts_are_of_what_everybody_sees(catalog):
    """Newest versions, without raw companions and what an attempt has not published."""
    assert catalog.counts() == (1, 0, 0)
    main = stream_info("proj")
    catalog.add_streams([main, replace(stream_info("proj.raw"), raw_of=main.id)], new_version=False, attempt=None)
    first = add(catalog, "s")
    seal(catalog, first)
    assert catalog.counts() == (1, 2, 1)
    again = add(catalog, "s", new_version=True)
    staged = add(catalog, "s", new_version=True, attempt="j.1")
    add(catalog, "t", attempt="j.1")
    assert catalog.counts() == (1, 2, 2), "the new version is open, what is staged does not count"
    seal(catalog, again)
    seal(catalog, staged)
    catalog.create_collection("test/other", {}, [])
    assert catalog.counts() == (2, 2, 1)


class Interrupted:
    """A connection with Ctrl-C at its next commit: before it, or when it is done."""

    def __init__(self, connection: sqlite3.Connection, *, done: bool) -> None:
        self._connection, self._done = connection, done

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, statement, *values):
        if statement != "COMMIT" or self._done is None:
            return self._connection.execute(statement, *values)
        done, self._done = self._done, None
        if done:
            self._connection.execute(statement, *values)
        raise KeyboardInterrupt


@pytest.mark.parametrize("done", [False, True])
def test_ctrl_c_in_a_commit_leaves_nobody_waiting(catalog, done):
    database = catalog._database
    database._connection = Interrupted(database._connection, done=done)
    with pytest.raises(KeyboardInterrupt):
        catalog.create_collection("test/second", {}, [])
    assert [info.path for info in catalog.collections()] == ["test/run"] + ["test/second"] * done
    after = threading.Thread(target=catalog.create_collection, args=("test/third", {}, []), daemon=True)
    after.start()
    after.join(60)
    assert not after.is_alive()
    assert catalog.collection("test/third").path == "test/third"


def test_ctrl_c_of_whoever_leads_commits_what_others_wait_for(catalog, monkeypatch):
    """The leader is interrupted while he waits for one that is about to join."""
    database = catalog._database
    with database._arriving_lock:
        database._arriving += 1

    def wait():
        database._arriving = 0
        raise KeyboardInterrupt

    monkeypatch.setattr(database.lock, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        catalog.create_collection("test/second", {}, [])
    monkeypatch.undo()
    catalog.create_collection("test/third", {}, [])
    assert [info.path for info in catalog.collections()] == ["test/run", "test/second", "test/third"]


def test_a_stream_comes_back_as_it_was_given(catalog, tmp_path):
    params = {"dark": {"array": "ab", "dtype": "<f4", "shape": [2]}, "least": {"scalar": 50, "dtype": None}}
    stage = StageInfo("enough", KernelKind.FILTER, "ff" * 8, "def enough(frame): ...", params, 1.5)
    info = replace(
        stream_info("proj"),
        frame=FrameSpec("uint16", (None, 3)),
        columns=(Column("angle", "f8", "deg"), Column("id", "S4")),
        ack=AckLevel.WRITTEN,
        keep=Keep.BOTH,
        attrs={"sample": "foam", "nested": {"a": [1, None]}},
        stages=(stage,),
        raw_id="0" * 32,
        produced_by="job",
    )
    raw = replace(stream_info("proj.raw"), id="0" * 32, raw_of=info.id)
    added = catalog.add_streams([info, raw], new_version=False, attempt=None)
    assert added == [info, raw]
    assert catalog.stream("test/run/proj") == info
    assert catalog.stream_by_id(raw.id) == raw
    catalog.close()
    again = Catalog(tmp_path)
    assert again.node == catalog.node
    assert len(again.node) == 12
    assert again.salt == catalog.salt
    assert again.streams("test/run") == [info, raw]
    again.close()


def test_versions(catalog):
    first = add(catalog)
    with pytest.raises(AlreadyExists, match="new_version"):
        add(catalog)
    second = add(catalog, new_version=True)
    assert (first.version, second.version) == (1, 2)
    assert catalog.stream("test/run/s") == second
    assert catalog.stream("test/run/s", 1) == first
    assert catalog.streams("test/run") == [second]
    assert catalog.streams("test/run", all_versions=True) == [first, second]
    with pytest.raises(StreamNotFound, match="version 3"):
        catalog.stream("test/run/s", 3)
    catalog.delete_stream(first.id)
    with pytest.raises(StreamNotFound):
        catalog.delete_stream(first.id)
    catalog.delete_stream(first.id, missing_ok=True)
    assert add(catalog, new_version=True).version == 3


def test_a_stream_and_its_companion_enter_together_or_not_at_all(catalog):
    add(catalog, "s.raw")
    with pytest.raises(AlreadyExists):
        catalog.add_streams([stream_info("s"), stream_info("s.raw")], new_version=False, attempt=None)
    assert [info.name for info in catalog.streams("test/run")] == ["s.raw"]


def test_collections(catalog):
    catalog.create_collection("test/other", {"a": 1}, ["x"])
    info = catalog.create_collection("test/other", {"b": 2, "a": 3}, ["y", "x"])
    assert (info.attrs, info.expect) == ({"a": 3, "b": 2}, ("x", "y"))
    assert [found.path for found in catalog.collections()] == ["test/other", "test/run"]
    assert [found.path for found in catalog.collections("test/r")] == ["test/run"]
    assert catalog.collections("%") == []
    with pytest.raises(CollectionNotFound):
        catalog.collection("no")
    with pytest.raises(CollectionNotFound):
        catalog.streams("no")
    with pytest.raises(CollectionNotFound):
        catalog.add_streams([replace(stream_info(), collection="no")], new_version=False, attempt=None)
    with pytest.raises(StreamNotFound, match="m2"):
        add(catalog, "m1"), catalog.join("test/run", "det", ["m1", "m2"])
    add(catalog, "m2")
    assert catalog.join("test/run", "det", ["m2", "m1"]).joins == {"det": ("m2", "m1")}
    ids = catalog.delete_collection("test/run")
    assert len(ids) == 2
    with pytest.raises(StreamNotFound):
        catalog.stream_by_id(ids[0])
    with pytest.raises(CollectionNotFound):
        catalog.collection("test/run")


def test_a_stream_becomes_final_with_its_event(catalog):
    main, raw = stream_info("proj"), stream_info("proj.raw")
    main, raw = replace(main, raw_id=raw.id, attrs={"k": 1}), replace(raw, raw_of=main.id)
    catalog.add_streams([main, raw], new_version=False, attempt=None)
    assert [info.id for info in catalog.open_streams()] == [main.id, raw.id]
    seal(catalog, main, raw)
    for info in (main, raw):
        found = catalog.stream_by_id(info.id)
        assert (found.state, found.completeness, found.digest) == (StreamState.SEALED, WHOLE, "00ff" * 4)
        assert found.final_ns > 0
    assert catalog.open_streams() == []
    (event,) = catalog.events_after(0, 10)
    assert (event.kind, event.path, event.version) == ("stream.sealed", "test/run/proj", 1)
    assert event.id == f"{catalog.node}-{event.seq}"
    assert event.data["id"] == main.id
    assert event.data["raw_id"] == raw.id
    assert (event.data["blocks"], event.data["gaps"], event.data["complete"]) == (3, 1, False)
    assert event.data["ledger"] == [[2, 2, "enough", "vetoed"]]
    assert event.data["attrs"] == {"k": 1}
    with pytest.raises(StreamFinal):
        seal(catalog, main)
    with pytest.raises(StreamFinal):
        catalog.amend_stream(main.id, {"x": 1})
    assert len(kinds(catalog)) == 1


def test_what_does_not_become_final_together_changes_nothing(catalog):
    one, two = add(catalog, "one"), add(catalog, "two")
    seal(catalog, two)
    seen = len(kinds(catalog))
    with pytest.raises(StreamFinal):
        seal(catalog, one, two)
    assert not catalog.stream_by_id(one.id).state.final
    assert len(kinds(catalog)) == seen


def test_seal_and_event_are_one_transaction(catalog, tmp_path, monkeypatch):
    """Where the event cannot be written, the stream is not sealed: another reader of the file sees all or nothing."""
    info = add(catalog)
    monkeypatch.setattr(catalog, "_insert_event", lambda *_: (_ for _ in ()).throw(RuntimeError("power")))
    with pytest.raises(RuntimeError):
        seal(catalog, info)
    monkeypatch.undo()
    other = sqlite3.connect(tmp_path / "catalog.db")
    assert other.execute("SELECT state FROM stream").fetchall() == [(1,)]
    assert other.execute("SELECT count(*) FROM event").fetchone() == (0,)
    seal(catalog, info)
    assert other.execute("SELECT state FROM stream").fetchall() == [(2,)]
    assert other.execute("SELECT count(*) FROM event").fetchone() == (1,)
    other.close()


def test_an_abort_says_why(catalog):
    info = add(catalog)
    seal(catalog, info, state=StreamState.ABORTED, reason="beam lost")
    assert catalog.stream_by_id(info.id).abort_reason == "beam lost"
    (event,) = catalog.events_after(0, 10)
    assert (event.kind, event.data["reason"]) == ("stream.aborted", "beam lost")


def test_a_collection_is_sealed_when_all_that_it_expects_is_final(catalog):
    catalog.create_collection("test/run", {"sample": "foam"}, ["a", "b"])
    a = add(catalog, "a")
    seal(catalog, a)
    b = add(catalog, "b")
    assert not catalog.collection("test/run").sealed
    seal(catalog, b)
    assert catalog.collection("test/run").sealed
    events = catalog.events_after(0, 10)
    assert [event.kind for event in events] == ["stream.sealed", "stream.sealed", "collection.sealed"]
    assert (events[-1].path, events[-1].stream) == ("test/run", "")
    assert events[-1].data["attrs"] == {"sample": "foam"}
    with pytest.raises(CollectionSealed):
        add(catalog, "c")
    catalog.seal_collection("test/run")
    assert len(kinds(catalog)) == 3


def test_a_collection_is_sealed_by_hand(catalog):
    info = add(catalog)
    with pytest.raises(StreamNotFinal, match="test/run/s"):
        catalog.seal_collection("test/run")
    seal(catalog, info)
    assert catalog.seal_collection("test/run").sealed
    assert [kind for kind, _ in kinds(catalog)] == ["stream.sealed", "collection.sealed"]


def test_events_are_bounded_and_say_what_was_cut(catalog):
    ledger = tuple(LedgerEntry(3 * k, 3 * k, "transport", "never received") for k in range(20_000))
    info = add(catalog)
    seal(catalog, info, whole=Completeness(1, 1, 20_000, 0, 60_000, ledger))
    (event,) = catalog.events_after(0, 10)
    assert len(dumps(event.data)) <= EVENT_DATA_BYTES_MAX
    assert event.data["gaps"] == 20_000
    assert 100 < len(event.data["ledger"]) < 20_000
    assert "of 20000 entries" in event.data["note"]
    assert len(catalog.stream_by_id(info.id).completeness.ledger) == 20_000
    fat = add(catalog, "fat")
    catalog.amend_stream(fat.id, {"text": "x" * 200_000})
    seal(catalog, fat)
    event = catalog.events_after(event.seq, 10)[0]
    assert event.data["attrs"] == {}
    assert "attrs left out" in event.data["note"]
    with pytest.raises(LimitExceeded):
        catalog.add_event("job.finished", "", "", 0, {"text": "x" * EVENT_DATA_BYTES_MAX})


def test_events_are_waited_for(catalog):
    assert not catalog.wait_events(0, 0.0)
    seen = []
    waiter = threading.Thread(target=lambda: seen.append(catalog.wait_events(0, 60)))
    waiter.start()
    event = catalog.add_event("stream.stalled", "test/run", "s", 1, {"for_s": 3})
    waiter.join(60)
    assert seen == [True]
    assert catalog.events_after(0, 10) == [event]
    assert not catalog.wait_events(event.seq, 0.0)
    more = [catalog.add_event("x", "", "", 0, {"k": k}) for k in range(5)]
    assert catalog.events_after(event.seq, 3) == more[:3]


def test_a_quarantined_stage(catalog):
    stages = tuple(StageInfo(name, KernelKind.MAP, name * 4, "", {}, 1.0) for name in "ab")
    (info,) = catalog.add_streams([replace(stream_info(), stages=stages)], new_version=False, attempt=None)
    catalog.set_stage(info.id, 1, quarantined=True)
    assert [stage.quarantined for stage in catalog.stream_by_id(info.id).stages] == [False, True]
    (event,) = catalog.events_after(0, 10)
    assert (event.kind, event.path) == ("kernel.quarantined", "test/run/s")
    assert event.data == {"id": info.id, "kernel": "b", "hash": "bbbb", "stage": 1}


def test_attributes_are_merged(catalog):
    info = add(catalog)
    catalog.amend_stream(info.id, {"a": 1, "b": 2})
    assert catalog.amend_stream(info.id, {"a": 3}).attrs == {"a": 3, "b": 2}


def test_fencing_counts_up_and_survives(catalog, tmp_path):
    info = add(catalog)
    assert [catalog.fence(info.id) for _ in range(3)] == [1, 2, 3]
    catalog.close()
    again = Catalog(tmp_path)
    assert again.fence(info.id) == 4
    with pytest.raises(StreamNotFound):
        again.fence("0" * 32)
    again.close()


def test_kernels(catalog):
    def kernel(name, hash_, source, at):
        return KernelInfo(KernelDef(name, KernelKind.MAP, source), hash_, at)

    first, second = kernel("flat", "aa", "one", 1), kernel("flat", "bb", "two", 2)
    assert catalog.put_kernel(first) == first
    assert catalog.put_kernel(second) == second
    assert catalog.kernel("flat") == second
    assert catalog.kernel("aa") == first
    assert catalog.put_kernel(kernel("flat", "aa", "one", 9)) == first, "it keeps its first time"
    assert catalog.kernel("flat") == first, "and is the newest of its name again"
    assert catalog.kernels() == [second, first]
    with pytest.raises(KernelNotFound):
        catalog.kernel("none")


def test_arrays_are_stored_once_and_checked(catalog, tmp_path):
    array = np.arange(12, dtype="<f4").reshape(3, 4)
    digest = catalog.put_array(array)
    assert catalog.put_array(array.copy()) == digest
    assert catalog.put_array(array.T) != digest
    found = catalog.array(digest)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert catalog.array(catalog.put_array(np.float64(3.5))).shape == ()
    assert np.array_equal(catalog.array(catalog.put_array(array.T)), array.T)
    with pytest.raises(InvalidInput, match="objects"):
        catalog.put_array(np.array([object()]))
    for bad in ("00" * 16, "../../etc/passwd", ""):
        with pytest.raises(NotFound):
            catalog.array(bad)
    path = Path(tmp_path) / "arrays" / f"{digest}.npy"
    for position in range(0, path.stat().st_size, 7):
        data = bytearray(path.read_bytes())
        data[position] ^= 0x20
        path.write_bytes(data)
        with pytest.raises(CatalogDamaged):
            catalog.array(digest)
        data[position] ^= 0x20
        path.write_bytes(data)
    assert np.array_equal(catalog.array(digest), array)


# ---- attempts


def test_what_an_attempt_writes_is_seen_by_nobody_else_until_it_commits(catalog):
    catalog.create_collection("test/run", {}, ["result"])
    out = add(catalog, "result", attempt="j.1")
    with pytest.raises(StreamNotFound):
        catalog.stream("test/run/result")
    with pytest.raises(StreamNotFound):
        catalog.stream("test/run/result", attempt="j.2")
    assert catalog.stream("test/run/result", attempt="j.1") == out
    assert catalog.stream_by_id(out.id) == out
    assert catalog.streams("test/run") == []
    assert catalog.streams("test/run", attempt="j.1") == [out]
    assert catalog.collection("test/run").streams == ()
    assert catalog.attempt_state("j.1") == "open"
    with pytest.raises(StreamNotFinal):
        catalog.commit_attempt("j.1", "job.finished", {})
    seal(catalog, out)
    assert kinds(catalog) == []
    (ref,) = catalog.commit_attempt("j.1", "job.finished", {"job": "j"})
    assert (ref.id, ref.path, ref.version, ref.digest) == (out.id, "test/run/result", 1, "00ff" * 4)
    assert [kind for kind, _ in kinds(catalog)] == ["stream.sealed", "collection.sealed", "job.finished"]
    assert catalog.stream("test/run/result").state is StreamState.SEALED
    assert catalog.collection("test/run").sealed
    assert catalog.attempt_state("j.1") == "committed"


def test_committing_twice_changes_nothing(catalog):
    seal(catalog, add(catalog, attempt="j.1"))
    first = catalog.commit_attempt("j.1", "job.finished", {"n": 1})
    events = catalog.events_after(0, 100)
    assert catalog.commit_attempt("j.1", "job.finished", {"n": 2}) == first
    assert catalog.events_after(0, 100) == events
    with pytest.raises(Conflict, match="committed"):
        catalog.discard_attempt("j.1")
    with pytest.raises(Conflict, match="committed"):
        add(catalog, "late", attempt="j.1")


def test_a_commit_that_fails_half_way_publishes_nothing(catalog):
    seal(catalog, add(catalog, attempt="j.1"))
    with pytest.raises(LimitExceeded):
        catalog.commit_attempt("j.1", "job.finished", {"text": "x" * EVENT_DATA_BYTES_MAX})
    assert catalog.streams("test/run") == []
    assert kinds(catalog) == []
    assert catalog.attempt_state("j.1") == "open"
    assert len(catalog.commit_attempt("j.1", "job.finished", {})) == 1


def test_an_attempt_that_wrote_nothing_commits(catalog):
    assert catalog.commit_attempt("j.1", "job.finished", {}) == ()
    assert kinds(catalog) == [("job.finished", "")]


def test_a_discarded_attempt_leaves_nothing_and_writes_nothing(catalog):
    out = add(catalog, attempt="j.1")
    assert catalog.discard_attempt("j.1") == [out.id]
    assert catalog.discard_attempt("j.1") == []
    with pytest.raises(StreamNotFound):
        catalog.stream_by_id(out.id)
    with pytest.raises(Conflict, match="discarded"):
        add(catalog, attempt="j.1")
    with pytest.raises(Conflict, match="discarded"):
        catalog.commit_attempt("j.1", "job.finished", {})
    assert kinds(catalog) == []
    assert add(catalog, attempt="j.2").version == 1


def test_attempts_do_not_stand_in_each_others_way(catalog):
    one, two = add(catalog, attempt="j.1"), add(catalog, attempt="j.2")
    with pytest.raises(AlreadyExists):
        add(catalog, attempt="j.1")
    assert (one.version, two.version) == (1, 2)
    seal(catalog, two)
    catalog.commit_attempt("j.2", "job.finished", {})
    assert catalog.stream("test/run/s").id == two.id
    assert catalog.discard_attempt("j.1") == [one.id]


def test_reads_of_an_attempt(catalog):
    info = add(catalog)
    seal(catalog, info)
    for _ in range(2):
        catalog.record_read("j.1", info.id)
    (ref,) = catalog.attempt_reads("j.1")
    assert (ref.id, ref.path, ref.version, ref.digest) == (info.id, info.path, 1, "00ff" * 4)
    assert catalog.attempt_reads("j.2") == ()


def test_many_threads(catalog):
    failures = []

    def work(k: int) -> None:
        try:
            for n in range(15):
                info = add(catalog, f"t{k}-{n}")
                catalog.fence(info.id)
                seal(catalog, info)
                catalog.streams("test/run")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    assert [event.seq for event in catalog.events_after(0, 100)] == list(range(1, 61))
