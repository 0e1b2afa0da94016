"""Producers of the peers: `wire_producers.py KIND ADDRESS [AUTHORITY]`, a process each; `pacing` has the tasks.

KIND is `flight`, `redis-set`, `redis-xadd`, `nats`, `pvapy`, `grpc-bytes`, `bare-socket`, `bare-socket-tls`. Each is
as fast as its library makes it without special cases: what is smaller than 64 KiB goes to Redis in pipelines, NATS has
16 messages under way.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pacing

_SMALL = 64 << 10
_UNDER_WAY = 16
_KEPT = 8  # blocks that Redis keeps: more would fill the machine's memory


def flight(address: str) -> Callable[[int, int], int]:
    import pyarrow
    from pyarrow import flight as arrow

    client = arrow.connect(address)

    def send(size: int, count: int) -> int:
        schema = pyarrow.schema([("data", pyarrow.uint8())])
        writer, _ = client.do_put(arrow.FlightDescriptor.for_path("bench"), schema)
        for block in pacing.blocks(size, count):
            column = pyarrow.Array.from_buffers(pyarrow.uint8(), size, [None, pyarrow.py_buffer(block)])
            writer.write_batch(pyarrow.record_batch([column], schema=schema))
        writer.close()
        return size * count

    return send


def redis(address: str, command: str) -> Callable[[int, int], int]:
    import redis as library

    client = library.Redis(unix_socket_path=address)
    key = f"bench{os.getpid()}"

    def one(target: Any, number: int, block: Any) -> None:
        if command == "set":
            target.set(f"{key}-{number % _KEPT}", memoryview(block))
        else:
            target.xadd(key, {"data": memoryview(block)}, maxlen=_KEPT, approximate=False)

    def send(size: int, count: int) -> int:
        pipe = client.pipeline(transaction=False) if size < _SMALL else None
        for number, block in enumerate(pacing.blocks(size, count)):
            one(pipe if pipe is not None else client, number, block)
            if pipe is not None and number % 100 == 99:
                pipe.execute()
        if pipe is not None:
            pipe.execute()
        return size * count

    return send


def nats(address: str) -> Callable[[int, int], int]:
    import nats as library

    loop = asyncio.new_event_loop()
    subject = f"bench{os.getpid()}"

    async def begin() -> Any:
        client = await library.connect(address, pending_size=256 << 20)
        stream = client.jetstream()
        await stream.add_stream(name=subject, subjects=[subject], storage="file", max_bytes=1 << 30, discard="old")
        return stream

    stream = loop.run_until_complete(begin())

    async def send_all(size: int, count: int) -> int:
        places = asyncio.Semaphore(_UNDER_WAY)

        async def one(block: bytes) -> None:
            await stream.publish(subject, block, timeout=60)
            places.release()

        tasks = []
        for block in pacing.blocks(size, count):
            await places.acquire()
            tasks.append(asyncio.ensure_future(one(block.tobytes())))
        await asyncio.gather(*tasks)
        return size * count

    return lambda size, count: loop.run_until_complete(send_all(size, count))


def pvapy(_: str) -> Callable[[int, int], tuple[int, float]]:
    """The producer is the server here, and a monitor in a process of its own takes what it gets: some are lost."""
    import pvaccess

    name = f"bench:{os.getpid()}"
    server = pvaccess.PvaServer(name, pvaccess.PvObject({"data": [pvaccess.UBYTE]}, {"data": []}))
    command = [sys.executable, str(Path(__file__).with_name("pva_monitor.py")), name]
    monitor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert monitor.stdin is not None
    assert monitor.stdout is not None
    asks, answers = monitor.stdin, monitor.stdout
    answers.readline()

    def send(size: int, count: int) -> tuple[int, float]:
        for block in pacing.blocks(size, count):
            value = pvaccess.PvObject({"data": [pvaccess.UBYTE]})
            value["data"] = block
            server.update(value)
        asks.write("how many\n")
        asks.flush()
        arrived, last_s = answers.readline().split()
        return int(arrived) * size, float(last_s)

    return send


def grpc_bytes(address: str) -> Callable[[int, int], int]:
    import grpc
    from google.protobuf.wrappers_pb2 import BytesValue

    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    channel = grpc.insecure_channel(address, options=unlimited)
    call = channel.stream_unary(
        "/bench/Put", request_serializer=BytesValue.SerializeToString, response_deserializer=BytesValue.FromString
    )

    def send(size: int, count: int) -> int:
        call(BytesValue(value=block.tobytes()) for block in pacing.blocks(size, count))
        return size * count

    return send


def bare_socket(address: str, authority: str | None = None) -> Callable[[int, int], int]:
    """Over TLS where there is an `authority` to trust."""
    host, _, port = address.rpartition(":")
    peer = socket.socket(socket.AF_UNIX if address.startswith("/") else socket.AF_INET)
    peer.connect(address if address.startswith("/") else (host, int(port)))
    if not address.startswith("/"):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if authority is not None:
        peer = ssl.create_default_context(cafile=authority).wrap_socket(peer, server_hostname=host)

    def send(size: int, count: int) -> int:
        peer.sendall((size * count).to_bytes(8, "big"))
        for block in pacing.blocks(size, count):
            peer.sendall(block.data)
        peer.recv(1)
        return size * count

    return send


KINDS: dict[str, Callable[..., Callable[[int, int], Any]]] = {
    "flight": flight,
    "redis-set": lambda address: redis(address, "set"),
    "redis-xadd": lambda address: redis(address, "xadd"),
    "nats": nats,
    "pvapy": pvapy,
    "grpc-bytes": grpc_bytes,
    "bare-socket": bare_socket,
    "bare-socket-tls": bare_socket,
}


def main(kind: str, *where: str) -> None:
    send = KINDS[kind](*where)

    @contextmanager
    def prepared(task: dict[str, Any]) -> Iterator[pacing.Work]:
        pacing.pool(task["size"], task.get("pool", pacing.POOL_BYTES))
        if task.get("how") == "latency":
            yield lambda: latencies(send, task["size"], task["count"], task["out"])
        else:
            yield lambda: send(task["size"], task["count"])

    pacing.serve(prepared)


def latencies(send: Callable[[int, int], Any], size: int, count: int, out: str) -> int:
    """Blocks one at a time; the seconds of each go into a file."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        send(size, 1)
        seconds.append(time.perf_counter() - begin)
    pacing.np.save(out, seconds)
    return size * count


if __name__ == "__main__":
    main(*sys.argv[1:])
