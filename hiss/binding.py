"""From kernels with parameters as users give them to stages that run, by way of the record that provenance keeps.

`record` resolves each parameter once, when the kernel is attached: arrays are stored by digest, a stream or its
reduction is read in the version that is there and its value stored likewise. `stage` builds what the compiler takes
from the record alone, so that a restart or a replay gets the same kernel with the same parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss.blocks import Catalog
from hiss.errors import ParameterMismatch
from hiss.kernels import ResolvedStage, check
from hiss.model import (
    ArrayParam,
    BoundKernel,
    ColumnParam,
    KernelDef,
    Param,
    ScalarParam,
    StageInfo,
    StreamInfo,
    StreamParam,
)

ReadParam = Callable[[StreamParam], tuple[StreamInfo, npt.NDArray[Any]]]


def record(bound: BoundKernel, catalog: Catalog, read: ReadParam) -> StageInfo:
    """Check a kernel, resolve its parameters and store their arrays.

    Raises
    ------
    KernelRejected
        The source is not in the language.
    ParameterMismatch
        A name that the kernel does not have.
    """
    checked = check(bound.kernel)
    unknown = sorted(set(bound.params) - set(checked.parameters))
    if unknown:
        raise ParameterMismatch(
            f"kernel {bound.kernel.name!r} has no parameter {', '.join(unknown)}; "
            f"it has {', '.join(checked.parameters)}"
        )
    params = {name: _record_param(param, catalog, read) for name, param in bound.params.items()}
    kernel = bound.kernel
    return StageInfo(
        kernel.name,
        kernel.kind,
        checked.hash,
        kernel.source,
        params,
        bound.budget_s,
        every=bound.every,
        feedback_every=bound.feedback_every,
    )


def stage(info: StageInfo, catalog: Catalog) -> ResolvedStage:
    """What the compiler takes, from the record."""
    params = {name: _load_param(entry, catalog) for name, entry in info.params.items()}
    return ResolvedStage(KernelDef(info.name, info.kind, info.source), params, info.budget_s)


def _record_param(param: Param, catalog: Catalog, read: ReadParam) -> Mapping[str, Any]:
    match param:
        case ScalarParam(value, dtype):
            return {"scalar": value, "dtype": dtype}
        case ColumnParam(name):
            return {"column": name}
        case ArrayParam(array):
            return _record_array(array, catalog)
        case StreamParam(path, _, reduce):
            info, array = read(param)
            source = {"stream": path, "version": info.version, "id": info.id, "reduce": reduce}
            return source | _record_array(array, catalog)


def _record_array(array: npt.NDArray[Any], catalog: Catalog) -> dict[str, Any]:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {"array": catalog.put_array(little), "dtype": little.dtype.str, "shape": list(little.shape)}


def _load_param(entry: Mapping[str, Any], catalog: Catalog) -> npt.NDArray[Any] | ScalarParam | ColumnParam:
    if "column" in entry:
        return ColumnParam(entry["column"])
    if "scalar" in entry:
        return ScalarParam(entry["scalar"], entry["dtype"])
    return catalog.array(entry["array"])
