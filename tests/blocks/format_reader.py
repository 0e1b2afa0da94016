"""A reader of a data directory that was written from `docs/format.md` alone: it imports nothing of hiss.

It reads a closed directory, or a copy of one that was in use when its process died, changes nothing, and says what is
there: the blocks of each stream, what the footers list, which records stand where, and what is damaged. `ignore` names
rules of the document that a control leaves out, to show that they are needed.
"""

from __future__ import annotations

import json
import re
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash

PAGE = 4096
BLOCKS, MARK, END, VOID = 1, 2, 3, 4


@dataclass(frozen=True)
class Record:
    segment: int
    offset: int
    total: int
    kind: int
    lsn: int
    durable_lsn: int
    stream: str
    table: bytes
    count: int
    column_bytes: int
    payload_at: int
    trusted: bool


@dataclass(frozen=True)
class Block:
    status: int
    cause: int
    time_ns: int
    received_ns: int
    digest: int
    source_digest: int
    columns: bytes
    data: bytes


@dataclass
class Stream:
    row: dict
    document: dict
    blocks: dict[int, Block] = field(default_factory=dict)

    def columns(self, block: Block) -> dict[str, object]:
        """One block's columns, by their names."""
        dtype = np.dtype([(name, kind) for name, kind, _ in self.document["columns"]])
        values = np.frombuffer(block.columns, dtype, 1)[0] if dtype.itemsize else None
        return {} if values is None else {name: values[name].item() for name in dtype.names or ()}

    def digest(self) -> str:
        rows = [struct.pack("<qBQ", index, block.status, block.digest) for index, block in sorted(self.blocks.items())]
        return f"{xxhash.xxh3_64_intdigest(b''.join(rows)):016x}"


class Reader:
    """What stands in one data directory."""

    def __init__(self, directory: Path, ignore: frozenset[str] = frozenset()) -> None:
        self.ignore = ignore
        self.streams: dict[str, Stream] = {}
        self.records: list[Record] = []
        self.footers: dict[int, list[tuple[bytes, bytes]]] = {}
        self.damage: list[tuple[int, int]] = []  # (segment, offset) of what was durable and is not there
        self.bad_blocks: list[tuple[str, int]] = []
        self.dead = 0
        self.strays: set[str] = set()
        self._holes: list[tuple[int, int, int]] = []
        self._segments: dict[int, bytes] = {}
        self._read_catalog(directory / "catalog.db")
        for generation, number, trusted_end, data, first in sorted(self._open(directory / "segments")):
            self._segments[number] = data
            self._scan(number, generation, trusted_end, data, first)
            self._read_footer(number, generation, data)
        durable = max((record.durable_lsn for record in self.records), default=0)
        self.damage = [(number, offset) for number, offset, lsn in self._holes if lsn <= durable]
        for record in sorted(self.records, key=lambda each: each.lsn):
            if record.kind == BLOCKS:
                self._take(record)
        for stream in self.streams.values():
            self._keep_to_what_is_final(stream)

    # ---- the catalog

    def _read_catalog(self, path: Path) -> None:
        catalog = sqlite3.connect(path)
        catalog.row_factory = sqlite3.Row
        properties = dict(tuple(row) for row in catalog.execute("SELECT name, value FROM property"))
        self.node, self.salt = properties["node"], int(properties["salt"], 16)
        for row in catalog.execute("SELECT * FROM stream ORDER BY ordinal"):
            self.streams[row["id"]] = Stream(dict(row), json.loads(row["document"]))
        self.deleted = {
            row["id"]
            for row in catalog.execute("SELECT id FROM deleted UNION SELECT id FROM stream WHERE eviction <> ''")
        }
        self.tables = {
            name: [column[1] for column in catalog.execute(f"PRAGMA table_info({name})")]
            for (name,) in catalog.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not name.startswith("sqlite_")
        }
        self.version = catalog.execute("PRAGMA user_version").fetchone()[0]
        catalog.close()

    # ---- segments

    def _open(self, folder: Path) -> Iterator[tuple[int, int, int, bytes, int]]:
        for path in folder.iterdir():
            name = re.fullmatch(r"(\d{8})(?:-([0-9a-f]+))?\.(seg|retired)", path.name)
            assert name, path
            data, number = path.read_bytes(), int(name[1])
            if not any(data[:PAGE]) and not any(data[at : at + 8] == b"HISSREC1" for at in range(0, len(data), PAGE)):
                continue  # not used yet
            trusted_end = int(name[2], 16) if name[2] else len(data)
            header = self._segment_header(data, number)
            generation, first = header or (self._highest_generation(data, number), 1)
            yield generation, number, trusted_end, data, first

    def _segment_header(self, data: bytes, number: int) -> tuple[int, int] | None:
        magic, version, own, node, generation, first, size, digest = struct.unpack_from("<8sII16sQQQQ", data)
        if magic != b"HISSSEG1" or digest != xxhash.xxh3_64_intdigest(data[:56]):
            return None
        assert (version, own, size, node.rstrip(b"\0").decode()) == (1, number, len(data), self.node)
        return generation, first

    def _highest_generation(self, data: bytes, number: int) -> int:
        found = [self._header(data, at, number) for at in range(PAGE, len(data), PAGE)]
        return max((head[0] for head in found if head), default=0)

    def _header(self, data: bytes, at: int, number: int) -> tuple | None:
        """The fields behind the magic of a good record header that belongs there."""
        head = data[at : at + 128]
        if len(head) < 128 or head[:8] != b"HISSREC1":
            return None
        if struct.unpack_from("<Q", head, 120)[0] != xxhash.xxh3_64_intdigest(head[:120], self.salt):
            return None
        fields = struct.unpack_from("<QQ16sIIIIQQQQQ", head, 8)
        if fields[4] != number or fields[7] != at or at + fields[9] > len(data):
            return None
        return fields

    def _scan(self, number: int, generation: int, trusted_end: int, data: bytes, first: int) -> None:
        at, last = PAGE, first - 1
        while at < len(data):
            fields = self._header(data, at, number)
            if fields is None or not self._current(fields, generation, last):
                found = at + PAGE
                while found < len(data):
                    later = self._header(data, found, number)
                    if later is not None and self._current(later, generation, last):
                        break
                    found += PAGE
                if at < trusted_end:
                    self._holes.append((number, at, last + 1))
                at = found
                continue
            _, lsn, stream, kind, _, n, c, _, payload, total, durable, digest = fields
            table = data[at + 128 : at + 128 + n * (46 + c)]
            last = lsn
            payload_at = at + -(-(128 + len(table)) // 64) * 64
            assert total == -(-(payload_at - at + payload) // PAGE) * PAGE
            if kind == BLOCKS and xxhash.xxh3_64_intdigest(table) != digest:
                if at < trusted_end:
                    self._holes.append((number, at, lsn))
            else:
                trusted = at < trusted_end
                self.records.append(
                    Record(number, at, total, kind, lsn, durable, stream.hex(), table, n, c, payload_at, trusted)
                )
            at += total
            if kind == END:
                break

    def _current(self, fields: tuple, generation: int, last: int) -> bool:
        """Of this use of the segment, and not left over from before a crash."""
        same = fields[0] == generation or "generation" in self.ignore
        return same and (fields[1] > last or "sequence" in self.ignore)

    def _read_footer(self, number: int, generation: int, data: bytes) -> None:
        magic, own, whose, count, size, behind, _, _, digest = struct.unpack_from("<8sQIIQQQQQ", data, len(data) - 128)
        if magic != b"HISSIDX1" or (own, whose) != (generation, number):
            return
        assert struct.unpack("<Q", data[-8:])[0] == xxhash.xxh3_64_intdigest(data[-128:-8], self.salt)
        start = len(data) - -(-(size + 128) // PAGE) * PAGE
        body = data[start : start + size]
        assert behind <= start
        assert digest == xxhash.xxh3_64_intdigest(body, self.salt)
        heads, at = [], 128 * count
        for k in range(count):
            head = body[128 * k : 128 * k + 128]
            n, c = struct.unpack_from("<II", head, 48)
            heads.append((head, body[at : at + n * (46 + c)]))
            at += n * (46 + c)
        assert at == size
        self.footers[number] = heads

    # ---- blocks

    def _take(self, record: Record) -> None:
        stream = self.streams.get(record.stream)
        if stream is None:
            if record.stream in self.deleted:
                self.dead += 1
            else:
                self.strays.add(record.stream)
            return
        data, n, c, table = self._segments[record.segment], record.count, record.column_bytes, record.table
        vectors = [struct.unpack_from(f"<{n}{code}", table, 8 * n * place) for place, code in enumerate("qqqQQ")]
        lengths = struct.unpack_from(f"<{n}I", table, 40 * n)
        at = record.payload_at
        for k, (index, time_ns, received_ns, digest, source) in enumerate(zip(*vectors, strict=True)):
            block = data[at : at + lengths[k]]
            at += lengths[k]
            if lengths[k] and xxhash.xxh3_64_intdigest(block) != digest:
                self.bad_blocks.append((record.stream, index))
                continue
            columns = table[46 * n + c * k : 46 * n + c * (k + 1)]
            status, cause = table[44 * n + k], table[45 * n + k]
            stream.blocks[index] = Block(status, cause, time_ns, received_ns, digest, source, columns, block)

    def _keep_to_what_is_final(self, stream: Stream) -> None:
        """Of a final stream only what it had when it became final."""
        if stream.row["state"] == 1:
            return
        _, _, _, first, last, ledger = json.loads(stream.row["completeness"])
        gone = [(a, b) for a, b, _, reason in ledger if reason in ("never received", "damaged on disk")]
        for index in list(stream.blocks):
            inside = first is not None and first <= index <= last
            if not inside or any(a <= index <= b for a, b in gone):
                del stream.blocks[index]
