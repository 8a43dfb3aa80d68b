"""Plans for a running guest: read back and carried out, in any order, they
make the request's tree."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitimage_driver import exceptions
from splitimage_driver.delivery import plandisk, streams
from splitimage_driver.delivery.attribution import Attribution
from splitimage_driver.model import delivery as model
from splitimage_driver.model.delivery import BlobDisk, Chunk, DeliveryPlan, Put, Unit
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import FILESET, Row
from splitimage_driver.model.plan import Target, Work
from splitimage_driver.planning import target
from splitimage_driver.planning.target import Laid
from tests.unit import making
from tests.unit.delivery import reader
from tests.unit.making import directory, file, laid, layer, symlink, tree

ID = "0123456789ab"
PASSWD = b"root:x:0:0:root:/root:/bin/sh\n"
WANTS = "etc/systemd/system/multi-user.target.wants/"


def nothing(path: bytes) -> bytes:
    raise AssertionError(f"{path!r} was read")


def planned(base: Manifest, parts: Sequence[Laid], *, start: Sequence[Laid] = (),
            shared: Mapping[bytes, bytes] | None = None,
            closures: Mapping[str, Sequence[str]] | None = None, **options: Any) -> DeliveryPlan:
    """The plan from the parts ``start`` to the parts ``parts``."""
    shared = shared or {}
    restore = laid("restore", layer(*(e for e in base if e.is_file and e.path not in shared)))
    old, new = (target.lay(base, chosen, shared=shared, restore=restore)
                for chosen in (start, parts))
    every = {p.name: p for p in (*start, *parts)}
    names = closures or {
        (f"fileset {p.name}" if p.kind == FILESET else p.name): [
            f"fileset {p.name}" if p.kind == FILESET else p.name] for p in every.values()}

    def content(of: Target) -> Any:
        return lambda path: of.generated.get(path, shared.get(path))

    work = Work(old.manifest, new.manifest, new.sources, new.generated)
    assert work.unobtainable == ()
    return streams.plan(
        work, Attribution(base, list(every.values()), [old, new]),
        streams.Contents(content(old), content(new)), closures=names,
        disks=lambda blob: BlobDisk(blob, 4096, blob.removeprefix(f"{making.BLOB} of ")),
        **options)


def parts_of(plan: DeliveryPlan, numbers: Sequence[int]) -> set[str]:
    return {plan.parts[n] for n in numbers}


def chunk_with(plan: DeliveryPlan, path: str) -> Chunk:
    return next(chunk for chunk in plan.chunks for change in chunk.changes
                if isinstance(change, Put) and change.entry.path == path.encode())


# -- trees ------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(current=making.trees(), wanted=making.trees(), data=st.data())
def test_chunks_in_any_order_make_the_tree(current: Manifest, wanted: Manifest,
                                           data: st.DataObject, tmp_path: Path) -> None:
    work = Work(current, wanted, making.sources(wanted), {})
    try:
        plan = streams.plan(work, Attribution(current, [], []),
                            streams.Contents(nothing, nothing), closures={},
                            disks=lambda blob: BlobDisk(blob, 1, "x"))
    except exceptions.Unsupported:
        assert any(e.is_dir for e in work.replaced)
        return
    memory = making.Memory(current, tmp_path)
    told = reader.lines(plandisk.text(ID, plan))
    contents = {hashlib.sha256(c).hexdigest().encode(): c for c in making.CONTENTS}
    order = data.draw(st.permutations(range(len(plan.chunks))))
    reader.Guest(memory, told, contents).run(order)
    assert memory.manifest() == wanted


def test_a_directory_that_must_give_way_is_refused() -> None:
    with pytest.raises(exceptions.Unsupported, match="/srv/www in the place of a directory"):
        planned(tree(directory("srv/www")),
                [laid("web", layer(file("srv/www", b"x"), deleted=["srv/www"]))])


def test_large_and_many_files_are_cut_into_chunks() -> None:
    entries = [file(f"usr/{n:03}", b"%d" % n) for n in range(600)]
    plan = planned(tree(), [laid("many", layer(*entries))])
    sizes = [len(chunk.changes) for chunk in plan.chunks]
    assert sum(sizes) == 600 and max(sizes) <= 256
    assert plan.size == sum(e.size for e in entries)


# -- parts --------------------------------------------------------------------------------


def test_a_change_belongs_to_all_parts_that_it_needs() -> None:
    plan = planned(tree(), [
        laid("web", layer(file("etc/web", b"alone")), layer()),
        laid("php", layer(file("usr/php", b"p")),
             layer(file("etc/web", b"together"), when=["web"]))])
    assert parts_of(plan, chunk_with(plan, "usr/php").parts) == {"php"}
    assert parts_of(plan, chunk_with(plan, "etc/web").parts) == {"web", "php"}


def test_chunks_are_of_one_blob_and_the_same_parts() -> None:
    plan = planned(tree(), [laid("one", layer(file("usr/a", b"a"), file("usr/b", b"b"))),
                            laid("two", layer(file("usr/c", b"c"), symlink("usr/d", "c")))])
    assert [disk.name for disk in plan.disks] == ["one", "two"]
    found = {(chunk.disk, *parts_of(plan, chunk.parts)): len(chunk.changes)
             for chunk in plan.chunks}
    assert found == {(0, "one"): 2, (1, "two"): 2}


def test_links_follow_what_they_lead_to() -> None:
    plan = planned(tree(), [
        laid("one", layer(symlink("usr/a.so", "a.so.1"), file("usr/a.so.1.2", b"a"),
                          symlink("usr/a.so.1", "../usr/a.so.1.2"),
                          symlink("etc/alone", "/usr/base"), symlink("etc/other", "/usr/b"),
                          symlink("etc/x", "y"), symlink("etc/y", "x"))),
        laid("two", layer(file("usr/b", b"b")))])
    found = [(chunk.disk, [change.entry.path for change in chunk.changes
                           if isinstance(change, model.Put)]) for chunk in plan.chunks]
    assert found == [
        (None, [b"etc/other", b"etc/alone", b"etc/x", b"etc/y"]),
        (0, [b"usr/a.so.1.2", b"usr/a.so.1", b"usr/a.so"]), (1, [b"usr/b"])]


def test_what_parts_merged_comes_with_the_plan() -> None:
    base = tree()
    contents = {"one:etc/motd": b"one\n", "two:etc/motd": b"two\n"}
    parts = [laid("one", layer(file("etc/motd", b"one\n"))),
             laid("two", layer(file("etc/motd", b"two\n")))]
    new = target.lay(base, parts, shared={}, read=making.text_of(contents))
    work = Work(base, new.manifest, new.sources, new.generated)
    plan = streams.plan(work, Attribution(base, parts, [new]),
                        streams.Contents(nothing, nothing),
                        closures={"one": ["one"], "two": ["two"]},
                        disks=lambda blob: BlobDisk(blob, 1, blob))
    assert plandisk.contents(plan, new.generated) == {
        hashlib.sha256(b"one\ntwo\n").hexdigest(): b"one\ntwo\n"}
    chunk = chunk_with(plan, "etc/motd")
    assert chunk.disk is None and parts_of(plan, chunk.parts) == {"one", "two"}


def test_what_all_parts_wait_for_comes_first() -> None:
    base, part = tree(), laid("web", layer(file("usr/a", b"web")))
    wanted = tree(file("usr/a", b"web"), file("usr/z", b"nobody's"))
    work = Work(base, wanted, making.sources(wanted), {})
    plan = streams.plan(work, Attribution(base, [part], []), streams.Contents(nothing, nothing),
                        closures={"web": ["web"]}, disks=lambda blob: BlobDisk(blob, 1, blob))
    assert [parts_of(plan, chunk.parts) for chunk in plan.chunks] == [set(), {"web"}]


# -- services ------------------------------------------------------------------------------


def service(name: str, *more: Any) -> Laid:
    return laid(name, layer(
        file(f"usr/lib/systemd/system/{name}.service", name.encode()),
        symlink(f"{WANTS}{name}.service", f"/usr/lib/systemd/system/{name}.service"),
        file(f"usr/bin/{name}", name.encode() * 9)), *more)


def test_each_service_starts_with_its_own_parts() -> None:
    plan = planned(tree(), [service("db"), service("web"), laid("lib", layer(file("usr/l", b"l")))],
                   closures={"db": ["db"], "web": ["web", "lib"]})
    assert [(parts_of(plan, g.parts), g.units) for g in plan.groups] == [
        ({"db"}, (Unit(model.START, b"db.service"),)),
        ({"web", "lib"}, (Unit(model.START, b"web.service"),))]


def test_services_that_change_each_other_start_together() -> None:
    php = laid("php", layer(file("usr/php", b"p")), layer(file("etc/web", b"x"), when=["web"]))
    plan = planned(tree(), [service("db"), service("web"), php])
    assert [parts_of(plan, g.parts) for g in plan.groups] == [{"db"}, {"php", "web"}]


def test_that_the_package_manager_notes_both_joins_nobody() -> None:
    note = layer(file("var/lib/dpkg/available", b"both"), when=["web"])
    plan = planned(tree(), [service("web"), service("db", note)])
    assert [parts_of(plan, g.parts) for g in plan.groups] == [{"db"}, {"web"}]


def test_a_running_service_whose_files_change_is_started_again() -> None:
    php = laid("php", layer(file("usr/php", b"p")), layer(file("etc/web", b"x"), when=["web"]))
    plan = planned(tree(), [service("web"), php], start=[service("web")])
    assert [g.units for g in plan.groups] == [(Unit(model.RESTART, b"web.service"),)]


def test_a_running_service_that_nothing_touches_is_left_alone() -> None:
    plan = planned(tree(), [service("web"), service("db")], start=[service("web")])
    assert [g.units for g in plan.groups] == [(Unit(model.START, b"db.service"),)]


def test_a_service_that_goes_is_stopped_first() -> None:
    plan = planned(tree(), [], start=[service("web")], mode="remove")
    assert [g.units for g in plan.groups] == [(Unit(model.STOP, b"web.service"),)]
    assert {change.before.path for chunk in plan.chunks for change in chunk.changes
            if isinstance(change, model.Gone)} >= {b"usr/bin/web", WANTS.encode() + b"web.service"}


def test_file_sets_are_there_before_any_service() -> None:
    page = laid("page", layer(file("srv/index.html", b"hello")), kind=FILESET)
    plan = planned(tree(), [service("web"), service("db"), page])
    assert all("fileset page" in parts_of(plan, g.parts) for g in plan.groups)


# -- shared files --------------------------------------------------------------------------


def test_shared_files_travel_as_rows() -> None:
    base = tree(file("etc/passwd", PASSWD))
    row = Row(b"etc/passwd", b"web", b"web:x:33:33::/srv:/bin/false", (1, 2))
    plan = planned(base, [laid("web", layer(rows=[row]))], shared={b"etc/passwd": PASSWD})
    shared, = plan.shared
    assert shared.phase == model.EARLY and shared.old == hashlib.sha256(PASSWD).hexdigest()
    assert shared.content == PASSWD + row.value + b"\n"  # type: ignore[operator]
    change, = shared.rows
    assert (change.key, change.old, change.new, change.after) == (
        b"web", None, row.value, (b"root",))
    assert parts_of(plan, change.parts) == {"web"}
    assert not any(chunk.changes for chunk in plan.chunks)


def test_a_shared_file_that_did_not_exist_is_made_of_rows() -> None:
    row = Row(b"var/lib/dpkg/triggers/x", b"web", b"web", (0, 1))
    plan = planned(tree(directory("var/lib/dpkg/triggers")), [laid("web", layer(rows=[row]))])
    shared, = plan.shared
    assert (shared.phase, shared.old, shared.content) == (model.LATE, "", b"web\n")


# -- text ------------------------------------------------------------------------------------


def test_any_name_survives_the_text() -> None:
    odd = b"usr/a b\t%\n\xff,=:"
    plan = planned(tree(), [laid("odd", layer(
        file(odd, b"x", xattrs=((b"user.a,b=c", b"\0\n"),)), symlink("usr/l", "a:b\tc")))])
    told = reader.lines(plandisk.text(ID, plan))
    found = {line[0]: line for line in told}
    assert found[b"file"][2] == odd and found[b"link"][6] == b"a:b\tc"
    assert found[b"file"][11] == b"user.a%2Cb%3Dc=000a"
    assert told[0][2:] == [ID.encode(), b"add", b"keep", b"1"]
