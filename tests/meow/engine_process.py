"""A rule engine in a process of its own, to be killed: `python engine_process.py DIRECTORY ADDRESS TOKEN-DIRECTORY`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from hiss.access import Access
from hiss.meow_bridge import Engine
from hiss.server import job_environment
from hiss.transport.remote import RemoteStore


def main(directory: str, address: str, tokens_at: str) -> None:
    tokens = Access.of_directory(Path(tokens_at))
    store = RemoteStore.connect(address, tokens.owner_token)
    engine = Engine(Path(directory), store, job_environment(address, tokens))
    engine.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
