"""Safe blocks: arena, segment log, index, recovery and catalog of one data directory. Knows nothing of kernels or the
network.
"""

from hiss.blocks.arena import Arena, Region
from hiss.blocks.catalog import Catalog
from hiss.blocks.index import StreamIndex
from hiss.blocks.record import record_bytes
from hiss.blocks.recovery import Damage, RecoveryReport
from hiss.blocks.reservations import Charge, Reservations, Room
from hiss.blocks.storage import LogUsage, Storage, StorageOptions

__all__ = [
    "Arena",
    "Catalog",
    "Charge",
    "Damage",
    "LogUsage",
    "RecoveryReport",
    "Region",
    "Reservations",
    "Room",
    "Storage",
    "StorageOptions",
    "StreamIndex",
    "record_bytes",
]
