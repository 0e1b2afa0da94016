"""The process that compiles is kept, replaced, and never outlives the one that it works for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hiss import limits
from hiss.errors import LimitExceeded
from hiss.kernels.compile_helper import CompileHelper

ANSWERS = "import os, sys\nfor line in sys.stdin:\n    print(line.rstrip() + '\\t' + str(os.getpid()), flush=True)\n"


def _helper(tmp_path: Path, script: str) -> CompileHelper:
    file = tmp_path / "script.py"
    file.write_text(script)
    return CompileHelper([sys.executable, "-P", str(file)], os.environ)


def _wait(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_outlives_the_directory_that_it_was_started_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = "import os, sys\nfor line in sys.stdin:\n    print(line.rstrip() + '\\t' + os.getcwd(), flush=True)\n"
    helper = _helper(tmp_path, answers)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    helper.warm()
    gone.rmdir()
    assert helper.compile([Path("/a")]) == {Path("/a"): "/"}
    helper.close()


def test_it_is_kept_and_replaced_after_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMPILER_FILES_MAX", 5)
    helper = _helper(tmp_path, ANSWERS)
    paths = [Path("a"), Path("b")]
    pids = []
    for _ in range(3):
        answer = helper.compile(paths)
        assert list(answer) == paths
        pids += answer.values()
    assert len(set(pids[:4])) == 1
    assert pids[4] == pids[5] != pids[0]
    helper.close()
    assert not any(_alive(int(pid)) for pid in pids)


def test_many_answers_at_once(tmp_path: Path) -> None:
    """They may come in one piece, or cut anywhere."""
    script = "import sys\nlines = [next(sys.stdin).rstrip() for _ in range(50)]\n"
    script += "text = ''.join(line + '\\tok\\n' for line in lines)\n"
    script += (
        "for part in (text[:7], text[7:]):\n    sys.stdout.write(part)\n    sys.stdout.flush()\nsys.stdin.read()\n"
    )
    helper = _helper(tmp_path, script)
    paths = [Path(f"f{k}") for k in range(50)]
    assert helper.compile(paths) == dict.fromkeys(paths, "ok")
    helper.close()


def test_one_that_dies_is_replaced(tmp_path: Path) -> None:
    flag = tmp_path / "died"
    script = f"import os, sys\nfrom pathlib import Path\nif not Path({str(flag)!r}).exists():\n"
    script += f"    Path({str(flag)!r}).touch()\n    os._exit(7)\n{ANSWERS}"
    helper = _helper(tmp_path, script)
    assert helper.compile([Path("a")]) == {Path("a"): "the compiling process ended with status 7"}
    assert helper.compile([Path("a")])[Path("a")].isdigit()
    helper.close()


def test_one_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KERNEL_COMPILE_S_MAX", 0.5)
    helper = _helper(tmp_path, "import signal\nsignal.pause()\n")
    with pytest.raises(LimitExceeded, match=r"longer than 0\.5 s"):
        helper.compile([Path("a")])
    helper.close()


def test_it_ends_with_the_process_it_works_for(tmp_path: Path) -> None:
    """Also where that was killed: its input ends."""
    pid = tmp_path / "pid"
    script = tmp_path / "helper.py"
    script.write_text(f"import os, sys\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\nsys.stdin.read()\n")
    code = "import os, signal, sys\nfrom hiss.kernels.compile_helper import CompileHelper\n"
    code += f"CompileHelper([sys.executable, {str(script)!r}], os.environ).warm()\nsignal.pause()\n"
    with subprocess.Popen([sys.executable, "-c", code]) as owner:
        _wait(lambda: pid.exists() and bool(pid.read_text()))
        assert _alive(int(pid.read_text()))
        owner.kill()
    _wait(lambda: not _alive(int(pid.read_text())))
