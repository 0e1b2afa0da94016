"""`hiss --help` is instant: nothing that is slow to import is imported for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hiss.cli.reference import reference

ROOT = Path(__file__).parents[2]
SLOW = ("numpy", "grpc", "google.protobuf", "rich", "h5py", "numba", "xxhash", "sqlite3", "matplotlib", "IPython")
PROGRAM = """
import sys
from hiss.cli.main import root
try:
    root({words!r}, prog_name="hiss")
except SystemExit as leave:
    assert not leave.code, leave.code
print([name for name in {slow!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["put", "--help"], ["kernel", "--help"], ["pattern", "add", "--help"]])
def test_help_imports_nothing_slow(words: list[str]) -> None:
    program = PROGRAM.format(words=words, slow=SLOW)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("Usage: hiss")
    assert done.stderr.strip() == "[]"


def test_the_module_runs_like_the_script() -> None:
    done = subprocess.run([sys.executable, "-m", "hiss.cli", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split(",")[0]) == (0, "hiss")


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert written == reference(), "run: python -m hiss.cli.reference > docs/cli.md"
