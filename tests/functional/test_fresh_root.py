"""Both entries on a bare Debian 12, from a clean clone of what is committed.

Never part of ``./run test``, which runs in there itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.functional.freshroot import CLONE, ROOT, FreshRoot, fresh_root

pytestmark = [pytest.mark.accept, pytest.mark.must_show("main-job", 1)]
#: Seconds that the demonstration and the tests may take, set-up included.
DEMO, TEST = 20 * 60.0, 35 * 60.0

Note = Callable[[str, object], None]


@pytest.fixture
def root() -> Iterator[FreshRoot]:
    with fresh_root(ROOT / ".cache") as made:
        yield made


def run(root: FreshRoot, command: str, limit: float, note: Note, log: Path) -> str:
    began = time.monotonic()
    done = root.run("./run", command, log=log, timeout=limit)
    note(f"{command} on a bare machine", f"{time.monotonic() - began:.0f} s")
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_the_demonstration(root: FreshRoot, record_property: Note, tmp_path: Path) -> None:
    output = run(root, "demo", DEMO, record_property, tmp_path / "demo.log")
    report = Path(output.rpartition("report: ")[2].strip())
    assert report.is_relative_to(CLONE)
    page = (root.path / report.relative_to("/")).read_text()
    assert page.count('class="tag') == 5, "five launches are reported"
    # It repeats no set-up: there is nothing to fetch anything from.
    again = root.run("./run", "setup", network=False)
    assert (again.returncode, again.stdout) == (0, "")
    assert (root.path / CLONE.lstrip("/") / ".venv/bin/splitimage").exists()
    assert root.run("git", "status", "--porcelain").stdout == "", "all it makes is ignored"


def test_the_tests(root: FreshRoot, record_property: Note, tmp_path: Path) -> None:
    output = run(root, "test", TEST, record_property, tmp_path / "test.log")
    summary = output.rstrip().rpartition("\n")[2]
    assert " passed" in summary and "failed" not in summary and "error" not in summary
    record_property("tests", summary.strip("= "))
