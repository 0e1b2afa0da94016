"""Streams as arrays of dask and datasets of xarray, on a real server: lazy, bounded, and readable elsewhere."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hiss
from hiss import errors
from hiss.client import Buffer
from hiss.limits import MiB
from hiss.model import Selection
from hiss.testing.conformance import double, frames
from hiss.views.array import StreamArray
from hiss.views.source import Source


@pytest.fixture(autouse=True)
def threads() -> Any:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def elsewhere(served: Any, *arguments: str) -> str:
    """What another process of Python prints, that has the token in its environment."""
    environment = {**os.environ, "HISS_TOKEN": served.token}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Selection]:
    """The reads of blocks with their bytes that reach the server."""
    from hiss.transport.remote import RemoteStore

    asked: list[Selection] = []
    read = RemoteStore.read

    def counted(store: RemoteStore, stream_id: str, selection: Selection) -> Any:
        if selection.data:
            asked.append(selection)
        return read(store, stream_id, selection)

    monkeypatch.setattr(RemoteStore, "read", counted)
    return asked


def scan(buffer: Buffer, path: str = "beamtime42/scan7") -> None:
    """A tomography scan: projections with gaps, a dark, events, bytes."""
    made = buffer.collection(path, attrs={"sample": "foam 3", "energy": {"value": 30, "unit": "keV"}})
    columns = {"angle": "f8 deg", "shot": "S4"}
    with made.create_stream("proj", dtype="<u2", shape=(4, 6), columns=columns, attrs={"units": "counts"}) as s:
        index = [10, 11, 13, 14, 18]
        s.extend(frames(5), index=index, angle=np.arange(5) * 1.5, shot=b"ab", time_ns=np.arange(5) * 1000 + 10**18)
    with made.create_stream("dark", dtype="<u2", shape=(4, 6)) as s:
        s.append(np.ones((4, 6), "u2"))
    with made.create_stream("current", dtype="<f8", shape=(), columns={"angle": "f8 deg"}) as s:
        for number in index:
            s.append(np.float64(number), index=number, angle=0.0)
    with made.create_stream("events", dtype="<u4", shape=(None,)) as s:
        s.append(np.arange(3, dtype="<u4"))
    with made.create_stream("log") as s:
        s.append(b"text")


# ---- arrays

KEYS = st.one_of(
    st.integers(-9, 8),
    st.slices(9),
    st.lists(st.integers(-9, 8), max_size=5).map(lambda rows: np.array(rows, np.int64)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=KEYS, second=st.one_of(st.integers(-4, 3), st.slices(4)), gaps=st.booleans(), dots=st.booleans())
def test_an_index_means_what_it_means_in_numpy(buffer: Buffer, first: Any, second: Any, gaps: bool, dots: bool) -> None:
    data = frames(9)
    scan = buffer.collection("c")
    name = f"s{gaps:d}"
    if name not in scan:
        with scan.create_stream(name, dtype="<u2", shape=(4, 6)) as s:
            s.extend(data, index=np.arange(9) * (1 + gaps) + gaps * (np.arange(9) > 4))
    array = StreamArray.of(buffer.store, scan[name].info)
    key = (first, second, ...) if dots else (first, second)
    assert np.array_equal(array[key], data[key])
    assert array[key].shape == data[key].shape


def test_an_array_of_dask(buffer: Buffer, reads: list[Selection]) -> None:
    data = frames(100)
    with buffer.collection("c").create_stream("s", dtype="<u2", shape=(4, 6)) as s:
        s.extend(data, index=np.arange(100) + 1000)
    array = buffer["c/s"].to_dask(chunk_bytes=480)
    assert array.chunks == ((10,) * 10, (4,), (6,))
    assert not reads, "nothing is read before it is computed"
    assert np.array_equal(array[25].compute(), data[25])
    assert [(each.start, each.stop) for each in reads] == [(1020, 1030)]
    assert np.isclose(array.mean().compute(), data.mean())
    assert np.array_equal(array[::7, 1:3].compute(), data[::7, 1:3])
    assert np.array_equal(array[np.array([5, 90, 6])].compute(), data[[5, 90, 6]])
    assert buffer["c/s"].to_dask(chunk_bytes=480).name == array.name
    assert len(array.__dask_graph__()) < 30


def test_streams_without_blocks_or_without_one_shape(buffer: Buffer) -> None:
    with buffer.collection("c").create_stream("none", dtype="<f4", shape=(2, 3)):
        pass
    assert buffer["c/none"].to_dask().compute().shape == (0, 2, 3)
    assert buffer["c/none"].to_xarray().shape == (0, 2, 3)
    with buffer.collection("c").create_stream("events", dtype="<u4", shape=(None,)) as s:
        s.append(np.arange(3, dtype="<u4"))
    for make in (buffer["c/events"].to_dask, buffer["c/events"].to_xarray):
        with pytest.raises(errors.SpecMismatch, match="variable length"):
            make()
    with pytest.raises(errors.InvalidInput):
        buffer["c/none"].to_dask(chunk_bytes=0)


def test_a_mean_over_more_than_its_share_of_memory(served: Any, buffer: Buffer) -> None:
    """With the control: NumPy takes all of it at once."""
    frame = np.random.default_rng(0).integers(0, 255, (MiB,), np.uint8)
    with buffer.collection("c").create_stream("s", dtype="u1", shape=frame.shape) as s:
        for _ in range(192):
            s.append(frame)
    told = elsewhere(served, str(Path(__file__).with_name("memory_user.py")), served.address, "c/s").split()
    assert np.allclose([float(told[0]), float(told[2])], frame.mean())
    dask_rise, numpy_rise = int(told[1]), int(told[3])
    assert dask_rise < 96 * MiB, f"{dask_rise / MiB:.0f} MiB more for a stream of 192 MiB"
    assert numpy_rise > 96 * MiB, f"{numpy_rise / MiB:.0f} MiB more for a stream of 192 MiB"


def test_a_buffer_of_this_process_is_not_reached_from_another(tmp_path: Path) -> None:
    with hiss.open(tmp_path / "data", arena_bytes=16 * MiB) as buffer:
        with buffer.collection("c").create_stream("s", dtype="u1", shape=(2,)) as s:
            s.extend(np.ones((4, 2), "u1"))
        array = StreamArray.of(buffer.store, buffer["c/s"].info)
        assert buffer["c/s"].to_dask().sum().compute() == 8
        assert pickle.loads(pickle.dumps(array))[0].tolist() == [1, 1]
    del buffer, s
    with pytest.raises(errors.Unavailable, match="hiss serve"):
        Source("", "of another process").store  # noqa: B018


def test_an_open_stream_keeps_its_length(buffer: Buffer) -> None:
    s = buffer.collection("c").create_stream("s", dtype="u1", shape=(2,))
    for number in (0, 3):
        s.append(np.full(2, number, "u1"), index=number)
    s.flush()
    array = buffer["c/s"].to_dask()
    s.append(np.full(2, 1, "u1"), index=1)
    s.append(np.full(2, 4, "u1"), index=4)
    s.flush()
    assert array[:, 0].compute().tolist() == [0, 3]
    assert buffer["c/s"].to_dask()[:, 0].compute().tolist() == [0, 1, 3, 4]
    s.seal()


# ---- datasets


def test_a_collection_is_a_dataset(served: Any, buffer: Buffer, reads: list[Selection]) -> None:
    scan(buffer)
    found = xr.open_dataset(f"{served.url}/beamtime42/scan7", engine="hiss", token=served.token)
    assert not reads, "only what stands beside the blocks is read"
    assert found.proj.dims == ("index", "y", "x")
    assert found.current.dims == ("index",), "the same indices, the same axis"
    assert found.dark.dims == ("index_dark", "y", "x")
    assert found.proj.index.values.tolist() == [10, 11, 13, 14, 18]
    assert found.time.dtype == "datetime64[ns]"
    assert found.time.values.astype(int).tolist() == [10**18 + 1000 * n for n in range(5)]
    assert found.angle.values.tolist() == [0, 1.5, 3, 4.5, 6]
    assert found.angle_current.values.tolist() == [0] * 5
    assert found.shot.values.tolist() == [b"ab"] * 5
    assert found.proj.attrs["units"] == "counts"
    assert found.proj.attrs["hiss_completeness"].startswith("complete with 4 gaps")
    assert found.attrs["sample"] == "foam 3"
    assert found.attrs["energy"] == '{"unit": "keV", "value": 30}'
    assert sorted(each.partition(":")[0] for each in found.attrs["hiss_left_out"]) == ["events", "log"]
    data = frames(5)
    assert np.array_equal(found.proj.sel(index=13)[1:3].values, data[2, 1:3])
    assert [(each.start, each.stop) for each in reads] == [(13, 14)]
    assert np.array_equal(found.proj.isel(x=[4, 0], index=slice(None, None, 2)).values, data[::2, :, [4, 0]])
    assert np.array_equal(found.proj.isel(index=[0, 3], y=[1, 2]).values, data[[0, 3]][:, [1, 2]])
    assert np.array_equal(found.load().proj.values, data)


def test_without_naming_the_engine_in_chunks_and_by_another_process(served: Any, buffer: Buffer) -> None:
    scan(buffer)
    url = f"{served.url}/beamtime42/scan7"
    found = xr.open_dataset(url, token=served.token, chunks={}, drop_variables=["dark", "index_dark"])
    assert sorted(found.data_vars) == ["current", "proj"]
    assert found.proj.chunks == ((5,), (4,), (6,))
    assert np.isclose(found.proj.mean().compute(), frames(5).mean())
    again = pickle.loads(pickle.dumps(xr.open_dataset(url, token=served.token)))
    assert np.array_equal(again.proj[1].values, frames(5)[1])
    one = xr.open_dataset(f"{url}/proj", token=served.token)
    assert list(one.data_vars) == ["proj"]
    with pytest.raises(errors.NotFound):
        xr.open_dataset(f"{url}/nothing", token=served.token, engine="hiss")


def test_another_process_reads_over_a_connection_of_its_own(served: Any, buffer: Buffer, tmp_path: Path) -> None:
    """An array of dask that travelled, and the line of the promise."""
    scan(buffer)
    graph = pickle.dumps(buffer["beamtime42/scan7/proj"].to_dask(chunk_bytes=96))
    assert served.token.encode() not in graph, "the token is of the process that reads"
    (tmp_path / "array").write_bytes(graph)
    url = f"hiss://localhost:{served.port}/beamtime42/scan7"
    told = elsewhere(
        served,
        "-c",
        f"import xarray as xr; print(xr.open_dataset('{url}', engine='hiss')); "
        "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).sum().compute(scheduler='sync'))",
        str(tmp_path / "array"),
    )
    assert "proj" in told
    assert "(index, y, x)" in told
    assert int(told.splitlines()[-1]) == frames(5).sum()


def test_a_stream_is_a_data_array(buffer: Buffer) -> None:
    scan(buffer)
    array = buffer["beamtime42/scan7/proj"].to_xarray()
    assert array.name == "proj"
    assert np.array_equal(array.sel(index=18).values, frames(5)[4])
    assert float(array.angle[2]) == 3.0
    assert np.array_equal(array.swap_dims(index="angle").sel(angle=1.6, method="nearest").values, frames(5)[1])


def test_modules_that_are_joined_are_one_variable(served: Any, buffer: Buffer) -> None:
    made = buffer.collection("c")
    data = {"m0": ([0, 1, 2], 1), "m1": ([1, 2, 5], 2)}
    for name, (index, value) in data.items():
        with made.create_stream(name, dtype="u1", shape=(2, 3)) as s:
            s.extend(np.full((3, 2, 3), value, "u1"), index=index)
    made.join("detector", ["m0", "m1"])
    found = xr.open_dataset(f"{served.url}/c", token=served.token)
    assert found.detector.dims == ("index_detector", "module", "y", "x")
    assert found.index_detector.values.tolist() == [0, 1, 2, 5]
    assert found.detector[:, :, 0, 0].values.tolist() == [[1, 0], [1, 2], [1, 2], [0, 2]]
    assert found.detector_present.values.tolist() == [[1, 0], [1, 1], [1, 1], [0, 1]]
    assert found.detector.sel(index_detector=5).isel(module=1).values.tolist() == [[2] * 3] * 2
    assert np.array_equal(found.m1.values, np.full((3, 2, 3), 2))


def test_what_is_computed_on_the_way_out(served: Any, buffer: Buffer) -> None:
    data = frames(6)
    with buffer.collection("c").create_stream(
        "s", dtype="<u2", shape=(4, 6), columns={"n": "i4"}, keep="raw", kernels=[double]
    ) as s:
        s.extend(data, n=np.arange(6))
    found = xr.open_dataset(f"{served.url}/c", token=served.token)
    assert np.array_equal(found.s.values, data * 2)
    assert np.array_equal(found["s.raw"].values, data)
    assert found.n.values.tolist() == list(range(6))


def test_names_that_axes_have(served: Any, buffer: Buffer) -> None:
    made = buffer.collection("c")
    for name, shape in (("index", (3,)), ("time", (5,)), ("x", ())):
        with made.create_stream(name, dtype="u1", shape=shape, columns={"x": "u1"}) as s:
            s.extend(np.zeros((2, *shape), "u1"), x=np.arange(2))
    found = xr.open_dataset(f"{served.url}/c", token=served.token)
    assert sorted(found.data_vars) == ["index_", "time_", "x_"]
    assert found.time_.dims == ("index", "x")
    assert found.index_.dims == ("index", "x_index")
