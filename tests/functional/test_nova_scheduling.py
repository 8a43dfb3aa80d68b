"""Where servers land on two hosts, and what was fetched there before."""

from __future__ import annotations

import collections
import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from splitimage_driver.nova import holdings
from splitimage_driver.nova.holdings import Holdings, mark
from tests.cloud.service import DATABASE, tool
from tests.functional import smallgold

if TYPE_CHECKING:
    from tests.functional.cloud import TestCloud

pytest_plugins = ("tests.functional.cloud",)
pytestmark = [pytest.mark.accept, pytest.mark.must_show("nova", 9)]

HOSTS = ("host-1", "host-2")
MULTIPLIER = "splitimage_weight_multiplier"
#: Of both aggregates; openstacksdk asks for no newer one by itself.
_CACHING = "2.81"
_PATIENCE = 300.0

Launch = Callable[..., list[str]]


@pytest.fixture(scope="module")
def two_hosts(cloud: TestCloud) -> Iterator[TestCloud]:
    """That tell what they hold every few seconds."""
    with cloud.configured({"nova.conf": {"DEFAULT": {"update_resources_interval": "5"}}}, hosts=2):
        yield cloud


@pytest.fixture(scope="module")
def small(two_hosts: TestCloud, small_gold: smallgold.Gold,
          tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Id of a composite of alpha's."""
    command = two_hosts.splitimage("alpha", tmp_path_factory.mktemp("alpha") / "store")
    done = command("capture", "scheduled", *small_gold.arguments)
    assert done.status == 0, done.err
    yield command("composite", "show", "scheduled", "-f", "json").json["id"]
    for image in command("image", "list", "-f", "json").json:
        command("image", "delete", image["id"])
    command("composite", "delete", "scheduled")


@pytest.fixture(scope="module")
def multiplier(two_hosts: TestCloud) -> Iterator[Callable[[float], None]]:
    """Sets it for both hosts."""
    with aggregate(two_hosts, "all", *HOSTS) as every:
        def set_to(value: float) -> None:
            metadata: dict[str, Any] = {MULTIPLIER: str(value)}
            two_hosts.admin.compute.set_aggregate_metadata(every, **metadata)

        yield set_to


@contextlib.contextmanager
def aggregate(cloud: TestCloud, name: str, *hosts: str) -> Iterator[Any]:
    compute = cloud.admin.compute
    made = compute.create_aggregate(name=f"{name}-{time.time():.0f}")
    for host in hosts:
        compute.add_host_to_aggregate(made, host)
    try:
        yield made
    finally:
        for host in hosts:
            compute.remove_host_from_aggregate(made, host)
        compute.delete_aggregate(made)


@pytest.fixture
def launch(two_hosts: TestCloud, small: str) -> Iterator[Launch]:
    """Servers of the composite one after the other; where they landed."""
    compute: Any = two_hosts.alpha.compute
    flavor, made = compute.find_flavor("tiny"), list[Any]()

    def launched(*combinations: str) -> list[str]:
        hosts = []
        for parts in combinations:
            server = compute.create_server(
                name=f"scheduled-{len(made)}", image_id=small, flavor_id=flavor.id,
                networks="none", metadata={"splitimage:parts": parts})
            made.append(server)
            compute.wait_for_server(server, wait=_PATIENCE, interval=0.5)
            hosts.append(two_hosts.admin.compute.get_server(server).compute_host)
        return hosts

    yield launched
    for server in made:
        compute.delete_server(server)
    for server in made:
        compute.wait_for_delete(server, interval=0.5, wait=_PATIENCE)


def told(cloud: TestCloud) -> dict[str, Holdings]:
    """What hosts tell, by host."""
    site = cloud.control.site
    text = subprocess.run(
        [tool("mariadb"), "--host=127.0.0.1", f"--port={site.state.port(DATABASE)}", "--user=nova",
         "--skip-column-names", "--raw", "nova", "--execute",
         "SELECT hypervisor_hostname, JSON_UNQUOTE(JSON_EXTRACT(stats, '$.splitimage'))"
         " FROM compute_nodes WHERE deleted = 0"],
        env={"MYSQL_PWD": site.database_password("nova")}, check=True, capture_output=True,
        text=True).stdout
    return {host: Holdings() if text == "NULL" else holdings.unpack(text)
            for host, text in (line.split("\t") for line in text.splitlines())}


def until(found: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not found():
        assert time.monotonic() < end, what
        time.sleep(1)


def precached(cloud: TestCloud, composite: str, host: str) -> bool:
    """Whether a host tells that it has all of a composite."""
    return any(one.mark == mark(composite) and one.here and all(part.here for part in one.parts)
               for one in told(cloud)[host].composites)


def test_servers_land_where_their_parts_are(
        two_hosts: TestCloud, small: str, multiplier: Callable[[float], None],
        launch: Launch, record_property: Callable[[str, object], None]) -> None:
    with aggregate(two_hosts, "second", HOSTS[1]) as second:
        two_hosts.admin.compute.post(
            f"/os-aggregates/{second.id}/images", json={"cache": [{"id": small}]},
            microversion=_CACHING).raise_for_status()
        until(lambda: precached(two_hosts, small, HOSTS[1]), "it was not fetched, or not told")
    assert not precached(two_hosts, small, HOSTS[0])

    multiplier(10)
    hosts = launch("web", "db,web", "web", "db", "db,web")
    record_property("landed_with_multiplier_10", dict(collections.Counter(hosts)))
    assert set(hosts) == {HOSTS[1]}
    until(lambda: len(told(two_hosts)[HOSTS[1]].images) == 3, "completed images are not told")
    assert {one.project for one in told(two_hosts)[HOSTS[1]].images} == {
        mark(str(two_hosts.alpha.current_project_id))}
    assert told(two_hosts)[HOSTS[0]].images == ()


def test_with_a_multiplier_of_0_they_are_spread_as_ever(
        two_hosts: TestCloud, multiplier: Callable[[float], None], launch: Launch,
        record_property: Callable[[str, object], None]) -> None:
    multiplier(0)
    hosts = collections.Counter(launch("web", "web", "web", "db"))
    record_property("landed_with_multiplier_0", dict(hosts))
    assert hosts == {HOSTS[0]: 2, HOSTS[1]: 2}


def test_what_is_here_already_is_not_fetched_again(two_hosts: TestCloud, small: str) -> None:
    with aggregate(two_hosts, "second", HOSTS[1]) as second:
        log = Path(two_hosts.service("nova-conductor").daemon.log)
        before = len(log.read_text(errors="replace"))
        two_hosts.admin.compute.post(
            f"/os-aggregates/{second.id}/images", json={"cache": [{"id": small}]},
            microversion=_CACHING).raise_for_status()
        until(lambda: "0 cached, 1 existing" in log.read_text(errors="replace")[before:],
              "the conductor does not say so")
