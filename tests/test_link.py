"""Addresses and share links."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hiss.link import Link

NAMES = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,20}[A-Za-z0-9_-])?", fullmatch=True)


@given(NAMES, st.integers(1, 65535), st.booleans(), st.lists(NAMES, max_size=3).map("/".join), st.text(max_size=60))
def test_a_link_says_what_it_was_made_of(host: str, port: int, tls: bool, collection: str, token: str) -> None:
    link = Link(f"{host}:{port}", tls, collection, token)
    assert Link.parse(link.url()) == link


@given(st.text(max_size=60).filter(lambda text: "://" not in text))
def test_what_is_no_url_is_an_address(text: str) -> None:
    assert Link.parse(text) == Link(text)


def test_the_token_is_the_fragment_and_is_not_shown() -> None:
    link = Link("h:1", True, "beam/scan", "hisstok.0.secret")
    assert link.url() == "hiss+tls://h:1/beam/scan#hisstok.0.secret"
    assert "secret" not in repr(link)
