"""A provenance graph as W3C PROV (https://www.w3.org/TR/prov-dm/), in PROV-JSON. Needs the package `prov`. Any thread.

Streams, files and the instrument's data are entities, jobs and the uses of kernels activities; the instrument and the
machines that jobs ran on are agents; a job's recipe is the plan that it followed.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any, Final

from hiss.errors import MissingExtra
from hiss.workflow import ProvenanceGraph, ProvenanceNode

_NAMESPACE: Final = "urn:hiss:"


def prov_json(graph: ProvenanceGraph) -> str:
    """PROV-JSON (https://www.w3.org/submissions/prov-json/). Raises `MissingExtra`."""
    try:
        from prov.model import ProvDocument
    except ImportError:
        raise MissingExtra("PROV needs the package prov, which is absent: pip install 'hiss[provenance]'") from None
    document = ProvDocument()
    document.add_namespace("hiss", _NAMESPACE)
    made = {node.id: _record(document, node) for node in graph.nodes}
    kinds = {node.id: node.kind for node in graph.nodes}
    for cause, effect, role in graph.edges:
        _relate(document, (made[cause], kinds[cause]), (made[effect], kinds[effect]), role)
    return str(document.serialize(format="json", indent=2))


def _name(id: str) -> str:
    """A node's id as a name in our namespace; what a local name may not hold is written as `_` and its code."""
    return "hiss:" + "".join(c if c.isascii() and (c.isalnum() or c in "-._/") else f"_{ord(c):x}_" for c in id)


def _record(document: Any, node: ProvenanceNode) -> Any:
    attrs = {
        "prov:label": node.label,
        "prov:type": f"hiss:{node.kind}",
        **{f"hiss:{_word(name)}": _text(value) for name, value in node.attrs.items()},
    }
    if node.kind == "instrument":
        document.agent(_name(f"agent:{node.id}"), {**attrs, "prov:type": "prov:Agent"})
        entity = document.entity(_name(node.id), attrs)
        document.wasAttributedTo(entity, _name(f"agent:{node.id}"))
        return entity
    if node.kind == "kernel":
        return document.activity(_name(node.id), None, None, attrs)
    if node.kind != "job":
        return document.entity(_name(node.id), attrs)
    job = document.activity(_name(node.id), _time(node.attrs, "started"), _time(node.attrs, "finished"), attrs)
    plan = document.entity(
        _name(f"recipe:{node.attrs.get('recipe hash', '')}"),
        {
            "prov:type": "prov:Plan",
            "prov:label": str(node.attrs.get("recipe", "")),
            "hiss:hash": str(node.attrs.get("recipe hash", "")),
        },
    )
    document.agent(_name(f"host:{node.attrs.get('host', '')}"), {"prov:type": "prov:SoftwareAgent"})
    document.wasAssociatedWith(job, _name(f"host:{node.attrs.get('host', '')}"), plan)
    return job


def _relate(document: Any, cause: tuple[Any, str], effect: tuple[Any, str], role: str) -> None:
    active = ("job", "kernel")
    told = {"prov:role": role}
    if cause[1] not in active and effect[1] in active:
        document.used(effect[0], cause[0], other_attributes=told)
    elif cause[1] in active and effect[1] not in active:
        document.wasGeneratedBy(effect[0], cause[0], other_attributes=told)
    elif cause[1] in active:
        document.wasInformedBy(effect[0], cause[0], other_attributes=told)
    else:
        document.wasDerivedFrom(effect[0], cause[0], other_attributes=told)


def _word(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _text(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value, default=str)


def _time(attrs: Mapping[str, Any], name: str) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(str(attrs[name])) if name in attrs else None
