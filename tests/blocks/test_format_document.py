"""A reader written from `docs/format.md` alone reads what hiss wrote. Nothing here comes from
`hiss.blocks.record`.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest
import xxhash

from hiss.blocks import Storage, StorageOptions
from hiss.model import BlockStatus, StreamState

from .bench_log import make_extent, stream_info

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"


def read_log(directory: Path) -> dict[tuple[str, int], tuple[int, int, int, int, bytes, bytes]]:
    """(stream, index) -> (status, time, received, source digest, columns, data), as the document says."""
    catalog = sqlite3.connect(directory / "catalog.db")
    salt = int(catalog.execute("SELECT value FROM property WHERE name = 'salt'").fetchone()[0], 16)
    known = {row[0] for row in catalog.execute("SELECT id FROM stream")}
    catalog.close()
    found: dict = {}
    segments = []
    for path in (directory / "segments").glob("*.seg"):
        data = path.read_bytes()
        if not any(data[:4096]):
            continue
        magic, version, number, _, generation, first, size, digest = struct.unpack_from("<8sII16sQQQQ", data)
        assert (magic, version, size) == (b"HISSSEG1", 1, len(data))
        assert digest == xxhash.xxh3_64_intdigest(data[:56])
        assert number == int(path.stem)
        segments.append((generation, number, first, data))
    for generation, number, first, data in sorted(segments, key=lambda each: each[0]):
        offset, last = 4096, first - 1
        while offset < len(data):
            (digest,) = struct.unpack_from("<Q", data, offset + 120)
            good = data[offset : offset + 8] == b"HISSREC1"
            good = good and digest == xxhash.xxh3_64_intdigest(data[offset : offset + 120], salt)
            if not good:
                offset += 4096
                continue
            gen, lsn, stream, kind, seg, n, c, at, payload, total, _, table_digest = struct.unpack_from(
                "<QQ16sIIIIQQQQQ", data, offset + 8
            )
            if gen != generation or lsn <= last or seg != number or at != offset:
                offset += 4096
                continue
            last = lsn
            if kind == 3:
                break
            if kind == 1 and stream.hex() in known:
                table = data[offset + 128 : offset + 128 + n * (46 + c)]
                assert xxhash.xxh3_64_intdigest(table) == table_digest
                start = offset + -(-(128 + len(table)) // 64) * 64
                assert total == -(-(start - offset + payload) // 4096) * 4096
                for k in range(n):
                    index, time_ns, received, own, source = (
                        struct.unpack_from(code, table, 8 * (n * j + k))[0] for j, code in enumerate("qqqQQ")
                    )
                    (length,) = struct.unpack_from("<I", table, 40 * n + 4 * k)
                    status = table[44 * n + k]
                    columns = table[46 * n + c * k : 46 * n + c * (k + 1)]
                    block = data[start : start + length]
                    start += length
                    assert not length or xxhash.xxh3_64_intdigest(block) == own
                    found[stream.hex(), index] = (status, time_ns, received, source, columns, block)
            offset += total
    return found


def read_indexes(directory: Path, salt: int) -> dict[int, list[tuple[bytes, bytes]]]:
    """Segment -> (header, table) of each record, by the index at its end."""
    found = {}
    for path in (directory / "segments").glob("*.seg"):
        data = path.read_bytes()
        magic, generation, number, count, size, behind, _, _, digest = struct.unpack_from("<8sQIIQQQQQ", data[-128:])
        if magic != b"HISSIDX1" or generation != struct.unpack_from("<Q", data, 32)[0]:
            continue
        assert struct.unpack("<Q", data[-8:])[0] == xxhash.xxh3_64_intdigest(data[-128:-8], salt)
        start = len(data) - -(-(size + 128) // 4096) * 4096
        body = data[start : start + size]
        assert behind <= start
        assert digest == xxhash.xxh3_64_intdigest(body, salt)
        heads, at = [], 128 * count
        for k in range(count):
            header = body[128 * k : 128 * k + 128]
            blocks, columns = struct.unpack_from("<II", header, 48)
            heads.append((header, body[at : at + blocks * (46 + columns)]))
            at += blocks * (46 + columns)
        assert at == size
        found[number] = heads
    return found


def test_a_reader_from_the_document_reads_the_indexes(tmp_path):
    storage = Storage(tmp_path / "buffer", StorageOptions(arena_bytes=8 << 20, segment_bytes=1 << 20))
    storage.catalog.create_collection("test/run", {}, [])
    (info,) = storage.catalog.add_streams([stream_info("one")], new_version=False, attempt=None)
    for k in range(500):
        storage.append(info.id, make_extent(info, [(2 * k, 3000), (2 * k + 1, k)]), lambda error: None)
    storage.sync()
    salt = storage.catalog.salt
    storage.close()
    indexes = read_indexes(tmp_path / "buffer", salt)
    assert len(indexes) >= 2
    for number, heads in indexes.items():
        data = (tmp_path / "buffer" / "segments" / f"{number:08d}.seg").read_bytes()
        assert heads
        position = 4096
        for header, table in heads:
            (offset, _, total) = struct.unpack_from("<QQQ", header, 56)
            assert offset == position
            assert data[offset : offset + 128] == header
            assert data[offset + 128 : offset + 128 + len(table)] == table
            position += total


def test_a_reader_from_the_document_reads_everything(tmp_path):
    storage = Storage(tmp_path / "buffer", StorageOptions(arena_bytes=8 << 20, segment_bytes=1 << 20))
    storage.catalog.create_collection("test/run", {}, [])
    expected = {}
    for name in ("one", "two"):
        (info,) = storage.catalog.add_streams([stream_info(name)], new_version=False, attempt=None)
        for k in range(30):
            status = {5 * k + 2: int(BlockStatus.VETOED)}
            extent = make_extent(info, [(5 * k + j, 9000 * j) for j in range(5)], status)
            storage.append(info.id, extent, lambda error: None)
            for row, index in enumerate(extent.index.tolist()):
                start, stop = extent.offsets[row : row + 2]
                expected[info.id, index] = (
                    int(extent.status[row]),
                    index * 10,
                    index * 10 + 1,
                    int(extent.source_digest[row]),
                    np.float64(index).tobytes(),
                    bytes(extent.data[start:stop]),
                )
    storage.sync()
    info_digest = storage.stream_digest(info.id)
    whole = storage.completeness(info.id, None, ["enough"])
    storage.catalog.finalise([info.id], StreamState.SEALED, {info.id: whole}, {info.id: info_digest})
    assert storage.usage().segments > 2
    storage.close()
    found = read_log(tmp_path / "buffer")
    assert found == expected
    catalog = sqlite3.connect(tmp_path / "buffer" / "catalog.db")
    digest, document, ledger = catalog.execute(
        "SELECT digest, document, completeness FROM stream WHERE id = ?", (info.id,)
    ).fetchone()
    catalog.close()
    assert json.loads(document)["columns"] == [["angle", "<f8", ""]]
    assert json.loads(ledger)[5][0] == [2, 2, "enough", "vetoed"]
    rows = [
        struct.pack("<qBQ", index, block[0], xxhash.xxh3_64_intdigest(block[5]))
        for (stream, index), block in sorted(found.items())
        if stream == info.id
    ]
    assert digest == f"{xxhash.xxh3_64_intdigest(b''.join(rows)):016x}"


@pytest.mark.parametrize("magic", ["HISSSEG1", "HISSREC1", "HISSIDX1"])
def test_the_tables_of_the_document_have_no_holes(magic):
    """Each field begins where the one before it ends."""
    text = DOCUMENT.read_text("utf-8")
    rows = text[: text.index(f"`{magic}`")].count("\n")
    position = 0
    for line in text.splitlines()[rows:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not cells[0].isdigit():
            break
        assert int(cells[0]) == position, line
        position += int(cells[1])
    assert position == {"HISSSEG1": 64, "HISSREC1": 128, "HISSIDX1": 128}[magic]
