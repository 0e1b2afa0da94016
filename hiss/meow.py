"""For those who come from `mig_meow`: its YAML patterns and recipes, read and written as they are.

    import hiss, hiss.meow
    buf = hiss.connect()
    for recipe in hiss.meow.read_dir_recipes("meow_directory"):
        buf.meow.add(recipe)
    for pattern in hiss.meow.read_dir_pattern("segment", "meow_directory").patterns():
        buf.meow.add(pattern)

Over a directory of files, as theirs: `WorkflowRunner(directory, workers, patterns=, recipes=)`.

The files are those of `mig_meow` 0.37: `DIRECTORY/Patterns/NAME` with the keys `input_file`, `input_paths`, `output`,
`recipes`, `variables`, `parameterize_over`, and `DIRECTORY/Recipes/NAME` with `recipe`, a notebook, and `source`, where
it came from; a file's name up to its first dot is the name. Needs PyYAML. Pure functions over files; any thread.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from hiss import limits
from hiss.errors import (
    HissError,
    InvalidPattern,
    InvalidRecipe,
    LimitExceeded,
    MissingExtra,
    PatternNotFound,
    RecipeNotFound,
)
from hiss.meow_runner import WorkflowRunner as WorkflowRunner
from hiss.workflow import Pattern, Recipe, RecipeKind

DIRECTORY: Final = "meow_directory"
_SWEEP: Final = (("start", "start"), ("stop", "stop"), ("increment", "step"))  # their word, ours


@dataclass(frozen=True, slots=True)
class MigPattern:
    """A pattern of `mig_meow`: any number of paths and of recipes, where a `hiss.Pattern` has one of each.

    `input_paths` are globs, in which `*` stands for characters within one part of the path here; `input_file` is the
    variable that gets the path, `output` names variables that are paths to be written, and `parameterize_over` maps a
    variable to `start`, `stop` and `increment`, the stop included.
    """

    name: str
    input_file: str
    input_paths: tuple[str, ...]
    recipes: tuple[str, ...]
    output: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    parameterize_over: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def patterns(self) -> list[Pattern]:
        """One for each path and recipe, under the name where it is one, else with `.1`, `.2`, … behind it.

        Raises
        ------
        InvalidPattern
            No path, no recipe, or what `hiss.Pattern` refuses.
        """
        pairs = [(path, recipe) for path in self.input_paths for recipe in self.recipes]
        if not pairs:
            raise InvalidPattern(f"pattern {self.name!r} names no input_paths or no recipes; it would never run")
        return [
            Pattern(
                self.name if len(pairs) == 1 else f"{self.name}.{number}",
                path,
                recipe,
                input=self.input_file,
                outputs=dict(self.output),
                variables=dict(self.variables),
                sweep=self.sweeps(),
            )
            for number, (path, recipe) in enumerate(pairs, 1)
        ]

    def sweeps(self) -> dict[str, Any]:
        """`parameterize_over` as the sweep of a `hiss.Pattern`. Raises `InvalidPattern`."""
        return {name: self._sweep(name, given) for name, given in self.parameterize_over.items()}

    def _sweep(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(given, Mapping) or set(given) != {theirs for theirs, _ in _SWEEP}:
            raise InvalidPattern(
                f"pattern {self.name!r}: parameterize_over of {name!r} is {given!r}; expected start, stop and increment"
            )
        return {ours: given[theirs] for theirs, ours in _SWEEP}

    @classmethod
    def of(cls, pattern: Pattern) -> MigPattern:
        """The same in the words of `mig_meow`. Raises `InvalidPattern` for what it has no word for."""
        made = cls(
            pattern.name,
            pattern.input,
            (pattern.trigger,),
            (pattern.recipe,),
            dict(pattern.outputs),
            dict(pattern.variables),
            {name: _their_sweep(pattern.name, name, given) for name, given in pattern.sweep.items()},
        )
        (back,) = made.patterns()
        lost = [each.name for each in fields(Pattern) if getattr(back, each.name) != getattr(pattern, each.name)]
        if lost:
            raise InvalidPattern(f"pattern {pattern.name!r}: mig_meow has no {', '.join(lost)}; leave them out")
        return made


def _their_sweep(pattern: str, name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InvalidPattern(
            f"pattern {pattern!r}: the sweep of {name!r} is a list; mig_meow knows start, stop and increment only"
        )
    return {theirs: given[ours] for theirs, ours in _SWEEP}


# ---------------------------------------------------------------------------------------------------------- patterns


def read_pattern(path: str | Path) -> MigPattern:
    """Read the file of one pattern.

    Raises
    ------
    PatternNotFound
        No such file.
    InvalidPattern
        It is no YAML, lacks `input_file`, `input_paths` or `recipes`, or holds another key.
    MissingExtra
        PyYAML is absent.
    """
    path = Path(path)
    found = _read(path, InvalidPattern, PatternNotFound)
    known = {each.name for each in fields(MigPattern)} - {"name"}
    needed = {"input_file", "input_paths", "recipes"}
    unknown, lacking = sorted(set(found) - known), sorted(needed - set(found))
    if unknown or lacking:
        raise InvalidPattern(
            f"{path}: {'unknown ' + ', '.join(unknown) if unknown else 'no ' + ', '.join(lacking)}; "
            f"a pattern of mig_meow has {', '.join(sorted(known))}"
        )
    for key in ("input_paths", "recipes"):
        if not isinstance(found[key], list) or not all(isinstance(entry, str) for entry in found[key]):
            raise InvalidPattern(f"{path}: {key} is {found[key]!r}, expected a list of texts")
        found[key] = tuple(found[key])
    for key in ("output", "variables", "parameterize_over"):
        found[key] = found.get(key) or {}
        if not isinstance(found[key], dict):
            raise InvalidPattern(f"{path}: {key} is {found[key]!r}, expected names with values")
    return MigPattern(_name_of(path), **found)


def read_dir_pattern(name: str, directory: str | Path = DIRECTORY) -> MigPattern:
    """Read the pattern `name` of a directory, as `mig_meow` does; errors as `read_pattern`."""
    return read_pattern(Path(directory) / "Patterns" / name)


def read_dir_patterns(directory: str | Path = DIRECTORY) -> list[MigPattern]:
    """Read all patterns of a directory, by name."""
    return [read_pattern(path) for path in _files(Path(directory) / "Patterns")]


def write_dir_pattern(pattern: MigPattern | Pattern, directory: str | Path = DIRECTORY) -> Path:
    """Write a pattern for `mig_meow` to read, and return where."""
    theirs = MigPattern.of(pattern) if isinstance(pattern, Pattern) else pattern
    return _write(
        Path(directory) / "Patterns" / theirs.name,
        {
            "input_file": theirs.input_file,
            "input_paths": list(theirs.input_paths),
            "recipes": list(theirs.recipes),
            "output": dict(theirs.output),
            "variables": dict(theirs.variables),
            "parameterize_over": {name: dict(given) for name, given in theirs.parameterize_over.items()},
        },
    )


# ----------------------------------------------------------------------------------------------------------- recipes


def register_recipe(source: str | Path, name: str | None = None) -> Recipe:
    """A recipe of a notebook's file, under the file's name unless another is given. Raises `InvalidRecipe`."""
    path = Path(source)
    if path.suffix != ".ipynb":
        raise InvalidRecipe(f"{path} is no .ipynb notebook; hiss.Recipe takes scripts, functions and commands as well")
    return Recipe(name or _name_of(path), path)


def read_recipe(path: str | Path) -> Recipe:
    """Read the file of one recipe; one that states `environments` warns, because jobs run in that of the rule engine.

    Raises
    ------
    RecipeNotFound
        No such file.
    InvalidRecipe
        It is no YAML, or holds no notebook.
    MissingExtra
        PyYAML is absent.
    """
    path = Path(path)
    found = _read(path, InvalidRecipe, RecipeNotFound)
    if not isinstance(found.get("recipe"), dict):
        raise InvalidRecipe(f"{path}: no notebook under the key `recipe`; keys are {', '.join(map(str, found))}")
    if found.get("environments"):
        warnings.warn(f"{path}: its environments are not made; it runs in the rule engine's own", stacklevel=2)
    return Recipe(_name_of(path), json.dumps(found["recipe"]), kind=RecipeKind.NOTEBOOK)


def read_dir_recipe(name: str, directory: str | Path = DIRECTORY) -> Recipe:
    """Read the recipe `name` of a directory, as `mig_meow` does; errors as `read_recipe`."""
    return read_recipe(Path(directory) / "Recipes" / name)


def read_dir_recipes(directory: str | Path = DIRECTORY) -> list[Recipe]:
    """Read all recipes of a directory, by name."""
    return [read_recipe(path) for path in _files(Path(directory) / "Recipes")]


def write_dir_recipe(recipe: Recipe, directory: str | Path = DIRECTORY, source: str | None = None) -> Path:
    """Write a recipe for `mig_meow` to read, and return where. `source` says where its notebook came from.

    Raises
    ------
    InvalidRecipe
        It is no notebook: `mig_meow` runs nothing else.
    """
    if recipe.kind is not RecipeKind.NOTEBOOK:
        raise InvalidRecipe(f"recipe {recipe.name!r} is a {recipe.kind.name.lower()}; mig_meow runs notebooks only")
    content = {"recipe": json.loads(recipe.body), "source": source or f"{recipe.name}.ipynb"}
    return _write(Path(directory) / "Recipes" / recipe.name, content)


# ------------------------------------------------------------------------------------------------------------- files


def _name_of(path: Path) -> str:
    return path.name.partition(".")[0]


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file()) if directory.is_dir() else []


def _read(path: Path, invalid: type[HissError], absent: type[HissError]) -> dict[str, Any]:
    yaml = _yaml()
    try:
        if path.stat().st_size > limits.RECIPE_BYTES_MAX:
            raise LimitExceeded(f"{path} has more than {limits.RECIPE_BYTES_MAX} bytes")
        found = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise absent(f"no file {path}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise invalid(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise invalid(f"{path} holds {type(found).__name__}, expected names with values")
    return found


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    yaml = _yaml()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(content), allow_unicode=True, default_flow_style=False), "utf-8")
    return path


def _yaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ImportError:
        raise MissingExtra(
            "the files of mig_meow are YAML, and PyYAML is absent: pip install 'hiss[mig_meow]'"
        ) from None
