"""The Python of docs/views.md runs as it stands there, against a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiss.client import Buffer
from hiss.testing.conformance import frames

PAGE = Path(__file__).parents[2] / "docs" / "views.md"


def test_the_page_on_views_runs(
    served: Any, buffer: Buffer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with buffer.collection("beamtime42/scan7").create_stream(
        "proj", dtype="u2", shape=(4, 6), columns={"angle": "f8 deg"}
    ) as s:
        s.extend(frames(5), angle=np.arange(5) * 0.5)
    monkeypatch.setenv("HISS_TOKEN", served.token)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for block in blocks:
        text = block.replace("localhost:5001", f"localhost:{served.port}").replace("port=5001", f"port={served.port}")
        exec(compile(text, str(PAGE), "exec"), names)
    names["buf"].close()
    assert np.array_equal(names["stack"], frames(5))
    assert names["angles"].dims == ("angle", "y", "x")
    told = capsys.readouterr().out
    assert "/beamtime42/scan7/notes.txt" in told
    assert "(index, y, x)" in told
