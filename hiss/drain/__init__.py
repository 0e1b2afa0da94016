"""Moving final data to permanent storage, NeXus/HDF5 files or Zarr, and checking it there."""

from hiss.drain.draining import drain
from hiss.drain.report import Damage, DrainedStream, DrainReport, Verification, VerifiedStream
from hiss.drain.verification import verify_file, verify_streams

__all__ = [
    "Damage",
    "DrainReport",
    "DrainedStream",
    "Verification",
    "VerifiedStream",
    "drain",
    "verify_file",
    "verify_streams",
]
