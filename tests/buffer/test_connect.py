"""How a client finds its server, and the token that the server left for it."""

from __future__ import annotations

from pathlib import Path

import pytest

import hiss
from hiss.access import token_file, write_secret
from hiss.errors import InvalidInput, ServerUnreachable
from hiss.testing.processes import DataProcess, free_port


def test_a_client_that_is_older_than_its_server_finds_the_token_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("HISS_TOKEN", raising=False)
    (tmp_path / "data").mkdir()
    server = DataProcess(tmp_path / "data")
    with hiss.connect(server.config.address) as buffer:
        with server:
            assert buffer.status().collections == 0
        assert token_file(server.config.port).stat().st_mode & 0o077 == 0


def test_nothing_at_the_address_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    with hiss.connect(address, "token") as buffer, pytest.raises(ServerUnreachable, match="hiss serve"):
        buffer.status()
    monkeypatch.setenv("HISS_ADDRESS", address)
    with hiss.connect(token="token") as buffer, pytest.raises(ServerUnreachable, match=address):
        buffer.status()


@pytest.mark.parametrize("address", ["nowhere", "localhost:x", "unix:"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InvalidInput):
        hiss.connect(address)


def test_a_token_of_another_port_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    write_secret(token_file(5001), "secret")
    assert token_file(5001).read_text() == "secret"
    assert not token_file(5002).exists()
