"""The rule engine behind gRPC: served directly, and passed on to another server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from hiss.errors import HissError, JobNotFound, PatternNotFound, PermissionRefused, RecipeNotFound, Unavailable
from hiss.model import Caller
from hiss.transport import GrpcServer, RemoteStore
from hiss.transport.methods import MEOW
from hiss.workflow import (
    EngineCounts,
    Job,
    JobState,
    Meow,
    Pattern,
    ProvenanceGraph,
    ProvenanceNode,
    Recipe,
    RecipeKind,
    Rule,
    StreamRef,
    acting_caller,
)
from transport.conftest import TOKEN, authenticate
from transport.memory_store import MemoryStore


class MemoryMeow(Meow):
    """Recipes, patterns and the rules between them; one job for each pattern that meets what is there."""

    def __init__(self) -> None:
        self._recipes: dict[str, Recipe] = {}
        self._patterns: dict[str, Pattern] = {}
        self._jobs: dict[str, Job] = {}
        self.asked_by: list[str | None] = []

    def add_recipe(self, recipe: Recipe) -> None:
        self._recipes[recipe.name] = recipe

    def remove_recipe(self, name: str) -> None:
        self.asked_by.append(acting_caller().attempt)
        del self._recipes[self.recipe(name).name]

    def recipes(self) -> list[Recipe]:
        return list(self._recipes.values())

    def recipe(self, name: str) -> Recipe:
        if name not in self._recipes:
            raise RecipeNotFound(f"no recipe {name!r}", name=name)
        return self._recipes[name]

    def add_pattern(self, pattern: Pattern, *, existing: bool = True) -> int:
        self._patterns[pattern.name] = pattern
        if not existing:
            return 0
        number = len(self._jobs) + 1
        self._jobs[f"{number:032x}"] = Job(
            id=f"{number:032x}",
            rule="r",
            pattern=pattern.name,
            recipe=pattern.recipe,
            event="memory-1",
            path="beam/scan/proj",
            version=1,
            variables=dict(pattern.variables),
            state=JobState.QUEUED,
            attempts=0,
            created_ns=1,
            started_ns=0,
            finished_ns=0,
            host="",
            error="",
            output="",
            reads=(StreamRef("i", "beam/scan/proj", 1, "d"),),
            writes=(),
        )
        return 1

    def remove_pattern(self, name: str) -> None:
        del self._patterns[self.pattern(name).name]

    def patterns(self) -> list[Pattern]:
        return list(self._patterns.values())

    def pattern(self, name: str) -> Pattern:
        if name not in self._patterns:
            raise PatternNotFound(f"no pattern {name!r}", name=name)
        return self._patterns[name]

    def rules(self) -> list[Rule]:
        return [
            Rule(f"{p.name}+{p.recipe}", p.name, p.recipe, p.trigger, p.event, 5)
            for p in self._patterns.values()
            if p.recipe in self._recipes
        ]

    def jobs(self, *, state: JobState | None = None, limit: int = 1000) -> list[Job]:
        found = [job for job in reversed(self._jobs.values()) if state in (None, job.state)]
        return found[:limit]

    def job(self, job_id: str) -> Job:
        for job in self._jobs.values():
            if job.id.startswith(job_id):
                return job
        raise JobNotFound(f"no job {job_id!r}", id=job_id)

    def cancel_job(self, job_id: str) -> Job:
        return self.job(job_id)

    def release_job(self, job_id: str) -> Job:
        return dataclasses.replace(self.job(job_id), state=JobState.QUEUED, chain=7)

    def counts(self) -> EngineCounts:
        return EngineCounts({"done": 3, "held": 1}, 1 << 40)

    def provenance(self, path: str, version: int | None = None) -> ProvenanceGraph:
        node = ProvenanceNode("a", "stream", path, {"version": version})
        return ProvenanceGraph((node,), (("a", "a", "itself"),))


@pytest.fixture
def engine() -> MemoryMeow:
    return MemoryMeow()


@pytest.fixture(params=["direct", "forwarded", "alone"])
def remote(
    request: pytest.FixtureRequest, engine: MemoryMeow, store: MemoryStore, tmp_path: Path
) -> Iterator[RemoteStore]:
    """A client of a server with the engine in it, of one that passes calls on, and of the engine's own server."""
    socket = f"unix:{tmp_path / 'engine'}"
    servers = []
    if request.param == "direct":
        servers.append(GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate, engine))
    else:
        servers.append(GrpcServer([socket], None, authenticate, engine))
        if request.param == "forwarded":
            servers.append(GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate, socket))
    for server in servers:
        server.start()
    remote = RemoteStore.connect(servers[-1].addresses[0], TOKEN)
    yield remote
    remote.close()
    for server in reversed(servers):
        server.stop(0)


def test_everything_that_the_engine_does(remote: RemoteStore, engine: MemoryMeow) -> None:
    meow = remote.meow
    recipe = Recipe("mean", "print(1)\n", kind=RecipeKind.SCRIPT, timeout_s=5, retries=0)
    pattern = Pattern("every", "beam/*/proj", "mean", variables={"n": [1, 2.5]}, sweep={"k": [1, 2]}, writes="beam")
    meow.add_recipe(recipe)
    assert meow.recipe("mean") == recipe
    assert meow.recipes() == [recipe]
    assert meow.add_pattern(pattern) == 1
    assert meow.add(pattern, existing=False) == 0
    assert meow.pattern("every") == pattern
    assert meow.patterns() == [pattern]
    assert meow.rules() == engine.rules()
    assert len(meow.rules()) == 1
    meow.add_pattern(Pattern("second", "beam/*/proj", "mean"))
    assert [job.pattern for job in meow.jobs()] == ["second", "every"]
    assert [job.pattern for job in meow.jobs(limit=1)] == ["second"]
    assert meow.jobs(state=JobState.DONE) == []
    assert meow.job("0" * 31 + "1") == engine.job("0" * 31 + "1")
    assert meow.cancel_job("0" * 31 + "2").pattern == "second"
    released = meow.release_job("0" * 31 + "2")
    assert (released.pattern, released.chain) == ("second", 7)
    assert meow.counts() == engine.counts()
    assert meow.provenance("beam/scan/proj", 3) == engine.provenance("beam/scan/proj", 3)
    meow.remove_pattern("every")
    meow.remove_recipe("mean")
    assert engine.rules() == []


def test_errors_of_the_engine_arrive(remote: RemoteStore) -> None:
    with pytest.raises(RecipeNotFound, match="no recipe 'x'") as caught:
        remote.meow.recipe("x")
    assert caught.value.details == {"name": "x"}
    with pytest.raises(JobNotFound):
        remote.meow.job("x")


def test_tokens_are_looked_at(remote: RemoteStore) -> None:
    stranger = RemoteStore.connect(remote.address, "wrong")
    with pytest.raises(PermissionRefused):
        stranger.meow.rules()
    stranger.close()


def test_the_engine_knows_which_attempt_asks(remote: RemoteStore, engine: MemoryMeow) -> None:
    """A job that removes its own rule is spared, so the engine must know who asks; a person afterwards is no job."""
    job = RemoteStore.connect(remote.address, TOKEN, attempt="job-7.1")
    for caller in (job, remote):
        caller.meow.add_recipe(Recipe("mean", "print(1)\n", kind=RecipeKind.SCRIPT))
        caller.meow.remove_recipe("mean")
    assert engine.asked_by == ["job-7.1", None]
    job.close()


def test_the_engine_looks_at_the_token_again(store: MemoryStore, tmp_path: Path) -> None:
    """The token and the attempt are passed on as they came; what the engine refuses is refused."""
    seen: list[str | None] = []

    def only_second(token: str | None, peer: str | None) -> Caller:
        seen.append(token)
        if token != "second":
            raise PermissionRefused("the engine says no")
        return Caller()

    socket = f"unix:{tmp_path / 'engine'}"
    inner = GrpcServer([socket], None, only_second, MemoryMeow())
    outer = GrpcServer(["127.0.0.1:0"], store.for_caller, lambda token, peer: Caller(), socket)
    inner.start()
    outer.start()
    for token in ("first", "second"):
        remote = RemoteStore.connect(outer.addresses[0], token)
        if token == "first":
            with pytest.raises(PermissionRefused, match="the engine says no"):
                remote.meow.rules()
        else:
            assert remote.meow.rules() == []
        remote.close()
    assert seen == ["first", "second"]
    outer.stop(0)
    inner.stop(0)


def test_bodies_are_passed_on_byte_for_byte(store: MemoryStore, tmp_path: Path) -> None:
    """Fields that this version does not know reach the engine's server, which may be newer."""
    bodies: list[bytes] = []

    def echo(body: bytes, context: grpc.ServicerContext) -> bytes:
        bodies.append(body)
        return b"\xfa\x01\x03new"

    from concurrent import futures

    with futures.ThreadPoolExecutor(2) as pool:
        inner = grpc.server(pool)
        handlers = {"ListRules": grpc.unary_unary_rpc_method_handler(echo)}
        inner.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("hiss.v1.Meow", handlers)])
        socket = f"unix:{tmp_path / 'engine'}"
        inner.add_insecure_port(socket)
        inner.start()
        outer = GrpcServer(["127.0.0.1:0"], store.for_caller, lambda token, peer: Caller(), socket)
        outer.start()
        with grpc.insecure_channel(outer.addresses[0]) as channel:
            assert channel.unary_unary(MEOW["Meow.ListRules"].path)(b"\xfa\x01\x01x") == b"\xfa\x01\x03new"
        assert bodies == [b"\xfa\x01\x01x"]
        outer.stop(0)
        inner.stop(0).wait()


def test_an_engine_that_is_down_is_named_and_found_again(
    store: MemoryStore, engine: MemoryMeow, tmp_path: Path
) -> None:
    socket = f"unix:{tmp_path / 'engine'}"
    outer = GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate, socket)
    outer.start()
    remote = RemoteStore.connect(outer.addresses[0], TOKEN)
    with pytest.raises(Unavailable, match=r"rule engine at unix:.*does not answer") as caught:
        remote.meow.rules()
    assert caught.value.details["address"] == socket
    assert remote.status().node == "memory", "data is served without it"
    inner = GrpcServer([socket], None, authenticate, engine)
    inner.start()
    _wait_for_rules(remote.meow.rules)
    inner.stop(0)
    with pytest.raises(Unavailable, match="rule engine"):
        remote.meow.rules()
    remote.close()
    outer.stop(0)


def _wait_for_rules(ask: Callable[[], object]) -> None:
    from transport.waiting import wait_until

    def answers() -> bool:
        try:
            ask()
        except Unavailable:
            return False
        return True

    wait_until(answers, "the engine is not found")


def test_a_server_offers_only_what_it_has(store: MemoryStore, engine: MemoryMeow) -> None:
    no_meow = GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate)
    no_store = GrpcServer(["127.0.0.1:0"], None, authenticate, engine)
    for server in (no_meow, no_store):
        server.start()
    first = RemoteStore.connect(no_meow.addresses[0], TOKEN)
    second = RemoteStore.connect(no_store.addresses[0], TOKEN)
    with pytest.raises(HissError, match="does not offer this"):
        first.meow.rules()
    with pytest.raises(HissError, match="does not offer this"):
        second.status()
    assert second.meow.rules() == []
    for remote in (first, second):
        remote.close()
    for server in (no_meow, no_store):
        server.stop(0)
