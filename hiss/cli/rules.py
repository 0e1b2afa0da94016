"""`hiss pattern …`, `recipe …`, `job …`: the rule engine. Called from the main thread."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiss.cli.intake import parsed_attrs
from hiss.cli.output import say_fields, say_json, say_table
from hiss.cli.reach import Reach, command
from hiss.errors import InvalidPattern, InvalidRecipe

if TYPE_CHECKING:
    from hiss.workflow import Job, Pattern, Recipe

group = click.Group()
pattern = click.Group("pattern", help="When a recipe runs, on which data.")
recipe = click.Group("recipe", help="What to run: notebooks, scripts.")
job = click.Group("job", help="Runs of recipes.")
for _group in (pattern, recipe, job):
    group.add_command(_group)


# ---------------------------------------------------------------------------------------------------------- patterns


@command(pattern, "add")
@click.argument("name")
@click.option(
    "--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The pattern as TOML or JSON."
)
@click.option("--trigger", metavar="GLOB", help="Over COLLECTION/STREAM; * within one part, ** across.")
@click.option("--recipe", "recipe_name", metavar="RECIPE", help="The recipe to run.")
@click.option("--event", metavar="KIND", help="stream.sealed by default.")
@click.option("--input", "input_name", metavar="NAME", help="The variable that gets the stream's path.")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="A variable; VALUE is JSON or text.")
@click.option("--sweep", "sweeps", multiple=True, metavar="NAME=JSON", help='A list, or {"start":, "stop":, "step":}.')
@click.option("--complete-only", is_flag=True, help="Only streams without gaps.")
@click.option("--new-only", is_flag=True, help="Not for what is already there.")
@click.option("--dry-run", is_flag=True, help="Only say how many jobs it would make of what is already there.")
def add_pattern(
    reach: Reach, name: str, file: Path | None, trigger: str | None, recipe_name: str | None, event: str | None,
    input_name: str | None, variables: tuple[str, ...], sweeps: tuple[str, ...], complete_only: bool,
    new_only: bool, dry_run: bool,
) -> None:  # fmt: skip
    """Add a pattern, or change it. It also meets what is already there, unless --new-only.

    A TOML or JSON file has the names of hiss.Pattern: trigger, recipe, event, input, variables, outputs, sweep, where,
    complete_only, writes, rights, timeout_s, retries, jobs_at_once, jobs_an_hour, jobs_expected, chain_jobs,
    lifetime_s, every, stalled_s, every_s, cron, catch_up. Options override the file.
    """
    from hiss.workflow import Pattern

    given: dict[str, Any] = _read_pattern(file) if file is not None else {}
    options = {"trigger": trigger, "recipe": recipe_name, "event": event, "input": input_name}
    given |= {key: value for key, value in options.items() if value is not None}
    for key, pairs in (("variables", variables), ("sweep", sweeps)):
        if pairs:
            given[key] = {**given.get(key, {}), **parsed_attrs(pairs)}
    if complete_only:
        given["complete_only"] = True
    for needed in ("trigger", "recipe"):
        if needed not in given:
            raise InvalidPattern(f"pattern {name!r}: no {needed}; give --{needed}, or --file with it")
    made = Pattern(name, **given)
    with reach.buffer() as buffer:
        jobs = buffer.meow.count_existing(made) if dry_run else buffer.meow.add(made, existing=not new_only)
    if reach.json:
        say_json({"pattern": name, "jobs": jobs, **({"dry_run": True} if dry_run else {})})
    elif dry_run:
        click.echo(f"pattern {name} would make {jobs} jobs of what is already there; nothing was changed")
    else:
        click.echo(f"pattern {name}: {jobs} jobs for what is already there")


def _read_pattern(file: Path) -> dict[str, Any]:
    from hiss.workflow import Pattern

    text = file.read_text("utf-8")
    try:
        found = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise InvalidPattern(f"{file}: {error}") from None
    known = {member.name for member in fields(Pattern)} - {"name"}
    unknown = sorted(set(found) - known - {"name"})
    if unknown:
        raise InvalidPattern(f"{file}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return {key: value for key, value in found.items() if key != "name"}


@command(pattern, "ls")
def list_patterns(reach: Reach) -> None:
    """List the patterns, and whether each has its recipe and so is a rule."""
    with reach.buffer() as buffer:
        found = buffer.meow.patterns()
        rules = {rule.pattern for rule in buffer.meow.rules()}
    if reach.json:
        say_json([{**_pattern_json(item), "rule": item.name in rules} for item in found])
        return
    rows = [(item.name, item.trigger, item.event, item.recipe, item.name in rules) for item in found]
    say_table(("pattern", "trigger", "event", "recipe", "rule"), rows)


def _pattern_json(item: Pattern) -> dict[str, Any]:
    return {member.name: getattr(item, member.name) for member in fields(item)}


@command(pattern, "show")
@click.argument("name")
def show_pattern(reach: Reach, name: str) -> None:
    """Show a pattern."""
    with reach.buffer() as buffer:
        found = next((item for item in buffer.meow.patterns() if item.name == name), None)
    if found is None:
        from hiss.errors import PatternNotFound

        raise PatternNotFound(f"no pattern {name!r}; `hiss pattern ls` shows all")
    if reach.json:
        say_json(found)
    else:
        say_fields([(key, value if value is not False else None) for key, value in _pattern_json(found).items()])


@command(pattern, "rm")
@click.argument("name")
def remove_pattern(reach: Reach, name: str) -> None:
    """Remove a pattern. Its rule ends at once, and its jobs that have not finished are cancelled."""
    with reach.buffer() as buffer:
        buffer.meow.remove_pattern(name)
    _said_removed(reach, "pattern", name)


def _said_removed(reach: Reach, kind: str, name: str) -> None:
    if reach.json:
        say_json({"removed": name})
    else:
        click.echo(f"{kind} {name} removed")


# ----------------------------------------------------------------------------------------------------------- recipes


@command(recipe, "add")
@click.argument("name")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--function", metavar="NAME", help="The function of a .py file to call; without it the script runs.")
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="The longest that an attempt may take.")
@click.option("--retries", type=click.IntRange(0), help="Attempts after the first one that failed.")
def add_recipe(
    reach: Reach, name: str, source: Path, function: str | None, timeout_s: float | None, retries: int | None
) -> None:
    """Add a recipe, or change it: a .ipynb notebook or a .py script."""
    from hiss.workflow import Recipe, RecipeKind

    limits: dict[str, Any] = {"timeout_s": timeout_s, "retries": retries}
    limits = {key: value for key, value in limits.items() if value is not None}
    if function is None:
        made = Recipe(name, source, **limits)
    elif source.suffix == ".py":
        made = Recipe(name, source.read_text("utf-8"), kind=RecipeKind.FUNCTION, entry=function, **limits)
    else:
        raise InvalidRecipe(f"{source}: --function needs a .py file")
    with reach.buffer() as buffer:
        buffer.meow.add(made)
    if reach.json:
        say_json({"recipe": name, "kind": made.kind})
    else:
        click.echo(f"recipe {name}: {made.kind.name.lower()}, {len(made.body)} characters")


@command(recipe, "ls")
def list_recipes(reach: Reach) -> None:
    """List the recipes."""
    with reach.buffer() as buffer:
        found = buffer.meow.recipes()
    if reach.json:
        say_json(found)
        return
    rows = [(item.name, item.kind.name.lower(), item.entry or None, len(item.body), item.timeout_s) for item in found]
    say_table(("recipe", "kind", "function", "characters", "timeout s"), rows)


@command(recipe, "show")
@click.argument("name")
def show_recipe(reach: Reach, name: str) -> None:
    """Show a recipe and its body."""
    with reach.buffer() as buffer:
        found = _recipe(buffer.meow.recipes(), name)
    if reach.json:
        say_json(found)
        return
    say_fields((("recipe", found.name), ("kind", found.kind.name.lower()), ("function", found.entry)))
    click.echo()
    click.echo(found.body.rstrip())


def _recipe(found: list[Recipe], name: str) -> Recipe:
    from hiss.errors import RecipeNotFound

    for item in found:
        if item.name == name:
            return item
    raise RecipeNotFound(f"no recipe {name!r}; `hiss recipe ls` shows all")


@command(recipe, "rm")
@click.argument("name")
def remove_recipe(reach: Reach, name: str) -> None:
    """Remove a recipe. Its rules end at once."""
    with reach.buffer() as buffer:
        buffer.meow.remove_recipe(name)
    _said_removed(reach, "recipe", name)


# -------------------------------------------------------------------------------------------------------------- jobs


@command(job, "ls")
@click.option(
    "--state", type=click.Choice(["queued", "running", "done", "failed", "cancelled", "held"]), help="Only these."
)
@click.option(
    "-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The newest so many."
)
def list_jobs(reach: Reach, state: str | None, limit: int) -> None:
    """List the jobs, newest first."""
    from hiss.model import now_text
    from hiss.workflow import JobState

    wanted = JobState[state.upper()] if state else None
    with reach.buffer() as buffer:
        found = buffer.meow.jobs(state=wanted, limit=limit)
    if reach.json:
        say_json(found)
        return
    rows = [
        (
            item.id[:12],
            item.recipe,
            item.path,
            item.state.name.lower(),
            item.attempts,
            _seconds(item),
            now_text(item.created_ns),
        )
        for item in found
    ]
    say_table(("job", "recipe", "on", "state", "attempts", "seconds", "created"), rows)


def _seconds(item: Job) -> float | None:
    if not item.started_ns or not item.finished_ns:
        return None
    return round((item.finished_ns - item.started_ns) / 1e9, 3)


@command(job, "show")
@click.argument("job_id", metavar="JOB")
def show_job(reach: Reach, job_id: str) -> None:
    """Show a job: variables, what it read and wrote, the end of its output. JOB may be the beginning of its id."""
    with reach.buffer() as buffer:
        found = buffer.meow.job(job_id)
    if reach.json:
        say_json(found)
    else:
        _say_job(found)


def _say_job(found: Job) -> None:
    from hiss.model import now_text

    say_fields(
        (
            ("job", found.id),
            ("state", found.state.name.lower()),
            ("recipe", found.recipe),
            ("pattern", found.pattern),
            ("rule", found.rule),
            ("event", found.event),
            ("on", f"{found.path} version {found.version}"),
            ("variables", "\n".join(f"{key} = {value}" for key, value in found.variables.items())),
            ("attempts", found.attempts),
            ("chain", f"{found.chain} jobs" if found.chain > 1 else None),
            ("host", found.host),
            ("created", now_text(found.created_ns)),
            ("seconds", _seconds(found)),
            ("trigger's digest", found.trigger.digest if found.trigger else None),
            ("read", "\n".join(f"{ref.path} version {ref.version} {ref.digest}" for ref in found.reads)),
            ("kernels", "\n".join(f"{use.path}: {use.kind} {use.name} {use.hash}" for use in found.kernels)),
            ("wrote", "\n".join(f"{ref.path} version {ref.version} {ref.digest}" for ref in found.writes)),
            ("error", found.error),
            ("output", found.output.rstrip()),
        )
    )


@command(job, "cancel")
@click.argument("job_id", metavar="JOB")
def cancel_job(reach: Reach, job_id: str) -> None:
    """Cancel a job that has not finished."""
    with reach.buffer() as buffer:
        found = buffer.meow.cancel_job(job_id)
    if reach.json:
        say_json(found)
    else:
        click.echo(f"job {found.id[:12]}: {found.state.name.lower()}")


@command(job, "release")
@click.argument("job_ids", metavar="[JOB]...", nargs=-1)
@click.option("--pattern", "pattern_name", metavar="NAME", help="All held jobs of this pattern.")
def release_jobs(reach: Reach, job_ids: tuple[str, ...], pattern_name: str | None) -> None:
    """Let jobs run that a limit of their pattern held back. `hiss job ls --state held` lists them."""
    from hiss.errors import InvalidInput
    from hiss.limits import JOBS_LISTED_MAX
    from hiss.workflow import JobState

    if not job_ids and pattern_name is None:
        raise InvalidInput("no job: give ids of held jobs, or --pattern NAME for all that it holds back")
    with reach.buffer() as buffer:
        wanted = list(job_ids)
        if pattern_name is not None:
            buffer.meow.pattern(pattern_name)
            held = buffer.meow.jobs(state=JobState.HELD, limit=JOBS_LISTED_MAX)
            wanted += [item.id for item in reversed(held) if item.pattern == pattern_name]
        found = [buffer.meow.release_job(job_id) for job_id in wanted]
    if reach.json:
        say_json(found)
    else:
        for item in found:
            click.echo(f"job {item.id[:12]}: {item.state.name.lower()}")


@command(job, "rerun")
@click.argument("job_id", metavar="JOB")
def rerun_job(reach: Reach, job_id: str) -> None:
    """Run a job that is done once more, as it was, and compare.

    The same version of its recipe, the same variables and versions of inputs. What it makes is compared byte for byte
    with what the job made, and dropped. Ends with 1 where something is not the same.
    """
    with reach.buffer() as buffer:
        found = buffer.meow.rerun_job(job_id)
    if reach.json:
        say_json(found)
    else:
        rows = [
            (
                each.path,
                each.version or None,
                "same" if each.same else "NOT the same",
                each.digest,
                each.again,
                each.note,
            )
            for each in found.outputs
        ]
        say_table(("output", "version", "byte for byte", "digest", "digest now", ""), rows)
        click.echo(f"job {found.job[:12]}: {found.error or ('the same' if found.same else 'NOT the same')}")
        if found.error:
            click.echo(found.output.rstrip())
    if not found.same:
        raise SystemExit(1)
