"""A second gold machine over the same base: its parts mix with the first's."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import gold as gold_machines
from splitimage_driver import exceptions
from splitimage_driver.application import Application
from splitimage_driver.capture.machine import Gold
from splitimage_driver.model.composite import Composite
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Request, Target
from splitimage_driver.planning import target
from tests.functional import trees
from tests.functional.lamp import NAMES, SOFTWARE, Lamp, lay, named

pytest_plugins = ("tests.functional.lamp",)
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
              pytest.mark.must_show("main-job", 7)]
REAL = (gold_machines.Step("redis", ("redis-server",)),
        gold_machines.Step("nginx", ("nginx-light",)))


# -- invented packages, really installed ----------------------------------------------------


def deb(directory: Path, name: str, files: dict[str, str], *, depends: str = "",
        script: str = "") -> Path:
    root = directory / name
    control = root / "DEBIAN"
    control.mkdir(parents=True)
    wanted = f"Depends: {depends}\n" if depends else ""
    (control / "control").write_text(
        f"Package: {name}\nVersion: 1.0-1\nArchitecture: all\nSection: net\nPriority: optional\n"
        f"Maintainer: nobody <nobody@example.org>\n{wanted}Description: invented {name}\n")
    if script:
        (control / "postinst").write_text(f"#!/bin/sh\nset -e\n{script}\n")
        (control / "postinst").chmod(0o755)
    conffiles = []
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
        if path.startswith("etc/"):
            conffiles.append(f"/{path}\n")
    (control / "conffiles").write_text("".join(conffiles))
    done = directory / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", root, done], check=True,
                   capture_output=True)
    return done


#: Like a database and a web front end: an account of its own whose number is
#: taken in the first machine, data, a shared library, a shared configuration
#: file, an alternative.
STORE = """
adduser --system --group --no-create-home --quiet sitestore
adduser --quiet sitestore www-data
install -d -o sitestore -g sitestore -m 2750 /var/lib/sitestore
echo data > /var/lib/sitestore/data
chown sitestore:sitestore /var/lib/sitestore/data
echo /usr/bin/sitesh >> /etc/shells
dpkg-statoverride --update --add root sitestore 0750 /usr/bin/sitestore
"""
FRONT = """
adduser --quiet --system sitefront
echo /usr/bin/frontsh >> /etc/shells
update-alternatives --quiet --install /usr/bin/awk awk /usr/bin/sitefront 1
"""


def invented(directory: Path, lamp: Lamp) -> Gold:
    """Steps ``store`` and ``front`` on the disk of the first machine's base."""
    library = deb(directory, "libsite", {"usr/lib/libsite.so": "library"})
    packages = {
        "store": [library, deb(directory, "sitestore", {
            "usr/bin/sitestore": "#!/bin/sh\n", "etc/sitestore.conf": "keep = 1\n"},
            depends="libsite, adduser", script=STORE)],
        "front": [deb(directory, "sitefront", {
            "usr/bin/sitefront": "#!/bin/sh\n", "etc/sitefront/site.conf": "site = 1\n"},
            depends="libsite, adduser", script=FRONT)]}
    steps = []
    disk = lamp.disks["base"]
    for name, debs in packages.items():
        with trees.mounted(disk) as tree:
            for package in debs:
                shutil.copy(package, tree.root / "tmp")
            tree.run("mkdir -p /run/lock && dpkg -i "
                     + " ".join(f"/tmp/{package.name}" for package in debs))
            if name == "store":
                tree.run("apt-mark auto libsite")
            for package in debs:
                (tree.root / "tmp" / package.name).unlink()
            disk = directory / f"{name}.qcow2"
            tree.keep(disk, "qcow2")
        steps.append((name, disk))
    return Gold(disk=lamp.disks["base"], steps=tuple(steps))


# -- stores ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(lamp: Lamp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with the first machine and two images of it, for reading only."""
    path = tmp_path_factory.mktemp("first") / "store"
    application = Application(path)
    images = trees.native(application)
    images.capture("lamp", Gold(disk=lamp.disks["base"], steps=tuple(
        (name, lamp.tars[name]) for name in NAMES)))
    for parts in ("apache",), ("mysql",):
        images.assemble(Request(composite="lamp", parts=parts))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def second(lamp: Lamp, tmp_path_factory: pytest.TempPathFactory) -> Gold:
    return invented(tmp_path_factory.mktemp("second"), lamp)


@pytest.fixture(scope="module")
def both(first: Path, second: Gold, tmp_path_factory: pytest.TempPathFactory,
         ) -> Iterator[Application]:
    path = tmp_path_factory.mktemp("both") / "store"
    shutil.copytree(first, path)
    application = Application(path)
    trees.native(application).capture("site", second, onto="lamp", renumber=True)
    yield application
    shutil.rmtree(path)


def composite(application: Application) -> Composite:
    return application.store.composite("lamp")


def accounts(tree: trees.Mounted, name: str) -> dict[int, str]:
    return {int(fields[2]): fields[0] for line in tree.read(f"etc/{name}").decode().splitlines()
            if (fields := line.split(":"))}


def owners(tree: trees.Mounted, found: Manifest, *starts: str) -> dict[str, tuple[str, str]]:
    """By path the names of user and group."""
    users, groups = accounts(tree, "passwd"), accounts(tree, "group")
    return {e.path.decode(): (users[e.uid], groups[e.gid]) for e in found
            if e.path.startswith(tuple(start.encode() for start in starts))}


def sound(application: Application) -> None:
    assert list(application.store.check()) == []


# -- what becomes of the composite ----------------------------------------------------------------


def test_numbers_that_clash_are_refused_unless_renumbered(first: Path, second: Gold,
                                                          tmp_path: Path) -> None:
    path = Path(shutil.copytree(first, tmp_path / "store"))
    application = Application(path)
    before = composite(application)
    with pytest.raises(exceptions.AccountClash, match=r"mysql=\d+ in mysql, sitestore=\d+ in store"
                       ):
        trees.native(application).capture("site", second, onto="lamp")
    assert composite(application) == before
    sound(application)


def test_one_composite_has_the_parts_of_both(both: Application, first: Path) -> None:
    found, before = composite(both), composite(Application(first))
    assert set(found.parts) == {*before.parts, "store", "front", "dep.front.store"}
    assert {name: ref for name, ref in found.parts.items() if name in before.parts} == before.parts
    assert (found.base, found.id, found.shared) == (before.base, before.id, before.shared)
    assert found.parts["store"].requires == ("dep.front.store",)
    assert found.conflicts == ()
    assert [note for note in found.notes if "became" in note]
    sound(both)


def test_what_was_made_before_is_still_exact(both: Application) -> None:
    for parts in ("apache",), ("mysql",):
        assert both.images.plan(Request(composite="lamp", parts=parts)).exact


def test_parts_that_are_stored_are_not_stored_again(first: Path, lamp: Lamp,
                                                    tmp_path: Path) -> None:
    path = Path(shutil.copytree(first, tmp_path / "store"))
    application = Application(path)
    stored = {part.id for part in application.store.parts()}
    blobs = {item.name for item in (path / "objects").rglob("*") if item.is_file()}
    trees.native(application).capture("again", Gold(disk=lamp.disks["base"], steps=tuple(
        (name, lamp.tars[name]) for name in NAMES)))
    assert {part.id for part in application.store.parts()} == stored
    new = {item.name for item in (path / "objects").rglob("*") if item.is_file()} - blobs
    assert new <= {application.store.composite("again").base.disk}
    sound(application)


@pytest.mark.parametrize("onto", ["site", "lamp"])
def test_another_base_is_refused(first: Path, lamp: Lamp, tmp_path: Path, onto: str) -> None:
    path = Path(shutil.copytree(first, tmp_path / "store"))
    application = Application(path)
    if onto == "site":
        expected: type[Exception] = exceptions.NotFound
        gold = Gold(disk=lamp.disks["base"], steps=(("x", lamp.tars["apache"]),))
    else:
        expected = exceptions.InvalidInput
        gold = Gold(disk=lamp.disks["apache"], steps=(("x", lamp.tars["mysql"]),))
    with pytest.raises(expected):
        trees.native(application).capture("other", gold, onto=onto)
    sound(application)


MIXED = [("store",), ("front",), ("apache", "store"), ("php", "front"), ("mysql", "store"),
         ("apache", "php", "mysql", "front", "store")]


@pytest.mark.parametrize("chosen", [
    pytest.param(chosen, id=named(chosen), marks=[] if chosen in (
        ("mysql", "store"), ("apache", "php", "mysql", "front", "store"))
        else [pytest.mark.accept]) for chosen in MIXED])
def test_parts_of_both_on_one_disk(both: Application, lamp: Lamp, chosen: tuple[str, ...]) -> None:
    with trees.laid(both, "lamp", *chosen) as (tree, plan):
        assert plan.target is not None
        found = tree.manifest()
        assert trees.told(found, plan.target.manifest) == []
        assert trees.audit(tree) == ""
        assert set(trees.verify(tree)) <= set(lamp.verified)
        assert trees.simulate_check(tree) == ""
        ours = {line.split()[0] for line in trees.packages(tree)} & {
            "libsite", "sitestore", "sitefront"}
        assert ours == {name for name, with_ in (
            ("libsite", {"store", "front"}), ("sitestore", {"store"}), ("sitefront", {"front"}))
            if with_ & set(chosen)}
        theirs = tuple(name for name in NAMES if name in chosen)
        expected = lamp.expected[theirs] if theirs else lamp.packages["base"]
        assert [line for line in trees.packages(tree) if line.split()[0] not in ours] == expected
        # Whose files are whose, by name; and by one name each.
        if "store" in chosen:
            assert owners(tree, found, "var/lib/sitestore", "usr/bin/sitestore") == {
                "var/lib/sitestore": ("sitestore", "sitestore"),
                "var/lib/sitestore/data": ("sitestore", "sitestore"),
                "usr/bin/sitestore": ("root", "sitestore")}
            assert "sitestore" in tree.run("id -nG sitestore; getent group www-data").stdout
            assert tree.read("var/lib/dpkg/statoverride").split(b"\n").count(
                b"root sitestore 750 /usr/bin/sitestore") == 1
        if "mysql" in chosen:
            assert set(owners(tree, found, "var/lib/mysql/").values()) <= {
                ("mysql", "mysql"), ("root", "root")}
        for table in "passwd", "group":
            rows = [line.split(":") for line in tree.read(f"etc/{table}").decode().splitlines()]
            assert len({row[2] for row in rows}) == len({row[0] for row in rows}) == len(rows)
        assert not [e for e in found if e.uid not in accounts(tree, "passwd")
                    or e.gid not in accounts(tree, "group")]
        shells = tree.read("etc/shells").decode().split()
        assert ("/usr/bin/sitesh" in shells, "/usr/bin/frontsh" in shells) == (
            "store" in chosen, "front" in chosen)
        # gawk comes with mysql and is preferred; else the front's own.
        awk = tree.run("update-alternatives --query awk; readlink /etc/alternatives/awk").stdout
        assert ("/usr/bin/sitefront" in awk) is ("front" in chosen)
        assert awk.splitlines()[-1] == ("/usr/bin/gawk" if "mysql" in chosen else "/usr/bin/mawk")


@pytest.mark.must_show("main-job", 3)
def test_the_order_of_both_machines_parts_cannot_show(both: Application) -> None:
    """Eight parts and a file set: fifty orders."""
    found = composite(both)
    names = found.closure(["apache", "php", "mysql", "front", "store"])
    first = lay_both(both, names)
    dice = random.Random(7)
    for _ in range(50):
        again = lay_both(both, dice.sample(names, len(names)))
        assert again.manifest.encode() == first.manifest.encode()
        assert again.generated == first.generated
    for four in itertools.islice(itertools.combinations(found.visible(), 4), 2):
        results = {lay_both(both, order).manifest.digest
                   for order in itertools.permutations(four)}
        assert len(results) == 1


def lay_both(application: Application, names: object) -> Target:
    return lay(application, order=tuple(names))  # type: ignore[arg-type]


def test_taken_off_again(both: Application) -> None:
    """From all to one of each machine and to the base."""
    found = composite(both)
    base = both.store.manifest(found.base.manifest)
    with trees.mounted(both.store.path(found.base.disk)) as tree:
        current = base
        for chosen in (MIXED[-1], ("mysql", "store"), ("php", "front"), ()):
            goal = lay(both, *chosen)
            trees.change(both, tree, current, goal)
            current = goal.manifest
            assert trees.told(tree.manifest(), current) == []
        assert current == base


# -- Debian's own packages, by the appliance -------------------------------------------------------


@pytest.mark.accept
def test_redis_and_nginx_over_the_same_base(lamp: Lamp, tmp_path: Path) -> None:
    """The second machine's base is of another build."""
    disks = gold_machines.machine(steps=REAL)
    tars = gold_machines.build_steps(gold_machines.CACHE, REAL)
    application = Application(tmp_path / "store")
    images = application.images
    images.capture("lamp", Gold(disk=lamp.disks["base"], steps=tuple(
        (name, lamp.tars[name]) for name in NAMES)))
    _, before = images.assemble(Request(composite="lamp", parts=("apache",)))
    second = Gold(disk=disks["base"], steps=tuple((s.name, tars[s.name]) for s in REAL))
    found = images.capture("cache", second, onto="lamp", renumber=True)
    assert found.conflicts == ()
    sound(application)
    plan, again = images.assemble(Request(composite="lamp", parts=("apache",)))
    assert plan.exact and again.disk == before.disk

    with trees.mounted(disks["nginx"]) as tree:
        status = tree.read("var/lib/dpkg/status")
    packages = {**SOFTWARE, **{s.name: s.packages for s in REAL}}
    with trees.mounted(lamp.disks["php"]) as tree:
        both = tree.read("var/lib/dpkg/status") + b"\n" + status
    for chosen in (("apache", "redis"), ("php", "nginx"), ("mysql", "redis"),
                   (*NAMES, "redis", "nginx")):
        _, done = images.assemble(Request(composite="lamp", parts=chosen))
        assert done.image is not None
        with trees.mounted(lamp.disks["base"]) as tree:
            expected = trees.expected_packages(
                tree, both, [package for name in chosen for package in packages[name]])
        with trees.mounted(application.store.path(done.disk)) as tree:
            have = tree.manifest()
            assert trees.told(have, application.store.manifest(done.image.manifest)) == []
            assert (trees.audit(tree), trees.simulate_check(tree)) == ("", "")
            assert set(trees.verify(tree)) <= set(lamp.verified)
            assert trees.packages(tree) == sorted(set(expected))
            if "redis" in chosen:
                assert set(owners(tree, have, "var/lib/redis").values()) == {("redis", "redis")}
                tree.run("ldconfig; runuser -u redis -- redis-server --version")
            if "nginx" in chosen:
                tree.run("ldconfig; mkdir -p /run; nginx -t")
    sound(application)
    goals: dict[tuple[str, ...], target.Target] = {
        order: lay(application, order=order) for order in itertools.islice(
            itertools.permutations(found.closure(["redis", "nginx", "mysql"])), 24)}
    assert len({goal.manifest.digest for goal in goals.values()}) == 1
