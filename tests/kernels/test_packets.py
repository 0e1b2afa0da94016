"""Kernels of packets, blocks of variable length: what they give, alike on all back ends, and what they may not do."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hiss import limits
from hiss.errors import HissError, KernelRejected, ParameterMismatch, SpecMismatch
from hiss.kernels import Compiler, Packets, Pipeline, ResolvedStage, hk
from hiss.kernels.lengths import Length, UnknownLength, broadcast_shape
from hiss.model import BlockStatus, ColumnParam, KernelDef, KernelKind
from kernels.building import NO_COLUMNS, built, filter_of, map_of

QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
MAPS = {  # over `x`, floats; the same with NumPy, but for what `expected` says
    "x * 2 + 1": ("f4", ()),
    "x[x > 1]": ("f4", ()),
    "x[np.isfinite(x)]": ("f4", ()),
    "np.stack((x, -x), axis=1)[(x > 0) | np.isnan(x)]": ("f4", ()),
    "np.where(np.isfinite(x), x, 0).astype(np.int16)": ("f4", ()),
    "np.sqrt(x[:, 0] ** 2 + x[:, 1] ** 2)": ("f8", (3,)),
    "x[:, ::2] - x[:, 1:2]": ("f4", (3,)),
    "x[x[:, 1] >= x[:, 0]]": ("i2", (3,)),
    "x.reshape(-1, 3)": ("i4", (6,)),
    "x.ravel()[x.ravel() > 2]": ("i4", (3,)),
    "np.arange(len(x)) * 3": ("u1", ()),
    "np.maximum.accumulate(x)": ("i4", ()),
    "np.cumsum(x, axis=0)": ("f8", (3,)),
    "np.take(x, x.astype(np.int64) % 7)": ("u2", ()),
    "np.count_nonzero(x > 1)": ("f4", ()),
    "x.sum()": ("f4", ()),
    "x.sum(axis=0)": ("f8", (3,)),
    "x.sum(axis=1)": ("f4", (3,)),
    "x.sum(axis=1)[:, None] * np.ones((1, 20), np.float32)": ("f4", (70,)),
    "np.stack((x.min(), x.max()))": ("i4", ()),
    "x.max(axis=0)": ("f4", (3,)),
    "x.mean()": ("u2", ()),
    "x.var(ddof=1)": ("i2", ()),
    "np.any(x > 2) & ~np.all(x > 2)": ("i4", ()),
    "x - x.mean(axis=0, keepdims=True)": ("f8", (3,)),
    "hk.group_sum(x, x.astype(np.int64), length=6)": ("i4", ()),
    "hk.group_sum(x[:, 2], x[:, 0].astype(np.int64), length=6)": ("f8", (3,)),
    "hk.bincount(x, length=9)": ("u1", ()),
    "((x[:, None] >= np.arange(8)) & (x[:, None] < np.arange(8) + 1)).sum(axis=0)": ("u2", ()),
    "np.where(np.arange(x.shape[0]) < x.shape[0] // 2, x, 0)": ("f4", ()),
    "hk.bits(x, 3, 4)[hk.bits(x, 0, 1) == 1]": ("u8", ()),
}


OTHERWISE = {  # what NumPy refuses, or makes of a NaN
    "np.stack((x.min(), x.max()))",
    "np.take(x, x.astype(np.int64) % 7)",
    "hk.group_sum(x[:, 2], x[:, 0].astype(np.int64), length=6)",
}


def applied(definition: KernelDef, sent: list[Any], compiler: Compiler, **params: Any) -> list[Any]:
    """A map's result for each packet."""
    first = sent[0]
    pipeline = built(definition, first.dtype, (None, *first.shape[1:]), compiler, **params)
    outcome = pipeline.run(together(sent), np.zeros(len(sent), NO_COLUMNS))
    assert outcome.faults == ()
    assert not outcome.status.any()
    return list(outcome.frames)


def together(sent: list[Any]) -> Packets:
    return Packets.of(np.concatenate(sent), np.array([len(packet) for packet in sent]))


def drawn(seed: int, dtype: str, item: tuple[int, ...]) -> list[Any]:
    """Packets of no item, one, and about as many as lanes; with NaN and infinities."""
    rng = np.random.default_rng(seed)
    sent = []
    for size in (0, 1, 2, 63, 64, 65, 130, 0, 300):
        packet = rng.integers(0, 9, (size, *item)).astype(dtype)
        if np.dtype(dtype).kind == "f":
            packet += rng.standard_normal(packet.shape).astype(dtype)
            packet[rng.random(packet.shape) < 0.05] = np.nan
            packet[rng.random(packet.shape) < 0.02] = -np.inf
        sent.append(packet)
    return sent


@pytest.mark.parametrize("text", MAPS)
def test_back_ends_agree(text: str, numpy_compiler: Compiler, numba_compiler: Compiler) -> None:
    dtype, item = MAPS[text]
    definition = map_of(f"def k(x):\n    return {text}\n")
    sent = drawn(len(text), dtype, item)
    meant = applied(definition, sent, numpy_compiler)
    found = applied(definition, sent, numba_compiler)
    for one, other in zip(meant, found, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("text", [text for text in MAPS if text not in OTHERWISE])
def test_a_kernel_means_what_numpy_does(text: str, numba_compiler: Compiler) -> None:
    """Of empty packets too, but for what NumPy refuses: the extremes of nothing."""
    dtype, item = MAPS[text]
    sent = [packet for packet in drawn(7, dtype, item) if len(packet) > 1 or "max(" not in text]
    found = applied(map_of(f"def k(x):\n    return {text}\n"), sent, numba_compiler)
    with np.errstate(all="ignore"):
        for packet, result in zip(sent, found, strict=True):
            if (text.startswith("x.var") and len(packet) < 2) or (text.startswith("x.m") and not len(packet)):
                assert np.isnan(result)
                continue
            if not len(packet) and ("mean" in text or "accumulate" in text):
                assert len(result) == 0
                continue
            expected = eval(text, {"np": np, "hk": hk, "x": packet})
            assert np.shape(expected) == result.shape
            np.testing.assert_allclose(result, expected, rtol=1e-5)


PACKETS = st.lists(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=1, min_side=0, max_side=150)), min_size=1, max_size=9
)
COMPOSED = map_of(
    """
    def k(x, scale):
        kept = np.where(np.isnan(x), 0, x) * scale - x.shape[0]
        pairs = np.stack((kept, x), axis=1)
        return pairs[(kept >= kept.mean().astype(np.float32)) | np.isnan(x)]
    """
)


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(sent=PACKETS, cut=st.integers(1, 9))
def test_any_packets_however_they_come(
    numpy_compiler: Compiler, numba_compiler: Compiler, sent: list[Any], cut: int
) -> None:
    """Empty ones, NaN, infinities; and the cut into extents does not show."""
    meant = applied(COMPOSED, sent, numpy_compiler, scale=np.float32(3))
    whole = applied(COMPOSED, sent, numba_compiler, scale=np.float32(3))
    parts = [
        applied(COMPOSED, sent[k : k + cut], numba_compiler, scale=np.float32(3)) for k in range(0, len(sent), cut)
    ]
    for one, two, three in zip(meant, whole, [packet for part in parts for packet in part], strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


def test_a_pipeline_of_packets(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters and maps one after the other, in many slices; rows that are vetoed leave no hole."""
    monkeypatch.setattr(limits, "KERNEL_SLICE_BYTES", 1024)
    columns = np.array([(k,) for k in range(9)], [("gain", "i4")])
    stages = [
        ResolvedStage(filter_of("def f(x):\n    return len(x) > 1\n")),
        ResolvedStage(map_of("def a(x):\n    return np.stack((x, x + 1), axis=1)[x % 2 == 0]\n")),
        ResolvedStage(map_of("def b(x, gain):\n    return x.sum(axis=1) * gain\n"), {"gain": ColumnParam("gain")}),
        ResolvedStage(filter_of("def g(x):\n    return x.max() != 17 * 4\n")),
        ResolvedStage(map_of("def c(x):\n    return x[x > 3].copy()\n".replace(".copy()", ""))),
    ]
    pipeline = Pipeline.build(stages, "i4", (None,), columns.dtype, compiler)
    sent = drawn(11, "i4", ())
    out = np.empty(pipeline.result_bytes(9, sum(map(len, sent))), np.uint8)
    outcome = pipeline.run(together(sent), columns, out)
    assert outcome.faults == ()
    assert isinstance(outcome.frames, Packets)
    expected, status = [], []
    for row, packet in enumerate(sent):
        even = packet[packet % 2 == 0]
        made = (2 * even + 1) * row
        good = len(packet) > 1 and made.max(initial=0) != 68
        status.append(BlockStatus.STORED if good else BlockStatus.VETOED)
        expected += [made[made > 3]] if good else []
    assert outcome.status.tolist() == status
    data, length = outcome.packed()
    assert np.array_equal(data.view("i8" if pipeline.out_dtype.itemsize == 8 else "i4"), np.concatenate(expected))
    assert (length // pipeline.out_dtype.itemsize).tolist() == [len(one) for one in expected]
    assert np.may_share_memory(data, out)


def test_of_nothing(compiler: Compiler) -> None:
    """The extremes of an empty packet are what never wins."""
    sent = [np.zeros(0, np.int16), np.array([5, 4], np.int16)]
    found = applied(map_of("def k(x):\n    return np.stack((x.min(), x.max()))\n"), sent, compiler)
    assert [one.tolist() for one in found] == [[32767, -32768], [4, 5]]
    floats = [np.zeros(0, np.float32), np.ones(1, np.float32)]
    found = applied(map_of("def k(x):\n    return np.stack((x.min(), x.max(), x.mean()))\n"), floats, compiler)
    assert found[0].tolist()[:2] == [np.inf, -np.inf]
    assert np.isnan(found[0][2])
    assert hk.group_sum(np.zeros(0), np.zeros(0, np.int64), length=3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("x[x > 1] * 2", KernelRejected, "the last thing"),
        ("x[x > 1].sum()", KernelRejected, "the last thing"),
        ("len(x[x > 1])", KernelRejected, "the last thing"),
        ("np.stack((x[x > 1], x[x > 1]))", KernelRejected, "the last thing"),
        ("x[y > 1]", ParameterMismatch, "one truth for each item"),
        ("x[x[:, None] > np.arange(3)]", KernelRejected, "one truth for each item"),
        ("x[x.astype(np.int64)]", KernelRejected, "np.take"),
        ("x[1:]", KernelRejected, "all is taken"),
        ("x[0]", KernelRejected, "all is taken"),
        ("np.flip(x)", KernelRejected, "no size before the kernel runs"),
        ("np.sort(x)", KernelRejected, "not in the language"),
        ("np.median(x)", KernelRejected, "variable length|no size before"),
        ("np.argmax(x)", KernelRejected, "variable length"),
        ("hk.median_filter(x.reshape(-1, 1), 3)", KernelRejected, "variable length"),
        ("x.reshape(-1, 2)", KernelRejected, "no size before"),
        ("x[None, :] * np.ones((3, 1))", KernelRejected, "comes first"),
        ("x + y", ParameterMismatch, "do not broadcast"),
        ("np.zeros(len(x) + 1)", KernelRejected, "before the kernel runs"),
        ("x if len(x) > 2 else x + 1", KernelRejected, "condition depends on data"),
        ("x if len(x) else x + 1", KernelRejected, "length of a packet"),
        ("np.take(x, np.arange(3))", KernelRejected, "may be empty"),
        ("x.astype(np.int16) * len(x)", KernelRejected, "may not fit int16"),
    ],
)
def test_what_packets_do_not_have(text: str, error: type[HissError], words: str, numpy_compiler: Compiler) -> None:
    definition = map_of(f"def k(x{', y' if 'y' in text.replace('accumulate', '') else ''}):\n    return {text}\n")
    params = {"y": np.arange(3.0)} if "y" in definition.source.partition(":")[0] else {}
    with pytest.raises(error, match=words):
        built(definition, np.float32, (None,), numpy_compiler, **params)


def test_blocks_of_one_shape_are_not_selected_from(numpy_compiler: Compiler) -> None:
    with pytest.raises(KernelRejected, match=r"np\.where\(mask, x, 0\)"):
        built(map_of("def k(x):\n    return x[x > 1]\n"), np.float32, (5,), numpy_compiler)
    with pytest.raises(KernelRejected, match="the last thing that a map does"):
        built(filter_of("def f(x):\n    return x[x > 1]\n"), np.float32, (None,), numpy_compiler)


def test_a_scan_takes_one_shape(numpy_compiler: Compiler) -> None:
    source = "class s:\n    def init(x):\n        return 0\n    def step(state, x):\n        return state + 1, state\n"
    scan = KernelDef("s", KernelKind.SCAN, source)
    with pytest.raises(SpecMismatch, match="put a map before it"):
        built(scan, np.uint16, (None,), numpy_compiler)
    counts = map_of("def k(x):\n    return hk.group_sum(np.ones_like(x), x, length=4)\n")
    pipeline = built([counts, scan], np.uint16, (None,), numpy_compiler)
    sent = drawn(2, "u2", ())
    outcome = pipeline.run(together(sent), np.zeros(len(sent), NO_COLUMNS))
    assert list(outcome.frames) == list(range(len(sent)))


def test_temporaries_of_a_long_packet(numba_compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too long fails when it comes, and not what comes after it."""
    pipeline = built(
        map_of("def k(x):\n    return np.cumsum(np.cumsum(x))[x > 0]\n"), np.uint8, (None,), numba_compiler
    )
    monkeypatch.setattr(limits, "KERNEL_TEMPORARY_BYTES_MAX", 4096)
    long = pipeline.run(together([np.ones(5000, np.uint8)]), np.zeros(1, NO_COLUMNS))
    assert long.status.tolist() == [BlockStatus.KERNEL_FAILED]
    assert "send shorter packets" in long.faults[0].text
    short = pipeline.run(together([np.ones(50, np.uint8)]), np.zeros(1, NO_COLUMNS))
    assert (short.faults, short.status.tolist()) == ((), [BlockStatus.STORED])


def test_opencl_leaves_them_to_another(opencl_compiler: Compiler, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        pipeline = built(map_of("def k(x):\n    return x + 1\n"), np.uint16, (None,), opencl_compiler)
    assert pipeline.backends == ("numpy",)
    assert "blocks of variable length" in opencl_compiler.notice


def test_lengths_are_not_mistaken_for_numbers() -> None:
    n = Length()
    assert (repr(n), repr(n * 6), n * 6 // 3 == n * 2, 0 * n) == ("n", "n * 6", True, 0)
    assert (n * 4).at(5) == 20
    for impossible in (lambda: n - 1, lambda: n + 1, lambda: n // 2, lambda: n * n, lambda: -n, lambda: n % 7):
        with pytest.raises(UnknownLength):
            impossible()
    assert broadcast_shape([(n, 3), (1, 3), ()]) == (n, 3)
    for other in ((2,), (n * 2,)):
        with pytest.raises(ValueError, match="broadcast"):
            broadcast_shape([(n,), other])
