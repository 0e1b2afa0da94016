"""Kernels of the library on the command line: listed without a buffer, registered by name."""

from __future__ import annotations

from pathlib import Path

from hiss.kernels import library


def test_the_library_is_listed(hiss) -> None:
    listed = hiss("kernel", "ls", "--library", "--json", embedded=False).json
    assert [row["name"] for row in listed] == list(library.KERNELS)
    jungfrau = next(row for row in listed if row["name"] == "jungfrau")
    assert jungfrau["parameters"] == ["pedestal", "gain"]
    assert jungfrau["kind"] == "map"
    assert jungfrau["summary"].startswith("Deposited energy of a JUNGFRAU module")
    assert all(row["summary"] for row in listed)
    assert "sta_lta" in hiss("kernel", "ls", "--library", embedded=False).out


def test_kernels_of_the_library_are_registered_by_name(hiss) -> None:
    added = hiss("kernel", "add", "--library", "jungfrau", "--library", "hit")
    assert added.status == 0, added.err
    assert library.jungfrau.hash in added.out
    assert "def jungfrau(raw, pedestal, gain):" in hiss("kernel", "show", "jungfrau").out
    assert {row["definition"]["name"] for row in hiss("kernel", "ls", "--json").json} == {"jungfrau", "hit"}


def test_with_a_file_beside_them(hiss, outside: Path) -> None:
    Path("own.py").write_text("import hiss\n\n@hiss.kernel\ndef double(frame):\n    return frame * 2\n")
    assert hiss("kernel", "add", "own.py", "--library", "roi").status == 0
    assert {row["definition"]["name"] for row in hiss("kernel", "ls", "--json").json} == {"double", "roi"}


def test_what_is_not_there(hiss) -> None:
    wrong = hiss("kernel", "add", "--library", "jungfrou")
    assert wrong.status == 3
    assert "did you mean jungfrau?" in wrong.err
    assert "name a FILE" in hiss("kernel", "add").err
