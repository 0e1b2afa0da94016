"""The Python lines of the documents for users run as they stand there, on a buffer in the same process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPENING = """\
import numpy as np
detector = [(np.full((2160, 2560), 500 + n, "uint16"), 90.0 * n) for n in range(4)]
"""
CALIBRATION = """\
for name, level in (("dark", 100), ("flat", 4000)):
    with scan.create_stream(name, dtype="uint16", shape=(2160, 2560)) as s:
        s.append(np.full((2160, 2560), level, "uint16"))
"""


def python_of(document: str) -> str:
    """All its Python, one after another."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks, f"no Python in {document}"
    return "\n".join(blocks)


def run(text: str, folder: Path) -> str:
    """Run it as a file: kernels need one to be read from."""
    text = re.sub(r'hiss\.connect\("[^"]*"\)', 'hiss.open("data")', text)
    (folder / "lines.py").write_text(text + "\nbuf.close()\n")
    done = subprocess.run([sys.executable, "lines.py"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_runs(tmp_path: Path) -> None:
    text = python_of("README.md")
    created = text.index("with scan.create_stream")
    told = run(OPENING + text[:created] + CALIBRATION + text[created:], tmp_path)
    assert "complete: 4 blocks" in told


def test_getting_started_runs(tmp_path: Path) -> None:
    recipe = (ROOT / "examples" / "first_contact" / "reconstruct.ipynb").read_text("utf-8")
    (tmp_path / "reconstruct.ipynb").write_text(recipe)
    run(python_of("docs/getting-started.md") + "\nassert len(buf.meow.rules()) == 1\n", tmp_path)


def test_the_page_on_space_runs(tmp_path: Path) -> None:
    before = 'import hiss\nbuf = hiss.connect("localhost:5001")\nbuf.collection("beamtime42/scan7")\nshow = print\n'
    text = before + python_of("docs/space.md").replace('"200 GB"', '"20 MB"')
    run(text + "\ns.close()\nassert s.acknowledged == 0 and scan.reservation.used_bytes == 0\n", tmp_path)


def test_the_page_on_security_runs(tmp_path: Path) -> None:
    before = 'import hiss\nbuf = hiss.connect("localhost:5001")\nscan = buf.collection("beamtime42/scan7")\n'
    told = run(before + python_of("docs/security.md") + "\nassert len(buf.tokens()) == 1\nprint(link)\n", tmp_path)
    assert "hisstok." in told
    assert "hiss://localhost:5001/beamtime42/scan7#" in told


def test_the_page_on_draining_runs(tmp_path: Path) -> None:
    before = 'import hiss\nimport numpy as np\nbuf = hiss.connect("localhost:5001")\n'
    run(before + python_of("docs/draining.md") + "\nassert len(buf.store.plan_drains(['beamtime42'])) == 2\n", tmp_path)


def test_the_page_on_consumers_runs(tmp_path: Path) -> None:
    before = """\
import hiss, numpy as np
import hiss.aio
buf = hiss.connect("localhost:5001")
frames = np.random.default_rng(1).integers(0, 40, (120, 256, 256)).astype("uint16")
frame = frames[0]
with buf.collection("beamtime42/scan7").create_stream("proj", dtype="uint16", shape=(256, 256)) as s:
    s.extend(frames)
fit = add_up = len

@hiss.filter
def enough(frame, least=50):
    return np.count_nonzero(frame >= 100) >= least
"""
    text = python_of("docs/consumers.md").replace('hiss.aio.connect("localhost:5001")', 'hiss.aio.open("other")')
    start = text.index("async with hiss.aio")
    end = text.index("scan = buf.collection", start)
    story = "".join(f"    {line}\n" for line in text[start:end].splitlines())
    text = f"{text[:start]}import asyncio\nasync def main():\n{story}asyncio.run(main())\n{text[end:]}"
    told = run(before + text + "\nprint(told)\ns.close()\n", tmp_path)
    assert "'veto_rate': 1.0" in told, "the producer heard of it"


@pytest.mark.parametrize(
    "document", ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text("utf-8")):
        if "://" not in target:
            assert (ROOT / document).parent.joinpath(target).exists(), f"{document}: {target}"
