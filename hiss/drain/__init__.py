"""Moving final data to permanent storage: NeXus/HDF5 files."""

from hiss.drain.nexus import drain
from hiss.drain.report import DrainedStream, DrainReport

__all__ = ["DrainReport", "DrainedStream", "drain"]
