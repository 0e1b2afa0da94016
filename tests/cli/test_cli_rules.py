"""Kernels, patterns, recipes, jobs and provenance by the command line; and the check-up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hiss import client
from hiss.testing.conformance import wait_for

KERNELS = '''
import numpy as np
import hiss

print("this file is parsed, never executed")
raise SystemExit("really")


@hiss.kernel
def twice(frame, gain=2):
    """Scaled."""
    return frame * gain


@hiss.filter
def bright(frame, threshold):
    return np.max(frame) > threshold
'''


def test_kernels_are_checked_and_registered_without_executing_the_file(hiss) -> None:
    Path("kernels.py").write_text(KERNELS)
    checked = hiss("kernel", "check", "kernels.py", "--json", embedded=False).json
    assert [(one["name"], one["kind"], one["parameters"]) for one in checked] == [
        ("twice", "map", ["gain"]),
        ("bright", "filter", ["threshold"]),
    ]
    added = hiss("kernel", "add", "kernels.py", "--json").json
    assert [one["hash"] for one in added] == [one["hash"] for one in checked]
    assert {row.split()[0] for row in hiss("kernel", "ls").out.splitlines()[1:]} >= {"twice", "bright"}
    assert "return frame * gain" in hiss("kernel", "show", "twice").out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import hiss\n@hiss.kernel\ndef k(frame):\n    for i in range(3):\n        pass\n", "loops"),
        ("def k(frame):\n    return frame\n", "@hiss.kernel"),
        ("def k(frame:\n", "nothing was registered"),
    ],
)
def test_a_file_that_is_no_kernel_says_why(hiss, text: str, said: str) -> None:
    Path("kernels.py").write_text(text)
    found = hiss("kernel", "check", "kernels.py", embedded=False)
    assert found.status == 2
    assert said in found.err


def test_a_rule_is_made_by_hand_runs_and_can_be_asked_where_its_result_is_from(hiss) -> None:
    Path("total.py").write_text("def total(input):\n    return np.asarray(input).sum(axis=0)[None]\n")
    Path("rule.toml").write_text('trigger = "beam/*/frames"\nrecipe = "none"\n[outputs]\nsum = "{COLLECTION}/sum"\n')
    np.save("frames.npy", np.ones((5, 2, 3)))
    assert hiss("put", "frames.npy", "beam/scan1/frames").status == 0
    assert hiss("recipe", "add", "total", "total.py", "--function", "total").status == 0
    assert hiss("recipe", "ls", "--json").json[0]["kind"] == "function"
    assert "def total" in hiss("recipe", "show", "total").out
    added = hiss("pattern", "add", "every-scan", "--file", "rule.toml", "--recipe", "total", "--json").json
    assert added == {"pattern": "every-scan", "jobs": 1}
    shown = hiss("pattern", "show", "every-scan", "--json").json
    assert (shown["recipe"], shown["outputs"]) == ("total", {"sum": "{COLLECTION}/sum"})
    assert hiss("pattern", "ls", "--json").json[0]["rule"] is True
    job = hiss("job", "ls", "--json").json[0]
    assert hiss("job", "show", job["id"][:10], "--json").json["id"] == job["id"]
    assert (
        "beam/scan1/frames"
        in hiss("prov", "beam/scan1/frames", "--html", "prov.html").out + hiss("prov", "beam/scan1/frames").out
    )
    assert "<svg" in Path("prov.html").read_text()
    assert hiss("pattern", "rm", "every-scan").status == 0
    assert hiss("pattern", "ls", "--json").json == []
    assert hiss("job", "show", job["id"], "--json").json["state"] in ("cancelled", "done", "running")
    assert hiss("recipe", "rm", "total").status == 0


def test_what_a_limit_holds_back_is_listed_and_released(hiss) -> None:
    Path("say.py").write_text("def say(input):\n    print(input)\n")
    Path("rule.toml").write_text('trigger = "beam/*/frames"\nrecipe = "say"\njobs_expected = 1\n')
    np.save("frames.npy", np.ones((2, 3)))
    for number in range(3):
        assert hiss("put", "frames.npy", f"beam/scan{number}/frames").status == 0
    assert hiss("recipe", "add", "say", "say.py", "--function", "say").status == 0
    assert hiss("pattern", "add", "few", "--file", "rule.toml", "--json").json == {"pattern": "few", "jobs": 3}
    held = hiss("job", "ls", "--state", "held", "--json").json
    assert len(held) == 2
    assert "expects 1 jobs" in hiss("job", "show", held[0]["id"]).out
    released = hiss("job", "release", held[0]["id"][:12])
    assert released.status == 0
    assert "held" not in released.out  # it is queued, or has gone on already
    assert [job["id"] for job in hiss("job", "release", "--pattern", "few", "--json").json] == [held[1]["id"]]
    assert hiss("job", "ls", "--state", "held", "--json").json == []
    assert hiss("job", "release").status == 2
    assert hiss("job", "release", "--pattern", "none").status == 3


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("pattern", "add", "p", "--trigger", "a/b"), 2, "no recipe"),
        (("pattern", "add", "p", "--file", "bad.toml"), 2, "triger"),
        (("pattern", "show", "p"), 3, "p"),
        (("recipe", "show", "r"), 3, "r"),
        (("recipe", "add", "r", "bad.toml"), 2, "neither"),
        (("job", "show", "0123"), 3, "0123"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said(hiss, words: tuple[str, ...], status: int, said: str) -> None:
    Path("bad.toml").write_text('triger = "a/b"\n')
    found = hiss(*words)
    assert (found.status, said in found.err) == (status, True), found.err


def test_the_checkup_looks_at_this_machine(hiss, outside: Path) -> None:
    found = hiss("doctor", "--json", "--address", "127.0.0.1:1", "--data", str(outside / "new"), embedded=False)
    findings = {finding["what"]: finding for finding in json.loads(found.out)}
    assert findings["numpy"]["outcome"] == "ok"
    assert findings["compiler"]["outcome"] == "ok"
    assert "127.0.0.1:1" in findings["server"]["found"]
    assert not (outside / "new").exists()
    assert found.status == max(finding["outcome"] == "fail" for finding in findings.values())
    assert list(outside.iterdir()) == []


def test_the_checkup_fails_where_nothing_can_be_written(hiss, outside: Path) -> None:
    (outside / "file").write_text("in the way")
    found = hiss("doctor", "--json", "--data", str(outside / "file"), embedded=False)
    assert found.status == 2  # click: not a directory


def test_provenance_in_every_format_and_a_job_once_more(hiss, outside: Path) -> None:
    pytest.importorskip("rocrate", reason="pip install 'hiss[provenance]'")
    pytest.importorskip("prov", reason="pip install 'hiss[provenance]'")
    Path("double.py").write_text("def double(input):\n    return {'out': np.asarray(input) * 2}\n")
    Path("draw.py").write_text(
        "import os\ndef draw(input):\n    return {'noise': np.frombuffer(os.urandom(8), 'u1')}\n"
    )
    np.save("frames.npy", np.ones((2, 3)))
    assert hiss("put", "frames.npy", "beam/scan/frames").status == 0
    for name in ("double", "draw"):
        assert hiss("recipe", "add", name, f"{name}.py", "--function", name).status == 0
        words = ("pattern", "add", name, "--trigger", "beam/*/frames", "--recipe", name)
        assert hiss(*words, "--dry-run", "--json").json == {"pattern": name, "jobs": 1, "dry_run": True}
        assert hiss(*words, "--json").json == {"pattern": name, "jobs": 1}
    with client.open(outside.parent / "data") as buffer:
        wait_for(lambda: all(job.state.final for job in buffer.meow.jobs()), 60)
        jobs = {job.recipe: job.id for job in buffer.meow.jobs()}
    again = hiss("job", "rerun", jobs["double"])
    assert (again.status, "NOT" in again.out) == (0, False), again.out
    assert hiss("job", "rerun", jobs["draw"]).status == 1
    for form in ("text", "html", "json", "prov", "ro-crate"):
        said = hiss("prov", "beam/scan/out", "--format", form, "-o", f"made.{form}")
        assert (said.status, said.out) == (0, f"made.{form}\n"), said.err
    assert "@graph" in json.loads(Path("made.ro-crate/ro-crate-metadata.json").read_text())
    assert {"entity", "activity"} <= set(json.loads(Path("made.prov").read_text()))
    kinds = {node["kind"] for node in json.loads(Path("made.json").read_text())["nodes"]}
    assert kinds == {"instrument", "stream", "job"}
    assert "job double" in hiss("prov", "beam/scan/frames", "--down", "--recipe", "dou*").out
    assert "job draw" not in hiss("prov", "beam/scan/frames", "--down", "--recipe", "dou*").out
    assert hiss("prov", "beam/scan/out", "--format", "ro-crate").status != 0
