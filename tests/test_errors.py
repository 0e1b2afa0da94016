"""The one tree of errors: drawn as it is, and the same after it travelled."""

from __future__ import annotations

import re

import pytest

from hiss import errors


def classes(base: type[errors.HissError] = errors.HissError) -> list[type[errors.HissError]]:
    return [base, *(each for child in base.__subclasses__() for each in classes(child))]


@pytest.mark.parametrize("kind", classes())
def test_an_error_survives_the_journey(kind: type[errors.HissError]) -> None:
    error = kind("block 3 of c/s: expected 8 bytes, found 7", index=3)
    again = errors.from_name(type(error).__name__, error.message, error.details)
    assert type(again) is kind
    assert str(again) == "block 3 of c/s: expected 8 bytes, found 7"
    assert again.details == {"index": "3"}


def test_an_unknown_error_is_still_an_error_of_hiss() -> None:
    assert type(errors.from_name("FromTheFuture", "text", {})) is errors.HissError


def test_the_drawing_shows_every_class() -> None:
    assert errors.__doc__ is not None
    drawn = set(re.findall(r"[A-Z][A-Za-z]+", errors.__doc__))
    assert {kind.__name__ for kind in classes()} <= drawn
