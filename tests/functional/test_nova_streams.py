"""Servers that lay their parts while they run, from an ordinary Nova.

The guest is one that tells what a guest tells, and reads its disks: see
:data:`tests.functional.tinyguest.LAYS`. One that lays parts indeed is the demonstration's, in
:mod:`tests.functional.test_nova_demo`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional import tinyguest
from tests.functional.novascene import PARTS

if TYPE_CHECKING:
    from tests.functional.novacloud import Host, NovaCloud
    from tests.functional.novascene import Mini

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud",
                  "tests.functional.novascene")

STREAM = {"splitimage:deliver": "stream"}
#: Parts that are put into images: from these nothing starts that lays others.
REDIS, CACHE = "redis", "cache"


def layout(laying: Mini, server: Any) -> str:
    """What the host tells the server's user."""
    compute: Any = laying.cloud.alpha.compute
    return str(compute.get_server(server.id).metadata.get("splitimage:layout", ""))


def becomes(laying: Mini, server: Any, text: str) -> None:
    assert laying.cloud.until(lambda: layout(laying, server) == text), (
        layout(laying, server), laying.cloud.console(server))


def given(host: Host, server: Any) -> dict[str, str]:
    """The disks that the host has for it: serial number to sha256."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in host.disk(server).parent.glob("si-*")}


def sees(laying: Mini, server: Any) -> dict[str, str]:
    """The disks that the guest reads, as it last told."""
    lines = [line for line in laying.cloud.console(server).splitlines()
             if line.startswith(tinyguest.FURTHER)]
    return dict(word.split("=") for word in lines[-1].split()[3:]) if lines else {}


def lays(laying: Mini, *parts: str, **more: Any) -> Any:
    """A server that has begun to lay its parts, and never ends."""
    server = laying.boot(*parts, metadata=STREAM, **more)
    host = laying.host(server)
    disks = given(host, server)
    assert len(disks) == len(parts) + 1
    assert laying.cloud.until(lambda: sees(laying, server) == disks), (
        sees(laying, server), disks)
    becomes(laying, server, "laying 50%")
    return server


def recorded(laying: Mini, server: Any, what: str) -> str:
    """Of what it was given last, as its host knows it; "": nothing was."""
    record = laying.host(server).disk(server).with_name("splitimage.layout")
    return str(json.loads(record.read_bytes())["layout"][what]) if record.exists() else ""


def change(laying: Mini, server: Any, **metadata: str) -> None:
    """Ask for it until the host has seen it."""
    compute: Any = laying.cloud.alpha.compute
    former, plan = (layout(laying, server), metadata.get("layout")), recorded(laying, server, "id")
    compute.set_server_metadata(server.id, **{f"splitimage:{key}": value
                                              for key, value in metadata.items()})

    def seen() -> bool:
        laying.cloud.console(server)  # with which the host looks at it
        return layout(laying, server) not in former or recorded(laying, server, "id") != plan

    assert laying.cloud.until(seen), layout(laying, server)


def complete(laying: Mini, server: Any) -> None:
    """It is told, the disks are gone, and so are the host's files."""
    # What was told before may be that something else was complete.
    assert laying.cloud.until(lambda: recorded(laying, server, "state") == "complete")
    becomes(laying, server, "complete")
    assert given(laying.host(server), server) == {}
    assert laying.cloud.until(lambda: sees(laying, server) == {})


def event(laying: Mini, server: Any, action: str) -> str:
    """What an administrator reads of an action that was refused; a tenant reads that
    it failed, and how far the layout is."""
    compute: Any = laying.cloud.admin.compute
    listed = compute.get(f"/servers/{server.id}/os-instance-actions",
                         microversion="2.84").json()["instanceActions"]
    request = next(each["request_id"] for each in listed if each["action"] == action)
    shown = compute.get(f"/servers/{server.id}/os-instance-actions/{request}",
                        microversion="2.84").json()["instanceAction"]
    return " ".join(str(each.get("details") or "") for each in shown["events"])


@pytest.mark.must_show("streams", 6)
def test_two_servers_share_what_they_lay(laying: Mini) -> None:
    """They start at once; the parts are fetched once, and are one file."""
    [host] = laying.cloud.hosts[:1]
    with laying.cloud.only(host):
        before = laying.assemblies(host)
        first, second = lays(laying, *PARTS), lays(laying, *PARTS)
    assert laying.assemblies(host) == before
    assert laying.image_of(first) == laying.image_of(second) == laying.id
    disks = given(host, first).keys() & given(host, second).keys()
    assert len(disks) == len(PARTS)
    for name in disks:
        assert (host.disk(first).parent / name).samefile(host.disk(second).parent / name)
        assert downloads(laying.cloud, (host.disk(first).parent / name)) == 1


def downloads(cloud: NovaCloud, blob: Path) -> int:
    """How often the image that has a part's contents was fetched from the service."""
    digest = hashlib.sha256(blob.read_bytes()).hexdigest()
    [image] = [image["id"] for image in _images(cloud) if image["splitimage_blob"] == digest]
    log = cloud.service("glance").daemon.log.read_text(errors="replace")
    return sum(f"GET /v2/images/{image}/file" in line for line in log.splitlines())


def _images(cloud: NovaCloud) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = "/images?os_hidden=true&splitimage_role=part&limit=200"
    while query:
        answer = cloud.alpha.image.get(query).json()
        found += answer["images"]
        query = answer.get("next", "").removeprefix("/v2")
    return found


@pytest.mark.accept
@pytest.mark.must_show("streams", 6)
def test_ten_servers_fetch_each_part_once(laying: Mini) -> None:
    [host] = laying.cloud.hosts[:1]
    laying.forget(host)
    with laying.cloud.only(host):
        servers = [laying.create("mysql", "wiki", "mail", metadata=STREAM) for _ in range(10)]
        for server in servers:
            laying.cloud.wait(server)
    names = set.intersection(*(set(given(host, server)) for server in servers))
    assert len(names) == 3
    for name in names:
        assert downloads(laying.cloud, host.disk(servers[0]).parent / name) == 1
        assert len({(host.disk(server).parent / name).stat().st_ino for server in servers}) == 1


@pytest.mark.accept
@pytest.mark.must_show("streams", 4)
def test_hard_reboot_gives_the_disks_again_and_the_end_takes_them_away(laying: Mini) -> None:
    server = lays(laying, *PARTS)
    laying.reboot(server)
    laying.cloud.says(server, "boot number 2")
    complete(laying, server)
    laying.reboot(server)
    laying.cloud.says(server, "boot number 3")
    assert sees(laying, server) == {}
    assert layout(laying, server) == "complete"


@pytest.mark.accept
@pytest.mark.must_show("streams", 4)
@pytest.mark.parametrize("how", ["soft", "stopped", "paused"])
def test_what_else_is_done_to_a_server_that_lays(laying: Mini, how: str) -> None:
    server = lays(laying, "apache")
    if how == "soft":
        laying.cloud.act(server, "reboot", {"type": "SOFT"})
        laying.cloud.wait(server)
    elif how == "stopped":
        laying.cloud.act(server, "os-stop")
        laying.cloud.wait(server, "SHUTOFF")
        laying.cloud.act(server, "os-start")
        laying.cloud.wait(server)
    else:
        laying.cloud.act(server, "pause")
        laying.cloud.wait(server, "PAUSED")
        laying.cloud.act(server, "unpause")
        laying.cloud.wait(server)
        laying.reboot(server)
    laying.cloud.says(server, "boot number 2")
    complete(laying, server)


@pytest.mark.accept
@pytest.mark.must_show("streams", 4)
def test_rescue_lays_nothing(laying: Mini) -> None:
    server = lays(laying, "apache")
    laying.cloud.act(server, "rescue", {})
    laying.cloud.wait(server, "RESCUE")
    laying.cloud.says(server, tinyguest.READY)
    assert layout(laying, server) == "laying 50%"
    laying.cloud.act(server, "unrescue")
    laying.cloud.wait(server)
    laying.cloud.says(server, "boot number 2")
    complete(laying, server)


@pytest.mark.accept
@pytest.mark.must_show("streams", 4)
def test_rebuild_and_delete(laying: Mini) -> None:
    server = lays(laying, "apache")
    laying.cloud.act(server, "rebuild", {
        "imageRef": laying.id, "metadata": {"splitimage:parts": "nonsense"} | STREAM})
    with pytest.raises(AssertionError, match="has no part nonsense"):
        laying.cloud.wait(server)
    assert layout(laying, server) == "laying 50%", "as its disk is"
    laying.cloud.act(server, "rebuild", {
        "imageRef": laying.id, "metadata": {"splitimage:parts": "php,wiki"} | STREAM})
    laying.cloud.wait(server)
    host = laying.host(server)
    assert len(given(host, server)) == 3
    assert laying.cloud.until(lambda: sees(laying, server) == given(host, server))
    laying.cloud.act(server, "rebuild", {
        "imageRef": laying.id, "metadata": {"splitimage:parts": CACHE}})
    laying.cloud.wait(server)
    assert laying.tells(server, 1) == {CACHE}
    assert layout(laying, server) == ""
    other = lays(laying, "apache")
    laying.cloud.delete(other)
    assert not host.disk(other).parent.exists()
    shared = host.instances / "_splitimage"
    assert laying.cloud.until(lambda: not list(shared.glob("*"))), list(shared.glob("*"))


def wait_for(laying: Mini, server: Any, *actions: tuple[str, str, str, object]) -> None:
    """Each is refused, and the server is as it was, the same process at the same place.

    :param actions: name in the list of events, whose it is, that of the API, its body
    """
    cloud, host = laying.cloud, laying.host(server)
    before = {image.id for image in cloud.alpha.image.images()}
    [guest] = [pid for pid in host.guests() if server.id.encode() in _words(pid)]
    for name, project, action, body in actions:
        cloud.act(server, action, body, project=project)
        assert cloud.until(functools.partial(refused, laying, server, name)), (
            name, event(laying, server, name))
        cloud.wait(server)
        assert laying.host(server).name == host.name
        assert [pid for pid in host.guests() if server.id.encode() in _words(pid)] == [guest]
    assert cloud.until(lambda: {image.id for image in cloud.alpha.image.images()} == before)


@pytest.mark.accept
@pytest.mark.must_show("streams", 4)
def test_snapshots_and_shelving_have_to_wait(laying: Mini) -> None:
    server = lays(laying, *PARTS)
    wait_for(laying, server, ("createImage", "alpha", "createImage", {"name": "too-early"}),
             ("shelve", "alpha", "shelve", None))
    laying.reboot(server)
    complete(laying, server)
    image = laying.snapshot(server)
    laying.cloud.alpha.image.delete_image(image.id)


@pytest.mark.accept
@pytest.mark.must_show("streams", 4)
def test_moves_have_to_wait(two_hosts: NovaCloud, laying: Mini) -> None:
    server = lays(laying, *PARTS)
    host = laying.host(server)
    other = next(each for each in two_hosts.hosts if each.name != host.name)
    flavor: Any = two_hosts.alpha.compute.find_flavor("small")
    wait_for(laying, server, ("resize", "alpha", "resize", {"flavorRef": flavor.id}),
             ("migrate", "admin", "migrate", {"host": other.name}),
             ("live-migration", "admin", "os-migrateLive",
              {"host": other.name, "block_migration": "auto"}))
    laying.reboot(server)
    complete(laying, server)
    two_hosts.migrate(server, other)
    assert layout(laying, server) == "complete"
    laying.cloud.says(server, "boot number 3")


def refused(laying: Mini, server: Any, action: str) -> bool:
    return "still lays its parts (57 %)" in event(laying, server, action)


def _words(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.accept
@pytest.mark.must_show("streams", 4)
def test_evacuation_waits_for_the_host(two_hosts: NovaCloud, laying: Mini) -> None:
    first, second = two_hosts.hosts
    server = lays(laying, "apache", host=first)
    compute: Any = two_hosts.admin.compute
    service = next(compute.services(host=first.name, binary="nova-compute"))
    first.stop()
    try:
        compute.put(f"/os-services/{service.id}", json={"forced_down": True}, microversion="2.90")
        two_hosts.act(server, "evacuate", {"host": second.name}, project="admin")
        assert two_hosts.until(lambda: "was laying its parts" in event(laying, server, "evacuate"))
        found = two_hosts.wait(server, project="admin")
        assert found.compute_host == first.name
    finally:
        compute.put(f"/os-services/{service.id}", json={"forced_down": False},
                    microversion="2.90")
        time.sleep(1.5)  # in whole seconds that change looks like a sign of life
        first.start()
    laying.reboot(server)
    complete(laying, server)


@pytest.mark.accept
@pytest.mark.must_show("streams", 4)
def test_nova_compute_restarted_goes_on_looking(laying: Mini) -> None:
    server = lays(laying, "apache")
    host = laying.host(server)
    host.kill()
    host.start()
    laying.cloud.wait(server)
    assert layout(laying, server) == "laying 50%"
    laying.cloud.act(server, "reboot", {"type": "HARD"})
    laying.cloud.wait(server)
    host.stop()
    host.start()
    complete(laying, server)


@pytest.mark.accept
@pytest.mark.must_show("streams", 4)
def test_parts_come_and_go_while_it_runs(laying: Mini) -> None:
    """One that fails is told, and another try finishes it."""
    server = laying.boot(REDIS)
    assert laying.tells(server, 1) == {REDIS}
    host, image = laying.host(server), laying.image_of(server)
    change(laying, server, parts=f"{REDIS},php")
    complete(laying, server)
    change(laying, server, parts=f"{REDIS},php,mysql,wiki")
    becomes(laying, server, "failed: php: no room in /")
    assert len(given(host, server)) == 3, "they are needed once more"
    assert laying.cloud.until(lambda: sees(laying, server) == {}), "the server runs without them"
    change(laying, server, layout="retry")
    complete(laying, server)
    change(laying, server, parts=f"{REDIS},mysql")
    complete(laying, server)
    change(laying, server, parts="nonsense")
    assert laying.cloud.until(lambda: "no part nonsense" in layout(laying, server))
    assert laying.cloud.wait(server).status == "ACTIVE"
    assert laying.image_of(server) == image
    assert "boot number 2" not in laying.cloud.console(server)


@pytest.mark.accept
@pytest.mark.must_show("streams", 4)
def test_its_user_may_give_it_up(laying: Mini) -> None:
    server = lays(laying, "apache")
    change(laying, server, layout="stop")
    assert laying.cloud.until(lambda: layout(laying, server).startswith("failed: stopped"))
    assert laying.cloud.until(lambda: sees(laying, server) == {})
    image = laying.snapshot(server)
    laying.cloud.alpha.image.delete_image(image.id)
