"""Our consumer, in a process of its own: `python -m benchmarks.consumer ADDRESS LANE`, with HISS_TOKEN. Tasks are
`pacing`'s; `path` names the stream that is read, whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hiss
from benchmarks.peers import pacing


def main(address: str, lane: str) -> None:
    with hiss.connect(address, lane=lane) as buffer:

        @contextmanager
        def prepared(task: dict[str, Any]) -> Iterator[pacing.Work]:
            stream = buffer[task["path"]]
            yield lambda: sum(block.data.nbytes for block in stream)

        pacing.serve(prepared)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
