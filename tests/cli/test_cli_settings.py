"""Where the command line learns where the buffer is: options, environment, `hiss.toml`, in that order."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiss.cli.settings import read_settings
from hiss.errors import InvalidInput


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    settings = read_settings({}, (tmp_path / "none.toml",))
    assert (settings.address, settings.token) == (None, None)
    assert settings.serve_config().port == 5001


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "hiss.toml"
    file.write_text('address = "beamline:5001"\ntoken = "t"\nport = 5002\ndata = "/srv/hiss"\n')
    settings = read_settings({"HISS_ADDRESS": "other:1"}, (file,))
    assert (settings.address, settings.token) == ("other:1", "t")
    assert settings.serve_config().port == 5002
    assert settings.serve_config().data == Path("/srv/hiss")
    assert read_settings({"HISS_DATA": "/data"}, (file,)).serve_config().data == Path("/data")


def test_an_option_comes_before_all(tmp_path: Path) -> None:
    file = tmp_path / "hiss.toml"
    file.write_text("port = 5002\n")
    assert read_settings({}, (file,)).serve_config(port=5003, host=None).port == 5003


def test_tables_are_read_as_the_documents_write_them(tmp_path: Path) -> None:
    file = tmp_path / "hiss.toml"
    file.write_text('[kernels]\nbackend = "numpy"\n[rules]\njobs_at_once = 7\n[s3]\nendpoint = "http://here"\n')
    config = read_settings({}, (file,)).serve_config()
    assert (config.backend, config.jobs_at_once, config.s3.endpoint) == ("numpy", 7, "http://here")
    file.write_text("[kernels]\nspeed = 3\n")
    with pytest.raises(InvalidInput, match=r"\[kernels\] is a table of backend"):
        read_settings({}, (file,))


def test_the_first_file_counts(tmp_path: Path) -> None:
    near, far = tmp_path / "near.toml", tmp_path / "far.toml"
    near.write_text("port = 1\n")
    far.write_text('port = 2\naddress = "far:2"\n')
    settings = read_settings({}, (near, far))
    assert (settings.serve["port"], settings.address) == (1, None)


@pytest.mark.parametrize(
    ("text", "named"), [("prot = 1", "prot"), ("port = ", "Invalid value"), ("address = 5", "address")]
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "hiss.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=named):
        read_settings({}, (file,))
