"""What of the test cloud needs no process."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from tests.cloud import CloudError, config, nonetwork
from tests.cloud.__main__ import overrides, parser
from tests.cloud.compute import Compute
from tests.cloud.machines import Machine
from tests.cloud.service import Site
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


def test_a_compute_host_has_its_own_options(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.state.set_done("hardware virtualisation", "no")
    site.state.settings = Settings(hosts=2, overrides={
        "nova.conf": {"DEFAULT": {"a": "1", "b": "1", "c": "1"}},
        "nova-compute.conf": {"DEFAULT": {"b": "2", "c": "2"}},
        "nova-compute-2.conf": {"DEFAULT": {"c": "3", "compute_driver": "fake.FakeDriver"}},
        "splitimage-compute-1.conf": {"assembly": {"max_parallel": "2"}}})
    told = [Compute(Machine(site, number)).files() for number in (1, 2)]
    first, second = (_read(files["nova.conf"])["DEFAULT"] for files in told)
    assert (first["host"], first["a"], first["b"], first["c"]) == ("host-1", "1", "2", "2")
    assert (second["host"], second["a"], second["b"], second["c"]) == ("host-2", "1", "2", "3")
    assert first["compute_driver"] == "splitimage.SplitImageDriver"
    assert second["compute_driver"] == "fake.FakeDriver"
    assert first["state_path"] == second["state_path"]
    assert "database" not in _read(told[0]["nova.conf"])
    stores = [_read(files["splitimage.conf"]) for files in told]
    assert stores[0]["store"]["path"] != stores[1]["store"]["path"]
    assert ["assembly" in store for store in stores] == [True, False]


def test_without_this_projects_driver_nova_is_not_told_of_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.state.set_done("hardware virtualisation", "yes")
    site.state.settings = Settings(hosts=1, compute_driver="stock")
    told = _read(Compute(Machine(site, 1)).files()["nova.conf"])
    assert told["DEFAULT"]["compute_driver"] == "libvirt.LibvirtDriver"
    assert "splitimage" not in told
    assert "SplitImage" not in told["filter_scheduler"]["weight_classes"]
    assert told["libvirt"]["virt_type"] == "kvm"
    assert "devices" not in Machine(site, 1).files()["setup.sh"]


def test_hosts_have_addresses_of_one_network_that_is_kept(tmp_path: Path) -> None:
    state = State(tmp_path / "state.json")
    first, second = state.address(1), state.address(2)
    assert first.startswith("127.") and first.endswith(".1")
    assert second == first.removesuffix("1") + "2"
    assert State(tmp_path / "state.json").address(1) == first


@pytest.mark.parametrize(("words", "hosts"), [
    ([], None), (["--hosts", "0"], 0), (["--hosts", "2"], 2)])
def test_how_many_hosts(words: list[str], hosts: int | None) -> None:
    assert parser().parse_args(["up", *words]).hosts == hosts


@pytest.mark.parametrize("words", [["--hosts", "-1"], ["--hosts", "10"],
                                   ["--compute-driver", "none"]])
def test_what_cannot_be_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["up", *words])


@pytest.mark.parametrize(("method", "path", "status", "key"), [
    ("GET", "/", "200 OK", "versions"), ("GET", "/v2.0/ports", "200 OK", "ports"),
    ("GET", "/v2.0/security-groups.json", "200 OK", "security_groups"),
    ("GET", "/v2.0/ports/1", "404 Not Found", "NeutronError"),
    ("POST", "/v2.0/ports", "501 Not Implemented", "NeutronError")])
def test_there_are_no_networks(method: str, path: str, status: str, key: str) -> None:
    answer = nonetwork.answer(method, path)
    assert (answer[0], list(answer[1])) == (status, [key])


def _read(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(default_section="none")
    parser.read_string(text)
    return parser
