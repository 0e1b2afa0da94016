"""`docs/format.md` is enough to read a data directory: a reader written from it alone (`format_reader`) reads what the
engine wrote in a life with everything in it, and the same rules left out make it read something else.
"""

from __future__ import annotations

import ast
import errno
import json
import shutil
import sqlite3
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash

from hiss.blocks import Storage
from hiss.blocks.files import Buffer, OsFiles
from hiss.model import BlockStatus, Column, StreamState

from . import format_reader
from .bench_log import Outcome, block_bytes, make_extent, stream_info
from .conftest import OPTIONS
from .format_reader import BLOCKS, END, MARK, VOID, Reader

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
WIDE = (Column("angle", "<f8", "deg"), Column("shot", "<u4"), Column("label", "|S5"))


class FailingFiles(OsFiles):
    """The next write to a segment fails, when it is told so."""

    def __init__(self) -> None:
        self.fail_next = False

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        if self.fail_next and offset:
            self.fail_next = False
            raise OSError(errno.EIO, "injected")
        return super().pwritev(fd, buffers, offset)


UNMOVED = replace(OPTIONS, compaction_bytes_per_s=0)  # a retired segment stays to be read


class Life:
    """A buffer with every kind of record, recycled and retired segments, gaps, columns, final and deleted streams."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.files = directory, FailingFiles()
        self.sent: dict[str, dict[int, tuple[int, int]]] = {}  # stream -> index -> (size, status)
        self.storage = Storage(directory, UNMOVED, files=self.files)
        self.storage.catalog.create_collection("test/run", {"sample": "foam"}, [])

    def stream(self, name: str, columns: tuple[Column, ...] = WIDE):
        (info,) = self.storage.catalog.add_streams([stream_info(name, columns)], new_version=False, attempt=None)
        self.sent[info.id] = {}
        return info

    def put(self, info, blocks: Sequence[tuple[int, int]], status: dict[int, int] | None = None) -> None:
        outcome = Outcome()
        self.storage.append(info.id, extent_of(info, blocks, status), outcome)
        assert outcome.wait() is None
        self.sent[info.id] |= {
            i: (0 if (status or {}).get(i) else size, (status or {}).get(i, 0)) for i, size in blocks
        }

    def seal(self, info) -> None:
        whole = self.storage.completeness(info.id, None, ["enough"])
        digest = self.storage.stream_digest(info.id)
        self.storage.catalog.finalise([info.id], StreamState.SEALED, {info.id: whole}, {info.id: digest})

    def live(self) -> None:
        old = [self.stream(f"old{k}") for k in range(2)]
        for info in old:
            for k in range(40):
                self.put(info, [(3 * k + j, 20_000 + j) for j in range(3)])
        one, two, bare = self.stream("one"), self.stream("two"), self.stream("bare", ())
        self.put(one, [(-3, 10), (-1, 0), (5, 5000)])
        for status in BlockStatus:
            self.put(two, [(10 * int(status) + j, 100) for j in range(3)], {10 * int(status) + 1: int(status)})
        self.put(two, [(-8, 700)])  # late, and before the first
        for info in old:
            self.storage.delete(info.id)
        for k in range(60):  # into what the deleted ones left, small enough to leave old records behind the tail
            self.put(bare, [(4 * k + j, 9000 + j) for j in range(4)])
        self.files.fail_next = True
        self.put(one, [(6, 4000), (7, 1)])  # its segment is retired, the record written elsewhere
        self.put(
            one, [(20, 2_000_000 // 4 + k) for k in range(1)] + [(21 + k, 300_000) for k in range(6)]
        )  # cut in parts
        self.seal(two)

    def crash(self) -> None:
        """Die with one record half on the disk that nobody was told was durable, and be opened again."""
        torn = next(iter(self.sent))
        info = self.storage.catalog.stream("test/run/bare")
        assert torn != info.id
        self.put(info, [(10_000, 5000), (10_001, 6000)])
        copy = self.directory.with_name("copy")
        shutil.copytree(self.directory, copy)  # as the process that dies leaves it
        self.storage.close()
        place = block_bytes(info.id, 10_001, 6000)
        for path in (copy / "segments").glob("*.seg"):
            data = path.read_bytes()
            if place in data:
                at = data.index(place)
                path.write_bytes(data[: at + 1000] + bytes(1000) + data[at + 2000 :])
        del self.sent[info.id][10_001]
        self.directory = copy
        self.storage = Storage(copy, UNMOVED, files=self.files)
        assert self.storage.recovery.torn_records == 1
        self.put(info, [(10_002, 77)])


def extent_of(info, blocks, status=None):
    extent = make_extent(info, blocks, status)
    if "label" in (extent.columns.dtype.names or ()):
        extent.columns["label"] = [f"b{index}".encode()[:5] for index in extent.index.tolist()]
    return extent


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    made = Life(tmp_path_factory.mktemp("format") / "buffer")
    made.live()
    made.crash()
    made.storage.close()
    return made


def what(life: Life, reader: Reader) -> dict[tuple[str, int], bool]:
    """(stream, index) -> whether the reader has the block as it was sent; False for what it lacks or makes up."""
    out = {}
    for stream_id, blocks in life.sent.items():
        found = reader.streams[stream_id].blocks if stream_id in reader.streams else {}
        if stream_id not in reader.streams:
            continue
        for index in blocks.keys() | found.keys():
            block = found.get(index)
            size, status = blocks.get(index, (0, -1))
            data = block_bytes(stream_id, index, size)
            out[stream_id, index] = (
                block is not None
                and (block.data, block.status, block.cause) == (data, status, 0)
                and (block.time_ns, block.received_ns) == (index * 10, index * 10 + 1)
                and block.digest == xxhash.xxh3_64_intdigest(data)
                and block.source_digest == block.digest ^ 1
            )
    return out


def test_a_reader_from_the_document_reads_everything(life):
    reader = Reader(life.directory)
    assert {record.kind for record in reader.records} == {BLOCKS, MARK, END, VOID}
    assert list((life.directory / "segments").glob("*.retired")), "no segment was retired"
    found = what(life, reader)
    assert len(found) > 250
    assert all(found.values()), [key for key, good in found.items() if not good][:5]
    assert not reader.damage
    assert not reader.bad_blocks
    assert not reader.strays
    for stream in reader.streams.values():
        for index, block in stream.blocks.items():
            columns = stream.columns(block)
            assert not columns or columns["angle"] == columns["shot"] % 2**32 == index or index < 0
            assert not columns or columns["label"] == f"b{index}".encode()[:5]


def test_the_documents_of_the_catalog_are_those_of_the_page(life):
    reader = Reader(life.directory)
    (two,) = [stream for stream in reader.streams.values() if stream.row["name"] == "two"]
    assert two.row["digest"] == two.digest()
    assert two.document["columns"] == [["angle", "<f8", "deg"], ["shot", "<u4", ""], ["label", "|S5", ""]]
    blocks, size, gaps, first, last, ledger = json.loads(two.row["completeness"])
    stored = [block for block in two.blocks.values() if block.status == 0]
    assert (first, last) == (min(two.blocks), max(two.blocks))
    assert (len(stored), sum(len(block.data) for block in stored)) == (blocks - 1, size)  # one is computed when read
    assert blocks + gaps == last - first + 1
    named = {index for a, b, _, _ in ledger for index in range(a, b + 1)}
    there = {index for index, block in two.blocks.items() if block.status in (0, 6)}
    assert named == set(range(first, last + 1)) - there
    assert {(a, reason) for a, _, _, reason in ledger} >= {(11, "vetoed"), (21, "kernel-failed"), (31, "shed")}


def test_the_indexes_of_segments_list_their_records(life):
    reader = Reader(life.directory)
    assert len(reader.footers) >= 2
    for number, heads in reader.footers.items():
        mine = [record for record in reader.records if record.segment == number and record.kind == BLOCKS]
        assert [(struct.unpack_from("<Q", head, 56)[0], table) for head, table in heads] == [
            (record.offset, record.table) for record in mine
        ]


def test_every_table_and_column_of_the_catalog_is_in_the_document(life):
    text = DOCUMENT.read_text("utf-8")
    reader = Reader(life.directory)
    assert f"`user_version` {reader.version}" in text
    section = text[text.index("## Catalog") :]
    rows = {line.split("|")[1].strip(" `"): line for line in section.splitlines() if line.startswith("| `")}
    assert rows.keys() == reader.tables.keys()
    for table, columns in reader.tables.items():
        for column in columns:
            assert f"`{column}`" in rows[table], (table, column)
    with sqlite3.connect(life.directory / "catalog.db") as catalog:
        documents = [json.loads(row[0]) for row in catalog.execute("SELECT document FROM stream")]
    catalog.close()
    for name in {name for document in documents for name in document}:
        assert f"`{name}`" in section, name


@pytest.mark.parametrize("rules", [{"generation", "sequence"}, {"sequence"}])
def test_without_a_rule_of_the_document_something_else_is_read(life, tmp_path, rules):
    """The controls: old generations and records from before a crash stand in the files, and the rules keep them out."""
    if rules == {"sequence"}:  # a good record of the same generation behind the tail, as a crash leaves it
        life = left_over(life, tmp_path)
    assert all(what(life, Reader(life.directory)).values())
    loose = Reader(life.directory, ignore=frozenset(rules))
    strict = Reader(life.directory)
    assert [record.lsn for record in loose.records] != [record.lsn for record in strict.records]


def left_over(life: Life, tmp_path: Path) -> Life:
    """A copy in which an earlier record of the last segment stands again behind its tail, with the right header."""
    twin = Life.__new__(Life)
    twin.sent, twin.directory = life.sent, tmp_path / "copy"
    shutil.copytree(life.directory, twin.directory)
    reader = Reader(twin.directory)
    last = max(reader.records, key=lambda record: record.lsn)
    mine = [record for record in reader.records if record.segment == last.segment and record.kind == BLOCKS]
    least = min(mine, key=lambda record: record.total)
    path = twin.directory / "segments" / f"{last.segment:08d}.seg"
    data = bytearray(path.read_bytes())
    end, copied = last.offset + last.total, data[least.offset : least.offset + least.total]
    struct.pack_into("<Q", copied, 56, end)
    struct.pack_into("<Q", copied, 120, xxhash.xxh3_64_intdigest(bytes(copied[:120]), reader.salt))
    assert end + len(copied) <= len(data)
    data[end : end + len(copied)] = copied
    path.write_bytes(data)
    return twin


def test_the_reader_knows_the_document_only():
    tree = ast.parse(Path(format_reader.__file__).read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name.startswith((".", "hiss", "tests", "blocks"))]
    assert {"sqlite3", "struct", "xxhash"} <= names


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


def test_the_engine_and_the_reader_agree(life):
    """Opened once more, the engine serves what the reader read."""
    reader = Reader(life.directory)
    storage = Storage(life.directory, OPTIONS)
    try:
        for stream_id, stream in reader.streams.items():
            served = {
                int(index): bytes(extent.data[start:stop])
                for extent in storage.read(stream_id)
                for index, start, stop in zip(extent.index, extent.offsets[:-1], extent.offsets[1:], strict=True)
            }
            assert served == {index: block.data for index, block in stream.blocks.items() if block.status == 0}
            assert np.array_equal(
                storage.index(stream_id).handled(np.array(sorted(stream.blocks))), [True] * len(stream.blocks)
            )
    finally:
        storage.close()
