"""The server: addresses, tokens, threads for everyone, health and reflection, stopping."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from hiss import limits
from hiss.errors import (
    HissError,
    InvalidInput,
    PermissionRefused,
    PortInUse,
    ServerUnreachable,
    Stopping,
    TooManyStreams,
    Unavailable,
)
from hiss.extent import Extent
from hiss.model import Caller, FrameSpec, StreamInfo, StreamSpec
from hiss.transport import GrpcServer, RemoteStore
from hiss.transport.methods import STORE
from transport.conftest import TOKEN, authenticate
from transport.memory_store import MemoryStore
from transport.waiting import LIMIT_S, wait_until

METADATA = (("authorization", f"Bearer {TOKEN}"),)
Connect = Callable[..., RemoteStore]

# ------------------------------------------------------------------------------------------------------ addresses


def test_port_0_picks_a_port_and_tells_which(server: GrpcServer, remote: RemoteStore) -> None:
    assert server.addresses == (f"127.0.0.1:{server.ports[0]}",)
    assert remote.status().node == "memory"


def test_a_port_in_use_is_named(server: GrpcServer, store: MemoryStore) -> None:
    second = GrpcServer([f"127.0.0.1:{server.ports[0]}"], store.for_caller, authenticate)
    with pytest.raises(PortInUse, match=f"port {server.ports[0]} of 127.0.0.1 is in use") as caught:
        second.start()
    assert caught.value.details["port"] == str(server.ports[0])
    second.stop(0)


def test_a_start_that_fails_leaves_nothing_behind(server: GrpcServer, store: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    second = GrpcServer([f"unix:{path}", server.addresses[0]], store.for_caller, authenticate)
    with pytest.raises(PortInUse):
        second.start()
    second.stop(0)
    assert not path.exists()


def test_a_port_in_use_behind_a_name_is_named(store: MemoryStore) -> None:
    """gRPC alone is content with the other addresses behind `localhost`."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = GrpcServer([f"localhost:{taken.getsockname()[1]}"], store.for_caller, authenticate)
        with pytest.raises(PortInUse):
            server.start()
        server.stop(0)


def test_no_other_program_can_share_the_port(server: GrpcServer) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", server.ports[0]))


def test_a_host_that_is_not_ours_is_named(store: MemoryStore) -> None:
    server = GrpcServer(["host.invalid:1234"], store.for_caller, authenticate)
    with pytest.raises(Unavailable, match=r"host\.invalid:1234"):
        server.start()
    server.stop(0)


@pytest.mark.parametrize("address", ["", "5001", "localhost", "localhost:", ":5001", "h:99999", "http://h:1", "unix:"])
def test_addresses_that_are_none_are_refused(address: str, store: MemoryStore) -> None:
    with pytest.raises(InvalidInput, match="address"):
        GrpcServer([address], store.for_caller, authenticate)
    with pytest.raises(InvalidInput, match="address"):
        RemoteStore.connect(address)


def test_a_unix_socket_is_for_its_owner_only_and_goes_with_the_server(
    store: MemoryStore, connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    server = GrpcServer([f"unix:{path}"], store.for_caller, authenticate)
    server.start()
    assert path.stat().st_mode & 0o777 == 0o600
    assert connect(address=f"unix:{path}").status().node == "memory"
    second = GrpcServer([f"unix:{path}"], store.for_caller, authenticate)
    with pytest.raises(PortInUse, match="another program listens"):
        second.start()
    second.stop(0)
    assert connect(address=f"unix:{path}").status().node == "memory"
    server.stop(0)
    assert not path.exists()


def test_a_socket_that_a_dead_server_left_is_replaced(store: MemoryStore, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = GrpcServer([f"unix:{path}"], store.for_caller, authenticate)
    server.start()
    assert connect(address=f"unix:{path}").status().node == "memory"
    server.stop(0)


def test_a_file_in_the_place_of_a_socket_is_kept(store: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("important")
    server = GrpcServer([f"unix:{path}"], store.for_caller, authenticate)
    with pytest.raises(InvalidInput, match="no socket"):
        server.start()
    server.stop(0)
    assert path.read_text() == "important"


def test_nobody_there_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        address = f"127.0.0.1:{once.getsockname()[1]}"
    remote = RemoteStore.connect(address)
    with pytest.raises(ServerUnreachable, match=f"nothing answers at {address}.*hiss serve") as caught:
        remote.status()
    assert caught.value.details["address"] == address
    remote.close()


def test_no_proxy_of_the_web_is_asked(server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    remote = RemoteStore.connect(server.addresses[0], TOKEN)
    assert remote.status().node == "memory"
    remote.close()


def test_a_server_that_comes_back_is_found_again(store: MemoryStore) -> None:
    first = GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate)
    first.start()
    remote = RemoteStore.connect(first.addresses[0], TOKEN)
    remote.status()
    first.stop(0)
    with pytest.raises(Unavailable):
        remote.status()
    second = GrpcServer(first.addresses, store.for_caller, authenticate)
    second.start()

    def answers() -> bool:
        try:
            return remote.status().node == "memory"
        except Unavailable:
            return False

    wait_until(answers, "the client did not find the server again")
    remote.close()
    second.stop(0)


# ------------------------------------------------------------------------------------------------------ tokens


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + " ", "x" * 2000])
def test_a_token_that_is_not_known_is_refused_everywhere(token: str | None, connect: Connect) -> None:
    remote = connect(token)
    stop = threading.Event()
    calls: list[Callable[[], Any]] = [
        remote.status,
        lambda: next(remote.events(0, stop)),
        lambda: remote.open_append("x", print, print, print),
    ]
    for call in calls:
        with pytest.raises(PermissionRefused):
            call()


def test_the_wrong_token_is_unauthenticated(server: GrpcServer) -> None:
    with grpc.insecure_channel(server.addresses[0]) as channel:
        for value in ("Bearer wrong", "Basic abc", "Bearer"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(STORE["Admin.GetStatus"].path)(b"", metadata=(("authorization", value),))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def test_a_token_that_cannot_be_sent_is_refused_at_once() -> None:
    for token in ("two\nlines", "schlüssel"):
        with pytest.raises(InvalidInput, match="ASCII"):
            RemoteStore.connect("localhost:1", token)


def test_the_attempt_of_a_job_is_part_of_who_calls(store: MemoryStore, connect: Connect) -> None:
    connect().status()
    connect(attempt="job-1").status()
    assert [caller.attempt for caller in store.callers] == [None, "job-1"]


def test_a_token_for_one_attempt_is_for_no_other(store: MemoryStore, connect: Connect) -> None:
    server = GrpcServer(["127.0.0.1:0"], store.for_caller, lambda token, peer: Caller("job-1", "beam"))
    server.start()
    connect("t", address=server.addresses[0], attempt="job-1").status()
    connect("t", address=server.addresses[0]).status()
    assert store.callers == [Caller("job-1", "beam")] * 2
    with pytest.raises(PermissionRefused, match="job-1 only"):
        connect("t", address=server.addresses[0], attempt="job-2").status()
    server.stop(0)


# ------------------------------------------------------------------------------------------------------ threads


def test_idle_calls_do_not_starve_the_others(server: GrpcServer, remote: RemoteStore, frames: StreamInfo) -> None:
    """As many idle long calls as are admitted: short calls go on, one more is refused, one that ends makes room."""
    idle: list[Any] = []
    with grpc.insecure_channel(server.addresses[0]) as channel:
        append = channel.stream_stream(STORE["Streams.Append"].path)
        follow = channel.unary_stream(STORE["Streams.Follow"].path)
        body = STORE["Streams.Follow"].request(stream_id=frames.id).SerializeToString()  # type: ignore[call-arg]
        hold = threading.Event()

        def nothing() -> Any:
            hold.wait(LIMIT_S)
            yield from ()

        for number in range(limits.LONG_CALLS_MAX):
            call = append(nothing(), metadata=METADATA) if number % 2 else follow(body, metadata=METADATA)
            idle.append(call)
        gate = server._long_calls
        wait_until(lambda: gate.inside == limits.LONG_CALLS_MAX, lambda: f"{gate.inside} long calls")
        for _ in range(3 * limits.SHORT_CALL_THREADS):
            assert remote.status().node == "memory"
        with pytest.raises(TooManyStreams, match=f"{limits.LONG_CALLS_MAX} long calls"):
            remote.open_append(frames.id, print, print, print)
        idle[0].cancel()
        wait_until(lambda: gate.inside < limits.LONG_CALLS_MAX, "a call that ended makes room")
        remote.open_append(frames.id, lambda ack: None, print, print).close()
        hold.set()
        for call in idle:
            call.cancel()
    wait_until(lambda: gate.inside == 0, lambda: f"{gate.inside} long calls left")


def test_calls_without_a_body_lose_their_thread(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_BODY_S", 0.1)
    server = GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate)
    server.start()
    hold = threading.Event()

    def nothing() -> Any:
        hold.wait(LIMIT_S)
        yield from ()

    with grpc.insecure_channel(server.addresses[0]) as channel:
        path = STORE["Admin.GetStatus"].path
        calls = [
            channel.stream_unary(path).future(nothing(), metadata=METADATA)
            for _ in range(limits.LONG_CALLS_MAX + limits.SHORT_CALL_THREADS + limits.INTROSPECTION_CALLS_MAX)
        ]
        assert channel.unary_unary(path)(b"", metadata=METADATA, timeout=LIMIT_S)
        for call in calls:
            assert call.exception(LIMIT_S).code() is grpc.StatusCode.CANCELLED
        hold.set()
    server.stop(0)


def test_calls_without_a_token_never_hold_a_thread(server: GrpcServer, remote: RemoteStore) -> None:
    hold = threading.Event()

    def nothing() -> Any:
        hold.wait(LIMIT_S)
        yield from ()

    with grpc.insecure_channel(server.addresses[0]) as channel:
        calls = [channel.stream_unary(STORE["Admin.GetStatus"].path).future(nothing()) for _ in range(100)]
        for call in calls:
            assert call.exception(LIMIT_S).code() is grpc.StatusCode.UNAUTHENTICATED
        hold.set()
    assert remote.status().node == "memory"


def test_garbage_as_a_request_is_refused_by_name(server: GrpcServer, remote: RemoteStore) -> None:
    with grpc.insecure_channel(server.addresses[0]) as channel:
        for key, method in STORE.items():
            call = channel.stream_stream(method.path)(iter([b"\xff\xff\xff\xff"]), metadata=METADATA)
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, key  # type: ignore[attr-defined]
            with pytest.raises(grpc.RpcError) as caught:
                list(channel.stream_stream(method.path)(iter([]), metadata=METADATA))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, key  # type: ignore[attr-defined]
    assert remote.status().node == "memory"


def test_a_message_above_the_limit_is_refused(server: GrpcServer, remote: RemoteStore) -> None:
    options = (("grpc.max_send_message_length", -1),)
    with grpc.insecure_channel(server.addresses[0], options=options) as channel:
        call = channel.unary_unary(STORE["Streams.CreateStream"].path)
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(limits.MESSAGE_BYTES_MAX + 1), metadata=METADATA)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert remote.status().node == "memory"


# ------------------------------------------------------------------------------------------------------ introspection


def _check(channel: grpc.Channel, service: str) -> int:
    call: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
    body = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    return health_pb2.HealthCheckResponse.FromString(call(body)).status


def test_health_is_told_without_a_token(server: GrpcServer) -> None:
    with grpc.insecure_channel(server.addresses[0]) as channel:
        assert _check(channel, "") == health_pb2.HealthCheckResponse.SERVING
        assert _check(channel, "hiss.v1.Streams") == health_pb2.HealthCheckResponse.SERVING
        for service in ("hiss.v1.Meow", "other"):
            with pytest.raises(grpc.RpcError) as caught:
                _check(channel, service)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def test_watchers_of_health_learn_that_the_server_stops(store: MemoryStore) -> None:
    server = GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate)
    server.start()
    with grpc.insecure_channel(server.addresses[0]) as channel:
        call: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        status = health_pb2.HealthCheckResponse
        assert status.FromString(next(call)).status == status.SERVING
        unknown: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\x0a\x01x")
        assert status.FromString(next(unknown)).status == status.SERVICE_UNKNOWN
        stopper = threading.Thread(target=server.stop, args=(LIMIT_S,))
        stopper.start()
        assert status.FromString(next(call)).status == status.NOT_SERVING
        assert list(call) == []
        stopper.join()


def test_watchers_of_health_are_bounded(server: GrpcServer, remote: RemoteStore) -> None:
    with grpc.insecure_channel(server.addresses[0]) as channel:
        watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
        calls = [watch(b"") for _ in range(limits.INTROSPECTION_CALLS_MAX)]
        for call in calls:
            next(call)
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(b""))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
        assert _check(channel, "") == health_pb2.HealthCheckResponse.SERVING
        assert remote.status().node == "memory"
        for call in calls:
            call.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_services_and_their_files(server: GrpcServer, version: str) -> None:
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="hiss.v1.Streams"),
    ]
    with grpc.insecure_channel(server.addresses[0]) as channel:
        call: Any = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        bodies = iter([request.SerializeToString() for request in requests])
        listing, files = [reflection_pb2.ServerReflectionResponse.FromString(body) for body in call(bodies)]
    names = {service.name for service in listing.list_services_response.service}
    assert {"hiss.v1.Streams", "hiss.v1.Admin", "grpc.health.v1.Health"} <= names
    assert "hiss.v1.Meow" not in names
    assert b"hiss/v1/streams.proto" in b"".join(files.file_descriptor_response.file_descriptor_proto)


# ------------------------------------------------------------------------------------------------------ stopping


def test_stopping_finishes_and_acknowledges_what_arrived(store: MemoryStore) -> None:
    server = GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate)
    server.start()
    remote = RemoteStore.connect(server.addresses[0], TOKEN)
    remote.create_collection("c", {}, [])
    info = remote.create_stream("c", "s", StreamSpec(FrameSpec("u1", (4,))))
    follower = remote.follow(info.id, None, threading.Event())
    ended: list[BaseException] = []

    def watch() -> None:
        try:
            list(remote.events(0, threading.Event()))
        except HissError as error:
            ended.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    store.hold_acks = True
    acks, failures = [], []
    session = remote.open_append(info.id, acks.append, failures.append, print)
    session.send(Extent.of([0, 1], bytes_of(8), [4, 4]))
    assert next(follower).index.tolist() == [0]
    wait_until(lambda: server._long_calls.inside == 3, "append, follow and watch are under way")
    server.stop(LIMIT_S)
    wait_until(lambda: failures, "the producer is told")
    assert acks[-1].received == 2
    assert isinstance(failures[0], Stopping)
    with pytest.raises(Stopping):
        session.send(Extent.of([2], bytes_of(4), [4]))
    session.close()
    with pytest.raises(Stopping):
        list(follower)
    watcher.join(LIMIT_S)
    assert [type(error) for error in ended] == [Stopping]
    assert sorted(store._find(info.id).blocks) == [0, 1]
    remote.close()


def bytes_of(count: int) -> Any:
    import numpy as np

    return np.arange(count, dtype=np.uint8)


def test_stopping_twice_and_before_the_start_is_fine(store: MemoryStore) -> None:
    server = GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate)
    server.stop(0)
    server.stop(0)


def test_a_stopped_server_gives_its_port_back(store: MemoryStore) -> None:
    first = GrpcServer(["127.0.0.1:0"], store.for_caller, authenticate)
    first.start()
    first.stop(0)
    second = GrpcServer(first.addresses, store.for_caller, authenticate)
    second.start()
    second.stop(0)


def test_closing_is_quick_and_quiet(server: GrpcServer, frames: StreamInfo, capfd: pytest.CaptureFixture[str]) -> None:
    remote = RemoteStore.connect(server.addresses[0], TOKEN)
    errors: list[HissError] = []
    session = remote.open_append(frames.id, lambda ack: None, errors.append, print)
    follower = remote.follow(frames.id, None, threading.Event())
    watcher = remote.events(0, threading.Event(), follow=True)
    followed = threading.Thread(target=lambda: list(_swallow(follower)))
    watched = threading.Thread(target=lambda: list(_swallow(watcher)))
    followed.start()
    watched.start()
    remote.close()
    remote.close()
    followed.join(LIMIT_S)
    watched.join(LIMIT_S)
    assert not followed.is_alive()
    assert not watched.is_alive()
    wait_until(lambda: errors, "the session is told")
    assert isinstance(errors[0], Unavailable)
    session.close()
    with pytest.raises(Unavailable, match="closed"):
        remote.status()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def _swallow(items: Any) -> Any:
    try:
        yield from items
    except Unavailable:
        return
