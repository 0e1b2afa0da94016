"""The smallest workflow: a text gets a line, and what comes of that gets another one.

    python examples/meow_foundational/append_twice.py [--data DIRECTORY]

One recipe, two patterns. Neither pattern knows of the other: what the first one's job writes is what the second one
waits for. (The foundational example of D. Marchant's thesis on MEOW, Copenhagen 2021.)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import hiss

TEXT = "The first line was here before.\n"


def append(input, line, outfile):  # type: ignore[no-untyped-def]
    """The recipe: the text with one more line."""
    text = bytes(input.latest().data).decode()
    return {"outfile": f"{text}{line}\n".encode()}


def add_rules(buf: hiss.Buffer) -> None:
    buf.meow.add(hiss.Recipe("append", append))
    buf.meow.add(
        hiss.Pattern(
            "once",
            trigger="text/start/*",
            recipe="append",
            variables={"line": "A line from the first job."},
            outputs={"outfile": "{VGRID}/middle/{FILENAME}"},
        )
    )
    buf.meow.add(
        hiss.Pattern(
            "twice",
            trigger="text/middle/*",
            recipe="append",
            variables={"line": "A line from the second job."},
            outputs={"outfile": "{VGRID}/end/{FILENAME}"},
        )
    )


def put_text(buf: hiss.Buffer, name: str, text: str) -> None:
    """Store a text as a stream of one opaque block; sealing it is what starts the workflow."""
    with buf.collection("text/start").create_stream(name, new_version=True) as stream:
        stream.append(text.encode())


def wait_for_jobs(buf: hiss.Buffer, count: int, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not (len(jobs := buf.meow.jobs()) == count and all(job.state.final for job in jobs)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{[(job.pattern, job.state.name, job.error) for job in jobs]} after {timeout_s} s")
        time.sleep(0.02)


def main(data: Path) -> None:
    with hiss.open(data) as buf:
        add_rules(buf)
        put_text(buf, "note.txt", TEXT)
        wait_for_jobs(buf, 2)
        for job in reversed(buf.meow.jobs()):
            print(
                f"{job.pattern:6} {job.state.name.lower():5} {job.path} -> {', '.join(ref.path for ref in job.writes)}"
            )
        print()
        print(bytes(buf["text/end/note.txt"].latest().data).decode(), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the buffer's directory; a temporary one by default")
    given = parser.parse_args()
    if given.data is not None:
        main(given.data)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
