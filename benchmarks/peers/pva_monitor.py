"""Counts the updates of a pvAccess channel that arrive: `pva_monitor.py NAME`. For each line of input it says, when no
more have come for a moment, how many came since the last, and when the last of them did."""

from __future__ import annotations

import sys
import threading
import time

import pvaccess

_MOMENT_S = 0.1
arrived, last_s = 0, 0.0


def take(value: pvaccess.PvObject) -> None:
    global arrived, last_s
    arrived, last_s = arrived + (len(value["data"]) > 0), time.monotonic()


channel = pvaccess.Channel(sys.argv[1])
channel.setMonitorMaxQueueLength(0)
channel.monitor(take, "")
print("ready", flush=True)
told = 0
for _ in sys.stdin:
    seen = -1
    while arrived != seen:  # what is on its way still comes
        seen = arrived
        threading.Event().wait(_MOMENT_S)
    print(seen - told, last_s or time.monotonic(), flush=True)
    told = seen
channel.stopMonitor()
