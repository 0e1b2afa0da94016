"""`hiss drain`, `drains`, `drain-policy`, and `hiss verify` of what lies in an S3 store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli.conftest import Hiss
from s3_server import BUCKET, S3Server, flipped

import hiss as hiss_package
from hiss.drain.worker import DrainWorker
from hiss.s3_options import S3Options

FRAMES = np.random.default_rng(1).integers(0, 4000, (5, 20, 30), np.uint16)


@pytest.fixture
def stored(hiss: Hiss, outside: Path) -> Path:
    """A sealed stream `scan/proj` in the buffer of the commands; its data directory."""
    np.save(outside / "frames.npy", FRAMES)
    assert hiss("put", "frames.npy", "scan/proj").status == 0
    return outside.parent / "data"


@pytest.fixture
def toml(outside: Path, s3: S3Server) -> S3Server:
    """An S3 endpoint that `hiss.toml` names."""
    options = s3.options
    (outside / "hiss.toml").write_text(
        f'[s3]\nendpoint = "{options.endpoint}"\naccess_key_id = "key"\nsecret_access_key = "secret"\n'
    )
    return s3


def test_a_drain_to_s3_is_verified_there(hiss: Hiss, stored: Path, toml: S3Server) -> None:
    url = f"s3://{BUCKET}/scans/proj.nxs"
    foreseen = hiss("drain", "scan/proj", url, "--dry-run", "--json").json
    assert (foreseen["target"], foreseen["bytes"], foreseen["against"]) == (url, FRAMES.nbytes, [])
    assert toml.listed() == []
    done = hiss("drain", "scan/proj", url, "--json").json
    assert (done["file"], done["blocks"], done["recorded"]) == (url, 5, True)
    assert "is there already" in hiss("drain", "scan/proj", url, "-n").out
    assert hiss("drain", "scan/proj", url).status != 0
    assert f"{url}::/entry" in hiss("stat", "scan/proj").out
    assert "all good" in hiss("verify", url, embedded=False).out
    content = toml.read("scans/proj.nxs")
    place = content.find(FRAMES[2, 3].tobytes())
    toml.write("scans/proj.nxs", flipped(content, place if place > 0 else len(content) // 2))
    damaged = hiss("verify", url, embedded=False)
    assert damaged.status == 7, damaged.out


def test_a_policy_is_set_shown_and_worked_off(hiss: Hiss, stored: Path, outside: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    url = f"{archive}/{{collection}}-{{stream}}.nxs"
    said = hiss("drain-policy", "scan", "--to", url, "--when", "manual", "--limit", "1GB", "--priority", "2", "--json")
    assert said.json["targets"] == [
        {"url": url, "form": "auto", "compression": "auto", "when": "manual", "priority": 2, "bytes_per_s": 10**9}
    ]
    assert url in hiss("drain-policy", "scan").out
    (waiting,) = hiss("drain", "--dry-run", "--json").json
    assert (waiting["source"], waiting["state"], waiting["url"]) == ("scan/proj", "wanted", f"{archive}/scan-proj.nxs")
    assert "manual" in hiss("drains").out
    (asked,) = hiss("drain", "scan/proj", "--json").json
    assert asked["due_ns"] is not None
    with hiss_package.open(stored, backend="numpy") as buffer:
        assert DrainWorker(buffer.store, tmp_path / "scratch", S3Options()).step()
    assert hiss("drains", "--json").json == []
    assert [each["state"] for each in hiss("drains", "scan/proj", "--json").json] == ["done"]
    assert hiss("verify", str(archive / "scan-proj.nxs"), embedded=False).status == 0
    assert hiss("drain-policy", "scan", "--remove", "/no/such").status != 0
    assert hiss("drain-policy", "scan", "--remove", url, "--json").json["targets"] == []
    assert hiss("drain-policy", "scan", "--default").status == 0
    assert hiss("drain", "scan/proj").status != 0, "nothing wants anything of it"
    assert hiss("drain").status == 2


def test_a_key_that_is_wrong_is_said(hiss: Hiss, outside: Path) -> None:
    from hiss.cli.settings import read_settings
    from hiss.errors import InvalidInput

    file = outside / "hiss.toml"
    file.write_text('[s3]\nbucket = "b"\n')
    with pytest.raises(InvalidInput, match="bucket"):
        read_settings({}, (file,))
    file.write_text('[s3]\nregion = "eu-north-1"\n')
    found = read_settings({"AWS_ENDPOINT_URL": "http://store"}, (file,))
    assert (found.s3.region, found.s3.endpoint) == ("eu-north-1", "http://store")
    config = found.serve_config()
    assert config.s3 == found.s3
    assert "store" not in config.to_json(), "nothing of it is in a command line"


def test_a_stream_is_drained_while_it_is_written(hiss: Hiss, stored: Path, outside: Path) -> None:
    """Of a final stream `--live` ends at once; an open one goes on in `tests/drain/test_live.py`."""
    done = hiss("drain", "scan/proj", "live.nxs", "--live", "--segment", "1kB", "--json")
    assert (done.status, done.json["final"], done.json["blocks"]) == (0, True, len(FRAMES)), done.err
    assert hiss("verify", "live.nxs", embedded=False).status == 0
    assert len(list(outside.glob("live_proj_*.h5"))) == 1, "an extent at least"
    assert hiss("drain", "scan/proj", "live.zarr", "--live", "--format", "zarr").status == 2
