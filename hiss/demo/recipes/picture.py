# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
"""The recipe `picture` of the demo: sent to the rule engine as source, run in a job's process."""


def picture(input, rows):
    """Draw what went in, what the kernel made of it, and what the reconstruction shows; returns a PNG's bytes."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.colors import PowerNorm

    import hiss

    volume = np.asarray(input)
    attrs = input.attrs
    projections = hiss.job().buffer.stream(str(attrs["projections"]))
    angle = projections.columns["angle"]
    index = projections.index
    view = int(index[len(index) // 2])

    figure, axes = plt.subplots(2, 3, figsize=(13.5, 8.6), layout="constrained", facecolor="white")
    (raw, corrected, sinogram), (first, second, upright) = axes

    def bright(image):
        low, high = np.quantile(image, (0.02, 0.999))
        return {"norm": PowerNorm(0.5, float(low), float(high))}

    def show(axis, image, title, across, down, unit, **style):
        drawn = axis.imshow(image, cmap="gray", interpolation="nearest", **style)
        axis.set_title(title, fontsize=11, loc="left")
        axis.set_xlabel(across, fontsize=9)
        axis.set_ylabel(down, fontsize=9)
        axis.tick_params(labelsize=8)
        figure.colorbar(drawn, ax=axis, shrink=0.85, pad=0.02).set_label(unit, fontsize=9)

    at = f"{angle[len(index) // 2]:.1f}°"
    show(raw, projections.raw[view], f"As the detector sent it, {at}", "column", "row", "counts")
    show(corrected, projections[view], "After the kernel in transit", "column", "row", "attenuation")
    for line in rows:
        corrected.axhline(line, color="tab:orange", lw=0.8, ls="--")
    above, below = rows
    stack = np.asarray(projections)[:, below]
    extent = (-0.5, stack.shape[1] - 0.5, float(angle[-1]), float(angle[0]))
    show(
        sinogram,
        stack,
        f"Sinogram of row {below}",
        "column",
        "angle, degrees",
        "attenuation",
        extent=extent,
        aspect="auto",
    )
    for axis, row in ((first, above), (second, below)):
        image = volume[row]
        show(axis, image, f"Reconstructed slice, row {row}", "x", "y", "attenuation per pixel", **bright(image))
    cut = int(attrs["cut"])
    image = volume[:, cut]
    show(upright, image, f"Upright cut at y = {cut}", "x", "row", "attenuation per pixel", **bright(image))
    for axis in (first, second):
        axis.axhline(cut, color="tab:orange", lw=0.8, ls="--")
    for line in rows:
        upright.axhline(line, color="tab:orange", lw=0.8, ls="--")
    figure.suptitle(
        f"{input.path.rpartition('/')[0]}: {len(index)} views, axis of rotation at column {attrs['centre']:.2f}",
        fontsize=13,
    )
    page = io.BytesIO()
    figure.savefig(page, format="png", dpi=110)
    return {"slice.png": page.getvalue()}
