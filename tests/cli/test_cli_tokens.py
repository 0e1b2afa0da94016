"""`hiss token`, and share links as addresses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hiss.link import Link
from hiss.testing.processes import DataProcess


def test_create_ls_revoke(hiss) -> None:
    made = hiss("token", "create", "--label", "a b", "--prefix", "beam/", "--write", "--hours", "2", "--json")
    assert made.status == 0, made.err
    token = made.json["token"]
    assert (token["rights"], token["prefix"], token["label"]) == (["write"], "beam", "a b")
    assert made.json["text"].startswith(f"hisstok.{token['id']}.")
    plain = hiss("token", "create", "--from", "10.0.0.0/8")
    assert "read" in plain.out
    assert plain.out.splitlines()[-1].startswith("hisstok.")
    assert [one["label"] for one in hiss("token", "ls", "--json").json] == ["a b", ""]
    listed = hiss("token", "ls").out
    assert "10.0.0.0/8" in listed
    assert "anywhere" in listed
    assert made.json["text"].rpartition(".")[2] not in listed
    assert hiss("token", "revoke", token["id"]).status == 0
    assert hiss("token", "revoke", token["id"]).status == 3
    assert len(hiss("token", "ls", "--json").json) == 1
    assert hiss("token", "create", "--hours", "-1").status == 2


def test_a_link_is_for_its_collection(hiss, tmp_path: Path) -> None:
    """Made by the owner, followed by whoever has it, and by nobody once its token is revoked."""
    (tmp_path / "served").mkdir()
    np.save("frames.npy", np.ones((2, 3), "u2"))
    with DataProcess(tmp_path / "served") as process:
        owner = ("--address", process.config.address, "--token", process.token)
        for path in ("beam/mine/a", "beam/other/b"):
            assert hiss("put", "frames.npy", path, *owner, embedded=False).status == 0
        said = hiss("token", "share", "beam/mine", *owner, embedded=False)
        url = said.out.strip()
        assert "--host" in said.err, "it is good on this machine only"
        assert Link.parse(url).collection == "beam/mine"
        listed = hiss("ls", "--json", "--address", url, embedded=False)
        assert listed.status == 0, listed.err
        assert "beam/mine" in listed.out
        assert "beam/other" not in listed.out
        assert hiss("get", "beam/mine/a", "out.npy", "--address", url, embedded=False).status == 0
        assert hiss("get", "beam/other/b", "out2.npy", "--address", url, embedded=False).status == 8
        assert hiss("put", "frames.npy", "beam/mine/c", "--address", url, embedded=False).status == 8
        told = hiss("token", "share", "beam/mine", "--write", "--host", "far:5001", "--json", *owner, embedded=False)
        assert told.json["url"].startswith("hiss://far:5001/beam/mine#hisstok.")
        assert told.json["rights"] == ["write"]
        token_id = Link.parse(url).token.split(".")[1]
        assert hiss("token", "revoke", token_id, *owner, embedded=False).status == 0
        assert hiss("ls", "--address", url, embedded=False).status == 8
        assert Link.parse(url).token not in process.log.read_text()
    assert hiss("token", "share", "beam/nothing").status == 3


@pytest.mark.parametrize("address", ["http://h:1/x", "hiss://", "hiss://h:1/../x", "hiss://h:1/a?b=c", "hiss+tls://"])
def test_what_is_no_link_is_wrong_usage(hiss, address: str) -> None:
    assert hiss("ls", "--address", address, embedded=False).status == 2
