"""The use cases: a store in memory, disks that are their manifests."""

from __future__ import annotations

import hashlib
import io
import itertools
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest

from splitimage_driver import conf as configuration
from splitimage_driver import exceptions
from splitimage_driver.assembly.base import Opener, Session
from splitimage_driver.capture import conflicts, pack
from splitimage_driver.capture.machine import Gold
from splitimage_driver.composites import CompositeService
from splitimage_driver.model import part as parts_
from splitimage_driver.model.candidate import Image
from splitimage_driver.model.composite import Answer, Base, Composite, Mount, PartRef, System
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.part import Layer, Part, PartManifest, Row
from splitimage_driver.model.plan import Plan, Request, Source
from splitimage_driver.service import ImageService
from splitimage_driver.store.local import LocalStore
from tests.unit.making import Memory, directory, file, layer, tree

MOUNTS = (Mount("/dev/sda1", "/", "ext4"),)
PASSWD = b"root:x:0:0::/root:/bin/sh\n"
BASE = tree(file("etc/passwd", PASSWD), file("etc/motd", b"base"), file("usr/bin/sh", b"s" * 99))
#: php and apache share libz; php changes apache's mode and the base's motd.
PARTS: dict[str, tuple[Layer, ...]] = {
    "apache": (layer(file("usr/apache", b"a" * 5000), file("etc/mode", b"event"),
                     rows=[Row(b"etc/passwd", b"web", b"web:x:100:100::/:/bin/sh", (1, 2))]),),
    "mysql": (layer(file("usr/mysql", b"m" * 90000)),),
    "php": (layer(file("usr/php", b"p" * 7000), file("etc/motd", b"php")),
            layer(file("etc/mode", b"prefork"), when=["apache"])),
    "dep.apache.php": (layer(file("usr/libz", b"z" * 800)),),
}
REQUIRES = {"apache": ("dep.apache.php",), "php": ("dep.apache.php",)}


class Disks(Opener):
    """Opens a disk by the manifest that its bytes name.

    :ivar opened: the disks that were opened, as they were called
    """

    def __init__(self, place: Path, manifests: dict[str, Manifest]) -> None:
        self.place, self.manifests = place, manifests
        self.opened: list[str | None] = []
        self.error: Exception | None = None

    def __call__(self, disk: Path, disk_format: str, mounts: Any, *, readonly: bool = False,
                 scratch: Path | None = None, shown: str | None = None) -> Session:
        self.opened.append(shown)
        return _Disk(self, disk)


class _Disk(Memory):
    def __init__(self, disks: Disks, path: Path) -> None:
        super().__init__(disks.manifests[path.read_text()],
                         Path(tempfile.mkdtemp(dir=disks.place)))
        self.disks, self.path = disks, path

    def write(self, fill: Any, *, selinux: bool = False) -> None:
        if self.disks.error is not None:
            raise self.disks.error
        super().write(fill, selinux=selinux)

    def __exit__(self, *raised: object) -> None:
        found = self.manifest()
        self.disks.manifests[found.digest] = found
        self.path.write_text(found.digest)


class World:
    """A store with the composite ``lamp``, and services on it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.conf = configuration.load(files=[])
        self.conf.set_override("minimum_free", 0, group="store")
        self.store = LocalStore(place / "store", self.conf.store,
                                retention=self.conf.retention)
        self.disks = Disks(place, {})
        #: content of a blob's members
        self.blobs: dict[str, dict[bytes, bytes]] = {}
        self.contents = {hashlib.sha256(c).digest(): c for c in (
            PASSWD, b"base", b"s" * 99, b"a" * 5000, b"event", b"m" * 90000, b"p" * 7000, b"php",
            b"prefork", b"z" * 800, b"mine", b"<?php", b"")}
        self.lamp = self.composite("lamp", BASE, PARTS)

    def object(self, content: str) -> str:
        with self.store.scratch() as scratch:
            (scratch / "x").write_text(content)
            return self.store.adopt(scratch / "x")

    def part(self, name: str, layers: Iterable[Layer], kind: str = parts_.SOFTWARE,
             owner: str = "me") -> Part:
        manifest = PartManifest(tuple(layers))
        blob = self.object(f"blob of {name} {manifest.digest}")
        self.blobs[blob] = {parts_.member(one, e): self.contents[e.sha256]
                            for one, e in manifest.entries() if e.is_file}
        return self.store.add_part(Part(
            id=manifest.digest, name=name, kind=kind, blob=blob, blob_size=1, owner=owner,
            size=manifest.size, files=manifest.files, created=1.0), manifest)

    def composite(self, name: str, base: Manifest, told: dict[str, tuple[Layer, ...]],
                  ) -> Composite:
        stored = {part: self.part(part, layers, parts_.DEPENDENCY if part.startswith("dep.")
                                  else parts_.SOFTWARE) for part, layers in told.items()}
        restore = pack.restore_manifest(base, (self.store.part_manifest(p.id)
                                               for p in stored.values()))
        self.disks.manifests[base.digest] = base
        composite = Composite(
            name=name, id=f"id of {name}", owner="me", created=1.0,
            system=System("debian", "12", "Debian", "x86_64"),
            base=Base(self.object(base.digest), 100, 1 << 30, self.store.put_manifest(base),
                      MOUNTS),
            parts={part: PartRef(id=p.id, kind=p.kind, requires=REQUIRES.get(part, ()),
                                 hidden=p.kind == parts_.DEPENDENCY)
                   for part, p in stored.items()},
            restore=self.part(f"{name}.restore", restore.layers, parts_.RESTORE).id,
            shared={b"etc/passwd": PASSWD})
        self.store.save_composite(composite)
        return composite

    def service(self, owner: str = "me") -> ImageService:
        found = ImageService(self.conf, self.store, emulate=lambda: True, owner=owner)
        found.session = self.disks
        found._read = self.read  # type: ignore[method-assign]
        return found

    def read(self, blob: str, members: frozenset[bytes]) -> Iterable[tuple[bytes, BinaryIO]]:
        for member, content in self.blobs[blob].items():
            if member in members:
                yield member, io.BytesIO(content)

    def tree(self, disk: str) -> Manifest:
        return self.disks.manifests[self.store.path(disk).read_text()]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    place = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    found = World(place)

    def read(store: LocalStore) -> Any:
        def one(source: Source) -> bytes:
            return found.blobs[source.blob][source.member]
        return one

    monkeypatch.setattr(conflicts, "reader", read)  # the real one starts a process
    yield found
    found.store.close()
    shutil.rmtree(place)


def request(*parts: str, **fields: Any) -> Request:
    return Request(**{"composite": "lamp", "parts": parts} | fields)


# -- the way of a launch ------------------------------------------------------------------


def test_an_image_has_the_name_of_its_composite_even_if_that_is_asked_for_by_id(
        world: World) -> None:
    service = world.service()
    found = service.store.composite("lamp").id
    assert found != "lamp"
    image = service.assemble(request("php", composite=found))[1].image
    assert image is not None and image.name == "lamp+php"


def test_from_the_base_then_exact(world: World) -> None:
    service = world.service()
    plan, first = service.assemble(request("php", "apache"))
    assert (plan.estimate.match, plan.parts) == ("base", ("apache", "dep.apache.php", "php"))
    assert first.image is not None and first.image.name == "lamp+apache+php"
    found = world.tree(first.disk)
    assert found.digest == first.image.manifest
    assert found.by_path[b"etc/mode"].same(file("etc/mode", b"prefork"))
    assert found.by_path[b"etc/passwd"].size == len(PASSWD) + len(b"web:x:100:100::/:/bin/sh\n")
    opened = list(world.disks.opened)

    again, second = service.assemble(request("apache", "php"))
    assert again.exact and again.estimate.match == "exact"
    assert (second.disk, second.image.id) == (first.disk, first.image.id)  # type: ignore[union-attr]
    assert world.disks.opened == opened == ["lamp"]


def test_completed_images_serve_those_near_them(world: World) -> None:
    service = world.service()
    service.assemble(request("apache", "php"))
    plan, more = service.assemble(request("apache", "php", "mysql"))
    assert (plan.estimate.match, plan.estimate.candidate.name) == ("subset", "lamp+apache+php")
    assert plan.estimate.inject_bytes == 90000
    plan, less = service.assemble(request("php", "mysql"))
    assert plan.estimate.match in ("superset", "partial")
    assert plan.estimate.candidate.name == "lamp+apache+mysql+php"
    fresh = World(world.place / "fresh")
    _, alone = fresh.service().assemble(request("php", "mysql"))
    assert world.tree(less.disk) == fresh.tree(alone.disk)
    assert world.tree(more.disk).missing_from(world.tree(less.disk)) != ()
    fresh.store.close()


def test_every_way_to_a_request_ends_in_the_same_tree(world: World) -> None:
    wanted = ("apache", "mysql", "php")
    trees: dict[tuple[str, ...], set[str]] = {}
    for number, order in enumerate(itertools.permutations(wanted)):
        fresh = World(world.place / str(number))
        service = fresh.service()
        for size in (1, 2, 3, 2, 1):
            chosen = tuple(sorted(order[:size] if size != 2 else order[1:]))
            _, done = service.assemble(request(*chosen))
            trees.setdefault(chosen, set()).add(fresh.tree(done.disk).digest)
        fresh.store.close()
    assert all(len(found) == 1 for found in trees.values())
    assert len(trees) == 7


def test_nothing_asked_for_is_the_base_itself(world: World) -> None:
    plan, done = world.service().assemble(request())
    assert plan.exact and done.image is None and done.disk == world.lamp.base.disk
    assert world.disks.opened == []


def test_without_publishing_nothing_is_recorded(world: World) -> None:
    service = world.service()
    _, done = service.assemble(request("mysql"), publish=False)
    assert done.image is None and world.store.images() == []
    assert b"usr/mysql" in world.tree(done.disk)
    assert not service.plan(request("mysql")).exact


def test_a_failure_leaves_nothing_and_the_next_try_succeeds(world: World) -> None:
    service = world.service()
    world.disks.error = exceptions.ApplianceFailed(step="injection", reason="no")
    with pytest.raises(exceptions.ApplianceFailed):
        service.assemble(request("mysql"))
    assert world.store.images() == [] and list((world.place / "store" / "tmp").iterdir()) == []
    world.disks.error = None
    assert service.assemble(request("mysql"))[1].image is not None


def test_nothing_is_planned_twice_unless_something_came_or_went(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    service, made = world.service(), list[str]()
    plan = service.plans.plan

    def planned(wanted: Request, **options: Any) -> Plan:
        found = plan(wanted, **options)
        made.append(found.estimate.candidate.name)
        if len(made) == 1:  # what another process has done meanwhile
            other.assemble(request("mysql"))
        return found

    other = world.service()
    other.assemble(request("php"))
    monkeypatch.setattr(service.plans, "plan", planned)
    found, _ = service.assemble(request("mysql", "apache"))
    assert made == ["lamp", found.estimate.candidate.name] == ["lamp", "lamp+mysql"]
    made.append("")
    service.assemble(request("php", "mysql"))
    assert len(made) == 4


def test_two_at_a_time_assemble_once(world: World) -> None:
    done: list[str] = []

    def launch() -> None:
        done.append(world.service().assemble(request("apache", "mysql"))[1].disk)

    threads = [threading.Thread(target=launch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(done)) == 1 and len(done) == 4
    assert world.disks.opened == ["lamp"]


def test_a_disk_that_would_be_too_large_is_not_made(world: World) -> None:
    service = world.service()
    with pytest.raises(exceptions.TooLarge, match=r"the disk of lamp\+mysql"), \
            service.assembled(request("mysql"), largest=1):
        pytest.fail("it was made")
    assert world.disks.opened == []
    service.assemble(request("mysql"))
    with service.assembled(request("mysql"), largest=1) as (plan, _):
        assert plan.exact, "what is there is for others to look at"


def test_what_was_measured_is_kept(world: World) -> None:
    plan, done = world.service().assemble(request("mysql"))
    assert done.facts["injected_bytes"] == plan.estimate.inject_bytes == 90000
    assert done.facts["predicted_seconds"] == plan.estimate.cost
    assert {"assembly_seconds", "launch_seconds", "queue_seconds"} <= done.facts.keys()
    told = plan.summary()
    assert (told["match"], told["missing_bytes"], told["parts"]) == ("base", 90000, ["mysql"])


# -- plans ------------------------------------------------------------------------------------


def test_a_plan_is_deterministic_whatever_the_order_of_words(world: World) -> None:
    service = world.service()
    service.assemble(request("apache"))
    plans = [service.plan(request(*order)) for order in itertools.permutations(
        ["apache", "php", "mysql"])]
    assert len({plan.recipe for plan in plans}) == 1
    assert len({repr(plan.estimate) for plan in plans}) == 1


def test_explain_shows_every_candidate(world: World) -> None:
    service = world.service()
    for parts in ("apache",), ("apache", "php"), ("mysql",):
        service.assemble(request(*parts))
    plan = service.plan(request("apache", "php"), explain=True)
    assert plan.exact and plan.target is not None
    assert plan.considered[0].candidate.name == "lamp+apache+php"
    assert {e.candidate.name for e in plan.considered} == {
        "lamp", "lamp+apache", "lamp+apache+php", "lamp+mysql"}
    assert all(e.terms for e in plan.considered[1:])
    costs = [e.cost for e in plan.considered[1:]]
    assert costs == sorted(costs)


def test_equations_by_name(world: World) -> None:
    service = world.service()
    assert service.plan(request("mysql"), cost="count").estimate.cost == 1
    assert service.plan(request("mysql"), cost="bytes").estimate.cost == 90000
    with pytest.raises(exceptions.PluginLoadFailed):
        service.plan(request("mysql"), cost="no-such")


def test_of_many_images_the_nearest_are_compared_file_by_file(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    service = world.service()
    for parts in ("apache",), ("mysql",), ("php",), ("apache", "php"), ("mysql", "php"):
        service.assemble(request(*parts))
    wanted = request("apache", "mysql", "php")
    every = service.plan(wanted)
    assert len(every.considered) == 6
    read: list[str] = []
    manifest = world.store.manifest

    def reading(digest: str) -> Manifest:
        read.append(digest)
        return manifest(digest)

    monkeypatch.setattr(world.store, "manifest", reading)
    world.conf.set_override("shortlist", 2, group="planning")
    few = service.plan(wanted)
    assert few.estimate == every.estimate
    # The base is always among them.
    assert {e.candidate.name for e in few.considered} == {
        "lamp", "lamp+mysql+php", every.considered[1].candidate.name}
    assert len(set(read)) == 3


def test_the_exact_one_is_among_the_few_however_far(world: World,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    service = world.service()
    for parts in ("apache",), ("mysql",), ("php",), ("apache", "php"):
        service.assemble(request(*parts))
    exact = world.store.image("lamp+php").disk
    monkeypatch.setattr(world.store, "is_local", lambda digest: digest != exact)
    monkeypatch.setattr(service.plans, "fetched", lambda digest, size=None: (
        2**50 if digest == exact else 0))
    world.conf.set_override("shortlist", 1, group="planning")
    plan = service.plan(request("php"), explain=True)
    assert plan.exact
    assert plan.estimate.candidate.name == "lamp+php"
    assert len(plan.considered) == 3


def test_whoever_knows_all_images_is_asked_for_the_nearest(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    service = world.service()
    for parts in ("apache",), ("mysql",), ("php",):
        service.assemble(request(*parts))
    public, theirs = (msgspec.structs.replace(
        world.store.image("lamp+php"), id=name, owner="other", public=name == "public")
        for name in ("public", "theirs"))
    asked: list[Any] = []

    def near(*question: Any) -> list[Image]:
        asked.append(question)
        return [world.store.image("lamp+mysql"), public, theirs]

    monkeypatch.setattr(world.store, "near", near)
    plan = service.plan(request("apache", "mysql"))
    assert asked == [(world.lamp, ("apache", "dep.apache.php", "mysql"), [],
                      world.conf.planning.shortlist)]
    # What is named is judged here: "other" does not have the composite.
    assert {e.candidate.name for e in plan.considered} == {"lamp", "lamp+mysql"}


@pytest.mark.parametrize("error", [
    exceptions.BadImage(image="x", reason="no"),
    exceptions.BadArchive(path="manifest", expected="a manifest", reason="no")])
def test_a_candidate_that_cannot_be_read_is_left_out(
        world: World, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    service = world.service()
    service.assemble(request("mysql"))
    bad = world.store.image("lamp+mysql").manifest
    manifest = world.store.manifest

    def broken(digest: str) -> Manifest:
        if digest == bad:
            raise error
        return manifest(digest)

    monkeypatch.setattr(world.store, "manifest", broken)
    plan = service.plan(request("apache", "mysql"))
    assert [e.candidate.name for e in plan.considered] == ["lamp"]
    bad = world.lamp.base.manifest
    with pytest.raises(type(error)):  # without the base there is nothing to compare with
        service.plan(request("apache", "mysql"))


@pytest.mark.parametrize(("wanted", "error"), [
    (request("nginx"), exceptions.UnknownPart),
    (request("apache", composite="none"), exceptions.NotFound),
    (request("apache", filesets=("none",)), exceptions.NotFound),
    (request("apache", filesets=("mysql",)), exceptions.InvalidInput),
])
def test_refused_requests(world: World, wanted: Request, error: type[Exception]) -> None:
    with pytest.raises(error):
        world.service().plan(wanted)


def test_a_recipe_names_all_that_goes_in_and_nothing_else(world: World) -> None:
    service = world.service()
    page = world.part("page", [layer(file("srv/page", b"<?php"))], parts_.FILESET)
    plain = service.plan(request("apache", "php")).recipe
    others = [service.plan(request("apache")).recipe,
              service.plan(request("apache", "php", filesets=("page",))).recipe]

    def answered(*parts: str) -> str:
        world.store.save_composite(msgspec.structs.replace(
            world.lamp, answers=(Answer(b"etc/x", parts, "keep"),)), replace=True)
        return service.plan(request("apache", "php")).recipe

    # An answer counts where two of its parts meet.
    others.append(answered("apache", "php"))
    assert answered("apache", "mysql") == plain
    world.store.save_composite(world.lamp, replace=True)
    world.conf.set_override("exclude", ["srv/*"], group="capture")
    others.append(world.service().plan(request("apache", "php")).recipe)
    assert len({plain, *others}) == 5
    world.conf.clear_override("exclude", group="capture")
    assert service.plan(request("php", "apache")).recipe == plain
    assert page.kind == parts_.FILESET


# -- file sets ---------------------------------------------------------------------------------


def test_a_file_set_comes_on_top(world: World) -> None:
    world.part("page", [layer(directory("srv"), file("srv/page", b"<?php"))], parts_.FILESET)
    plan, done = world.service().assemble(request("apache", filesets=("page",)))
    assert b"srv/page" in world.tree(done.disk)
    assert done.image is not None and len(done.image.filesets) == 1
    # And goes again: the image is a candidate for the same without it.
    plan, done = world.service().assemble(request("apache"))
    assert plan.estimate.match == "superset" and b"srv/page" not in world.tree(done.disk)


def test_a_clash_with_a_part_is_the_tenants_question(world: World) -> None:
    world.part("mine", [layer(file("etc/mode", b"mine"))], parts_.FILESET)
    service = world.service()
    with pytest.raises(exceptions.OpenConflict, match="/etc/mode") as raised:
        service.plan(request("apache", filesets=("mine",)))
    assert "apache" in str(raised.value) and "mine" in str(raised.value)
    for action, content in ("keep", b"event"), ("replace", b"mine"):
        wanted = request("apache", filesets=("mine",), answers=(Answer(b"etc/mode", (), action),))
        _, done = service.assemble(wanted)
        assert world.tree(done.disk).by_path[b"etc/mode"].same(file("etc/mode", content))


# -- what parts disagree about ----------------------------------------------------------------

MOTD = b"one\ntwo\nthree\nfour\nfive\nsix\n"


def motd(*changed: tuple[str, str]) -> bytes:
    """The base's, with these words in the place of others."""
    text = MOTD.decode()
    for word, other in changed:
        text = text.replace(word, other)
    return text.encode()


class Disagreeing:
    """Parts that change one file: a and c the same line, b another one."""

    def __init__(self, world: World, **more: bytes) -> None:
        self.world, self.service = world, world.service()
        self.versions = {"a": motd(("two", "from a")), "b": motd(("six", "from b")),
                         "c": motd(("two", "from c"))} | more
        for content in (MOTD, *self.versions.values()):
            world.contents[hashlib.sha256(content).digest()] = content
        made = world.composite("three", tree(file("etc/motd", MOTD)), {
            name: (layer(file("etc/motd", content)),) for name, content in self.versions.items()})
        world.store.save_composite(conflicts.found(made, world.store), replace=True)
        self.composites = CompositeService(self.service)

    @property
    def open(self) -> list[str]:
        return ["".join(c.parts) for c in self.world.store.composite("three").conflicts]

    def resolve(self, action: str, part: str = "", content: bytes = b"") -> list[str]:
        """Who still disagrees."""
        self.composites.resolve("three", "/etc/motd", action, part=part, content=content)
        return self.open

    def content(self, chosen: str) -> bytes:
        goal = self.service.plan(request(*chosen, composite="three")).target
        assert goal is not None
        source = goal.sources.get(b"etc/motd")
        return goal.generated.get(b"etc/motd") or (
            MOTD if source is None else self.world.blobs[source.blob][source.member])


def test_a_launch_with_an_open_conflict_is_refused_and_told_who_answers(world: World) -> None:
    three = Disagreeing(world)
    assert three.open == ["ac"]
    for chosen in "ac", "abc":
        with pytest.raises(exceptions.OpenConflict) as raised:
            three.content(chosen)
        assert str(raised.value) == (
            f"parts {' and '.join(chosen)} of composite three disagree about /etc/motd: "
            "they differ and no rule merges them")
        assert raised.value.advice == (
            "its administrator answers: splitimage conflict resolve three /etc/motd")
    assert three.content("ab") == motd(("two", "from a"), ("six", "from b"))
    # A tenant has no say in that.
    with pytest.raises(exceptions.OpenConflict, match="parts a and c"):
        three.service.plan(request("a", "c", composite="three",
                                   answers=(Answer(b"etc/motd", (), "keep"),)))


def test_an_answer_counts_whatever_else_is_chosen(world: World) -> None:
    three = Disagreeing(world)
    before = three.service.plan(request("a", "b", composite="three")).recipe
    assert three.resolve("replace", "c") == []
    recipes = {three.service.plan(request(*chosen, composite="three")).recipe
               for chosen in ("ac", "abc")}
    assert three.content("ac") == three.versions["c"]
    assert three.content("abc") == motd(("two", "from c"), ("six", "from b"))
    assert three.service.plan(request("a", "b", composite="three")).recipe == before
    # Another one takes its place, and makes other images.
    assert three.resolve("file", content=motd(("two", "2"))) == []
    assert three.content("abc") == motd(("two", "2"), ("six", "from b"))
    assert len(world.store.composite("three").answers) == 1
    assert recipes.isdisjoint(three.service.plan(request(*chosen, composite="three")).recipe
                              for chosen in ("ac", "abc"))


def test_where_a_parts_version_wins_the_others_are_asked_about_without_it(world: World) -> None:
    three = Disagreeing(world, b=motd(("two", "from b")))
    assert three.open == ["abc"]
    assert three.resolve("replace", "a") == ["bc"]
    assert [three.content(chosen) for chosen in ("abc", "ab", "ac")] == [three.versions["a"]] * 3
    with pytest.raises(exceptions.OpenConflict, match="parts b and c of"):
        three.content("bc")
    assert three.resolve("replace", "c") == []
    assert three.content("bc") == three.versions["c"]
    assert [three.content(chosen) for chosen in ("abc", "ab", "ac")] == [three.versions["a"]] * 3
    assert three.resolve("keep") == []
    assert {three.content(chosen) for chosen in ("abc", "ab", "ac", "bc")} == {MOTD}


def test_what_is_no_answer_is_refused_and_changes_nothing(world: World) -> None:
    three = Disagreeing(world)
    before = world.store.composite("three")
    for action, part, words in (("three-way", "", "three-way does not decide it"),
                                ("replace", "b", "--part names whose version wins: a, c"),
                                ("replace", "", "--part names"), ("ask", "", "it is none of")):
        with pytest.raises(exceptions.InvalidInput, match=words):
            three.resolve(action, part)
    with pytest.raises(exceptions.NotFound):
        three.composites.resolve("three", "/etc/passwd", "keep")
    assert world.store.composite("three") == before


def test_an_own_file_that_another_part_changes_differently_is_asked_about(world: World) -> None:
    three = Disagreeing(world)
    assert three.resolve("file", content=motd(("six", "mine"))) == ["abc"]
    assert three.content("ac") == motd(("six", "mine"))
    with pytest.raises(exceptions.OpenConflict, match="parts a and b and c"):
        three.content("abc")
    assert three.resolve("replace", "b") == []
    assert three.content("abc") == three.versions["b"]
    assert three.content("ac") == motd(("six", "mine"))


# -- who may use what ---------------------------------------------------------------------------


def test_a_private_composite_is_nobody_elses(world: World) -> None:
    with pytest.raises(exceptions.NotFound):
        world.service("you").plan(request("apache"))


def publish(world: World, owner: str, *, public: bool) -> Image:
    """An image of {apache, php} of somebody's."""
    _, done = world.service().assemble(request("apache", "php"))
    assert done.image is not None
    found = world.store.add_image(msgspec.structs.replace(
        done.image, id=f"of {owner}", recipe=f"of {owner}", owner=owner, public=public))
    world.store.delete_image(done.image.id)
    return found


@pytest.mark.parametrize(("owner", "public", "trusted"), [
    ("you", False, True), ("you", True, True), ("me", True, True), ("me", False, False),
    ("other", False, False), ("other", True, False)])
def test_only_ones_own_images_and_the_owners_public_ones_are_candidates(
        world: World, owner: str, public: bool, trusted: bool) -> None:
    world.store.save_composite(msgspec.structs.replace(world.lamp, public=True), replace=True)
    publish(world, owner, public=public)
    plan = world.service("you").plan(request("apache"), explain=True)
    assert (f"of {owner}" in {e.candidate.id for e in plan.considered}) is trusted


def test_another_projects_file_sets_are_not_found(world: World) -> None:
    world.part("page", [layer(file("srv/page", b"<?php"))], parts_.FILESET, owner="you")
    with pytest.raises(exceptions.NotFound):
        world.service().plan(request("apache", filesets=("page",)))


def test_a_name_is_taken_once(world: World) -> None:
    with pytest.raises(exceptions.AlreadyExists):
        world.service().capture("lamp", Gold(disk=Path("x"), steps=(("a", Path("y")),)))


def test_only_the_owner_captures_onto_a_composite(world: World) -> None:
    gold = Gold(disk=Path("x"), steps=(("a", Path("y")),))
    with pytest.raises(exceptions.NotFound):
        world.service("you").capture("more", gold, onto="lamp")
    with pytest.raises(exceptions.AlreadyExists, match="apache"):
        world.service().capture("more", Gold(disk=Path("x"), steps=(("apache", Path("y")),)),
                                onto="lamp")


def test_a_file_set_is_its_owners_and_roots(world: World, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set" / "srv").mkdir(parents=True)
    (tmp_path / "set" / "srv" / "page").write_bytes(b"<?php")
    monkeypatch.setattr(pack.blob, "build",
                        lambda destination, fill, newest: destination.write_text("b"))
    part = world.service("you").create_part("page", tmp_path / "set")
    assert (part.kind, part.owner, part.size) == (parts_.FILESET, "you", 5)
    found = list(world.store.part_manifest(part.id).entries())
    assert {e.path for _, e in found} == {b"srv", b"srv/page"}
    assert {(e.uid, e.gid) for _, e in found} == {(0, 0)}
    for name in "Bad name", "":
        with pytest.raises(exceptions.InvalidInput):
            world.service().create_part(name, tmp_path / "set")
