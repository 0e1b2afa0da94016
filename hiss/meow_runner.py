"""`WorkflowRunner` for those who come from `mig_meow`: its patterns and recipes over a directory of files.

A thin layer: a buffer of its own beside the directory, its rule engine, and a pattern with a trigger `file:…` for each
path of theirs. The calls are those of `mig_meow` 0.37; what differs is said at `WorkflowRunner`. May be used from any
thread; nothing is pickled.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiss.errors import InvalidInput, InvalidPattern, InvalidRecipe
from hiss.limits import JOBS_LISTED_MAX, MiB
from hiss.workflow import JobState, Pattern, Recipe

if TYPE_CHECKING:
    from hiss.client import Buffer
    from hiss.meow import MigPattern
    from hiss.meow_bridge.executor import Capacity, Executor, Order, RunningAttempt

log = logging.getLogger("hiss.meow")


class WorkflowRunner:
    """Patterns and recipes of `mig_meow` over the files of a directory.

    Parameters
    ----------
    path : str or Path
        The directory, made where it is not there; `{VGRID}`, and what `input_paths` are relative to.
    workers : int
        Jobs that run at the same time.
    patterns : mapping or sequence, optional
        Of `hiss.meow.MigPattern`, by name.
    recipes : mapping or sequence, optional
        Of `hiss.Recipe`, by name.
    job_data : str or Path, optional
        Where jobs and their outputs are kept; by default beside `path`, under its name with `.workflow_processing`.
        Kept from run to run, so that what was dealt with is not done again; `stop_runner(clear_jobs=True)` removes it.
    start_workers : bool
        Whether jobs run at once, or only after `start_workers()`.
    retro_active_jobs : bool
        Whether patterns also meet the files that are there.

    As there, a `*` in a path also stands for `/` (`file_triggers` says where not). Otherwise than there, a file makes
    its jobs when it was closed, once for each content; a removed pattern takes its waiting jobs with it; a sweep of
    several variables multiplies; and paths in variables are absolute, since each job runs in an empty directory of its
    own.

    Raises
    ------
    InvalidInput
        `job_data` is within `path`: what is stored would be an event.
    """

    def __init__(
        self,
        path: str | Path,
        workers: int,
        patterns: Mapping[str, MigPattern] | Iterable[MigPattern] = (),
        recipes: Mapping[str, Recipe] | Iterable[Recipe] = (),
        *,
        job_data: str | Path | None = None,
        start_workers: bool = True,
        retro_active_jobs: bool = True,
    ) -> None:
        self._root = Path(os.path.abspath(path))
        self._root.mkdir(parents=True, exist_ok=True)
        beside = self._root.parent / f".{self._root.name}.workflow_processing"
        self._data = Path(os.path.abspath(job_data or beside))
        if self._data.is_relative_to(self._root):
            raise InvalidInput(f"job_data {self._data} is within {self._root}; put it elsewhere", path=str(self._data))
        self._existing = retro_active_jobs
        self._workers = workers
        self._gate = threading.Event()
        if start_workers:
            self._gate.set()
        self._patterns: dict[str, MigPattern] = {}
        self._lock = threading.RLock()
        self._buffer = self._open()
        try:
            for recipe in recipes.values() if isinstance(recipes, Mapping) else recipes:
                self._buffer.meow.add(recipe)
            for pattern in patterns.values() if isinstance(patterns, Mapping) else patterns:
                self._put(pattern)
            self._forget_others()
        except BaseException:
            self._buffer.close()
            raise

    def _open(self) -> Buffer:
        from hiss.blocks import StorageOptions
        from hiss.client import Buffer
        from hiss.server import open_embedded

        def executor(directory: Path, jobs_at_once: int) -> Executor:
            from hiss.meow_bridge.local_executor import local_executor

            return _Gated(local_executor(directory, jobs_at_once), self._gate)

        self._data.mkdir(parents=True, exist_ok=True)
        options = StorageOptions(arena_bytes=64 * MiB, segment_bytes=32 * MiB)
        engine_options = {"jobs_at_once": self._workers, "executor": executor}
        return Buffer(open_embedded(self._data, options, "numba", engine_options))

    def _forget_others(self) -> None:
        """What an earlier run had and this one has not."""
        ours = {each.name for pattern in self._patterns.values() for each in self._file_patterns(pattern)}
        for each in self._buffer.meow.patterns():
            if each.name not in ours:
                self._buffer.meow.remove_pattern(each.name)

    def __enter__(self) -> WorkflowRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_runner()

    # ---- starting and stopping

    def start_workers(self) -> bool:
        """Let jobs run."""
        self._gate.set()
        return True

    def stop_workers(self) -> bool:
        """Start no further jobs; those that run end by themselves. Events are still taken, their jobs wait."""
        self._gate.clear()
        return True

    def check_running_status(self) -> tuple[bool, str]:
        """Whether all workers may run, and a sentence."""
        running, total = self.get_running_status()
        if running == total:
            return True, "All workers are running. "
        return False, f"{total - running} workers are not running. "

    def get_running_status(self) -> tuple[int, int]:
        """Workers that may run, and all."""
        return (self._workers if self._gate.is_set() else 0), self._workers

    def stop_runner(self, clear_jobs: bool = False) -> bool:
        """Stop, and let the directory go; with `clear_jobs` what was kept of jobs and outputs is removed."""
        self._buffer.close()
        if clear_jobs:
            shutil.rmtree(self._data, ignore_errors=True)
        return True

    # ---- patterns and recipes

    def add_pattern(self, pattern: MigPattern) -> bool:
        """Add a pattern, or change it. False, and a warning in the log, where it is refused."""
        return self._told(lambda: self._put(pattern))

    modify_pattern = add_pattern

    def remove_pattern(self, pattern: MigPattern | str) -> bool:
        """Remove a pattern with its waiting jobs. False where there is none of that name."""
        with self._lock:
            found = self._patterns.pop(pattern if isinstance(pattern, str) else pattern.name, None)
            for each in self._file_patterns(found) if found is not None else ():
                self._buffer.meow.remove_pattern(each.name)
            return found is not None

    def add_recipe(self, recipe: Recipe) -> bool:
        """Add a recipe, or change it. False, and a warning in the log, where it is refused."""
        return self._told(lambda: self._buffer.meow.add(recipe))

    modify_recipe = add_recipe

    def remove_recipe(self, recipe: Recipe | str) -> bool:
        """Remove a recipe; the rules that need it end. False where there is none of that name."""
        from hiss.errors import RecipeNotFound

        try:
            self._buffer.meow.remove_recipe(recipe if isinstance(recipe, str) else recipe.name)
        except RecipeNotFound:
            return False
        return True

    def _put(self, pattern: MigPattern) -> None:
        with self._lock:
            new = self._file_patterns(pattern)
            for each in self._file_patterns(self._patterns[pattern.name]) if pattern.name in self._patterns else ():
                if each.name not in {other.name for other in new}:
                    self._buffer.meow.remove_pattern(each.name)
            for each in new:
                (self._root / _literal_directory(each.trigger, self._root)).mkdir(parents=True, exist_ok=True)
                self._buffer.meow.add(each, existing=self._existing)
            self._patterns[pattern.name] = pattern

    @staticmethod
    def _told(call: Any) -> bool:
        try:
            call()
        except (InvalidPattern, InvalidRecipe, InvalidInput) as error:
            log.warning("%s", error)
            return False
        return True

    def _file_patterns(self, pattern: MigPattern) -> list[Pattern]:
        """What stands for one pattern of theirs: one for each path and recipe, some paths needing several triggers."""
        made: list[Pattern] = []
        triggers = [trigger for path in pattern.input_paths for trigger in file_triggers(path)]
        for (trigger, recipe), number in zip(itertools.product(triggers, pattern.recipes), itertools.count(1)):
            many = len(triggers) * len(pattern.recipes) > 1
            made.append(
                Pattern(
                    f"{pattern.name}.{number}" if many else pattern.name,
                    f"file:{self._root}/./{trigger}",
                    recipe,
                    input=pattern.input_file,
                    variables=dict(pattern.variables),
                    outputs=dict(pattern.output),
                    sweep=pattern.sweeps(),
                )
            )
        if not made:
            raise InvalidPattern(f"pattern {pattern.name!r} names no input_paths or no recipes; it would never run")
        return made

    # ---- looking

    def check_patterns(self) -> dict[str, MigPattern]:
        with self._lock:
            return dict(self._patterns)

    def check_recipes(self) -> dict[str, Recipe]:
        return {recipe.name: recipe for recipe in self._buffer.meow.recipes()}

    def check_rules(self) -> list[dict[str, str]]:
        """Id, path, pattern and recipe of each rule."""
        prefix = f"file:{self._root}/./"
        return [
            {"id": rule.id, "path": rule.trigger.removeprefix(prefix), "pattern": rule.pattern, "recipe": rule.recipe}
            for rule in self._buffer.meow.rules()
        ]

    def get_all_input_paths(self) -> list[str]:
        return [rule["path"] for rule in self.check_rules()]

    def check_jobs(self) -> list[str]:
        """The ids of all jobs, oldest first."""
        return [job.id for job in self._buffer.meow.jobs(limit=JOBS_LISTED_MAX)][::-1]

    get_all_jobs = check_jobs

    def check_queue(self) -> list[str]:
        """The ids of the jobs that wait."""
        return [job.id for job in self._buffer.meow.jobs(state=JobState.QUEUED, limit=JOBS_LISTED_MAX)][::-1]

    get_queued_jobs = check_queue

    def check_job(self, job_id: str) -> dict[str, Any]:
        """What `mig_meow` keeps of a job in its `job.yml`: id, pattern, recipe, rule, path, status, times, error."""
        job = self._buffer.meow.job(job_id)
        status = {JobState.CANCELLED: "failed", JobState.HELD: "queued"}.get(job.state, job.state.name.lower())
        return {
            "id": job.id,
            "pattern": job.pattern,
            "recipe": job.recipe,
            "rule": job.rule,
            "path": job.path.removeprefix("file:"),
            "status": status,
            "create": job.created_ns,
            "start": job.started_ns,
            "end": job.finished_ns,
            "error": job.error,
        }

    def check_status(self) -> str:
        """`[waiting/all] [paths]`."""
        return f"[{len(self.check_queue())}/{len(self.check_jobs())}] {self.get_all_input_paths()}"

    @property
    def buffer(self) -> Buffer:
        """The buffer that keeps jobs, executed notebooks and outputs."""
        return self._buffer


class _Gated:
    """An executor that has no room while its gate is shut: jobs wait."""

    def __init__(self, executor: Executor, gate: threading.Event) -> None:
        self._executor = executor
        self._gate = gate

    def capacity(self) -> Capacity:
        from hiss.meow_bridge.executor import Capacity

        return self._executor.capacity() if self._gate.is_set() else Capacity(0, 0, may_grow=True)

    def begin(self, order: Order) -> RunningAttempt:
        return self._executor.begin(order)

    def close(self) -> None:
        self._executor.close()


def file_triggers(path: str) -> list[str]:
    """Triggers for a path of theirs, in which `*` also stands for `/`; no two match the same file.

    Exact where each `*` begins a name (`raw/*.tif`, `*/raw/*`), or there is only one. Of several, one within a name or
    at its end stands for characters of that name only.
    """
    path = re.sub(r"\*+", "*", path).strip("/")
    parts = path.split("/")
    deep = [f"**/{part}" if part.startswith("*") else part for part in parts]
    if path.count("*") != 1 or deep != parts:
        return ["/".join(deep)]
    name = next(part for part in parts if "*" in part)
    before, after = name.split("*")
    return [path, "/".join(f"{before}*/**/*{after}" if part == name else part for part in parts)]


def _literal_directory(trigger: str, root: Path) -> str:
    from hiss.meow_bridge.file_paths import watched_root

    with contextlib.suppress(ValueError):
        return str(Path(watched_root(trigger)).relative_to(root))
    return ""
