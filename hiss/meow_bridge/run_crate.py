"""A provenance graph as a Process Run Crate, a Workflow Run RO-Crate: https://w3id.org/ro/wfrun/process/0.5

Each job, and each use of a kernel, is a `CreateAction` whose `instrument` is the recipe or kernel, a
`SoftwareApplication` named by the hash of its content; its `object`s and `result`s are the versions of streams, by
their ids in the buffer, with the digests. The crate holds `ro-crate-metadata.json` and the graph as a page to look at.
Needs the package `rocrate`. Any thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hiss import __version__
from hiss.errors import AlreadyExists, MissingExtra
from hiss.workflow import ProvenanceGraph, ProvenanceNode

PROFILE: Final = "https://w3id.org/ro/wfrun/process/0.5"
_ACTIVE: Final = ("job", "kernel")
_STATUS: Final = {"done": "CompletedActionStatus", "running": "ActiveActionStatus", "queued": "PotentialActionStatus"}
_PAGE: Final = "provenance.html"


def write_run_crate(graph: ProvenanceGraph, title: str, page: str, license: str, directory: Path) -> None:
    """Write the crate into a directory that is made for it.

    Raises
    ------
    AlreadyExists
        There is something at `directory`.
    MissingExtra
        rocrate is absent.
    """
    try:
        from rocrate.model.contextentity import ContextEntity
        from rocrate.rocrate import ROCrate
    except ImportError:
        raise MissingExtra("RO-Crates need the package rocrate: pip install 'hiss[provenance]'") from None
    if directory.exists():
        raise AlreadyExists(f"{directory} is there already; a crate is a directory of its own", path=str(directory))
    crate = ROCrate()
    crate.name = title
    crate.description = (
        f"What led to it and what it led to: {len(graph.nodes)} streams, jobs and kernels, from hiss {__version__}."
    )
    crate.license = license

    def entity(id: str, **properties: Any) -> Any:
        return crate.dereference(id) or crate.add(ContextEntity(crate, id, properties=properties))

    profile = entity(PROFILE, **{"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"})
    crate.root_dataset["conformsTo"] = [profile]
    made = {node.id: entity(_id(node), **_properties(node)) for node in graph.nodes}
    for node in graph.nodes:
        if node.kind in _ACTIVE:
            _act(made, node, graph, entity)
    crate.root_dataset["mentions"] = [made[node.id] for node in graph.nodes if node.kind in _ACTIVE]
    crate.root_dataset["about"] = [made[graph.nodes[0].id]]
    directory.mkdir(parents=True)
    (directory / _PAGE).write_text(page, "utf-8")
    crate.add_file(
        directory / _PAGE,
        _PAGE,
        properties={"name": "The graph, as a page for a browser", "encodingFormat": "text/html"},
    )
    crate.write(directory)


def _act(made: dict[str, Any], node: ProvenanceNode, graph: ProvenanceGraph, entity: Any) -> None:
    action, attrs = made[node.id], node.attrs
    action["object"] = [made[cause] for cause, effect, _ in graph.edges if effect == node.id]
    action["result"] = [made[effect] for cause, effect, _ in graph.edges if cause == node.id]
    name, hash = (
        (attrs.get("recipe"), attrs.get("recipe hash")) if node.kind == "job" else (node.label, attrs.get("hash"))
    )
    application = {"@type": "SoftwareApplication", "name": name, "version": hash, "identifier": hash}
    if attrs.get("source"):
        application["description"] = attrs["source"]
    action["instrument"] = entity(f"#software-{hash}", **application)
    if attrs.get("host"):
        action["agent"] = entity(f"#host-{attrs['host']}", **{"@type": "Organization", "name": attrs["host"]})
    values = attrs.get("variables" if node.kind == "job" else "parameters") or {}
    action["object"] += [
        entity(f"{_id(node)}-{key}", **{"@type": "PropertyValue", "name": key, "value": _plain(value)})
        for key, value in values.items()
    ]


def _id(node: ProvenanceNode) -> str:
    """Of an entity of ours within the crate."""
    if node.kind in ("stream", "file"):
        return f"urn:hiss:{node.attrs['id']}" if "id" in node.attrs else f"urn:hiss:{node.id}"
    return f"#{node.id}"


def _properties(node: ProvenanceNode) -> dict[str, Any]:
    attrs = node.attrs
    if node.kind in _ACTIVE:
        times = {"startTime": attrs.get("started"), "endTime": attrs.get("finished")}
        status = _STATUS.get(str(attrs.get("state", "done")), "FailedActionStatus")
        return {
            "@type": "CreateAction",
            "name": node.label,
            "actionStatus": f"http://schema.org/{status}",
            **{name: value for name, value in times.items() if value},
            **({"error": attrs["error"]} if attrs.get("error") else {}),
        }
    if node.kind == "instrument":
        return {"@type": "Thing", "name": node.label, "description": "The instrument that the data came from"}
    told = {"version": attrs.get("version"), "identifier": attrs.get("digest"), "dateCreated": attrs.get("created")}
    known = {name: _plain(value) for name, value in told.items() if value}
    return {"@type": "CreativeWork", "name": node.label, **known}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else str(value)
