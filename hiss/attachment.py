"""Which kernels a stream gets from its collection, and what is said where they do not fit it. Pure; any thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from hiss import limits
from hiss.errors import InvalidInput, LimitExceeded
from hiss.model import Attachment, KernelKind, StageInfo


def for_stream(attachments: Sequence[Attachment], name: str) -> tuple[Attachment, ...]:
    """Those whose glob matches, in their order. Where several are of one kernel's name, the last of them counts."""
    last = {one.stage.name: one for one in attachments if one.matches(name)}
    return tuple(one for one in attachments if last.get(one.stage.name) is one)


def stages(attachments: Sequence[Attachment], *, shadow: bool) -> tuple[StageInfo, ...]:
    """The stages, or the shadows, that a stream records of them; reductions behind all others."""
    found = [replace(one.stage, attached=True) for one in attachments if one.shadow is shadow]
    return tuple(sorted(found, key=lambda stage: stage.kind is KernelKind.REDUCE))


@contextmanager
def fitting(stream: str, collection: str, attachments: Sequence[Attachment]) -> Iterator[None]:
    """Around what checks and compiles attached kernels for a stream: its errors name both."""
    if len(attachments) > limits.PIPELINE_STAGES_MAX:
        raise LimitExceeded(
            f"stream {stream}: {len(attachments)} kernels attached to collection {collection} match it, allowed are "
            f"{limits.PIPELINE_STAGES_MAX}; detach some",
            limit="PIPELINE_STAGES_MAX",
        )
    try:
        yield
    except InvalidInput as error:
        names = ", ".join(f"{one.stage.name!r} (streams {one.streams!r})" for one in attachments)
        raise type(error)(
            f"stream {stream} gets the kernels that are attached to collection {collection}: {names}, and they do not "
            f"fit it: {error}; detach what is not meant for it, or name kernels of its own",
            **error.details,
        ) from error
