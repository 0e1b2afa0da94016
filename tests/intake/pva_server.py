"""A source of images for tests: pvapy's own server, told by lines on standard input. `python pva_server.py PV`.

`image FIRST LAST DTYPE ROWS COLUMNS [NAME=NUMBER]` publishes images with such `uniqueId`s, as fast as it can; `end`
ends. The content of an image follows from its `uniqueId`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def content(unique_id: int, dtype: str, rows: int, columns: int) -> Any:
    return (np.arange(rows * columns) * 3 + unique_id).astype(dtype).reshape(rows, columns)


def published(unique_id: int, array: Any, attributes: dict[str, float]) -> Any:
    import pvaccess
    from pvapy.utility.adImageUtility import AdImageUtility

    image = AdImageUtility.generateNtNdArray2D(unique_id, array)
    seconds, nanoseconds = 1_700_000_000 + unique_id, 250_000_000
    image["dataTimeStamp"] = {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0}
    made = [pvaccess.NtAttribute("ColorMode", pvaccess.PvInt(0))]
    made += [pvaccess.NtAttribute(name, pvaccess.PvDouble(value)) for name, value in attributes.items()]
    made.append(pvaccess.NtAttribute("Sample", pvaccess.PvString(f"foam {unique_id}")))
    image["attribute"] = made
    return image


def main(pv: str) -> None:
    import pvaccess

    server = None
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "end":
            break
        first, last, dtype, rows, columns = int(words[1]), int(words[2]), words[3], int(words[4]), int(words[5])
        attributes = {name: float(value) for name, _, value in (word.partition("=") for word in words[6:])}
        for unique_id in range(first, last + 1):
            image = published(unique_id, content(unique_id, dtype, rows, columns), attributes)
            if server is None:
                server = pvaccess.PvaServer(pv, image)
            else:
                server.update(pv, image)
        print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
