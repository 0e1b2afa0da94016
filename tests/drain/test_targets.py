"""What every target of a drain promises: whole under its name or not there, compared, and no rubbish left."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from memory_store import MemoryStore
from s3_server import BUCKET, S3Server, flipped

from hiss import limits
from hiss.drain import drain, s3_target, targets, verify_file
from hiss.drain.s3_target import S3Target
from hiss.drain.s3_uploads import end_unfinished_uploads, signed
from hiss.drain.targets import LocalTarget, Target, fetched, make_parents, target_of
from hiss.drain.zarr_format import MANIFEST
from hiss.errors import (
    AlreadyExists,
    BlockDamaged,
    Conflict,
    HissError,
    InvalidInput,
    MissingExtra,
    NotFound,
    Unavailable,
)
from hiss.model import FrameSpec
from hiss.s3_options import S3Options

FRAMES = np.random.default_rng(3).integers(0, 60000, (9, 250, 400), np.uint16)
SOURCE = "beam/scan1/proj"


def scan(frames: np.ndarray = FRAMES) -> MemoryStore:
    store = MemoryStore(attrs={"title": "a scan"})
    store.add("proj", frames, frame=FrameSpec("uint16", frames.shape[1:]))
    return store


@dataclass
class Place:
    """Where the suite drains to, and how it looks at that from outside."""

    make: Callable[..., Target]  # of a name
    names: Callable[[], set[str]]  # the first parts of what is there
    s3: S3Options
    scratch: Path

    def verified(self, target: Target) -> bool:
        with fetched(target.location, s3=self.s3, scratch=self.scratch) as path:
            return verify_file(path).ok


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    folder = tmp_path / "archive"
    folder.mkdir()
    if request.param == "local":
        yield Place(
            lambda name, token=None: LocalTarget(folder / name, token),
            lambda: {path.name for path in folder.iterdir()},
            S3Options(),
            scratch,
        )
    else:
        server: S3Server = request.getfixturevalue("s3")

        def names() -> set[str]:
            found = {key.removeprefix("beam/").partition("/")[0] for key in server.listed("beam/")}
            return found | {f"unfinished {key}" for key in server.uploads()}

        yield Place(
            lambda name, token=None: S3Target(f"s3://{BUCKET}/beam/{name}", server.options, scratch, token),
            names,
            server.options,
            scratch,
        )
    assert list(scratch.iterdir()) == [], "nothing is left on the way"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "S3_PART_BYTES", limits.MiB // 2)
    monkeypatch.setattr(limits, "S3_RETRIES_MAX", 1)


@pytest.mark.parametrize("name", ["s.nxs", "a name with + and é.nxs", "s.zarr", "s.npy", "s.bin"])
def test_what_is_drained_is_there_and_every_block_has_its_digest(place: Place, name: str) -> None:
    target = place.make(name)
    assert not target.exists()
    store = scan()
    form = "raw" if name.endswith(".bin") else "auto"
    report = drain(store, SOURCE, target, form=form, compression="none")
    assert (report.blocks, report.bytes, report.file) == (9, FRAMES.nbytes, target.location)
    assert report.file_bytes >= FRAMES.nbytes
    assert target.exists()
    assert place.names() == {name}
    if name.endswith((".nxs", ".zarr")):
        assert place.verified(target)
        with fetched(target.location, s3=place.s3, scratch=place.scratch) as path:
            assert report.file_bytes == targets.tree_bytes(path)
    else:
        with fetched(target.location, s3=place.s3, scratch=place.scratch) as path:
            assert path.read_bytes().endswith(FRAMES.tobytes())


@pytest.mark.parametrize("name", ["s.nxs", "s.zarr"])
def test_what_is_there_is_replaced_only_when_asked(place: Place, name: str) -> None:
    target = place.make(name)
    drain(scan(), SOURCE, target)
    with pytest.raises(AlreadyExists):
        drain(scan(FRAMES[:4]), SOURCE, place.make(name))
    assert place.verified(target)
    drain(scan(FRAMES[:4]), SOURCE, place.make(name), overwrite=True)
    with fetched(target.location, s3=place.s3, scratch=place.scratch) as path:
        assert verify_file(path).blocks == 4
    assert place.names() == {name}


@pytest.mark.parametrize("name", ["s.nxs", "s.zarr", "s.npy"])
def test_what_comes_back_with_another_bit_is_no_archive(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flip(path: Path) -> None:
        file = path if path.is_file() else max(path.rglob("*"), key=lambda each: each.stat().st_size * each.is_file())
        file.write_bytes(flipped(file.read_bytes(), file.stat().st_size // 2))

    store = scan()
    monkeypatch.setattr(targets, "sync_tree", flip)  # the disk's fault
    monkeypatch.setattr(s3_target, "sync_tree", flip)  # and the network's
    with pytest.raises(BlockDamaged, match="read back"):
        drain(store, SOURCE, place.make(name), compression="none")
    assert place.names() == set()
    assert store.archived == {}


def test_a_drain_that_fails_on_the_way_leaves_nothing(place: Place) -> None:
    class Enough(Exception):
        pass

    for most in (0, FRAMES.nbytes // 2, FRAMES.nbytes + 100_000, 2 * FRAMES.nbytes + 300_000):
        done = 0

        def stop(count: int, most: int = most) -> None:
            nonlocal done
            done += count
            if done > most:
                raise Enough

        for name in ("s.nxs", "s.zarr"):
            done = 0
            try:
                drain(scan(), SOURCE, place.make(name), compression="none", on_bytes=stop)
            except (Enough, Unavailable):  # obstore says in its own words what a reader of its raised
                pass
            else:
                pytest.fail(f"{most} bytes were never moved")
            assert place.names() == set(), f"after {most} bytes of {name}"
        if place.s3 == S3Options() and most > FRAMES.nbytes:
            break  # a local file moves its bytes twice, the third time is the network's


@pytest.mark.parametrize("name", ["s.nxs", "s.zarr"])
def test_what_a_killed_drain_left_is_no_file_and_is_cleaned_up(place: Place, name: str, tmp_path: Path) -> None:
    """Killed at points spread over its whole way; the next one with the same token goes on as if nothing had been."""
    options = place.s3
    location = place.make(name).location
    victim = tmp_path / "victim.py"
    victim.write_text(VICTIM.format(here=str(Path(__file__).parent), part=limits.S3_PART_BYTES))
    calls = (2,) if options == S3Options() else (4, 9) if name == "s.nxs" else (7,)
    for kill_at in calls:
        command = [sys.executable, victim, location, str(place.scratch), str(kill_at)]
        ended = subprocess.run(command, env=options.to_environment() | {"PATH": "/bin"}, capture_output=True, text=True)
        assert ended.returncode == -9, ended.stderr
        target = place.make(name, "token")
        if target.exists():
            with suppress(InvalidInput):  # it is no drained file
                assert place.verified(target), "whole, or no drained file"
        target.clean()
        drain(scan(), SOURCE, target, overwrite=True)
        assert place.names() == {name}
        assert place.verified(target)


VICTIM = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{here!r}, {here!r} + "/.."]
from hiss import limits
limits.S3_PART_BYTES = {part}
from hiss.drain import drain
from hiss.drain.targets import target_of
from hiss.s3_options import S3Options
from test_targets import SOURCE, scan
count = 0
def moved(size):
    global count
    count += 1
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
url = sys.argv[1] if sys.argv[1].startswith("s3://") else Path(sys.argv[1])
target = target_of(url, s3=S3Options.of_environment(os.environ), scratch=Path(sys.argv[2]), token="token")
drain(scan(), SOURCE, target, compression="none", overwrite=True, on_bytes=moved)
"""


# ---------------------------------------------------------------------------------------------------------------- S3


def test_a_tree_without_its_manifest_is_no_drained_tree(s3: S3Server, tmp_path: Path) -> None:
    target = S3Target(f"s3://{BUCKET}/s.zarr", s3.options, tmp_path)
    drain(scan(), SOURCE, target)
    s3.client.delete_object(Bucket=BUCKET, Key=f"s.zarr/{MANIFEST}")
    with fetched(target.location, s3=s3.options, scratch=tmp_path) as path, pytest.raises(InvalidInput, match=MANIFEST):
        verify_file(path)


@pytest.mark.parametrize("name", ["s.nxs", "s.zarr"])
def test_one_flipped_bit_in_the_store_is_found(s3: S3Server, tmp_path: Path, name: str) -> None:
    target = S3Target(f"s3://{BUCKET}/{name}", s3.options, tmp_path)
    drain(scan(), SOURCE, target, compression="none")
    largest = max(s3.listed(), key=lambda key: len(s3.read(key)))
    s3.write(largest, flipped(s3.read(largest), len(s3.read(largest)) // 2))
    with fetched(target.location, s3=s3.options, scratch=tmp_path) as path:
        found = verify_file(path)
    assert not found.ok
    assert len(found.streams[0].damage) == 1


def test_an_archive_in_the_store_is_not_overwritten(s3: S3Server, tmp_path: Path) -> None:
    """It could not be replaced in one step: the stream might leave the buffer meanwhile."""
    from hiss.space import Archive

    store = scan()
    target = S3Target(f"s3://{BUCKET}/s.nxs", s3.options, tmp_path)
    drain(store, SOURCE, target)
    info = store.stream(SOURCE)
    archived = replace(info, archives=(Archive(f"{target.location}::/entry/x", 1),))
    store.stream = lambda path, version=None: archived  # type: ignore[method-assign]
    with pytest.raises(Conflict, match="one step"):
        drain(store, SOURCE, target, overwrite=True)
    drain(store, SOURCE, S3Target(f"s3://{BUCKET}/t.nxs", s3.options, tmp_path), overwrite=True)


def test_a_store_that_goes_away_is_said_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "S3_RETRY_S", 1.0)
    with S3Server() as server:
        target = S3Target(f"s3://{BUCKET}/s.nxs", server.options, tmp_path / "scratch")

        def away(count: int) -> None:
            if server._server is not None:
                server.stop()

        with pytest.raises(Unavailable, match="archive/s"):
            drain(scan(), SOURCE, target, overwrite=True, on_bytes=away)
        server.start()
        drain(scan(), SOURCE, target)
        with fetched(target.location, s3=server.options, scratch=tmp_path) as path:
            assert verify_file(path).ok


def test_what_is_not_there_is_said(s3: S3Server, tmp_path: Path) -> None:
    with pytest.raises(NotFound), fetched(f"s3://{BUCKET}/nothing.nxs", s3=s3.options, scratch=tmp_path):
        pass
    with pytest.raises(HissError, match="nowhere"):
        drain(scan(), SOURCE, S3Target("s3://nowhere/s.nxs", s3.options, tmp_path))
    with pytest.raises(InvalidInput, match="s3://BUCKET/KEY"):
        target_of("s3://archive", s3=s3.options)


def test_only_the_uploads_of_the_target_are_ended(s3: S3Server) -> None:
    for key in ("a b/s.nxs", "a b/s.nxs2", "a b/t.zarr/data/c/0"):
        s3.client.create_multipart_upload(Bucket=BUCKET, Key=key)
    assert end_unfinished_uploads(s3.options, BUCKET, "a b/s.nxs") == 1
    assert end_unfinished_uploads(s3.options, BUCKET, "a b/t.zarr") == 1
    assert s3.uploads() == ["a b/s.nxs2"]
    assert end_unfinished_uploads(s3.options, BUCKET, "a b/s.nxs2") == 1
    assert end_unfinished_uploads(replace(s3.options, access_key_id="", secret_access_key=""), BUCKET, "s") == 0


@pytest.mark.parametrize("token", ["", "a session's"])
def test_requests_are_signed_as_botocore_signs_them(token: str) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    options = S3Options("http://store:9000", "eu-north-1", "AKEY", "a/secret+key", token)
    path, query = "/bucket/a%20b/%C3%A9.nxs", "uploadId=x%2Fy%3D&uploads="
    now = datetime.datetime(2026, 11, 30, 12, 0, 0, tzinfo=datetime.UTC)
    found = signed(options, "DELETE", "store:9000", path, query, now)
    request = AWSRequest("DELETE", f"http://store:9000{path}?{query}")
    request.headers["x-amz-content-sha256"] = found["x-amz-content-sha256"]
    request.context["timestamp"] = found["x-amz-date"]
    auth = S3SigV4Auth(Credentials("AKEY", "a/secret+key", token or None), "s3", "eu-north-1")
    if token:
        request.headers["x-amz-security-token"] = token
    request.headers["x-amz-date"] = found["x-amz-date"]
    asked = auth.canonical_request(request)
    signature = auth.signature(auth.string_to_sign(request, asked), request)
    assert found["authorization"].endswith(f"Signature={signature}"), asked


def test_without_obstore_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hiss\[s3\]'"):
        S3Target("s3://b/k.nxs", S3Options())


# ----------------------------------------------------------------------------------------------------------- options


def test_a_place_is_not_made_where_nothing_is_mounted(tmp_path: Path) -> None:
    template = f"{tmp_path}/archive/{{collection}}/{{stream}}.nxs"
    url = f"{tmp_path}/archive/beam/scan1/proj.nxs"
    with pytest.raises(NotFound, match="mount"):
        make_parents(template, url)
    (tmp_path / "archive").mkdir()
    make_parents(template, url)
    assert (tmp_path / "archive/beam/scan1").is_dir()
    with pytest.raises(NotFound):
        make_parents(f"{tmp_path}/no/x.nxs", f"{tmp_path}/no/x.nxs")


def test_options_come_from_the_table_and_then_from_the_environment() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "e", "AWS_SECRET_ACCESS_KEY": "f", "AWS_ENDPOINT_URL": "http://x",
                   "AWS_SESSION_TOKEN": "t", "AWS_DEFAULT_REGION": "r"}  # fmt: skip
    assert S3Options.read({}, environment) == S3Options("http://x", "r", "e", "f", "t")
    mine = S3Options.read({"access_key_id": "a", "secret_access_key": "b", "endpoint": "https://y"}, environment)
    assert mine == S3Options("https://y", "r", "a", "b", "")
    assert S3Options.of_environment(mine.to_environment()) == mine
    assert "b" not in repr(mine).replace("access_key_id", "")
    for wrong in ({"access_key_id": "a"}, {"endpoint": "x"}, {"bucket": "b"}, {"region": 1}):
        with pytest.raises(InvalidInput):
            S3Options.read(wrong, {})
