"""HTTP for operators over real sockets: who may ask, what comes back, pictures, metrics, the process under `serve`."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss import limits
from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.config import EXIT_UNUSABLE, ServeConfig
from hiss.errors import InvalidInput, PortInUse
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.node import Node
from hiss.operators import installed
from hiss.supervisor import Supervisor, serve
from hiss.testing.processes import Served, free_port
from hiss.testing.waiting import wait_for
from hiss.transport import GrpcServer, RemoteStore

pytest.importorskip("starlette", reason=installed.INSTALL)
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from hiss.operators.app import Health
from hiss.operators.picture import SIDE_MAX, png_of
from hiss.operators.server import HttpServer, bind


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.body))


def get(port: int, path: str, token: str | None = None, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, headers=sent)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


@dataclass
class Site:
    port: int
    token: str
    node: Node
    server: GrpcServer
    tokens: Access

    @property
    def buffer(self) -> Buffer:
        return Buffer(LocalStore(self.node))

    def get(self, path: str, **options: Any) -> Answer:
        return get(self.port, path, options.pop("token", self.token), **options)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """HTTP in front of a data process's server, without a rule engine."""
    options = StorageOptions(arena_bytes=32 * MiB, segment_bytes=16 * MiB)
    node = Node(tmp_path / "data", options, backend="numpy")
    tokens = Access.of_directory(node.directory)
    address = f"unix:{tmp_path / 'data.sock'}"
    server = GrpcServer(
        [address],
        store_for=lambda caller: LocalStore(node, caller),
        authenticate=lambda token, peer: tokens.authenticate(token, 0, peer),
    )
    server.start()
    listener = bind("127.0.0.1", 0)
    web = HttpServer(
        listener,
        lambda token: RemoteStore.connect(address, token),
        tokens.owner_token,
        node.directory,
        "beamline.example",
    )
    thread = threading.Thread(target=web.run, name="http")
    thread.start()
    yield Site(web.port, tokens.owner_token, node, server, tokens)
    web.stop()
    thread.join(60)
    assert not thread.is_alive()
    server.stop(5.0)
    node.close()


def store(buffer: Buffer, name: str, block: Any, **stream: Any) -> None:
    with buffer.collection("scan").create_stream(name, **stream) as s:
        s.append(block)


# ------------------------------------------------------------------------------------------------------ who may ask


@pytest.mark.parametrize("path", ["/", "/metrics", "/latest/scan/s.png", "/latest/scan/s"])
def test_a_token_is_needed(site: Site, path: str) -> None:
    store(site.buffer, "s", np.zeros((4, 4), "u1"), dtype="u1", shape=(4, 4))
    for token in (None, "wrong", "wr\u00f6ng", "x" * 2000, ""):
        answer = site.get(path, token=token)
        assert answer.status == 401, token
        assert answer.headers.get_all("WWW-Authenticate") == ['Basic realm="hiss"', 'Bearer realm="hiss"']
        assert site.token not in answer.body.decode()
    assert site.get(path).status == 200
    basic = base64.b64encode(f"anybody:{site.token}".encode()).decode()
    assert site.get(path, token=None, Authorization=f"Basic {basic}").status == 200, "as browsers send it"
    assert site.get(path, token=None, Authorization="Basic !!").status == 401


def test_a_jobs_token_is_a_token_until_it_ends(site: Site) -> None:
    good, over = (site.tokens.job_token("a" * 32 + ".1", "scan", until_ns) for until_ns in (1, -1))
    assert site.get("/metrics", token=good).status == 200
    assert site.get("/metrics", token=over).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:5080"}, 200),
        ({"Host": "beamline.example"}, 200),
        ({"Host": "[::1]:5080"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:5080"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:5080", "Origin": "http://localhost:5080"}, 200),
        ({"Host": "localhost:5080", "Origin": "http://localhost:9999"}, 403),
        ({"Host": "localhost:5080", "Origin": "https://evil.example"}, 403),
        ({"Host": "localhost:5080", "Origin": "null"}, 403),
    ],
)
def test_what_is_for_another_host_or_from_another_site_is_refused(
    site: Site, headers: dict[str, str], status: int
) -> None:
    for path in ("/metrics", "/healthz"):
        answer = site.get(path, **headers)
        assert answer.status in ({200, 503} if status == 200 else {403}), (path, answer.body)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_nothing_can_be_changed_and_nothing_else_is_there(site: Site) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert site.get("/", method=method).status == 405
    for path in ("/nothing", "/latest", "/latest/scan/none.png", "/latest/../../etc/passwd", "/latest/%2e%2e/x.png"):
        assert site.get(path).status in (400, 404), path


def test_the_tokens_connections_are_bounded(site: Site) -> None:
    for number in range(limits.HTTP_TOKENS_MAX + 5):
        token = site.tokens.job_token(f"{number:032x}.1", "scan", 1)
        assert site.get("/metrics", token=token).status == 200
    assert site.get("/metrics").status == 200


# ------------------------------------------------------------------------------------------------------ pictures


def test_the_newest_block_of_an_open_stream_is_a_picture(site: Site) -> None:
    s = site.buffer.collection("scan").create_stream("cam", dtype="uint16", shape=(300, 400), ack="written")
    assert site.get("/latest/scan/cam.png").status == 404, "no block yet"
    frame = np.tile(np.arange(400, dtype="uint16"), (300, 1)) * 100
    for turn in range(2):
        s.append(frame if turn else frame[:, ::-1])
        s.flush()
        answer = site.get("/latest/scan/cam.png")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Hiss-Index"] == str(turn)
        picture = np.asarray(answer.image)
        assert picture.shape == (300, 400)
        left, right = picture[:, 0].mean(), picture[:, -1].mean()
        assert (left < 5 and right > 250) if turn else (left > 250 and right < 5), "the newest"
    page = site.get("/latest/scan/cam").body.decode()
    assert 'src="/latest/scan/cam.png"' in page
    assert "refresh" in page
    s.close()
    assert "refresh" not in site.get("/latest/scan/cam").body.decode(), "nothing is to come"


def test_a_hot_pixel_and_nan_do_not_hide_the_frame() -> None:
    frame = np.tile(np.linspace(0.0, 10.0, 300, dtype="f4"), (300, 1))
    frame[5, 5], frame[6, 6] = 1e9, np.nan
    picture = np.asarray(Image.open(io.BytesIO(png_of(frame))))
    assert picture[100, 20] < 40
    assert picture[100, -20] > 215
    assert (picture[5, 5], picture[6, 6]) == (255, 0)


@pytest.mark.parametrize(
    ("block", "size"),
    [
        (np.zeros((), "f8"), (800, 300)),
        (np.arange(5000.0), (800, 300)),
        (np.full(3, np.nan), (800, 300)),
        (np.ones((1, 1), "i8"), (256, 256)),
        (np.zeros((3, 40), bool), (240, 18)),
        (np.ones((4, 300, 500), "u2"), (500, 300)),
        (np.zeros((300, 300), "c16"), (300, 300)),
        (np.zeros((300, 280, 3), "u1"), (280, 300)),
        (np.full((300, 300), np.inf), (300, 300)),
        (np.zeros((3 * SIDE_MAX, 2 * SIDE_MAX), "u1"), (SIDE_MAX * 2 // 3, SIDE_MAX)),
    ],
)
def test_every_shape_has_a_picture(block: Any, size: tuple[int, int]) -> None:
    found = Image.open(io.BytesIO(png_of(block))).size
    assert abs(found[0] - size[0]) <= 2
    assert abs(found[1] - size[1]) <= 2


def test_a_row_is_a_line_whose_peaks_stay() -> None:
    row = np.zeros(100_000)
    row[50_000] = 7.0
    picture = np.asarray(Image.open(io.BytesIO(png_of(row))))
    assert (picture[30:40, 380:420] == 0).any(), "one value of a hundred thousand is seen"


def test_pictures_of_jobs_are_handed_on_and_other_bytes_are_not(site: Site) -> None:
    picture = png_of(np.eye(300))
    store(site.buffer, "made", picture, dtype=None)
    store(site.buffer, "page", b"<script>alert(1)</script>", dtype=None)
    assert site.get("/latest/scan/made.png").body == picture
    assert site.get("/latest/scan/page.png").status == 400
    for empty in (b"", np.zeros((0, 3))):
        with pytest.raises(InvalidInput):
            png_of(empty)


# ------------------------------------------------------------------------------------------------------ pages, health


def test_the_page_lists_streams_newest_first_and_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_STREAMS_MAX", 3)
    for name in ("one", "two", "three"):
        store(site.buffer, name, np.zeros(2, "u1"), dtype="u1", shape=(2,))
    s = site.buffer.collection("scan").create_stream("open", dtype="u1", shape=(2,))
    page = site.get("/").body.decode()
    links = [part.partition('"')[0] for part in page.split('href="/latest/')[1:]]
    assert links == ["scan/open", "scan/three", "scan/two"]
    assert "1 older streams are not shown" in page
    assert "default-src 'none'" in site.get("/").headers["Content-Security-Policy"]
    s.close()


def test_health_says_what_does_not_answer(site: Site) -> None:
    answer = site.get("/healthz", token=None)
    assert answer.status == 503
    assert answer.json == {"data": "ok", "rules": "HissError", "disk": "ok"}, "this one has no rule engine"


def test_health_is_looked_at_once_a_second_whoever_asks(site: Site, tmp_path: Path) -> None:
    now_s = [0.0]
    looks: list[float] = []

    class Counted(LocalStore):
        def reservations(self) -> Any:
            looks.append(now_s[0])
            return super().reservations()

    health = Health(Counted(site.node), tmp_path, lambda: now_s[0])
    for seconds in (0.0, 0.5, 0.9, 1.0, 1.5):
        now_s[0] = seconds
        assert health.look()["data"] == "ok"
    assert looks == [0.0, 1.0]


def test_a_data_process_that_is_gone_is_unavailable(site: Site) -> None:
    assert site.get("/metrics").status == 200
    site.server.stop(0)
    assert site.get("/metrics").status == 503
    wait_for(lambda: site.get("/healthz").json["data"] != "ok")


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortInUse, match="--http PORT"):
        bind("127.0.0.1", taken.getsockname()[1])


# ------------------------------------------------------------------------------------------------------ metrics


@hiss.filter
def lit(frame, least=5):  # type: ignore[no-untyped-def]
    return np.max(frame) >= least


def metrics_of(answer: Answer) -> dict[str, Any]:
    """Values by name and labels, as a scraper reads them."""
    assert answer.status == 200
    return {
        (sample.name, *sorted(sample.labels.values())) if sample.labels else sample.name: sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_metrics_tell_of_blocks_and_kernels(site: Site) -> None:
    kernel = site.buffer.register(lit)
    stream = {"dtype": "u1", "shape": (4,), "kernels": [lit]}
    with site.buffer.collection("scan").create_stream("s", **stream) as s:
        for level in (0, 9, 9, 0):
            s.append(np.full(4, level, "u1"))
    with site.buffer.collection("scan").create_stream("t", dtype="u1", shape=(4,)) as s:
        found = metrics_of(site.get("/metrics"))
    assert found["hiss_received_blocks_total"] == 4
    assert found["hiss_received_bytes_total"] == 16
    assert (found["hiss_streams"], found["hiss_streams_open"], found["hiss_collections"]) == (2, 1, 1)
    assert 0 < found["hiss_arena_free_bytes"] <= found["hiss_arena_bytes"] == 32 * MiB
    assert found["hiss_log_bytes"] > 0
    assert found["hiss_room_bytes"] > 0
    assert found["hiss_events_total"] == 1
    assert found["hiss_rules_up"] == 0
    labels = sorted([kernel.hash[:12], "lit"])
    assert found["hiss_kernel_blocks_total", *labels] == 4
    assert found["hiss_kernel_vetoed_blocks_total", *labels] == 2
    assert found["hiss_kernel_faults_total", *labels] == 0
    assert found["hiss_kernel_seconds_total", *labels] > 0


def test_metrics_of_many_kernels_are_summed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METRICS_KERNELS_MAX", 2)
    for least in range(4):
        source = lit.definition.source.replace("least=5", f"least={least}")
        bound = hiss.model.BoundKernel(hiss.model.KernelDef("lit", lit.definition.kind, source))
        with site.buffer.collection("scan").create_stream(f"s{least}", dtype="u1", shape=(4,), kernels=[bound]) as s:
            s.extend(np.full((10 - least, 4), 9, "u1"))
    found = {key: value for key, value in metrics_of(site.get("/metrics")).items() if "hiss_kernel_blocks_total" in key}
    assert sorted(found.values()) == [9, 10, 15], "the others together"


# ------------------------------------------------------------------------------------------------------ hiss serve


def test_serve_runs_it_beside_the_data_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Served(tmp_path / "data", tmp_path / "state", http=True) as served:
        served.wait_for("http")
        token = (served.data / "token").read_text()
        assert f"HTTP  http://127.0.0.1:{served.http}/" in served.log.read_text()
        with hiss.connect(f"localhost:{served.port}", token=token) as buffer:
            buffer.meow.add(hiss.Recipe("echo", ["echo", "{input}"]))
            buffer.meow.add(hiss.Pattern("p", trigger="scan/*", recipe="echo"))
            store(buffer, "s", np.zeros((3, 3), "u1"), dtype="u1", shape=(3, 3))
            wait_for(lambda: settled(metrics_of(get(served.http, "/metrics", token))), 120)
        assert get(served.http, "/healthz").json == {"data": "ok", "rules": "ok", "disk": "ok"}
        served.kill("http")
        served.wait_for("http")
        wait_for(lambda: get(served.http, "/healthz").status == 200)
        assert served.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        get(served.http, "/healthz")


def settled(found: dict[str, Any]) -> bool:
    jobs = [found.get(("hiss_jobs", state)) for state in ("queued", "running", "done")]
    return jobs == [0, 0, 1] and found["hiss_events_lag"] == 0


def test_without_the_packages_serve_says_how_to_get_them_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hiss.supervisor.missing", lambda: ("starlette", "PIL"))
    roles: list[str] = []
    monkeypatch.setattr(Supervisor, "run", lambda self: roles.extend(child.role for child in self._children))
    said: list[str] = []
    serve(ServeConfig(data=tmp_path, port=free_port()), said.append)
    assert {"data", "rules"} <= set(roles)
    assert "http" not in roles
    assert "HTTP  none: starlette, PIL is not installed: pip install 'hiss[http]'" in said


def test_a_port_that_is_taken_leaves_the_buffer_without_http(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = ServeConfig(data=tmp_path / "data", port=free_port(), http=taken.getsockname()[1])
        command = [sys.executable, "-m", "hiss.server", "http", config.to_json()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == EXIT_UNUSABLE
    assert "is in use by another program" in done.stderr
