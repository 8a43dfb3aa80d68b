"""Shared files of one real machine (Debian 12) after each install step,
trimmed to a few rows; a step that did not change a file does not repeat it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
STEPS = ("base", "apache", "mysql", "php")


@pytest.fixture
def states() -> Callable[[str], list[bytes | None]]:
    """The contents of a path after each of the four steps."""
    def read(path: str) -> list[bytes | None]:
        found: list[bytes | None] = []
        for step in STEPS:
            file = DATA / step / path
            before = found[-1] if found else None
            found.append(file.read_bytes() if file.exists() else before)
        return found
    return read
