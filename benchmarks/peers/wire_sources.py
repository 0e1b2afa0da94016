"""Servers of the peers that send what they are asked for, from memory: `wire_sources.py flight|grpc-bytes|bare-socket
[PATH]`; the first line of output is the address."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pacing


def flight() -> None:
    import pyarrow
    from pyarrow import flight as arrow

    class Source(arrow.FlightServerBase):
        def do_get(self, context: Any, ticket: Any) -> Any:
            size, count = map(int, ticket.ticket.split())
            schema = pyarrow.schema([("data", pyarrow.uint8())])

            def batches() -> Iterator[Any]:
                for block in pacing.blocks(size, count):
                    column = pyarrow.Array.from_buffers(pyarrow.uint8(), size, [None, pyarrow.py_buffer(block)])
                    yield pyarrow.record_batch([column], schema=schema)

            return arrow.GeneratorStream(schema, batches())

    server = Source("grpc://127.0.0.1:0")
    print(f"grpc://127.0.0.1:{server.port}", flush=True)
    server.serve()


def grpc_bytes() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from google.protobuf.wrappers_pb2 import BytesValue, StringValue

    def get(request: StringValue, context: Any) -> Iterator[BytesValue]:
        size, count = map(int, request.value.split())
        return (BytesValue(value=block.tobytes()) for block in pacing.blocks(size, count))

    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", -1)])
    handler = grpc.unary_stream_rpc_method_handler(
        get, request_deserializer=StringValue.FromString, response_serializer=BytesValue.SerializeToString
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench", {"Get": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


def bare_socket(path: str | None) -> None:
    if path is None:
        server = socket.create_server(("127.0.0.1", 0))
        print(f"127.0.0.1:{server.getsockname()[1]}", flush=True)
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        print(path, flush=True)

    def give(peer: socket.socket) -> None:
        while head := peer.recv(16, socket.MSG_WAITALL):
            for block in pacing.blocks(*struct.unpack("<QQ", head)):
                peer.sendall(block.data)
        peer.close()

    while True:
        peer, _ = server.accept()
        threading.Thread(target=give, args=(peer,), daemon=True).start()


if __name__ == "__main__":
    if sys.argv[1] == "bare-socket":
        bare_socket(sys.argv[2] if len(sys.argv) > 2 else None)
    else:
        {"flight": flight, "grpc-bytes": grpc_bytes}[sys.argv[1]]()
