"""A buffer in a process of its own, to be killed: `python data_process.py DIRECTORY ADDRESS LINE`."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.node import Node
from hiss.transport.server import GrpcServer


def main(directory: str, address: str, line: str) -> None:
    node = Node(Path(directory), StorageOptions(arena_bytes=16 * MiB, segment_bytes=4 * MiB), backend="numpy")
    tokens = Access.of_directory(Path(directory))
    server = GrpcServer(
        [address],
        store_for=lambda caller: LocalStore(node, caller),
        authenticate=lambda token, peer: tokens.authenticate(token, time.time_ns(), peer),
        lanes=[f"unix:{line}.lane"],
        line=f"unix:{line}",
    )
    server.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
