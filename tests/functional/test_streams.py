"""Servers of this host that boot first and lay their parts while they run: real
machines of the demonstration."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.application import Application
from splitimage_driver.capture.identity import Identity
from splitimage_driver.launch.base import HTTP_PORTS
from splitimage_driver.model.entry import FileEntry
from splitimage_driver.model.layout import COMPLETE, FAILED
from splitimage_driver.model.plan import Request
from splitimage_driver.model.server import Server
from splitimage_driver.servers import Launched, Wish
from tests.functional import chroot, trees
from tests.functional.lamp import SUBSETS, named

pytest_plugins = ("tests.functional.lamp",)
#: Seconds within which an emulated machine on a busy host is done.
LONG = 3600.0
WEB = 80
SAMPLE = ("apache",)
#: What a system writes that runs, and its database server: logs, state, caches,
#: and the keys and numbers that its first boot makes.
_WRITTEN = re.compile(
    rb"(run|tmp|dev|proc|sys|var/(log|tmp|cache|run|backups|lib/(systemd|private|dbus|mysql|php|"
    rb"apache2|dhcp|logrotate|misc|update-notifier))|lost\+found|boot/lost\+found)(/|\Z)|"
    rb"etc/(machine-id|ssh/ssh_host_.*|ld\.so\.cache|\.updated|resolv\.conf|mtab|\.pwd\.lock|"
    rb"ssl/(certs|private)/ssl-cert-snakeoil\..*)\Z|var/\.updated\Z")

Note = Callable[[str, object], None]


class Streams:
    """Servers that lay their parts; gone with the test."""

    def __init__(self, application: Application) -> None:
        self.application, self.store = application, application.store
        self.servers = application.servers

    def launch(self, *parts: str, **wish: object) -> Launched:
        fields: dict[str, object] = {"deliver": "stream", "timeout": LONG, "cpus": 2}
        filesets = wish.pop("filesets", ())
        return self.servers.launch(Wish(
            request=Request(composite="lamp", parts=parts,
                            filesets=filesets),  # type: ignore[arg-type]
            **fields | wish))  # type: ignore[arg-type]

    def page(self, server: Server) -> int:
        """Status of its web page."""
        return self.servers.launcher.wait_http(server, WEB, timeout=LONG)[1]

    def close(self) -> None:
        for server in self.servers.list():
            self.servers.delete(server.id)


@pytest.fixture
def streams(native: Callable[[str], Application]) -> Iterator[Streams]:
    made = Streams(native("steps"))
    try:
        yield made
    finally:
        made.close()


def written(entry: FileEntry) -> bool:
    return (bool(_WRITTEN.match(entry.path)) or Identity().excludes(entry)
            or chroot.is_own(entry))


def off(streams: Streams, server: Server) -> list[str]:
    """Shut it down; in what its disk differs from the tree of its request."""
    streams.servers.stop(server.id, timeout=LONG)
    plan = streams.application.images.plan(
        msgspec.structs.replace(server.request, composite="lamp"), explain=True)
    assert plan.target is not None
    with trees.mounted(Path(server.directory, "overlay.qcow2")) as tree:
        assert trees.audit(tree) == ""
        found, wanted = tree.manifest(), plan.target.manifest
    return trees.differences(found, wanted, excludes=written, times=True)


# -- what is laid is what would have been injected ------------------------------------------

@pytest.mark.must_show("streams", line=1)
@pytest.mark.parametrize("chosen", [pytest.param(c, marks=[] if c == SAMPLE else
                                                 pytest.mark.accept, id=named(c))
                                    for c in SUBSETS])
def test_a_server_that_has_booted_has_the_tree_of_its_request(
        streams: Streams, chosen: tuple[str, ...], record_property: Note) -> None:
    wait = {"wait": WEB, "path": "/"} if "apache" in chosen else {}
    launched = streams.launch(*chosen, complete=True, **wait)
    [server] = launched.servers
    assert server.layout is not None
    assert (server.layout.state, server.layout.kept, server.layout.failed) == (COMPLETE, (), {})
    assert HTTP_PORTS.isdisjoint(server.ports) or streams.page(server) == 200
    for disk in server.layout.disks:
        assert str(streams.store.path(disk.blob)) not in opened(server), "it is detached"
    assert streams.store.images() == [], "nothing is published"
    record_property(f"{named(chosen)} answers, is laid after", {
        name: round(launched.measured[name]) for name in ("answer_seconds", "laid_seconds")
        if name in launched.measured})
    assert off(streams, server) == []


def opened(server: Server) -> set[str]:
    """The files that its process has open."""
    found = set()
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found


@pytest.mark.accept
@pytest.mark.must_show("streams", line=1)
def test_parts_of_a_running_server_come_and_go(streams: Streams) -> None:
    """After them it is what it would have been with these parts from the beginning."""
    [server] = streams.launch("apache", complete=True, wait=WEB, path="/").servers
    streams.servers.add_parts(server.id, Request(composite="lamp", parts=("php", "mysql")))
    server = streams.servers.wait(server.id, timeout=LONG)
    assert set(server.parts) == {"apache", "php", "mysql"}
    assert streams.page(server) == 200
    streams.servers.remove_parts(server.id, Request(composite="lamp", parts=("php",)))
    server = streams.servers.wait(server.id, timeout=LONG)
    assert streams.page(server) == 200
    streams.servers.remove_parts(server.id, Request(composite="lamp", parts=("apache",)))
    server = streams.servers.wait(server.id, timeout=LONG)
    assert server.parts == ("mysql",)
    assert off(streams, server) == []


# -- what fails, fails alone ----------------------------------------------------------------

_UNIT = """[Unit]
Description=Fails at its first start
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'test -e /var/tmp/again || { touch /var/tmp/again; exit 3; }'
[Install]
WantedBy=multi-user.target
"""


def fileset(streams: Streams, place: Path, name: str, build: Callable[[Path], None]) -> str:
    build(place / name)
    return streams.application.images.create_part(name, place / name).id


def flaky(root: Path) -> None:
    """A service that starts at its second start only."""
    unit = root / "etc/systemd/system/flaky.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(_UNIT)
    wants = unit.parent / "multi-user.target.wants"
    wants.mkdir()
    (wants / unit.name).symlink_to("/etc/systemd/system/flaky.service")


def large(root: Path) -> None:
    """More than the machine's disk has room for, and little on this host's."""
    root.mkdir()
    with (root / "large").open("wb") as stream:
        for _ in range(3 << 6):
            stream.write(bytes(16 << 20))


@contextlib.contextmanager
def damaged(path: Path) -> Iterator[None]:
    """A file with some other bytes in its middle, for the length of the block."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as stream:
        place = path.stat().st_size // 3
        stream.seek(place)
        sound = stream.read(1 << 20)
        stream.seek(place)
        stream.write(bytes(byte ^ 0x5A for byte in sound))
    try:
        yield
    finally:
        with path.open("r+b") as stream:
            stream.seek(place)
            stream.write(sound)
        path.chmod(mode)


def blob(streams: Streams, part: str) -> Path:
    """The file of a part that nothing else has."""
    store = streams.store
    ref = store.composite("lamp").parts[part]
    return store.path(store.part(ref.id).blob)


@pytest.mark.accept
@pytest.mark.must_show("streams", line=4)
def test_a_damaged_part_and_a_service_that_fails(streams: Streams, tmp_path: Path) -> None:
    """The server runs with what is complete; both sides tell; a retry finishes it."""
    own = fileset(streams, tmp_path, "own", flaky)
    with damaged(blob(streams, "mysql")):
        with pytest.raises(exceptions.LayoutFailed) as raised:
            streams.launch("apache", "mysql", filesets=(own,), name="web", complete=True,
                           ports=(WEB,))
        assert "mysql: " in str(raised.value) and "flaky.service: " in str(raised.value)
        server = streams.servers.show("web")
        assert server.layout is not None and server.layout.state == FAILED
        assert set(server.layout.failed) == {"mysql", "flaky.service"}
        assert not server.layout.attached and streams.page(server) == 200
        with pytest.raises(exceptions.LayoutFailed, match="no snapshot"):
            streams.servers.publish("web")
        with pytest.raises(exceptions.DigestMismatch):
            streams.servers.retry("web")
    streams.servers.retry("web")
    server = streams.servers.wait("web", timeout=LONG)
    assert server.complete and streams.page(server) == 200
    told = streams.servers.console("web").read_text(errors="replace")
    assert re.search(r'"part":"mysql","state":"failed"', told)
    assert re.search(r'"unit":"mariadb.service","state":"started"', told)
    streams.servers.stop("web", timeout=LONG)
    with trees.mounted(Path(server.directory, "overlay.qcow2")) as tree:
        assert trees.audit(tree) == ""
        status = tree.read("var/lib/splitimage/status.json")
        assert b'"state":"complete"' in status


@pytest.mark.accept
@pytest.mark.must_show("streams", line=4)
def test_a_part_that_is_too_large(streams: Streams, tmp_path: Path) -> None:
    own = fileset(streams, tmp_path, "own", large)
    [server] = streams.launch(name="web", wait=22).servers
    assert server.layout is None, "it is the base"
    streams.servers.add_parts("web", Request(composite="lamp", filesets=(own,)))
    with pytest.raises(exceptions.LayoutFailed, match=r"own: .*room"):
        streams.servers.wait("web", timeout=LONG)
    streams.servers.launcher.wait(server, 22, timeout=LONG)
    # What does not fit is taken back; others can come then.
    streams.servers.remove_parts("web", Request(composite="lamp", filesets=(own,)))
    server = streams.servers.wait("web", timeout=LONG)
    assert server.complete and server.filesets == ()


@pytest.mark.must_show("streams", line=4)
def test_a_part_that_is_missing_is_told_before_anything_is_started(streams: Streams) -> None:
    path = blob(streams, "mysql")
    away = path.with_name("away")
    path.rename(away)
    try:
        with pytest.raises(exceptions.NotFound, match=path.name):
            streams.launch("apache", "mysql")
        assert streams.servers.list() == []
    finally:
        away.rename(path)


@pytest.mark.accept
@pytest.mark.must_show("streams", line=4)
def test_a_server_whose_disks_went_gets_them_again(streams: Streams) -> None:
    """Its power is cut while it lays; a part's disk is taken away under it."""
    [server] = streams.launch("apache", "mysql", name="web", ports=(WEB,)).servers
    end = time.monotonic() + LONG
    while not streams.servers.show("web").layout.done:  # type: ignore[union-attr]
        assert time.monotonic() < end
        time.sleep(0.5)
    streams.servers.stop("web", timeout=0)
    server = streams.servers.start("web")
    assert server.layout is not None and not server.complete
    server = streams.servers.wait("web", timeout=LONG)
    assert streams.page(server) == 200
    assert off(streams, server) == []
