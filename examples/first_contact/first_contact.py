"""The first hour with hiss, in one file: a scan with kernels in transit, reading it, and a rule that starts a notebook.

Start a buffer in another shell (`hiss serve`), then run this file in its own folder:

    python first_contact.py
"""

import time

import numpy as np

import hiss

SHAPE = (2160, 2560)


@hiss.kernel
def flatfield(frame, dark, flat):
    """Transmission, as minus its logarithm."""
    t = (frame.astype(np.float32) - dark) / np.maximum(flat - dark, 1)  # unsigned integers would wrap
    return -np.log(np.clip(t, 1e-6, None))


@hiss.filter  # False vetoes the block
def enough(frame, mask, threshold=20, least=50):
    return np.count_nonzero((frame >= threshold) & (mask == 0)) >= least


@hiss.kernel
def bin2x2(frame):
    return frame[::2, ::2] + frame[1::2, ::2] + frame[::2, 1::2] + frame[1::2, 1::2]


def exposures(count, level, seed):
    """Frames as a camera gives them: uint16 counts with photon noise."""
    rng = np.random.default_rng(seed)
    return [rng.poisson(level, SHAPE).astype("uint16") for _ in range(count)]


buf = hiss.connect("localhost:5001")  # or hiss.open("path"): the same in this process, no server
scan = buf.collection("beamtime42/scan7", attrs={"sample": "foam 3"})

# the rule: whenever a stream `proj` of this beam time is sealed, run the notebook, once for each filter
buf.meow.add(hiss.Recipe("reconstruct", "reconstruct.ipynb"))
buf.meow.add(
    hiss.Pattern(
        "every-scan",
        trigger="beamtime42/*/proj",
        recipe="reconstruct",
        variables={"centre": 296},
        sweep={"filter": ["ramp", "hann"]},
    )
)

for name, level in (("dark", 100), ("flat", 4000)):
    with scan.create_stream(name, dtype="uint16", shape=SHAPE) as s:
        for frame in exposures(3, level, seed=level):
            s.append(frame)

detector = zip(exposures(6, 2000, seed=1), np.linspace(0, 180, 6), strict=True)
kernels = [
    enough.bind(mask=np.zeros(SHAPE, "uint8")),
    flatfield.bind(dark=scan["dark"].mean(), flat=scan["flat"].mean()),
]
with scan.create_stream(
    "proj",
    dtype="uint16",
    shape=(2160, 2560),
    ack="durable",
    columns={"angle": "f8 deg"},
    keep="both",
    kernels=kernels,
) as s:
    for frame, angle in detector:
        s.append(frame, angle=angle)  # index= and time_ns= if the detector has them
        for message in s.feedback():
            print("the buffer says", message)  # what a kernel or rule told the instrument
print(s.report())  # completeness, ledger, throughput

p = buf["beamtime42/scan7/proj"]  # what left the pipeline; p.raw is what came in
print(p.shape, p.dtype, p.index, p.columns["angle"], p.time_ns, dict(p.attrs), p.ledger)
d, f = np.asarray(scan["dark"].mean()), np.asarray(scan["flat"].mean())
assert np.allclose(flatfield(p.raw[3], dark=d, flat=f), p[3], rtol=1e-5)  # called directly: plain NumPy
print("all stored blocks:", np.asarray(p).shape, "a range:", p[2:4].shape)
print("followed:", [block.index for block in p.follow()])  # live, while a stream is being written
live = p.latest()  # the newest block, for a display
print("latest:", live.index, "binned on the way out:", p.read(kernels=[bin2x2]).shape)

for name in ("m1", "m2", "m3"):
    with scan.create_stream(name, dtype="uint16", shape=(4, 4)) as s:
        s.extend(np.zeros((3, 4, 4), "uint16"))
det = scan.join("det", ["m1", "m2", "m3"])  # modules as one dataset, by index
print("joined:", det.shape)

while not all(job.state.final for job in buf.meow.jobs()):
    time.sleep(0.1)
for job in buf.meow.jobs():
    print("job", job.id[:8], job.state.name, job.variables["filter"], job.error)
    print("  wrote", *(f"{ref.path} v{ref.version}" for ref in job.writes))
buf.close()
