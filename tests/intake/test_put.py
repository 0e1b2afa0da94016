"""What is put comes back byte for byte: real files of instruments, and one small file of each form."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiss.client import Buffer
from hiss.drain import drain
from hiss.errors import AlreadyExists, InvalidInput, SpecMismatch
from hiss.intake import Wishes, put
from hiss.intake.formats import open_source
from hiss.intake.putting import in_natural_order
from hiss.limits import MiB
from hiss.model import StreamState

FRAMES = np.random.default_rng(8).integers(0, 60000, (7, 4, 6), np.uint16)


def content(buffer: Buffer, path: str) -> bytes:
    """All blocks of a stream, one after another."""
    return b"".join(
        bytes(block.data) if isinstance(block.data, bytes) else block.data.tobytes() for block in buffer[path]
    )


# ---------------------------------------------------------------------------------------------------- real files


def test_the_diamond_scan(buffer: Buffer, data_dir: Path) -> None:
    source = data_dir / "tomo_dls_91x135x160.h5"
    (stream,) = buffer.put(source, "dls/scan/proj")
    with h5py.File(source) as file:
        np.testing.assert_array_equal(np.asarray(stream), file["projections"][()])
        np.testing.assert_array_equal(stream.columns["angle_deg"], file["angle_deg"][()])
        buffer.put(f"{source}::dark_mean", "dls/scan/dark")
        np.testing.assert_array_equal(buffer["dls/scan/dark"][0], file["dark_mean"][()])
    assert stream.info.state is StreamState.SEALED
    assert stream.attrs["licence"].startswith("Apache-2.0")


def test_the_pilatus_grid(large_buffer: Buffer, data_dir: Path) -> None:
    source = data_dir / "pilatus6m_gridscan_5f.h5"
    (stream,) = large_buffer.put(source, "i24/grid/")
    assert stream.path == "i24/grid/frames"
    with h5py.File(source) as file:
        for number, frame in enumerate(file["frames"]):
            np.testing.assert_array_equal(stream[number], frame)
        assert stream.columns["frame_number"].tolist() == file["frame_number"][()].tolist()
    assert (stream.attrs["detector"], stream.attrs["wavelength_A"]) == ("DECTRIS PILATUS3 6M S/N 60-0119", 0.96859)


def test_the_lambda_modules_are_joined(buffer: Buffer, data_dir: Path) -> None:
    for module in (1, 2, 3):
        parts = [data_dir / f"lambda_asapo_m{module}_part0000{part}.nxs" for part in (1, 0)]
        buffer.put(parts, f"p02/series/m{module}", join="lambda")
    join = buffer["p02/series"].join("lambda")
    assert join.shape == (20, 3, 516, 1554)
    assert join.offsets == [[0, 0, 0], [-2, 660, 0], [-2, 1317, 0]]
    for place, module in enumerate(join.modules):
        assert module.columns["sequence_number"].tolist() == list(range(1, 21))
        assert (module.attrs["count_time_units"], module.attrs["source_files"]) == ("millisecond", 2)
        for part in (0, 1):
            with h5py.File(data_dir / f"lambda_asapo_m{place + 1}_part0000{part}.nxs") as file:
                found = module[10 * part : 10 * part + 10]
                np.testing.assert_array_equal(found, file["entry/instrument/detector/data"][()])


def test_the_timepix3_events(buffer: Buffer, data_dir: Path) -> None:
    source = data_dir / "tpx3_ornl_background.tpx3"
    (stream,) = buffer.put(source, "ornl/background/events")
    assert content(buffer, "ornl/background/events") == source.read_bytes()
    packets = [block.data for block in stream]
    assert len(packets) > 5
    assert all(int(packet[0]) & 0xFFFFFFFF == 0x33585054 for packet in packets)
    assert stream.dtype == np.uint64


def test_the_fibre(buffer: Buffer, data_dir: Path) -> None:
    source = data_dir / "das_idas005_1000x1152.h5"
    (packet,) = buffer.put(source, "das/well/second")
    (rows,) = buffer.put(source, "das/well/samples", rows=True)
    with h5py.File(source) as file:
        raw, times = file["Acquisition/Raw[0]/RawData"][()], file["Acquisition/Raw[0]/RawDataTime"][()]
    np.testing.assert_array_equal(packet[0], raw)
    np.testing.assert_array_equal(np.asarray(rows), raw)
    assert packet.time_ns.tolist() == [int(times[0]) * 1000]
    assert rows.time_ns.tolist() == (times * 1000).tolist()
    assert (packet.attrs["OutputDataRate"], packet.attrs["GaugeLength.uom"]) == (1000.0, "m")


def test_the_tiff_volume(buffer: Buffer, data_dir: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    source = data_dir / "fiberform_100.tif"
    (stream,) = buffer.put(source, "nasa/foam/")
    np.testing.assert_array_equal(np.asarray(stream), tifffile.imread(source))
    assert stream.path == "nasa/foam/fiberform_100"


@pytest.mark.parametrize(
    ("name", "member", "shape"),
    [
        ("tomo_tooth.h5", "exchange/data", (181, 2, 640)),
        ("jungfrau_mod5.h5", "raw", (4, 512, 1024)),
        ("ceo2_pilatus1m.h5", "frame", (1, 1043, 981)),
        ("SYNTHETIC_foam_phantom_224.h5", "volume", (224, 224, 224)),
    ],
)
def test_the_other_files_find_their_data(
    buffer: Buffer, data_dir: Path, name: str, member: str, shape: tuple[int, ...]
) -> None:
    (stream,) = buffer.put(data_dir / name, "real/file/data")
    assert stream.shape == shape
    with h5py.File(data_dir / name) as file:
        np.testing.assert_array_equal(np.asarray(stream).reshape(file[member].shape), file[member][()])


def test_data_exchange_is_darks_flats_and_projections(buffer: Buffer, data_dir: Path) -> None:
    made = buffer.put(data_dir / "tomo_tooth.h5", "aps/tooth/")
    assert [(stream.info.name, stream.attrs["image_key"], len(stream)) for stream in made] == [
        ("dark", 2, 10), ("flat", 1, 10), ("proj", 0, 181),
    ]  # fmt: skip
    assert made[2].info.columns[0].unit == "degrees"
    assert buffer["aps/tooth"].attrs == {"definition": "NXtomo"}


def test_out_to_nexus_and_back(buffer: Buffer, data_dir: Path, tmp_path: Path) -> None:
    """A drained file is put as any other: bytes, columns, indices, times and attributes are those of the stream."""
    scan = buffer.collection("beam/scan")
    with scan.create_stream("proj", dtype="u2", shape=(4, 6), columns={"angle": "f8 deg"}, attrs={"n": 3}) as s:
        for number in (0, 1, 2, 5, 6):
            s.append(FRAMES[number], index=number, time_ns=10**18 + number, angle=number / 2)
    drain(buffer.store, "beam/scan", tmp_path / "scan.nxs")
    (again,) = buffer.put(tmp_path / "scan.nxs", "beam/again/proj")
    first = scan["proj"]
    np.testing.assert_array_equal(np.asarray(again), np.asarray(first))
    assert again.index.tolist() == first.index.tolist()
    assert again.time_ns.tolist() == first.time_ns.tolist()
    assert again.columns["angle"].tolist() == first.columns["angle"].tolist()
    assert (again.info.columns, again.attrs["n"]) == (first.info.columns, 3)
    assert "declared" not in str(again.info.completeness)


def test_real_files_out_to_nexus_and_back(buffer: Buffer, data_dir: Path, tmp_path: Path) -> None:
    """Events, waveforms and modules: every block, with its index, comes back from the file that was drained."""
    buffer.put(data_dir / "tpx3_ornl_background.tpx3", "real/one/events")
    buffer.put(data_dir / "das_idas005_1000x1152.h5", "real/one/fibre", rows=True)
    buffer.put(data_dir / "lambda_asapo_m2_part00000.nxs", "real/one/m2")
    buffer.put(data_dir / "tomo_dls_91x135x160.h5", "real/one/proj")
    buffer.put(data_dir / "ceo2_pilatus1m.poni", "real/one/geometry")
    drain(buffer.store, "real/one", tmp_path / "one.nxs")
    again = {stream.info.name: stream for stream in buffer.put(tmp_path / "one.nxs", "real/two/")}
    assert sorted(again) == ["events", "fibre", "geometry", "m2", "proj"]
    for stream in buffer["real/one"].streams():
        other = again[stream.info.name]
        assert (other.info.frame, other.info.columns) == (stream.info.frame, stream.info.columns)
        assert (other.index.tolist(), other.time_ns.tolist()) == (stream.index.tolist(), stream.time_ns.tolist())
        assert content(buffer, other.path) == content(buffer, stream.path)
        assert other.attrs.get("offset") == stream.attrs.get("offset")


# ---------------------------------------------------------------------------------------------------- one of each form


@pytest.mark.parametrize("suffix", ["cbf", "edf"])
def test_images_of_fabio(buffer: Buffer, data_dir: Path, tmp_path: Path, suffix: str) -> None:
    fabio = pytest.importorskip("fabio")
    with h5py.File(data_dir / "pilatus6m_gridscan_5f.h5") as file:
        frames = file["frames"][:3, :300, :400].astype(np.int32)
    for number, frame in enumerate(frames):
        image = fabio.factory(f"{suffix}image")
        image.data, image.header = frame, {"Exposure": "0.25", "Detector": "PILATUS"}
        image.write(str(tmp_path / f"grid_{number + 9}.{suffix}"))
    names = [tmp_path / f"grid_{number + 9}.{suffix}" for number in (2, 0, 1)]
    (stream,) = buffer.put(names, "i24/grid/frames")
    np.testing.assert_array_equal(np.asarray(stream), frames)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_stacks(buffer: Buffer, tmp_path: Path, compression: str | None, order: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "stack.tif", FRAMES, byteorder=order, photometric="minisblack", compression=compression)
    tifffile.imwrite(tmp_path / "one.tif", FRAMES[0], byteorder=order, compression=compression)
    (stack,) = buffer.put(tmp_path / "stack.tif", "c/stack")
    (one,) = buffer.put(tmp_path / "one.tif", "c/one")
    np.testing.assert_array_equal(np.asarray(stack), FRAMES)
    np.testing.assert_array_equal(np.asarray(one), FRAMES[:1])


def test_npz_files_are_one_stream_for_each_array(buffer: Buffer, tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", frames=FRAMES, mask=FRAMES[0] > 5, big=FRAMES.astype(">i4"))
    made = buffer.put(tmp_path / "all.npz", "c/npz/")
    assert [stream.info.name for stream in made] == ["frames", "mask", "big"]
    for stream, array in zip(made, (FRAMES, FRAMES[:1] > 5, FRAMES), strict=True):
        np.testing.assert_array_equal(np.asarray(stream), array)
    with pytest.raises(InvalidInput, match="3 streams"):
        buffer.put(tmp_path / "all.npz", "c/all")
    (mask,) = buffer.put(f"{tmp_path / 'all.npz'}::mask", "c/mask")
    assert mask.dtype == bool


def nexus(path: Path, **datasets: Any) -> Path:
    """A NeXus file with `/entry/data` as its default, and what else is told: datasets, or groups by their class."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data"})
        group = entry.create_group("data")
        group.attrs.update({"NX_class": "NXdata", "signal": "counts"})
        for name, values in datasets.items():
            group[name] = values
        other = entry.create_group("other")
        other.attrs.update({"NX_class": "NXdata", "signal": "larger"})
        other["larger"] = np.zeros((50, 9, 9), np.float64)
    return path


def test_the_default_signal_is_the_data_and_units_go_along(buffer: Buffer, tmp_path: Path) -> None:
    source = nexus(
        tmp_path / "a.nxs", counts=FRAMES, angle=np.arange(7.0), label=np.array([b"x"] * 7), roi=np.arange(4)
    )
    with h5py.File(source, "a") as file:
        file["entry/data/angle"].attrs["units"] = "deg"
    (stream,) = buffer.put(source, "c/a")
    np.testing.assert_array_equal(np.asarray(stream), FRAMES)
    assert {column.name: (column.dtype, column.unit) for column in stream.info.columns} == {
        "angle": ("<f8", "deg"),
        "label": ("|S1", ""),
    }


@pytest.mark.parametrize("filters", ["Bitshuffle", "LZ4", "Zstd"])
def test_compressed_chunks_are_decoded(buffer: Buffer, tmp_path: Path, filters: str) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=FRAMES, chunks=(1, 4, 6), **getattr(hdf5plugin, filters)())
    np.testing.assert_array_equal(np.asarray(buffer.put(tmp_path / "a.h5", "c/a")[0]), FRAMES)


def nxtomo(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        entry = file.create_group("scan")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXtomo"
        for name, kind in (("instrument", "NXinstrument"), ("instrument/det", "NXdetector"), ("sample", "NXsample")):
            entry.create_group(name).attrs["NX_class"] = kind
        entry["instrument/det/data"] = FRAMES
        entry["instrument/det/image_key"] = np.array([2, 1, 0, 0, 1, 0, 2])
        entry["instrument/det/x_pixel_size"] = 6.5
        entry["sample/rotation_angle"] = np.arange(7.0)
        entry["sample/rotation_angle"].attrs["units"] = "degree"
        entry["sample/name"] = "foam"
    return path


def test_nxtomo_as_one_stack_and_split(buffer: Buffer, tmp_path: Path) -> None:
    source = nxtomo(tmp_path / "tomo.nxs")
    (stack,) = buffer.put(source, "c/one/stack")
    np.testing.assert_array_equal(np.asarray(stack), FRAMES)
    assert stack.columns["image_key"].tolist() == [2, 1, 0, 0, 1, 0, 2]
    assert {column.name: column.unit for column in stack.info.columns} == {"image_key": "", "rotation_angle": "degree"}
    assert (stack.attrs["x_pixel_size"], stack.attrs["name"]) == (6.5, "foam")
    dark, flat, proj = buffer.put(source, "c/split/")
    np.testing.assert_array_equal(np.asarray(dark), FRAMES[[0, 6]])
    np.testing.assert_array_equal(np.asarray(flat), FRAMES[[1, 4]])
    np.testing.assert_array_equal(np.asarray(proj), FRAMES[[2, 3, 5]])
    assert proj.columns["rotation_angle"].tolist() == [2, 3, 5]
    drain(buffer.store, "c/split", tmp_path / "out.nxs")
    with h5py.File(tmp_path / "out.nxs") as file:
        assert file["entry/definition"][()] == b"NXtomo"


def test_empty_and_odd_files_are_bytes(buffer: Buffer, tmp_path: Path) -> None:
    for name, what in (
        ("empty.dat", b""),
        ("odd.tpx3", b"TPX3abc"),
        ("words.tpx3", bytes(range(64))),
        ("a", b"\0" * 9),
    ):
        (tmp_path / name).write_bytes(what)
        (stream,) = buffer.put(tmp_path / name, f"c/{name}")
        assert (content(buffer, f"c/{name}"), stream.info.frame.opaque) == (what, True)


def test_files_are_known_by_their_first_bytes_too(buffer: Buffer, tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", FRAMES)
    (tmp_path / "frames.npy").rename(tmp_path / "frames.dat")
    np.testing.assert_array_equal(np.asarray(buffer.put(tmp_path / "frames.dat", "c/a")[0]), FRAMES)
    assert content(buffer, buffer.put(tmp_path / "frames.dat", "c/b", as_bytes=True)[0].path)[:6] == b"\x93NUMPY"


# ---------------------------------------------------------------------------------------------------- series, errors


def test_a_series_is_one_stream_in_natural_order(buffer: Buffer, tmp_path: Path) -> None:
    for number, frame in enumerate(FRAMES):
        np.save(tmp_path / f"f{number * 5}.npy", frame)
    said: list[tuple[int, int]] = []
    names = [str(tmp_path / f"f{number * 5}.npy") for number in (3, 1, 2, 0, 6, 4, 5)]
    put(buffer.store, names, "c/series", on_progress=lambda done, total: said.append((done, total)))
    np.testing.assert_array_equal(np.asarray(buffer["c/series"]), FRAMES)
    assert said[-1] == (FRAMES.nbytes, FRAMES.nbytes)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20, unique=True), st.randoms())
@settings(max_examples=30)
def test_natural_order_is_that_of_the_numbers(numbers: list[int], random: Any) -> None:
    names = [f"scan_{number}.tif" for number in sorted(numbers)]
    mixed = list(names)
    random.shuffle(mixed)
    assert in_natural_order(mixed) == names


def test_a_series_of_two_forms_is_aborted_and_says_why(buffer: Buffer, tmp_path: Path) -> None:
    np.save(tmp_path / "a1.npy", FRAMES)
    np.save(tmp_path / "a2.npy", FRAMES.astype("f4"))
    with pytest.raises(SpecMismatch, match=r"a2\.npy: <f4 .*a1\.npy has <u2"):
        buffer.put([tmp_path / "a1.npy", tmp_path / "a2.npy"], "c/series")
    info = buffer["c/series"].info
    assert (info.state, info.completeness.blocks) == (StreamState.ABORTED, 7)
    assert "a series has one form" in info.abort_reason


def test_names_that_are_taken_need_a_new_version(buffer: Buffer, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FRAMES)
    buffer.put(tmp_path / "a.npy", "c/a")
    with pytest.raises(AlreadyExists):
        buffer.put(tmp_path / "a.npy", "c/a")
    assert buffer.put(tmp_path / "a.npy", "c/a", new_version=True)[0].version == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: h5py.File(path, "w").close(), "no dataset of numbers"),
        (lambda path: path.write_bytes(b"no HDF5"), "not an HDF5 file"),
    ],
)
def test_what_cannot_be_read_is_said(buffer: Buffer, tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "a.h5")
    with pytest.raises(InvalidInput, match=said):
        buffer.put(tmp_path / "a.h5", "c/a")


def test_a_file_that_is_damaged_in_the_middle_aborts_its_stream(buffer: Buffer, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", data=FRAMES, chunks=(1, 4, 6), compression="gzip")
        place = data.id.get_chunk_info(4)
    with (tmp_path / "a.h5").open("r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    with pytest.raises(InvalidInput, match="cannot be read"):
        buffer.put(tmp_path / "a.h5", "c/a")
    assert buffer["c/a"].info.state is StreamState.ABORTED


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=30), st.integers(1, 12))
@settings(max_examples=40)
def test_packets_are_whole_chunks(chunks: list[tuple[int, int]], most: int) -> None:
    """Whatever their sizes: nothing is left out, each packet begins with a header, and is as large as it may be."""
    words = [w for count, chip in chunks for w in [0x33585054 | chip << 32 | (8 * count) << 48, *([0xB << 60] * count)]]
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr("hiss.limits.INTAKE_PACKET_BYTES", 8 * most)
        path = Path(folder) / "a.tpx3"
        np.array(words, "<u8").tofile(path)
        with open_source(str(path), Wishes()) as (part,):
            packets = [run.blocks[0].tolist() for run in part.read()]
    assert [word for packet in packets for word in packet] == words
    assert all(packet[0] & 0xFFFFFFFF == 0x33585054 for packet in packets)
    assert all(len(packet) <= most or sum(w & 0xFFFFFFFF == 0x33585054 for w in packet) == 1 for packet in packets)


def test_two_that_are_as_large_are_a_question(buffer: Buffer, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["two"] = FRAMES, FRAMES
    with pytest.raises(InvalidInput, match="FILE::DATASET: one, two"):
        buffer.put(tmp_path / "a.h5", "c/a")


def test_a_file_larger_than_a_block_is_several_blocks(
    buffer: Buffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hiss.limits.BLOCK_BYTES_MAX", 8 * MiB)
    monkeypatch.setattr("hiss.limits.INTAKE_RUN_BYTES", 3 * MiB)
    what = np.random.default_rng(1).bytes(10 * MiB)
    (tmp_path / "large.dat").write_bytes(what)
    (stream,) = buffer.put(tmp_path / "large.dat", "c/large")
    assert (len(stream), content(buffer, "c/large")) == (4, what)
