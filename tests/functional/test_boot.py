"""Machines that boot: captured Debian, BIOS and UEFI, each server with an
identity of its own.

The gold machines here have lived: they have a machine-id and ssh host keys,
which no server may ever show.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from demo import gold
from splitimage_driver import exceptions
from splitimage_driver.application import Application
from splitimage_driver.archive.tree import TarTree
from splitimage_driver.capture.gold import GoldState
from splitimage_driver.capture.machine import Gold
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.plan import Request
from splitimage_driver.model.server import Server
from splitimage_driver.servers import BOOTED, Wish

pytestmark = pytest.mark.must_show("main-job", 4)

COMPOSITE = "web"
#: Where a server shows its machine-id, by a link in a tenant's file set.
PAGE = "/machine-id"
#: Seconds within which an emulated server on a busy host has booted.
LONG = 900.0
GOLD_ID = "6f1d9ac2b47e4d0c8a35e7f2104b9d6c"

Note = Callable[[str, object], None]


class Identity(NamedTuple):
    machine_id: str
    host_keys: frozenset[str]


class Cloud:
    """A store with one composite: the system and Apache.

    :ivar gold: what the gold machine's own identity was
    """

    def __init__(self, home: Path, capture: Callable[[Path], Gold]) -> None:
        self.application = Application(home / "store")
        machine = capture(home)
        self.application.images.capture(COMPOSITE, machine)
        machine.disk.unlink()
        tree = home / "page" / "var/www/html"
        tree.mkdir(parents=True)
        (tree / PAGE[1:]).symlink_to("/etc/machine-id")
        page = self.application.images.create_part("page", home / "page")
        self.apache = Request(composite=COMPOSITE, parts=("apache",), filesets=(page.id,))
        self.system = Request(composite=COMPOSITE)

    def launch(self, request: Request, **wish: Any) -> tuple[Server, ...]:
        return self.application.servers.launch(Wish(
            request=request, timeout=LONG, **{"ports": (22, 80)} | wish)).servers

    def identity(self, server: Server) -> Identity:
        launcher = self.application.servers.launcher
        launcher.wait(server, 22, timeout=LONG)
        _, _, body = launcher.wait_http(server, 80, PAGE, timeout=LONG)
        return Identity(body.decode().strip(), host_keys(server.ports[22]))

    def close(self) -> None:
        for server in self.application.servers.list():
            self.application.servers.delete(server.id)
        self.application.store.close()


def host_keys(port: int) -> frozenset[str]:
    """The public host keys that a server shows, one of each type."""
    found = set()
    # One after the other: of several connections at once QEMU's forwarder may
    # forget one.
    for kind in ("rsa", "ecdsa", "ed25519"):
        done = subprocess.run(["ssh-keyscan", "-T", "60", "-t", kind, "-p", str(port),
                               "127.0.0.1"], capture_output=True, text=True, check=True)
        found |= {line.split()[2] for line in done.stdout.splitlines()
                  if not line.startswith("#")}
    return frozenset(found)


def gold_keys(tar: Path) -> frozenset[str]:
    with tarfile.open(tar) as archive:
        names = [n for n in archive.getnames() if re.fullmatch(r"\./etc/ssh/.*_key\.pub", n)]
        return frozenset(archive.extractfile(n).read().decode().split()[1]  # type: ignore[union-attr]
                         for n in names)


def apache_tar() -> Path:
    return gold.build_steps(gold.CACHE, gold.LAMP)["apache"]


def lived_in(tar: Path, copy: Path) -> Path:
    """The root file system with traces of a life: tar's last member wins."""
    shutil.copyfile(tar, copy)
    with tarfile.open(copy, "a") as archive:
        for name, content in (("etc/machine-id", f"{GOLD_ID}\n".encode()),
                              ("var/lib/systemd/random-seed", bytes(range(256)) * 2),
                              ("root/.bash_history", b"mysql -p secret\n")):
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(content), 0o444
            archive.addfile(member, io.BytesIO(content))
    return copy


def by_steps(home: Path) -> Gold:
    """extlinux, MBR, BIOS; Apache is the step that follows."""
    tars = gold.build_steps(gold.CACHE, gold.LAMP)
    base = lived_in(tars[gold.BASE], home / "base.tar")
    disk = gold.bios_disk(base, home / "gold.qcow2")
    base.unlink()
    return Gold(disk=disk, steps=(("apache", lived_in(tars["apache"], home / "apache.tar")),))


def by_packages(home: Path) -> Gold:
    """GRUB, GPT, UEFI, /boot of its own; one finished disk."""
    tars = gold.build_steps(gold.CACHE, gold.LAMP)
    root = lived_in(tars["apache"], home / "apache.tar")
    disk = gold.uefi_disk(root, home / "gold.qcow2")
    root.unlink()
    return Gold(disk=disk, software={"apache": ("apache2",)})


@contextlib.contextmanager
def cloud(home: Path, capture: Callable[[Path], Gold]) -> Iterator[Cloud]:
    made = Cloud(home, capture)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(home)  # a GB, which pytest would keep three times


@pytest.fixture(scope="module")
def bios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("bios"), by_steps) as made:
        yield made


@pytest.fixture(scope="module")
def uefi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("uefi"), by_packages) as made:
        yield made


def differ(*found: Identity) -> None:
    """All are identities, none is another's or the gold machine's."""
    own = gold_keys(apache_tar())
    assert len(own) == 3, "the gold machine has host keys"
    for one in found:
        assert re.fullmatch("[0-9a-f]{32}", one.machine_id)
        assert len(one.host_keys) == 3
    ids = [one.machine_id for one in found] + [GOLD_ID]
    assert len(set(ids)) == len(ids)
    keys = [key for one in found for key in one.host_keys] + list(own)
    assert len(set(keys)) == len(keys)


def two_servers(made: Cloud) -> None:
    first, second = made.launch(made.apache, count=2)
    assert first.image == second.image != ""
    differ(made.identity(first), made.identity(second))
    for server in (first, second):
        made.application.servers.delete(server.id)


def test_two_servers_of_one_image_are_machines_of_their_own(bios: Cloud) -> None:
    two_servers(bios)


@pytest.mark.accept
def test_and_so_are_two_that_boot_by_uefi(uefi: Cloud) -> None:
    assert uefi.application.store.composite(COMPOSITE).hardware["firmware"] == "uefi"
    mounts = uefi.application.store.composite(COMPOSITE).base.mounts
    assert {m.mountpoint for m in mounts} >= {"/", "/boot"}
    two_servers(uefi)


@pytest.mark.accept
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_base_alone_boots(firmware: str, request: pytest.FixtureRequest,
                              record_property: Note) -> None:
    made: Cloud = request.getfixturevalue(firmware)
    (server,) = made.launch(made.system, ports=(22,))
    seconds = made.application.servers.launcher.wait(server, 22, timeout=LONG)
    record_property(f"{firmware} base answers ssh", f"{seconds:.0f} s")
    assert host_keys(server.ports[22]).isdisjoint(gold_keys(apache_tar()))
    made.application.servers.delete(server.id)


@pytest.mark.accept
def test_a_server_of_an_image_that_had_run_is_a_machine_of_its_own(bios: Cloud,
                                                                   record_property: Note) -> None:
    servers = bios.application.servers
    wish = Wish(request=bios.apache, publish=BOOTED, ports=(22,), wait=80, path=PAGE,
                timeout=LONG)
    launched = servers.launch(wish)
    before = bios.identity(launched.servers[0])
    record_property("paths nobody vouches for", len(launched.unknown))
    (image,) = [i for i in bios.application.store.images() if i.booted]
    no_identity(bios, image, before)
    servers.delete(launched.servers[0].id)

    again = servers.launch(wish)
    assert (again.plan.estimate.match, again.servers[0].image) == ("exact", image.id)
    assert again.servers[0].disk == image.disk
    differ(before, bios.identity(again.servers[0]))
    with pytest.raises(exceptions.AlreadyExists):
        servers.publish(again.servers[0].id)
    servers.delete(again.servers[0].id)
    plan = bios.application.images.plan(bios.apache)
    assert not (plan.exact and plan.estimate.candidate.id == image.id), \
        "whoever does not ask for it does not get it"


def no_identity(made: Cloud, image: Image, before: Identity) -> None:
    """The disk is what its manifest says, without what told machines apart."""
    application = made.application
    with application.store.scratch() as scratch:
        tar = scratch / "root.tar"
        with application.images.session(application.store.path(image.disk), "qcow2",
                                        image.mounts, readonly=True) as session:
            session.read_tree(tar)
            tree = GoldState("image", TarTree(tar), sparse=session.sparse_files()).manifest
        content = tar.read_bytes()
    recorded = application.store.manifest(image.manifest)
    assert [e.path for e in tree.missing_from(recorded)] == []
    assert [e.path for e in tree.excess_over(recorded)] == []
    assert tree.by_path[b"etc/machine-id"].size == 0
    paths = b"\n".join(e.path for e in tree)
    for trace in (b"etc/ssh/ssh_host_", b"systemd/random-seed", b".bash_history"):
        assert trace not in paths
    # No machine's id or keys anywhere, in names or contents.
    for secret in (before.machine_id, GOLD_ID, *before.host_keys, *gold_keys(apache_tar())):
        assert secret.encode() not in content
