"""kill -9 of a process that uses a storage: everything that it was promised is there, byte for byte, and it goes on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .audit import Audit, Broken, Promises
from .victims import Victims, promised, recover


def rounds(victims: Victims, directory: Path, seed: int, count: int, control: str = "") -> Audit:
    """Kill one after another on the same directory, each after some answers."""
    rng = random.Random(seed)
    promises, audit = Promises(), Audit()
    for round_ in range(count):
        victim = victims.new(directory, seed * 1000 + round_, control=control)
        victim.start()
        victim.read(until=rng.randint(1, 30))
        victim.kill()
        victim.wait()
        audit.acknowledged += promised(victim.lines, promises)
        recover(directory, promises, audit).close()
    return audit


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_process_loses_nothing_acknowledged(victims, memory_dir, tally, seed):
    audit = rounds(victims, memory_dir / "buffer", seed, 20)
    assert audit.acknowledged > 100
    tally("kill -9", audit, kills=20)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 180))
def test_a_killed_process_at_length(victims, memory_dir, tally, seed):
    tally("kill -9", rounds(victims, memory_dir / "buffer", seed, 25), kills=25)


@pytest.mark.control
def test_answers_before_the_work_are_found_out(victims, memory_dir, tally):
    """The negative control: a process that says durable before it has written anything."""
    for seed in range(40):
        try:
            rounds(victims, memory_dir / f"buffer{seed}", seed, 3, control="early")
        except Broken:
            tally.control("kill -9")
            return
    pytest.fail("120 kills did not find that it answers before it has written")
