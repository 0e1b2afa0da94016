"""A workflow that changes itself: a configuration that is stored makes a new pattern, which filters images.

    python examples/meow_self_modifying/configured_filters.py [--data DIRECTORY]

One pattern watches for configurations. Its job adds a pattern for each, and that one is met by the images that are
there and by those to come; a new version of a configuration changes its pattern, and the images are filtered anew.
(After the self-modifying example of D. Marchant's thesis on MEOW, Copenhagen 2021.)
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import hiss


def configure(input):  # type: ignore[no-untyped-def]
    """Recipe: a configuration becomes a pattern. Added again unchanged, it changes nothing, so a retry is harmless."""
    import json

    name = input.info.name.removesuffix(".json")
    settings = json.loads(bytes(input.latest().data))
    made = hiss.job().buffer.meow.add(
        hiss.Pattern(
            f"filter-{name}",
            trigger="images/raw/*",
            recipe="smooth",
            variables={"sigma": settings["sigma"]},
            outputs={"filtered": f"images/{name}/{{FILENAME}}"},
        )
    )
    print(f"filter-{name}: {made} images are there already")


def smooth(input, sigma):  # type: ignore[no-untyped-def]
    """Recipe: a Gaussian filter with a standard deviation of `sigma` pixels, periodic at the rims, by its spectrum."""
    image = np.asarray(input)[0].astype(float)
    rows, columns = (np.fft.fftfreq(size) for size in image.shape)
    transfer = np.exp(-2 * (np.pi * sigma) ** 2 * (rows[:, None] ** 2 + columns[None, :] ** 2))
    return {"filtered": np.fft.ifft2(np.fft.fft2(image) * transfer).real.astype("f4")[None]}


def add_rules(buf: hiss.Buffer) -> None:
    buf.meow.add(hiss.Recipe("configure", configure))
    buf.meow.add(hiss.Recipe("smooth", smooth))
    buf.meow.add(hiss.Pattern("configured", trigger="images/config/*.json", recipe="configure", rights=["rules"]))


def put_image(buf: hiss.Buffer, name: str, seed: int) -> None:
    """A disc in noise."""
    y, x = np.mgrid[:96, :96]
    image = 100.0 * ((x - 48) ** 2 + (y - 40) ** 2 < 30**2) + np.random.default_rng(seed).normal(0, 40, (96, 96))
    with buf.collection("images/raw").create_stream(name, dtype="f4", shape=image.shape) as stream:
        stream.append(image.astype("f4"))


def put_configuration(buf: hiss.Buffer, name: str, settings: dict[str, Any]) -> None:
    with buf.collection("images/config").create_stream(f"{name}.json", new_version=True) as stream:
        stream.append(json.dumps(settings).encode())


def wait_for_jobs(buf: hiss.Buffer, count: int, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not (len(jobs := buf.meow.jobs()) == count and all(job.state.final for job in jobs)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{[(job.pattern, job.state.name, job.error) for job in jobs]} after {timeout_s} s")
        time.sleep(0.02)


def say(buf: hiss.Buffer, what: str) -> None:
    print(what)
    for pattern in buf.meow.patterns():
        print(f"  pattern {pattern.name}: {dict(pattern.variables) or 'waits for configurations'}")
    for collection in buf.collections("images/"):
        for stream in collection.streams():
            if collection.path not in ("images/config", "images/raw"):
                noise = np.asarray(stream)[0][:8].std()
                print(f"  {stream.info.path} version {stream.info.version}: noise {noise:.2f}")


def main(data: Path) -> None:
    with hiss.open(data) as buf:
        add_rules(buf)
        put_image(buf, "first", 1)
        put_configuration(buf, "soft", {"sigma": 2.0})
        wait_for_jobs(buf, 2)
        say(buf, "an image was there, and a configuration came:")
        put_image(buf, "second", 2)
        wait_for_jobs(buf, 3)
        say(buf, "another image came:")
        put_configuration(buf, "soft", {"sigma": 4.0})
        wait_for_jobs(buf, 6)
        say(buf, "the configuration was changed:")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the buffer's directory; a temporary one by default")
    given = parser.parse_args()
    if given.data is not None:
        main(given.data)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
