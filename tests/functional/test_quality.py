"""The tools' word on the sources, and the unit tests seen from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.accept, pytest.mark.must_show("main-job", 9)]
ROOT = Path(__file__).resolve().parent.parent.parent
#: Seconds of one processor, so that what else the host does is not counted.
UNIT_TESTS = 60.0
_UNIT = """
import json, resource, sys, pytest
status = pytest.main(["-q", "-p", "no:cacheprovider", "tests/unit"])
own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF,
                                                   resource.RUSAGE_CHILDREN))
print(json.dumps({"status": status, "seconds": own.ru_utime + own.ru_stime,
                  "children": others.ru_maxrss}))
"""

Note = Callable[[str, object], None]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)


def test_ruff_finds_nothing() -> None:
    done = run("-m", "ruff", "check", ".")
    assert done.returncode == 0, done.stdout


def test_mypy_finds_nothing() -> None:
    done = run("-m", "mypy")
    assert done.returncode == 0, done.stdout


def test_the_unit_tests_take_less_than_a_minute_and_start_no_process(
        record_property: Note) -> None:
    done = run("-c", _UNIT)
    told = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    assert told["status"] == 0, done.stdout[-2000:]
    record_property("unit tests", f"{told['seconds']:.0f} s")
    assert told["seconds"] < UNIT_TESTS
    assert told["children"] == 0, "a process that was waited for leaves a size"
