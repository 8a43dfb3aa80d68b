"""Nova in the test cloud: servers boot, move, outlive what they may, and nothing of
them is left when it is down."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional import tinyguest

if TYPE_CHECKING:
    from tests.functional.novacloud import NovaCloud

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud")
pytestmark = pytest.mark.accept

Note = Callable[[str, object], None]


@pytest.fixture(scope="module")
def tiny(nova_cloud: NovaCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Id of an image that boots in a moment."""
    disk = tinyguest.build(tmp_path_factory.mktemp("tiny"))
    name = f"tiny-{uuid.uuid4()}"
    created = nova_cloud.openstack("alpha", "image", "create", "-f", "json", "--disk-format",
                                   "raw", "--file", disk, name)
    assert created.status == 0, created.err
    yield created.json["id"]
    nova_cloud.alpha.image.delete_image(created.json["id"], ignore_missing=True)


def test_a_server_by_the_ordinary_client(nova_cloud: NovaCloud, tiny: str,
                                         record_property: Note) -> None:
    name = f"server-{uuid.uuid4()}"
    began = time.monotonic()
    created = nova_cloud.openstack(
        "alpha", "server", "create", "--image", tiny, "--flavor", "tiny", "--nic", "none",
        "--property", "colour=red, green", "--wait", "-f", "json", name)
    assert created.status == 0, created.err
    record_property("seconds with the client's own", round(time.monotonic() - began, 1))
    server = nova_cloud.alpha.compute.get_server(created.json["id"])
    assert (server.status, server.metadata) == ("ACTIVE", {"colour": "red, green"})
    nova_cloud.says(server, tinyguest.READY)
    shown = nova_cloud.openstack("alpha", "console", "log", "show", name)
    assert tinyguest.READY in shown.out, shown.err
    host = nova_cloud.host(nova_cloud.where(server))
    assert len(host.guests()) == 1 and host.disk(server).exists() and list(host.base.iterdir())
    assert name in nova_cloud.openstack("alpha", "server", "list", "-f", "value").out
    assert name not in nova_cloud.openstack("beta", "server", "list", "-f", "value").out
    deleted = nova_cloud.openstack("alpha", "server", "delete", "--wait", name)
    assert deleted.status == 0, deleted.err
    assert not host.guests() and not host.disk(server).parent.exists()


def test_a_server_outlives_nova_compute(nova_cloud: NovaCloud, tiny: str) -> None:
    server = nova_cloud.boot(tiny)
    try:
        host = nova_cloud.host(nova_cloud.where(server))
        nova_cloud.says(server, tinyguest.READY)
        before = host.guests()
        host.kill()
        assert host.guests() == before
        assert nova_cloud.up() == [host.compute.name]
        nova_cloud.act(server, "reboot", {"type": "HARD"})
        nova_cloud.wait(server)
        nova_cloud.says(server, "boot number 2")
        host.stop()
        host.start()
        assert len(host.guests()) == 1 and nova_cloud.up() == []
    finally:
        nova_cloud.delete(server)


def test_a_fault_is_told(nova_cloud: NovaCloud, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "2G"], check=True)
    image = nova_cloud.alpha.image.create_image(
        name=f"large-{uuid.uuid4()}", disk_format="qcow2", container_format="bare",
        filename=str(disk))
    server = nova_cloud.create(image.id)
    try:
        with pytest.raises(AssertionError, match="Flavor's disk is too small"):
            nova_cloud.wait(server)
        assert not any(host.guests() for host in nova_cloud.hosts)
    finally:
        nova_cloud.delete(server)
        nova_cloud.alpha.image.delete_image(image.id)


def test_servers_move_between_hosts(two_hosts: NovaCloud, tiny: str,
                                    record_property: Note) -> None:
    first, second = two_hosts.hosts
    server = two_hosts.boot(tiny, host=first)
    try:
        assert two_hosts.where(server) == first.name
        two_hosts.says(server, tinyguest.READY)
        began = time.monotonic()
        two_hosts.live_migrate(server, second)
        record_property("live migration, s", round(time.monotonic() - began, 1))
        assert (two_hosts.where(server), first.guests(), len(second.guests())) == (
            second.name, [], 1)
        began = time.monotonic()
        two_hosts.migrate(server, first)
        record_property("cold migration, s", round(time.monotonic() - began, 1))
        assert (two_hosts.where(server), len(first.guests()), second.guests()) == (
            first.name, 1, [])
        two_hosts.says(server, "boot number 2")
        assert not second.disk(server).parent.exists()
    finally:
        two_hosts.delete(server)


def test_options_of_one_host(two_hosts: NovaCloud, tiny: str) -> None:
    first, second = two_hosts.hosts
    glance = two_hosts.service("glance").daemon.pid
    with two_hosts.configured({"nova-compute-2.conf": {"libvirt": {"images_type": "raw"}}}):
        servers = [two_hosts.boot(tiny, host=host) for host in (first, second)]
        try:
            formats = [host.disk(server).read_bytes()[:4]
                       for host, server in zip((first, second), servers, strict=True)]
            assert formats[0] == b"QFI\xfb" != formats[1]
        finally:
            two_hosts.delete(*servers)
    assert two_hosts.service("glance").daemon.pid == glance


def test_down_leaves_nothing_and_servers_are_there_again(nova_cloud: NovaCloud,
                                                         tiny: str) -> None:
    control = nova_cloud.control
    server = nova_cloud.boot(tiny)
    try:
        nova_cloud.says(server, tinyguest.READY)
        assert any(host.guests() for host in nova_cloud.hosts)
        daemons = [service.daemon for service in control.services()]
        control.down()
        assert {state for _, state, _ in control.status()} == {"down"}
        assert not [pid for daemon in daemons for pid in daemon.processes()]
        assert str(nova_cloud.directory) not in Path("/proc/self/mountinfo").read_text()
        assert not _named(nova_cloud.directory)
        control.up()
        nova_cloud.wait(server, "SHUTOFF")
        nova_cloud.act(server, "os-start")
        nova_cloud.wait(server)
        nova_cloud.says(server, "boot number 2")
    finally:
        control.up()
        nova_cloud.delete(server)


def _named(directory: Path) -> list[str]:
    """Command lines, of whatever process, with a file of the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            # A test run may be called with such a file.
            if f"{directory}/" in words and path.parent.name != str(os.getpid()):
                found.append(words)
    return found
