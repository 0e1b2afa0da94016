"""Whether the packages of the extra `http` are here, without importing them."""

from __future__ import annotations

import importlib.util
from typing import Final

INSTALL: Final = "pip install 'hiss[http]'"
_PACKAGES: Final = ("starlette", "uvicorn", "prometheus_client", "PIL")


def missing() -> tuple[str, ...]:
    """The packages that are not here."""
    return tuple(name for name in _PACKAGES if importlib.util.find_spec(name) is None)
