"""Streams that are drained while they are written: readable from the first segment on, whole at the end."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import hiss
from hiss import limits
from hiss.client import Buffer
from hiss.drain import verify_file
from hiss.drain.live import LiveDrain
from hiss.errors import AlreadyExists, Damaged
from hiss.limits import MiB

SHAPE = (5, 7)


@pytest.fixture
def buffer(tmp_path: Path) -> Any:
    with hiss.open(tmp_path / "data", arena_bytes=32 * MiB, segment_bytes=8 * MiB, backend="numpy") as opened:
        yield opened


def frames(count: int, seed: int = 3) -> Any:
    return np.random.default_rng(seed).integers(0, 60_000, (count, *SHAPE)).astype(np.uint16)


def started(buffer: Buffer, name: str = "proj", **more: Any) -> Any:
    return buffer.collection("c").create_stream(name, dtype="u2", shape=SHAPE, columns={"angle": "f8 deg"}, **more)


def append(stream: Any, blocks: Any, first: int) -> None:
    index = np.arange(first, first + len(blocks))
    stream.extend(blocks, index=index, angle=index * 0.5)
    stream.flush()


def live(buffer: Buffer, file: Path, source: str = "c/proj", **more: Any) -> LiveDrain:
    return LiveDrain(buffer.store, source, file, compression="none", **more)


def shown(file: Path, name: str = "proj") -> tuple[Any, Any, Any]:
    """Blocks, index and angle as a reader sees them."""
    with h5py.File(file, "r") as opened:
        group = opened[f"entry/{name}"]
        return group["data"][()], group["index"][()], group["angle"][()]


def test_a_reader_sees_what_was_drained_while_the_stream_is_open(tmp_path: Path, buffer: Buffer) -> None:
    data, file = frames(9), tmp_path / "scan.nxs"
    with started(buffer) as stream:
        drain = live(buffer, file)
        for first in (0, 3):
            append(stream, data[first : first + 3], first)
            assert not drain.look(now=True)
            blocks, index, angle = shown(file)
            np.testing.assert_array_equal(blocks, data[: first + 3])
            assert index.tolist() == list(range(first + 3))
            np.testing.assert_array_equal(angle, index * 0.5)
            assert verify_file(file).ok
        assert not drain.look(now=True), "nothing is new"
        assert len(list(tmp_path.glob("scan_proj_*.h5"))) == 2
        append(stream, data[6:], 6)
    assert drain.look()
    assert drain.report is not None
    assert (drain.report.blocks, drain.report.recorded) == (9, True)
    np.testing.assert_array_equal(shown(file)[0], data)
    assert verify_file(file).ok
    assert all(verify_file(part).ok for part in tmp_path.glob("scan_proj_*.h5"))
    assert [archive.location for archive in buffer["c/proj"].info.archives] == [f"{file}::/entry/instrument/proj/data"]
    with h5py.File(file) as master:
        assert master["entry/hiss/proj/state"][()] == b"sealed"
        assert master["entry/hiss/proj/completeness"][()] == b"complete: 9 blocks"


@pytest.mark.parametrize("singly", [0, 4096])
def test_late_blocks_and_gaps_end_up_in_the_order_of_the_index(
    tmp_path: Path, buffer: Buffer, monkeypatch: pytest.MonkeyPatch, singly: int
) -> None:
    monkeypatch.setattr(limits, "LIVE_SINGLY_MAPPED_MAX", singly)
    data, file = frames(10), tmp_path / "scan.nxs"
    with started(buffer) as stream:
        drain = live(buffer, file)
        append(stream, data[4:7], 4)
        drain.look(now=True)
        append(stream, data[8:10], 8)
        drain.look(now=True)
        append(stream, data[0:2], 0)  # late
        drain.look(now=True)
        assert shown(file)[1].tolist() == [4, 5, 6, 8, 9]
    assert drain.look()
    blocks, index, _ = shown(file)
    assert index.tolist() == [0, 1, 4, 5, 6, 8, 9]
    np.testing.assert_array_equal(blocks, data[index])
    assert verify_file(file).ok


def test_a_segment_ends_at_its_size_and_after_its_time(tmp_path: Path, buffer: Buffer) -> None:
    data, now_s = frames(8), [0.0]
    with started(buffer) as stream:
        drain = live(
            buffer, tmp_path / "scan.nxs", segment_bytes=3 * data[0].nbytes, segment_s=10, clock_s=lambda: now_s[0]
        )
        append(stream, data[:2], 0)
        drain.look()
        now_s[0] = 9.0
        drain.look()
        assert not list(tmp_path.glob("*.h5")), "neither big enough nor old enough"
        now_s[0] = 10.0
        drain.look()
        assert shown(tmp_path / "scan.nxs")[1].tolist() == [0, 1]
        append(stream, data[2:8], 2)
        drain.look()
        assert len(shown(tmp_path / "scan.nxs")[1]) >= 5, "big enough at once"


def test_what_was_killed_goes_on_with_its_segments(tmp_path: Path, buffer: Buffer) -> None:
    data, file = frames(8), tmp_path / "scan.nxs"
    with started(buffer) as stream:
        first = live(buffer, file)
        append(stream, data[:5], 0)
        first.look(now=True)
        before = {path.name: path.stat().st_ino for path in tmp_path.glob("*.h5")}
        again = live(buffer, file)  # the first one is gone
        append(stream, data[5:], 5)
        again.look(now=True)
        np.testing.assert_array_equal(shown(file)[0], data)
        assert {name: (tmp_path / name).stat().st_ino for name in before} == before, "segments are never written again"
    assert again.look()
    blocks, index, angle = shown(file)
    np.testing.assert_array_equal(blocks, data)
    np.testing.assert_array_equal(angle, index * 0.5)
    assert verify_file(file).ok


def test_packets_of_any_length_and_opaque_bytes(tmp_path: Path, buffer: Buffer) -> None:
    packets = [np.arange(n, dtype=np.uint64) + n for n in (3, 0, 5, 1, 4)]
    collection = buffer.collection("c")
    with collection.create_stream("events", dtype="u8", shape=(None,)) as stream:
        drain = live(buffer, tmp_path / "e.nxs", "c/events")
        for number, packet in enumerate(packets):
            stream.append(packet)
            stream.flush()
            drain.look(now=number != 1)
    assert drain.look()
    with h5py.File(tmp_path / "e.nxs") as file:
        data, offset = file["entry/events/data"][()], file["entry/events/offset"][()]
    assert offset.tolist() == np.cumsum([0, 3, 0, 5, 1, 4]).tolist()
    np.testing.assert_array_equal(data, np.concatenate(packets))
    assert verify_file(tmp_path / "e.nxs").ok


def test_a_collection_ends_when_it_is_sealed(tmp_path: Path, buffer: Buffer) -> None:
    file = tmp_path / "all.nxs"
    collection = buffer.collection("c")
    with started(buffer, "dark") as dark:
        append(dark, frames(2, 1), 0)
    drain = live(buffer, file, "c")
    assert not drain.look()
    assert shown(file, "dark")[1].tolist() == [0, 1]
    with started(buffer, "proj") as stream:
        append(stream, frames(3, 2), 0)
    assert not drain.look(), "others may come"
    collection.seal()
    assert drain.look()
    np.testing.assert_array_equal(shown(file)[0], frames(3, 2))
    assert verify_file(file).ok
    assert {info.name for info in buffer.store.streams("c") if info.archives} == {"dark", "proj"}


def test_another_file_is_not_touched(tmp_path: Path, buffer: Buffer) -> None:
    file = tmp_path / "scan.nxs"
    with started(buffer) as stream, started(buffer, "other") as other:
        append(stream, frames(2), 0)
        append(other, frames(2, 9), 0)
        live(buffer, file, "c/other").look(now=True)
        before = file.read_bytes()
        with pytest.raises(AlreadyExists, match="choose another name"):
            live(buffer, file)
        assert file.read_bytes() == before
        live(buffer, tmp_path / "a.nxs").look(now=True)
        (tmp_path / "a_proj_000001.h5").replace(tmp_path / "b_other_000001.h5")
        with pytest.raises(AlreadyExists, match="not those of this stream"):
            live(buffer, tmp_path / "b.nxs", "c/other").look(now=True)


def test_a_damaged_or_missing_segment_is_found(tmp_path: Path, buffer: Buffer) -> None:
    file = tmp_path / "scan.nxs"
    with started(buffer) as stream:
        drain = live(buffer, file)
        append(stream, frames(4), 0)
        drain.look(now=True)
    drain.look()
    part = tmp_path / "scan_proj_000001.h5"
    good = part.read_bytes()
    at = good.index(frames(4)[2].tobytes())
    part.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    assert "block 2" in str(verify_file(file))
    assert not verify_file(file).ok
    part.unlink()
    assert not verify_file(file).ok
    assert "scan_proj_000001.h5" in str(verify_file(file))
    part.write_bytes(good[:1000])
    with pytest.raises(Damaged, match="remove it"):
        live(buffer, file).look()


READER = """
import sys, numpy as np, matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
from nexusformat.nexus import nxload
seen = 0
while seen < int(sys.argv[3]):
    signal = nxload(sys.argv[1]).entry.proj.nxsignal
    count = signal.shape[0]
    assert count >= seen, (count, seen)
    if count > seen:
        seen, newest = count, np.asarray(signal[count - 1])
        figure, axes = plt.subplots(figsize=(2, 2))
        axes.imshow(newest)
        figure.savefig(sys.argv[2])
        plt.close(figure)
        print(count, int(newest[0, 0]), flush=True)
"""


def test_a_reader_opens_and_plots_it_while_it_is_written(tmp_path: Path, buffer: Buffer) -> None:
    """Another process, with nexusformat and matplotlib; the next blocks come when it has drawn those before."""
    count, step, file = 12, 3, tmp_path / "scan.nxs"
    data = frames(count)
    data[:, 0, 0] = np.arange(count)
    with started(buffer) as stream:
        drain = live(buffer, file)
        append(stream, data[:step], 0)
        drain.look(now=True)
        command = [sys.executable, "-W", "ignore", "-c", READER, str(file), str(tmp_path / "plot.png"), str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/") as reader:
            assert reader.stdout is not None
            try:
                for first in range(step, count + step, step):
                    assert reader.stdout.readline().split() == [str(first), str(first - 1)]
                    if first < count:
                        append(stream, data[first : first + step], first)
                        drain.look(now=True)
                assert reader.wait(60) == 0
            finally:
                reader.kill()
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert drain.look()


def test_run_ends_with_the_stream_and_when_it_is_told_to(tmp_path: Path, buffer: Buffer) -> None:
    data, stop = frames(4), threading.Event()
    stream = started(buffer)
    append(stream, data[:2], 0)
    stop.set()
    assert live(buffer, tmp_path / "a.nxs").run(stop) is None
    assert shown(tmp_path / "a.nxs")[1].tolist() == [0, 1]
    drain = live(buffer, tmp_path / "a.nxs", segment_s=0.01)
    running = threading.Thread(target=drain.run, args=(threading.Event(),))
    running.start()
    append(stream, data[2:], 2)
    stream.close()
    running.join(60)
    assert drain.report is not None
    assert drain.report.blocks == 4


def test_what_was_drained_while_it_was_written_is_read_when_it_is_evicted(tmp_path: Path, buffer: Buffer) -> None:
    data = frames(9)
    with started(buffer) as stream:
        drain = live(buffer, tmp_path / "scan.nxs")
        for first in (3, 6, 0):  # the first ones come late
            append(stream, data[first : first + 3], first)
            drain.look(now=True)
    assert drain.look()
    (gone,) = buffer.evict("c/proj")
    assert gone.location == f"{tmp_path}/scan.nxs::/entry/instrument/proj/data"
    np.testing.assert_array_equal(np.asarray(buffer["c/proj"]), data)
    np.testing.assert_array_equal(buffer["c/proj"][7], data[7])
