"""Servers of the peers that throw away what comes; the first line of output is the address.

wire_sinks.py flight|grpc-bytes|bare-socket [PATH]|bare-socket-tls CERT KEY
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterator
from typing import Any


def flight() -> None:
    from pyarrow import flight as arrow

    class Sink(arrow.FlightServerBase):
        def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
            for _ in reader:
                pass

    server = Sink("grpc://127.0.0.1:0")
    print(f"grpc://127.0.0.1:{server.port}", flush=True)
    server.serve()


def grpc_bytes() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from google.protobuf.wrappers_pb2 import BytesValue

    def put(requests: Iterator[BytesValue], context: Any) -> BytesValue:
        for request in requests:
            assert request.value
        return BytesValue()

    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(16), options=unlimited)
    handler = grpc.stream_unary_rpc_method_handler(
        put, request_deserializer=BytesValue.FromString, response_serializer=BytesValue.SerializeToString
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench", {"Put": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


def bare_socket(path: str | None = None, tls: ssl.SSLContext | None = None) -> None:
    import threading

    if path is None:
        server = socket.create_server(("127.0.0.1", 0))
        print(f"127.0.0.1:{server.getsockname()[1]}", flush=True)
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        print(path, flush=True)

    def take(peer: socket.socket) -> None:
        if tls is not None:
            peer = tls.wrap_socket(peer, server_side=True)
        buffer = bytearray(8 << 20)
        while head := peer.recv(8):  # of 8 bytes that were sent at once
            left = int.from_bytes(head, "big")
            while left:
                left -= peer.recv_into(buffer, min(left, len(buffer)))
            peer.sendall(b"k")
        peer.close()

    while True:
        peer, _ = server.accept()
        threading.Thread(target=take, args=(peer,), daemon=True).start()


def bare_tls(cert: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(cert, key)
    bare_socket(tls=context)


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    {"flight": flight, "grpc-bytes": grpc_bytes, "bare-socket": bare_socket, "bare-socket-tls": bare_tls}[kind](
        *arguments
    )
