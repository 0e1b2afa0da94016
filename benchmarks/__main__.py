"""`python -m benchmarks NAME [--quick] [--json FILE]`: run one benchmark, or `all`. `ingest --kernel` is a benchmark of
its own: what kernels cost a stream. `plot RESULTS.json FIGURE.svg` draws what `ingest` wrote."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks.measure import line, machine
from benchmarks.plot import plot

NAMES = ("ingest", "egress", "latency", "small", "recovery", "kernels", "schedule", "rules", "drain", "soak")
MODULES = (NAMES[0], "ingest_kernels", *NAMES[1:])


def main() -> int:
    if sys.argv[1:2] == ["plot"]:
        if len(sys.argv) != 4:
            sys.exit("usage: python -m benchmarks plot RESULTS.json FIGURE.svg")
        plot(Path(sys.argv[2]), Path(sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all"])
    parser.add_argument("--quick", action="store_true", help="fewer bytes and rounds: a smoke test, not a figure")
    parser.add_argument("--json", type=Path, help="also write the results there")
    parser.add_argument("--kernel", action="store_true", help="with ingest: what kernels cost a stream, instead")
    options = parser.parse_args()
    if options.kernel and options.name != "ingest":
        parser.error("--kernel goes with ingest")
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, {here['memory_bytes'] >> 30} GiB, Linux {here['kernel']}")
    results = []
    chosen = "ingest_kernels" if options.kernel else options.name
    for name in MODULES if chosen == "all" else [chosen]:
        for result in importlib.import_module(f"benchmarks.{name}").run(options.quick):
            print(line(result), flush=True)
            results.append(result)
    if options.json:
        options.json.write_text(json.dumps({"benchmark": chosen, "machine": here, "results": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
