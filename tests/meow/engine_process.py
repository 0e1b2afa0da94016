"""A rule engine in a process of its own, to be killed:

python engine_process.py DIRECTORY ADDRESS TOKEN-DIRECTORY [LINE]

With LINE jobs get it, and are tried again soon, and as often as it takes: whoever kills hundreds of them says so.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from hiss import limits
from hiss.access import Access
from hiss.meow_bridge import Engine
from hiss.server import job_environment
from hiss.transport.remote import RemoteStore


def main(directory: str, address: str, tokens_at: str, line: str | None = None) -> None:
    if line is not None:
        changed: Any = limits
        changed.JOB_RETRY_FIRST_S = changed.JOB_RETRY_MOST_S = 0.05
        changed.STORE_RETRY_MOST_S = 0.2
        changed.JOB_INTERRUPTIONS_MAX = 10_000
    tokens = Access.of_directory(Path(tokens_at))
    store = RemoteStore.connect(address, tokens.owner_token, line=line)
    environment = job_environment(address, tokens, line=None if line is None else Path(line))
    engine = Engine(Path(directory), store, environment)
    engine.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
