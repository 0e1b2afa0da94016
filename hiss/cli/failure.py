"""How the command line fails: one message on stderr, no traceback, and an exit status that says what kind.

0    done
1    another error, or a check of `hiss doctor` or a promise of `hiss demo` that does not hold
2    wrong usage, or input that makes no sense (InvalidInput)
3    no such collection, stream, block, kernel, pattern, recipe or job (NotFound)
4    it does not fit the present state (Conflict): exists already, sealed, still open
5    no server, or not now (Unavailable)
6    disk, streams or time have run out (Exhausted)
7    what is on disk is not what was written (Damaged)
8    no token, or one without the right (PermissionRefused)
9    a job failed (JobFailed)
10   an optional package is missing (MissingExtra)
130  interrupted
"""

from __future__ import annotations

import json
from typing import Final

import click

from hiss.errors import (
    Conflict,
    Damaged,
    Exhausted,
    HissError,
    InvalidInput,
    JobFailed,
    MissingExtra,
    NotFound,
    PermissionRefused,
    Unavailable,
)

EXIT_STATUS: Final[tuple[tuple[type[HissError], int], ...]] = (
    (InvalidInput, 2),
    (NotFound, 3),
    (Conflict, 4),
    (Unavailable, 5),
    (Exhausted, 6),
    (Damaged, 7),
    (PermissionRefused, 8),
    (JobFailed, 9),
    (MissingExtra, 10),
)
INTERRUPTED: Final = 130


def exit_status(error: HissError) -> int:
    """The status for an error's kind; 1 for a bare `HissError`."""
    return next((status for kind, status in EXIT_STATUS if isinstance(error, kind)), 1)


def say_failure(error: HissError, *, as_json: bool) -> None:
    """Print the error on stderr."""
    if as_json:
        document = {"error": type(error).__name__, "message": error.message, "details": error.details}
        click.echo(json.dumps(document, ensure_ascii=False), err=True)
    else:
        click.echo(f"{click.style('error', fg='red')}: {error.message}", err=True)
