"""The errors of hiss: one tree, the same in the server, over the wire, and in the client.

    HissError
    ├── InvalidInput (ValueError)            what was asked makes no sense, whatever the state of the buffer
    │   ├── InvalidName                      a collection, stream, kernel, pattern or recipe name
    │   ├── SpecMismatch                     a block whose dtype, shape or columns are not the stream's
    │   ├── BlockTooLarge                    more bytes than `limits.BLOCK_BYTES_MAX`
    │   ├── DigestMismatch                   the bytes that arrived are not the bytes that were sent
    │   ├── KernelRejected (SyntaxError)     source outside the kernel language, with line and column
    │   ├── ParameterMismatch                kernel parameters that do not fit the kernel or the stream
    │   ├── InvalidPattern                   a pattern that makes no sense
    │   ├── InvalidRecipe                    a recipe that holds no runnable code
    │   └── LimitExceeded                    any other bound of `limits.py`
    ├── NotFound (LookupError)
    │   ├── CollectionNotFound, StreamNotFound, KernelNotFound, PatternNotFound, RecipeNotFound, JobNotFound
    │   ├── ReservationNotFound, TokenNotFound
    │   ├── BlockMissing (IndexError)        no such block in the stream; says why it is not there
    │   └── StreamEvicted                    the stream has left the log; says where it is archived
    ├── Conflict                             what was asked does not fit the present state
    │   ├── AlreadyExists (FileExistsError)
    │   ├── BlockConflict                    the same index with other bytes
    │   ├── CollectionSealed                 a new stream for a collection that is sealed
    │   ├── StreamFinal                      a write to a stream that is sealed or aborted
    │   ├── StreamNotFinal                   something that needs a sealed or aborted stream
    │   └── ProducerFenced                   another producer took the stream over
    ├── Unavailable (ConnectionError)        try again later
    │   ├── ServerUnreachable
    │   ├── PortInUse
    │   ├── DataDirectoryLocked
    │   ├── ArchiveUnreachable           an evicted stream whose archive cannot be read now; says where it is
    │   └── Stopping                         the server is shutting down
    ├── Exhausted                            a resource has run out; back-pressure came first
    │   ├── SpaceExhausted (OSError)         the disk, with its path
    │   ├── TooManyStreams                   more open calls than the server admits
    │   └── DeadlineExceeded (TimeoutError)
    ├── Damaged                              what is on disk is not what was written
    │   ├── BlockDamaged                     a block whose digest fails; never served
    │   ├── SegmentDamaged                   a record in the middle of a segment that cannot be read
    │   └── CatalogDamaged
    ├── PermissionRefused (PermissionError)  no token, a wrong one, or one without the right
    ├── JobFailed (RuntimeError)             a job's attempt ended badly; carries the end of its output
    └── MissingExtra (ImportError)           an optional package is absent; carries the line that installs it

A message says what, where, expected and found, and what to do. `details` holds the same as machine-readable
strings. Over the wire travel the class's name, the message and the details (`transport`), so that the client raises
the same class: `from_name` finds it.
"""

from __future__ import annotations

from collections.abc import Mapping


class HissError(Exception):
    """Base of every error that hiss raises on purpose.

    Parameters
    ----------
    message : str
        What, where, expected and found, and what to do.
    **details : str or int
        The same for machines; sent over the wire as strings.
    """

    def __init__(self, message: str = "", **details: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, str] = {key: str(value) for key, value in details.items()}

    def __str__(self) -> str:
        return self.message


class InvalidInput(HissError, ValueError):
    """What was asked makes no sense, whatever the state of the buffer."""


class InvalidName(InvalidInput):
    """A name that is not a path of parts of letters, digits, `_`, `-`, `.`."""


class SpecMismatch(InvalidInput):
    """A block whose dtype, shape or columns are not those of its stream."""


class BlockTooLarge(InvalidInput):
    """A block above the largest size that the buffer takes."""


class DigestMismatch(InvalidInput):
    """Bytes that arrived are not the bytes whose digest was sent with them."""


class KernelRejected(InvalidInput, SyntaxError):
    """Source outside the kernel language. `details`: `line`, `column`, `source_line` where known."""


class ParameterMismatch(InvalidInput):
    """Kernel parameters that do not fit the kernel or the stream."""


class InvalidPattern(InvalidInput):
    """A pattern that makes no sense."""


class InvalidRecipe(InvalidInput):
    """A recipe that holds no runnable code."""


class LimitExceeded(InvalidInput):
    """A bound of `limits.py`. `details`: `limit`, `allowed`, `found`."""


class NotFound(HissError, LookupError):
    """There is no such thing."""


class CollectionNotFound(NotFound):
    """No collection of that path."""


class StreamNotFound(NotFound):
    """No stream of that path, or not that version."""


class KernelNotFound(NotFound):
    """No kernel of that name or hash."""


class PatternNotFound(NotFound):
    """No pattern of that name."""


class RecipeNotFound(NotFound):
    """No recipe of that name."""


class JobNotFound(NotFound):
    """No job of that id."""


class BlockMissing(NotFound, IndexError):
    """The stream holds no block of that index; `details["reason"]` says why."""


class ReservationNotFound(NotFound):
    """No reservation of that id, or it has run out."""


class TokenNotFound(NotFound):
    """No token of that id was handed out, or it was revoked."""


class StreamEvicted(NotFound):
    """The stream's blocks have left the log; `details["archive"]` says where they are, '' where nowhere."""


class Conflict(HissError):
    """What was asked does not fit the present state."""


class AlreadyExists(Conflict, FileExistsError):
    """The name is taken."""


class BlockConflict(Conflict):
    """The same index was sent before, with other bytes."""


class CollectionSealed(Conflict):
    """A new stream for a collection that is sealed."""


class StreamFinal(Conflict):
    """A write to a stream that is sealed or aborted."""


class StreamNotFinal(Conflict):
    """The stream must be sealed or aborted first."""


class ProducerFenced(Conflict):
    """Another producer took the stream over; this one may not write any more."""


class Unavailable(HissError, ConnectionError):
    """Not now; the same call may succeed later."""


class ServerUnreachable(Unavailable):
    """Nothing answers at the address."""


class PortInUse(Unavailable):
    """Another program listens at the port."""


class DataDirectoryLocked(Unavailable):
    """Another process has the data directory open."""


class ArchiveUnreachable(Unavailable):
    """The stream was evicted, and its archive cannot be read now; `details["archive"]` says where it is."""


class Stopping(Unavailable):
    """The server is shutting down."""


class Exhausted(HissError):
    """A resource has run out; back-pressure came first."""


class SpaceExhausted(Exhausted, OSError):
    """No space left for the log."""


class TooManyStreams(Exhausted):
    """More long-lived calls than the server admits at once."""


class DeadlineExceeded(Exhausted, TimeoutError):
    """The call took longer than its caller wanted to wait."""


class Damaged(HissError):
    """What is on disk is not what was written."""


class BlockDamaged(Damaged):
    """A block whose bytes do not have its digest; it is never served."""


class SegmentDamaged(Damaged):
    """A record in the middle of a segment that cannot be read."""


class CatalogDamaged(Damaged):
    """The catalog's database cannot be read."""


class PermissionRefused(HissError, PermissionError):
    """No token, a wrong one, or one without the right that is needed."""


class JobFailed(HissError, RuntimeError):
    """A job's attempt ended badly."""


class MissingExtra(HissError, ImportError):
    """An optional package is absent; the message carries the line that installs it."""


class KernelWarning(UserWarning):
    """A line of a kernel is allowed, and may not mean what it says on the stream that it is attached to."""


def from_name(name: str, message: str, details: Mapping[str, str]) -> HissError:
    """Rebuild an error that travelled: the class called `name`, or `HissError` for one that is not known here."""
    error = _classes(HissError).get(name, HissError)(message)
    error.details.update(details)
    return error


def _classes(base: type[HissError]) -> dict[str, type[HissError]]:
    found = {base.__name__: base}
    for child in base.__subclasses__():
        found |= _classes(child)
    return found
