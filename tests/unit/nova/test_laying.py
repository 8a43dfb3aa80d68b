from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from splitimage_driver import exceptions
from splitimage_driver.model.layout import COMPLETE, FAILED, LAYING, REFUSE, Layout, PartDisk
from splitimage_driver.model.layout import part_serial as serial_of
from splitimage_driver.nova import laying
from splitimage_driver.nova.laying import RECORD, SHARED, Laying, Made, Places
from splitimage_driver.nova.request import Wanted

ONE, OTHER = "0a" * 16, "0b" * 16
HAD, BECOMES = Made(composite="lamp"), Made(composite="lamp", parts=("apache", "php"))
CONTENTS = (b"apache's", b"php's")
BLOBS = tuple(hashlib.sha256(content).hexdigest() for content in CONTENTS)
SERIALS = tuple(map(serial_of, BLOBS))


class Store:
    """Of a host; what is damaged here is fetched anew.

    :ivar objects: where its blobs are
    """

    def __init__(self, objects: Path) -> None:
        self.objects = objects
        self.fetch()

    def fetch(self) -> None:
        self.objects.mkdir(exist_ok=True)
        for content, blob in zip(CONTENTS, BLOBS, strict=True):
            if not self.path(blob).exists():
                self.path(blob).write_bytes(content)
                self.path(blob).chmod(0o400)

    def path(self, blob: str) -> Path:
        return self.objects / blob

    def verify(self, blob: str) -> None:
        if hashlib.sha256(self.path(blob).read_bytes()).hexdigest() != blob:
            self.path(blob).unlink()
            raise exceptions.DigestMismatch(what="a blob", expected=blob, found="another")

    def hold(self, blobs: list[str]) -> Any:
        self.fetch()
        return open(os.devnull)


class Given:
    """A delivery.

    :ivar fails: its plan cannot be written
    """

    def __init__(self, number: int = 1, *, fails: bool = False, policy: str = "keep") -> None:
        self.fails = fails
        self.plan = msgspec.defstruct("Plan", ["policy"])(policy)
        self.layout = Layout(id=f"{number:012x}", parts=("apache", "php"), size=1000,
                             disks=tuple(map(PartDisk, SERIALS, BLOBS)))

    def write(self, destination: Path) -> None:
        if self.fails:
            raise exceptions.ToolMissing(tool="sqfstar")
        destination.write_bytes(self.layout.id.encode())


class Host:
    def __init__(self, root: Path) -> None:
        self.store: Any = Store(root / "objects")
        (root / "instances").mkdir()
        self.places = Places(root / "instances")

    def give(self, server: str = ONE, **more: Any) -> Layout:
        given: Any = Given(**more)
        self.places.prepare(server, given, self.store, had=HAD, becomes=BECOMES)
        self.places.settle(server)
        layout: Layout = given.layout
        return layout

    def left(self) -> list[str]:
        return sorted(os.listdir(self.places.shared))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# -- files ---------------------------------------------------------------------------


def test_servers_share_one_copy_of_a_part(host: Host) -> None:
    first, second = host.give(ONE), host.give(OTHER, number=2)
    for serial, blob in zip(SERIALS, BLOBS, strict=True):
        files = [host.places.of(server) / serial for server in (ONE, OTHER)]
        assert all(file.samefile(host.store.path(blob)) for file in files)
        assert all(file.stat().st_mode & 0o777 == 0o444 for file in files)
    for server, layout in ((ONE, first), (OTHER, second)):
        disks = host.places.disks(server)
        assert [serial for serial, _ in disks] == [*SERIALS, layout.serial], "the plan is last"
        assert disks[-1][1].read_bytes() == layout.id.encode()
        assert disks[-1][1].stat().st_mode & 0o777 == 0o444
    assert sorted(host.places.laying()) == [ONE, OTHER]
    assert host.left() == []


def test_no_cache_takes_a_part_away(host: Host) -> None:
    host.give()
    host.store.path(BLOBS[0]).unlink()
    assert dict(host.places.disks(ONE))[SERIALS[0]].read_bytes() == CONTENTS[0]


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EMLINK, errno.EPERM])
def test_where_the_stores_own_cannot_be_named_there_is_one_copy(
        host: Host, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    link = os.link

    def refuse(source: Path, target: Path) -> None:
        if source.parent == host.store.objects:
            raise OSError(reason, "not here")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    host.give(ONE)
    host.give(OTHER, number=2)
    copies = [host.places.shared / blob for blob in BLOBS]
    for serial, blob, copy in zip(SERIALS, BLOBS, copies, strict=True):
        assert not copy.samefile(host.store.path(blob))
        assert (host.places.of(ONE) / serial).samefile(copy)
        assert (host.places.of(OTHER) / serial).samefile(copy)
    host.places.clear(ONE)
    assert host.left() == sorted(BLOBS), "another server has them"
    host.places.clear(OTHER)
    assert host.left() == []


def test_where_no_file_can_have_two_names_every_server_has_a_copy(
        host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", refuse)
    host.give()
    assert [path.read_bytes() for _, path in host.places.disks(ONE)][:2] == list(CONTENTS)
    host.places.tidy()
    assert host.left() == []


def test_what_cannot_be_prepared_leaves_nothing(host: Host) -> None:
    with pytest.raises(exceptions.ToolMissing):
        host.give(fails=True)
    assert host.left() == []
    assert not host.places.of(ONE).exists()


def test_what_is_ready_waits_for_the_servers_directory(host: Host) -> None:
    """A rebuild empties that first."""
    given: Any = Given()
    host.places.prepare(ONE, given, host.store, had=HAD, becomes=BECOMES)
    assert host.left() == [ONE]
    assert host.places.read(ONE) is None
    assert list(host.places.laying()) == []
    host.places.drop(ONE)
    host.places.settle(ONE)
    assert not host.places.of(ONE).exists(), "it is not wanted any more"


def test_another_layout_takes_the_place_of_the_last(host: Host) -> None:
    first = host.give(number=1)
    second = host.give(number=2)
    names = set(os.listdir(host.places.of(ONE)))
    assert second.serial in names
    assert first.serial not in names


def test_when_it_is_over_the_files_go_and_the_record_stays(host: Host) -> None:
    layout = host.give()
    host.places.save(ONE, Laying(had=HAD, becomes=BECOMES,
                                 layout=msgspec.structs.replace(layout, state=COMPLETE)))
    assert host.places.disks(ONE) == []
    host.places.clear(ONE)
    assert os.listdir(host.places.of(ONE)) == [RECORD]
    host.places.forget(ONE)
    assert os.listdir(host.places.of(ONE)) == []


def test_a_killed_nova_compute_leaves_nothing_that_lasts(host: Host) -> None:
    given: Any = Given()
    host.places.prepare(ONE, given, host.store, had=HAD, becomes=BECOMES)
    (host.places.shared / BLOBS[0]).write_bytes(b"copy")
    (host.places.shared / f".{BLOBS[0]}.x.part").mkdir()
    host.places.tidy_all()
    assert host.left() == []
    Places(host.places.instances / "none").tidy_all()


def test_a_record_that_cannot_be_read_is_none(host: Host) -> None:
    host.give()
    (host.places.of(ONE) / RECORD).write_bytes(b"{")
    assert host.places.read(ONE) is None
    assert host.places.disks(ONE) == []
    assert SHARED not in list(host.places.laying())


def test_before_another_try_a_damaged_part_is_fetched_again(host: Host) -> None:
    host.give()
    name = host.places.of(ONE) / SERIALS[1]
    name.chmod(0o600)
    name.write_bytes(b"rot")
    host.places.renew(ONE, host.store)
    assert [path.read_bytes() for _, path in host.places.disks(ONE)][:2] == list(CONTENTS)
    assert name.stat().st_mode & 0o777 == 0o444


# -- what is said --------------------------------------------------------------------


def test_what_a_server_is_made_of_fits_its_metadata() -> None:
    names = tuple(f"part-{number:03}-{'x' * 50}" for number in range(64))
    made = Made(composite="lamp", parts=names, filesets=("ab" * 32,))
    noted = laying.noted(made)
    assert all(len(value) <= 255 for value in noted.values())
    assert laying.read(noted) == made
    assert laying.read(laying.noted(HAD)) == HAD
    assert laying.read({"composed_image_ref": "x"}) is None
    metadata = noted | {"image_os": "x", "composed_image_ref": "x", "composed_layout": LAYING,
                        "composed_wish": "x"}
    laying.forget(metadata)
    assert metadata == {"image_os": "x", "composed_image_ref": "x"}


def test_a_wish_is_another_one_when_something_is_asked_for_that_was_not() -> None:
    wishes = [Wanted(), Wanted(()), Wanted(("a",)), Wanted(("a", "b")), Wanted(("a",), ("b",))]
    assert len({laying.wish(each) for each in wishes}) == len(wishes)
    assert laying.wish(Wanted(("a",), deliver="stream")) == laying.wish(Wanted(("a",)))


@pytest.mark.parametrize(("fields", "text"), [
    ({}, "laying 0%"), ({"done": 499}, "laying 25%"), ({"done": 1000}, "laying 75%"),
    ({"size": 0}, "laying 0%"), ({"state": COMPLETE}, "complete"),
    ({"state": FAILED, "failed": {"php": "no room", "a": "gone"}}, "failed: a: gone; php: no room"),
    ({"state": FAILED, "kept": ("/etc/x",)}, "failed: changed in the server: /etc/x"),
    ({"state": FAILED}, "failed: the guest does not say why"),
    ({"state": FAILED, "failed": {laying.STOPPED: ""}}, f"failed: {laying.STOPPED}"),
])
def test_a_tenant_is_told(fields: dict[str, Any], text: str) -> None:
    given = Layout(id="0" * 12, size=1000)
    assert laying.told(msgspec.structs.replace(given, **fields)) == text


def test_and_never_more_than_fits() -> None:
    text = laying.told(Layout(id="0" * 12, state=FAILED, failed={"php": "\u00e4" * 300}))
    assert len(text.encode()) == 255
    assert text.endswith("?...")


def layout(**fields: Any) -> Laying:
    return Laying(layout=Layout(id="0" * 12, parts=("php",), filesets=("f1",), **fields),
                  had=HAD, becomes=BECOMES)


@pytest.mark.parametrize(("fields", "made"), [
    ({}, HAD), ({"state": COMPLETE}, BECOMES), ({"state": FAILED}, HAD),
    ({"state": FAILED, "failed": {"php": "no room"}}, HAD),
    ({"state": FAILED, "failed": {"php": "no room", "b.service": "it ended"}}, HAD),
    ({"state": FAILED, "failed": {"b.service": "it ended"}}, BECOMES),
    ({"state": FAILED, "failed": {"fileset my.page": "no room"}}, HAD),
    ({"state": FAILED, "failed": {laying.STOPPED: ""}}, HAD),
])
def test_what_is_there_for_certain(fields: dict[str, Any], made: Made) -> None:
    assert layout(**fields).made == made


def test_what_has_to_wait_is_told_for_how_long() -> None:
    assert laying.refusal(None, "a snapshot") is None
    assert laying.refusal(layout(state=COMPLETE), "a snapshot") is None
    assert laying.refusal(layout(state=FAILED), "a snapshot") is None
    assert laying.refusal(layout(state=COMPLETE, attached=True), "a snapshot"), "its disks go yet"
    assert str(laying.refusal(layout(size=100, done=45), "a snapshot")) == (
        "the server still lays its parts (45 %), and a snapshot would not have all of them: try "
        "again when its metadata splitimage:layout is complete or failed")


def test_what_failed_is_tried_again_unless_that_is_no_use() -> None:
    assert layout(state=FAILED, failed={"php": "no room"}).again
    assert not layout(state=FAILED, failed={laying.STOPPED: ""}).again
    assert not layout(state=FAILED, policy=REFUSE, kept=("/etc/x",)).again
    assert not layout(state=COMPLETE).again
    assert not layout().again


@pytest.mark.parametrize(("tail", "before", "new"), [
    (b"one\ntwo\n", b"", b"one\ntwo\n"),
    (b"one\ntwo\n", b"one\n", b"two\n"),
    (b"one\n", b"one\n", b""),
    (b"two\nthree\n" * 5 + b"four\n", b"one\n" + b"two\nthree\n" * 5, b"four\n"),
    (b"end\n" * 12, b"one\n" + b"end\n" * 11, b"end\n"),
    (b"seen\nfour\n", b"one\nseen\n", b"seen\nfour\n"),
    (b"another log\n", b"one\ntwo\n", b"another log\n"),
    (b"", b"one\n", b""),
])
def test_what_is_newer_than_what_was_known(tail: bytes, before: bytes, new: bytes) -> None:
    assert laying.newer(tail, before) == new
