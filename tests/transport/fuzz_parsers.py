"""atheris looks for bytes that the readers of `fuzzing.py` disagree on: `python tests/transport/fuzz_parsers.py TARGET
[libFuzzer's arguments]`, such as `-runs=10000000 -seed=1`. Needs the dependency group `fuzz`.

It measures which branches of the parsers were taken, and keeps the bytes that took new ones, in the working directory.
What makes a target raise is written to `crash-*` there, and the exit status is not 0.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["hiss.transport"]):
    from transport import fuzzing

from hiss import limits

MESSAGE_BYTES_MAX = 4096  # of what is tried; all that is ours shows in less


def main(name: str, arguments: list[str]) -> None:
    limits.MESSAGE_BYTES_MAX = limits.MiB  # type: ignore[misc]  # memory that is cleared takes the time
    folder = Path(f"corpus-{name}")
    folder.mkdir(exist_ok=True)
    for number, body in enumerate(fuzzing.corpus(name)):
        (folder / f"{number}").write_bytes(body)
    atheris.Setup([sys.argv[0], str(folder), f"-max_len={MESSAGE_BYTES_MAX}", *arguments], fuzzing.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
