"""Tokens that are handed out: what each right allows, where, from where, for how long; and what a revoked one had open.

The table `OPERATIONS` has every operation of a Store, so that one that is added is not forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiss import errors, limits
from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.drain_policy import DrainState
from hiss.errors import HissError, PermissionRefused
from hiss.extent import Extent
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.model import (
    BoundKernel,
    Caller,
    FrameSpec,
    ScalarParam,
    Selection,
    StreamInfo,
    StreamParam,
    StreamSpec,
    StreamWatch,
)
from hiss.node import Node
from hiss.sharing import Member, Wish
from hiss.space import Retention
from hiss.store import Store
from hiss.testing.conformance import corrected, double, wait_for
from hiss.tokens import RIGHTS, TokenInfo
from hiss.transport import GrpcServer, RemoteStore, wire
from hiss.transport.lane_client import LaneAppend, kind_of
from hiss.transport.lane_framing import Kind
from hiss.transport.read_call import ReadCall
from hiss.transport.read_client import ReadLane
from hiss.transport.shm_client import ShmAppend, SpareSlots
from hiss.v1 import streams_pb2

OPTIONS = StorageOptions(arena_bytes=32 * MiB, segment_bytes=16 * MiB)
SPEC = StreamSpec(FrameSpec("u1", (4,)))
MEMBER = Member("g", "m")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "data", OPTIONS, backend="numpy")
    yield node
    node.close()


def silent(*_: object) -> None:
    return None


class Place:
    """Two collections with an open and a sealed stream each; the holder of a token with `prefix` at the first."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.owner = LocalStore(node)
        self.open: dict[str, StreamInfo] = {}
        self.sealed: dict[str, StreamInfo] = {}
        for collection in ("beam/mine", "beam/other"):
            self.owner.create_collection(collection, {}, [])
            self.open[collection] = self.owner.create_stream(collection, "open", SPEC)
            self.sealed[collection] = self._sealed(collection, "sealed")
            self._sealed(collection, "to-go")

    def _sealed(self, collection: str, name: str) -> StreamInfo:
        info = self.owner.create_stream(collection, name, SPEC)
        session = self.owner.open_append(info.id, silent, silent, silent)
        session.send(Extent.of([0], np.ones(4, "u1"), [4]))
        session.close()
        return self.owner.seal_stream(info.id)

    def store(self, rights: list[str], prefix: str = "") -> LocalStore:
        return LocalStore(self.node, self.owner.create_token("t", rights, prefix=prefix).info.caller())


@pytest.fixture
def place(node: Node) -> Place:
    return Place(node)


STOP = threading.Event()

# By operation: the right that it takes, whether it is of the whole buffer, and a call of it at a collection.
OPERATIONS: dict[str, tuple[str, bool, Callable[[LocalStore, Place, str], Any]]] = {
    "create_collection": ("write", False, lambda s, p, c: s.create_collection(c, {}, [])),
    "collection": ("any", False, lambda s, p, c: s.collection(c)),
    "delete_collection": ("admin", False, lambda s, p, c: s.delete_collection(c + "/none")),
    "seal_collection": ("write", False, lambda s, p, c: s.seal_collection(c)),
    "join": ("write", False, lambda s, p, c: s.join(c, "j", ["sealed"])),
    "attach": ("admin", False, lambda s, p, c: s.attach(c, double.bind(), "*")),
    "detach": ("admin", False, lambda s, p, c: s.detach(c, "double")),
    "create_stream": ("write", False, lambda s, p, c: s.create_stream(c, "new", SPEC)),
    "stream": ("any", False, lambda s, p, c: s.stream(f"{c}/sealed")),
    "streams": ("any", False, lambda s, p, c: s.streams(c)),
    "amend_stream": ("write", False, lambda s, p, c: s.amend_stream(p.open[c].id, {"a": 1})),
    "open_append": ("write", False, lambda s, p, c: s.open_append(p.open[c].id, silent, silent, silent).close()),
    "seal_stream": ("write", False, lambda s, p, c: s.seal_stream(p.open[c].id)),
    "abort_stream": ("write", False, lambda s, p, c: s.abort_stream(p.open[c].id, "")),
    "delete_stream": ("admin", False, lambda s, p, c: s.delete_stream(p.owner.stream(f"{c}/to-go").id)),
    "read": ("read", False, lambda s, p, c: list(s.read(p.sealed[c].id, Selection()))),
    "out_frame": ("read", False, lambda s, p, c: s.out_frame(p.sealed[c].id, [double.bind()])),
    "follow": ("read", False, lambda s, p, c: list(s.follow(p.sealed[c].id, None, STOP))),
    "reduce": ("read", False, lambda s, p, c: s.reduce(f"{c}/sealed", None, "mean")),
    "promote": ("write", False, lambda s, p, c: s.promote(p.open[c].id, "bright")),
    "replay": ("read", False, lambda s, p, c: s.replay(p.sealed[c].id)),
    "send_feedback": ("write", False, lambda s, p, c: s.send_feedback(p.open[c].id, {})),
    "register_kernel": ("write", True, lambda s, p, c: s.register_kernel(double.definition)),
    "status": ("read", True, lambda s, p, c: s.status()),
    "watch_streams": ("admin", True, lambda s, p, c: s.watch_streams([StreamWatch("*", 1)])),
    "publish_event": ("admin", False, lambda s, p, c: s.publish_event("x.y", c, 0, {})),
    "reserve": ("admin", False, lambda s, p, c: s.reserve(c, 1, 1.0)),
    "release": ("admin", False, lambda s, p, c: s.release(p.owner.reserve(c, 1, 1.0).id)),
    "record_archive": (
        "admin",
        False,
        lambda s, p, c: s.record_archive(p.sealed[c].id, "there", p.sealed[c].digest),
    ),
    "record_archives": (
        "admin",
        False,
        lambda s, p, c: s.record_archives([(p.sealed[c].id, "there", p.sealed[c].digest)]),
    ),
    "take_blocks": ("read", False, lambda s, p, c: s.take_blocks(p.sealed[c].id, MEMBER, Wish(1, 1.0, 0.0))),
    "settle_blocks": ("read", False, lambda s, p, c: s.settle_blocks(p.sealed[c].id, MEMBER, [])),
    "consumer_groups": ("read", False, lambda s, p, c: s.consumer_groups(p.sealed[c].id)),
    "delete_consumer_group": ("read", False, lambda s, p, c: s.delete_consumer_group(p.sealed[c].id, "none")),
    "drain_policy": ("any", False, lambda s, p, c: s.drain_policy(c)),
    "set_drain_policy": ("admin", True, lambda s, p, c: s.set_drain_policy(c, None)),
    "plan_drains": ("admin", False, lambda s, p, c: s.plan_drains([c])),
    "next_drain": ("admin", True, lambda s, p, c: s.next_drain()),
    "mark_drain": ("admin", True, lambda s, p, c: s.mark_drain("none", DrainState.DONE)),
    "archived": ("any", False, lambda s, p, c: s.archived(p.sealed[c].id)),
    "retention": ("any", False, lambda s, p, c: s.retention(c)),
    "set_retention": ("admin", False, lambda s, p, c: s.set_retention(c, Retention())),
    "evict": ("admin", False, lambda s, p, c: s.evict(c)),
    "create_token": ("admin", False, lambda s, p, c: s.create_token("t", ["admin"], prefix=c)),
    "tokens": ("admin", False, lambda s, p, c: s.tokens() if c == "beam/mine" else s.revoke_token("0" * 12)),
    "revoke_token": (
        "admin",
        False,
        lambda s, p, c: s.revoke_token(p.owner.create_token("t", ["read"], prefix=c).info.id),
    ),
    "commit_attempt": ("admin", True, lambda s, p, c: s.commit_attempt("a.1", "job.done", {})),
    "discard_attempt": ("admin", True, lambda s, p, c: s.discard_attempt("a.1")),
    "attempt_reads": ("read", True, lambda s, p, c: s.attempt_reads("a.1")),
    "attempt_writes": ("admin", True, lambda s, p, c: s.attempt_writes("a.1")),
}
SHOWN = {
    "collections",
    "reservations",
    "drains",
    "events",
    "kernels",
    "kernel",
}  # show what may be seen, or are for all


def test_the_table_has_every_operation() -> None:
    there = {name for name in vars(Store) if not name.startswith("_")} - {"meow", "close"}
    assert set(OPERATIONS) | SHOWN == there


def allowed(call: Callable[[], Any]) -> bool:
    try:
        call()
    except PermissionRefused:
        return False
    except HissError:
        pass  # it was not for want of a right
    return True


@pytest.mark.parametrize("right", RIGHTS)
def test_each_operation_takes_its_right(place: Place, right: str) -> None:
    """Every operation with a token of one right: those that take it, and those that take any, go through."""
    for name, (needed, _, call) in OPERATIONS.items():
        found = allowed(lambda call=call: call(place.store([right]), place, "beam/mine"))
        assert found is (needed in (right, "any")), name


def test_each_operation_stays_below_the_prefix(place: Place) -> None:
    """With all rights at one collection: there, not at its neighbour, and not for the buffer as a whole."""
    for name, (_, whole, call) in OPERATIONS.items():
        store = place.store(list(RIGHTS), "beam/mine")
        if name != "tokens":
            assert not allowed(lambda call=call, store=store: call(store, place, "beam/other")), name
        if name != "delete_collection":
            assert allowed(lambda call=call, store=store: call(store, place, "beam/mine")) is not whole, name


def test_a_name_that_only_begins_like_the_prefix_is_elsewhere(place: Place) -> None:
    place.owner.create_collection("beam/mine2", {}, [])
    store = place.store(["read", "write"], "beam/mine")
    for path in ("beam/mine2", "beam", ""):
        with pytest.raises(PermissionRefused):
            store.collection(path)
    store.create_collection("beam/mine/below", {}, [])


def test_what_is_listed_is_what_may_be_seen(place: Place) -> None:
    place.owner.reserve("beam/other", 1, 1.0)
    mine = place.store(["read"], "beam/mine")
    assert [info.path for info in mine.collections()] == ["beam/mine"]
    assert mine.reservations() == []
    found = {event.path for event in mine.events(0, threading.Event(), follow=False)}
    assert found == {"beam/mine/sealed", "beam/mine/to-go"}
    with pytest.raises(PermissionRefused, match="'read'"):
        next(place.store(["write"], "beam/mine").events(0, threading.Event(), follow=False))
    everything = {event.kind for event in place.store(["read"]).events(0, threading.Event(), follow=False)}
    assert "token.created" in everything, "who watches all sees that tokens are handed out"


def test_streams_among_parameters_are_read(place: Place) -> None:
    """Otherwise a kernel would show what a token does not."""
    foreign = BoundKernel(corrected.definition, {"dark": StreamParam("beam/other/sealed"), "flat": ScalarParam(1)})
    for store in (place.store(["read", "write"], "beam/mine"), place.store(["write"])):
        with pytest.raises(PermissionRefused):
            store.create_stream("beam/mine", "k", StreamSpec(FrameSpec("u1", (4,)), kernels=(foreign,)))
    reader = place.store(["read"], "beam/mine")
    with pytest.raises(PermissionRefused):
        reader.read(place.sealed["beam/mine"].id, Selection(kernels=(foreign,)))
    with pytest.raises(PermissionRefused):
        reader.out_frame(place.sealed["beam/mine"].id, [foreign])
    with pytest.raises(PermissionRefused):
        place.store(list(RIGHTS), "beam/mine").attach("beam/mine", foreign, "*")


def test_nobody_hands_out_more_than_he_has(node: Node, place: Place) -> None:
    hour = place.owner.create_token("boss", ["read", "admin"], prefix="beam", hours=1, addresses="10.0.0.0/8").info
    boss = LocalStore(node, hour.caller())
    within: dict[str, Any] = {"prefix": "beam/mine", "hours": 0.5, "addresses": "10.1.0.0/16"}
    for rights, change in (
        (["write"], {}),
        (["read"], {"prefix": ""}),
        (["read"], {"prefix": "beam2"}),
        (["read"], {"hours": None}),
        (["read"], {"hours": 2.0}),
        (["read"], {"addresses": ""}),
        (["read"], {"addresses": "0.0.0.0/0"}),
        (["read"], {"addresses": "::/0"}),
    ):
        with pytest.raises(PermissionRefused):
            boss.create_token("t", rights, **{**within, **change})
    child = boss.create_token("t", ["read", "admin"], **within).info
    grandchild = LocalStore(node, child.caller()).create_token("t", ["read"], **{**within, "hours": 0.25}).info
    foreign = place.owner.create_token("foreign", ["read"], prefix="other").info
    assert [info.id for info in boss.tokens()] == [hour.id, child.id, grandchild.id]
    with pytest.raises(PermissionRefused):
        boss.revoke_token(foreign.id)
    assert place.owner.revoke_token(hour.id) == [hour, child, grandchild], "those that came of it go with it"
    assert place.owner.tokens() == [foreign]


def test_tokens_outlive_a_restart_and_their_number_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10**18]
    node = Node(tmp_path / "d", OPTIONS, backend="numpy", clock_ns=lambda: now[0])
    made = LocalStore(node).create_token("t", ["read"], hours=1)
    node.close()
    assert made.text.rpartition(".")[2].encode() not in (tmp_path / "d" / "catalog.db").read_bytes(), "hashed only"
    node = Node(tmp_path / "d", OPTIONS, backend="numpy", clock_ns=lambda: now[0])
    store, access = LocalStore(node), Access.of_directory(tmp_path / "d", node.catalog.tokens)
    assert access.authenticate(made.text, now[0]).token == made.info.id
    monkeypatch.setattr(limits, "TOKENS_MAX", 1)
    with pytest.raises(errors.LimitExceeded):
        store.create_token("u", ["read"])
    now[0] += 2 * 3600 * 10**9
    with pytest.raises(PermissionRefused, match="run out"):
        access.authenticate(made.text, now[0])
    second = store.create_token("u", ["read"])  # in the place of the one that ran out
    assert store.tokens() == [second.info]
    node.close()


# ---------------------------------------------------------------------------------------------------------- a server


class Server:
    """A server on TCP and its node, whose tokens are looked at as those of `hiss serve` are."""

    def __init__(self, node: Node, directory: Path) -> None:
        self.node = node
        self.tokens = Access.of_directory(node.directory, node.catalog.tokens)
        self.peers: list[str | None] = []
        self.server = GrpcServer(
            ["127.0.0.1:0", f"unix:{directory / 'sock'}"],
            store_for=lambda caller: LocalStore(node, caller),
            authenticate=self._authenticate,
            lanes=[f"unix:{directory / 'lane.sock'}", "127.0.0.1:0"],
            is_valid=lambda caller: self.tokens.is_valid(caller, node.clock_ns()),
        )
        node.catalog.tokens.on_revoked = self.server.look_at_tokens
        self.server.start()

    def _authenticate(self, token: str | None, peer: str | None) -> Caller:
        self.peers.append(peer)
        return self.tokens.authenticate(token, self.node.clock_ns(), peer)

    def connect(self, token: str, lane: str | None = None, at: int = 0) -> RemoteStore:
        return RemoteStore.connect(self.server.addresses[at], token, lane=lane)


@pytest.fixture
def server(node: Node, tmp_path: Path) -> Iterator[Server]:
    server = Server(node, tmp_path)
    yield server
    server.server.stop(1.0)


def test_a_token_is_good_from_its_addresses(server: Server, node: Node) -> None:
    owner = LocalStore(node)
    here = owner.create_token("here", ["read"], addresses="127.0.0.0/8").text
    far = owner.create_token("far", ["read"], addresses="10.0.0.0/8").text
    for at in (0, 1):  # TCP, and the Unix socket, which is this host too
        with Buffer(server.connect(here, at=at)) as buffer:
            buffer.collections()
        with (
            Buffer(server.connect(far, at=at)) as buffer,
            pytest.raises(PermissionRefused, match="only, not from"),
        ):
            buffer.collections()
    assert set(server.peers) == {"127.0.0.1", None}


@pytest.mark.parametrize("text", ["hisstok.", "hisstok.a.b", "hisstok." + "0" * 12 + "." + "A" * 32])
def test_tokens_that_are_none_are_refused(server: Server, text: str) -> None:
    with Buffer(server.connect(text)) as buffer, pytest.raises(PermissionRefused):
        buffer.collections()


def test_a_secret_of_another_token_opens_nothing(server: Server, node: Node) -> None:
    one, two = (LocalStore(node).create_token("t", ["read"]).text for _ in range(2))
    mixed = ".".join([*one.split(".")[:2], two.split(".")[2]])
    with Buffer(server.connect(mixed)) as buffer, pytest.raises(PermissionRefused, match="does not know"):
        buffer.collections()


def test_a_token_is_no_attempt_of_a_job(server: Server, node: Node) -> None:
    text = LocalStore(node).create_token("t", RIGHTS).text
    remote = RemoteStore.connect(server.server.addresses[0], text, attempt="a.1")
    with pytest.raises(PermissionRefused, match="no attempt"):
        remote.collections()
    remote.close()


@pytest.mark.parametrize("lane", ["grpc", "tcp", "unix", "shm", "shm:trusted"])
def test_a_revoked_token_ends_its_append(server: Server, node: Node, lane: str) -> None:
    """What had come whole is stored and acknowledged; the producer is told, and no way leads back in."""
    owner = LocalStore(node)
    owner.create_collection("beam", {}, [])
    made = owner.create_token("producer", ["write"], prefix="beam")
    remote = server.connect(made.text, lane)
    info = remote.create_stream("beam", "s", SPEC)
    acks: list[Any] = []
    told: list[HissError] = []
    session = remote.open_append(info.id, acks.append, told.append, silent)
    data = np.ones(8, "u1")
    if isinstance(session, ShmAppend):
        slots = session.share(len(data), None)
        data = slots.take()[:8] if slots is not None else data
        data[:] = 1
    session.send(Extent.of([0, 1], data, [4, 4]))
    wait_for(lambda: acks and acks[-1].durable == 2)
    owner.revoke_token(made.info.id)
    wait_for(lambda: told)
    assert isinstance(told[0], PermissionRefused)
    assert "revoked" in str(told[0])
    with pytest.raises(PermissionRefused):
        session.send(Extent.of([2], np.ones(4, "u1"), [4]))
    session.close()
    with pytest.raises(PermissionRefused):
        remote.open_append(info.id, silent, silent, silent)
    wait_for(lambda: server.server._long_calls.inside == 0)
    assert owner.stream("beam/s").completeness.blocks == 2
    remote.close()


def test_a_ticket_of_a_revoked_token_opens_no_lane(server: Server, node: Node) -> None:
    owner = LocalStore(node)
    owner.create_collection("beam", {}, [])
    made = owner.create_token("producer", ["write"])
    remote = server.connect(made.text)
    info = remote.create_stream("beam", "s", SPEC)
    offers = remote._lane_offers(info.id)
    (to_read,) = remote._lane_offers(info.id, read=True)
    assert [kind_of(offer.address) for offer in offers] == ["shm", "unix", "tcp"]
    owner.revoke_token(made.info.id)
    for offer in offers:
        with pytest.raises(PermissionRefused):
            LaneAppend(offer.address, offer.ticket, info.id, silent, silent, silent)
    with pytest.raises(PermissionRefused):
        ReadLane(to_read.address, to_read.ticket, "read").begin(Kind.READ, b"")
    remote.close()


@pytest.mark.parametrize(
    ("rights", "prefix", "reads", "appends"),
    [(["read"], "", True, False), (["write"], "", False, True), (["read", "write"], "other", False, False)],
)
def test_a_ticket_gives_no_rights(
    server: Server, node: Node, rights: list[str], prefix: str, reads: bool, appends: bool
) -> None:
    """Whoever may call gets tickets; what a lane does takes the right to it, at the stream's collection."""
    owner = LocalStore(node)
    owner.create_collection("beam", {}, [])
    info = owner.create_stream("beam", "s", SPEC)
    remote = server.connect(owner.create_token("t", rights, prefix=prefix).text)
    (to_read,) = remote._lane_offers(info.id, read=True)
    lane = ReadLane(to_read.address, to_read.ticket, "read")
    request = streams_pb2.ReadRequest(stream_id=info.id, selection=wire.encode_selection(Selection()))
    assert allowed(lambda: lane.begin(Kind.READ, request.SerializeToString())) is reads
    lane.close()
    for offer in remote._lane_offers(info.id):
        opened: list[LaneAppend] = []
        append = partial(ShmAppend, spare=SpareSlots()) if kind_of(offer.address) == "shm" else LaneAppend
        to_append = offer.address, offer.ticket, info.id, silent, silent, silent
        assert allowed(lambda: opened.append(append(*to_append))) is appends, offer.address  # noqa: B023
        for session in opened:
            session.close()
    remote.close()


def test_read_lanes_of_one_token_leave_some_for_others(
    server: Server, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = LocalStore(node)
    owner.create_collection("beam", {}, [])
    info = owner.create_stream("beam", "s", SPEC)
    lanes: list[ReadLane] = []
    assert server.server.lanes is not None
    monkeypatch.setattr(server.server.lanes._read_lanes, "_share", 2)

    def open_lane(remote: RemoteStore) -> None:
        (offer,) = remote._lane_offers(info.id, read=True)
        request = streams_pb2.ReadRequest(stream_id=info.id, selection=wire.encode_selection(Selection()))
        lanes.append(ReadLane(offer.address, offer.ticket, "read"))
        lanes[-1].begin(Kind.READ, request.SerializeToString())

    one, two = (server.connect(owner.create_token("t", ["read"]).text) for _ in range(2))
    for _ in range(2):
        open_lane(one)
    with pytest.raises(errors.TooManyStreams, match="as one token may"):
        open_lane(one)
    open_lane(two)
    for lane in lanes:
        lane.close()
    wait_for(lambda: server.server.lanes and server.server.lanes._read_lanes.inside == 0)
    open_lane(one)
    lanes[-1].close()
    for remote in (one, two):
        remote.close()


@pytest.mark.parametrize("lane", ["grpc", "shm"])
def test_a_revoked_token_ends_what_its_readers_have_open(server: Server, node: Node, lane: str) -> None:
    """Those who take nothing more, and idle lanes, among them."""
    owner = LocalStore(node)
    owner.create_collection("beam", {}, [])
    info = owner.create_stream("beam", "s", StreamSpec(FrameSpec("u1", (1 << 20,))))
    session = owner.open_append(info.id, silent, silent, silent)
    for index in range(100):
        session.send(Extent.of([index], np.ones(1 << 20, "u1"), [1 << 20]))
    session.close()
    made = owner.create_token("reader", ["read"], prefix="beam")
    remote = server.connect(made.text, lane)
    remote.stream("beam/s")  # tells that a read is worth a lane
    follower = remote.follow(info.id, None, threading.Event())
    watcher = remote.events(0, threading.Event())
    reader = remote.read(info.id, Selection())
    if lane == "shm":
        whole = remote.read(info.id, Selection(start=0, stop=8))
    assert next(follower).index[0] == 0
    assert len(next(reader)) < 100
    if lane == "shm":
        assert sum(map(len, whole)) == 8  # the lane is kept for the next read
    assert server.server.lanes is not None
    lanes = server.server.lanes._calls
    assert [type(call) for call in lanes.values()] == ([ReadCall] * 3 if lane == "shm" else [])
    ended: dict[str, BaseException] = {}

    def drain(name: str, calls: Iterator[Any]) -> None:
        try:
            for _ in calls:
                pass
        except HissError as error:
            ended[name] = error

    owner.revoke_token(made.info.id)
    wait_for(lambda: not lanes)
    threads = [
        threading.Thread(target=drain, args=each)
        for each in (("follow", follower), ("events", watcher), ("read", reader))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {name: type(error) for name, error in ended.items()} == dict.fromkeys(
        ("follow", "events", "read"), PermissionRefused
    )
    wait_for(lambda: server.server._long_calls.inside == 0)
    remote.close()


def test_a_token_that_runs_out_ends_what_is_open(tmp_path: Path) -> None:
    now = [10**18]
    node = Node(tmp_path / "d", OPTIONS, backend="numpy", clock_ns=lambda: now[0])
    server = Server(node, tmp_path)
    owner = LocalStore(node)
    owner.create_collection("beam", {}, [])
    made = owner.create_token("producer", ["write"], hours=1)
    remote = server.connect(made.text, "tcp")
    told: list[HissError] = []
    session = remote.open_append(remote.create_stream("beam", "s", SPEC).id, silent, told.append, silent)
    now[0] += 2 * 3600 * 10**9
    wait_for(lambda: told)
    assert isinstance(told[0], PermissionRefused)
    session.close()
    remote.close()
    server.server.stop(1.0)
    node.close()


def test_what_a_token_says_is_bounded() -> None:
    with pytest.raises(errors.InvalidInput):
        TokenInfo("", "x" * (limits.NAME_CHARS_MAX + 1), ("read",))
    with pytest.raises(errors.InvalidInput):
        TokenInfo("", "two\nlines", ("read",))
