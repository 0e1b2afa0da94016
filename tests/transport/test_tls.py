"""TLS: who is let in, what is never sent in clear, handshakes that do not end, and a socket that is used both ways."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import hiss
from hiss import limits
from hiss.config import ServeConfig
from hiss.errors import HissError, InvalidInput, PermissionRefused, Unavailable
from hiss.link import Link
from hiss.model import Ack, FrameSpec, StreamInfo, StreamSpec
from hiss.testing.certificates import certificates
from hiss.testing.processes import DataProcess
from hiss.tls import HOW_TO, ClientTls, ServerTls
from hiss.transport import GrpcServer, RemoteStore, shared_reads
from hiss.transport.lane_client import LaneAppend, kind_of, resolved
from hiss.transport.lane_framing import Kind, frame
from hiss.transport.tls_socket import TlsSocket
from transport.conftest import TOKEN, authenticate
from transport.memory_store import MemoryStore
from transport.proxy import CuttingProxy
from transport.test_append import Producer, frames_of
from transport.test_lanes import dial, hello, idle
from transport.waiting import LIMIT_S

Serve = Callable[..., GrpcServer]


@pytest.fixture
def serve(store: MemoryStore, tmp_path: Path) -> Iterator[Serve]:
    """Starts servers over TLS, with a TLS lane and plain ones; they are stopped at the end."""
    made: list[GrpcServer] = []

    def start(tls: ServerTls, lanes: tuple[str, ...] = ("unix", "127.0.0.1:0", "tls:localhost:0")) -> GrpcServer:
        places = [f"unix:{tmp_path / f'lane{len(made)}.sock'}" if lane == "unix" else lane for lane in lanes]
        made.append(GrpcServer(["localhost:0"], store.for_caller, authenticate, lanes=places, tls=tls))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.stop(0)


@pytest.fixture
def reach() -> Iterator[Callable[..., RemoteStore]]:
    made: list[RemoteStore] = []

    def connect(server: GrpcServer, tls: ClientTls | None, lane: str | None = None) -> RemoteStore:
        made.append(RemoteStore.connect(server.addresses[0], TOKEN, tls=tls, lane=lane))
        return made[-1]

    yield connect
    for remote in made:
        remote.close()


def stream(remote: RemoteStore) -> StreamInfo:
    remote.create_collection("beam", {}, [])
    return remote.create_stream("beam", "s", StreamSpec(FrameSpec("uint16", (8, 16))))


# ------------------------------------------------------------------------------------------------------ who is let in


def test_whom_one_trusts_and_who_shows_what(serve: Serve, reach: Callable[..., RemoteStore]) -> None:
    known = certificates()
    one_sided, mutual, elsewhere = serve(known.server), serve(known.mutual), serve(known.elsewhere)
    for server, tls, advice in (
        (one_sided, known.client, None),
        (one_sided, known.known_client, None),
        (one_sided, known.stranger, "`tls=` trusts"),
        (one_sided, None, "localhost"),
        (mutual, known.known_client, None),
        (mutual, known.client, "localhost"),
        (mutual, known.impostor, "localhost"),
        (elsewhere, known.client, "for another name"),
    ):
        remote = reach(server, tls)
        if advice is None:
            assert remote.status().node == "memory"
        else:
            with pytest.raises(Unavailable, match=advice):
                remote.status()


def test_lanes_ask_for_the_same(serve: Serve, reach: Callable[..., RemoteStore], store: MemoryStore) -> None:
    """A ticket is not enough where a certificate is asked for, and no lane is opened to somebody else's."""
    known = certificates()
    server = serve(known.mutual)
    remote = reach(server, known.known_client, "tls")
    info = stream(remote)
    producer = Producer(remote, info.id)
    assert isinstance(producer.session, LaneAppend)
    producer.session.send(frames_of(info, 0, 2))
    producer.session.close()
    for tls in (known.client, known.impostor, known.stranger):
        (offer,) = [each for each in remote._lane_offers(info.id) if kind_of(each.address) == "tls"]
        with pytest.raises(Unavailable):
            LaneAppend(resolved(offer.address, remote.address), offer.ticket, info.id, print, print, print, tls)
    with pytest.raises(InvalidInput, match="what to trust"):
        LaneAppend("tls:localhost:1", bytes(32), info.id, print, print, print)
    assert sorted(store._find(info.id).blocks) == [0, 1]
    idle(server)


# ------------------------------------------------------------------------------------------------------ in clear


class Listener:
    """Takes connections and writes down what comes, as somebody does who has put himself before a server."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"localhost:{self._socket.getsockname()[1]}"
        self.heard = b""
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(LIMIT_S)
                # HTTP/2's SETTINGS, so that a plain client goes on and sends its call
                connection.sendall(bytes.fromhex("000000040000000000"))
                try:
                    while TOKEN.encode() not in self.heard and (found := connection.recv(65536)):
                        self.heard += found
                except OSError:
                    pass

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def test_a_client_of_tls_says_nothing_to_a_server_without() -> None:
    """Nor falls back to one: all that leaves is TLS's first message. The control: a plain client tells its token."""
    for tls, wanted in ((certificates().client, False), (None, True)):
        listener = Listener()
        remote = RemoteStore.connect(listener.address, TOKEN, tls=tls)
        with pytest.raises(HissError):
            remote.status()
        remote.close()
        listener.close()
        assert (TOKEN.encode() in listener.heard) is wanted
        assert listener.heard.startswith(b"PRI * HTTP/2.0" if wanted else b"\x16\x03")


def test_a_client_of_tls_opens_no_plain_lane(
    serve: Serve, reach: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the server offers some, to clients on its own host; nor one to read through shared memory."""
    server = serve(certificates().server, ("unix", "127.0.0.1:0"))
    remote = reach(server, certificates().client)
    info = stream(remote)
    assert {kind_of(offer.address) for offer in remote._lane_offers(info.id)} == {"shm", "unix", "tcp"}
    producer = Producer(remote, info.id)
    assert not isinstance(producer.session, LaneAppend)
    producer.session.send(frames_of(info, 0, 2))
    producer.session.close()
    assert remote._lane_offers(info.id, read=True)
    monkeypatch.setattr(shared_reads, "ReadLane", None)  # whoever opens one fails
    follower = remote.follow(info.id, None, threading.Event())
    assert next(follower).index[0] == 0
    follower.close()  # type: ignore[attr-defined]
    for lane in ("shm", "shm:trusted", "unix", "tcp"):
        with pytest.raises(InvalidInput, match="TLS only"):
            reach(server, certificates().client, lane)
    with pytest.raises(InvalidInput, match="needs"):
        reach(server, None, "tls")


def test_a_tls_lane_that_cannot_be_opened_falls_back_to_grpc_over_tls(
    serve: Serve, reach: Callable[..., RemoteStore]
) -> None:
    server = serve(certificates().server)
    assert server.lanes is not None
    for listener in server.lanes._listeners:
        if listener.kind == "tls":
            listener.address = "tls:*:1"  # nobody is there
    remote = reach(server, certificates().client)
    producer = Producer(remote, stream(remote).id)
    assert not isinstance(producer.session, LaneAppend)
    producer.session.close()


def test_a_link_for_tls_is_never_followed_without() -> None:
    link = Link("localhost:1", True, "beam", "hisstok.x").url()
    with pytest.raises(InvalidInput, match="tls=False"):
        hiss.connect(link, tls=False)
    with hiss.connect(link) as buffer:
        assert buffer.store.link.tls  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------ hostile peers


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n", bytes(2000), b"\x16\x03" * 900]
)
def test_handshakes_that_are_none_or_do_not_end_are_given_up(
    said: bytes,
    serve: Serve,
    reach: Callable[..., RemoteStore],
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On lanes and gRPC alike; meanwhile others come in."""
    monkeypatch.setattr(limits, "HANDSHAKE_S", 1.0)
    server = serve(certificates().server)
    assert server.lanes is not None
    places = [server.addresses[0], server.lanes.addresses[2].replace("tls:*", "localhost")]
    stuck = [dial(place) for place in places for _ in range(20)]
    for one in stuck:
        one.sendall(said)
    remote = reach(server, certificates().client, "tls")
    producer = Producer(remote, stream(remote).id)
    assert isinstance(producer.session, LaneAppend)
    producer.session.close()
    for one in stuck:
        try:
            while one.recv(65536):
                pass
        except ConnectionResetError:
            pass
        one.close()
    idle(server)


def test_a_plain_hello_on_a_tls_lane_is_dropped_and_its_ticket_is_not_used(
    serve: Serve, reach: Callable[..., RemoteStore]
) -> None:
    server = serve(certificates().server)
    remote = reach(server, certificates().client)
    info = stream(remote)
    (offer,) = [each for each in remote._lane_offers(info.id) if kind_of(each.address) == "tls"]
    address = resolved(offer.address, remote.address)
    with dial(address.removeprefix("tls:")) as plain:
        plain.sendall(hello(offer.ticket))
        with contextlib.suppress(ConnectionResetError):
            assert not plain.recv(65536).startswith(b"hlan"), "TLS's alert, or nothing"
    session = LaneAppend(address, offer.ticket, info.id, lambda ack: None, print, print, certificates().client)
    session.close()
    idle(server)


def test_a_hello_in_pieces_over_tls(serve: Serve, reach: Callable[..., RemoteStore]) -> None:
    server = serve(certificates().server)
    remote = reach(server, certificates().client)
    info = stream(remote)
    (offer,) = [each for each in remote._lane_offers(info.id) if kind_of(each.address) == "tls"]
    host, _, port = resolved(offer.address, remote.address).removeprefix("tls:").rpartition(":")
    context = certificates().client.context()
    with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as connection:
        assert connection.version() == "TLSv1.3"
        for byte in hello(offer.ticket):
            connection.sendall(bytes([byte]))
        assert connection.recv(4) == b"hlan"
        connection.sendall(frame(Kind.EXTENT))  # no extent
        while connection.recv(65536):
            pass
    idle(server)


def test_cuts_anywhere_of_a_tls_lane_lose_and_repeat_nothing(
    serve: Serve, reach: Callable[..., RemoteStore], store: MemoryStore
) -> None:
    """Within handshakes, hellos and records, 25 times; a producer that asks and goes on loses nothing."""
    server = serve(certificates().server)
    remote = reach(server, certificates().client)
    info = stream(remote)
    assert server.lanes is not None
    (listener,) = [each for each in server.lanes._listeners if each.kind == "tls"]
    rng = random.Random(23)
    proxy = CuttingProxy(
        int(listener.address.rpartition(":")[2]), lambda: rng.choice([rng.randrange(3_000), rng.randrange(40_000)])
    )
    listener.address = f"tls:*:{proxy.address.rpartition(':')[2]}"
    acknowledged: set[int] = set()
    acks: list[Ack] = []
    while proxy.cuts < 25:
        (offer,) = [each for each in remote._lane_offers(info.id) if kind_of(each.address) == "tls"]
        acks.clear()
        try:
            session = LaneAppend(
                resolved(offer.address, remote.address),
                offer.ticket,
                info.id,
                acks.append,
                lambda error: None,
                print,
                certificates().client,
            )
        except Unavailable:
            continue
        assert acknowledged <= set(store._find(info.id).blocks)
        handled = session.start.next_index
        try:
            for first in range(handled, handled + 10_000, 8):
                session.send(frames_of(info, first, 8))
                acknowledged.update(range(handled, handled + acks[-1].durable) if acks else ())
        except Unavailable:
            session.close()
    proxy.close()
    idle(server)
    blocks = store._find(info.id).blocks
    assert blocks, "some came"
    assert acknowledged <= set(blocks)
    assert sorted(blocks) == list(range(len(blocks)))
    wanted = frames_of(info, 0, len(blocks))
    assert b"".join(blocks[index].data.tobytes() for index in sorted(blocks)) == wanted.data.tobytes()


def test_a_wrong_ticket_over_tls_is_answered_by_name(serve: Serve, reach: Callable[..., RemoteStore]) -> None:
    server = serve(certificates().server)
    remote = reach(server, certificates().client)
    info = stream(remote)
    (offer,) = [each for each in remote._lane_offers(info.id) if kind_of(each.address) == "tls"]
    with pytest.raises(PermissionRefused, match="ticket"):
        LaneAppend(
            resolved(offer.address, remote.address), bytes(32), info.id, print, print, print, certificates().client
        )
    idle(server)


# ------------------------------------------------------------------------------------------------------ the socket


def pair() -> tuple[TlsSocket, TlsSocket]:
    ours, theirs = socket.socketpair()
    server_context, client_context = certificates().server.context(), certificates().client.context()
    found: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: found.append(server_context.wrap_socket(ours, server_side=True)))
    thread.start()
    client = client_context.wrap_socket(theirs, server_hostname="localhost")
    thread.join()
    return TlsSocket(found[0]), TlsSocket(client)


def test_both_ways_at_once_every_byte_comes_in_its_place() -> None:
    """Four threads, two on each end; sizes around those of TLS's records and of what is written at once."""
    one, other = pair()
    rng = random.Random(7)
    sizes = [0, 1, 16383, 16384, 16385, limits.LANE_TLS_BYTES + 1, *(rng.randrange(1 << 20) for _ in range(12))]
    sent = [rng.randbytes(size) for size in sizes]
    got: dict[str, list[bytes]] = {"one": [], "other": []}

    def send(end: TlsSocket) -> None:
        for message in sent:
            assert end.sendmsg([message[:7], message[7:]]) == len(message)

    def receive(end: TlsSocket, name: str) -> None:
        for size in sizes:
            buffer = bytearray(size)
            assert end.recv_into(buffer, size) == size
            got[name].append(bytes(buffer))

    threads = [
        threading.Thread(target=send, args=(one,)),
        threading.Thread(target=send, args=(other,)),
        threading.Thread(target=receive, args=(one, "one")),
        threading.Thread(target=receive, args=(other, "other")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert got == {"one": sent, "other": sent}
    for end in (one, other):
        end.close()


def test_patience_with_a_peer_that_neither_sends_nor_takes() -> None:
    one, other = pair()
    one.set_patience(0.05, 0.05)
    with pytest.raises(BlockingIOError):
        one.recv_into(bytearray(5), 5)
    other.sendmsg([b"abc"])
    buffer = bytearray(5)
    assert one.recv_into(buffer, 5) == 3, "what came in time"
    assert buffer[:3] == b"abc"
    with pytest.raises(TimeoutError):
        one.sendmsg([bytes(16 << 20)])
    for end in (one, other):
        end.close()


def test_whoever_waits_wakes_up_when_the_connection_is_cut() -> None:
    one, other = pair()
    ended: list[object] = []

    def receive() -> None:
        try:
            ended.append(one.recv_into(bytearray(1), 1))
        except OSError as error:
            ended.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    one.shutdown(socket.SHUT_RDWR)
    thread.join(LIMIT_S)
    assert ended
    for end in (one, other):
        end.close()


# ------------------------------------------------------------------------------------------------------ as it is served


def test_beyond_loopback_there_is_tls_or_plain_words(tmp_path: Path) -> None:
    known = certificates().server
    with pytest.raises(InvalidInput, match=r"--tls-cert.*openssl req.*--plain-network-is-trusted"):
        ServeConfig(data=tmp_path, host="0.0.0.0")
    assert ServeConfig(data=tmp_path, host="0.0.0.0", plain_network_is_trusted=True).tls is None
    config = ServeConfig(data=tmp_path, host="0.0.0.0", tls_cert=str(known.cert), tls_key=str(known.key))
    assert config.tls == known
    assert (config.http_host, ServeConfig(data=tmp_path, host="::1").http_host) == ("127.0.0.1", "::1")
    file = tmp_path / "hiss.toml"
    file.write_text(f'host = "0.0.0.0"\n[tls]\ncert = "{known.cert}"\nkey = "{known.key}"\n')
    assert ServeConfig.load(file).tls == known
    file.write_text('[tls]\ncertificate = "x"\n')
    with pytest.raises(InvalidInput, match="cert, key, client_ca"):
        ServeConfig.load(file)
    other_key = certificates().elsewhere.key
    for files, named in (
        ({"tls_cert": str(known.cert)}, "go together"),
        ({"tls_client_ca": str(known.cert)}, "go together"),
        ({"tls_cert": "nowhere.pem", "tls_key": str(known.key)}, r"nowhere\.pem"),
        ({"tls_cert": str(known.cert), "tls_key": str(other_key)}, "mismatch"),
        ({"tls_cert": str(known.key), "tls_key": str(known.key)}, "certificate"),
    ):
        with pytest.raises(InvalidInput, match=named):
            ServeConfig(data=tmp_path, **files)
    with pytest.raises(InvalidInput, match="go together"):
        ClientTls(cert=known.cert)
    with pytest.raises(InvalidInput, match="to trust"):
        ClientTls(tmp_path / "none").context()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_the_line_that_makes_a_certificate_makes_one(
    tmp_path: Path, serve: Serve, reach: Callable[..., RemoteStore]
) -> None:
    """It is its own authority: clients trust the file itself, over gRPC and on lanes."""
    subprocess.run(HOW_TO.replace("HOST", "beam.example"), shell=True, cwd=tmp_path, check=True, capture_output=True)
    server = serve(ServerTls(tmp_path / "cert.pem", tmp_path / "key.pem"))
    remote = reach(server, ClientTls(tmp_path / "cert.pem"), "tls")
    producer = Producer(remote, stream(remote).id)
    assert isinstance(producer.session, LaneAppend)
    producer.session.close()


def test_a_data_process_that_listens_to_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its users on other hosts come by TLS, lanes too, its own user by the Unix socket, without being told; a link
    carries a token, and nobody comes in plain."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("HISS_TOKEN", raising=False)
    (tmp_path / "data").mkdir()
    ca = certificates().client.ca
    with DataProcess(tmp_path / "data", tls=certificates().server) as process:
        outside = f"localhost:{process.config.port}"
        with hiss.connect(outside) as own:
            assert own.store.address.startswith("unix:")  # type: ignore[attr-defined]
            scan = own.collection("beam/scan")
            link = scan.share(["read", "write"])
        assert link.startswith(f"hiss+tls://{outside}/beam/scan#hisstok."), "for others, who come by TLS"
        with hiss.connect(link, tls=ca) as far:
            assert far.store.link.tls  # type: ignore[attr-defined]
            with far.collection("beam/scan").create_stream("s", dtype="u1", shape=(4,)) as writer:
                assert isinstance(writer._session, LaneAppend)
                assert writer._session.kind == "tls"
                writer.append(np.ones(4, "u1"))
            assert far["beam/scan/s"].index.tolist() == [0]
            with pytest.raises(PermissionRefused):
                far.collection("beam/other")
        remote = RemoteStore.connect(outside, process.token)
        with pytest.raises(Unavailable):
            remote.status()
        remote.close()
