"""What every buffer does with a stream that was evicted and is archived: it is still there. A part of
`conformance.BufferConformance`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss import errors
from hiss.client import Buffer
from hiss.drain import drain, verify_file
from hiss.model import Selection
from hiss.reader import Stream


@hiss.kernel
def tripled(frame):  # type: ignore[no-untyped-def]
    return frame * 3


class ArchiveConformance:
    """Needs a fixture `buffer`."""

    def test_what_was_evicted_is_read_from_its_archive(self, buffer: Buffer, tmp_path: Path) -> None:
        scan = buffer.collection("c")
        data = np.random.default_rng(5).integers(0, 99, (6, 3, 4)).astype("u2")
        index = [3, 4, 6, 7, 8, 12]
        columns = {"angle": "f8 deg", "shot": "S3", "time-ns": "?"}
        with scan.create_stream("s", dtype="u2", shape=(3, 4), columns=columns) as s:
            values: dict[str, Any] = {"angle": np.arange(6) * 1.5, "shot": b"ab", "time-ns": np.arange(6) > 2}
            s.extend(data, index=index, time_ns=np.arange(6) + 10**18, **values)
        with scan.create_stream("computed", dtype="u2", shape=(3, 4), keep="raw", kernels=[tripled]) as s:
            s.extend(data)
        parts = [b"", b"x", b"hello" * 1000]
        with scan.create_stream("bytes") as s:
            for part in parts:
                s.append(part)
        before = scan["s"]
        drained = drain(buffer.store, "c", tmp_path / "c.nxs")
        assert drained.recorded
        assert len(buffer.evict("c")) == 4, "the raw companion goes, too"
        gone = scan["s"]
        assert gone.info.eviction is not None
        assert gone.info.completeness == before.info.completeness
        assert np.array_equal(np.asarray(gone), data)
        assert np.array_equal(gone[6], data[2])
        assert np.array_equal(gone[4:9:2], data[[1, 2, 4]])
        assert gone.index.tolist() == index
        assert gone.time_ns.tolist() == (np.arange(6) + 10**18).tolist()
        assert gone.columns["shot"].tolist() == [b"ab"] * 6
        assert gone.columns["time-ns"].tolist() == [False] * 3 + [True] * 3
        with pytest.raises(errors.BlockMissing, match="never received"):
            gone[5]
        self._chosen(gone)
        assert np.array_equal(gone.read(kernels=[tripled]), data * 3)
        assert np.allclose(np.asarray(gone.mean()), data.mean(axis=0))
        assert [block.index for block in gone.follow(7)] == [7, 8, 12]
        assert np.array_equal(np.asarray(scan["computed"]), data * 3)
        assert np.array_equal(np.asarray(scan["computed"].raw), data)
        assert scan["bytes"][:] == parts
        drain(buffer.store, "c", tmp_path / "again.nxs")
        assert verify_file(tmp_path / "again.nxs").ok
        (tmp_path / "c.nxs").unlink()
        (tmp_path / "again.nxs").rename(tmp_path / "away.nxs")
        with pytest.raises(errors.ArchiveUnreachable, match="No such file") as caught:
            buffer.store.read(gone.info.id, Selection(from_disk=True)).__next__()
        assert caught.value.details["archive"].startswith(f"{tmp_path / 'again.nxs'}::/entry/")
        (tmp_path / "away.nxs").rename(tmp_path / "again.nxs")
        assert np.array_equal(np.concatenate([block.data for block in gone]).reshape(data.shape), data)

    @staticmethod
    def _chosen(gone: Stream) -> None:
        assert gone.find(where={"angle": (3, 6)}).tolist() == [6, 7, 8]
        assert gone.find(time=(10**18 + 1, 10**18 + 3)).tolist() == [4, 6]
        last = gone.latest()
        assert last is not None
        assert (last.index, last.time_ns, last.columns["angle"]) == (12, 10**18 + 5, 7.5)
        newest = gone.latest(where={"angle": (None, 4)})
        assert newest is not None
        assert newest.index == 6
