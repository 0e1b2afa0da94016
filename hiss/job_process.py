"""The process of a job's attempt: told what to run, it runs it and reports. One thread.

    python -m hiss.job_process FD     the zygote of a rule engine: imports what jobs need, and forks them
    python -m hiss.job_process        one attempt in a fresh process, its specification on standard input

The exit status says whether it went well; why not stands in the file `error` of the attempt's directory, beside
`job.json`, by which processes that the recipe starts find the job, `work`, where it runs, and `input`, where a file
with its input is, if it wants one.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiss import limits
from hiss.errors import HissError
from hiss.job import CurrentJob, become, job
from hiss.meow_bridge.file_paths import is_file
from hiss.meow_bridge.process_tree import own_data_bytes
from hiss.meow_bridge.recipe_source import print_recipe_traceback
from hiss.meow_bridge.warm import THREAD_COUNTS

# ---------------------------------------------------------------------------------------------------------- attempts


def run_attempt(specification: dict[str, Any], directory: Path) -> int:
    """Run an attempt in this process, and leave its report. Returns the exit status."""
    from hiss.recipe_run import CommandFailed

    report = directory / "error"
    try:
        _run(specification, directory)
    except SystemExit as leave:
        if leave.code in (None, 0):
            return _keep_files(directory, report)
        _report(report, f"sys.exit({leave.code!r})")
        return leave.code if isinstance(leave.code, int) and 0 < leave.code < 128 else 1
    except CommandFailed as failure:
        return failure.status if failure.status < 128 else 1
    except BaseException as error:
        print_recipe_traceback(error)
        _report(report, _sentence(error))
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return _keep_files(directory, report)


def _run(specification: dict[str, Any], directory: Path) -> None:
    from hiss.meow_bridge.packages import check_packages
    from hiss.recipe_run import run_recipe

    recipe = specification["recipe"]
    check_packages(recipe["name"], recipe["packages"])
    if recipe["input_as"] != "stream" and not is_file(specification["path"]):
        from hiss.job_files import input_file

        path = input_file(CurrentJob(specification), recipe["input_as"], directory / "input")
        specification["variables"][specification["input"]] = str(path)
    small = {**specification, "recipe": None, "directory": str(directory)}
    (directory / "job.json").write_text(json.dumps(small), "utf-8")
    current = CurrentJob({**specification, "directory": str(directory)})
    become(current)
    run_recipe(current, recipe, current.specification)


def _keep_files(directory: Path, report: Path) -> int:
    """Store what the recipe left in its working directory."""
    try:
        if any(os.scandir(directory / "work")):
            from hiss.job_files import keep_files

            keep_files(job(), directory / "work")
    except BaseException as error:
        _report(report, f"the files that it left could not be stored: {_sentence(error)}")
        return 1
    return 0


def _sentence(error: BaseException) -> str:
    if isinstance(error, HissError):
        return f"{type(error).__name__}: {error}"
    sentence = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, NameError):
        sentence += " (a function recipe brings its own source only: import inside of it)"
    return sentence


def _report(report: Path, sentence: str) -> None:
    report.write_text(sentence[: limits.JOB_ERROR_CHARS_MAX], "utf-8", "replace")


# ----------------------------------------------------------------------------------------------------------- forked


def prepare() -> None:
    """Done once in a process that waits for its order. What each attempt does first is rehearsed: memory that is shared
    with the zygote is copied when it is first written to, which would take a job a millisecond or two."""
    sys.modules["numpy"].random.seed()  # or all jobs would draw the same numbers
    with open(os.devnull, "w", encoding="utf-8") as null:
        json.dump(json.loads(json.dumps({"variables": {"n": 1}, "environment": dict(os.environ)})), null)
        _unbuffered(null.fileno(), "strict").write("")
    own_data_bytes()
    os.listdir("/proc/self/fd")
    exec(compile("import time", "rehearsal", "exec"), {})


def run_forked(order: Mapping[str, Any], specification_fd: int, output_fd: int) -> int:
    """Run an attempt in this process, which a keeper has just forked. Returns the exit status."""
    _take_over(output_fd, specification_fd)
    directory = Path(order["directory"])
    with open(specification_fd, encoding="utf-8") as file:
        file.seek(0)
        told = json.load(file)
    specification, environment = told["specification"], told["environment"]
    os.environ.update(environment)
    os.environ |= {"HISS_JOB": str(directory / "job.json"), "TMPDIR": str(directory / "tmp")}
    os.mkdir(directory / "tmp", 0o700)
    os.chdir(directory / "work")
    sys.path[0] = str(directory / "work")
    _limit(order["memory_bytes"], order["work_bytes"])
    if order["cores"] > 1:
        return _afresh(specification, directory, order["cores"])
    status = run_attempt(specification, directory)
    _exit_functions()
    return status


def _take_over(output_fd: int, specification_fd: int) -> None:
    """Print into `output_fd`, read nothing, and hold no other descriptor than the specification's."""
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, name in ((null, 0), (output_fd, 1), (output_fd, 2)):
        os.dup2(descriptor, name)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != specification_fd:
            with contextlib.suppress(OSError):  # the one by which they were listed
                os.close(descriptor)
    sys.stdout, sys.stderr = _unbuffered(1, "strict"), _unbuffered(2, "backslashreplace")


def _unbuffered(descriptor: int, errors: str) -> io.TextIOWrapper:
    """As `python -u` makes them."""
    raw: Any = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, "utf-8", errors, write_through=True)


def _limit(memory_bytes: int, work_bytes: int) -> None:
    """Bounds that the kernel keeps for each process of the attempt; the keeper watches their sum.

    Memory is bounded by its data segment (RLIMIT_DATA: what is private and may be written), not by its address space,
    of which Go, Java, LLVM and thread stacks set aside far more than they ever touch.
    """
    _lower(resource.RLIMIT_DATA, memory_bytes + own_data_bytes())
    _lower(resource.RLIMIT_FSIZE, work_bytes)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _afresh(specification: Mapping[str, Any], directory: Path, cores: int) -> int:
    """Run it in a fresh interpreter: libraries learn how many threads they may have when they are loaded."""
    os.environ.update(dict.fromkeys(THREAD_COUNTS, str(cores)))
    source = os.memfd_create("hiss-job")
    with open(os.dup(source), "w", encoding="utf-8") as file:
        json.dump({"specification": specification, "directory": str(directory)}, file)
    os.lseek(source, 0, os.SEEK_SET)
    os.dup2(source, 0)
    os.close(source)
    os.execv(sys.executable, [sys.executable, "-m", "hiss.job_process"])


def _exit_functions() -> None:
    """What an interpreter does at its end, without taking it apart: the process ends anyway."""
    getattr(threading, "_shutdown")()  # noqa: B009 - waits for threads that are no daemons
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()


def main() -> int:
    if len(sys.argv) > 1:
        return _zygote(int(sys.argv[1]))
    told = json.load(sys.stdin.buffer)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return run_attempt(told["specification"], Path(told["directory"]))


def _zygote(control_fd: int) -> int:
    """Import what jobs need, then fork them."""
    import numpy

    import hiss.client
    import hiss.job_files
    import hiss.meow_bridge.packages
    import hiss.reader
    import hiss.recipe_run
    import hiss.transport.remote
    import hiss.writer  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    numpy.random.seed()
    from hiss.meow_bridge.zygote import serve

    return serve(control_fd, run_forked, prepare)


if __name__ == "__main__":
    from hiss.job_process import main as run  # the module that others import, so that there is one of each thing

    sys.exit(run())
