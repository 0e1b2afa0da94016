"""`python -m benchmarks.peers [NAME ...]`: make the environments of the peers, all or those named.

What is there stays. One that cannot be made (no wheel for this machine, no network) is told and passed over. Programs
that come from the system are not installed: the line that does is told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from benchmarks.peers import ENVIRONMENTS, HOME, PROGRAMS, interpreter


def main(names: list[str]) -> int:
    uv = shutil.which("uv") or os.environ.get("UV") or str(HOME.parent / ".uv" / "bin" / "uv")
    if unknown := [name for name in names if name not in ENVIRONMENTS]:
        sys.stderr.write(f"no peers {', '.join(unknown)}: there are {', '.join(ENVIRONMENTS)}\n")
        return 2
    for name in names or list(ENVIRONMENTS):
        if interpreter(name) is not None:
            continue
        directory = HOME / name
        try:
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(directory)], check=True)
            python = str(directory / "bin" / "python")
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *ENVIRONMENTS[name]], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(directory, ignore_errors=True)
            sys.stderr.write(f"the peers {name} cannot be installed here: {error}\n")
    for program, line in PROGRAMS.items():
        if shutil.which(program) is None:
            sys.stderr.write(f"the peer {program} is not here: {line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
