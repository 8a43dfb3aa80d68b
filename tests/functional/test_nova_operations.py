"""What a tenant and an administrator do with a server made of parts: what it has
written and what it is made of are right after all of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.novascene import PARTS, packages

if TYPE_CHECKING:
    from tests.functional.novacloud import NovaCloud
    from tests.functional.novascene import Mini

pytest_plugins = ("tests.functional.cloud", "tests.functional.novacloud",
                  "tests.functional.novascene")
pytestmark = pytest.mark.must_show("nova", 4)

WHOLE = set(PARTS)


def booted(mini: Mini, **more: Any) -> Any:
    """A server at the end of its first boot."""
    server = mini.boot(*PARTS, **more)
    assert mini.tells(server, 1) == WHOLE
    return server


def saved(mini: Mini, image: Any, directory: Path) -> Path:
    """What the image holds."""
    path = directory / str(image.id)
    done = mini.cloud.openstack("alpha", "image", "save", "--file", path, image.id)
    assert done.status == 0, done.err
    return path


def test_hard_reboot_with_its_base_file_deleted(mini: Mini) -> None:
    server = booted(mini)
    mini.forget()
    mini.reboot(server)
    assert mini.tells(server, 2) == WHOLE


@pytest.mark.accept
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_snapshot_and_a_boot_from_it(mini: Mini, tmp_path: Path, state: str) -> None:
    server = booted(mini)
    if state == "stopped":
        mini.cloud.act(server, "os-stop")
        mini.cloud.wait(server, "SHUTOFF")
    image = mini.snapshot(server)
    try:
        assert not [key for key in image.to_dict().get("properties", {})
                    if key.startswith("splitimage_")], "it says of itself what it is not"
        assert packages(saved(mini, image, tmp_path), tmp_path) == WHOLE
        again = mini.boot(image=image.id)
        assert mini.image_of(again) == image.id
        assert mini.tells(again, 2) == WHOLE
        # The first one goes on as it was.
        if state == "stopped":
            mini.cloud.act(server, "os-start")
            mini.cloud.wait(server)
        else:
            mini.reboot(server)
        assert mini.tells(server, 2) == WHOLE
    finally:
        mini.clear()
        mini.cloud.alpha.image.delete_image(image.id)


@pytest.mark.accept
def test_rescue(mini: Mini) -> None:
    server = booted(mini)
    mini.cloud.act(server, "rescue", {})
    mini.cloud.wait(server, "RESCUE")
    # The rescue system is a fresh disk of the same image.
    assert mini.tells(server, 1) == WHOLE
    mini.cloud.act(server, "unrescue")
    mini.cloud.wait(server)
    assert mini.tells(server, 2) == WHOLE


@pytest.mark.accept
@pytest.mark.parametrize("end", ["confirmResize", "revertResize"])
def test_resize(two_hosts: NovaCloud, mini: Mini, end: str) -> None:
    server = booted(mini)
    flavor: Any = two_hosts.alpha.compute.find_flavor("small")
    mini.forget(*(host for host in two_hosts.hosts if host.name != two_hosts.where(server)))
    mini.cloud.act(server, "resize", {"flavorRef": flavor.id})
    mini.cloud.wait(server, "VERIFY_RESIZE")
    assert mini.tells(server, 2) == WHOLE
    mini.cloud.act(server, end)
    mini.cloud.wait(server)
    if end == "revertResize":
        # What was written meanwhile was written to the disk that is no more.
        assert mini.tells(server, 2) == WHOLE
    mini.forget()
    mini.reboot(server)
    assert mini.tells(server, 3) == WHOLE


@pytest.mark.accept
def test_shelve_and_unshelve_with_an_empty_cache(mini: Mini) -> None:
    server = booted(mini)
    mini.cloud.act(server, "shelve")
    mini.cloud.wait(server, "SHELVED_OFFLOADED")
    mini.forget()
    mini.cloud.act(server, "unshelve", None)
    mini.cloud.wait(server)
    assert mini.tells(server, 2) == WHOLE
    mini.forget()
    mini.reboot(server)
    assert mini.tells(server, 3) == WHOLE


@pytest.mark.accept
def test_cold_migration_and_back(two_hosts: NovaCloud, mini: Mini) -> None:
    first, second = two_hosts.hosts
    server = booted(mini, host=first)
    mini.forget(second)
    two_hosts.migrate(server, second)
    assert two_hosts.where(server) == second.name
    assert mini.tells(server, 2) == WHOLE
    mini.forget(first)
    two_hosts.migrate(server, first)
    assert mini.tells(server, 3) == WHOLE


@pytest.mark.accept
def test_block_live_migration_to_a_host_with_an_empty_cache(
        two_hosts: NovaCloud, mini: Mini) -> None:
    first, second = two_hosts.hosts
    server = booted(mini, host=first)
    mini.forget(second)
    two_hosts.live_migrate(server, second)
    mini.forget()
    mini.reboot(server)
    assert mini.tells(server, 2) == WHOLE
    assert two_hosts.where(server) == second.name


@pytest.mark.accept
@pytest.mark.parametrize("image", ["named", "unnamed"])
def test_rebuild_to_other_parts(mini: Mini, image: str) -> None:
    server = booted(mini)
    before = mini.image_of(server)
    # Without an image that is named Nova's API wants the server's own one.
    mini.cloud.act(server, "rebuild", {
        "imageRef": mini.id if image == "named" else before,
        "metadata": {"splitimage:parts": "mysql"}})
    mini.cloud.wait(server)
    assert mini.tells(server, 1) == {"mysql"}, "it is a new disk"
    assert mini.image_of(server) not in (before, mini.id)
    mini.forget()
    mini.reboot(server)
    assert mini.tells(server, 2) == {"mysql"}


@pytest.mark.parametrize("image", ["named", pytest.param("unnamed", marks=pytest.mark.accept)])
def test_a_rebuild_that_is_refused_and_a_hard_reboot(mini: Mini, image: str) -> None:
    server = booted(mini)
    before = mini.image_of(server)
    mini.cloud.act(server, "rebuild", {
        "imageRef": mini.id if image == "named" else before,
        "metadata": {"splitimage:parts": "apache,nonsense"}})
    with pytest.raises(AssertionError, match="has no part nonsense"):
        mini.cloud.wait(server)
    assert mini.image_of(server) == before
    mini.forget()
    mini.reboot(server)
    assert mini.tells(server, 2) == WHOLE


@pytest.mark.accept
def test_a_rebuild_of_a_plain_server_that_is_refused(mini: Mini) -> None:
    """Which image the disk was of is known to the disk alone."""
    server = mini.boot()
    assert mini.tells(server, 1) == set()
    assert mini.image_of(server) == mini.id
    mini.cloud.act(server, "rebuild", {
        "imageRef": mini.id, "metadata": {"splitimage:parts": "nonsense"}})
    with pytest.raises(AssertionError, match="has no part nonsense"):
        mini.cloud.wait(server)
    mini.forget()
    mini.reboot(server)
    assert mini.tells(server, 2) == set()


@pytest.mark.accept
def test_nova_compute_restarted(mini: Mini) -> None:
    server = booted(mini)
    host = mini.host(server)
    host.stop()
    host.start()
    assert mini.cloud.wait(server)
    mini.forget()
    mini.reboot(server)
    assert mini.tells(server, 2) == WHOLE


@pytest.mark.accept
def test_its_image_deleted_by_its_owner(mini: Mini) -> None:
    server = booted(mini)
    image = mini.image_of(server)
    mini.cloud.alpha.image.delete_image(image)
    mini.reboot(server)
    assert mini.tells(server, 2) == WHOLE
    # As with any image that is gone: who has its file goes on, who wants it anew
    # makes it anew.
    again = booted(mini)
    assert mini.image_of(again) != image
