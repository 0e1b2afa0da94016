"""What was promised, and what is there: counts of what is lost, doubled, wrong or missing without a reason.

`Promises` is the plain model of one data directory; `Audit` holds a storage against it, and against nothing else. Every
run of simulators, kills, power cuts and injected errors ends in the same four counts, which are to be 0.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hiss.blocks import Storage
from hiss.errors import BlockDamaged, Stopping, StreamNotFound
from hiss.model import BlockStatus, Completeness, StreamInfo, StreamState

from .bench_log import block_bytes

_REASONS = {int(BlockStatus.VETOED): "vetoed", int(BlockStatus.SHED): "shed"}


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass(eq=False)
class Kept:
    """One stream: what was asked for and what was answered."""

    info: StreamInfo
    owner: int = 0
    sent: dict[int, tuple[int, int]] = field(default_factory=dict)  # index -> (size, status)
    acknowledged: set[int] = field(default_factory=set)
    created: bool = False  # its making was answered
    sealing: tuple[Completeness, str] | None = None  # asked for
    sealed: tuple[Completeness, str] | None = None  # answered
    deleting: bool = False
    deleted: bool = False
    excused: bool = False  # final, and the disk gave old bytes for it while it was recovered: damage is reported

    @property
    def there(self) -> bool:
        return self.created and not self.deleting


@dataclass
class Promises:
    """All streams of one data directory, by id."""

    streams: dict[str, Kept] = field(default_factory=dict)
    misled: bool = False  # a recovery was given old bytes by its disk
    unmarked: bool = False  # a failed segment may not have its new name: its hole is reported, naming no block


@dataclass
class Audit:
    """Counts over a run."""

    acknowledged: int = 0
    checks: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong: int = 0
    unexplained: int = 0

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} blocks acknowledged, {self.checks} checks: acknowledged blocks lost {self.lost}, "
            f"duplicates {self.duplicates}, wrong bytes {self.wrong}, unexplained gaps {self.unexplained}"
        )

    @property
    def broken(self) -> int:
        return self.lost + self.duplicates + self.wrong + self.unexplained

    def add(self, other: Audit) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def check(self, storage: Storage, promises: Promises, *, tolerant: bool = False) -> None:
        """After a recovery. `tolerant`: the disk gave old bytes, so that what is missing may be missing.

        What recovery shows counts as acknowledged from here on: it said that it is durable.
        """
        self.checks += 1
        before = self.broken
        findings: list[str] = []
        known = {info.id: info for info in storage.catalog.all_streams()}
        report = storage.recovery
        if known.keys() - promises.streams.keys():
            self.wrong += 1
            findings.append("the catalog has a stream that nobody made")
        if not tolerant and not any(kept.excused for kept in promises.streams.values()):
            damages = [each for each in report.damages if each.blocks or each.stream or not promises.unmarked]
            self.unexplained += len(damages) + report.stray_records
            findings += [repr(damage) for damage in damages] + list(report.stray_streams)
        for stream_id, kept in promises.streams.items():
            if kept.deleted or stream_id not in known:
                self._check_absent(kept, stream_id in known, findings)
            else:
                self._check_stream(storage, known[stream_id], kept, tolerant, findings)
        if self.broken > before:
            raise Broken("; ".join(findings[:5]) or str(self))

    def _check_absent(self, kept: Kept, known: bool, findings: list[str]) -> None:
        if known:
            self.wrong += 1
            findings.append(f"stream {kept.info.name} was deleted and is there")
        elif kept.created and not kept.deleting:
            self.lost += max(1, len(kept.acknowledged))
            findings.append(f"stream {kept.info.name} is gone")
        else:
            kept.deleting = kept.deleted = True

    def _check_stream(
        self, storage: Storage, info: StreamInfo, kept: Kept, tolerant: bool, findings: list[str]
    ) -> None:
        name = info.name
        kept.created, kept.deleting = True, False
        handled: dict[int, int] = {}
        for run in storage.index(info.id).runs(limit=1 << 30):
            for index in range(run.first, run.last + 1):
                self.duplicates += index in handled
                handled[index] = run.status
        gone = kept.acknowledged - handled.keys()
        if gone and not tolerant and not kept.excused:
            self.lost += len(gone)
            findings.append(f"stream {name}: acknowledged blocks {sorted(gone)[:8]} are gone")
        for index, status in handled.items():
            if index not in kept.sent or kept.sent[index][1] != status:
                self.wrong += 1
                findings.append(f"stream {name}: block {index} has status {status}, sent was {kept.sent.get(index)}")
        stored = {index for index, status in handled.items() if status == BlockStatus.STORED}
        self._check_contents(storage, info, kept, stored, tolerant, findings)
        self._check_ledger(storage, info, kept, handled, tolerant, findings)
        kept.acknowledged = set(handled)

    def _check_contents(
        self, storage: Storage, info: StreamInfo, kept: Kept, stored: set[int], tolerant: bool, findings: list[str]
    ) -> None:
        served: list[int] = []
        try:
            for extent in storage.read(info.id):
                offsets = extent.offsets.tolist()
                for row, index in enumerate(extent.index.tolist()):
                    served.append(index)
                    self._compare(kept, index, bytes(extent.data[offsets[row] : offsets[row + 1]]), findings)
        except BlockDamaged as error:
            if not tolerant and not kept.excused:
                self.lost += 1
                findings.append(str(error))
            return
        self.duplicates += len(served) - len(set(served))
        if sorted(served) != served or (set(served) != stored and not tolerant):
            self.wrong += 1
            findings.append(f"stream {info.name}: what is served is not what the index has")

    def _compare(self, kept: Kept, index: int, data: bytes, findings: list[str]) -> None:
        size, status = kept.sent.get(index, (-1, -1))
        if status != BlockStatus.STORED or data != block_bytes(kept.info.id, index, size):
            self.wrong += 1
            findings.append(f"stream {kept.info.name}: block {index} has wrong bytes")

    def _check_ledger(
        self,
        storage: Storage,
        info: StreamInfo,
        kept: Kept,
        handled: dict[int, int],
        tolerant: bool,
        findings: list[str],
    ) -> None:
        if info.state.final:
            kept.sealed = kept.sealed or kept.sealing
            digest = storage.stream_digest(info.id) if not tolerant else info.digest
            same = kept.sealed is not None and kept.sealed == (info.completeness, info.digest)
            if tolerant and digest == info.digest and storage.index(info.id).stored != info.completeness.blocks:
                kept.excused = True
            if not same or (digest != info.digest and not kept.excused):
                self.wrong += 1
                findings.append(f"stream {info.name}: not what was sealed")
            if tolerant or kept.excused:
                return
        elif kept.sealed is not None:
            self.lost += 1
            findings.append(f"stream {info.name} was sealed and is open")
        whole = (
            info.completeness if info.state is StreamState.SEALED else storage.completeness(info.id, None, ["enough"])
        )
        explained: dict[int, str] = {}
        for entry in whole.ledger:
            for index in range(entry.first, entry.last + 1):
                self.duplicates += index in explained
                explained[index] = entry.reason
        first, last = whole.first_index, whole.last_index
        every = range(first, last + 1) if first is not None and last is not None else range(0)
        for index in every:
            status = handled.get(index)
            expected = None if status == BlockStatus.STORED else _REASONS.get(status or 0, "never received")
            reason = explained.pop(index, None)
            if reason != expected and not (tolerant and reason == "damaged on disk"):
                self.unexplained += 1
                findings.append(f"stream {info.name}: index {index} is {reason!r} in the ledger, expected {expected!r}")
        self.unexplained += len(explained)
        if set(handled) - set(every):
            self.wrong += 1
            findings.append(f"stream {info.name}: blocks outside of what its completeness covers")

    def read(self, storage: Storage, kept: Kept, rng: random.Random, *, tolerant: bool = False) -> None:
        """A reader beside the producers: what was acknowledged when it began is there, and nothing is wrong."""
        start = rng.choice((None, rng.randint(0, 40)))
        stop = rng.choice((None, (start or 0) + rng.randint(1, 30)))
        must = {
            index
            for index in kept.acknowledged
            if kept.sent[index][1] == BlockStatus.STORED
            and (start is None or index >= start)
            and (stop is None or index < stop)
        }
        served: list[int] = []
        findings: list[str] = []
        before = self.broken
        try:
            for extent in storage.read(kept.info.id, start, stop):
                offsets = extent.offsets.tolist()
                for row, index in enumerate(extent.index.tolist()):
                    served.append(index)
                    self._compare(kept, index, bytes(extent.data[offsets[row] : offsets[row + 1]]), findings)
        except (StreamNotFound, Stopping):
            if not kept.deleting:
                raise
            return
        except BlockDamaged:
            if not tolerant and not kept.excused:
                raise
            return
        self.duplicates += len(served) - len(set(served))
        missing = must - set(served)
        if missing and not kept.deleting and not kept.excused:
            self.lost += len(missing)
            findings.append(f"stream {kept.info.name}: a reader did not get {sorted(missing)[:8]}")
        if self.broken > before:
            raise Broken("; ".join(findings[:5]) or str(self))
