"""From a stream's index to its ledger: every producer-numbered block that is not stored, where and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hiss.blocks.index import Run, StreamIndex
from hiss.limits import LEDGER_RANGES_MAX
from hiss.model import BlockStatus, Completeness, LedgerEntry

NEVER = ("transport", "never received")
DAMAGED = ("log", "damaged on disk")


def completeness(index: StreamIndex, end_index: int | None, stage_names: Sequence[str]) -> Completeness:
    """Count what is stored and list what is not, from the first handled index to `end_index` or the last.

    Parameters
    ----------
    index : StreamIndex
    end_index : int or None
        One past the producer's last index, so that a missing tail is a gap.
    stage_names : sequence of str
        The kernels of the stream's pipeline, in their places.
    """
    with index.steady():
        return _completeness(index, end_index, stage_names)


def _completeness(index: StreamIndex, end_index: int | None, stage_names: Sequence[str]) -> Completeness:
    lost = [block for span in index.damaged for block in span]  # they were there, so the stream goes that far
    first = min([*lost, *([] if index.first_index is None else [index.first_index])], default=None)
    end = max([*lost, (end_index or 0) - 1, index.next_index - 1]) + 1
    if first is None:
        # without a block nobody knows where the stream was to begin: the producer's count says from 0
        gaps = [LedgerEntry(0, end - 1, *NEVER)] if end else []
        return Completeness(0, 0, end, 0 if end else None, end - 1 if end else None, tuple(gaps))
    entries = _merged(_entries(index, first, end, stage_names))
    return Completeness(
        blocks=index.stored,
        bytes=index.stored_bytes,
        gaps=end - first - index.stored,
        first_index=first,
        last_index=end - 1,
        ledger=tuple(bounded(entries)),
    )


def _entries(index: StreamIndex, first: int, end: int, stage_names: Sequence[str]) -> Iterator[LedgerEntry]:
    position = first
    while runs := index.runs(position):
        for run in runs:
            if run.first > position:
                yield from _unhandled(index, position, run.first - 1)
            if run.status not in (BlockStatus.STORED, BlockStatus.RAW_ONLY):
                yield LedgerEntry(run.first, run.last, *_why(run, stage_names))
            position = run.last + 1
    if position < end:
        yield from _unhandled(index, position, end - 1)


def _unhandled(index: StreamIndex, first: int, last: int) -> Iterator[LedgerEntry]:
    """A range that nothing is known of, with what recovery found damaged in it set apart."""
    position = first
    for low, high in sorted(index.damaged):
        low, high = max(low, position), min(high, last)
        if low > high:
            continue
        if position < low:
            yield LedgerEntry(position, low - 1, *NEVER)
        yield LedgerEntry(low, high, *DAMAGED)
        position = high + 1
    if position <= last:
        yield LedgerEntry(position, last, *NEVER)


def _why(run: Run, stage_names: Sequence[str]) -> tuple[str, str]:
    stage = stage_names[run.cause] if run.cause < len(stage_names) else f"stage {run.cause}"
    return {
        BlockStatus.VETOED: (stage, "vetoed"),
        BlockStatus.KERNEL_FAILED: (stage, "kernel-failed"),
        BlockStatus.SHED: ("producer", "shed"),
        BlockStatus.DROPPED: ("producer", "shed: drop"),
        BlockStatus.PRESCALED: ("producer", "shed: prescale"),
        BlockStatus.DECLARED: ("producer", "declared missing"),
        BlockStatus.LOST: ("received", "lost in a crash"),
    }[BlockStatus(run.status)]


def _merged(entries: Iterator[LedgerEntry]) -> Iterator[LedgerEntry]:
    """Neighbours of one stage and reason become one."""
    held: LedgerEntry | None = None
    for entry in entries:
        if held is not None and (held.last + 1, held.stage, held.reason) == (entry.first, entry.stage, entry.reason):
            held = LedgerEntry(held.first, entry.last, held.stage, held.reason)
            continue
        if held is not None:
            yield held
        held = entry
    if held is not None:
        yield held


def bounded(entries: Iterator[LedgerEntry], ranges_max: int = LEDGER_RANGES_MAX) -> Iterator[LedgerEntry]:
    """The first `ranges_max` entries; of the others, one for each reason that spans them and counts them."""
    rest: dict[tuple[str, str], tuple[int, int, int]] = {}
    for number, entry in enumerate(entries):
        if number < ranges_max:
            yield entry
            continue
        first, _, count = rest.get((entry.stage, entry.reason), (entry.first, 0, 0))
        rest[entry.stage, entry.reason] = first, entry.last, count + entry.count
    for (stage, reason), (first, last, count) in rest.items():
        yield LedgerEntry(first, last, stage, f"{reason}: {count} blocks between these")
