"""The configuration: read once, checked, with clear errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiss.config import ServeConfig
from hiss.errors import InvalidInput


def test_the_file_and_what_overrides_it(tmp_path: Path) -> None:
    file = tmp_path / "hiss.toml"
    file.write_text('data = "/data/buffer"\nport = 6001\n')
    config = ServeConfig.load(file, port=7001, host=None)
    assert (config.data, config.port, config.host) == (Path("/data/buffer"), 7001, "127.0.0.1")
    assert ServeConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 5001", "prot"),
        ('port = "5001"', "port"),
        ("port = 70000", "port"),
        ("port = true", "port"),
        ("arena_bytes = 5", "arena_bytes"),
        ('host = "0.0.0.0"', "loopback"),
        ('backend = "cuda"', "backend"),
        ("jobs_at_once = 0", "jobs_at_once"),
        ('[rules]\nexecutor = "slurm"', "executor 'slurm'"),
        ("[rules]\nworkers = 3", "executor, jobs_at_once"),
        ("port = ", "hiss.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "hiss.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=named):
        ServeConfig.load(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        ServeConfig.load(tmp_path / "nowhere.toml")


def test_where_jobs_run(tmp_path: Path) -> None:
    file = tmp_path / "hiss.toml"
    file.write_text('[rules]\nexecutor = "dask:tcp://127.0.0.1:8786"\njobs_at_once = 8\n')
    config = ServeConfig.load(file)
    assert (config.executor, config.jobs_at_once) == ("dask:tcp://127.0.0.1:8786", 8)
    assert ServeConfig().executor == "local"


def test_space_is_the_operators_to_say(tmp_path: Path) -> None:
    file = tmp_path / "hiss.toml"
    file.write_text("log_bytes_max = 2_000_000_000\nretention_age_hours = 24\nretention_pressure = false\n")
    config = ServeConfig.from_json(ServeConfig.load(file).to_json())
    assert config.log_bytes_max == 2_000_000_000
    assert (config.retention.age_s, config.retention.drained_s, config.retention.pressure) == (86400, None, False)
    assert not config.retention.undrained, "that is never the operator's to say"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("log_bytes_max = 5", "log_bytes_max"),
        ("retention_age_hours = -1", "at least 0"),
        ('retention_age_hours = "1"', "expected float"),
        ("retention_pressure = 1", "expected bool"),
        ("retention_age_hours = true", "expected float"),
    ],
)
def test_what_is_wrong_with_space_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "hiss.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=named):
        ServeConfig.load(file)


@pytest.mark.parametrize("name", ["numba", "numpy", "opencl", "opencl:gpu", "opencl:Some Device"])
def test_what_runs_kernels_has_a_table_of_its_own(tmp_path: Path, name: str) -> None:
    file = tmp_path / "hiss.toml"
    file.write_text(f'port = 5005\n\n[kernels]\nbackend = "{name}"\n')
    config = ServeConfig.load(file)
    assert (config.port, config.backend) == (5005, name)
    assert ServeConfig.from_json(config.to_json()) == config


def test_a_back_end_that_there_is_not(tmp_path: Path) -> None:
    file = tmp_path / "hiss.toml"
    for text, said in (
        ('[kernels]\nbackend = "cuda"\n', "'opencl'"),
        ("[kernels]\nspeed = 3\n", "is a table of backend"),
    ):
        file.write_text(text)
        with pytest.raises(InvalidInput, match=said):
            ServeConfig.load(file)
