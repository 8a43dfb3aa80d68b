"""Servers that lay parts: what they are given, what becomes of what they tell."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions, layouts
from splitimage_driver.delivery import plandisk
from splitimage_driver.guest import LAYOUT
from splitimage_driver.launch import base
from splitimage_driver.launch.base import Disk
from splitimage_driver.model.composite import Answer
from splitimage_driver.model.layout import COMPLETE, FAILED, LAYING, REMOVE, part_serial
from splitimage_driver.model.plan import Request
from splitimage_driver.model.server import BUILDING, RUNNING, STALE, STOPPED, Server
from splitimage_driver.servers import BOOTED, NEVER, ServerService, Wish
from tests.unit.making import file, layer
from tests.unit.making import tree as tree_
from tests.unit.test_service import BASE, PARTS, World, world

__all__ = ["world"]  # the fixture


class Killed(BaseException):
    """The command was killed here."""


class Machines(base.Launcher):
    """Servers that are only their disks and consoles.

    :ivar on: of each that runs, its disks
    :ivar refuses: the next call of this name fails with this
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.on: dict[str, dict[str, Path]] = {}
        self.refuses: dict[str, BaseException] = {}
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refuses:
            raise self.refuses.pop(name)

    def start(self, server: Server, *, backing: Path, backing_format: str,
              memory: int | None = None, cpus: int | None = None, ports: Sequence[int] = (),
              firmware: str = "bios", disks: Sequence[Disk] = ()) -> Server:
        if server.id in self.on:
            raise exceptions.InvalidInput(what=server.name, reason="it runs already")
        self._called("start")
        self.console(server).parent.mkdir(parents=True, exist_ok=True)
        self.on[server.id] = {disk.serial: disk.path for disk in disks}
        assert all(disk.path.is_file() for disk in disks)
        running = base.changed(server, pid=7, started=8, state=RUNNING,
                               ports={port: 40000 + port for port in ports})
        self.store.save_server(running)
        return running

    def attach(self, server: Server, disks: Sequence[Disk]) -> None:
        self._called("attach")
        for disk in disks:
            assert disk.path.is_file()
            self.on[server.id][disk.serial] = disk.path

    def detach(self, server: Server, serials: Iterable[str]) -> None:
        self._called("detach")
        for serial in serials:
            self.on.get(server.id, {}).pop(serial, None)

    def alive(self, server: Server) -> bool:
        return server.id in self.on

    def refresh(self, server: Server) -> Server:
        if server.id in self.on or server.state != RUNNING:
            return server
        fresh = base.stopped(server, STALE)
        self.store.save_server(fresh)
        return fresh

    def stop(self, server: Server, *, timeout: float | None = None) -> Server:
        self.on.pop(server.id, None)
        done = base.stopped(server)
        self.store.save_server(done)
        return done

    def delete(self, server: Server) -> None:
        self.on.pop(server.id, None)
        self.store.delete_server(server.id)

    def console(self, server: Server) -> Path:
        return Path(server.directory, "console.log")

    def snapshot(self, server: Server, destination: Path) -> None:
        raise AssertionError

    def _connected(self, server: Server, guest_port: int) -> bool:
        raise AssertionError

    def _reset(self, server: Server) -> None:
        raise AssertionError

    def _get(self, server: Server, guest_port: int, port: int,
             path: str) -> tuple[int, bytes] | None:
        self._called("get")
        return 200, b""


class Guests:
    """ServerService over machines whose guests tell what a test lets them."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plandisk, "write", lambda destination, layout_id, plan, generated:
                            destination.write_bytes(plandisk.text(layout_id, plan)))
        monkeypatch.setattr(layouts, "_PAUSE", 0.0)
        self.world, self.store = world, world.store
        self.capable = world.composite(
            "stream", tree_(*(e for e in BASE if not e.is_dir), file(LAYOUT.decode(), b"")), PARTS)
        world.contents[file("x").sha256] = b""
        self.machines = Machines(world.store)
        self.service = ServerService(world.service(), self.machines, world.conf.launch)

    def launch(self, *parts: str, **fields: Any) -> Server:
        [server] = self.service.launch(Wish(
            request=Request(composite="stream", parts=parts),
            **{"name": "web", "deliver": "stream"} | fields)).servers
        return server

    def say(self, server: Server, event: str, **fields: Any) -> None:
        assert server.layout is not None
        with self.machines.console(server).open("ab") as log:
            log.write(b"\n" + json.dumps({"splitimage": server.layout.id, "event": event,
                                          **fields}).encode() + b"\n")

    def end(self, server: Server, state: str = COMPLETE, **fields: Any) -> None:
        self.say(server, "begin")
        self.say(server, "end", state=state, **fields)

    def serials(self, server: Server) -> set[str]:
        return set(self.machines.on[server.id])

    def blobs(self, *parts: str) -> set[str]:
        return {self.store.part(self.capable.parts[p].id).blob for p in parts}

    def kept(self, blob: str) -> bool:
        """Whether it stays though nothing but servers could need it."""
        with self.store._database.writing() as connection:
            return bool(connection.execute(
                "SELECT 1 FROM uses WHERE kind = 'server' AND digest = ?", (blob,)).fetchone())


@pytest.fixture
def guests(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guests]:
    yield Guests(world, monkeypatch)


def plans(server: Server) -> list[Path]:
    return list(Path(server.directory).glob("layout-*"))


# -- launch -------------------------------------------------------------------------------

def test_a_server_boots_from_the_base_with_what_it_is_to_lay(guests: Guests) -> None:
    server = guests.launch("apache")
    blobs = guests.blobs("apache", "dep.apache.php")
    assert server.layout is not None and server.image == ""
    assert (server.layout.state, server.layout.attached) == (LAYING, True)
    assert guests.serials(server) == {server.layout.serial, *map(part_serial, blobs)}
    assert {guests.store.path(b) for b in blobs} < set(guests.machines.on[server.id].values())
    assert plans(server)[0].read_bytes().startswith(
        b"splitimage-plan\t1\t" + server.layout.id.encode())
    assert guests.store.images() == [], "nothing is published"
    assert all(map(guests.kept, blobs))
    assert guests.service.list() == [server]


def test_every_server_of_a_launch_has_a_plan_of_its_own(guests: Guests) -> None:
    servers = guests.service.launch(Wish(
        request=Request(composite="stream", parts=("apache",)), count=3, deliver="stream")).servers
    assert len({s.layout.id for s in servers if s.layout}) == 3
    [shared] = {path for s in servers for serial, path in guests.machines.on[s.id].items()
                if serial == part_serial(*guests.blobs("apache"))}
    assert shared == guests.store.path(*guests.blobs("apache"))


def test_nothing_is_laid_where_an_image_is_there(guests: Guests) -> None:
    guests.service.images.assemble(Request(composite="stream", parts=("apache",)))
    server = guests.launch("apache")
    assert (server.layout, guests.serials(server)) == (None, set())
    assert server.image == guests.store.images()[0].id
    more = guests.launch("apache", "php", name="more")
    assert more.image == server.image and more.layout is not None
    assert more.layout.parts == ("php",)


def test_a_base_that_cannot_lay(guests: Guests) -> None:
    wish = Wish(request=Request(composite="lamp", parts=("apache",)), deliver="stream")
    with pytest.raises(exceptions.Unsupported, match="capture it again"):
        guests.service.launch(wish)
    auto = msgspec.structs.replace(wish, deliver="auto")
    [server] = guests.service.launch(auto).servers
    assert server.layout is None and server.image


def test_a_server_that_lays_is_not_published(guests: Guests) -> None:
    with pytest.raises(exceptions.InvalidInput, match="publishes nothing"):
        guests.launch("apache", publish=BOOTED, wait=80)
    server = guests.launch("apache", publish=NEVER)
    guests.say(server, "progress", bytes=server.layout.size // 2)  # type: ignore[union-attr]
    with pytest.raises(exceptions.LayoutIncomplete, match=r"has laid (49|50) % .* no snapshot"):
        guests.service.publish("web")
    guests.end(server, FAILED, failed={"apache": "damaged"})
    with pytest.raises(exceptions.LayoutFailed, match="apache: damaged; no snapshot"):
        guests.service.publish("web")


def test_a_failed_start_leaves_no_server(guests: Guests) -> None:
    guests.machines.refuses["start"] = exceptions.LaunchFailed(server="web", reason="no room")
    with pytest.raises(exceptions.LaunchFailed):
        guests.launch("apache")
    assert guests.service.list() == []
    assert not any(map(guests.kept, guests.blobs("apache")))


# -- what the guest tells -----------------------------------------------------------------

def test_progress_is_seen_by_whoever_looks(guests: Guests) -> None:
    server = guests.launch("mysql")
    guests.say(server, "progress", bytes=45_000)
    [seen] = guests.service.list()
    assert seen.layout is not None and seen.layout.percent == 50
    assert guests.store.server("web").layout.done == 45_000  # type: ignore[union-attr]


def test_complete_takes_all_away_again(guests: Guests) -> None:
    server = guests.launch("apache")
    guests.end(server, kept=["/etc/motd"], kept_count=1)
    seen = guests.service.show("web")
    assert seen.layout is not None
    assert (seen.layout.state, seen.layout.attached, seen.layout.kept) == (
        COMPLETE, False, ("/etc/motd",))
    assert guests.serials(server) == set() and plans(server) == []
    assert not any(map(guests.kept, guests.blobs("apache")))
    assert seen.complete and guests.service.show("web") == seen
    guests.machines.calls.clear()
    guests.service.list()
    assert guests.machines.calls == []


def test_a_failure_keeps_the_plan_and_the_blobs(guests: Guests) -> None:
    server = guests.launch("apache")
    guests.end(server, FAILED, failed={"apache": "its disk is damaged"})
    seen = guests.service.show("web")
    assert seen.layout is not None and (seen.layout.state, seen.layout.attached) == (FAILED, False)
    assert guests.serials(server) == set() and len(plans(server)) == 1
    assert all(map(guests.kept, guests.blobs("apache")))


def test_the_next_command_does_what_one_that_was_killed_left(guests: Guests) -> None:
    server = guests.launch("apache")
    guests.end(server)
    guests.machines.refuses["detach"] = Killed()
    with pytest.raises(Killed):
        guests.service.list()
    told = guests.store.server("web").layout
    assert told is not None and (told.state, told.attached) == (COMPLETE, True)
    assert all(map(guests.kept, guests.blobs("apache"))), "they are still attached"
    assert guests.service.show("web").layout.settled  # type: ignore[union-attr]
    assert guests.serials(server) == set()


def test_a_hypervisor_that_refuses_does_not_hide_the_servers(guests: Guests) -> None:
    server = guests.launch("apache")
    guests.end(server)
    guests.machines.refuses["detach"] = exceptions.ToolFailed(tool="qemu", status="QMP",
                                                              reason="busy")
    [seen] = guests.service.list()
    assert seen.layout is not None and (seen.layout.state, seen.layout.attached) == (
        COMPLETE, True)
    assert guests.service.list()[0].layout.settled  # type: ignore[union-attr]


def test_who_does_not_hold_it_sees_and_changes_nothing(guests: Guests) -> None:
    server = guests.launch("apache")
    guests.end(server)
    with guests.service.layouts.held(server.id):
        seen = guests.service.show("web")
    assert seen.layout is not None and (seen.layout.state, seen.layout.attached) == (
        COMPLETE, True)
    assert guests.store.server("web").layout.state == LAYING  # type: ignore[union-attr]


def test_waiting(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    server = guests.launch("apache")
    with pytest.raises(exceptions.LayoutIncomplete, match="0 s, is over"):
        guests.service.wait("web", timeout=0)
    steps = iter([lambda: guests.say(server, "begin"),
                  lambda: guests.say(server, "progress", bytes=100),
                  lambda: guests.say(server, "end", state=COMPLETE)])
    monkeypatch.setattr(layouts.time, "sleep", lambda seconds: next(steps)())
    assert guests.service.wait("web").complete
    assert guests.service.wait("web").complete, "at once"
    other = guests.launch("php", name="other")
    guests.machines.on.pop(other.id)
    with pytest.raises(exceptions.InvalidInput, match="does not run"):
        guests.service.wait("other")


def test_waiting_for_a_port_ends_when_the_layout_has_failed(
        guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(server: Server, *_: object) -> None:
        guests.end(guests.store.server(server.id), FAILED, failed={"apache2.service": "exit 1"})

    monkeypatch.setattr(guests.machines, "_get", get)
    with pytest.raises(exceptions.LayoutFailed, match=r"apache2\.service: exit 1"):
        guests.launch("apache", wait=80, path="/")
    assert guests.machines.alive(guests.store.server("web")), "it runs on"


def test_waiting_for_a_port_and_for_the_end(guests: Guests,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    def get(server: Server, *_: object) -> tuple[int, bytes]:
        guests.end(guests.store.server(server.id))
        return 200, b""

    monkeypatch.setattr(guests.machines, "_get", get)
    launched = guests.service.launch(Wish(
        request=Request(composite="stream", parts=("apache",)), deliver="stream", wait=80,
        complete=True))
    [server] = launched.servers
    assert server.layout is not None and server.layout.settled
    assert {"laid_seconds", "laid_bytes", "answer_seconds"} <= launched.measured.keys()
    assert guests.store.history("launch")[0]["deliver"] == "stream"


# -- stop, start, retry -------------------------------------------------------------------

def test_a_server_that_is_started_again_goes_on(guests: Guests) -> None:
    server = guests.launch("apache")
    guests.service.stop("web")
    seen = guests.service.show("web")
    assert seen.layout is not None and not seen.layout.attached and seen.state == STOPPED
    again = guests.service.start("web")
    assert again.layout is not None and again.layout.attached
    assert len(guests.serials(server)) == 3
    with pytest.raises(exceptions.InvalidInput, match="runs already"):
        guests.service.start("web")
    guests.end(server)
    assert guests.service.wait("web").complete
    guests.service.stop("web")
    guests.service.start("web")
    assert guests.serials(server) == set()


def test_what_it_said_before_it_was_stopped_counts(guests: Guests) -> None:
    server = guests.launch("apache")
    guests.end(server)
    guests.machines.on.pop(server.id)  # it has ended by itself
    seen = guests.service.show("web")
    assert seen.layout is not None and seen.layout.settled and seen.state == STALE
    guests.service.start("web")
    assert guests.serials(server) == set()


def test_a_launch_that_was_killed_before_the_plan_was_written(
        guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(plandisk, "write", killed)
    monkeypatch.setattr(guests.machines, "delete", lambda server: None)
    with pytest.raises(Killed):
        guests.launch("apache")
    [seen] = guests.service.list()
    assert seen.state == STALE
    with pytest.raises(exceptions.InvalidInput, match="launch it anew"):
        guests.service.start("web")


def test_a_launch_that_was_killed_before_the_start_is_started_later(guests: Guests,
                                                                    monkeypatch: Any) -> None:
    guests.machines.refuses["start"] = Killed()
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(guests.machines, "delete", lambda server: None)
        guests.launch("apache")
    assert guests.store.server("web").state == BUILDING
    assert guests.service.show("web").state == STALE
    server = guests.service.start("web")
    assert len(guests.serials(server)) == 3


def test_retry(guests: Guests) -> None:
    server = guests.launch("apache")
    with pytest.raises(exceptions.LayoutIncomplete, match="still at it"):
        guests.service.retry("web")
    guests.end(server, FAILED, failed={"apache": "its disk is damaged"})
    with pytest.raises(exceptions.LayoutFailed, match="apache: its disk is damaged"):
        guests.service.wait("web")
    again = guests.service.retry("web")
    assert again.layout is not None
    assert (again.layout.state, again.layout.failed, again.layout.attached) == (LAYING, {}, True)
    assert len(guests.serials(server)) == 3
    # it still told of the first attempt when the second was on its way
    guests.say(server, "end", state=FAILED, failed={"apache": "its disk is damaged"})
    assert guests.service.show("web").layout.state == LAYING  # type: ignore[union-attr]
    guests.end(server)
    assert guests.service.wait("web").complete
    with pytest.raises(exceptions.InvalidInput, match="nothing that it failed to lay"):
        guests.service.retry("web")


def test_a_retry_needs_sound_parts(guests: Guests) -> None:
    server = guests.launch("apache")
    guests.end(server, FAILED, failed={"apache": "its disk is damaged"})
    [blob] = guests.blobs("apache")
    path = guests.store.path(blob)
    sound = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    with pytest.raises(exceptions.DigestMismatch):
        guests.service.retry("web")
    assert guests.serials(server) == set()
    path.write_bytes(sound)
    assert guests.service.retry("web").layout.state == LAYING  # type: ignore[union-attr]


# -- other parts --------------------------------------------------------------------------

def complete(guests: Guests, *parts: str) -> Server:
    server = guests.launch(*parts)
    guests.end(server)
    return guests.service.wait("web")


def asked(*parts: str, **fields: Any) -> Request:
    return Request(composite="stream", parts=parts, **fields)


def test_a_part_is_added(guests: Guests) -> None:
    complete(guests, "apache")
    server = guests.service.add_parts("web", asked("php"))
    assert server.layout is not None and server.layout.parts == ("php",)
    assert server.parts == ("apache",), "until it is there"
    assert guests.serials(server) == {server.layout.serial,
                                      *map(part_serial, guests.blobs("php"))}
    with pytest.raises(exceptions.LayoutIncomplete, match="cannot be changed now"):
        guests.service.add_parts("web", asked("mysql"))
    guests.end(server)
    server = guests.service.wait("web")
    assert (server.parts, server.becoming) == (("apache", "php"), None)
    assert guests.serials(server) == set() and plans(server) == []
    with pytest.raises(exceptions.InvalidInput, match="has these parts already"):
        guests.service.add_parts("web", asked("php"))
    with pytest.raises(exceptions.UnknownPart):
        guests.service.add_parts("web", asked("nginx"))


def test_a_server_that_was_injected_gets_parts_too(guests: Guests) -> None:
    server = guests.launch("apache", deliver="inject")
    assert server.layout is None
    server = guests.service.add_parts("web", asked("php"))
    guests.end(server)
    assert guests.service.show("web").parts == ("apache", "php")


def test_a_file_set_is_added_with_its_answer_and_kept(guests: Guests, world: World) -> None:
    complete(guests, "apache")
    fileset = world.part("page", (layer(file("srv/mine", b"mine")),), "fileset")
    answer = Answer(path=b"etc/motd", parts=(), action="replace")
    server = guests.service.add_parts("web", asked(filesets=(fileset.id,), answers=(answer,)))
    with pytest.raises(exceptions.InUse):
        guests.store.delete_part(fileset.id, owner="me")
    guests.end(server)
    server = guests.service.wait("web")
    assert (server.filesets, server.answers) == ((fileset.id,), (answer,))
    with pytest.raises(exceptions.InUse):
        guests.store.delete_part(fileset.id, owner="me")


def test_what_could_not_be_added_is_taken_back(guests: Guests) -> None:
    complete(guests, "apache")
    server = guests.service.add_parts("web", asked("php"))
    guests.end(server, FAILED, failed={"php": "no room"})
    with pytest.raises(exceptions.LayoutFailed, match="no room"):
        guests.service.wait("web")
    with pytest.raises(exceptions.LayoutFailed, match="cannot be changed now"):
        guests.service.add_parts("web", asked("mysql"))
    with pytest.raises(exceptions.LayoutFailed, match="cannot be changed now"):
        guests.service.remove_parts("web", asked("apache"))
    server = guests.service.remove_parts("web", asked("php"))
    assert server.layout is not None and server.layout.mode == REMOVE
    guests.end(server)
    server = guests.service.wait("web")
    assert (server.parts, server.complete) == (("apache",), True)


def test_a_part_is_removed(guests: Guests) -> None:
    complete(guests, "apache", "php")
    server = guests.service.remove_parts("web", asked("php"))
    assert server.layout is not None
    assert (server.layout.mode, server.layout.policy, server.layout.parts) == (
        REMOVE, "refuse", ("php",))
    guests.end(server)
    assert guests.service.wait("web").parts == ("apache",)
    with pytest.raises(exceptions.InvalidInput, match="it was asked for apache"):
        guests.service.remove_parts("web", asked("php"))
    with pytest.raises(exceptions.InvalidInput, match="does not have it"):
        guests.service.remove_parts("web", asked(filesets=("abc",)))


def test_what_was_changed_is_not_removed_unless_forced(guests: Guests) -> None:
    complete(guests, "apache", "php")
    server = guests.service.remove_parts("web", asked("php"))
    guests.end(server, FAILED, kept=["/usr/php"], kept_count=3)
    with pytest.raises(exceptions.ChangedInServer, match="/usr/php and 2 more"):
        guests.service.wait("web")
    server = guests.service.show("web")
    assert server.complete and server.parts == ("apache", "php") and server.becoming is None
    assert guests.serials(server) == set() and plans(server) == []
    server = guests.service.remove_parts("web", asked("php"), force=True)
    assert server.layout is not None and server.layout.policy == "force"
    guests.end(server)
    assert guests.service.wait("web").parts == ("apache",)


def test_parts_of_a_server_that_does_not_run_stay(guests: Guests) -> None:
    complete(guests, "apache")
    guests.service.stop("web")
    for change in (guests.service.add_parts, guests.service.remove_parts):
        with pytest.raises(exceptions.InvalidInput, match="start it first"):
            change("web", asked("apache"))


def test_an_addition_that_was_killed_is_made_by_the_next_command(guests: Guests) -> None:
    complete(guests, "apache")
    guests.machines.refuses["attach"] = Killed()
    with pytest.raises(Killed):
        guests.service.add_parts("web", asked("php"))
    server = guests.service.show("web")
    assert len(guests.serials(server)) == 2
    guests.end(server)
    guests.machines.refuses["detach"] = Killed()
    with pytest.raises(Killed):
        guests.service.list()
    assert guests.service.show("web").parts == ("apache", "php")
