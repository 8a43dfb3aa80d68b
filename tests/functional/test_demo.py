"""The demonstration in small: one part, launched twice.

All of it runs in test_fresh_root.py."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from demo import gold
from demo.__main__ import Demo


@pytest.mark.must_show("main-job", 1)
def test_the_demonstration_in_small(tmp_path: Path) -> None:
    output = io.StringIO()
    demo = Demo(tmp_path / "demo", steps=gold.LAMP[:1], console=Console(file=output, width=80),
                requests=(("apache", ("apache",), False), ("apache again", ("apache",), False)))
    path = demo.run()
    demo.tell(path)
    first, again = demo.rows
    assert (first["match"], first["candidate"]) == ("base", "lamp")
    assert (again["match"], again["candidate"]) == ("exact", "lamp+apache")
    assert first["bytes_injected"] > 1e6 > again["bytes_injected"] == 0
    assert all(row["http_seconds"] and row["boot_seconds"] for row in demo.rows)
    assert {(e["name"], e["kind"]) for e in demo.timeline} == {
        ("gold machine", "build"), ("composite image", "capture"), ("apache", "assemble"),
        ("apache", "boot"), ("apache again", "assemble"), ("apache again", "boot")}
    page = path.read_text()
    assert "lamp+<wbr>apache" in page and page.count("<rect ") == 6
    assert "HTTP 200" in output.getvalue()
