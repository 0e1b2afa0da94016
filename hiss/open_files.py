"""Whether somebody has a file open for writing, asked of the kernel; and which file systems tell of what is closed.

A read lease (`fcntl(2)`, F_SETLEASE) is granted only where nobody has the file open for writing; it is given back at
once. Callable from any thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path
from typing import Final

_REMOTE: Final = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "davfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "wekafs",
    ]
)


def is_being_written(path: str) -> bool | None:
    """None where the kernel does not tell: another user's file, a file system without leases."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # ignored by default, should a writer come just now
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK) else None
    finally:
        os.close(file)
    return False


def is_remote(directory: str) -> bool:
    """Whether other hosts may write below a directory without this one's kernel telling of it.

    By the type of the file system that is mounted there (`/proc/self/mountinfo`); all of FUSE counts as remote.
    """
    place, best = os.path.realpath(directory), ("", "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        mounted = fields.split()[4].encode().decode("unicode_escape")
        if (place == mounted or place.startswith(mounted.rstrip("/") + "/")) and len(mounted) >= len(best[0]):
            best = (mounted, rest.split()[0])
    return best[1] in _REMOTE or best[1].startswith("fuse")
