"""The steps splitter on invented machines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitimage_driver.capture import pack, steps
from splitimage_driver.capture.draft import Draft
from splitimage_driver.capture.gold import GoldState, Spool
from splitimage_driver.capture.identity import Identity
from splitimage_driver.model.entry import FILE, FileEntry
from splitimage_driver.model.plan import Target
from tests.unit import machines
from tests.unit.machines import State, Thing, base, install, with_account


class Captured:
    """A machine's steps, split, and what comes of choices of them."""

    def __init__(self, place: Path, *told: tuple[str, Mapping[str, Thing]],
                 found: list[GoldState] | None = None) -> None:
        self.states = found or machines.states(*told)
        self.spool = Spool(place / "contents")
        self.draft: Draft = steps.Steps().split(
            self.states, {}, rest="x-rest", identity=Identity(), spool=self.spool).draft
        self.base = self.states[0].manifest

    def laid(self, *names: str) -> Target:
        target = machines.laid(self.draft, self.base, self.states, names, self.spool,
                               self.states[0].shared)
        assert target.conflicts == ()
        return target

    def tree(self, *names: str) -> dict[str, object]:
        target = self.laid(*names)
        known = dict(target.generated)
        found: dict[str, object] = {}
        for s in self.states:
            self.spool.take(s, [e.path for e in s.manifest if e.is_file])
        for e in target.manifest:
            if e.path:
                found[e.path.decode()] = (
                    known.get(e.path) or self.spool.get(e.sha256) if e.is_file
                    else e.target.decode() or e.mode)
        return found

    def gold(self, number: int) -> dict[str, object]:
        return self.contents(self.states[number])

    def contents(self, s: GoldState) -> dict[str, object]:
        self.spool.take(s, [e.path for e in s.manifest if e.is_file])
        return {e.path.decode(): self.spool.get(e.sha256) if e.is_file
                else e.target.decode() or e.mode for e in s.manifest if e.path}

    def layers(self, part: str) -> dict[tuple[str, ...], tuple[set[str], set[str]]]:
        """By condition: (paths it brings, paths it deletes), database aside."""
        manifest = self.draft.manifests(self.base, [s.manifest for s in self.states])[part]
        return {layer.when: (
            {e.path.decode() for e in layer.entries if not e.is_dir
             and not e.path.startswith(b"var/lib/")}, {p.decode() for p in layer.deleted})
            for layer in manifest.layers if layer.entries or layer.deleted}


def lamp() -> tuple[State, State, State, State]:
    """Apache and PHP in small: libz for both, PHP switches a file of Apache's."""
    zero = base()
    one = install(zero, "libz", {"usr/lib/libz": b"z"}, manual=False)
    one = install(one, "apache2", {"usr/sbin/apache2": b"apache", "etc/apache2/conf": b"conf",
                                   "etc/apache2/mods/event": b"event",
                                   "etc/apache2/mods/prefork": b"prefork"}, depends=["libz"])
    one["etc/apache2/enabled/event"] = "../mods/event"
    two = install(one, "mariadb", {"usr/sbin/mariadbd": b"db"},
                  script="adduser --system mysql; install -d -o mysql /var/lib/mysql")
    two = with_account(two, "mysql", 102)
    two["var/lib/mysql/table"] = (FileEntry(b"", FILE, 0o600, uid=102, size=4), b"rows")
    three = install(two, "php", {"usr/bin/php": b"php"}, depends=["libz"])
    del three["etc/apache2/enabled/event"]
    three["etc/apache2/enabled/prefork"] = "../mods/prefork"
    three["etc/php.ini"] = b"ini"
    return zero, one, two, three


@pytest.fixture
def captured(tmp_path: Path) -> Captured:
    return Captured(tmp_path, *zip(("base", "apache", "mysql", "php"), lamp(), strict=True))


def packages(tree: Mapping[str, object]) -> set[str]:
    status = tree[machines.STATUS]
    assert isinstance(status, bytes)
    return {line.split()[1].decode() for line in status.splitlines()
            if line.startswith(b"Package:")}


def test_all_steps_give_each_state_of_the_machine(captured: Captured) -> None:
    assert captured.tree() == captured.gold(0)
    assert captured.tree("apache") == captured.gold(1)
    assert captured.tree("apache", "mysql") == captured.gold(2)
    assert captured.tree("apache", "mysql", "php") == captured.gold(3)
    assert captured.draft.notes == []


def test_shared_packages_are_a_dependency_part(captured: Captured) -> None:
    assert captured.draft.requires == {"apache": {"dep.apache.php"}, "mysql": set(),
                                       "php": {"dep.apache.php"}}
    assert captured.layers("dep.apache.php") == {(): ({"usr/lib/libz"}, set())}
    assert packages(captured.tree("php")) == {"base-files", "libz", "php"}
    assert packages(captured.tree("mysql")) == {"base-files", "mariadb"}
    assert captured.draft.packages == {"apache": {"apache2"}, "mysql": {"mariadb"},
                                       "php": {"php"}, "dep.apache.php": {"libz"}}


def test_what_a_step_did_in_anothers_place_is_under_a_condition(captured: Captured) -> None:
    switched = ({"etc/apache2/enabled/prefork"}, {"etc/apache2/enabled/event"})
    assert captured.layers("php") == {
        (): ({"usr/bin/php", "etc/php.ini"}, set()), ("apache",): switched}
    alone, both = captured.tree("php"), captured.tree("apache", "php")
    assert not any(path.startswith("etc/apache2") for path in alone)
    assert {path for path in both if path.startswith("etc/apache2/enabled/")} == {
        "etc/apache2/enabled/prefork"}


def test_data_and_accounts_come_with_their_software(captured: Captured) -> None:
    tree = captured.tree("mysql")
    assert tree["var/lib/mysql/table"] == b"rows"
    assert b"mysql:x:102:" in tree["etc/passwd"]  # type: ignore[operator]
    assert b"mysql" not in captured.tree("php")["etc/passwd"]  # type: ignore[operator]


# -- several steps and one file ------------------------------------------------------------

LINES = b"".join(b"line %d\n" % number for number in range(1, 20))


def edited(content: object, number: int, by: str) -> bytes:
    assert isinstance(content, bytes)
    return content.replace(b"line %d\n" % number, b"line of %s\n" % by.encode())


@pytest.mark.parametrize("ours", [True, False], ids=["of the base", "of the first step"])
def test_three_steps_change_one_text(tmp_path: Path, ours: bool) -> None:
    zero = base()
    if ours:
        zero["etc/hosts.conf"] = LINES
    told, machine = [("base", dict(zero))], zero
    for number, name in ((3, "one"), (8, "two"), (13, "three")):
        machine = install(machine, f"pkg-{name}", {f"usr/bin/{name}": b"x"})
        machine["etc/hosts.conf"] = edited(machine.get("etc/hosts.conf", LINES), number, name)
        told.append((name, dict(machine)))
    found = Captured(tmp_path, *told)
    names = {"one": 3, "two": 8, "three": 13}
    for chosen in subsets(names):
        expected = LINES
        for name in chosen:
            expected = edited(expected, names[name], name)
        if ours or "one" in chosen:
            assert found.tree(*chosen)["etc/hosts.conf"] == expected, chosen
        else:
            assert "etc/hosts.conf" not in found.tree(*chosen)


def test_changes_of_the_same_lines_are_taken_over_whole_and_told(tmp_path: Path) -> None:
    zero = base() | {"etc/f": b"line 1\n"}
    one = install(zero, "pkg-a") | {"etc/f": b"line of a\n"}
    two = install(one, "pkg-b") | {"etc/f": b"line of b\n"}
    found = Captured(tmp_path, ("base", zero), ("a", one), ("b", two))
    assert found.tree("a")["etc/f"] == b"line of a\n"
    assert found.tree("b")["etc/f"] == found.tree("a", "b")["etc/f"] == b"line of b\n"
    assert ["/etc/f" in note and "b" in note for note in found.draft.notes] == [True]


def test_a_removed_file_of_the_base(tmp_path: Path) -> None:
    """And comes back where the step that removed it is left out."""
    zero = base() | {"etc/motd": b"hello", "etc/other": b"other"}
    one = install(zero, "pkg-a") | {"etc/motd": b"changed"}
    two = install(one, "pkg-b")
    del two["etc/motd"], two["etc/other"]
    found = Captured(tmp_path, ("base", zero), ("a", one), ("b", two))
    assert {"etc/motd", "etc/other"}.isdisjoint(found.tree("a", "b"))
    assert {"etc/motd", "etc/other"}.isdisjoint(found.tree("b"))
    assert found.tree("a")["etc/motd"] == b"changed"
    assert found.tree()["etc/motd"] == b"hello"
    restored = pack.restore_manifest(found.base, found.draft.manifests(
        found.base, [s.manifest for s in found.states]).values())
    assert {b"etc/motd", b"etc/other"} <= {e.path for _, e in restored.entries()}


def test_members_that_two_steps_add_to_a_group(tmp_path: Path) -> None:
    zero = base()
    zero["etc/group"] = zero["etc/group"] + b"ssl-cert:x:105:\n"  # type: ignore[operator]
    one, two = install(zero, "pkg-a"), {}
    one["etc/group"] = b"root:x:0:\nwww-data:x:33:\nssl-cert:x:105:alice\n"
    two = install(one, "pkg-b")
    two["etc/group"] = b"root:x:0:\nwww-data:x:33:\nssl-cert:x:105:alice,bob\n"
    found = Captured(tmp_path, ("base", zero), ("a", one), ("b", two))
    members = {chosen: bytes(found.tree(*chosen)["etc/group"]).rpartition(b":")[2].strip()  # type: ignore[call-overload]
               for chosen in subsets(["a", "b"])}
    assert members == {(): b"", ("a",): b"alice", ("b",): b"bob", ("a", "b"): b"alice,bob"}


def subsets(names: Iterable[str]) -> list[tuple[str, ...]]:
    names = list(names)
    return [chosen for size in range(len(names) + 1)
            for chosen in itertools.combinations(names, size)]


# -- changes of types, links ------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [
    ({"srv/a": "b", "srv/b/x": b"x"}, {"srv/a/y": b"y", "srv/b/x": b"x"}),
    ({"srv/a/x": b"x"}, {"srv/a": "b", "srv/b/x": b"x"}),
    ({"srv/a": b"file"}, {"srv/a/x": b"x"}),
    ({"srv/a/x/y": b"x"}, {"srv/a": b"file"}),
    ({"srv/a": b"file"}, {"srv/a": "b"}), ({"srv/a": None}, {"srv/a": "b"}),
    ({"srv/a": "b"}, {"srv/a": None, "srv/b": b"file"}),
])
def test_types_change(tmp_path: Path, before: State, after: State) -> None:
    zero = base() | before
    one = install(base(), "pkg-a") | after
    found = Captured(tmp_path, ("base", zero), ("a", one))
    assert found.tree("a") == found.gold(1)
    assert found.tree() == found.gold(0)


def test_a_tar_with_bin_beside_usr_bin(tmp_path: Path) -> None:
    """A root tar may call by the old name what is one on the base."""
    one = install(base(), "pkg-a", {"usr/bin/new": b"new"})
    del one["bin"], one["usr/bin"]
    one = {path.replace("usr/bin/", "bin/"): thing for path, thing in one.items()}
    found = Captured(tmp_path, ("base", base()), ("a", one))
    assert found.tree("a")["usr/bin/new"] == b"new"
    assert found.tree("a")["bin"] == "usr/bin"


def test_hard_links_to_files_of_the_base(tmp_path: Path) -> None:
    zero = base() | {"srv/a": b"linked"}
    one = install(zero, "pkg-a")
    first = machines.state("base", zero, {"srv/b": "srv/a"})
    second = machines.state("a", one, {"srv/b": "srv/a", "srv/c": "srv/a"}, first.place)
    found = Captured(tmp_path, found=[first, second])
    target = found.laid("a")
    assert [target.manifest.by_path[b"srv/" + name].link for name in (b"a", b"b", b"c")] == [
        b"srv/a"] * 3
    assert found.layers("a")[()][0] == {"srv/c"}


# -- packages ---------------------------------------------------------------------------------


def test_recommended_packages_are_their_steps_and_of_who_needs_them(tmp_path: Path) -> None:
    zero = base()
    one = install(zero, "pkg-x", {"usr/lib/x": b"x"}, manual=False)
    one = install(one, "pkg-y", {"usr/lib/y": b"y"}, manual=False)
    one = install(one, "pkg-a", {"usr/bin/a": b"a"}, recommends=["pkg-x", "pkg-y"])
    two = install(one, "pkg-b", {"usr/bin/b": b"b"}, depends=["pkg-x"])
    found = Captured(tmp_path, ("base", zero), ("a", one), ("b", two))
    assert packages(found.tree("a")) == {"base-files", "pkg-a", "pkg-x", "pkg-y"}
    assert packages(found.tree("b")) == {"base-files", "pkg-b", "pkg-x"}
    assert {"usr/lib/x"} == {p for p in found.tree("b") if p.startswith("usr/lib/")}
    assert found.tree("a", "b") == found.gold(2)


def test_a_package_that_a_later_step_removed(tmp_path: Path) -> None:
    zero = base()
    one = install(zero, "pkg-a", {"usr/bin/a": b"a"})
    two = install(zero, "pkg-b", {"usr/bin/b": b"b"})
    found = Captured(tmp_path, ("base", zero), ("a", one), ("b", two))
    assert found.tree("a", "b") == found.gold(2)
    assert found.tree("a")["usr/bin/a"] == b"a"


def test_a_step_may_change_a_package_of_the_base(tmp_path: Path) -> None:
    zero = base()
    one = install(zero, "pkg-a")
    one["usr/bin/sh"] = b"newer shell"
    found = Captured(tmp_path, ("base", zero), ("a", one))
    assert found.tree("a")["usr/bin/sh"] == b"newer shell"
    assert found.tree()["usr/bin/sh"] == b"shell"


def test_without_a_package_database_steps_build_on_each_other(tmp_path: Path) -> None:
    zero: State = {"etc/os": b"odd"}
    one, two = zero | {"opt/a": b"a"}, zero | {"opt/a": b"a", "opt/b": b"b"}
    found = Captured(tmp_path, ("base", zero), ("a", one), ("b", two))
    assert found.draft.requires == {"a": set(), "b": {"a"}}
    assert found.tree("b") == found.gold(2)
    assert "no package database" in found.draft.notes[0]


def test_what_belongs_to_one_machine_is_in_no_part(tmp_path: Path) -> None:
    zero = base()
    one = install(zero, "pkg-a") | {
        "etc/ssh/ssh_host_ed25519_key": b"secret", "var/log/a.log": b"log", "etc/a": b"a",
        "var/cache/apt/x.bin": b"cache", "root/.bash_history": b"rm"}
    found = Captured(tmp_path, ("base", zero), ("a", one))
    assert found.layers("a") == {(): ({"etc/a"}, set())}


# -- any steps --------------------------------------------------------------------------------

Operation = Callable[[State], None]
_TEXT, _DATA, _GROUP = "srv/text", ("srv/data0", "srv/data1"), "etc/group"


def _line(number: int, by: str) -> Operation:
    def change(machine: State) -> None:
        if _TEXT in machine:
            machine[_TEXT] = edited(machine[_TEXT], number, by)
    return change


def _put(path: str, content: bytes) -> Operation:
    def change(machine: State) -> None:
        if path in machine:
            machine[path] = content
    return change


def _remove(path: str) -> Operation:
    def change(machine: State) -> None:
        machine.pop(path, None)
    return change


def _own(name: str) -> Operation:
    def change(machine: State) -> None:
        machine[f"srv/own/{name}"] = name.encode()
    return change


def _member(name: str) -> Operation:
    def change(machine: State) -> None:
        head, members = bytes(machine[_GROUP]).rstrip().rsplit(b":", 1)  # type: ignore[arg-type]
        found = sorted({*filter(None, members.split(b",")), name.encode()})
        machine[_GROUP] = head + b":" + b",".join(found) + b"\n"
    return change


def operations(number: int) -> st.SearchStrategy[list[Operation]]:
    name = f"s{number}"
    data = st.sampled_from(_DATA)
    return st.lists(st.one_of(
        st.just(_line(1 + 4 * number, name)), st.just(_own(name)), st.just(_member(name)),
        data.map(lambda path: _put(path, b"\0by " + name.encode())), data.map(_remove),
        st.just(_remove(_TEXT))), max_size=3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow,
                                                  HealthCheck.function_scoped_fixture])
@given(st.tuples(*map(operations, range(4))))
def test_each_choice_of_steps_is_as_if_only_they_had_been_made(
        tmp_path: Path, told: Sequence[list[Operation]]) -> None:
    """For changes that do not depend on each other."""
    # One file stays: in these machines a directory goes with its last file, and no
    # step can say that of one which is still in use when the last step is done.
    zero = base() | {_TEXT: LINES, _DATA[0]: b"\0data", _DATA[1]: b"\0data",
                     "srv/kept": b"kept"}
    zero[_GROUP] = bytes(zero[_GROUP]) + b"team:x:200:\n"  # type: ignore[arg-type]

    #: what had an effect in the whole machine
    done: list[list[Operation]] = [[], [], [], []]

    def step(machine: State, number: int, wanted: list[Operation]) -> State:
        after = install(machine, f"pkg{number}", {f"usr/bin/p{number}": b"x"})
        for operation in wanted:
            before = dict(after)
            operation(after)
            if after != before and wanted is not done[number]:
                done[number].append(operation)
        return after

    machine, all_told = zero, [("base", zero)]
    for number in range(4):
        machine = step(machine, number, told[number])
        all_told.append((f"s{number}", machine))
    found = Captured(tmp_path, *all_told)
    for chosen in itertools.chain.from_iterable(
            itertools.combinations(range(4), size) for size in range(5)):
        expected = zero
        for number in chosen:
            expected = step(expected, number, done[number])
        only = found.contents(machines.state("only", expected))
        assert found.tree(*(f"s{number}" for number in chosen)) == only, chosen
    assert found.draft.notes == []


def test_a_correction_puts_right_what_no_part_has(tmp_path: Path) -> None:
    """Rows cannot tell a last line without its end."""
    zero = base()
    one = install(zero, "pkg-a")
    one["etc/group"] = b"root:x:0:\nwww-data:x:33:\nmine:x:500:"
    found = Captured(tmp_path, ("base", zero), ("a", one))
    trees = [s.manifest for s in found.states]
    corrected = pack.correct(found.draft, found.base, trees[-1], trees,
                             shared=found.states[0].shared, identity=Identity(),
                             ignore=frozenset())
    assert corrected == 1
    assert [e.path for _, e in found.draft.entries("x-rest")] == [b"etc/group"]
    target = machines.laid(found.draft, found.base, found.states, ["a", "x-rest"], found.spool,
                           found.states[0].shared)
    assert target.manifest.by_path[b"etc/group"].same(msgspec.structs.replace(
        trees[-1].by_path[b"etc/group"]))
