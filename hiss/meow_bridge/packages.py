"""What a recipe says that it needs, against what is installed where it runs.

A requirement is a distribution's name with bounds on its version, such as `scipy>=1.13,<2`; versions are compared by
the numbers that they begin with (`1.13.0rc1` counts as 1.13.0). Pure but for the look at what is installed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any, Final

from hiss.errors import MissingExtra

_BOUND: Final = re.compile(r"(==|!=|>=|<=|>|<)\s*(\d+(?:\.\d+)*)")
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def check_packages(recipe: str, packages: Iterable[str]) -> None:
    """Raise `MissingExtra` with the line that installs what is not there."""
    lacking = [(package, found) for package in packages if (found := _fault(package))]
    if lacking:
        line = " ".join(f"'{package}'" for package, _ in lacking)
        raise MissingExtra(f"recipe {recipe!r} needs {'; '.join(found for _, found in lacking)}: pip install {line}")


def _fault(package: str) -> str:
    name = re.split(r"[\s=!<>]", package, maxsplit=1)[0]
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{package}, which is not installed"
    have = _numbers(version)
    for sign, wanted in _BOUND.findall(package):
        want = _numbers(wanted)
        width = max(len(have), len(want))
        if not _COMPARE[sign](_padded(have, width), _padded(want, width)):
            return f"{package}, and {version} is installed"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", version.rpartition("!")[2])
    return tuple(map(int, found[0].split("."))) if found else ()


def _padded(numbers: tuple[int, ...], width: int) -> tuple[int, ...]:
    return numbers + (0,) * (width - len(numbers))
