"""docs/kernel-library.md: its examples run as they stand, and every kernel of the library is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiss.kernels import library

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "kernel-library.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 10
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(DOCUMENT), "exec"), names)
    assert names["absorption"].shape == (20, 32, 48)
    assert abs(float(np.median(names["absorption"]))) < 0.2  # even light, but for the noise: nothing is absorbed
    assert names["noise"].mean() == pytest.approx(10, rel=0.1)
    assert (names["coarse"].shape, names["coarse"].dtype) == ((8, 16), np.uint32)
    assert names["energy"].mean() == pytest.approx(50 / 40, rel=0.1)
    assert (names["marked"][:, 24] == -1).all()
    assert 0 < names["kept"] < 20
    assert names["rings"].shape == (20, 50)
    assert names["fields"][1:].tolist() == [[11, 2, 11, 39, 0, 40]] * 2
    assert names["image"][2, 39, 11] == names["image"].sum() == 2
    assert names["hits"].tolist() == [[2, 11, 39, 0, 40]] * 2
    assert len(names["left"]) == 1
    assert names["level"] == pytest.approx(np.full(16, 10), rel=0.3)
    assert names["ratio"][60:].mean() == pytest.approx(1, rel=0.2)


def test_every_kernel_is_in_the_document() -> None:
    text = DOCUMENT.read_text("utf-8")
    missing = [name for name in library.KERNELS if f"library.{name}" not in text or f"`{name}`" not in text]
    assert missing == []
