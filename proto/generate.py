"""Write `hiss/v1` from `proto/hiss/v1`: messages and their types for Python. Calls are made from the descriptors.

    python proto/generate.py            write them
    python proto/generate.py --check    exit with 1 and name the files, if the committed ones differ

Needs grpcio-tools (`uv sync --group check`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
PACKAGE = PROTO.parent / "hiss" / "v1"
INIT = '"""The wire schema as Python code, generated from `proto/hiss/v1`; only `hiss.transport` imports it."""\n'


def generate(folder: Path) -> None:
    """Write the package into `folder`, which stands for the repository's root."""
    sources = sorted(path.relative_to(PROTO).as_posix() for path in (PROTO / "hiss" / "v1").glob("*.proto"))
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi")]
    status = protoc.main(["protoc", f"-I{PROTO}", *outputs, *sources])
    if status:
        raise SystemExit(f"protoc ended with {status}; its messages are above")
    (folder / "hiss" / "v1" / "__init__.py").write_text(INIT)


def contents(package: Path) -> dict[str, bytes]:
    """File name to content of all that is generated."""
    return {path.name: path.read_bytes() for path in package.glob("*.py*") if path.is_file()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        wanted = contents(Path(scratch) / "hiss" / "v1")
    found = contents(PACKAGE)
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if check:
        for name in different:
            print(f"hiss/v1/{name} is not what proto/ says; run `make stubs` and commit it", file=sys.stderr)
        return bool(different)
    PACKAGE.mkdir(exist_ok=True)
    for name in different:
        if name in wanted:
            (PACKAGE / name).write_bytes(wanted[name])
        else:
            (PACKAGE / name).unlink()
    print(f"{len(wanted)} files, {len(different)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
