"""Servers of any combination, from an ordinary Nova."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional import tinyguest
from tests.functional.novascene import PARTS, Mini, packages

if TYPE_CHECKING:
    from tests.functional.novacloud import Host, NovaCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud",
                  "tests.functional.novascene")

Note = Callable[[str, object], None]


@pytest.mark.must_show("nova", 1)
@pytest.mark.must_show("nova", 2)
def test_the_first_is_put_together_the_second_is_an_exact_match(
        mini: Mini, tmp_path: Path, record_property: Note) -> None:
    """By the ordinary client."""
    [host] = mini.cloud.hosts[:1]
    with mini.cloud.only(host):
        before = mini.assemblies(host)
        for number in 1, 2:
            read = fetched(mini.cloud)
            done = mini.cloud.openstack(
                "alpha", "server", "create", "--image", mini.name, "--flavor", "tiny",
                "--nic", "none", "--property", "splitimage:parts=mysql,redis", "--wait",
                "-f", "json", f"combined-{number}")
            assert done.status == 0, done.err
            server = mini.adopt(done.json["id"])
            assert mini.tells(server, 1) == {"mysql", "redis"}
            if number == 1:
                assert mini.assemblies(host) == before + 1
                first = mini.image_of(server)
                continue
            assert mini.image_of(server) == first
            assert mini.assemblies(host) == before + 1
            assert not host.appliances()
            assert fetched(mini.cloud) == read, "no contents are fetched, of whatever"
    image = mini.snapshot(server)
    path = tmp_path / "snapshot"
    assert mini.cloud.openstack("alpha", "image", "save", "--file", path, image.id).status == 0
    assert packages(path, tmp_path) == {"mysql", "redis"}
    mini.cloud.alpha.image.delete_image(image.id)


def fetched(cloud: NovaCloud) -> int:
    """Downloads from the image service so far."""
    log = cloud.service("glance").daemon.log.read_text(errors="replace")
    return sum("GET /v2/images/" in line and "/file" in line for line in log.splitlines())


@pytest.mark.accept
@pytest.mark.must_show("nova", 7)
def test_a_tenants_own_files_are_in_its_server_only(mini: Mini, tmp_path: Path) -> None:
    (tmp_path / "site/srv/www").mkdir(parents=True)
    (tmp_path / "site/srv/www/ours").write_text("ours\n")
    name = f"site-{mini.name}"
    made = mini.command("part", "create", name, "--from", tmp_path / "site", "-f", "json")
    assert made.status == 0, made.err
    server = mini.boot("apache", filesets=name)
    assert mini.tells(server, 1) == {"apache", "ours"}
    assert mini.tells(mini.boot("apache"), 1) == {"apache"}


@pytest.mark.accept
@pytest.mark.must_show("nova", 1)
def test_files_that_are_given_with_the_request(mini: Mini) -> None:
    """Are in the server's disk, and in no image."""
    server = mini.boot(*PARTS, files={"/srv/www/secret": b"secret\n"})
    assert mini.tells(server, 1) == {*PARTS, "secret"}
    assert mini.tells(mini.boot(*PARTS), 1) == set(PARTS)


@pytest.mark.accept
@pytest.mark.must_show("nova", 1)
def test_a_flavor_or_the_image_says_what_a_server_does_not(mini: Mini) -> None:
    compute: Any = mini.cloud.admin.compute
    flavor = compute.create_flavor(name="with-redis", ram=256, vcpus=1, disk=1)
    compute.create_flavor_extra_specs(flavor, {"splitimage:parts": "redis"})
    image: Any = mini.cloud.alpha.image
    try:
        assert mini.tells(mini.boot(flavor=flavor.name), 1) == {"redis"}
        assert mini.tells(mini.boot(*PARTS, flavor=flavor.name), 1) == set(PARTS)
        image.update_image(mini.id, splitimage_default_parts="mysql")
        assert mini.tells(mini.boot(), 1) == {"mysql"}
        assert mini.tells(mini.boot(metadata={"splitimage:parts": ""}), 1) == set()
    finally:
        image.patch(f"/images/{mini.id}", headers={
            "Content-Type": "application/openstack-images-v2.1-json-patch"},
            json=[{"op": "remove", "path": "/splitimage_default_parts"}])
        mini.clear()
        compute.delete_flavor(flavor)


# -- what cannot be ------------------------------------------------------------------


def refused(mini: Mini, words: str, server: Any) -> None:
    """It is in ERROR, says so, and nothing of it is left anywhere."""
    with pytest.raises(AssertionError, match=words):
        mini.cloud.wait(server)
    assert not [image for image in mini.completed() if image["status"] != "active"]
    for host in mini.cloud.hosts:
        assert not list((host.store / "tmp").glob("*"))
        assert not host.disk(server).parent.exists()
        assert not host.appliances()


@pytest.mark.must_show("nova", 7)
def test_what_is_wrong_is_told(mini: Mini) -> None:
    before = {image["id"] for image in mini.completed()}
    refused(mini, "has no part nonsense", mini.create("apache", "nonsense"))
    refused(mini, "no part named nonsense", mini.create("apache", filesets="nonsense"))
    refused(mini, "metadata splitimage:part: there is no such key",
            mini.create(metadata={"splitimage:part": "apache"}))
    assert {image["id"] for image in mini.completed()} == before


@pytest.mark.accept
@pytest.mark.must_show("streams", 5)
def test_a_clash_of_a_file_set_is_answered_by_metadata(mini: Mini, tmp_path: Path) -> None:
    (tmp_path / "clash/srv/www").mkdir(parents=True)
    (tmp_path / "clash/srv/www/apache").write_text("ours\n")
    name = f"clash-{mini.name}"
    made = mini.command("part", "create", name, "--from", tmp_path / "clash", "-f", "json")
    assert made.status == 0, made.err
    refused(mini, "and part apache disagree about /srv/www/apache: .*splitimage:conflicts",
            mini.create("apache", filesets=name))
    conflicts = "splitimage:conflicts"
    refused(mini, f"metadata {conflicts}: '/srv/www/apache=mine' is not of the form",
            mini.create("apache", filesets=name, metadata={conflicts: "/srv/www/apache=mine"}))
    images = set()
    for action in ("keep", "replace"):
        server = mini.boot("apache", filesets=name,
                           metadata={conflicts: f"/srv/www/apache={action}"})
        assert mini.tells(server, 1) == {"apache"}
        images.add(mini.image_of(server))
    assert len(images) == 2


@pytest.mark.accept
@pytest.mark.must_show("nova", 7)
def test_what_does_not_fit_is_told(mini: Mini, tmp_path: Path) -> None:
    (tmp_path / "big/srv").mkdir(parents=True)
    with (tmp_path / "big/srv/big").open("wb") as file:
        for number in range(40):
            file.write(bytes([number]) * 2**20)
    name = f"big-{mini.name}"
    assert mini.command("part", "create", name, "--from", tmp_path / "big").status == 0
    refused(mini, "no room in / of the image", mini.create("apache", filesets=name))


@pytest.mark.accept
@pytest.mark.must_show("nova", 7)
def test_a_quota_is_told(mini: Mini) -> None:
    """One that has no room even after older images have gone."""
    glance = {"glance-api.conf": {"DEFAULT": {"image_property_quota": "12"}}}
    with mini.cloud.configured(glance):
        refused(mini, "(?i)limit|quota|maximum", mini.create("wiki", "mail"))
    assert mini.tells(mini.boot("wiki", "mail"), 1) == {"wiki", "mail"}


@pytest.mark.accept
@pytest.mark.must_show("nova", 7)
def test_a_host_that_cannot_is_passed_over(two_hosts: NovaCloud, mini: Mini) -> None:
    """Where another one can, the server lands there."""
    first, second = two_hosts.hosts
    broken = {"splitimage-compute-1.conf": {"store": {"minimum_free": str(2**60)}}}
    with two_hosts.configured(broken):
        before = _passed(first)
        for other in ("wiki", "php", "redis", "mysql"):
            server = mini.boot("cache", other)
            assert two_hosts.where(server) == second.name
            assert mini.tells(server, 1) == {"cache", other}
            if _passed(first) > before:
                break
        else:
            pytest.fail("the scheduler never tried the host that cannot")
        mini.clear()


def _passed(host: Host) -> int:
    """Servers that it could not make the image for."""
    return host.log.read_text(errors="replace").count("cannot make the image: ")


# -- image backends ------------------------------------------------------------------


@contextlib.contextmanager
def backend(cloud: NovaCloud, name: str, **options: str) -> Iterator[None]:
    with cloud.configured({"nova-compute.conf": {
            "libvirt": {"images_type": name}, "DEFAULT": options}}):
        yield


@pytest.mark.accept
@pytest.mark.must_show("nova", 1)
@pytest.mark.parametrize(("name", "options"), [
    ("raw", {}), ("flat", {"force_raw_images": "false"}), ("qcow2", {"force_raw_images": "false"})])
def test_every_image_backend(mini: Mini, name: str, options: dict[str, str]) -> None:
    with backend(mini.cloud, name, **options):
        mini.forget()
        parts = ("mail", name.replace("raw", "cache").replace("flat", "wiki").replace(
            "qcow2", "redis"))
        server = mini.boot(*parts, files={"/srv/www/secret": b"secret\n"})
        assert mini.tells(server, 1) == {*parts, "secret"}
        mini.forget()
        again = mini.boot(*parts)
        assert mini.image_of(again) == mini.image_of(server)
        assert mini.tells(again, 1) == set(parts)
        mini.reboot(server)
        assert mini.tells(server, 2) == {*parts, "secret"}
        mini.clear()


@pytest.mark.must_show("nova", 3)
def test_any_other_image_is_as_ever(mini: Mini, tmp_path: Path) -> None:
    """Whatever the server says of parts."""
    disk = tinyguest.build(tmp_path)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk, tmp_path / "disk"], check=True)
    image = mini.cloud.alpha.image.create_image(
        name="plain", disk_format="qcow2", container_format="bare",
        filename=str(tmp_path / "disk"))
    before = sum(map(mini.assemblies, mini.cloud.hosts))
    server = mini.boot("apache", image=image.id)
    assert mini.tells(server, 1) == set()
    assert mini.image_of(server) == image.id
    assert sum(map(mini.assemblies, mini.cloud.hosts)) == before
    mini.clear()
    mini.cloud.alpha.image.delete_image(image.id)
