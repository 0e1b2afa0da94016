"""The recipes of the foam workflow. Each is a function that brings its own imports, because only its source travels.

Volumes are arrays (z, y, x) of a cylinder whose axis is z; `radius` is the cylinder's, in widths of the volume.
"""

import numpy as np

import hiss


def generate(input, volume, radius):  # type: ignore[no-untyped-def]
    """A foam of `spheres` pores that do not touch, the largest that fit, in grey values with noise."""
    import json

    request = json.loads(bytes(input.latest().data))
    rng = np.random.default_rng(request["seed"])
    size = request["size"]
    centres, radii = np.empty((0, 3)), np.empty(0)
    while len(radii) < request["spheres"]:
        tries = rng.uniform(-0.5, 0.5, (4000, 3)) * size
        room = np.minimum(radius * size - np.hypot(tries[:, 1], tries[:, 2]), size / 2 - abs(tries[:, 0])) - 1.5
        if len(radii):
            room = np.minimum(room, (np.linalg.norm(tries[:, None] - centres, axis=2) - radii).min(axis=1) - 1.5)
        best = room.argmax()
        if room[best] < 2.5:
            break  # what is left is too small
        centres = np.vstack([centres, tries[best]])
        radii = np.append(radii, min(room[best], 0.09 * size))
    axis = np.arange(size) - (size - 1) / 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    solid = np.hypot(y, x) <= radius * size
    for centre, pore in zip(centres, radii, strict=True):
        solid &= (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 > pore**2
    grey = np.where(solid, 180.0, 60.0) + rng.normal(0, 10, solid.shape)
    attrs = {"request": request, "pores": len(radii)}
    hiss.job().output(volume, np.clip(grey, 0, 255).astype("u1")[None], attrs=attrs)


def check(input, version, radius, porosity_least, porosity_most):  # type: ignore[no-untyped-def]
    """Accept or discard a volume by its porosity: the weight of the darker component of a mixture of two Gaussians.

    Fitted by expectation maximisation (Dempster, Laird, Rubin, J. R. Stat. Soc. B 39, 1, 1977) to 50,000 voxels.
    """
    import json

    volume = np.asarray(input)[0]
    axis = (np.arange(volume.shape[-1]) - (volume.shape[-1] - 1) / 2) / volume.shape[-1]
    inside = volume[:, axis[:, None] ** 2 + axis**2 <= radius**2].ravel()
    values = np.random.default_rng(0).choice(inside, 50_000).astype(float)
    span = max(np.ptp(values), 1.0)
    mean, weight = np.percentile(values, [5, 95]), np.array([0.5, 0.5])
    variance = np.full(2, (span / 4) ** 2)
    for _ in range(200):
        likely = np.log(weight) - 0.5 * np.log(variance) - 0.5 * (values[:, None] - mean) ** 2 / variance
        share = np.exp(likely - likely.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        before, many = mean, np.maximum(share.sum(axis=0), 1e-9)
        mean, weight = (share * values[:, None]).sum(axis=0) / many, many / many.sum()
        variance = (share * (values[:, None] - mean) ** 2).sum(axis=0) / many + (1e-3 * span) ** 2
        if abs(mean - before).max() < 1e-6 * span:
            break
    porosity = float(weight[mean.argmin()])
    verdict = {
        "volume": hiss.job().variables["input"],
        "version": int(version),
        "porosity": round(porosity, 4),
        "request": input.attrs.get("request"),
    }
    outcome = "accepted" if porosity_least <= porosity <= porosity_most else "discarded"
    print(f"{verdict['volume']} version {version}: porosity {porosity:.3f}, {outcome}")
    return {outcome: json.dumps(verdict).encode()}


def regenerate(input, request):  # type: ignore[no-untyped-def]
    """Ask for a discarded foam again, with twice as many pores. A measured one cannot be made again."""
    import json

    wanted = json.loads(bytes(input.latest().data))["request"]
    if wanted is None:
        print("measured, not made: it stays discarded")
        return None
    again = {**wanted, "spheres": 2 * wanted["spheres"], "seed": wanted["seed"] + 1}
    return {"request": json.dumps(again).encode()}


def segment(input, radius):  # type: ignore[no-untyped-def]
    """The pores of an accepted volume: inside of the cylinder and darker than Otsu's threshold."""
    import json

    from skimage.filters import threshold_otsu

    accepted = json.loads(bytes(input.latest().data))
    volume = np.asarray(hiss.job().buffer.stream(accepted["volume"], accepted["version"]))[0]
    axis = (np.arange(volume.shape[-1]) - (volume.shape[-1] - 1) / 2) / volume.shape[-1]
    inside = np.broadcast_to(axis[:, None] ** 2 + axis**2 <= radius**2, volume.shape)
    threshold = threshold_otsu(volume[inside])
    return {"pores": ((volume <= threshold) & inside).astype("u1")[None]}


def analyse(input, table):  # type: ignore[no-untyped-def]
    """One row for each pore: the middle (z, y, x) and the radius in voxels, and the volume of its part of the space.

    Pores that touch are parted by a watershed of the distance to the solid, from its peaks.
    """
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    pores = np.asarray(input)[0] > 0
    distance = ndimage.distance_transform_edt(pores)
    peaks = peak_local_max(distance, min_distance=2, threshold_abs=1.5, exclude_border=False)
    markers = np.zeros(pores.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    parts = np.bincount(watershed(-distance, markers, mask=pores).ravel(), minlength=len(peaks) + 1)[1:]
    rows = np.column_stack([peaks, distance[tuple(peaks.T)], parts]).astype("f4")
    hiss.job().output(table, rows, attrs={"columns": ["z", "y", "x", "radius", "voxels"], "pores": len(rows)})
    print(f"{len(rows)} pores")
