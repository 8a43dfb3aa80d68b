"""Without a composite Nova behaves as with its stock driver: OpenStack's own tests
of it, run with both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.functional import bootrecord, tinyguest
from tests.functional.tempest import runs

if TYPE_CHECKING:
    from tests.functional.novacloud import Host, NovaCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud")
pytestmark = [pytest.mark.accept, pytest.mark.must_show("nova", 3)]

STOCK, OURS = "stock", "splitimage"
#: As Nova's log has them.
CLASSES = {STOCK: "libvirt.LibvirtDriver", OURS: "splitimage.SplitImageDriver"}
#: Each test makes users of its own, and tells nobody their passwords.
QUICK = {"keystone.conf": {"identity": {"password_hash_rounds": "4"},
                           "cache": {"backend": "dogpile.cache.memory"}}}
#: What must be among the tests that pass.
AREAS = {
    "snapshot": r"test_create_delete_image", "rebuild": r"test_rebuild_server",
    "rescue": r"test_rescue_unrescue_instance", "shelve": r"test_shelve_unshelve_server",
    "resize, confirmed": r"test_resize_server_confirm",
    "resize, reverted": r"test_resize_server_revert",
    "cold migration": r"test_cold_migration", "block live migration": r"test_live_block_migration"}

Note = Callable[[str, object], None]


@pytest.fixture(scope="module")
def tempest() -> runs.Tempest:
    tempest = runs.Tempest()
    tempest.install()
    return tempest


@pytest.fixture(scope="module")
def ready(two_hosts: NovaCloud, tempest: runs.Tempest,
          tmp_path_factory: pytest.TempPathFactory) -> Iterator[NovaCloud]:
    """A cloud that the tests know."""
    with two_hosts.configured(QUICK, compute_driver=STOCK):
        place = tmp_path_factory.mktemp("disks")
        tempest.configure(two_hosts, bootrecord.build(place / "record.raw"),
                          tinyguest.build(place))
        yield two_hosts


def test_what_passes_with_the_stock_driver_passes_with_ours(
        ready: NovaCloud, tempest: runs.Tempest, record_property: Note) -> None:
    groups = tempest.chosen()
    passed = {}
    for driver, key in ((STOCK, ""), (OURS, f"-{runs.driver_key()}")):
        results = runs.Results(tempest.directory / f"{driver}-{runs.tests_key()}{key}.json")
        with ready.configured(compute_driver=driver), runs.swept(ready):
            assert {loaded(host) for host in ready.hosts} == {CLASSES[driver]}
            before = [stored(host) for host in ready.hosts]
            run(tempest, groups, results)
            assert [stored(host) for host in ready.hosts] == before, "nobody asked for a part"
        passed[driver] = told(driver, groups, results, record_property)
    record_property("tests that passed with both", len(passed[STOCK] & passed[OURS]))
    missing = [area for area, words in AREAS.items()
               if not any(re.search(words, name) for name in passed[STOCK])]
    assert missing == [], "nothing is said of these"
    assert passed[STOCK] - passed[OURS] == set()


def loaded(host: Host) -> str:
    """The driver that its nova-compute has loaded last."""
    text = host.log.read_text(errors="replace")
    found: list[str] = re.findall(r"Loading compute driver '(.*)'", text)
    return found[-1]


def stored(host: Host) -> list[str]:
    return sorted(str(path.relative_to(host.store)) for name in ("manifests", "objects", "tmp")
                  for path in (host.store / name).rglob("*") if path.is_file())


def run(tempest: runs.Tempest, groups: list[list[str]], results: runs.Results) -> None:
    """Whatever has not been run; and what failed once more: this host does much
    else."""
    for group in groups:
        tempest.run([name for name in group if results.of(name).status == runs.UNTOLD], results)
    known = results.tries()
    tempest.run([name for group in groups for name in group
                 if results.of(name).status not in (runs.PASSED, runs.SKIPPED)
                 and len(known.get(name, ())) < 2], results)


def told(driver: str, groups: list[list[str]], results: runs.Results, note: Note) -> set[str]:
    """Names of those that passed."""
    outcomes = {name: results.of(name) for group in groups for name in group}
    tries = results.tries()
    passed = {name for name, outcome in outcomes.items() if outcome.status == runs.PASSED}
    failed = sorted(runs.short(name) for name, outcome in outcomes.items()
                    if outcome.status not in (runs.PASSED, runs.SKIPPED))
    again = sum(len(tries[name]) > 1 for name in passed)
    seconds = sum(each.seconds for tried in tries.values() for each in tried)
    note(f"tests with the {driver} driver",
         f"{len(outcomes)}: {len(passed)} passed ({again} at the second try), "
         f"{len(outcomes) - len(passed) - len(failed)} skipped, {len(failed)} failed "
         f"({', '.join(failed)}); {seconds / 60:.0f} min of tests")
    return passed
