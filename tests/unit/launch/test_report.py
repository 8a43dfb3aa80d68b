"""What is believed of a console on which anybody in the guest can write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitimage_driver.launch import report
from splitimage_driver.model.layout import COMPLETE, FAILED, LAYING, REFUSE, REMOVE, Layout

ID = "0123456789ab"
LAYOUT = Layout(id=ID, parts=("apache", "php"), size=1000, attached=True)


def line(event: str, *, id: str = ID, **fields: Any) -> bytes:
    return b"\n" + json.dumps({"splitimage": id, "event": event, **fields},
                              separators=(",", ":")).encode() + b"\n"


def told(*lines: bytes, layout: Layout = LAYOUT) -> Layout:
    return msgspec.structs.replace(report.heard(layout, b"".join(lines)), heard=0)


def test_from_begin_to_end() -> None:
    begun = told(line("begin", bytes=1000), line("progress", bytes=450, total=1000))
    assert (begun.state, begun.done, begun.percent) == (LAYING, 450, 45)
    done = told(line("part", part="apache", state="complete"), line("progress", bytes=1000),
                line("unit", unit="apache2.service", state="started"), layout=begun)
    assert (done.state, done.percent) == (LAYING, 99)
    over = told(line("end", state="complete", failed={}, kept=["/etc/motd"], kept_count=1),
                layout=done)
    assert (over.state, over.percent, over.failed) == (COMPLETE, 100, {})
    assert (over.kept, over.kept_count, over.attached) == (("/etc/motd",), 1, True)
    assert not over.settled
    assert told(line("end", state="failed", failed={"x": "y"}), layout=over) == over


def test_what_failed() -> None:
    failed = told(line("part", part="php", state="failed", reason="its disk is damaged"),
                  line("unit", unit="apache2.service", state="failed", reason="exit code 1"))
    assert failed.failed == {"php": "its disk is damaged", "apache2.service": "exit code 1"}
    assert told(line("part", part="php", state="complete"), layout=failed).failed == {
        "apache2.service": "exit code 1"}
    over = told(line("end", state="failed", failed={"php": "its disk is damaged"}),
                layout=failed)
    assert (over.state, over.failed) == (FAILED, {"php": "its disk is damaged"})
    # an end that lost its list does not lose what was told before
    assert told(line("end", state="failed"), layout=failed).failed == failed.failed


def test_a_refused_removal() -> None:
    asked = msgspec.structs.replace(LAYOUT, mode=REMOVE, policy=REFUSE)
    over = told(line("end", state="failed", kept=["/etc/php.ini"], kept_count=30), layout=asked)
    assert over.refused and over.over and over.kept_count == 30
    assert not told(line("end", state="failed", failed={"x": "disk full"}), layout=asked).over


def test_what_is_no_report_of_this_plan_is_nothing() -> None:
    for text in (line("end", id="ba9876543210", state="complete"), line("end", state="perhaps"),
                 line("dance"), b'{"splitimage":"0123456789ab","event":"end","state":"compl',
                 b'{"splitimage":"0123456789ab","event":"end","state":"complete"} trailing\n',
                 b'{"splitimage":[1],"event":"end","state":"complete"}\n',
                 b'{"splitimage":"0123456789ab","event":"end","state":"complete","failed":3}\n',
                 line("end", state="complete", failed={"x" * 5000: "y"}),
                 b'[' * 4000 + b"\n", b'{"splitimage":' + b"[" * 4000 + b"\n"):
        assert told(text) == LAYOUT


def test_what_a_kernel_says_before_a_report_does_not_hide_it() -> None:
    assert told(b"[    9.1] sd 0:0:0:0: " + line("end", state="complete")[1:]).state == COMPLETE
    assert told(line("end", state="complete").replace(b"}", b"}\r")).state == COMPLETE


def test_unknown_fields_are_ignored() -> None:
    assert told(line("progress", bytes=7, weather=["fine", {"x": 1}])).done == 7


def test_an_end_of_an_earlier_attempt_is_none_of_this_one() -> None:
    again = msgspec.structs.replace(LAYOUT, begun=False)
    late = told(line("end", state="failed", failed={"php": "x"}), layout=again)
    assert late.state == LAYING
    assert told(line("begin", bytes=9), line("end", state="complete"),
                layout=late).state == COMPLETE


def test_all_is_bounded_and_printable() -> None:
    over = told(line("end", state="failed", failed={f"part{n}": "" for n in range(60)},
                     kept=["/a\x1b[2J", "/ü"] * 40, kept_count=-5))
    assert over.kept[:2] == ("/a?[2J", "/ü") and len(over.kept) == 20
    assert over.kept_count == 20
    assert told(line("progress", bytes=10**30)) in (LAYOUT, told(line("progress", bytes=1000)))
    assert told(line("progress", bytes=10**12)).done == 1000
    assert told(line("progress", bytes=-1)).done == 0
    many = told(*(line("part", part=f"p{n}", state="failed", reason="r" * 2000)
                  for n in range(300)))
    assert len(many.failed) == 100 and {len(r) for r in many.failed.values()} == {500}


def test_a_line_is_heard_when_it_has_ended() -> None:
    whole = line("begin", bytes=1000) + line("progress", bytes=500)
    for cut in range(len(whole)):
        first = report.heard(LAYOUT, whole[:cut])
        assert first.heard <= cut
        assert told(whole[first.heard:], layout=first).done == 500
    # bytes without an end are not kept for ever
    assert report.heard(LAYOUT, b"x" * 5000).heard == 5000


def test_a_console_is_read_on_from_where_it_was_read(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    assert report.read(LAYOUT, console) == LAYOUT
    assert report.size(console) == 0
    console.write_bytes(b"booting\n" + line("progress", bytes=100) + b'{"splitimage":"012')
    first = report.read(LAYOUT, console)
    assert (first.done, report.size(console)) == (100, console.stat().st_size)
    with console.open("ab") as log:
        log.write(b'3456789ab","event":"end","state":"complete"}\n')
    assert report.read(first, console).state == COMPLETE
    # a new console in its place is read from its beginning
    console.write_bytes(line("progress", bytes=5))
    assert report.read(first, console).done == 5


def test_of_a_console_that_was_filled_up_the_end_is_read(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_MOST", 4096)
    console = tmp_path / "console.log"
    console.write_bytes(b"noise\n" * 10000 + line("end", state="complete"))
    found = report.read(LAYOUT, console)
    assert (found.state, found.heard) == (COMPLETE, console.stat().st_size)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6)
_KEYS = st.sampled_from(("event", "state", "bytes", "part", "unit", "reason", "failed", "kept",
                         "kept_count", "other"))
_EVENTS = st.sampled_from(("begin", "progress", "part", "unit", "end"))
_OURS = st.builds(
    lambda event, fields: line("x").replace(b'"x"', json.dumps(event).encode())[:-2]
    + b"," + json.dumps(fields).encode()[1:] + b"\n",
    _EVENTS, st.dictionaries(_KEYS.filter(lambda k: k != "event"), _JSON, min_size=1))
_ANY = st.lists(st.binary(max_size=300) | _OURS, max_size=8).map(b"".join)


@given(_ANY, _ANY)
def test_whatever_a_guest_writes_is_a_record(first: bytes, second: bytes) -> None:
    found = report.heard(LAYOUT, first)
    text = first[found.heard:] + second
    found = report.heard(found, text)
    assert (found.id, found.parts, found.size, found.disks) == (
        ID, LAYOUT.parts, LAYOUT.size, LAYOUT.disks)
    assert 0 <= found.done <= found.size and 0 <= found.percent <= 100
    assert found.state in (LAYING, COMPLETE, FAILED)
    assert 0 <= found.heard <= len(first) + len(second)
    assert len(found.failed) <= 100 and len(found.kept) <= 20
    shown = [*found.failed, *found.failed.values(), *found.kept]
    assert all(text.isprintable() and len(text) <= 1000 for text in shown)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Layout) == found


@given(st.binary(max_size=400), st.integers(0, 400))
def test_where_it_was_cut_makes_no_difference(noise: bytes, cut: int) -> None:
    text = noise + line("progress", bytes=321)
    part = report.heard(LAYOUT, text[:cut])
    assert report.heard(part, text[part.heard:]) == report.heard(LAYOUT, text)
