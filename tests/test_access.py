"""Tokens: who may do what."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiss.access import Access
from hiss.errors import PermissionRefused
from hiss.model import Caller


def test_the_owners_token_is_made_once_and_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    tokens = Access.of_directory(tmp_path)
    assert Access.of_directory(tmp_path).owner_token == tokens.owner_token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert tokens.authenticate(tokens.owner_token, 0) == Caller()


@given(st.text(), st.text(), st.integers(0, 2**62))
def test_a_jobs_token_says_what_it_was_given(attempt: str, prefix: str, until_ns: int) -> None:
    tokens = Access("secret")
    token = tokens.job_token(attempt, prefix, until_ns)
    assert tokens.authenticate(token, until_ns) == Caller(attempt, prefix)
    with pytest.raises(PermissionRefused, match="run out"):
        tokens.authenticate(token, until_ns + 1)
    with pytest.raises(PermissionRefused):
        Access("other").authenticate(token, 0)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_token_is_refused(place: int, flip: int) -> None:
    tokens = Access("secret")
    token = bytearray(tokens.job_token("job.1", "scan", 10).encode())
    token[place % len(token)] = (token[place % len(token)] ^ flip) & 0x7F or 1
    if token.decode() != tokens.job_token("job.1", "scan", 10):
        with pytest.raises(PermissionRefused):
            tokens.authenticate(token.decode(), 0)


@pytest.mark.parametrize("token", [None, "", "guess", "hissjob.", "hissjob.a.b", "hissjob..", "é"])
def test_nonsense_is_refused(token: str | None) -> None:
    with pytest.raises(PermissionRefused):
        Access("secret").authenticate(token, 0)
