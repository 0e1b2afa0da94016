"""Consumers of the peers: `wire_consumers.py KIND ADDRESS`, a process each; `pacing` has the tasks.

KIND is `bare-socket`, `flight`, `grpc-bytes`, whose servers (`wire_sources.py`) send as many blocks as they are asked
for from memory, or `redis-set`, which gets blocks that were set before.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pacing

_KEPT = 8


def bare_socket(address: str) -> Callable[[int, int], int]:
    peer = socket.socket(socket.AF_UNIX if address.startswith("/") else socket.AF_INET)
    host, _, port = address.rpartition(":")
    peer.connect(address if address.startswith("/") else (host, int(port)))

    def take(size: int, count: int) -> int:
        peer.sendall(struct.pack("<QQ", size, count))
        block = bytearray(size)
        return sum(peer.recv_into(block, size, socket.MSG_WAITALL) for _ in range(count))

    return take


def flight(address: str) -> Callable[[int, int], int]:
    from pyarrow import flight as arrow

    client = arrow.connect(address)

    def take(size: int, count: int) -> int:
        return sum(chunk.data.num_rows for chunk in client.do_get(arrow.Ticket(f"{size} {count}")))

    return take


def grpc_bytes(address: str) -> Callable[[int, int], int]:
    import grpc
    from google.protobuf.wrappers_pb2 import BytesValue, StringValue

    channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    call = channel.unary_stream(
        "/bench/Get", request_serializer=StringValue.SerializeToString, response_deserializer=BytesValue.FromString
    )
    return lambda size, count: sum(len(reply.value) for reply in call(StringValue(value=f"{size} {count}")))


def redis(address: str) -> Callable[[int, int], int]:
    import redis as library

    client = library.Redis(unix_socket_path=address)
    there: set[int] = set()

    def take(size: int, count: int) -> int:
        if size not in there:
            for number, block in enumerate(pacing.blocks(size, _KEPT)):
                client.set(f"get{os.getpid()}-{size}-{number}", memoryview(block))
            there.add(size)
        return sum(len(client.get(f"get{os.getpid()}-{size}-{number % _KEPT}")) for number in range(count))

    return take


KINDS: dict[str, Callable[[str], Callable[[int, int], int]]] = {
    "bare-socket": bare_socket,
    "flight": flight,
    "grpc-bytes": grpc_bytes,
    "redis-set": redis,
}


def main(kind: str, address: str) -> None:
    take = KINDS[kind](address)

    @contextmanager
    def prepared(task: dict[str, Any]) -> Iterator[pacing.Work]:
        take(task["size"], 1)  # what is made once is made
        yield lambda: take(task["size"], task["count"])

    pacing.serve(prepared)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
