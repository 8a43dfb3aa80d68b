"""Where servers land on two hosts, and what was fetched there before."""

from __future__ import annotations

import collections
import contextlib
import re
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
    from tests.functional.novacloud import NovaCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud")
pytestmark = [pytest.mark.accept, pytest.mark.must_show("nova", 9)]

FIRST, SECOND = "host-1", "host-2"
MULTIPLIER = "splitimage_weight_multiplier"
#: The first microversion that fetches images to an aggregate.
CACHING = "2.81"
COMBINATIONS = ("web", "db", "db,web", "php,web", "db,php,web")

Launch = Callable[..., list[str]]


@pytest.fixture(scope="module")
def cloud_that_tells(two_hosts: NovaCloud) -> Iterator[NovaCloud]:
    """Every few seconds."""
    with two_hosts.configured({"nova-compute.conf": {
            "DEFAULT": {"update_resources_interval": "5"}}}):
        yield two_hosts


@pytest.fixture(scope="module")
def small(cloud_that_tells: NovaCloud, small_gold: smallgold.Gold,
          tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Id of a composite of alpha's."""
    command = cloud_that_tells.splitimage("alpha", tmp_path_factory.mktemp("alpha") / "store")
    done = command("capture", "scheduled", *small_gold.arguments)
    assert done.status == 0, done.err
    composite = command("composite", "show", "scheduled", "-f", "json").json["id"]
    yield composite
    for image in command("image", "list", "-f", "json").json:
        if image["name"].startswith("scheduled+") or image.get("composite") == composite:
            command("image", "delete", image["id"])
    command("composite", "delete", "scheduled")


@contextlib.contextmanager
def aggregate(cloud: NovaCloud, *hosts: str) -> Iterator[Any]:
    compute = cloud.admin.compute
    made = compute.create_aggregate(name=f"scheduled-{time.time():.0f}")
    for host in hosts:
        compute.add_host_to_aggregate(made, host)
    try:
        yield made
    finally:
        for host in hosts:
            compute.remove_host_from_aggregate(made, host)
        compute.delete_aggregate(made)


@pytest.fixture(scope="module")
def multiplier(cloud_that_tells: NovaCloud) -> Iterator[Callable[[float], None]]:
    """Sets it for both hosts."""
    with aggregate(cloud_that_tells, FIRST, SECOND) as every:
        def set_to(value: float) -> None:
            metadata: dict[str, Any] = {MULTIPLIER: str(value)}
            cloud_that_tells.admin.compute.set_aggregate_metadata(every, **metadata)

        yield set_to


@pytest.fixture
def launch(cloud_that_tells: NovaCloud, small: str) -> Iterator[Launch]:
    """Servers of the composite, one after the other unless told; where they
    landed."""
    cloud, made = cloud_that_tells, list[Any]()

    def launched(*combinations: str, together: bool = False) -> list[str]:
        begun = len(made)
        for parts in combinations:
            made.append(cloud.create(small, metadata={"splitimage:parts": parts}))
            if not together:
                cloud.wait(made[-1])
        return [cloud.where(cloud.wait(server)) for server in made[begun:]]

    yield launched
    cloud.delete(*made)


def told(cloud: NovaCloud) -> dict[str, Holdings]:
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


def images(cloud: NovaCloud, composite: str, *hosts: str) -> dict[str, str]:
    """Completed images that hosts tell of: whose they are."""
    return {one.mark: one.project for host in hosts for one in told(cloud)[host].images
            if one.composite == mark(composite)}


def is_whole(cloud: NovaCloud, composite: str, host: str) -> bool:
    """Whether a host tells that it has all of a composite."""
    return any(one.mark == mark(composite) and one.here and all(part.here for part in one.parts)
               for one in told(cloud)[host].composites)


def cache(cloud: NovaCloud, composite: str, host: str) -> None:
    with aggregate(cloud, host) as chosen:
        answer: Any = cloud.admin.compute.post(
            f"/os-aggregates/{chosen.id}/images", json={"cache": [{"id": composite}]},
            microversion=CACHING)
        assert answer.status_code == 202, answer.text


def log(cloud: NovaCloud, service: str) -> str:
    return Path(cloud.service(service).daemon.log).read_text(errors="replace")


def test_servers_land_where_their_parts_are(
        cloud_that_tells: NovaCloud, small: str, multiplier: Callable[[float], None],
        launch: Launch, record_property: Callable[[str, object], None]) -> None:
    cloud = cloud_that_tells
    cache(cloud, small, SECOND)
    assert cloud.until(lambda: is_whole(cloud, small, SECOND)), "not fetched, or not told"
    assert not is_whole(cloud, small, FIRST)

    multiplier(10)
    hosts = launch("web", "db,web", "web", "db", "db,web")
    record_property("landed_with_multiplier_10", dict(collections.Counter(hosts)))
    assert set(hosts) == {SECOND}
    assert cloud.until(lambda: len(images(cloud, small, SECOND)) == 3), "not told"
    assert set(images(cloud, small, SECOND).values()) == {
        mark(str(cloud.alpha.current_project_id))}
    assert images(cloud, small, FIRST) == {}


def test_with_a_multiplier_of_0_they_are_spread_as_ever(
        multiplier: Callable[[float], None], launch: Launch,
        record_property: Callable[[str, object], None]) -> None:
    multiplier(0)
    hosts = collections.Counter(launch("web", "web", "web", "db"))
    record_property("landed_with_multiplier_0", dict(hosts))
    assert hosts == {FIRST: 2, SECOND: 2}


def test_servers_of_a_batch_land_where_their_images_are(
        cloud_that_tells: NovaCloud, small: str, multiplier: Callable[[float], None],
        launch: Launch, record_property: Callable[[str, object], None]) -> None:
    cloud = cloud_that_tells
    multiplier(0)
    launch(*COMBINATIONS, together=True)
    assert cloud.until(lambda: len(images(cloud, small, FIRST, SECOND)) == len(COMBINATIONS))
    for value in (10, 0):
        multiplier(value)
        before, began = len(log(cloud, "glance")), time.monotonic()
        hosts = collections.Counter(launch(*COMBINATIONS * 2, together=True))
        fetched = len(re.findall(r"GET /v2/images/[^/ ]+/file", log(cloud, "glance")[before:]))
        record_property(f"batch_with_multiplier_{value}", {
            **hosts, "fetched": fetched, "seconds": round(time.monotonic() - began, 1)})
        if value:
            assert fetched == 0


def test_what_is_here_already_is_not_fetched_again(
        cloud_that_tells: NovaCloud, small: str) -> None:
    before = len(log(cloud_that_tells, "nova-conductor"))
    cache(cloud_that_tells, small, SECOND)
    assert cloud_that_tells.until(
        lambda: "0 cached, 1 existing" in log(cloud_that_tells, "nova-conductor")[before:])
