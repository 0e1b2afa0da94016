"""Keywords stand for what the thesis says that they stand for, once, and only where they are written out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hiss.meow_bridge.keywords import KEYWORDS, keyword_values, replaced

VALUES = keyword_values("beamtime42/scan7", "proj.roi.h5", 3, "node-17", "abc")


def test_each_keyword() -> None:
    assert {name: replaced("{" + name + "}", VALUES) for name in KEYWORDS} == {
        "PATH": "beamtime42/scan7/proj.roi.h5",
        "COLLECTION": "beamtime42/scan7",
        "STREAM": "proj.roi.h5",
        "DIR": "beamtime42/scan7",
        "REL_PATH": "scan7/proj.roi.h5",
        "REL_DIR": "scan7",
        "FILENAME": "proj.roi.h5",
        "PREFIX": "proj.roi",
        "EXTENSION": ".h5",
        "VGRID": "beamtime42",
        "JOB": "abc",
        "EVENT": "node-17",
        "VERSION": "3",
    }


def test_in_strings_at_any_depth_and_nowhere_else() -> None:
    given_value = {"{JOB}": ["{PREFIX}-{VERSION}{EXTENSION}", 5, None, {"a": ("{VGRID}",)}]}
    assert replaced(given_value, VALUES) == {"{JOB}": ["proj.roi-3.h5", 5, None, {"a": ["beamtime42"]}]}


def test_other_braces_stay() -> None:
    for text in ("{x}", "{}", "{path}", "{ PATH }", "{{}}", "PATH"):
        assert replaced(text, VALUES) == text


def test_what_comes_in_is_not_looked_at_again() -> None:
    values = {**VALUES, "PATH": "{JOB}"}
    assert replaced("{PATH}", values) == "{JOB}"


def test_an_event_of_a_collection() -> None:
    values = keyword_values("beamtime42/scan7", "", 0, "node-1", "j")
    assert (values["PATH"], values["STREAM"], values["REL_PATH"]) == ("beamtime42/scan7", "", "scan7")


PARTS = st.text("ab.-_1", min_size=1, max_size=6)


@given(st.lists(PARTS, min_size=1, max_size=4), PARTS)
def test_parts_put_the_path_together(parts: list[str], stream: str) -> None:
    values = keyword_values("/".join(parts), stream, 1, "e", "j")
    assert replaced("{DIR}/{PREFIX}{EXTENSION}", values) == values["PATH"]
    assert replaced("{VGRID}/{REL_PATH}", values) == values["PATH"]
