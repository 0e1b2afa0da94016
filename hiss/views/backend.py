"""xarray's back end `hiss`: `xr.open_dataset("hiss://localhost/beamtime42/scan7", engine="hiss")`.

xarray finds it by its entry point, and takes it by itself for `hiss://`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from hiss.views.dataset import dataset
from hiss.views.source import SCHEME, Source, parse_url


class HissBackend(BackendEntrypoint):
    """Opens collections and streams of a running buffer."""

    description = "Collections and streams of a hiss buffer"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "token")

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, token: str | None = None
    ) -> xr.Dataset:
        """
        Parameters
        ----------
        filename_or_obj : str
            `hiss://HOST[:PORT]/COLLECTION` or `hiss://HOST[:PORT]/COLLECTION/STREAM`.
        token : str, optional
            By default as for `hiss.connect`.

        Raises
        ------
        InvalidInput, NotFound, ServerUnreachable, PermissionRefused
        """
        address, path = parse_url(str(filename_or_obj))
        found = dataset(Source.at(address, token), path)
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return found.drop_vars(dropped, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        return str(filename_or_obj).startswith(f"{SCHEME}://")
