"""``./run accept TOPIC``: every test of a must-show list, resumable.

A test that is marked ``must_show(TOPIC, line)`` is evidence for that line.
What passed is remembered with the state of the sources it passed on, so an
interrupted run goes on where it stopped, and a changed source starts anew.
``./run accept TOPIC -- -k WORDS`` runs some of them; two such runs may go on
side by side.
The numbers that a test records (``record_property``) go into the result.

``.cache/accept/TOPIC.json`` is the memory, ``.cache/accept/TOPIC-DATE.md``
the result: one line a must-show line.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".cache" / "accept"
#: What can change a test's outcome.
SOURCES = ("splitimage_driver", "nova", "demo", "tests", "etc", "run", "setup.cfg",
           "requirements.txt", "constraints.txt", "bindep.txt", "pyproject.toml")
SHOWN, FAILED, SKIPPED, OPEN, NO_TEST = "shown", "FAILED", "skipped", "not run", "NO TEST"


def sources() -> str:
    """A digest of the sources as they are now, committed or not."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SOURCES],
        cwd=ROOT, check=True, capture_output=True).stdout
    digest = hashlib.sha256()
    for name in sorted(filter(None, listed.split(b"\0"))):
        path = ROOT / os.fsdecode(name)
        if path.is_file():
            digest.update(b"%s\0%s\0" % (name, hashlib.sha256(path.read_bytes()).digest()))
    return digest.hexdigest()


class Memory:
    """Outcome of each test on one state of the sources.

    :ivar tests: node id to ``lines``, ``outcome`` ("" until it ran),
        ``seconds``, ``facts`` (name to value) and ``reason``
    """

    def __init__(self, path: Path, state: str) -> None:
        self.path, self.state = path, state
        self.tests = self._kept()

    def _kept(self) -> dict[str, dict[str, Any]]:
        if self.path.exists():
            told = json.loads(self.path.read_text())
            if told.get("sources") == self.state:
                return dict(told["tests"])
        return {}

    def keep(self, names: Iterable[str], *, ran: bool = True) -> None:
        """What is known of these tests; another run may keep others.

        :param ran: here; else what another run knows of one of them counts
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            mine, others = {name: self.tests[name] for name in names}, self._kept()
            self.tests = others | mine if ran else mine | others
            beside = self.path.with_suffix(".new")
            beside.write_text(json.dumps({"sources": self.state, "tests": self.tests}, indent=1))
            beside.replace(self.path)


class Selection:
    """The pytest plugin: takes the topic's tests, skips what passed, remembers.
    What ``-k`` leaves out counts as not run."""

    def __init__(self, topic: str, memory: Memory) -> None:
        self.topic, self.memory = topic, memory

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config,
                                      items: list[pytest.Item]) -> Iterator[None]:
        tests = self.memory.tests
        for item in items:
            lines = sorted({mark.kwargs.get("line", mark.args[-1])
                            for mark in item.iter_markers("must_show")
                            if mark.kwargs.get("topic", mark.args[0] if mark.args else "")
                            == self.topic})
            if lines:
                tests[item.nodeid] = tests.get(item.nodeid, {"outcome": ""}) | {"lines": lines}
        self.memory.keep([item.nodeid for item in items if item.nodeid in tests], ran=False)
        tests = self.memory.tests
        yield
        chosen = [item for item in items
                  if tests.get(item.nodeid, {}).get("outcome", "passed") != "passed"]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.memory.tests[report.nodeid]
        if report.when == "setup":
            test |= {"outcome": "", "seconds": 0.0, "facts": {}, "reason": ""}
        test["seconds"] += report.duration
        if report.outcome != "passed":
            test["reason"] = _reason(report)
        if test["outcome"] in ("", "passed") and (report.when == "call"
                                                  or report.outcome != "passed"):
            test["outcome"] = report.outcome
        if report.when == "teardown":
            test["facts"] = {name: str(value) for name, value in report.user_properties}
            self.memory.keep([report.nodeid])


def _reason(report: pytest.TestReport) -> str:
    told = report.longrepr
    text = str(told[-1]) if isinstance(told, tuple) else report.longreprtext
    return text.strip().rpartition("\n")[2][:300]


def verdict(tests: list[dict[str, Any]]) -> str:
    """One word for a line from the outcomes of its tests."""
    outcomes = {test["outcome"] for test in tests}
    if not tests:
        return NO_TEST
    if "failed" in outcomes:
        return FAILED
    if "" in outcomes:
        return OPEN
    return SKIPPED if "skipped" in outcomes else SHOWN


def result(topic: str, lines: int, memory: Memory, now: datetime.datetime) -> tuple[str, bool]:
    """The dated result in Markdown, and whether all lines are shown."""
    head = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, check=False,
                          capture_output=True, text=True).stdout.strip()
    text = [f"# {topic}, {now:%Y-%m-%d %H:%M}", "",
            f"Commit {head or 'unknown'}, sources {memory.state[:12]}; "
            f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
            "", "| line | verdict | tests | seconds | measured |", "|---|---|---|---|---|"]
    verdicts = []
    for line in range(1, lines + 1):
        tests = [test for test in memory.tests.values() if line in test["lines"]]
        verdicts.append(verdict(tests))
        facts = "; ".join(f"{name} {value}" for test in tests
                          for name, value in test.get("facts", {}).items())
        passed = sum(test["outcome"] == "passed" for test in tests)
        seconds = sum(test.get("seconds", 0.0) for test in tests)
        text.append(f"| {line} | {verdicts[-1]} | {passed}/{len(tests)} | {seconds:.0f} "
                    f"| {facts.replace('|', '/')} |")
    missed = [f"- `{name}`: {test['outcome'] or OPEN} {test.get('reason', '')}"
              for name, test in sorted(memory.tests.items()) if test["outcome"] != "passed"]
    if missed:
        text += ["", "Not passed:", "", *missed]
    return "\n".join(text) + "\n", all(word == SHOWN for word in verdicts)


def main() -> int:
    topics = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["splitimage"]["accept"]
    parser = argparse.ArgumentParser(prog="./run accept", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topic", nargs="?", default="main-job", choices=sorted(topics))
    parser.add_argument("--again", action="store_true", help="forget what passed already")
    parser.add_argument("pytest", nargs="*", metavar="ARG", help="for pytest, after --")
    options = parser.parse_args()
    os.chdir(ROOT)
    state = sources()
    path = STATE / f"{options.topic}.json"
    if options.again:
        path.unlink(missing_ok=True)
    memory = Memory(path, state)
    status = pytest.main(["-m", "", "tests", *options.pytest], [Selection(options.topic, memory)])
    if sources() != state:
        print("the sources changed meanwhile: what passed does not count for them",
              file=sys.stderr)
    memory.keep(())  # with what another run has done meanwhile
    now = datetime.datetime.now(tz=datetime.UTC).astimezone()
    text, shown = result(options.topic, topics[options.topic], memory, now)
    where = STATE / f"{options.topic}-{now:%Y-%m-%d}.md"
    where.write_text(text)
    print(text)
    print(where)
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return int(status)
    return 0 if shown else 1


if __name__ == "__main__":
    sys.exit(main())
