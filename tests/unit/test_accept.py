from __future__ import annotations

import datetime
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import accept, groups

#: Lines that the sample of ``./run test`` shows nothing of, and why.
NOT_SAMPLED = {
    ("glance", 5): "it is a measurement of minutes in a cloud",
    ("main-job", 5): "it is a measurement, and benchmarks are no tests",
    ("nova", 5): "nova-compute is killed and started again for each test, minutes each",
    ("nova", 6): "servers have to outlive the time after which Nova's cache is emptied",
    ("nova", 8): "what is bounded is many servers' images",
    ("nova", 9): "it takes two compute hosts, and servers on both",
    ("planning", 3): "it is a measurement, and benchmarks are no tests",
    ("streams", 3): "it is a measurement, and benchmarks are no tests",
}


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


def test_a_run_that_begins_takes_nothing_back_that_another_one_showed(tmp_path: Path) -> None:
    path = tmp_path / "topic.json"
    memory_of(path, one="").keep(["one"])
    begins = accept.Memory(path, "state")
    memory_of(path, one="passed").keep(["one"])
    begins.tests["two"] = {"outcome": ""}
    begins.keep(["one", "two"], ran=False)
    assert {name: test["outcome"] for name, test in accept.Memory(path, "state").tests.items()} == {
        "one": "passed", "two": ""}
    assert begins.tests["one"]["outcome"] == "passed"


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


class Collected:
    """The pytest plugin: remembers all tests, before any is left out."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Iterator[None]:
        self.items = list(items)
        yield


@pytest.fixture(scope="module")
def items() -> list[pytest.Item]:
    """All tests that there are."""
    found = Collected()
    status = pytest.main(["--collect-only", "-p", "no:terminal", "-o",
                          "addopts=--import-mode=importlib", str(accept.ROOT / "tests")], [found])
    assert status == pytest.ExitCode.OK
    return found.items


def test_what_is_made_once_is_asked_for_in_one_process(items: list[pytest.Item]) -> None:
    assert groups.strayed(items) == []
    assert len({groups.group(item.path) for item in items}) > len(groups.GROUPS)


@pytest.fixture(scope="module")
def shown(items: list[pytest.Item]) -> dict[tuple[str, int], set[bool]]:
    """Topic and line to whether its tests are in the sample: some are, or some
    are not, or both."""
    settings: Any = tomllib.loads((accept.ROOT / "pyproject.toml").read_text())["tool"]
    sampled = [accept.ROOT / path for path in settings["pytest"]["ini_options"]["testpaths"]]
    lines: dict[tuple[str, int], set[bool]] = defaultdict(set)
    for item in items:
        here = item.get_closest_marker("accept") is None and any(
            item.path.is_relative_to(path) for path in sampled)
        for mark in item.iter_markers("must_show"):
            lines[mark.kwargs.get("topic", mark.args[0] if mark.args else ""),
                  mark.kwargs.get("line", mark.args[-1] if mark.args else 0)].add(here)
    assert {topic for topic, _ in lines} <= set(settings["splitimage"]["accept"])
    return lines


def test_every_line_that_has_a_test_has_one_in_the_sample(
        shown: dict[tuple[str, int], set[bool]]) -> None:
    """So that no change is accepted that breaks what must be shown and is not
    even tried."""
    assert {line for line, here in shown.items() if True not in here} == set(NOT_SAMPLED)
