"""What of the test cloud needs no process."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from tests.cloud import CloudError, config
from tests.cloud.__main__ import overrides
from tests.cloud.state import Settings, State, write_private


def test_overrides_lie_over_what_is_needed_and_what_is_packaged() -> None:
    text = config.text(
        {"DEFAULT": {"a": 1, "b": 2}},
        {"DEFAULT": {"b": "", "c": "50%"}, "composite:api": {"keystone": "x y"}, "new": {"d": "e"}},
        "[composite:api]\npaste.factory = m:f\n/: api\nkeystone = x\n")
    parser = configparser.RawConfigParser(default_section="none")
    parser.read_string(text)
    assert {name: dict(parser[name]) for name in parser.sections()} == {
        "composite:api": {"paste.factory": "m:f", "/": "api", "keystone": "x y"},
        "DEFAULT": {"a": "1", "c": "50%"}, "new": {"d": "e"}}


def test_state_is_kept_and_for_its_owner_only(tmp_path: Path) -> None:
    first = State(tmp_path / "state.json")
    settings = Settings(glance_workers=2, overrides={"f": {"s": {"o": "v"}}})
    first.settings = settings
    told = [first.password("a"), first.password("b"), first.port("a"), first.port("b")]
    again = State(tmp_path / "state.json")
    assert [again.password("a"), again.password("b"), again.port("a"), again.port("b")] == told
    assert (again.mark, again.settings) == (first.mark, settings)
    assert len(set(told)) == len(told)
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    again.choose_port("a", 20001)
    assert State(tmp_path / "state.json").port("a") == 20001


def test_a_damaged_state_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"ports": [')
    with pytest.raises(CloudError, match=r"state\.json is damaged"):
        State(tmp_path / "state.json")


def test_the_same_text_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, "one")
    before = path.stat().st_ino
    write_private(path, "one")
    assert path.stat().st_ino == before
    write_private(path, "two")
    assert (path.read_text(), [p.name for p in tmp_path.iterdir()]) == ("two", ["file"])


def test_an_overrides_file(tmp_path: Path) -> None:
    path = tmp_path / "o.toml"
    path.write_text('["glance-api.conf".DEFAULT]\nquota = "1"\n[environment]\nA = "b"\n')
    assert overrides(path) == ({"glance-api.conf": {"DEFAULT": {"quota": "1"}}}, {"A": "b"})
    assert overrides(Path("/dev/null")) == ({}, {})
    path.write_text('["glance-api.conf".DEFAULT]\nquota = 1\n')
    with pytest.raises(CloudError, match=r"o\.toml: Expected `str`"):
        overrides(path)
