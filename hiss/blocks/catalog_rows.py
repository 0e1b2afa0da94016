"""How streams, kernels and events stand in the catalog's rows: JSON documents, written and read here and nowhere else.
Pure.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from hiss.errors import CatalogDamaged, InvalidInput
from hiss.limits import EVENT_DATA_BYTES_MAX
from hiss.model import (
    AckLevel,
    Attachment,
    Attrs,
    Column,
    Completeness,
    FrameSpec,
    Keep,
    KernelDef,
    KernelInfo,
    KernelKind,
    LedgerEntry,
    StageInfo,
    StreamInfo,
    StreamState,
)
from hiss.space import Archive, Eviction

_Info = TypeVar("_Info", StreamInfo, KernelInfo, Attachment)

NO_BLOCKS: Final = Completeness(0, 0, 0, None, None)


def dumps(value: Any) -> str:
    """Compact JSON, keys in order."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def stream_document(info: StreamInfo) -> str:
    """All of a stream but its completeness, state, attributes and version, which have columns of their own."""
    return dumps(
        {
            "dtype": info.frame.dtype,
            "shape": list(info.frame.shape),
            "encoding": info.frame.encoding,
            "columns": [[column.name, column.dtype, column.unit] for column in info.columns],
            "ack": int(info.ack),
            "keep": int(info.keep),
            "stages": [_stage(stage) for stage in info.stages],
            **({"shadows": [_stage(stage) for stage in info.shadows]} if info.shadows else {}),
            "created_ns": info.created_ns,
            "raw_of": info.raw_of,
            "raw_id": info.raw_id,
            "produced_by": info.produced_by,
            **({"expendable": True} if info.expendable else {}),
        }
    )


def _stage(stage: StageInfo) -> dict[str, Any]:
    return {
        "name": stage.name,
        "kind": int(stage.kind),
        "hash": stage.hash,
        "source": stage.source,
        "params": dict(stage.params),
        "budget_s": stage.budget_s,
        "quarantined": stage.quarantined,
        **({"report": dict(stage.report)} if stage.report else {}),
        **({} if stage.since is None else {"since": stage.since}),
        **({"every": stage.every} if stage.every else {}),
        **({"attached": True} if stage.attached else {}),
        **({"feedback_every": stage.feedback_every} if stage.feedback_every else {}),
        **({"warnings": list(stage.warnings)} if stage.warnings else {}),
    }


def _stage_info(document: Mapping[str, Any]) -> StageInfo:
    warnings = tuple(document.get("warnings", ()))
    return StageInfo(**{**document, "kind": KernelKind(document["kind"]), "warnings": warnings})


def _decoded(read: Callable[[sqlite3.Row], _Info]) -> Callable[[sqlite3.Row], _Info]:
    """What cannot be read says so: SQLite keeps no digests, so a byte that went bad shows here first, if at all."""

    @functools.wraps(read)
    def decode(row: sqlite3.Row) -> _Info:
        try:
            return read(row)
        except (ValueError, TypeError, LookupError, InvalidInput) as error:
            raise CatalogDamaged(
                f"a row of the catalog cannot be read: {type(error).__name__}: {error}; put catalog.db (with "
                "catalog.db-wal, if there is one) back from a copy"
            ) from error

    return decode


@_decoded
def stream_info(row: sqlite3.Row) -> StreamInfo:
    """From a row of the table `stream`."""
    document = json.loads(row["document"])
    return StreamInfo(
        id=row["id"],
        collection=row["collection"],
        name=row["name"],
        version=row["version"],
        frame=FrameSpec(document["dtype"], tuple(document["shape"]), document["encoding"]),
        columns=tuple(Column(*column) for column in document["columns"]),
        ack=AckLevel(document["ack"]),
        keep=Keep(document["keep"]),
        attrs=json.loads(row["attrs"]),
        stages=tuple(map(_stage_info, document["stages"])),
        shadows=tuple(map(_stage_info, document.get("shadows", ()))),
        state=StreamState(row["state"]),
        completeness=completeness(row["completeness"]),
        digest=row["digest"],
        created_ns=document["created_ns"],
        final_ns=row["final_ns"],
        raw_of=document["raw_of"],
        raw_id=document["raw_id"],
        produced_by=document["produced_by"],
        abort_reason=row["abort_reason"],
        expendable=document.get("expendable", False),
        archives=tuple(Archive(*each) for each in json.loads(row["archives"])),
        eviction=Eviction(*json.loads(row["eviction"])) if row["eviction"] else None,
    )


def completeness_document(value: Completeness) -> str:
    """Counts and the ledger, each entry as `[first, last, stage, reason]`."""
    ledger = [[entry.first, entry.last, entry.stage, entry.reason] for entry in value.ledger]
    return dumps([value.blocks, value.bytes, value.gaps, value.first_index, value.last_index, ledger])


def completeness(document: str) -> Completeness:
    if not document:
        return NO_BLOCKS
    blocks, size, gaps, first, last, ledger = json.loads(document)
    return Completeness(blocks, size, gaps, first, last, tuple(LedgerEntry(*entry) for entry in ledger))


def with_quarantine(info: StreamInfo, stage: int, quarantined: bool) -> StreamInfo:
    stages = list(info.stages)
    stages[stage] = replace(stages[stage], quarantined=quarantined)
    return replace(info, stages=tuple(stages))


def kernel_document(info: KernelInfo) -> str:
    return dumps({"kind": int(info.definition.kind), "source": info.definition.source})


@_decoded
def kernel_info(row: sqlite3.Row) -> KernelInfo:
    document = json.loads(row["document"])
    definition = KernelDef(row["name"], KernelKind(document["kind"]), document["source"])
    return KernelInfo(definition, row["hash"], row["registered_ns"])


def stage_document(stage: StageInfo) -> str:
    return dumps(_stage(stage))


@_decoded
def attachment(row: sqlite3.Row) -> Attachment:
    """From a row of the table `attachment`."""
    stage = _stage_info(json.loads(row["stage"]))
    return Attachment(row["streams"], stage, bool(row["shadow"]), row["attached_ns"])


def final_event_data(info: StreamInfo) -> Attrs:
    """What the event of a sealed or aborted stream says, within `limits.EVENT_DATA_BYTES_MAX`.

    Where attributes or ledger do not fit, they are left out or cut, and `note` says so.
    """
    whole = info.completeness
    data: dict[str, Any] = {
        "id": info.id,
        "digest": info.digest,
        "blocks": whole.blocks,
        "bytes": whole.bytes,
        "gaps": whole.gaps,
        "complete": whole.gaps == 0,
        "raw_id": info.raw_id,
        "produced_by": info.produced_by,
        "attrs": dict(info.attrs),
        "ledger": [],
    }
    if info.state is StreamState.ABORTED:
        data["reason"] = info.abort_reason
    notes = []
    room = EVENT_DATA_BYTES_MAX - 512  # for the notes
    if len(dumps(data)) > room:
        data["attrs"] = {}
        notes.append("attrs left out: see the stream")
    room -= len(dumps(data))
    for number, entry in enumerate(whole.ledger):
        row = [entry.first, entry.last, entry.stage, entry.reason]
        room -= len(dumps(row)) + 1
        if room < 0:
            notes.append(f"ledger cut: {number} of {len(whole.ledger)} entries; see the stream")
            break
        data["ledger"].append(row)
    if notes:
        data["note"] = "; ".join(notes)
    return data
