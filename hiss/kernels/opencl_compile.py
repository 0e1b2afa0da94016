"""The process that compiles for OpenCL: builds generated files, runs each once over no block, and leaves their
binaries.

Run by path as a script: `python -P opencl_compile.py PLATFORM DEVICE OPTION… -- FILE…`. Prints one line for each file:
its path and `ok`, or the error. It imports nothing of hiss; only files that `opencl_backend` wrote are given to it. A
driver that crashes does so here.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any


def build(cl: Any, device: Any, path: Path, options: list[str]) -> None:
    """Build one file and write its binary beside it; raises whatever the driver raises.

    Drivers finish their compilation when a kernel first runs, so it runs once, over no block.
    """
    context = cl.Context([device])
    program = cl.Program(context, path.read_text()).build(options=[*options, "-cl-kernel-arg-info"], cache_dir=False)
    (kernel,) = program.all_kernels()
    some = cl.Buffer(context, cl.mem_flags.READ_WRITE, 64)
    for place in range(kernel.num_args):
        kind = kernel.get_arg_info(place, cl.kernel_arg_info.TYPE_NAME)
        if kind.endswith("*"):
            kernel.set_arg(place, some)
        else:
            kernel.set_arg(place, bytes(_SIZES[kind]))
    queue = cl.CommandQueue(context)
    cl.enqueue_nd_range_kernel(queue, kernel, (1,), (1,)).wait()
    partial = path.with_suffix(".partial")
    partial.write_bytes(program.binaries[0])
    partial.replace(path.with_suffix(".bin"))


_SIZES = {
    **dict.fromkeys(("char", "uchar"), 1),
    **dict.fromkeys(("short", "ushort"), 2),
    **dict.fromkeys(("int", "uint", "float"), 4),
    **dict.fromkeys(("long", "ulong", "double"), 8),
}


def main(platform: str, name: str, rest: list[str]) -> None:
    import pyopencl as cl

    warnings.simplefilter("ignore", cl.CompilerWarning)  # of a driver that is pleased with itself
    found = [
        device
        for one in cl.get_platforms()
        if one.name == platform
        for device in one.get_devices()
        if device.name == name
    ]
    options, paths = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    for path in paths:
        try:
            build(cl, found[0], Path(path), options)
            result = "ok"
        except Exception as error:  # the parent decides what it means
            result = f"{type(error).__name__}: {error}".replace("\n", " ")[:2000]
        print(f"{path}\t{result}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
