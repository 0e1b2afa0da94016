from hiss.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecipeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECIPE_KIND_UNSPECIFIED: _ClassVar[RecipeKind]
    RECIPE_KIND_FUNCTION: _ClassVar[RecipeKind]
    RECIPE_KIND_SCRIPT: _ClassVar[RecipeKind]
    RECIPE_KIND_NOTEBOOK: _ClassVar[RecipeKind]
    RECIPE_KIND_COMMAND: _ClassVar[RecipeKind]

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_DONE: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]
    JOB_STATE_HELD: _ClassVar[JobState]
RECIPE_KIND_UNSPECIFIED: RecipeKind
RECIPE_KIND_FUNCTION: RecipeKind
RECIPE_KIND_SCRIPT: RecipeKind
RECIPE_KIND_NOTEBOOK: RecipeKind
RECIPE_KIND_COMMAND: RecipeKind
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_DONE: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
JOB_STATE_HELD: JobState

class Recipe(_message.Message):
    __slots__ = ("name", "kind", "body", "entry", "timeout_s", "retries", "cores", "memory_bytes", "packages", "input_as")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKAGES_FIELD_NUMBER: _ClassVar[int]
    INPUT_AS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: RecipeKind
    body: str
    entry: str
    timeout_s: float
    retries: int
    cores: int
    memory_bytes: int
    packages: _containers.RepeatedScalarFieldContainer[str]
    input_as: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[RecipeKind, str]] = ..., body: _Optional[str] = ..., entry: _Optional[str] = ..., timeout_s: _Optional[float] = ..., retries: _Optional[int] = ..., cores: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., packages: _Optional[_Iterable[str]] = ..., input_as: _Optional[str] = ...) -> None: ...

class Pattern(_message.Message):
    __slots__ = ("name", "trigger", "recipe", "event", "input", "variables_json", "outputs", "sweep_json", "where_json", "complete_only", "writes", "timeout_s", "retries", "jobs_at_once", "jobs_an_hour", "jobs_expected", "chain_jobs", "lifetime_s", "every_s", "cron", "catch_up", "every", "stalled_s", "rights", "cores", "memory_bytes")
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_JSON_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SWEEP_JSON_FIELD_NUMBER: _ClassVar[int]
    WHERE_JSON_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_ONLY_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    JOBS_AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    JOBS_AN_HOUR_FIELD_NUMBER: _ClassVar[int]
    JOBS_EXPECTED_FIELD_NUMBER: _ClassVar[int]
    CHAIN_JOBS_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_S_FIELD_NUMBER: _ClassVar[int]
    EVERY_S_FIELD_NUMBER: _ClassVar[int]
    CRON_FIELD_NUMBER: _ClassVar[int]
    CATCH_UP_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    STALLED_S_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    trigger: str
    recipe: str
    event: str
    input: str
    variables_json: str
    outputs: _containers.ScalarMap[str, str]
    sweep_json: str
    where_json: str
    complete_only: bool
    writes: str
    timeout_s: float
    retries: int
    jobs_at_once: int
    jobs_an_hour: int
    jobs_expected: int
    chain_jobs: int
    lifetime_s: float
    every_s: float
    cron: str
    catch_up: str
    every: int
    stalled_s: float
    rights: _containers.RepeatedScalarFieldContainer[str]
    cores: int
    memory_bytes: int
    def __init__(self, name: _Optional[str] = ..., trigger: _Optional[str] = ..., recipe: _Optional[str] = ..., event: _Optional[str] = ..., input: _Optional[str] = ..., variables_json: _Optional[str] = ..., outputs: _Optional[_Mapping[str, str]] = ..., sweep_json: _Optional[str] = ..., where_json: _Optional[str] = ..., complete_only: _Optional[bool] = ..., writes: _Optional[str] = ..., timeout_s: _Optional[float] = ..., retries: _Optional[int] = ..., jobs_at_once: _Optional[int] = ..., jobs_an_hour: _Optional[int] = ..., jobs_expected: _Optional[int] = ..., chain_jobs: _Optional[int] = ..., lifetime_s: _Optional[float] = ..., every_s: _Optional[float] = ..., cron: _Optional[str] = ..., catch_up: _Optional[str] = ..., every: _Optional[int] = ..., stalled_s: _Optional[float] = ..., rights: _Optional[_Iterable[str]] = ..., cores: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("id", "pattern", "recipe", "trigger", "event", "created_ns")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    id: str
    pattern: str
    recipe: str
    trigger: str
    event: str
    created_ns: int
    def __init__(self, id: _Optional[str] = ..., pattern: _Optional[str] = ..., recipe: _Optional[str] = ..., trigger: _Optional[str] = ..., event: _Optional[str] = ..., created_ns: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("id", "rule", "pattern", "recipe", "event", "path", "version", "variables_json", "state", "attempts", "created_ns", "started_ns", "finished_ns", "host", "error", "output", "reads", "writes", "chain", "trigger", "kernels")
    ID_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_JSON_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    STARTED_NS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_NS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    id: str
    rule: str
    pattern: str
    recipe: str
    event: str
    path: str
    version: int
    variables_json: str
    state: JobState
    attempts: int
    created_ns: int
    started_ns: int
    finished_ns: int
    host: str
    error: str
    output: str
    reads: _containers.RepeatedCompositeFieldContainer[_types_pb2.StreamReference]
    writes: _containers.RepeatedCompositeFieldContainer[_types_pb2.StreamReference]
    chain: int
    trigger: _types_pb2.StreamReference
    kernels: _containers.RepeatedCompositeFieldContainer[KernelUse]
    def __init__(self, id: _Optional[str] = ..., rule: _Optional[str] = ..., pattern: _Optional[str] = ..., recipe: _Optional[str] = ..., event: _Optional[str] = ..., path: _Optional[str] = ..., version: _Optional[int] = ..., variables_json: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., attempts: _Optional[int] = ..., created_ns: _Optional[int] = ..., started_ns: _Optional[int] = ..., finished_ns: _Optional[int] = ..., host: _Optional[str] = ..., error: _Optional[str] = ..., output: _Optional[str] = ..., reads: _Optional[_Iterable[_Union[_types_pb2.StreamReference, _Mapping]]] = ..., writes: _Optional[_Iterable[_Union[_types_pb2.StreamReference, _Mapping]]] = ..., chain: _Optional[int] = ..., trigger: _Optional[_Union[_types_pb2.StreamReference, _Mapping]] = ..., kernels: _Optional[_Iterable[_Union[KernelUse, _Mapping]]] = ...) -> None: ...

class KernelUse(_message.Message):
    __slots__ = ("path", "version", "stage", "name", "hash", "kind", "params_json")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PARAMS_JSON_FIELD_NUMBER: _ClassVar[int]
    path: str
    version: int
    stage: int
    name: str
    hash: str
    kind: str
    params_json: str
    def __init__(self, path: _Optional[str] = ..., version: _Optional[int] = ..., stage: _Optional[int] = ..., name: _Optional[str] = ..., hash: _Optional[str] = ..., kind: _Optional[str] = ..., params_json: _Optional[str] = ...) -> None: ...

class RerunOutput(_message.Message):
    __slots__ = ("path", "version", "digest", "again", "same", "note")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    SAME_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    path: str
    version: int
    digest: str
    again: str
    same: bool
    note: str
    def __init__(self, path: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., again: _Optional[str] = ..., same: _Optional[bool] = ..., note: _Optional[str] = ...) -> None: ...

class CountExistingRequest(_message.Message):
    __slots__ = ("pattern",)
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    pattern: Pattern
    def __init__(self, pattern: _Optional[_Union[Pattern, _Mapping]] = ...) -> None: ...

class CountExistingResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: int
    def __init__(self, jobs: _Optional[int] = ...) -> None: ...

class RerunJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RerunJobResponse(_message.Message):
    __slots__ = ("job", "same", "error", "output", "outputs")
    JOB_FIELD_NUMBER: _ClassVar[int]
    SAME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    job: str
    same: bool
    error: str
    output: str
    outputs: _containers.RepeatedCompositeFieldContainer[RerunOutput]
    def __init__(self, job: _Optional[str] = ..., same: _Optional[bool] = ..., error: _Optional[str] = ..., output: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[RerunOutput, _Mapping]]] = ...) -> None: ...

class ProvenanceNode(_message.Message):
    __slots__ = ("id", "kind", "label", "attrs_json")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ATTRS_JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    label: str
    attrs_json: str
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., label: _Optional[str] = ..., attrs_json: _Optional[str] = ...) -> None: ...

class ProvenanceEdge(_message.Message):
    __slots__ = ("from_id", "to_id", "role")
    FROM_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    from_id: str
    to_id: str
    role: str
    def __init__(self, from_id: _Optional[str] = ..., to_id: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class AddRecipeRequest(_message.Message):
    __slots__ = ("recipe",)
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    recipe: Recipe
    def __init__(self, recipe: _Optional[_Union[Recipe, _Mapping]] = ...) -> None: ...

class AddRecipeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemoveRecipeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemoveRecipeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRecipesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRecipesResponse(_message.Message):
    __slots__ = ("recipes",)
    RECIPES_FIELD_NUMBER: _ClassVar[int]
    recipes: _containers.RepeatedCompositeFieldContainer[Recipe]
    def __init__(self, recipes: _Optional[_Iterable[_Union[Recipe, _Mapping]]] = ...) -> None: ...

class GetRecipeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetRecipeResponse(_message.Message):
    __slots__ = ("recipe",)
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    recipe: Recipe
    def __init__(self, recipe: _Optional[_Union[Recipe, _Mapping]] = ...) -> None: ...

class AddPatternRequest(_message.Message):
    __slots__ = ("pattern", "existing")
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    pattern: Pattern
    existing: bool
    def __init__(self, pattern: _Optional[_Union[Pattern, _Mapping]] = ..., existing: _Optional[bool] = ...) -> None: ...

class AddPatternResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: int
    def __init__(self, jobs: _Optional[int] = ...) -> None: ...

class RemovePatternRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemovePatternResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPatternsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPatternsResponse(_message.Message):
    __slots__ = ("patterns",)
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    patterns: _containers.RepeatedCompositeFieldContainer[Pattern]
    def __init__(self, patterns: _Optional[_Iterable[_Union[Pattern, _Mapping]]] = ...) -> None: ...

class GetPatternRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetPatternResponse(_message.Message):
    __slots__ = ("pattern",)
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    pattern: Pattern
    def __init__(self, pattern: _Optional[_Union[Pattern, _Mapping]] = ...) -> None: ...

class ListRulesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRulesResponse(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    def __init__(self, rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("state", "limit")
    STATE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    state: JobState
    limit: int
    def __init__(self, state: _Optional[_Union[JobState, str]] = ..., limit: _Optional[int] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetCountsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCountsResponse(_message.Message):
    __slots__ = ("jobs", "event_seq")
    class JobsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    JOBS_FIELD_NUMBER: _ClassVar[int]
    EVENT_SEQ_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.ScalarMap[str, int]
    event_seq: int
    def __init__(self, jobs: _Optional[_Mapping[str, int]] = ..., event_seq: _Optional[int] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ReleaseJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ReleaseJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetProvenanceRequest(_message.Message):
    __slots__ = ("path", "version")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    path: str
    version: int
    def __init__(self, path: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetProvenanceResponse(_message.Message):
    __slots__ = ("nodes", "edges")
    NODES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[ProvenanceNode]
    edges: _containers.RepeatedCompositeFieldContainer[ProvenanceEdge]
    def __init__(self, nodes: _Optional[_Iterable[_Union[ProvenanceNode, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[ProvenanceEdge, _Mapping]]] = ...) -> None: ...
