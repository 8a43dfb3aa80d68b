from __future__ import annotations

import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from demo import report

ROW = {"request": "{apache}", "match": "exact", "candidate": "lamp+apache",
       "predicted_cost": 0.0, "bytes_fetched": 0, "bytes_injected": 1234567,
       "assembly_seconds": 0.21, "boot_seconds": 20.0, "http_seconds": None}


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        # Self-contained: nothing is loaded from anywhere.
        assert not {"src", "href"} & {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_a_row_is_shown_with_units_and_a_dash_for_the_unknown() -> None:
    text = read(report.render([ROW], [], {"Machine": "2 cores"})).text
    for word in ("{apache}", "exact", "lamp+apache", "1.2 MB", "0.2 s", "20.0 s",
                 "\N{EN DASH}", "2 cores"):
        assert word in text


def test_names_are_text_not_markup() -> None:
    bad = "<script>alert(1)</script>"
    page = report.render([ROW | {"request": bad}],
                         [{"name": bad, "start": 0, "end": 1, "kind": bad}], {bad: bad})
    assert "script" not in read(page).tags


def test_the_picture_has_a_bar_for_each_event_in_proportion() -> None:
    page = report.render([], [{"name": "one", "start": 10.0, "end": 20.0, "kind": "assemble"},
                              {"name": "one", "start": 20.0, "end": 25.0, "kind": "boot"},
                              {"name": "two", "start": 25.0, "end": 30.0, "kind": "own"}], {})
    picture = ET.fromstring(page[page.index("<svg"):page.index("</svg>") + 6])  # noqa: S314 - our own
    bars = picture.findall("rect")
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert len(bars) == 3
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert float(bars[1].attrib["x"]) == pytest.approx(
        float(bars[0].attrib["x"]) + widths[0], abs=0.2)
    assert len({bar.attrib["y"] for bar in bars}) == 2
    assert read(page).text.count("own") == 2  # its name in the picture and in the key


@pytest.mark.parametrize(("value", "shown"), [
    (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (133_900_000, "134 MB"), (1.5e9, "1.50 GB")])
def test_sizes(value: float, shown: str) -> None:
    assert report.size(value) == shown
