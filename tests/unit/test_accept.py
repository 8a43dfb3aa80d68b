from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from tests import accept


def memory_of(path: Path, **outcomes: str) -> accept.Memory:
    memory = accept.Memory(path, "state")
    memory.tests = {name: {"lines": [1], "outcome": outcome, "seconds": 1.0, "facts": {}}
                    for name, outcome in outcomes.items()}
    return memory


@pytest.mark.parametrize(("outcomes", "expected"), [
    ([], accept.NO_TEST),
    (["passed", "passed"], accept.SHOWN),
    (["passed", "skipped"], accept.SKIPPED),
    (["passed", ""], accept.OPEN),
    (["", "failed", "skipped"], accept.FAILED),
])
def test_a_line_is_shown_only_by_tests_that_all_passed(
        outcomes: list[str], expected: str) -> None:
    assert accept.verdict([{"outcome": outcome} for outcome in outcomes]) == expected


def test_memory_holds_for_the_same_sources_only(tmp_path: Path) -> None:
    path = tmp_path / "accept" / "topic.json"
    memory_of(path, one="passed").keep(["one"])
    assert accept.Memory(path, "state").tests["one"]["outcome"] == "passed"
    assert accept.Memory(path, "another").tests == {}
    # Another run has not heard of the first one's tests.
    other = memory_of(path, two="failed")
    other.keep(["two"])
    assert set(other.tests) == set(accept.Memory(path, "state").tests) == {"one", "two"}


def test_a_line_without_a_test_spoils_the_result(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept.subprocess, "run",
                        lambda *_, **__: accept.subprocess.CompletedProcess([], 0, "abc123\n"))
    memory = memory_of(tmp_path / "t.json", one="passed")
    memory.tests["one"]["facts"] = {"ratio": "9.8"}
    now = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    text, shown = accept.result("topic", 1, memory, now)
    assert shown
    assert "| 1 | shown | 1/1 | 1 | ratio 9.8 |" in text
    text, shown = accept.result("topic", 2, memory, now)
    assert not shown
    assert "| 2 | NO TEST | 0/0 |" in text
