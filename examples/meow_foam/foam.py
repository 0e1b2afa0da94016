"""Foams are made, checked, thrown away and made again until they are good; then their pores are counted.

    python examples/meow_foam/foam.py [--phantom FILE.h5] [--data DIRECTORY] [--page provenance.html]

    request -> generate -> volume -> check -> accepted -> segment -> pores -> analyse -> table
       ^                                 \\-> discarded -> regenerate
       \\-----------------------------------------------------/

The loop is no construct of its own: `regenerate` writes a request, and requests are what `generate` waits for. Its
pattern says how long the chain may become. `--phantom` brings in a volume from an HDF5 file (dataset `volume`) as an
instrument would. Needs scikit-image. (After the scientific example of D. Marchant's thesis on MEOW, Copenhagen 2021.)
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import foam_recipes
import numpy as np

import hiss

RADIUS = 1 / 3  # of the cylinder, in widths of the volume


def add_rules(buf: hiss.Buffer) -> None:
    for name in ("generate", "check", "regenerate", "segment", "analyse"):
        buf.meow.add(hiss.Recipe(name, getattr(foam_recipes, name)))
    for name, trigger, variables, outputs in (
        ("generate", "request", {"radius": RADIUS}, {"volume": "foam/volume/{FILENAME}"}),
        (
            "check",
            "volume",
            {"radius": RADIUS, "version": "{VERSION}", "porosity_least": 0.2, "porosity_most": 0.8},
            {"accepted": "foam/accepted/{FILENAME}", "discarded": "foam/discarded/{FILENAME}"},
        ),
        ("regenerate", "discarded", {}, {"request": "foam/request/{FILENAME}"}),
        ("segment", "accepted", {"radius": RADIUS}, {"pores": "foam/pores/{FILENAME}"}),
        ("analyse", "pores", {}, {"table": "foam/table/{FILENAME}"}),
    ):
        limits = {"chain_jobs": 30} if name == "regenerate" else {}
        buf.meow.add(hiss.Pattern(name, f"foam/{trigger}/*", name, variables=variables, outputs=outputs, **limits))


def put_request(buf: hiss.Buffer, name: str, spheres: int, seed: int) -> None:
    with buf.collection("foam/request").create_stream(name) as stream:
        stream.append(json.dumps({"spheres": spheres, "seed": seed, "size": 64}).encode())


def put_volume(buf: hiss.Buffer, name: str, file: Path) -> None:
    import h5py

    with h5py.File(file) as source:
        volume = source["volume"][...]
    scan = buf.collection("foam/volume", attrs={"instrument": "phantom"})
    with scan.create_stream(name, dtype=volume.dtype, shape=volume.shape) as stream:
        stream.append(volume)


def wait_for_tables(buf: hiss.Buffer, names: set[str], timeout_s: float = 600.0) -> None:
    """Until each foam has its table and no job is left."""
    deadline = time.monotonic() + timeout_s
    while True:
        jobs = buf.meow.jobs()
        tables = {
            path.rpartition("/")[2] for job in jobs for path in (ref.path for ref in job.writes) if "/table/" in path
        }
        if names <= tables and all(job.state.final for job in jobs):
            return
        failed = [f"{job.recipe}: {job.error}" for job in jobs if job.state.name in ("FAILED", "HELD")]
        if failed or time.monotonic() > deadline:
            raise RuntimeError(f"{sorted(names - tables)} have no table; {failed}")
        time.sleep(0.05)


def main(data: Path, phantom: Path | None, page: Path | None) -> None:
    names = {"few", "many"} | ({"phantom"} if phantom else set())
    with hiss.open(data) as buf:
        add_rules(buf)
        put_request(buf, "few", spheres=10, seed=1)  # too few pores: discarded, and made again
        put_request(buf, "many", spheres=80, seed=7)
        if phantom:
            put_volume(buf, "phantom", phantom)
        wait_for_tables(buf, names)
        for job in reversed(buf.meow.jobs()):
            if job.recipe == "check":
                print(job.output.rstrip())
        for name in sorted(names):
            table = buf[f"foam/table/{name}"]
            made = buf[f"foam/volume/{name}"].attrs.get("pores")
            known = "" if made is None else f" of {made} that were made"
            print(f"{name}: {len(table)} pores{known}, mean radius {np.asarray(table)[:, 3].mean():.2f} voxels")
        if page is not None:
            from hiss.meow_bridge import provenance_page

            page.write_text(provenance_page(buf.meow.provenance("foam/table/few"), "A foam, and how it came to be"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantom", type=Path, help="an HDF5 file with a volume to be analysed as well")
    parser.add_argument("--data", type=Path, help="the buffer's directory; a temporary one by default")
    parser.add_argument("--page", type=Path, help="write how a table came to be, as a page to look at")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(given.data or Path(folder), given.phantom, given.page)
