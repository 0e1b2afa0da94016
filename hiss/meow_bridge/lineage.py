"""What shaped a job's data, kept with the job: the digest of what triggered it, the kernels of what it read and wrote.

Kept in `jobs.db` when the job's outputs are published, so that it outlives the streams. Recording again changes
nothing. Callable from any thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from hiss.errors import NotFound
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.file_ledger import FileLedger
from hiss.meow_bridge.file_paths import is_file, local_path
from hiss.meow_bridge.identity import canonical_json
from hiss.meow_bridge.jobs import Attempt
from hiss.model import StreamInfo
from hiss.store import Store
from hiss.workflow import KernelUse, StreamRef

_SCHEMA: Final = (  # made where they lack
    "CREATE TABLE IF NOT EXISTS triggers("
    "job TEXT PRIMARY KEY, stream TEXT NOT NULL, path TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL"
    ") WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS job_kernels("
    "job TEXT NOT NULL, path TEXT NOT NULL, version INTEGER NOT NULL, stage INTEGER NOT NULL, name TEXT NOT NULL,"
    "hash TEXT NOT NULL, kind TEXT NOT NULL, params TEXT NOT NULL, PRIMARY KEY (job, path, version, stage)"
    ") WITHOUT ROWID",
)


class Lineage:
    def __init__(self, database: Database, store: Store, files: FileLedger) -> None:
        self._database = database
        self._store = store
        self._files = files
        with database.transaction():
            for statement in _SCHEMA:
                database.execute(statement)

    def record(self, attempt: Attempt, reads: Sequence[StreamRef], writes: Sequence[StreamRef]) -> None:
        """Of an attempt whose outputs are published. Raises what the buffer does."""
        trigger = self._trigger(attempt)
        keys = {(ref.path, ref.version) for ref in (*reads, *writes, *([trigger] if trigger else []))}
        uses = [use for path, version in sorted(keys) for use in self._uses(path, version)]
        with self._database.transaction():
            if trigger is not None:
                self._database.execute(
                    "INSERT OR REPLACE INTO triggers VALUES (?,?,?,?,?)",
                    *(attempt.job, trigger.id, trigger.path, trigger.version, trigger.digest),
                )
            for use in uses:
                self._database.execute(
                    "INSERT OR REPLACE INTO job_kernels VALUES (?,?,?,?,?,?,?,?)",
                    *(attempt.job, use.path, use.version, use.stage, use.name, use.hash, use.kind),
                    canonical_json(use.params),
                )

    def trigger(self, job: str) -> StreamRef | None:
        """What triggered a job that is done, with its digest; None for a collection, or a timer."""
        with self._database.transaction():
            row = self._database.row("SELECT * FROM triggers WHERE job = ?", job)
        return None if row is None else StreamRef(row["stream"], row["path"], row["version"], row["digest"])

    def kernels(self, job: str) -> tuple[KernelUse, ...]:
        """The kernels that shaped what a job read and wrote, in the order of their stages."""
        with self._database.transaction():
            rows = self._database.rows("SELECT * FROM job_kernels WHERE job = ? ORDER BY path, version, stage", job)
        return tuple(
            KernelUse(
                path=row["path"],
                version=row["version"],
                stage=row["stage"],
                name=row["name"],
                hash=row["hash"],
                kind=row["kind"],
                params=json.loads(row["params"]),
            )
            for row in rows
        )

    def _trigger(self, attempt: Attempt) -> StreamRef | None:
        if not attempt.version:
            return None
        if is_file(attempt.path):
            digest = self._files.digest(local_path(attempt.path), attempt.version)
            return StreamRef("", attempt.path, attempt.version, digest)
        info = self._info(attempt.path, attempt.version)
        return None if info is None else StreamRef(info.id, info.path, info.version, info.digest)

    def _uses(self, path: str, version: int) -> Iterator[KernelUse]:
        info = None if is_file(path) else self._info(path, version)
        for number, stage in enumerate(info.stages if info is not None else ()):
            params = {name: self._with_digest(value) for name, value in stage.params.items()}
            yield KernelUse(path, version, number, stage.name, stage.hash, stage.kind.name.lower(), params)

    def _with_digest(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """A parameter; where it is a stream, with that stream's digest."""
        if "stream" not in value or not value.get("version"):
            return dict(value)
        info = self._info(value["stream"], int(value["version"]))
        return {**value, **({} if info is None else {"digest": info.digest})}

    def _info(self, path: str, version: int) -> StreamInfo | None:
        try:
            return self._store.stream(path, version)
        except NotFound:
            return None


def ids_of(refs: Iterable[StreamRef]) -> set[tuple[str, int]]:
    """Paths and versions."""
    return {(ref.path, ref.version) for ref in refs}
