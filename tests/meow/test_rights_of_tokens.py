"""What whoever shows a token that was handed out may do to rules and jobs, and which of them he sees; here, and behind
the data process, which knows the tokens and vouches for their holders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hiss.access import Access
from hiss.errors import HissError, PermissionRefused
from hiss.meow_bridge import Engine
from hiss.model import Caller
from hiss.tokens import TokenInfo, hash_of, token_text
from hiss.transport import GrpcServer, RemoteStore
from hiss.workflow import Meow, acting

from .conftest import pattern, script
from .memory_store import MemoryStore


def token(*rights: str, prefix: str = "") -> Caller:
    return TokenInfo("0" * 12, "", rights, prefix).caller()


@pytest.fixture
def engine(make_engine: Callable[..., Engine], store: MemoryStore) -> Engine:
    """With a rule and a job in `beam`, others elsewhere, one over everything, and a recipe that no pattern names."""
    engine = make_engine(start=False)
    for name in ("near", "far", "both", "free"):
        engine.add(script(name, "1"))
    engine.add(pattern("near", "beam/*", "near"))
    engine.add(pattern("also-near", "beam/deep/*", "both"))
    engine.add(pattern("far", "other/*", "far"))
    engine.add(pattern("also-far", "other/deep/*", "both"))
    engine.add(pattern("all", "*/*", "far", writes="out"))
    for path in ("beam/x", "other/x"):
        store.seal(path)
    engine._scheduler.adopt(store.node)
    engine._scheduler.deal_with(store.all_events())
    return engine


CHANGES: dict[str, Callable[[Meow], Any]] = {
    "add a recipe": lambda meow: meow.add(script("new", "1")),
    "change a recipe": lambda meow: meow.add(script("near", "2")),
    "remove a recipe": lambda meow: meow.remove_recipe("free"),
    "add a pattern": lambda meow: meow.add(pattern("new", "beam/*", "free", rights=["rules"])),
    "remove a pattern": lambda meow: meow.remove_pattern("near"),
    "cancel a job": lambda meow: meow.cancel_job(job_of(meow, "near")),
    "release a job": lambda meow: meow.release_job(job_of(meow, "near")),
    "run a job again": lambda meow: meow.rerun_job(job_of(meow, "near")),
}
LOOKS: dict[str, Callable[[Meow], Any]] = {
    "recipes": lambda meow: meow.recipes(),
    "a recipe": lambda meow: meow.recipe("near"),
    "patterns": lambda meow: meow.patterns(),
    "a pattern": lambda meow: meow.pattern("near"),
    "rules": lambda meow: meow.rules(),
    "jobs": lambda meow: meow.jobs(),
    "a job": lambda meow: meow.job(job_of(meow, "near")),
    "count": lambda meow: meow.count_existing(pattern("new", "beam/*", "free")),
    "provenance": lambda meow: meow.provenance("beam/x"),
}


def job_of(meow: Meow, name: str) -> str:
    with acting(Caller()):
        return next(job.id for job in meow.jobs() if job.pattern == name)


def allowed(call: Callable[[], Any]) -> bool:
    try:
        call()
    except PermissionRefused:
        return False
    except HissError:
        pass  # it was not for want of a right
    return True


@pytest.mark.parametrize("name", [*CHANGES, *LOOKS])
def test_changes_take_run_and_looking_takes_read_or_run(engine: Engine, name: str) -> None:
    call = {**CHANGES, **LOOKS}[name]
    for prefix in ("beam", ""):
        for right in ("write", "admin", "read", "run"):
            with acting(token(right, prefix=prefix)):
                wanted = right == "run" or (right == "read" and name in LOOKS)
                assert allowed(lambda: call(engine)) is wanted, (right, prefix)


ATTACKS: dict[str, Callable[[Meow], Any]] = {
    "a pattern that looks elsewhere": lambda meow: meow.add(pattern("x", "other/*", "free", writes="beam")),
    "a pattern that looks everywhere": lambda meow: meow.add(pattern("x", "**", "free", writes="beam")),
    "a pattern that writes elsewhere": lambda meow: meow.add(pattern("x", "beam/*", "free", writes="other")),
    "a name that only begins the same": lambda meow: meow.add(pattern("x", "beam2/*", "free", writes="beam")),
    "watched files": lambda meow: meow.add(pattern("x", "file:/etc/*", "free", writes="beam")),
    "to take a foreign pattern": lambda meow: meow.add(pattern("far", "beam/*", "free")),
    "to remove a foreign pattern": lambda meow: meow.remove_pattern("all"),
    "code for a foreign pattern": lambda meow: meow.add(script("far", "evil")),
    "code for a foreign pattern too": lambda meow: meow.add(script("both", "evil")),
    "to cancel a foreign job": lambda meow: meow.cancel_job(job_of(meow, "far")),
    "to cancel a stronger pattern's job": lambda meow: meow.cancel_job(job_of(meow, "all")),
    "to run a foreign job": lambda meow: meow.rerun_job(job_of(meow, "far")),
    "to see a foreign recipe": lambda meow: meow.recipe("far"),
    "to see a foreign pattern": lambda meow: meow.pattern("far"),
    "to see a foreign job": lambda meow: meow.job(job_of(meow, "far")),
    "to see where foreign data came from": lambda meow: meow.provenance("other/x"),
    "to count foreign data": lambda meow: meow.count_existing(pattern("x", "other/*", "free")),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_below_its_prefix_only(engine: Engine, name: str) -> None:
    before = engine.recipes(), engine.patterns(), engine.rules(), engine.jobs()
    with acting(token("read", "write", "run", "admin", prefix="beam")), pytest.raises(PermissionRefused):
        ATTACKS[name](engine)
    assert (engine.recipes(), engine.patterns(), engine.rules(), engine.jobs()) == before
    with acting(token("run")):
        assert allowed(lambda: ATTACKS[name](engine)), "it was for the prefix"


def test_what_is_listed_is_what_may_be_seen(engine: Engine) -> None:
    with acting(token("read", prefix="beam")):
        assert {each.name for each in engine.recipes()} == {"near", "free"}
        assert {each.name for each in engine.patterns()} == {"near", "also-near"}
        assert {each.pattern for each in engine.rules()} == {"near", "also-near"}
        assert {each.path for each in engine.jobs()} == {"beam/x"}
        assert len(engine.jobs(limit=1)) == 1
        graph = engine.provenance("beam/x")
        assert {node.attrs["path"] for node in graph.nodes if node.kind == "stream"} == {"beam/x"}


# ---- behind the data process


@pytest.fixture
def remote(engine: Engine, tmp_path: Path) -> Iterator[Callable[[TokenInfo], RemoteStore]]:
    """Clients of a server that passes calls on to the engine's own, which knows the owner's token only."""
    known: dict[str, tuple[TokenInfo, bytes]] = {}

    class Table:
        def find(self, token_id: str) -> tuple[TokenInfo, bytes] | None:
            return known.get(token_id)

    inside, outside = Access("owner"), Access("owner", Table())
    socket = f"unix:{tmp_path / 'rules.sock'}"
    inner = GrpcServer([socket], None, lambda text, peer: inside.authenticate(text, 0, peer), engine)
    outer = GrpcServer(
        ["127.0.0.1:0"],
        None,
        lambda text, peer: outside.authenticate(text, 0, peer),
        socket,
        vouch=lambda caller: outside.vouch(caller, 0),
    )
    inner.start()
    outer.start()
    made: list[RemoteStore] = []

    def connect(info: TokenInfo) -> RemoteStore:
        known[info.id] = info, hash_of("s" * 32)
        made.append(RemoteStore.connect(outer.addresses[0], token_text(info.id, "s" * 32)))
        return made[-1]

    yield connect
    for each in made:
        each.close()
    outer.stop(0)
    inner.stop(0)


def test_the_data_process_vouches_for_whoever_it_knows(remote: Callable[[TokenInfo], RemoteStore]) -> None:
    reader = remote(TokenInfo("1" * 12, "", ("read",), "beam")).meow
    assert {each.path for each in reader.jobs()} == {"beam/x"}
    with pytest.raises(PermissionRefused, match="recipes are code"):
        reader.add(script("new", "1"))
    runner = remote(TokenInfo("2" * 12, "", ("run",), "beam")).meow
    runner.add(script("new", "1"))
    with pytest.raises(PermissionRefused):
        runner.add(pattern("x", "other/*", "new"))


def test_what_it_vouches_for_is_for_a_minute_and_cannot_be_changed() -> None:
    caller = token("run", prefix="beam")
    text = Access("owner").vouch(caller, 0)
    assert text is not None
    assert Access("owner").authenticate(text, 59 * 10**9) == caller
    for access, now_ns, shown in (
        (Access("owner"), 61 * 10**9, text),
        (Access("other"), 0, text),
        (Access("owner"), 0, text.replace("hisscall", "hissjob")),
        (Access("owner"), 0, Access("owner").job_token("a.1", "", 10**12).replace("hissjob", "hisscall")),
    ):
        with pytest.raises(PermissionRefused):
            access.authenticate(shown, now_ns)
    assert Access("owner").vouch(Caller(), 0) is None, "the owner, and attempts, are known there"
