"""The file of launch --batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from splitimage_driver import exceptions
from splitimage_driver.cli import batch


def write(path: Path, content: Any) -> Path:
    file = path / "batch.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_entries_have_the_names_of_the_options(tmp_path: Path) -> None:
    [one, two] = batch.read(write(tmp_path, [
        {"composite": "lamp", "parts": ["apache"], "filesets": ["page"], "name": "web",
         "on_conflict": {"/etc/motd": "keep"}, "count": 3, "publish": "never", "memory": 512,
         "cpus": 1, "ports": [22], "wait": 80, "path": "/", "timeout": 5},
        {"composite": "lamp"}]))
    assert one.parts == ("apache",)
    assert one.on_conflict == {"/etc/motd": "keep"}
    assert (one.count, one.memory, one.timeout) == (3, 512, 5.0)
    assert (two.count, two.publish, two.ports, two.wait) == (1, None, None, None)


@pytest.mark.parametrize(("content", "place"), [
    ([{"composite": "lamp"}, {"composite": "lamp", "part": ["apache"]}], "$[1]"),
    ([{"composite": "lamp", "parts": "apache"}], "$[0].parts"),
    ([{"composite": "lamp", "ports": [80, 65536]}], "$[0].ports[1]"),
    ([{"composite": "lamp", "count": 0}], "$[0].count"),
    ([{"composite": "lamp", "on_conflict": {"/etc/motd": "maybe"}}], "$[0].on_conflict"),
    ([{"composite": "lamp", "name": "../x"}], "$[0].name"),
    ([{"composite": "lamp", "publish": "often"}], "$[0].publish"),
    ({"composite": "lamp"}, "Expected `array`"),
    ([], "no request"),
    ("[{", "batch.json"),
])
def test_what_is_wrong_is_named_with_its_place(content: Any, place: str, tmp_path: Path) -> None:
    with pytest.raises(exceptions.InvalidInput) as caught:
        batch.read(write(tmp_path, content))
    assert place in str(caught.value)
    assert "batch.json" in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(exceptions.InvalidInput, match="No such file"):
        batch.read(tmp_path / "absent.json")
