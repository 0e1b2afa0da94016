"""The words of MEOW that cross boundaries: Pattern, Recipe, Rule, Job, and the graph of what led to what.

A Pattern says when and on which data, a Recipe what to run; a Rule is their pairing and exists exactly while both do; a
Job is one run of a Rule for one event and one point of its sweep. The engine is in `meow_bridge`.
"""

from __future__ import annotations

import contextvars
import enum
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from hiss import limits
from hiss.errors import HissError, InvalidPattern, InvalidRecipe, LimitExceeded
from hiss.model import Attrs, Caller, check_name, checked_attrs


class RecipeKind(enum.IntEnum):
    FUNCTION = 1  # Python source and the name of the function in it
    SCRIPT = 2  # a Python script; variables are its globals
    NOTEBOOK = 3  # a Jupyter notebook as JSON
    COMMAND = 4  # a command line as a JSON list; `{name}` stands for a variable


FEEDBACK: Final = "feedback"
RIGHTS: Final = ("rules", FEEDBACK)  # to change patterns and recipes; to send feedback to streams that it may not write
INPUT_FORMS: Final = ("stream", "nexus", "npy", "path")
_PACKAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\s*(?:==|!=|>=|<=|>|<)\s*\d+(?:\.\d+)*\s*(?:,(?=.)|$))*\s*")


@dataclass(frozen=True, slots=True, init=False)
class Recipe:
    """What to run.

    Parameters
    ----------
    name : str
        Unique among recipes.
    source : callable, path, sequence of str, or str
        A Python function (its source is taken), a path to a `.py` script or `.ipynb` notebook, a command line as a
        sequence, or, with `kind`, the body itself.
    kind : RecipeKind, optional
        Given together with a body; found from `source` otherwise.
    entry : str
        Name of the function in the body, for FUNCTION.
    timeout_s : float
        An attempt that takes longer is killed.
    retries : int
        Attempts after the first one that failed.
    cores : int
        Processors that an attempt keeps busy; as many threads does its numerical library get.
    memory_bytes : int, optional
        Memory that all processes of an attempt may take together; by default `limits.JOB_MEMORY_BYTES`, or all that
        the executor has, if that is less.
    packages : sequence of str
        Distributions that must be installed where it runs, such as `scikit-image` or `scipy>=1.13,<2`.
    input_as : str
        What the recipe gets under its input's name: the `stream` (its path, for all but functions), or the path of a
        file that holds it: `nexus`, `npy`, or `path`, the blocks' bytes one after the other.

    Raises
    ------
    InvalidRecipe
        No such file, not a notebook, a lambda, source that does not parse.
    LimitExceeded
        Above `limits.RECIPE_BYTES_MAX`.
    """

    name: str
    kind: RecipeKind
    body: str
    entry: str
    timeout_s: float
    retries: int
    cores: int
    memory_bytes: int | None
    packages: tuple[str, ...]
    input_as: str

    def __init__(
        self,
        name: str,
        source: Callable[..., Any] | Path | Sequence[str] | str,
        *,
        kind: RecipeKind | None = None,
        entry: str = "",
        timeout_s: float = limits.JOB_TIMEOUT_S,
        retries: int = limits.JOB_RETRIES,
        cores: int = 1,
        memory_bytes: int | None = None,
        packages: Sequence[str] = (),
        input_as: str = "stream",
    ) -> None:
        check_name(name, "recipe")
        if kind is not None:
            body = str(source)
        elif callable(source):
            kind, body, entry = RecipeKind.FUNCTION, _function_source(name, source), source.__name__
        elif isinstance(source, str | Path):
            kind, body = _read_source(name, Path(source))
        else:
            kind, body = RecipeKind.COMMAND, json.dumps([str(word) for word in source])
        _check_body(name, kind, body, entry)
        if not 0 < timeout_s <= limits.JOB_TIMEOUT_MAX_S or retries < 0:
            raise InvalidRecipe(
                f"recipe {name!r}: timeout_s {timeout_s} must be above 0 and at most {limits.JOB_TIMEOUT_MAX_S}, "
                f"retries {retries} at least 0"
            )
        _check_demands(f"recipe {name!r}", cores, memory_bytes, InvalidRecipe)
        _check_packages(name, packages)
        if input_as not in INPUT_FORMS:
            raise InvalidRecipe(f"recipe {name!r}: input_as is {input_as!r}, expected one of {', '.join(INPUT_FORMS)}")
        for key, value in (
            ("name", name),
            ("kind", kind),
            ("body", body),
            ("entry", entry),
            ("timeout_s", float(timeout_s)),
            ("retries", int(retries)),
            ("cores", cores),
            ("memory_bytes", memory_bytes),
            ("packages", tuple(packages)),
            ("input_as", input_as),
        ):
            object.__setattr__(self, key, value)


def _check_demands(owner: str, cores: int | None, memory_bytes: int | None, kind: type[HissError]) -> None:
    if cores is not None and not 1 <= cores <= limits.JOB_CORES_MAX:
        raise kind(f"{owner}: cores is {cores}, expected 1 to {limits.JOB_CORES_MAX}")
    if memory_bytes is not None and memory_bytes < limits.JOB_MEMORY_BYTES_MIN:
        raise kind(f"{owner}: memory_bytes is {memory_bytes}, expected at least {limits.JOB_MEMORY_BYTES_MIN}")


def _check_packages(name: str, packages: Sequence[str]) -> None:
    if isinstance(packages, str) or len(packages) > limits.RECIPE_PACKAGES_MAX:
        raise InvalidRecipe(f"recipe {name!r}: packages is a list of at most {limits.RECIPE_PACKAGES_MAX} texts")
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise InvalidRecipe(
                f"recipe {name!r}: package {package!r}; expected a name, with versions if need be: 'scipy>=1.13,<2'"
            )


def _function_source(name: str, function: Callable[..., Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise InvalidRecipe(f"recipe {name!r}: the source of {function!r} cannot be read; put it in a file") from None


def _read_source(name: str, path: Path) -> tuple[RecipeKind, str]:
    kinds = {".py": RecipeKind.SCRIPT, ".ipynb": RecipeKind.NOTEBOOK}
    if path.suffix not in kinds:
        raise InvalidRecipe(f"recipe {name!r}: {path} is neither a .py script nor an .ipynb notebook")
    try:
        return kinds[path.suffix], path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRecipe(f"recipe {name!r}: {path} cannot be read: {error}") from None


def _check_body(name: str, kind: RecipeKind, body: str, entry: str) -> None:
    if len(body) > limits.RECIPE_BYTES_MAX:
        raise LimitExceeded(f"recipe {name!r}: {len(body)} characters, allowed are {limits.RECIPE_BYTES_MAX}")
    try:
        if kind is RecipeKind.NOTEBOOK:
            if not isinstance(json.loads(body)["cells"], list):
                raise KeyError("cells")
        elif kind is RecipeKind.COMMAND:
            words = json.loads(body)
            if not words or not all(isinstance(word, str) for word in words):
                raise ValueError("an empty command line")
        else:
            compile(body, f"<recipe {name}>", "exec", dont_inherit=True)
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        raise InvalidRecipe(f"recipe {name!r}: its {kind.name.lower()} is not runnable: {error!r}") from None
    if kind is RecipeKind.FUNCTION and not entry.isidentifier():
        raise InvalidRecipe(f"recipe {name!r}: {entry!r} is not the name of a function; lambdas have none")


@dataclass(frozen=True, slots=True)
class Pattern:
    """When to run a recipe, on which data, with which variables.

    `trigger` is a glob over `collection/stream`: `*` within one part of the path, `**` across. `where` holds stream
    attributes that must be equal. `sweep` maps a variable to a list, or to `{"start", "stop", "step"}` with the stop
    included; several sweeps multiply. `input` is the name under which the recipe gets the triggering stream's path.
    `outputs` are variables that name streams; they are shown in graphs. Keywords such as `{COLLECTION}` are replaced in
    string values (`meow_bridge.keywords`). `timeout_s`, `retries`, `cores` and `memory_bytes` override the
    recipe's. `writes` is the path below which jobs may write; by default the first part of the trigger's path.

    Limits: `jobs_at_once` run at the same time, further ones wait in the queue. Beyond `jobs_an_hour`, `jobs_expected`
    in all, `chain_jobs` that led to one another (by default `limits.CHAIN_JOBS_MAX`), and for events later than
    `lifetime_s` after the rule was made, jobs are held back (`JobState.HELD`) until somebody releases them.

    With `event="stream.progress"` jobs are made while a stream is still written: each time that another `every` blocks
    of it can be read. With `event="stream.stalled"`, when an open stream got no block for `stalled_s` seconds.

    A trigger that begins with `file:/` is a glob over the files of watched directories: each content that is written
    makes the event `file.written`, and the recipe gets the file's path.

    With `event="timer"` jobs are made by the clock: `every_s` seconds, or as the line `cron` says, in UTC. `trigger` is
    then the path of the collection that they work in. `catch_up` says what becomes of times that were missed: `none` of
    them is made up for, the newest `one`, or `all`.
    """

    name: str
    trigger: str
    recipe: str
    event: str = "stream.sealed"
    input: str = "input"
    variables: Attrs = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    sweep: Mapping[str, Any] = field(default_factory=dict)
    where: Attrs = field(default_factory=dict)
    complete_only: bool = False  # only streams without gaps
    writes: str | None = None
    rights: Sequence[str] = ()  # of its jobs, from RIGHTS
    timeout_s: float | None = None
    retries: int | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    jobs_at_once: int | None = None
    jobs_an_hour: int | None = None
    jobs_expected: int | None = None
    chain_jobs: int | None = None
    lifetime_s: float | None = None
    every: int | None = None
    stalled_s: float | None = None
    every_s: float | None = None
    cron: str | None = None
    catch_up: str = "one"

    def __post_init__(self) -> None:
        check_name(self.name, "pattern")
        check_name(self.recipe, "recipe")
        if not self.trigger or len(self.trigger) > limits.PATH_CHARS_MAX:
            raise InvalidPattern(f"pattern {self.name!r}: trigger {self.trigger[:80]!r} is empty or too long")
        for text in ("variables", "where", "outputs"):
            checked_attrs(getattr(self, text), f"pattern {self.name!r} ({text})")
        names = [self.input, *self.variables, *self.outputs, *self.sweep]
        bad = [name for name in names if not name.isidentifier()]
        if bad:
            raise InvalidPattern(f"pattern {self.name!r}: {bad} are no variable names")
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InvalidPattern(f"pattern {self.name!r}: {twice} are given twice (input, variables, outputs, sweep)")
        self._check_rights()
        self._check_file()
        self._check_timer()
        self._check_watch()
        if self.timeout_s is not None and not 0 < self.timeout_s <= limits.JOB_TIMEOUT_MAX_S:
            raise InvalidPattern(
                f"pattern {self.name!r}: timeout_s {self.timeout_s}; above 0, at most {limits.JOB_TIMEOUT_MAX_S}"
            )
        _check_demands(f"pattern {self.name!r}", self.cores, self.memory_bytes, InvalidPattern)
        for limit in (
            "jobs_at_once",
            "jobs_an_hour",
            "jobs_expected",
            "chain_jobs",
            "lifetime_s",
            "every",
            "stalled_s",
        ):
            value = getattr(self, limit)
            if value is not None and not value > 0:
                raise InvalidPattern(
                    f"pattern {self.name!r}: {limit} is {value}, expected more than 0, or none for no limit"
                )

    def _check_rights(self) -> None:
        object.__setattr__(self, "rights", tuple(dict.fromkeys(self.rights)))
        unknown = [right for right in self.rights if right not in RIGHTS]
        if unknown or isinstance(self.rights, str):
            raise InvalidPattern(f"pattern {self.name!r}: rights {unknown}; there are {', '.join(RIGHTS)}")

    def _check_file(self) -> None:
        is_file = self.trigger.startswith("file:")
        if is_file and self.event == "stream.sealed":
            object.__setattr__(self, "event", "file.written")
        if is_file != (self.event == "file.written"):
            raise InvalidPattern(
                f"pattern {self.name!r}: event {self.event!r} of trigger {self.trigger[:80]!r}; files make the event "
                "file.written, and only those"
            )
        if is_file and (self.where or self.complete_only):
            raise InvalidPattern(f"pattern {self.name!r}: files have no attributes and no gaps (where, complete_only)")

    def _check_timer(self) -> None:
        given = (self.every_s is not None) + (self.cron is not None)
        if given != (self.event == "timer"):
            raise InvalidPattern(
                f"pattern {self.name!r}: event {self.event!r} with every_s {self.every_s} and cron {self.cron!r}; "
                "give one of the two with event='timer', and neither with any other event"
            )
        if self.event == "timer" and set(self.trigger) & set("*?"):
            raise InvalidPattern(
                f"pattern {self.name!r}: trigger {self.trigger!r}; a timer's is the path of the collection that its "
                "jobs work in, without '*' and '?'"
            )
        if self.catch_up not in ("none", "one", "all"):
            raise InvalidPattern(f"pattern {self.name!r}: catch_up is {self.catch_up!r}, expected none, one or all")

    def _check_watch(self) -> None:
        for name, kind in (("every", "stream.progress"), ("stalled_s", "stream.stalled")):
            if getattr(self, name) is not None and self.event != kind:
                raise InvalidPattern(
                    f"pattern {self.name!r}: event {self.event!r} with {name} {getattr(self, name)}; "
                    f"it belongs to event={kind!r}"
                )
        taken = {"blocks", "end_index"} & {self.input, *self.variables, *self.outputs, *self.sweep}
        if self.event == "stream.progress" and taken:
            raise InvalidPattern(
                f"pattern {self.name!r}: {sorted(taken)} are variables that stream.progress gives; choose other names"
            )


@dataclass(frozen=True, slots=True)
class Rule:
    """A Pattern and the Recipe that it names. `id` is the hash of both."""

    id: str
    pattern: str
    recipe: str
    trigger: str
    event: str
    created_ns: int


class JobState(enum.IntEnum):
    QUEUED = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4
    CANCELLED = 5
    HELD = 6  # by a limit of its pattern, until it is released

    @property
    def final(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class StreamRef:
    """One version of a stream that a job read or wrote, with its digest."""

    id: str
    path: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class KernelUse:
    """One stage of the pipeline of a stream that a job read or wrote."""

    path: str
    version: int
    stage: int
    name: str
    hash: str
    kind: str  # map, filter, scan, reduce
    params: Attrs  # by name: a scalar, a column, the digest of an array, or a stream's version with its digest


@dataclass(frozen=True, slots=True)
class RerunOutput:
    """What a job wrote beside what its rerun wrote."""

    path: str
    version: int  # that the job wrote; 0 where it wrote none
    digest: str
    again: str  # the digest of what the rerun wrote, '' where it wrote none
    same: bool  # byte for byte
    note: str


@dataclass(frozen=True, slots=True)
class Rerun:
    """A job that was run once more, as it was. Its outputs are gone again."""

    job: str
    same: bool  # all outputs are, executed notebooks apart
    error: str  # why it ended otherwise than the job did
    output: str  # the end of what it printed
    outputs: tuple[RerunOutput, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a rule. `id` is the hash of (event, rule, sweep point)."""

    id: str
    rule: str
    pattern: str
    recipe: str
    event: str  # the event's id
    path: str  # of the stream that triggered it
    version: int
    variables: Attrs  # all that the recipe gets, the sweep point included
    state: JobState
    attempts: int
    created_ns: int
    started_ns: int
    finished_ns: int
    host: str
    error: str
    output: str  # the end of what it printed
    reads: tuple[StreamRef, ...]
    writes: tuple[StreamRef, ...]
    chain: int = 1  # jobs that led to one another, this one included
    trigger: StreamRef | None = None  # of one that is done, and only where one job is asked for
    kernels: tuple[KernelUse, ...] = ()  # that shaped what it read and wrote; as `trigger`


@dataclass(frozen=True, slots=True)
class ProvenanceNode:
    id: str
    kind: str  # 'stream', 'job', 'kernel', 'instrument'
    label: str
    attrs: Attrs


@dataclass(frozen=True, slots=True)
class ProvenanceGraph:
    """What led to what: edges go from cause to effect."""

    nodes: tuple[ProvenanceNode, ...]
    edges: tuple[tuple[str, str, str], ...]  # from node id, to node id, role


_PERSON: Final = Caller()
_acting: Final[contextvars.ContextVar[Caller]] = contextvars.ContextVar("hiss_acting")


@contextmanager
def acting(caller: Caller) -> Iterator[None]:
    """What this thread asks of a rule engine inside is asked by `caller`: a person, or the attempt of a job.

    A job that removes or changes its own rule is not cancelled by that; what it may is for the engine to say.
    """
    token = _acting.set(caller)
    try:
        yield
    finally:
        _acting.reset(token)


def acting_caller() -> Caller:
    """Who asks; a person unless `acting` says otherwise."""
    return _acting.get(_PERSON)


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """How the rule engine stands."""

    jobs: Mapping[str, int]  # by state, in lower case
    event_seq: int  # of the last event that was dealt with


class Meow(Protocol):
    """The rule engine, as users and faces see it; here or behind gRPC. Implementations inherit from it."""

    def add(self, what: Recipe | Pattern, *, existing: bool = True) -> int:
        """Add or change a recipe or a pattern; returns how many jobs that made of what is already there."""
        if isinstance(what, Recipe):
            self.add_recipe(what)
            return 0
        return self.add_pattern(what, existing=existing)

    def add_recipe(self, recipe: Recipe) -> None: ...

    def remove_recipe(self, name: str) -> None: ...

    def recipes(self) -> list[Recipe]: ...

    def recipe(self, name: str) -> Recipe: ...

    def add_pattern(self, pattern: Pattern, *, existing: bool = True) -> int:
        """Add or change a pattern. With `existing` it also meets what is there; returns the jobs that this made."""
        ...

    def count_existing(self, pattern: Pattern) -> int:
        """How many jobs `add_pattern` would make of what is there already. Changes nothing."""
        ...

    def remove_pattern(self, name: str) -> None: ...

    def patterns(self) -> list[Pattern]: ...

    def pattern(self, name: str) -> Pattern: ...

    def rules(self) -> list[Rule]: ...

    def jobs(self, *, state: JobState | None = None, limit: int = 1000) -> list[Job]:
        """Newest first."""
        ...

    def job(self, job_id: str) -> Job:
        """By its id, or a prefix of it that no other job has."""
        ...

    def counts(self) -> EngineCounts:
        """How many jobs there are in each state, and how far the engine is with the events."""
        ...

    def cancel_job(self, job_id: str) -> Job: ...

    def release_job(self, job_id: str) -> Job:
        """Let a job run that a limit of its pattern held back; any other stays as it is."""
        ...

    def rerun_job(self, job_id: str) -> Rerun:
        """Run a job that is done once more, as it was, and say whether each output is byte for byte the same."""
        ...

    def provenance(self, path: str, version: int | None = None) -> ProvenanceGraph:
        """All that led to a stream and all that it led to."""
        ...
