"""Windows, ranks, groups, bit fields and recursion: their meaning against SciPy and NumPy, compiled code against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage as ndimage
import scipy.signal
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hiss import limits
from hiss.errors import KernelRejected, LimitExceeded, ParameterMismatch
from hiss.kernels import Compiler, hk
from hiss.kernels.sort_keys import keys
from hiss.kernels.sort_keys import values as of_keys
from hiss.kernels.sorting_network import middle_of_sorted, network
from kernels.building import applied, map_of, several

MODES = ("reflect", "mirror", "nearest", "wrap")
INTEGERS = ("uint8", "uint16", "int16", "uint32", "int32")  # SciPy takes larger ones through float64
sizes = st.sampled_from([1, 3, 5, (1, 3), (3, 1), (3, 7)])
modes = st.sampled_from(MODES)


def images(dtypes: tuple[str, ...] = (*INTEGERS, "float32", "float64"), sides: int = 12) -> Any:
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=sides)

    def of(dtype: str) -> Any:
        kind = np.dtype(dtype).kind
        numbers = st.floats(-1e6, 1e6, width=32) if kind == "f" else None
        return hnp.arrays(dtype, shapes, elements=numbers)

    return st.sampled_from(dtypes).flatmap(of)


# ------------------------------------------------------------------------------------------------ windows


@settings(max_examples=150, deadline=None)
@given(images(), sizes, modes)
def test_windows_of_scipy(image: Any, size: Any, mode: str) -> None:
    for name in ("median_filter", "minimum_filter", "maximum_filter"):
        found = getattr(hk, name)(image, size, mode)
        assert found.dtype == image.dtype
        np.testing.assert_array_equal(found, getattr(ndimage, name)(image, size, mode=mode), err_msg=name)


@settings(max_examples=100, deadline=None)
@given(images(("uint8", "int16", "uint16", "int32", "float32", "float64")), sizes, modes)
def test_means_of_scipy(image: Any, size: Any, mode: str) -> None:
    """In float64, where SciPy would cut to the integers of the image."""
    wide = image.astype(np.float64)
    found = hk.uniform_filter(image, size, mode)
    small = image.dtype.itemsize <= 2 or image.dtype == np.float32
    assert found.dtype == (np.float32 if small else np.float64)
    scale = np.abs(wide).max() + 1e-300
    expected = ndimage.uniform_filter(wide, size, mode=mode)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=scale * (1e-6 if small else 1e-12))
    smooth = ndimage.gaussian_filter(wide, 0.8, mode=mode)
    np.testing.assert_allclose(hk.gaussian_filter(image, 0.8, mode), smooth, rtol=1e-6, atol=scale * 1e-6)


@settings(max_examples=100, deadline=None)
@given(images(("uint16", "int32", "float32", "float64")), st.data(), modes)
def test_stencils_of_scipy(image: Any, data: Any, mode: str) -> None:
    shape = data.draw(st.sampled_from([(1, 1), (3, 3), (1, 5), (5, 3)]))
    weights = data.draw(hnp.arrays(np.float64, shape, elements=st.integers(-400, 400).map(lambda k: k / 100)))
    expected = ndimage.correlate(image.astype(np.float64), weights, mode=mode)
    scale = np.abs(image.astype(np.float64)).max() * np.abs(weights).sum()
    np.testing.assert_allclose(hk.correlate(image, weights, mode), expected, rtol=1e-6, atol=1e-6 * scale + 1e-30)


@pytest.mark.parametrize("mode", MODES)
def test_a_window_larger_than_the_image(mode: str) -> None:
    image = np.arange(6, dtype=np.uint16).reshape(2, 3)
    for name in ("median_filter", "maximum_filter"):
        expected = getattr(ndimage, name)(image, (5, 5), mode=mode)
        np.testing.assert_array_equal(getattr(hk, name)(image, 5, mode), expected)


def test_weights_written_in_the_kernel() -> None:
    image = np.random.default_rng(5).normal(size=(6, 8))
    sobel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    found, row = several(
        ["hk.correlate(x, ((1, 0, -1), (2, 0, -2), (1, 0, -1)))", "hk.correlate(x[0], (0.25, 0.5, 0.25), 'nearest')"],
        image,
        _NUMPY,
    )
    np.testing.assert_allclose(found, ndimage.correlate(image, sobel), atol=1e-12)
    np.testing.assert_allclose(row, ndimage.correlate(image[0], [0.25, 0.5, 0.25], mode="nearest"), atol=1e-12)


def test_blocks_need_not_be_square() -> None:
    image = np.arange(48, dtype=np.uint16).reshape(4, 12)
    np.testing.assert_array_equal(hk.bin2d(image, (2, 3)), image.reshape(2, 2, 4, 3).sum(axis=(1, 3)))


def test_a_row_and_a_stack_are_filtered_too() -> None:
    row = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int32)
    np.testing.assert_array_equal(hk.median_filter(row, 3), ndimage.median_filter(row, 3))
    stack = np.random.default_rng(0).integers(0, 99, (3, 5, 6))
    np.testing.assert_array_equal(hk.median_filter(stack, 3), ndimage.median_filter(stack, (1, 3, 3)))


def test_a_nan_is_the_largest_of_a_median_and_wins_among_extremes() -> None:
    image = np.array([[1, np.nan, 2], [np.nan, np.nan, 3], [4, 5, np.nan]])
    assert hk.median_filter(image, 3)[1, 1] == 5
    assert np.isnan(hk.minimum_filter(image, 3)[1, 1])
    assert np.isnan(hk.maximum_filter(image, 3)[1, 1])


@pytest.mark.parametrize("count", [*range(1, 17), 25])
def test_sorting_networks_sort(count: int) -> None:
    """All inputs of zeros and ones, which is enough (D. E. Knuth, TAOCP 3, 5.3.4, theorem Z), or many of them."""
    rng = np.random.default_rng(count)
    lines = np.array(np.meshgrid(*[[0, 1]] * count)).reshape(count, -1) if count <= 12 else (
        rng.permuted(np.tile(np.arange(count), (4000, 1)), axis=1).T
    )  # fmt: skip
    wanted = [count // 2]
    for places in (range(count), wanted):
        work = lines.copy()
        for one in network(count, places):
            low, high = np.minimum(work[one.low], work[one.high]), np.maximum(work[one.low], work[one.high])
            work[one.low], work[one.high] = (low if one.needs_low else -1), (high if one.needs_high else -1)
        np.testing.assert_array_equal(work[list(places)], np.sort(lines, axis=0)[list(places)])


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (5, 5), (7, 7), (1, 9), (5, 3)])
def test_the_middle_of_sorted_rows_and_columns(rows: int, columns: int) -> None:
    blocks = np.random.default_rng(1).integers(0, 1000, (500, rows, columns))
    ordered = np.sort(np.sort(blocks, axis=1), axis=2)
    left = np.stack([ordered[:, i, j] for i, j in middle_of_sorted(rows, columns)], axis=1)
    np.testing.assert_array_equal(np.sort(left, axis=1)[:, left.shape[1] // 2], np.median(blocks, axis=(1, 2)))


# ------------------------------------------------------------------------------------------------ ranks


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(("int8", "uint16", "int64", "float32", "float64")), st.data())
def test_keys_sort_as_the_numbers_do(dtype: str, data: Any) -> None:
    numbers = data.draw(hnp.arrays(dtype, st.integers(1, 40)))
    keyed = keys(numbers)
    np.testing.assert_array_equal(of_keys(np.sort(keyed), np.dtype(dtype)), np.sort(numbers))
    np.testing.assert_array_equal(of_keys(keyed, np.dtype(dtype)), numbers)


@settings(max_examples=150, deadline=None)
@given(images(("uint8", "uint16", "int32", "float32", "float64")), st.sampled_from([None, 0, 1]), st.floats(0, 100))
def test_medians_and_percentiles_of_numpy(image: Any, axis: Any, q: float) -> None:
    found = _expressions(["np.median(x, axis=axis)", "np.percentile(x, q, axis=axis)"], image, axis, q)
    exact = image if image.dtype.kind == "f" else image.astype(np.float64)  # NumPy subtracts integers, which wraps
    median, percentile = np.median(image, axis=axis), np.percentile(exact, q, axis=axis)
    assert found[0].dtype == np.asarray(median).dtype
    np.testing.assert_allclose(found[0], median, rtol=1e-6 if image.dtype == np.float32 else 1e-15)
    scale = float(np.abs(image.astype(np.float64)).max())
    np.testing.assert_allclose(found[1], percentile, rtol=1e-6, atol=scale * 1e-6)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)), st.sampled_from([None, 0, 1]))
@pytest.mark.filterwarnings("ignore:All-NaN slice encountered", "ignore:overflow", "ignore:invalid value")
def test_nanmedian_of_numpy(image: Any, axis: Any) -> None:
    assume(not (np.abs(image) > 1e300).any())  # where the mean of two overflows, in NumPy also of one number twice
    median, without = _expressions(["np.median(x, axis=axis)", "np.nanmedian(x, axis=axis)"], image, axis, 0.0)
    np.testing.assert_allclose(median, np.median(image, axis=axis), rtol=1e-15)
    np.testing.assert_allclose(without, np.nanmedian(image, axis=axis), rtol=1e-15)


def test_a_quantile_of_integers_is_a_float_whatever_q_is() -> None:
    """NumPy leaves it an integer where q is one."""
    image = np.array([[3, 1], [7, 5]], np.int32)
    least, most = several(["np.quantile(x, 0)", "np.quantile(x, (0, 1))"], image, _NUMPY)
    assert least.dtype == most.dtype == np.float64
    assert least == 1
    assert most.tolist() == [1, 7]


def test_several_percentiles_and_quantiles() -> None:
    image = np.random.default_rng(3).normal(size=(7, 9))
    for axis in (None, 0, 1):
        texts = [f"np.percentile(x, (1, 50, 99.5), axis={axis})", f"np.quantile(x, (0.25, 1), axis={axis})"]
        found = several([*texts, f"np.quantile(x, 0.3, axis={axis})"], image, _NUMPY)
        np.testing.assert_allclose(found[0], np.percentile(image, (1, 50, 99.5), axis=axis), rtol=1e-12)
        np.testing.assert_allclose(found[1], np.quantile(image, (0.25, 1), axis=axis), rtol=1e-12)
        np.testing.assert_allclose(found[2], np.quantile(image, 0.3, axis=axis), rtol=1e-12)


def test_nanmedian_of_one_number_does_not_overflow() -> None:
    image = np.array([[1e308, np.nan], [np.nan, np.inf], [np.nan, np.nan]])
    (found,) = several(["np.nanmedian(x, axis=1)"], image, _NUMPY)
    np.testing.assert_array_equal(found, [1e308, np.inf, np.nan])


def _expressions(texts: list[str], image: Any, axis: int | None, q: float) -> list[Any]:
    filled = [text.replace("axis=axis", f"axis={axis}").replace("q,", f"{q!r},") for text in texts]
    return several(filled, image, _NUMPY)


class _Interpreter:
    """As much of a `Compiler` as `several` needs."""

    def __init__(self) -> None:
        from hiss.kernels.backend import NumpyBackend

        self.backend = NumpyBackend()
        self.compile = self.backend.compile


_NUMPY: Any = _Interpreter()


# ------------------------------------------------------------------------------------------------ groups


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)), st.integers(1, 4))
def test_groups_of_scipy(mask: Any, least: int) -> None:
    for connectivity, structure in ((4, ndimage.generate_binary_structure(2, 1)), (8, np.ones((3, 3)))):
        labels, count = ndimage.label(mask, structure)
        enough = (np.bincount(labels.reshape(-1), minlength=1)[1:] >= least).sum()
        if least == 1:
            assert enough == count
        if least <= mask.size:
            assert hk.groups_count(mask, connectivity, least) == enough


@settings(max_examples=100, deadline=None)
@given(images(("uint16", "int32", "float64")), st.data())
def test_sums_by_group(values: Any, data: Any) -> None:
    dtype = data.draw(st.sampled_from(["int8", "uint8", "int32", "uint64"]))
    index = data.draw(hnp.arrays(dtype, values.shape, elements=st.integers(0 if dtype[0] == "u" else -2, 9)))
    found = hk.group_sum(values, index, length=7)
    expected = [values[index == k].astype(np.float64).sum() for k in range(7)]
    assert found.dtype == {"u": np.uint64, "i": np.int64, "f": np.float64}[values.dtype.kind]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-6 if values.dtype.kind == "f" else 0)


@settings(max_examples=60, deadline=None)
@given(images(("uint8", "uint16")))
def test_otsu_splits_where_the_variance_between_the_classes_is_largest(image: Any) -> None:
    """Against every threshold tried out with NumPy."""
    threshold = hk.otsu(image)
    wide = image.reshape(-1).astype(np.float64)
    best = max((_between(wide, float(value)) for value in np.unique(wide)), default=0.0)
    assert _between(wide, float(threshold)) == pytest.approx(best, rel=1e-9, abs=1e-9)


def _between(values: Any, threshold: float) -> float:
    low, high = values[values <= threshold], values[values > threshold]
    return 0.0 if not len(low) or not len(high) else float(len(low) * len(high) * (low.mean() - high.mean()) ** 2)


def test_otsu_of_floats_is_within_a_bin() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate((rng.normal(10, 1, 5000), rng.normal(30, 2, 3000))).astype(np.float32).reshape(80, 100)
    threshold = hk.otsu(values)
    best = max(_between(values.reshape(-1), t) for t in np.linspace(10, 30, 200))
    assert _between(values.reshape(-1), threshold) == pytest.approx(best, rel=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["uint8", "uint16", "uint64", "int32"]), st.data())
def test_bit_fields(dtype: str, data: Any) -> None:
    words = data.draw(hnp.arrays(dtype, 5))
    width = words.dtype.itemsize * 8
    first = data.draw(st.integers(0, width - 1))
    count = data.draw(st.integers(1, width - first))
    expected = [(int(word) >> first) % (1 << count) for word in words]
    found = hk.bits(words, first, count)
    assert found.dtype == words.dtype
    assert [int(value) % (1 << width) for value in found] == expected


@settings(max_examples=60, deadline=None)
@given(images(("int16", "float64")), st.sampled_from([0, 1]), st.floats(-0.9, 0.9))
def test_recursive_filters_of_scipy(image: Any, axis: int, a1: float) -> None:
    expected = scipy.signal.lfilter([0.5, -0.25], [1, -a1], image.astype(np.float64), axis=axis)
    scale = np.abs(image.astype(np.float64)).max() * 10 + 1e-300
    np.testing.assert_allclose(hk.iir(image, 0.5, -0.25, a1, axis), expected, rtol=1e-6, atol=scale * 1e-6)


# ------------------------------------------------------------------------------------------------ compiled code

COMPILED = [
    "hk.median_filter(x, 3, 'reflect')",
    "np.median(x, axis=0)",
    "np.percentile(x, (12.5, 100), axis=1)",
    "np.nanmedian(x, axis=1)",
    "hk.median_filter(x, (3, 5), 'wrap')",
    "hk.maximum_filter(x, (5, 3), 'mirror')",
    "hk.uniform_filter(x, (3, 5), 'nearest')",
    "hk.correlate(x, w, 'mirror')",
    "hk.groups_count(x > 40, 4, 2)",
    "hk.groups_count(x > 40)",
    "hk.otsu(x)",
    "hk.group_sum(x, m, length=5)",
    "hk.iir(x, 0.5, 0.25, -0.75, 0)",
    "hk.iir(x, 0.5, 0.0, 0.5)",
]


@pytest.mark.parametrize(("dtype", "shape"), [("uint16", (37, 70)), ("float32", (4, 3))])
def test_compiled_code_gives_the_same(dtype: str, shape: tuple[int, int], numba_compiler: Compiler) -> None:
    rng = np.random.default_rng(7)
    image = rng.integers(0, 90, shape).astype(dtype)
    image[rng.random(shape) < 0.05] = np.iinfo(dtype).max if dtype != "float32" else np.nan
    params = {"w": rng.normal(size=(3, 5)), "m": rng.integers(-1, 7, shape)}
    texts = COMPILED if dtype == "uint16" else COMPILED[:4]
    meant = several(texts, image, _NUMPY, **params)
    for text, one, other in zip(texts, meant, several(texts, image, numba_compiler, **params), strict=True):
        assert one.dtype == other.dtype, text
        np.testing.assert_array_equal(one, other, err_msg=text)


@pytest.mark.parametrize("shape", [(70_000,), (40, 257)])
def test_compiled_medians_of_long_axes(shape: tuple[int, ...], numba_compiler: Compiler) -> None:
    """Longer than the counters are wide, and columns that do not fill a tile."""
    image = np.random.default_rng(8).integers(0, 50_000, shape).astype(np.uint16)
    for axis in range(len(shape)):
        found = applied(map_of(f"def k(x):\n    return np.median(x, axis={axis})"), image, numba_compiler)
        np.testing.assert_array_equal(found, np.median(image, axis=axis))


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hk.median_filter(x, 4)", "odd number of rows and of columns"),
        ("hk.median_filter(x, (3, 3, 3))", "odd number of rows and of columns"),
        ("hk.median_filter(x, 3, 'constant')", "an edge mode is one of 'reflect', 'mirror', 'nearest', 'wrap'"),
        ("hk.median_filter(x, 3, 'reflekt')", "did you mean 'reflect'"),
        ("hk.median_filter(x, x)", "must be known before the kernel runs"),
        ("hk.gaussian_filter(x, 0)", "sigma is a number above 0"),
        ("hk.correlate(x, x)", "odd number of rows"),
        ("np.percentile(x, 101)", "from 0 to 100"),
        ("hk.groups_count(x > 3, 6)", "connectivity is 4"),
        ("hk.groups_count(x[0] > 3)", "two axes"),
        ("hk.group_sum(x, x[0], length=4)", "the index map is"),
        ("hk.group_sum(x, x.astype(np.float32), length=4)", "an index map holds integers"),
        ("np.percentile(x, (1, -1))", "a percentile is a number from 0 to 100"),
        ("hk.correlate(x, ((1, 2), (3,)))", "rows of equally many numbers"),
        ("np.choose(x, x)", "use np.where"),
        ("scipy.ndimage.median_filter(x, 3)", "`hk` has filters"),
        ("hk.label(x > 3)", "hk.groups_count"),
        ("hk.bin2d(x, (4, 3))", "does not divide into blocks of 4 x 3"),
        ("hk.bits(x, 10, 7)", "the number of bits is an integer from 1 to 6"),
        ("hk.bits(x * 0.5, 0, 1)", "bit fields are taken of integers"),
        ("hk.meadian_filter(x)", "did you mean `hk.median_filter`"),
        ("np.median_filter(x)", "write `hk.median_filter`"),
        ("x + 'wrap'", "expected a number or an array"),
    ],
)
def test_what_is_refused_says_what_is_expected(text: str, reason: str) -> None:
    with pytest.raises((KernelRejected, ParameterMismatch), match=reason):
        several([text], np.zeros((6, 8), np.uint16), _NUMPY)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (f"hk.maximum_filter(x, {limits.KERNEL_WINDOW_MAX + 2})", "KERNEL_WINDOW_MAX"),
        ("hk.gaussian_filter(x, 1e9)", "KERNEL_WINDOW_MAX"),
        ("hk.median_filter(x, 7)", "KERNEL_MEDIAN_PIXELS_MAX"),
        ("hk.correlate(x, np.ones((17, 17)))", "KERNEL_STENCIL_PIXELS_MAX"),
    ],
)
def test_windows_are_bounded(text: str, limit: str) -> None:
    with pytest.raises(LimitExceeded) as caught:
        several([text], np.zeros((6, 8), np.uint16), _NUMPY)
    assert caught.value.details["limit"] == limit
