"""The HTTP application: routes, tokens, what may come from where.

    /            the streams, with links                      /latest/COLLECTION/STREAM.png   the newest block
    /metrics     for Prometheus                               /latest/COLLECTION/STREAM       a page that shows it
    /healthz     data process, rule engine, disk; no token

The token of a request (`Authorization: Bearer TOKEN`, or Basic with the token as the password, as browsers send it) is
passed on: each request asks the data process as its caller, and what that one may not see it does not see here. A
request must be for a host that this server is known by, and come from no other site. Endpoints run in threads, at most
`limits.HTTP_CONNECTIONS_MAX` at a time.
"""

from __future__ import annotations

import base64
import binascii
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hiss import limits
from hiss.client import Buffer
from hiss.errors import (
    Conflict,
    Exhausted,
    HissError,
    InvalidInput,
    NotFound,
    PermissionRefused,
    Unavailable,
)
from hiss.operators.metrics import exposition
from hiss.operators.page import index_page, latest_page
from hiss.operators.picture import png_of
from hiss.store import Store

_STATUS: Final[tuple[tuple[type[HissError], int], ...]] = (
    (PermissionRefused, 401),
    (NotFound, 404),
    (InvalidInput, 400),
    (Conflict, 409),
    (Unavailable, 503),
    (Exhausted, 503),
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_CHALLENGES: Final = ('Basic realm="hiss"', 'Bearer realm="hiss"')  # browsers look at the first header of them only

Connect = Callable[[str], Store]  # with a token


class Stores:
    """Connections to the data process, one for each token; the longest unused goes first."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._stores: OrderedDict[str, Store] = OrderedDict()

    def of(self, token: str) -> Store:
        with self._lock:
            if token not in self._stores:
                self._stores[token] = self._connect(token)
            self._stores.move_to_end(token)
            gone = self._stores.popitem(last=False)[1] if len(self._stores) > limits.HTTP_TOKENS_MAX else None
            found = self._stores[token]
        if gone is not None:
            gone.close()
        return found

    def drop(self, token: str) -> None:
        """It is no token of this buffer."""
        with self._lock:
            gone = self._stores.pop(token, None)
        if gone is not None:
            gone.close()

    def close(self) -> None:
        with self._lock:
            stores, self._stores = list(self._stores.values()), OrderedDict()
        for store in stores:
            store.close()


class Health:
    """Whether all is well, looked at once a second at most, whoever asks."""

    def __init__(self, store: Store, data: Path, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._data = data
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._looked_s = -limits.HTTP_HEALTH_S
        self._found: dict[str, str] = {}

    def look(self) -> dict[str, str]:
        """Of each part `ok`, or what is wrong with it."""
        with self._lock:
            if self._clock_s() - self._looked_s >= limits.HTTP_HEALTH_S:
                self._found = {
                    "data": _said(lambda: self._store.reservations()),
                    "rules": _said(lambda: self._store.meow.counts()),
                    "disk": self._disk(),
                }
                self._looked_s = self._clock_s()
            return self._found

    def _disk(self) -> str:
        free = shutil.disk_usage(self._data).free
        return "ok" if free >= limits.HTTP_DISK_FREE_BYTES else f"{free} bytes free"


def _said(ask: Callable[[], Any]) -> str:
    try:
        ask()
    except HissError as error:
        return type(error).__name__
    return "ok"


class Operators:
    """The endpoints."""

    def __init__(self, connect: Connect, owner_token: str, data: Path) -> None:
        self._stores = Stores(connect)
        self._own = connect(owner_token)
        self._health = Health(self._own, data)

    def close(self) -> None:
        self._stores.close()
        self._own.close()

    def routes(self) -> list[Route]:
        return [
            Route("/", self._with_store(self.index)),
            Route("/metrics", self._with_store(self.metrics)),
            Route("/healthz", self.healthz),
            Route("/latest/{path:path}", self._with_store(self.latest)),
        ]

    def _with_store(self, endpoint: Callable[[Request, Store], Response]) -> Callable[[Request], Response]:
        def serve(request: Request) -> Response:
            token = token_of(request.headers)
            try:
                if token is None:
                    raise PermissionRefused(
                        "this page asks for a token: Authorization: Bearer TOKEN, or as the password of any user; "
                        "its owner finds it in the data directory, file 'token'"
                    )
                return endpoint(request, self._stores.of(token))
            except HissError as error:
                if isinstance(error, PermissionRefused) and token is not None:
                    self._stores.drop(token)
                return _failure(error)

        return serve

    def index(self, request: Request, store: Store) -> Response:
        found = [info for one in store.collections() for info in store.streams(one.path) if info.raw_of is None]
        found.sort(key=lambda info: (info.state.final, -info.created_ns))
        shown = found[: limits.HTTP_STREAMS_MAX]
        return HTMLResponse(index_page(store.status(), shown, len(found) - len(shown)))

    def metrics(self, request: Request, store: Store) -> Response:
        return Response(exposition(store), media_type=_METRICS_TYPE)

    def healthz(self, request: Request) -> Response:
        found = self._health.look()
        return JSONResponse(found, 200 if set(found.values()) == {"ok"} else 503)

    def latest(self, request: Request, store: Store) -> Response:
        path: str = request.path_params["path"]
        if not path.endswith(".png"):
            return HTMLResponse(latest_page(store.stream(path)))
        stream = Buffer(store).stream(path.removesuffix(".png"))
        block = stream.latest()
        if block is None:
            raise NotFound(f"stream {stream.path} has no block yet")
        return Response(
            png_of(block.data),
            media_type="image/png",
            headers={"X-Hiss-Index": str(block.index), "X-Hiss-Time-Ns": str(block.time_ns)},
        )


def token_of(headers: Headers) -> str | None:
    """The token that a request shows; None for none."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return _checked(rest.strip())
    if scheme.lower() == "basic":
        try:
            return _checked(base64.b64decode(rest, validate=True).decode().partition(":")[2])
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def _checked(token: str) -> str | None:
    good = token.isascii() and token.isprintable() and 0 < len(token) <= limits.TOKEN_CHARS_MAX
    return token if good else None


def _failure(error: HissError) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    response = JSONResponse({"error": type(error).__name__, "message": error.message}, status)
    for challenge in _CHALLENGES if status == 401 else ():
        response.headers.append("WWW-Authenticate", challenge)
    return response


class Guard:
    """Refuses what is meant for another host, or comes from another site; names what browsers may do with the rest."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        wrong = self._wrong(headers)

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        if wrong:
            await JSONResponse({"error": "PermissionRefused", "message": wrong}, 403)(scope, receive, sending)
        else:
            await self._app(scope, receive, sending)

    def _wrong(self, headers: Headers) -> str:
        host = _name(f"//{headers.get('host', '')}")
        if host not in self._hosts:
            return f"this server is not {host[:80]!r}; it is {', '.join(sorted(self._hosts))}"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            return "a page of another site asks; this server answers its own pages only"
        return ""


def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def application(operators: Operators, hosts: Iterable[str]) -> ASGIApp:
    """The application, for a server that is known by the names `hosts`."""
    routes = Starlette(routes=operators.routes())
    routes.router.redirect_slashes = False
    return Guard(routes, hosts)
