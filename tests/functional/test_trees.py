"""Parts laid on disks against the gold machine they were captured from.

The gold machine is the demonstration's (tests/functional/lamp.py).
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from splitimage_driver.application import Application
from splitimage_driver.assembly import assembler
from splitimage_driver.capture.identity import RULES, Identity
from splitimage_driver.capture.machine import Gold
from splitimage_driver.model.manifest import Manifest
from splitimage_driver.model.plan import Request, Target, Work
from tests.functional import oddgold, trees
from tests.functional.lamp import (
    NAMES,
    SUBSETS,
    Lamp,
    base_tree,
    composite,
    lay,
    named,
)

pytest_plugins = ("tests.functional.lamp",)
pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")]
SPLITTERS = ("steps", "packages")
#: One subset each that the default run looks at; all are in the full list.
SAMPLE = {("steps", ("php",)), ("packages", ("apache", "php"))}
#: What the packages splitter cannot know of a finished machine: how it was
#: before the last step.
HINDSIGHT = (b"etc/apache2/mods-enabled/mpm_", b"var/lib/apache2/module/")


def line(number: int) -> pytest.MarkDecorator:
    return pytest.mark.must_show("main-job", number)


# -- the whole machine ------------------------------------------------------------------------


@line(2)
@pytest.mark.parametrize("splitter", ["steps", pytest.param(
    "packages", marks=pytest.mark.accept)])
def test_everything_gives_the_gold_machine(
        by_appliance: Callable[[str], Application], lamp: Lamp, splitter: str,
        record_property: Callable[[str, object], None]) -> None:
    """By the appliance; the disk is read back."""
    application = by_appliance(splitter)
    plan, done = application.images.assemble(Request(composite="lamp", parts=NAMES))
    assert done.image is not None and plan.estimate.match == "base"
    with trees.mounted(application.store.path(done.disk)) as tree:
        found = tree.manifest()
        assert trees.audit(tree) == ""
        assert trees.verify(tree) == lamp.verified
        assert trees.packages(tree) == lamp.packages[NAMES[-1]]
    assert trees.against_gold(lamp.trees[NAMES[-1]], found) == []
    # What is stored is what is there, to the times and holes.
    stored = application.store.manifest(done.image.manifest)
    assert trees.told(found, stored) == []
    # Of the project's own nothing but what it lists, and all of that.
    added = {e.path for e in found if e.path not in lamp.trees[NAMES[-1]]}
    assert {path for path in added if b"splitimage" in path} == {
        *trees.OURS, b"usr/lib/splitimage"}
    assert added - trees.OURS <= {b"usr/lib/splitimage", b"etc/machine-id"}
    record_property(f"entries compared, {splitter}", len(found))


@line(2)
def test_differences_would_be_seen(lamp: Lamp) -> None:
    """The comparison that the test above trusts is not blind."""
    machine = lamp.trees[NAMES[-1]]

    def changed(path: str, **fields: object) -> Manifest:
        e = machine.by_path[path.encode()]
        return machine | [msgspec.structs.replace(e, **fields)]

    for other in (
            changed("etc/apache2/apache2.conf", sha256=b"x" * 32),
            changed("etc/shadow", mode=0o644), changed("var/lib/mysql/ibdata1", uid=0),
            changed("usr/bin/ssh-agent", gid=0), changed("etc/alternatives/awk", target=b"/x"),
            changed("var/lib/dpkg/status", sha256=b"x" * 32), changed("usr/bin/perl", link=b""),
            changed("var/log/apache2", gid=0),
            machine - [b"etc/php/8.2/cli/php.ini"],
            machine | [msgspec.structs.replace(machine.by_path[b"etc/fstab"], path=b"etc/new")]):
        assert len(trees.against_gold(machine, other)) == 1
    # And the rules that excuse differences excuse few.
    excused = [e.path for e in machine if Identity().excludes(e)]
    assert len(excused) < 80
    assert not [path for path in excused if path.startswith((b"etc/", b"usr/")) and not any(
        word in path for word in (b"machine-id", b"ssh_host", b"ld.so.cache", b"fstab", b"snakeoil",
                                  b"etc/passwd-", b"etc/group-", b"etc/shadow-", b"etc/gshadow-",
                                  b".pwd.lock", b"etc/subuid-", b"etc/subgid-"))]
    assert len(RULES) < 70


@line(2)
@pytest.mark.parametrize("splitter", ["steps", pytest.param(
    "packages", marks=pytest.mark.accept)])
def test_with_and_without_an_appliance_the_same_is_captured(
        by_appliance: Callable[[str], Application], native: Callable[[str], Application],
        splitter: str) -> None:
    one, two = composite(by_appliance(splitter)), composite(native(splitter))
    assert one.parts == two.parts
    assert (one.base.manifest, one.restore, one.shared) == (two.base.manifest, two.restore,
                                                            two.shared)


@line(2)
@pytest.mark.parametrize("splitter", SPLITTERS)
def test_nothing_is_left_to_ask_and_little_to_the_rest(native: Callable[[str], Application],
                                                       splitter: str) -> None:
    application = native(splitter)
    found = composite(application)
    assert found.conflicts == ()
    assert [note for note in found.notes if "belong to no part" in note] == []
    rest = found.parts.get("lamp-rest")
    entries = [] if rest is None else [
        e for _, e in application.store.part_manifest(rest.id).entries()]
    assert {e.path for e in entries} <= {b"root/.ssh"}


@line(2)
@pytest.mark.parametrize("splitter", SPLITTERS)
def test_the_base_is_the_system_before_any_software(
        native: Callable[[str], Application], lamp: Lamp, splitter: str) -> None:
    """Also where only the finished machine was seen."""
    application = native(splitter)
    with trees.mounted(application.store.path(composite(application).base.disk)) as tree:
        found = tree.manifest()
        assert (trees.audit(tree), trees.verify(tree)) == ("", [])
        assert trees.packages(tree) == lamp.packages["base"]
    assert trees.told(found, base_tree(application)) == []
    left = trees.against_gold(lamp.trees["base"], found)
    assert left == ([] if splitter == "steps" else ["b'root/.ssh': only in the first"])


# -- every choice of software -------------------------------------------------------------------


def looks_right(tree: trees.Mounted, found: Manifest, chosen: tuple[str, ...], lamp: Lamp) -> None:
    """dpkg's and apt's own words, and that the software runs."""
    assert trees.audit(tree) == ""
    assert set(trees.verify(tree)) <= set(lamp.verified)
    assert trees.packages(tree) == lamp.expected[chosen]
    assert trees.simulate_check(tree) == ""
    tree.run("ldconfig && mkdir -p /run/lock")
    assert (b"usr/sbin/apache2ctl" in found, b"usr/bin/php8.2" in found,
            b"usr/sbin/mariadbd" in found) == tuple(
        name in chosen for name in ("apache", "php", "mysql"))
    if "apache" in chosen:
        done = tree.run("apache2ctl configtest 2>&1")
        assert "Syntax OK" in done.stdout
        assert ("php_module" in tree.run("apache2ctl -M 2>&1").stdout) is ("php" in chosen)
    if "php" in chosen:
        assert tree.run("php -r 'echo implode(PHP_EOL, get_loaded_extensions());'"
                        ).stdout.splitlines().count("mysqli") == 1
    if "mysql" in chosen:
        assert "MariaDB" in tree.run("mariadbd --version").stdout
        # On its own data, as its own user, up to answering a query.
        assert tree.run(
            "echo 'SELECT user FROM mysql.global_priv;' | mariadbd --user=mysql --bootstrap "
            "--skip-grant-tables --datadir=/var/lib/mysql 2>&1; ls -ld /var/lib/mysql"
        ).stdout.splitlines()[-1].split()[2:4] == ["mysql", "mysql"]
    else:
        assert not [e for e in found if b"mysql" in e.path.split(b"/")[-1]
                    and e.path.startswith(b"var/lib/mysql")]
        assert b"mysql:" not in tree.read("etc/passwd")
    for binary in ("usr/sbin/apache2", "usr/bin/php8.2", "usr/sbin/mariadbd"):
        if binary.encode() in found:
            assert "not found" not in tree.run(f"ldd /{binary}").stdout


@line(2)
@pytest.mark.parametrize(("splitter", "chosen"), [
    pytest.param(splitter, chosen, id=f"{splitter}-{named(chosen)}",
                 marks=[] if (splitter, chosen) in SAMPLE else [pytest.mark.accept])
    for splitter in SPLITTERS for chosen in SUBSETS])
def test_every_choice_of_software(native: Callable[[str], Application], lamp: Lamp,
                                  splitter: str, chosen: tuple[str, ...]) -> None:
    application = native(splitter)
    with trees.laid(application, "lamp", *chosen) as (tree, plan):
        found = tree.manifest()
        assert plan.target is not None
        assert trees.told(found, plan.target.manifest) == []
        state = {("apache",): "apache", ("apache", "mysql"): "mysql", NAMES: "php"}.get(chosen)
        if state is not None:
            left = [told for told in trees.against_gold(lamp.trees[state], found)
                    if splitter == "steps" or chosen == NAMES or not any(
                        repr(path)[:-1] in told for path in HINDSIGHT)]
            assert left == ([] if splitter == "steps" or chosen == NAMES
                            else ["b'root/.ssh': only in the first"])
        looks_right(tree, found, chosen, lamp)


@line(2)
@pytest.mark.accept
@pytest.mark.parametrize("splitter", SPLITTERS)
@pytest.mark.parametrize("chosen", SUBSETS, ids=named)
def test_every_choice_of_software_by_the_appliance(
        by_appliance: Callable[[str], Application], lamp: Lamp, splitter: str,
        chosen: tuple[str, ...]) -> None:
    """From whatever is nearest by then, the disk is read back."""
    application = by_appliance(splitter)
    _, done = application.images.assemble(Request(composite="lamp", parts=chosen))
    assert done.image is not None
    with trees.mounted(application.store.path(done.disk)) as tree:
        found = tree.manifest()
        assert trees.told(found, application.store.manifest(done.image.manifest)) == []
        looks_right(tree, found, chosen, lamp)
    assert found.by_path.keys() ^ {b"lost+found"} >= lay(
        application, *chosen).manifest.by_path.keys() - {b"lost+found"}


@line(2)
def test_php_switches_apaches_modules(native: Callable[[str], Application]) -> None:
    """Eight paths appear and three vanish, only where both are there."""
    application = native("steps")

    def enabled(*names: str) -> set[str]:
        place = b"etc/apache2/mods-enabled/"
        return {e.path.removeprefix(place).decode() for e in lay(application, *names).manifest
                if e.path.startswith(place)}

    alone, both = enabled("apache"), enabled("apache", "php")
    assert {"mpm_event.conf", "mpm_event.load"} == alone - both
    assert {"mpm_prefork.conf", "mpm_prefork.load", "php8.2.conf", "php8.2.load"} == both - alone
    assert enabled("php") == enabled("mysql") == set()
    layers = application.store.part_manifest(composite(application).parts["php"].id).layers
    [switch] = [layer for layer in layers if layer.when == ("apache",)]
    state = b"var/lib/apache2/module/"
    assert set(switch.deleted) == {
        b"etc/apache2/mods-enabled/mpm_event.conf", b"etc/apache2/mods-enabled/mpm_event.load",
        state + b"enabled_by_maint/mpm_event"}
    assert {e.path for e in switch.entries if not e.is_dir and b"apache2" in e.path.split(b"/")[:3]
            } == {b"etc/apache2/mods-enabled/" + name for name in (
                b"mpm_prefork.conf", b"mpm_prefork.load", b"php8.2.conf", b"php8.2.load")} | {
        state + name for name in (b"disabled_by_maint/mpm_event", b"enabled_by_maint/mpm_prefork",
                                  b"enabled_by_maint/php8.2")}


@line(2)
@pytest.mark.parametrize("splitter", SPLITTERS)
def test_mysql_brings_no_apache(native: Callable[[str], Application], splitter: str) -> None:
    application = native(splitter)
    names = composite(application).closure(["mysql"])
    assert names == ("dep.mysql.php", "mysql")
    base = base_tree(application).by_path
    found = lay(application, "mysql").manifest
    assert [e.path for e in found if e.path not in base and (
        b"apache" in e.path or b"php" in e.path)] == []
    refs = composite(application).parts
    brought = {package.partition("=")[0] for name in names
               for package in application.store.part(refs[name].id).packages}
    assert "mariadb-server" in brought
    assert not [name for name in brought if name.startswith(("apache", "php", "libapache"))]


@line(2)
def test_numbers_of_groups_fit_their_names(native: Callable[[str], Application]) -> None:
    """ssh-agent's group, and the database's files, whose owners are numbers."""
    application = native("steps")
    for chosen in ("mysql",), ("apache", "php"), NAMES:
        found = lay(application, *chosen)
        users, groups = ({int(row.split(b":")[2]): row.split(b":")[0] for row in
                          {**composite(application).shared, **found.generated}[path].splitlines()}
                         for path in (b"etc/passwd", b"etc/group"))
        assert groups[found.manifest.by_path[b"usr/bin/ssh-agent"].gid] == b"_ssh"
        assert not [e for e in found.manifest if e.uid not in users or e.gid not in groups]
        if "mysql" in chosen:
            assert users[found.manifest.by_path[b"var/lib/mysql/ibdata1"].uid] == b"mysql"


# -- removal, and the ways to one request ----------------------------------------------------------


@line(2)
def test_removal_by_the_appliance_ends_where_assembly_does(
        by_appliance: Callable[[str], Application]) -> None:
    """{apache} out of the completed {apache, mysql, php} is {apache} made
    from the base, byte for byte."""
    application = by_appliance("steps")
    images = application.images
    images.assemble(Request(composite="lamp", parts=NAMES))
    for image in application.store.images():  # of other tests
        if image.parts != composite(application).closure(NAMES):
            application.store.delete_image(image.id)
    plan, done = images.assemble(Request(composite="lamp", parts=("apache",)))
    assert done.image is not None
    # Removal is cheaper than injection; the shared files are written anew.
    assert plan.estimate.candidate.kind == "completed"
    assert plan.estimate.match == "partial"
    assert plan.estimate.excess > 1000
    assert plan.estimate.inject_bytes < 5 << 20
    want = lay(application, "apache").manifest
    assert application.store.manifest(done.image.manifest).encode() == want.encode()
    found = trees.read(application.store.path(done.disk))
    assert trees.told(found, want) == []
    # What was removed is not readable in the image either.
    data = application.store.path(done.disk).stat().st_blocks * 512
    assert data < application.store.path(composite(application).base.disk).stat().st_size * 1.5
    again, _ = images.assemble(Request(composite="lamp", parts=("apache",)))
    assert again.exact


@line(2)
@pytest.mark.accept
def test_a_chain_by_the_appliance_ends_where_one_step_does(
        lamp: Lamp, by_appliance: Callable[[str], Application],
        tmp_path_factory: pytest.TempPathFactory) -> None:
    """base, {apache}, {apache, php}, {php}: each from the one before."""
    store = tmp_path_factory.mktemp("chain") / "store"
    shutil.copytree(by_appliance("steps").path, store)
    application = Application(store)
    for image in application.store.images():
        application.store.delete_image(image.id)
    before = "lamp"
    for parts in ("apache",), ("apache", "php"), ("php",):
        plan, done = application.images.assemble(Request(composite="lamp", parts=parts))
        assert plan.estimate.candidate.name == before and done.image is not None
        before = done.image.name
        want = lay(application, *parts).manifest
        assert trees.told(trees.read(application.store.path(done.disk)), want) == []
        assert application.store.manifest(done.image.manifest) == want
    shutil.rmtree(store)


@line(3)
@pytest.mark.accept
@pytest.mark.parametrize("splitter", SPLITTERS)
def test_the_order_of_parts_cannot_show(native: Callable[[str], Application], splitter: str,
                                        record_property: Callable[[str, object], None]) -> None:
    """All orders up to four parts, fifty above, files merged by rows in each."""
    application = native(splitter)
    tried = 0
    for chosen in SUBSETS:
        names = composite(application).closure(chosen)
        orders = list(itertools.permutations(names))
        if len(names) > 4:
            orders = random.Random(str(names)).sample(orders, 50)
        first = lay(application, *chosen)
        assert b"var/lib/dpkg/status" in first.generated
        for order in orders:
            again = lay(application, order=order)
            assert again.manifest.encode() == first.manifest.encode()
            assert (again.sources, again.generated) == (first.sources, first.generated)
            tried += 1
    record_property(f"orders tried, {splitter}", tried)


@line(3)
@pytest.mark.parametrize("order", [
    pytest.param(order, id=named(order), marks=[] if order == ("php", "mysql", "apache")
                 else [pytest.mark.accept]) for order in itertools.permutations(NAMES)])
def test_software_laid_one_after_the_other_on_one_disk(
        native: Callable[[str], Application], order: tuple[str, ...]) -> None:
    """Then taken off again in the same order."""
    application = native("steps")
    base = base_tree(application)
    with trees.mounted(application.store.path(composite(application).base.disk)) as tree:
        current = base
        chosen: list[str] = []
        for name, there in [*((n, True) for n in order), *((n, False) for n in order)]:
            (chosen.append if there else chosen.remove)(name)
            goal = lay(application, *chosen)
            work = trees.change(application, tree, current, goal)
            assert work.unobtainable == ()
            current = goal.manifest
        assert current == base
        found = tree.manifest()
    assert trees.told(found, base) == []


@line(3)
@pytest.mark.accept
@pytest.mark.parametrize("order", [("apache", "mysql"), ("mysql", "apache")], ids=named)
def test_two_orders_by_the_appliance(by_appliance: Callable[[str], Application],
                                     tmp_path: Path, order: tuple[str, ...]) -> None:
    store = tmp_path / "store"
    shutil.copytree(by_appliance("steps").path, store)
    application = Application(store)
    for image in application.store.images():
        application.store.delete_image(image.id)
    for size in 1, 2:
        _, done = application.images.assemble(Request(composite="lamp", parts=order[:size]))
    assert trees.told(trees.read(application.store.path(done.disk)),
                      lay(application, *order).manifest) == []


@line(2)
def test_every_image_can_become_every_other(native: Callable[[str], Application]) -> None:
    """All contents that any way needs are in parts and restore part."""
    application = native("steps")
    goals: Mapping[tuple[str, ...], Target] = {
        chosen: lay(application, *chosen) for chosen in [(), *SUBSETS]}
    for one, two in itertools.permutations(goals, 2):
        work = Work(goals[one].manifest, goals[two].manifest, goals[two].sources,
                    goals[two].generated)
        assert work.unobtainable == (), (one, two)


# -- all that is odd in a file system ------------------------------------------------------------


@pytest.fixture(scope="session")
def odd_gold(tmp_path_factory: pytest.TempPathFactory) -> Gold:
    return oddgold.build(tmp_path_factory.mktemp("oddgold"))


@line(2)
@pytest.mark.parametrize("native_first", [False, pytest.param(True, marks=pytest.mark.accept)])
def test_whatever_a_file_system_can_hold(odd_gold: Gold, tmp_path: Path,
                                         native_first: bool) -> None:
    """Captured, laid and taken off again by the appliance."""
    application = Application(tmp_path / "store")
    images, store = application.images, application.store
    if native_first:
        trees.native(application)
    odd = images.capture("odd", odd_gold)
    assert odd.conflicts == ()
    before, after = trees.read(odd_gold.disk), trees.read(odd_gold.steps[0][1])
    base = trees.read(store.path(odd.base.disk))
    assert trees.against_gold(before, base) == []
    assert trees.told(base, store.manifest(odd.base.manifest)) == []

    _, done = images.assemble(Request(composite="odd", parts=("odd",)))
    assert done.image is not None
    there = trees.read(store.path(done.disk))
    assert trees.against_gold(after, there) == []
    assert trees.told(there, store.manifest(done.image.manifest)) == []
    # The times of files, too: they are not compared between different
    # machines, but here there is only one.
    assert [told for told in trees.differences(after, there, times=True)
            if "mtime" in told and "srv/odd" in told] == []

    goal = images.plan(Request(composite="odd"), explain=True).target
    assert goal is not None
    work = Work(store.manifest(done.image.manifest), goal.manifest, goal.sources, goal.generated)
    assert work.unobtainable == ()
    disk = tmp_path / "back.qcow2"
    shutil.copyfile(store.path(done.disk), disk)
    with images.session(disk, "qcow2", odd.base.mounts) as session:
        assembler.validate(session, work)
        assembler.assemble(session, work, images._read)
    back = trees.read(disk)
    assert trees.told(back, goal.manifest) == []
    assert trees.against_gold(before, back) == []
