"""What `hiss demo --keep` prints to paste: a producer, an analyst's kernel, the command line. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snippet:
    where: str
    text: str


def snippets(address: str) -> tuple[Snippet, Snippet, Snippet]:
    """Three snippets for the buffer at an address; the second one reads what the first one wrote."""
    producer = f'''\
import hiss, numpy as np

buf = hiss.connect("{address}")
mine = buf.collection("demo/mine")
with mine.create_stream("frames", dtype="uint16", shape=(256, 256), ack="durable", new_version=True) as s:
    for i in range(100):
        s.append(np.random.poisson(50, (256, 256)).astype("uint16"))
print(s.report())
'''
    analyst = f'''\
import hiss, numpy as np

@hiss.kernel
def bright(frame, threshold=70):
    return np.count_nonzero(frame >= threshold)

buf = hiss.connect("{address}")
print(buf["demo/mine/frames"].read(kernels=[bright.bind(threshold=80)]))
'''
    shell = f"""\
export HISS_ADDRESS={address}
hiss ls demo/scan1
hiss stat demo/scan1/proj
hiss prov demo/scan1/slice.png
hiss job ls
"""
    return (
        Snippet("A producer, for Python", producer),
        Snippet("An analyst's kernel, compiled, on the way out: for a notebook or a file", analyst),
        Snippet("The command line, for a shell", shell),
    )
