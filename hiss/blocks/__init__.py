"""Safe blocks: arena, segment log, index, recovery and catalog of one data directory. Knows nothing of kernels or the
network.
"""

from hiss.blocks.arena import Arena, Region
from hiss.blocks.catalog import Catalog
from hiss.blocks.index import StreamIndex
from hiss.blocks.recovery import Damage, RecoveryReport
from hiss.blocks.storage import LogUsage, Storage, StorageOptions

__all__ = [
    "Arena",
    "Catalog",
    "Damage",
    "LogUsage",
    "RecoveryReport",
    "Region",
    "Storage",
    "StorageOptions",
    "StreamIndex",
]
