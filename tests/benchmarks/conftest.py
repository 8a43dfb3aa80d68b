"""One table at the end of the run, and a JSON file beside the caches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.benchmarks.results import Results, machine

_RESULTS = pytest.StashKey[Results]()


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    found = Results()
    found.facts = machine()
    request.config.stash[_RESULTS] = found
    yield found
    if found.seconds:
        found.facts["written to"] = str(found.save())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter,
                            config: pytest.Config) -> None:
    found = config.stash.get(_RESULTS, None)
    if found is not None and found.seconds:
        terminalreporter.section("benchmarks")
        for line in found.lines():
            terminalreporter.write_line(line)
