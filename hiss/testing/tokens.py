"""The part of the suite that is about tokens that are handed out; `conformance` has the rest. For tests only."""

from __future__ import annotations

import pytest

from hiss import errors
from hiss.client import Buffer
from hiss.tokens import RIGHTS, split_token


class TokenConformance:
    """The suite's tokens."""

    def test_a_token_is_made_listed_and_revoked(self, buffer: Buffer) -> None:
        first = buffer.create_token("beamline", ["write", "read"], prefix="beam/scan", hours=2, addresses="10.1.0.0/16")
        second = buffer.create_token("all", RIGHTS)
        assert (first.info.rights, first.info.prefix, first.info.addresses) == (
            ("read", "write"),
            "beam/scan",
            "10.1.0.0/16",
        )
        assert first.info.expires_ns - first.info.created_ns == pytest.approx(2 * 3600e9, rel=1e-3)
        assert (second.info.expires_ns, second.info.prefix, second.info.parent) == (0, "", "")
        assert split_token(first.text)[0] == first.info.id
        assert first.text != second.text
        assert buffer.tokens() == [first.info, second.info]
        assert buffer.revoke_token(first.info.id) == [first.info]
        assert buffer.tokens() == [second.info]
        with pytest.raises(errors.TokenNotFound):
            buffer.revoke_token(first.info.id)

    @pytest.mark.parametrize(
        ("rights", "options"),
        [
            ([], {}),
            (["fly"], {}),
            (["read"], {"prefix": "/etc"}),
            (["read"], {"hours": 0.0}),
            (["read"], {"hours": float("nan")}),
            (["read"], {"addresses": "10.1.0.1/8"}),
            (["read"], {"addresses": "here"}),
        ],
    )
    def test_a_token_that_makes_no_sense_is_refused(
        self, buffer: Buffer, rights: list[str], options: dict[str, object]
    ) -> None:
        with pytest.raises(errors.InvalidInput):
            buffer.create_token("t", rights, **options)  # type: ignore[arg-type]
        assert buffer.tokens() == []
