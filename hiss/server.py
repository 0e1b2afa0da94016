"""The composition root: builds a buffer's processes from the configuration and wires them together.

    hiss serve ── supervisor ─┬─ data process    Node, gRPC at host:port and DATA/run/data.sock
                              ├─ drain process   drain.DrainWorker, a client of data.sock
                              ├─ http process    operators.HttpServer at host:http, a client of data.sock
                              └─ rules process   meow_bridge.Engine, a client of data.sock; Meow service at rules.sock
                                    └─ zygote ── a keeper and a job for each attempt, a client of line.sock or data.sock

The data process does the way of the data and nothing else, and forwards calls of the Meow service to the rules process.
`open_embedded` builds the same in the user's process, with the rule engine started when it is first asked for.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiss import limits
from hiss.access import Access, socket_file, token_file, write_secret
from hiss.blocks import StorageOptions
from hiss.config import EXIT_UNUSABLE, ServeConfig, run_directory
from hiss.errors import HissError
from hiss.local import LocalStore
from hiss.node import Node
from hiss.process import StopSignal, allow_descriptors, die_with_parent, pid_file, settle_memory
from hiss.s3_options import S3Options
from hiss.store import Store
from hiss.workflow import Meow

log = logging.getLogger("hiss")

_SWITCH_INTERVAL_S = 2e-4  # a busy Python thread hands over sooner: round trips of 0.6 ms instead of 10 ms
_STOP_GRACE_S = 10.0


def storage_options(config: ServeConfig) -> StorageOptions:
    options = StorageOptions(
        segment_bytes=config.segment_bytes,
        log_bytes_max=config.log_bytes_max,
        compaction_bytes_per_s=config.compaction_bytes_per_s,
    )
    return replace(options, arena_bytes=config.arena_bytes) if config.arena_bytes else options


# ---------------------------------------------------------------------------------------------------------- processes


def run_data(config: ServeConfig) -> None:
    """The data process, until it is told to stop."""
    from hiss.transport.server import GrpcServer

    stop = StopSignal()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    settle_memory()
    allow_descriptors(limits.DESCRIPTORS_WANTED)
    node = Node(config.data, storage_options(config), backend=config.backend, retention=config.retention)
    node.readout.warm()
    run = run_directory(config.data)
    tokens = Access.of_directory(config.data, node.catalog.tokens)
    server = GrpcServer(
        [config.address, f"unix:{run / 'data.sock'}"],
        store_for=lambda caller: LocalStore(node, caller),
        authenticate=lambda token, peer: tokens.authenticate(token, time.time_ns(), peer),
        meow=f"unix:{run / 'rules.sock'}",
        lanes=[f"unix:{run / 'lane.sock'}", f"{'tls:' if config.tls else ''}{config.host}:0"],
        line=f"unix:{run / 'line.sock'}",
        is_valid=lambda caller: tokens.is_valid(caller, time.time_ns()),
        vouch=lambda caller: tokens.vouch(caller, time.time_ns()),
        tls=config.tls,
        plain_network=config.plain_network_is_trusted,
    )
    node.catalog.tokens.on_revoked = server.look_at_tokens
    server.start()
    write_secret(token_file(config.port), tokens.owner_token)
    if config.tls is not None:
        write_secret(socket_file(config.port), f"unix:{run / 'data.sock'}")
    else:
        socket_file(config.port).unlink(missing_ok=True)
    with pid_file(run / "data.pid"):
        log.info("data process %d: %s, recovery %s", os.getpid(), config.address, node.storage.recovery.attrs())
        stop.wait()
        server.stop(_STOP_GRACE_S)
        node.close()


def run_rules(config: ServeConfig) -> None:
    """The rule engine's process, until it is told to stop."""
    from hiss.meow_bridge import Engine
    from hiss.transport.remote import RemoteStore
    from hiss.transport.server import GrpcServer

    stop = StopSignal()
    run = run_directory(config.data)
    tokens = Access.of_directory(config.data)
    address = f"unix:{run / 'data.sock'}"
    line = run / "line.sock"
    store = RemoteStore.connect(address, tokens.owner_token, line=str(line))
    elsewhere = None if config.executor == "local" else _dask_executor(config.executor.removeprefix("dask:"))
    here = job_environment(address, tokens, line=line)
    environment = here if elsewhere is None else job_environment(config.address, tokens)
    engine = Engine(config.data, store, environment, jobs_at_once=config.jobs_at_once, executor=elsewhere)
    server = GrpcServer(
        [f"unix:{run / 'rules.sock'}"],
        store_for=None,
        authenticate=lambda token, peer: tokens.authenticate(token, time.time_ns(), peer),
        meow=engine,
    )
    engine.start()
    server.start()
    with pid_file(run / "rules.pid"):
        stop.wait()
        server.stop(1.0)
        engine.stop()
        store.close()


def run_drain(config: ServeConfig) -> None:
    """The process that drains by itself, until it is told to stop."""
    from hiss.drain.worker import DrainWorker
    from hiss.transport.remote import RemoteStore

    stop = StopSignal()
    run = run_directory(config.data)
    tokens = Access.of_directory(config.data)
    store = RemoteStore.connect(f"unix:{run / 'data.sock'}", tokens.owner_token)
    worker = DrainWorker(store, config.data / "drain", S3Options.of_environment(os.environ))
    thread = threading.Thread(target=worker.run, name="hiss drain", daemon=True)  # a call of S3's may take minutes
    with pid_file(run / "drain.pid"):
        thread.start()
        stop.wait()
        worker.stop()
        thread.join(_STOP_GRACE_S)
        store.close()


def run_http(config: ServeConfig) -> None:
    """HTTP for operators, until it is told to stop."""
    from hiss.operators.server import HttpServer, bind
    from hiss.transport.remote import RemoteStore

    run = run_directory(config.data)
    listener = bind(config.http_host, config.http)
    address = f"unix:{run / 'data.sock'}"
    tokens = Access.of_directory(config.data)
    server = HttpServer(
        listener,
        lambda token: RemoteStore.connect(address, token),
        tokens.owner_token,
        config.data,
        config.http_host,
    )
    with pid_file(run / "http.pid"):
        server.run()


def _dask_executor(scheduler: str) -> Callable[[Path, int], Any]:
    def connect(directory: Path, jobs_at_once: int) -> Any:
        from hiss.meow_bridge.dask_executor import DaskExecutor

        return DaskExecutor(scheduler)

    return connect


def job_environment(
    address: str, tokens: Access, *, line: Path | None = None
) -> Callable[[str, str, Sequence[str]], Mapping[str, str]]:
    """What a job's process finds in its environment: where the buffer is, and a token for its attempt."""
    places = {"HISS_ADDRESS": address} | ({} if line is None else {"HISS_LINE": str(line)})

    def environment(attempt: str, write_prefix: str, rights: Sequence[str]) -> Mapping[str, str]:
        until_ns = time.time_ns() + int((limits.JOB_TIMEOUT_MAX_S + 86400) * 1e9)
        return {**places, "HISS_TOKEN": tokens.job_token(attempt, write_prefix, until_ns, rights)}

    return environment


# ---------------------------------------------------------------------------------------------------------- embedded


class _Embedded:
    """A node in the user's process, and its rule engine from the moment that somebody asks for it."""

    def __init__(
        self, data: Path, options: StorageOptions, backend: str, engine_options: Mapping[str, Any] | None = None
    ) -> None:
        self._data = data
        self._engine_options = dict(engine_options or {})
        self._node = Node(data, options, backend=backend)
        self._lock = threading.Lock()
        self._engine: Meow | None = None
        self._stops: list[Callable[[], None]] = []

    def store(self) -> LocalStore:
        return LocalStore(self._node, meow=self._meow, on_close=self._close)

    def _meow(self) -> Meow:
        with self._lock:
            if self._engine is None:
                self._engine = self._start_engine()
            return self._engine

    def _start_engine(self) -> Meow:
        """Start the engine, and a server on a Unix socket for the processes of its jobs."""
        from hiss.meow_bridge import Engine
        from hiss.transport.server import GrpcServer

        tokens = Access.of_directory(self._data, self._node.catalog.tokens)
        run = run_directory(self._data)
        address, line = f"unix:{run / 'data.sock'}", run / "line.sock"
        environment = job_environment(address, tokens, line=line)
        engine = Engine(self._data, LocalStore(self._node), environment, **self._engine_options)
        server = GrpcServer(
            [address],
            store_for=lambda caller: LocalStore(self._node, caller),
            authenticate=lambda token, peer: tokens.authenticate(token, time.time_ns(), peer),
            meow=engine,
            lanes=[f"unix:{run / 'lane.sock'}"],
            line=f"unix:{line}",
            is_valid=lambda caller: tokens.is_valid(caller, time.time_ns()),
        )
        self._node.catalog.tokens.on_revoked = server.look_at_tokens
        server.start()
        engine.start()
        self._stops = [engine.stop, lambda: server.stop(1.0)]
        return engine

    def _close(self) -> None:
        with self._lock:
            stops, self._stops = self._stops, []
        for stop in stops:
            stop()
        self._node.close()


def open_embedded(
    data: Path, options: StorageOptions, backend: str, engine_options: Mapping[str, Any] | None = None
) -> Store:
    """A buffer in this process; `engine_options` are keywords of its rule engine's."""
    return _Embedded(data.absolute(), options, backend, engine_options).store()


def main(role: str, text: str) -> int:
    """A process of the supervisor's: `python -m hiss.server data|rules|drain|http CONFIG-AS-JSON`."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    config = ServeConfig.from_json(text)
    try:
        {"data": run_data, "rules": run_rules, "drain": run_drain, "http": run_http}[role](config)
    except HissError as error:
        sys.stderr.write(f"hiss: {error}\n")
        return EXIT_UNUSABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
